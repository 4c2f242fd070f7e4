"""Streams of images: WebDataset tar shards."""

import glob
import hashlib
import io
import tarfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import IO

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.images.files import decode_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".ppm", ".bmp", ".tif", ".tiff", ".gif")


class Stream(IterableDataset[tuple[Tensor, int]], ABC):
    """Images in the order in which they come, for a DataLoader: pairs of an image ``(3, h, w)`` and its id.

    Attributes:
        strict: raise at the first broken image in place of skipping it.
        skipped: what is wrong with the images that were found broken, by name; each worker process has its own.

    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.skipped: dict[str, str] = {}

    @abstractmethod
    def images(self) -> Iterator[tuple[str, int, Callable[[], Tensor]]]:
        """Name, id and a function that decodes, of the images of this rank and worker."""

    def __iter__(self) -> Iterator[tuple[UInt8[Tensor, "3 h w"], int]]:
        """Images and ids; broken ones are left out, and named in a warning at the end."""
        known = set(self.skipped)
        for name, id_, decode in self.images():
            try:
                image = decode()
            except (OSError, ValueError) as error:
                if self.strict:
                    raise
                self.skipped[name] = str(error)
                continue
            yield image, id_
        if new := [text for name, text in self.skipped.items() if name not in known]:
            warnings.warn("\n".join([f"skipped {len(new)} broken files:", *(f"  {text}" for text in new)]), stacklevel=2)


def content_id(data: bytes) -> int:
    """An id of 63 bits from bytes, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 1


class Shards(Stream):
    """Images in WebDataset tar shards, read as a stream. Shards that are not local files need the library ``webdataset``.

    Whole shards are dealt out to ranks and to the workers of each, without overlap or loss; with fewer shards than workers some have none.
    An image's id is made from its shard's file name and its own name in it.

    Args:
        urls: paths and globs of local shards, or anything that webdataset opens, ``https:`` and ``pipe:`` too.
        size: of the images, an int or ``(h, w)``: resized with antialiasing, the middle cut out.
        shuffle: order of shards drawn per epoch, and so many images kept in a buffer to draw from; 0 for neither.
        seed: of the order; None is 0.
        rank: of this process among ``world_size``.
        world_size: number of processes that share the stream.
        strict: raise at the first broken image in place of skipping it.

    Raises:
        ValueError: where there is no shard.

    """

    def __init__(
        self,
        urls: str | Sequence[str],
        size: int | tuple[int, int],
        *,
        shuffle: int = 1000,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        self.size = checks.item_size(size)
        self.shuffle, self.seed = shuffle, checks.seed(seed)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to world_size - 1 = {world_size - 1}, got {rank}")
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        entries = [urls] if isinstance(urls, str) else list(urls)
        self.urls = [url for entry in entries for url in ([entry] if ":" in entry else sorted(glob.glob(entry)))]
        if not self.urls:
            raise ValueError(f"urls must name at least one shard, found none at {urls!r}")

    def set_epoch(self, epoch: int) -> None:
        """Another epoch, another order; before the DataLoader's next pass."""
        self.epoch = epoch

    def images(self) -> Iterator[tuple[str, int, Callable[[], Tensor]]]:
        """Name, id and a function that decodes, of the images of this rank and worker."""
        worker = get_worker_info()
        part, parts = (worker.id, worker.num_workers) if worker else (0, 1)
        (number,) = Draws(self.seed, torch.arange(len(self.urls), device="cpu") + self.epoch * len(self.urls)).uniform("shards", 1)
        order = number.argsort(stable=True).tolist() if self.shuffle else range(len(self.urls))
        own = [self.urls[k] for k in order][self.rank :: self.world_size][part::parts]
        members = ((url, *member) for url in own for member in self._members(url))
        for url, name, data in self._shuffled(members) if self.shuffle else members:
            full = f"{PurePosixPath(url).name}/{name}"
            yield full, content_id(full.encode()), partial(decode_image, io.BytesIO(data), full, self.size)

    def _members(self, url: str) -> Iterator[tuple[str, bytes]]:
        """Name and content of the image files in a shard; a shard that breaks off is noted, and what came before counts."""
        try:
            with _open(url) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
                for member in tar:
                    if member.isfile() and member.name.lower().endswith(SUFFIXES) and (content := tar.extractfile(member)):
                        yield member.name, content.read()
        except (OSError, EOFError, tarfile.TarError) as error:
            if self.strict:
                raise ValueError(f"cannot read {url}: {error}") from error
            self.skipped[url] = f"cannot read {url}: {error}"

    def _shuffled(self, members: Iterator[tuple[str, str, bytes]]) -> Iterator[tuple[str, str, bytes]]:
        """Every image changes places with one in a buffer, which is drawn by a number of its own."""
        buffer: list[tuple[str, str, bytes]] = []
        for url, name, data in members:
            if len(buffer) < self.shuffle:
                buffer.append((url, name, data))
                continue
            id_ = content_id(f"{self.epoch} {PurePosixPath(url).name}/{name}".encode())
            place = int(float(Draws(self.seed, torch.tensor([id_], device="cpu")).uniform("shuffle", 1)[0]) * self.shuffle)
            yield buffer[place]
            buffer[place] = (url, name, data)
        (number,) = Draws(self.seed, torch.arange(len(buffer), device="cpu") + self.epoch * self.shuffle).uniform("shuffle", 1)
        for place in number.argsort(stable=True).tolist():
            yield buffer[place]


def _open(url: str) -> IO[bytes]:
    """A local file, or with webdataset's help anything that is not."""
    if ":" not in url:
        return open(url, "rb")
    from webdataset import gopen

    stream: IO[bytes] = gopen(url)
    return stream
