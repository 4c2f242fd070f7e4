"""Streams: images in the order in which they come, for a DataLoader."""

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from typing import NamedTuple

from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import IterableDataset

from pseudomotion import checks
from pseudomotion.images.files import MAX_PIXELS, decode_image
from pseudomotion.source import InEpochs, is_transient, retry


class Entry(NamedTuple):
    """An encoded image of a stream.

    Args:
        name: for error messages.
        label: part of the image's id, beside its content and the epoch.
        content: returns the file's bytes, or raises an OSError or ValueError that names it.

    """

    name: str
    label: str
    content: Callable[[], bytes]


class Stream(InEpochs, IterableDataset[tuple[Tensor, int]], ABC):
    """Base class of streams: pairs of an image, uint8 ``(3, h, w)``, and its id. Subclasses define ``entries``.

    An id is made of the image file's bytes, its name if it has one that is the same everywhere, and the epoch, so the same image in another
    epoch has another motion. The epoch also changes any shuffled order. Broken images are left out; in an even split among ranks another
    readable image, under an id of its own, takes a broken one's place.

    Attributes:
        strict: raise at the first broken image instead of skipping it.
        skipped: error messages of the images found broken, by name; each worker process has its own.

    """

    def __init__(
        self,
        size: int | tuple[int, int],
        *,
        rank: int = 0,
        world_size: int = 1,
        even: bool = True,
        max_pixels: int = MAX_PIXELS,
        strict: bool = False,
    ) -> None:
        super().__init__()
        self.size = checks.item_size(size)
        checks.rank(rank, world_size)
        self.rank, self.world_size = rank, world_size
        self.even = even and world_size > 1
        self.max_pixels = checks.bounded_int("max_pixels", max_pixels, 1, 2**62)
        self.strict = strict
        self.skipped: dict[str, str] = {}

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """The images of this rank and worker, not decoded yet."""

    def every(self, entries: Iterator[Entry | None]) -> Iterator[Entry]:
        """One of every ``world_size`` entries, this rank's; an incomplete last group is left out. Entries of other ranks may be None."""
        own = None
        for position, entry in enumerate(entries):
            if position % self.world_size == self.rank:
                own = entry
            if position % self.world_size == self.world_size - 1 and own is not None:
                yield own

    def __iter__(self) -> Iterator[tuple[UInt8[Tensor, "3 h w"], int]]:
        """Images and ids; the broken ones are named in a warning at the end.

        Raises:
            OSError, ValueError: for a broken image if ``strict``; for a failure that is not the file's fault and persists; if no image can
                be read, in an even split.

        """
        known, epoch = set(self.skipped), self.epoch
        image, data = None, b""
        due: list[str] = []  # labels of the images to yield
        for entry in self.entries():
            due.append(entry.label)
            try:
                image, data = retry(partial(self._read, entry))
            except (OSError, ValueError) as error:
                if self.strict or is_transient(error):
                    raise
                self.skipped[entry.name] = str(error)
                due[-1] = f"instead of {entry.name}"
                if not self.even:
                    due.pop()
            while due and image is not None:
                yield image.clone(), content_id(f"{epoch} {due.pop()} ".encode() + data)
        if due:
            raise ValueError(f"not one of {len(due)} images can be read; the first: {next(iter(self.skipped.values()))}")
        if new := [text for name, text in self.skipped.items() if name not in known]:
            warnings.warn("\n".join([f"skipped {len(new)} broken files:", *(f"  {text}" for text in new)]), stacklevel=2)

    def _read(self, entry: Entry) -> tuple[Tensor, bytes]:
        data = entry.content()
        return decode_image(BytesIO(data), entry.name, self.size, max_pixels=self.max_pixels), data


def content_id(data: bytes) -> int:
    """A 63-bit id from bytes, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 1
