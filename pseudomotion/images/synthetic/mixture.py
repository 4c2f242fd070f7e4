"""``Mixture``: images of several sources in given proportions."""

from collections.abc import Mapping

import torch
from jaxtyping import Int64
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.images.synthetic.base import Images, SyntheticSource
from pseudomotion.source import ImageSource


class Mixture(SyntheticSource):
    """Images of several sources: every id draws a source, by weight, and one of its images. Endless.

    Args:
        weights: by source, a name in ``SOURCES`` or any image source that gives uint8 images of ``size``. They need not sum to 1.
        size: side of the square images in pixels.
        seed: any 64-bit integer; None is 0. Sources given by name get it too; None is then each one's own default.
        device: where the images are generated, and where they stay.

    Raises:
        TypeError, ValueError: for arguments outside these.

    Example:
        >>> import torch
        >>> from pseudomotion.images.synthetic import Mixture
        >>> Mixture({"shaders": 0.7, "dead_leaves": 0.3}, size=32).get(torch.arange(4)).shape
        torch.Size([4, 3, 32, 32])

    """

    endless = True

    def __init__(
        self, weights: Mapping[str | ImageSource, float], *, size: int = 224, seed: int | None = None, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(size=size, seed=seed, device=device)
        if not isinstance(weights, Mapping) or not weights:
            raise TypeError(f"weights must be a mapping of at least one source to its weight, got {weights!r}")
        checks.weights("weights", weights)
        self.weights = [float(weight) for weight in weights.values()]
        self.sources = [self._source(entry, seed) for entry in weights]

    def _source(self, entry: str | ImageSource, seed: int | None) -> ImageSource:
        if not isinstance(entry, str):
            if not isinstance(entry, ImageSource):
                raise TypeError(f"weights must have names or image sources as keys, got {entry!r}")
            return entry
        from pseudomotion.images.synthetic import SOURCES

        if entry not in SOURCES:
            raise ValueError(f"unknown source {entry!r}; known are {', '.join(SOURCES)}")
        return SOURCES[entry](size=self.size, seed=seed, device=self.device)

    def generate(self, ids: Int64[Tensor, " B"]) -> Images:
        draws = Draws(self.seed, ids)
        chosen = draws.choice("source", self.weights)
        (number,) = draws.uniform("image", 1)
        images = torch.empty(len(ids), 3, self.size, self.size, dtype=torch.uint8, device=self.device)
        for k, source in enumerate(self.sources):
            at = (chosen == k).nonzero()[:, 0]
            if not len(at):
                continue
            made = source.get((number[at] * len(source)).long())
            if made.shape[1:] != images.shape[1:] or made.dtype != torch.uint8:
                raise ValueError(
                    f"{type(source).__name__} must give uint8 images of {tuple(images.shape[1:])}, got {tuple(made.shape[1:])}"
                )
            images[at.to(self.device, non_blocking=True)] = made.to(self.device)
        return images
