"""Concatenation of image sources."""

from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.images.bank import ImageBank
from pseudomotion.source import ImageSource


class Concatenated:
    """The images of several sources, one source after the other.

    Args:
        sources: of images of one size.
        size: side of the images in pixels.

    """

    def __init__(self, sources: Sequence[ImageSource], size: int) -> None:
        for source in sources:
            if isinstance(source, ImageBank) and source.images.shape[2:] != (size, size):
                h, w = source.images.shape[2:]
                raise ValueError(f"images must have one size: a bank has {h} x {w}, the others get {size} x {size}; say --image-size {h}")
        self.sources = sources
        self.ends = torch.tensor([len(source) for source in sources], device="cpu").cumsum(0)
        for name in ("groups", "labels"):  # classes of different sources are different classes
            found: list[Tensor | None] = [getattr(source, name, None) for source in sources]
            if any(values is not None for values in found):
                parts, first = [], 0
                for values, source in zip(found, sources, strict=True):
                    own = torch.zeros(len(source), dtype=torch.int64, device="cpu") if values is None else values
                    parts.append(own + first)
                    first = int(parts[-1].max()) + 1
                setattr(self, name, torch.cat(parts))

    def __len__(self) -> int:
        """Number of images."""
        return int(self.ends[-1])

    @property
    def skipped(self) -> dict[int, str]:
        """Error messages of the files that could not be read, by image index."""
        firsts = [0, *self.ends.tolist()]
        found = (getattr(source, "skipped", {}) for source in self.sources)
        return {first + number: text for first, faults in zip(firsts, found, strict=False) for number, text in faults.items()}

    def get(self, ids: Tensor) -> UInt8[Tensor, "B C H W"]:
        """The images of some ids, on the CPU; an id keeps its epoch in the source that it falls to."""
        checks.item_ids(ids)
        epoch, number = ids // len(self), ids % len(self)
        which = torch.searchsorted(self.ends, number, right=True)
        images: Tensor | None = None
        for k in sorted(set(which.tolist())):
            own, source = which == k, self.sources[k]
            first = int(self.ends[k]) - len(source)
            read = source.get(number[own] - first + epoch[own] * len(source))
            images = torch.empty((len(ids), *read.shape[1:]), dtype=read.dtype, device="cpu") if images is None else images
            images[own] = read.cpu()
        assert images is not None
        return images
