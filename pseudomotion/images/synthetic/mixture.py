"""``Mixture``: images of several sources, in given shares; and the generators by name."""

from collections.abc import Mapping

import torch
from jaxtyping import Int64
from torch import Tensor

from pseudomotion.draws import Draws
from pseudomotion.images.synthetic.base import Generator, Images
from pseudomotion.images.synthetic.dead_leaves import DeadLeaves
from pseudomotion.images.synthetic.fractaldb import FractalDB
from pseudomotion.images.synthetic.noise import Noise
from pseudomotion.images.synthetic.shaders import Shaders
from pseudomotion.images.synthetic.visual_atom import VisualAtom
from pseudomotion.source import ImageSource

SOURCES: Mapping[str, type[Generator]] = {
    "shaders": Shaders,
    "fractaldb": FractalDB,
    "visual_atom": VisualAtom,
    "dead_leaves": DeadLeaves,
    "noise": Noise,
}


class Mixture(Generator):
    """Images of several sources, each drawn with its weight. An endless source itself.

    Every id draws a source and one of its images.

    Args:
        weights: of sources: names of ``SOURCES``, or sources that give uint8 images of ``size`` on ``device``. They need not sum to 1.
        size: side of the square images in pixels.
        seed: any integer of 64 bits; None is 0. Also that of sources given by name, None being each one's own default.
        device: where the images are made.

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
        self.weights = [float(weight) for weight in weights.values()]
        if not all(0 <= weight < float("inf") for weight in self.weights) or sum(self.weights) <= 0:
            raise ValueError(f"weights must be finite, at least 0 and not all 0, got {self.weights}")
        self.sources = [self._source(entry, seed) for entry in weights]

    def _source(self, entry: str | ImageSource, seed: int | None) -> ImageSource:
        if not isinstance(entry, str):
            if not isinstance(entry, ImageSource):
                raise TypeError(f"weights must have names or image sources as keys, got {entry!r}")
            return entry
        if entry not in SOURCES:
            raise ValueError(f"unknown source {entry!r}; known are {', '.join(SOURCES)}")
        return SOURCES[entry](size=self.size, seed=seed, device=self.device)

    def _make(self, ids: Int64[Tensor, " B"]) -> Images:
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
