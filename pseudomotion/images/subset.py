"""Subsets of image sources."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.source import ImageSource


class Subset:
    """A subset of a source's images, with equally many of every class where there are enough (paper, section 4).

    Classes are the source's ``labels``, ``groups`` or ``category``; without them every image is as likely as any other.

    Args:
        source: the images.
        limit: number of images; None for all.
        seed: of the choice.
        classes: number of classes to take them from; None for all. With the same seed, fewer classes are among more (Figure 3c).

    Raises:
        ValueError: if the source has fewer images or classes, or no classes.

    """

    def __init__(self, source: ImageSource, limit: int | None, seed: int, *, classes: int | None = None) -> None:
        (number,) = Draws(seed, torch.arange(len(source))).uniform("subset", 1)
        order = number.argsort(stable=True)
        labels = _labels(source)
        if labels is None and classes is not None:
            raise ValueError(f"classes must be None for images that have no classes, got {classes}")
        if labels is not None:
            order = order[labels[order].argsort(stable=True)]  # class after class
            counts = labels.bincount()
            place = torch.arange(len(order)) - (counts.cumsum(0) - counts).repeat_interleave(counts)  # within its class
            taken = torch.isin(labels[order], _classes(counts, classes, seed))
            order = order[taken][place[taken].argsort(stable=True)]  # the first of every class, then the second of every class
        n = len(order)
        if limit is not None and not 0 < limit <= n:
            raise ValueError(f"limit must be from 1 to the {n} images there are, got {limit}")
        self.source, self.chosen = source, order[:limit].sort().values
        groups: Tensor | None = getattr(source, "groups", None)
        self.groups = None if groups is None else groups[self.chosen]
        self.skipped: dict[int, str] = getattr(source, "skipped", {})

    def __len__(self) -> int:
        """Number of images."""
        return len(self.chosen)

    def get(self, ids: Tensor) -> UInt8[Tensor, "B C H W"]:
        """The images of some ids; an id keeps its epoch in the source, but where that has another image for every id."""
        checks.item_ids(ids)
        epoch = 0 if getattr(self.source, "endless", False) else ids // len(self)
        return self.source.get(self.chosen[ids % len(self)] + epoch * len(self.source))


def _labels(source: ImageSource) -> Tensor | None:
    """The class of every image, or None if there are no classes."""
    labels: Tensor | None = getattr(source, "labels", getattr(source, "groups", None))
    if labels is None and hasattr(source, "category"):
        labels = source.category(torch.arange(len(source)))
    return labels


def _classes(counts: Tensor, limit: int | None, seed: int) -> Tensor:
    """Some of the classes that have images, drawn by the seed; all if ``limit`` is None."""
    present = counts.nonzero()[:, 0]
    if limit is not None and not 0 < limit <= len(present):
        raise ValueError(f"classes must be from 1 to the {len(present)} there are, got {limit}")
    (number,) = Draws(seed, present).uniform("subset classes", 1)
    chosen: Tensor = present[number.argsort(stable=True)[:limit]]
    return chosen
