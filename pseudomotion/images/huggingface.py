"""Images of Hugging Face datasets."""

from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.images.files import MAX_PIXELS, decode_image
from pseudomotion.images.stream import Entry, Stream
from pseudomotion.source import FileSource


class HFImages(FileSource):
    """A map-style ``datasets.Dataset`` as an image source. Needs the library ``datasets``.

    Args:
        dataset: one split, with a column of images. A streaming dataset (``IterableDataset``) goes to ``HFStream``.
        size: of the images, an int or ``(h, w)``: resized with antialiasing, center-cropped to its aspect ratio.
        column: name of the image column.
        max_pixels: larger images count as broken, as for ``load_image``.
        alpha: read RGBA, as ``load_image`` does.
        strict: raise at the first broken image instead of skipping it.

    Raises:
        TypeError: for another kind of dataset.
        ValueError: if it is empty or has no such column.

    Example:
        >>> import datasets
        >>> import torch
        >>> from pseudomotion.images import HFImages
        >>> rows = datasets.Dataset.from_dict({"image": ["photos/cat/0.jpg", "photos/cat/1.jpg"]}).cast_column("image", datasets.Image())
        >>> HFImages(rows, size=32).get(torch.tensor([0, 1, 2])).shape
        torch.Size([3, 3, 32, 32])

    """

    def __init__(
        self,
        dataset: Any,
        size: int | tuple[int, int],
        *,
        column: str = "image",
        max_pixels: int = MAX_PIXELS,
        alpha: bool = False,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        self.size = checks.item_size(size)
        self.max_pixels = checks.bounded_int("max_pixels", max_pixels, 1, 2**62)
        self.column, self.alpha = column, alpha
        self.dataset = _undecoded(dataset, column)
        if not hasattr(dataset, "__len__"):
            raise TypeError(f"dataset must be a map-style datasets.Dataset, got {type(dataset).__name__}; HFStream takes a streaming one")
        if not len(self.dataset):
            raise ValueError("dataset must hold at least one image, got none")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.dataset)

    def read(self, index: int, id_: int) -> UInt8[Tensor, "C h w"]:
        """One image."""
        value, name = self.dataset[index][self.column], f"row {index}"
        return decode_image(BytesIO(_content(value, name)), name, self.size, max_pixels=self.max_pixels, alpha=self.alpha)


class HFStream(Stream):
    """A streaming ``datasets.IterableDataset`` as a stream of images and ids. Needs the library ``datasets``.

    Ids are made of the epoch and the image files' bytes, so they stay the same however the stream is shuffled or split.

    Args:
        dataset: one split, with a column of images. Shuffle it with its own ``shuffle(seed=...)``, then call ``set_epoch`` of this stream,
            which also sets the dataset's.
        size: of the images, an int or ``(h, w)``: resized with antialiasing, center-cropped to its aspect ratio.
        column: name of the image column.
        rank: of this process among ``world_size``.
        world_size: number of processes that share the stream.
        even: every rank gets the same number of images, as distributed training requires: each goes through all rows and decodes one of
            every ``world_size``. All ranks need the same number of workers. False splits the dataset by its own shards, for datasets that
            are costly to read: some ranks may then get more batches than others, and a loop over them needs a limit of its own.
        max_pixels: larger images count as broken, as for ``load_image``.
        strict: raise at the first broken image instead of skipping it.

    Raises:
        TypeError: for another kind of dataset.
        ValueError: for arguments outside these; if there is no such column.

    Example:
        >>> import datasets
        >>> from pseudomotion.images import HFStream
        >>> rows = datasets.Dataset.from_dict({"image": ["photos/cat/0.jpg", "photos/cat/1.jpg"]}).cast_column("image", datasets.Image())
        >>> stream = HFStream(rows.to_iterable_dataset(), size=32)
        >>> stream.set_epoch(0)
        >>> [image.shape for image, id_ in stream]
        [torch.Size([3, 32, 32]), torch.Size([3, 32, 32])]

    """

    def __init__(
        self,
        dataset: Any,
        size: int | tuple[int, int],
        *,
        column: str = "image",
        rank: int = 0,
        world_size: int = 1,
        even: bool = True,
        max_pixels: int = MAX_PIXELS,
        strict: bool = False,
    ) -> None:
        from datasets.distributed import split_dataset_by_node

        super().__init__(size, rank=rank, world_size=world_size, even=even, max_pixels=max_pixels, strict=strict)
        self.column = column
        undecoded = _undecoded(dataset, column)
        if hasattr(dataset, "__len__"):
            raise TypeError(
                f"dataset must be a streaming datasets.IterableDataset, got {type(dataset).__name__}; HFImages takes a map-style one"
            )
        self.dataset = undecoded if self.even else split_dataset_by_node(undecoded, rank=rank, world_size=world_size)

    def entries(self) -> Iterator[Entry]:
        """The images of this rank, not decoded yet; the dataset itself splits by worker."""
        self.dataset.set_epoch(self.epoch)
        entries = self._rows()
        return self.every(entries) if self.even else entries

    def _rows(self) -> Iterator[Entry]:
        for position, row in enumerate(self.dataset):
            value = row[self.column]
            name = (value or {}).get("path") or f"row {position}"
            yield Entry(name, "", partial(_content, value, name))


def _undecoded(dataset: Any, column: str) -> Any:
    """The dataset with its image files as they are, so that a broken one is ours to skip."""
    from datasets import Image

    if isinstance(dataset, dict):
        raise TypeError(f"dataset must be one split, got a {type(dataset).__name__}; choose one of {', '.join(map(repr, dataset))}")
    if dataset.column_names is not None and column not in dataset.column_names:
        raise ValueError(f"column must be one of {', '.join(map(repr, dataset.column_names))}, got {column!r}")
    return dataset.cast_column(column, Image(decode=False))


def _content(value: Any, name: str) -> bytes:
    """The bytes of an undecoded image."""
    if value is None:
        raise ValueError(f"cannot read {name}: there is no image")
    if value.get("bytes"):
        return bytes(value["bytes"])
    return Path(value["path"]).read_bytes()
