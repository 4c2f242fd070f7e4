"""Images of a Hugging Face dataset."""

import io
from collections.abc import Iterator
from functools import partial
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.images.files import decode_image, load_image
from pseudomotion.images.shards import Stream, content_id
from pseudomotion.source import Source


class HFImages(Source):
    """A map-style ``datasets.Dataset`` as an image source. Needs the library ``datasets``.

    Args:
        dataset: with a column of images. A streaming one (``IterableDataset``) goes to ``HFStream``.
        size: of the images, an int or ``(h, w)``: resized with antialiasing, the middle cut out.
        column: name of that column.
        strict: raise at the first broken image in place of skipping it.

    Raises:
        TypeError: for another kind of dataset.
        ValueError: where it is empty or has no such column.

    """

    def __init__(self, dataset: Any, size: int | tuple[int, int], *, column: str = "image", strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.size = checks.item_size(size)
        self.column = column
        if not hasattr(dataset, "__len__"):
            raise TypeError(f"dataset must be a map-style datasets.Dataset, got {type(dataset).__name__}; HFStream takes a streaming one")
        self.dataset = _undecoded(dataset, column)
        if not len(self.dataset):
            raise ValueError("dataset must hold at least one image, got none")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.dataset)

    def read(self, index: int, id_: int) -> UInt8[Tensor, "3 h w"]:
        """One image."""
        return _decode(self.dataset[index][self.column], f"row {index}", self.size)


class HFStream(Stream):
    """A streaming ``datasets.IterableDataset`` as a stream of ``(image, id)``, split by rank and worker. Needs the library ``datasets``.

    Ids are made from the image files' bytes, so that they stay the same however the stream is shuffled or split.

    Args:
        dataset: with a column of images; shuffle it with its own ``shuffle`` and ``set_epoch``.
        size: of the images, an int or ``(h, w)``: resized with antialiasing, the middle cut out.
        column: name of that column.
        rank: of this process among ``world_size``.
        world_size: number of processes that share the stream.
        strict: raise at the first broken image in place of skipping it.

    """

    def __init__(
        self,
        dataset: Any,
        size: int | tuple[int, int],
        *,
        column: str = "image",
        rank: int = 0,
        world_size: int = 1,
        strict: bool = False,
    ) -> None:
        from datasets.distributed import split_dataset_by_node

        super().__init__(strict=strict)
        self.size = checks.item_size(size)
        self.column = column
        self.dataset = split_dataset_by_node(_undecoded(dataset, column), rank=rank, world_size=world_size)

    def images(self) -> Iterator[tuple[str, int, Any]]:
        """Name, id and a function that decodes, of the images of this rank; the dataset itself splits by worker."""
        for position, row in enumerate(self.dataset):
            value = row[self.column]
            data = value.get("bytes") or str(value.get("path")).encode()
            name = value.get("path") or f"image {position}"
            yield name, content_id(data), partial(_decode, value, name, self.size)


def _undecoded(dataset: Any, column: str) -> Any:
    """The dataset with its files as they are, so that a broken one is ours to skip."""
    from datasets import Image

    if dataset.column_names is not None and column not in dataset.column_names:
        raise ValueError(f"column must be one of {', '.join(map(repr, dataset.column_names))}, got {column!r}")
    return dataset.cast_column(column, Image(decode=False))


def _decode(value: Any, name: str, size: tuple[int, int]) -> Tensor:
    if value is None:
        raise ValueError(f"cannot read {name}: there is no image")
    if value.get("bytes"):
        return decode_image(io.BytesIO(value["bytes"]), name, size)
    return load_image(value["path"], size)
