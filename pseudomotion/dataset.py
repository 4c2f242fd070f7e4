"""``PseudoMotionDataset``: clips of a source's images, with their exact motion, as a dataset of PyTorch or Hugging Face."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Dataset

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.images.concatenated import Concatenated
from pseudomotion.images.huggingface import HFImages
from pseudomotion.images.subset import Subset
from pseudomotion.labels import LABELS, tracks
from pseudomotion.plan import MotionPlan
from pseudomotion.pmg import PMG
from pseudomotion.source import ImageSource, InEpochs

__all__ = ["PseudoMotionDataset", "check_source", "image_classes", "needs_partners", "partner_ids", "shown_image"]

CHOICES = ("transform", "class", "none")


class PseudoMotionDataset(InEpochs, Dataset[dict[str, Any]]):
    """A map-style dataset of clips: one per image and epoch, for any ``DataLoader`` and trainer.

    Item ``i`` in epoch ``e`` has id ``i + e * len(source)``, so it is the same in any worker and order, and moves differently in every
    epoch. Where clips are mixed, or show parts of other images ("cutmix", objects), those come from anywhere in the source, by the item's
    id. ``set_epoch(e)`` chooses the epoch, before each pass, also with persistent workers.

    An item is a dict: "video", a clip as ``PMG`` makes it, ``(C, T, h, w)`` or ``(T, C, h, w)``; "id" and "label", integers; and the labels
    asked for, without the axis of the batch. "tracks" ``(T, N, 2)``, of the centers of 16-pixel patches, brings "visible" ``(T, N)``.

    Args:
        source: images, on the CPU. A ``DataLoader`` with workers reads and renders in them.
        pmg: makes the clips; its size, dtype, normalization and axes are the video's.
        labels: exact motion to add to each item, of ``pseudomotion.labels.LABELS`` and "tracks".
        label: "transform", the position of the clip's transform in ``ALL_TRANSFORMS``; "class", that of its image; "none", 0.
        textures: ``(M, C, H', W')``, what objects show, as for ``PMG``, such as ``load_textures`` gives. None: parts of another image.

    Raises:
        TypeError, ValueError: for arguments outside these; "class" for images without classes.

    Example:
        >>> from pseudomotion import PMG
        >>> from pseudomotion.images.synthetic import Noise
        >>> item = PseudoMotionDataset(Noise(size=24), PMG(num_frames=4, size=16), labels=["flow"])[7]
        >>> {name: tuple(value.shape) if hasattr(value, "shape") else value for name, value in item.items()}
        {'video': (3, 4, 16, 16), 'id': 7, 'label': 4, 'flow': (3, 2, 16, 16)}

    """

    def __init__(
        self,
        source: ImageSource,
        pmg: PMG,
        *,
        labels: Sequence[str] = (),
        label: str = "transform",
        textures: Tensor | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(pmg, PMG):
            raise TypeError(f"pmg must be a PMG, got {type(pmg).__name__}")
        if isinstance(labels, str):
            raise TypeError(f"labels must be a sequence of names, got {labels!r}; write [{labels!r}]")
        if unknown := [name for name in labels if name not in (*LABELS, "tracks")]:
            raise ValueError(f"labels must be some of {', '.join((*LABELS, 'tracks'))}, got {', '.join(map(repr, unknown))}")
        self.source, self.pmg, self.labels = check_source(source), pmg, tuple(labels)
        self.label = checks.one_of("label", label, CHOICES)
        self.textures = textures
        if textures is not None:
            checks.images(textures)
        if label == "class" and image_classes(source) is None:
            raise ValueError(f"label must not be 'class': images of {type(source).__name__} have no classes")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One clip, as ``__getitems__``."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Several clips, rendered together. ``DataLoader`` calls this for each batch.

        Raises:
            IndexError: for an index outside 0 to ``len() - 1``.

        """
        n = len(self)
        numbers = [checks.integer("index", index) for index in indices]
        if outside := [number for number in numbers if not -n <= number < n]:
            raise IndexError(f"index must be from 0 to {n - 1}, got {outside[0]}")
        ids = torch.tensor(numbers, device="cpu") % n + self.epoch * n
        images = self.source.get(ids)
        partners = self.source.get(partner_ids(ids, self.pmg)) if needs_partners(self.pmg, self.textures) else None
        shape = None if self.textures is None else self.textures.shape
        plan = self.pmg.plan(images.shape, ids=ids, partner_images=partners is not None, textures=shape)
        clips = self.pmg.render(images, plan, partner_images=partners, textures=self.textures)
        found = self._find_labels(plan)
        names = self._names(plan, ids.tolist())
        return [
            {"video": clips[i], "id": int(ids[i]), "label": names[i], **{key: value[i] for key, value in found.items()}}
            for i in range(len(ids))
        ]

    def _find_labels(self, plan: MotionPlan) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name in self.labels:
            if name == "tracks":
                found["tracks"], found["visible"] = tracks(plan, textures=self.textures)
            else:
                found[name] = _label(name, plan, self.textures)
        return found

    def _names(self, plan: MotionPlan, ids: list[int]) -> list[int]:
        if self.label == "transform":
            return [int(number) for number in plan.transform.tolist()]
        classes = image_classes(self.source) if self.label == "class" else None
        return [0 if classes is None else classes(shown_image(self.source, id_)) for id_ in ids]

    def to_iterable_dataset(self, *, num_shards: int = 64, batch_size: int = 8) -> Any:
        """The epoch's clips in order as a ``datasets.IterableDataset``, made while they are read.

        Items hold tensors as they are, for ``DataLoader(dataset, batch_size=...)``; ``with_format("torch")`` would turn uint8 into int64.
        Its shards are distributed over the workers of a ``DataLoader``, and over ranks by ``split_dataset_by_node``. Shuffle it by its own
        ``shuffle``, and set the epoch with this dataset's ``set_epoch`` before each pass.

        Args:
            num_shards: contiguous parts; at most as many as images.
            batch_size: clips rendered together.

        Raises:
            ImportError: if the library ``datasets`` is not installed.
            TypeError, ValueError: for numbers below 1.

        """
        from datasets import IterableDataset

        n = len(self)
        count = min(checks.positive_int("num_shards", num_shards, 2**31), n)
        checks.positive_int("batch_size", batch_size, 2**20)
        edges = [n * k // count for k in range(count + 1)]
        spans = [(edges[k], edges[k + 1]) for k in range(count)]
        return IterableDataset.from_generator(_generate, gen_kwargs={"dataset": self, "batch_size": batch_size, "spans": spans})


def _label(name: str, plan: MotionPlan, textures: Tensor | None) -> Tensor:
    function: Callable[..., Tensor] = LABELS[name]  # type: ignore[assignment]  # a dict of functions of different options
    return function(plan, textures=textures)


def _generate(dataset: PseudoMotionDataset, batch_size: int, spans: list[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """The items in ranges of indices. ``datasets`` splits the list of ranges into shards."""
    for first, last in spans:
        for start in range(first, last, batch_size):
            yield from dataset.__getitems__(range(start, min(start + batch_size, last)))


def check_source(source: Any) -> ImageSource:
    """The source, if its images are read by id.

    Raises:
        TypeError: for anything else, such as a stream.

    """
    if not isinstance(source, ImageSource):
        kind = type(source).__name__
        raise TypeError(f"source must be a map-style source of images, with len() and get(ids), got {kind}; pmg-bank makes one of a stream")
    return source


def needs_partners(pmg: PMG, textures: Tensor | None = None) -> bool:
    """Whether clips show images of other clips in the batch. Rendered alone, they need ``partner_images``."""
    by_objects = pmg.objects is not None and textures is None
    return by_objects or pmg.mix is not None or any(transform.num_layers for transform in pmg.transforms)


def partner_ids(ids: Int64[Tensor, " n"], pmg: PMG) -> Int64[Tensor, " n"]:
    """The ids of the partners of clips, as ``PMG.plan`` draws them for ``partner_images``."""
    return Draws(pmg.seed, ids).partner_ids("partner images")


def image_classes(source: ImageSource) -> Callable[[int], int] | None:
    """A function from an image's index to its class; None if the images have no classes.

    Classes are the source's ``labels``, ``groups`` or ``category``, or the column "label" of a Hugging Face dataset.
    """
    if isinstance(source, Subset):
        return image_classes(source.source)
    if isinstance(source, HFImages) and "label" in source.dataset.column_names:
        column = source.dataset["label"]
        return lambda index: int(column[index])
    labels: Tensor | None = getattr(source, "labels", getattr(source, "groups", None))
    if labels is not None:
        return lambda index: int(labels[index])
    if hasattr(source, "category"):
        category: Callable[[Tensor], Tensor] = source.category
        return lambda index: int(category(torch.tensor([index], device="cpu"))[0])
    return None


def shown_image(source: ImageSource, id_: int) -> int:
    """The index of the image that an id stands for, after it was read: the next readable one if its own is broken."""
    epoch, index = divmod(id_, len(source))
    if isinstance(source, Subset):
        return shown_image(source.source, int(source.chosen[index]))
    if isinstance(source, Concatenated):
        which = int(torch.searchsorted(source.ends, index, right=True))
        own = source.sources[which]
        first = int(source.ends[which]) - len(own)
        return first + shown_image(own, index - first + epoch * len(own))
    skipped = getattr(source, "skipped", {})
    while index in skipped:
        index = (index + 1) % len(source)
    return index
