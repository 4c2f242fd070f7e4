"""Sources: numbered images or clips to read, some of whose files may be broken, and batches of them in an order of their own.

An id is any integer from 0. It names item ``id % len(source)``, always the same one, and goes on counting from epoch to epoch, so that it
serves as the clip id of ``PMG`` too: the same image again, another motion. Where an item's file is broken, its ids stand for the next item
that can be read, and the file is named in ``source.skipped``. Which item an id gets depends on the files alone, never on what was read
before.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pseudomotion import checks
from pseudomotion.draws import Draws

Batch = TypeVar("Batch")
Given = TypeVar("Given", covariant=True)


@runtime_checkable
class Numbered(Protocol[Given]):
    """What gives batches of anything by number."""

    def __len__(self) -> int:
        """Number of items."""

    def get(self, ids: Int64[Tensor, " B"]) -> Given:
        """The items of some ids, which are at least 0; ``id % len(source)`` names the item."""


@runtime_checkable
class ImageSource(Protocol):
    """What gives images by number."""

    def __len__(self) -> int:
        """Number of images."""

    def get(self, ids: Int64[Tensor, " B"]) -> UInt8[Tensor, "B 3 H W"]:
        """The images of some ids, which are at least 0; ``id % len(source)`` names the image."""


class Files(ABC):
    """Items that are read from files, one at a time.

    Attributes:
        strict: raise at the first broken file in place of skipping it.
        skipped: what is wrong with the files that were found broken so far, by the number of their item.
        groups: class of every item, to draw from all classes alike; None to take every item once per epoch.

    """

    def __init__(self, *, strict: bool = False, groups: Int64[Tensor, " n"] | None = None) -> None:
        self.strict = strict
        self.groups = groups
        self.skipped: dict[int, str] = {}

    @abstractmethod
    def __len__(self) -> int:
        """Number of items, broken ones included."""

    @abstractmethod
    def read(self, index: int, id_: int) -> Tensor:
        """Item ``index``, asked for as ``id_``; an OSError or ValueError that names the file where it is broken."""

    def readable(self, id_: int) -> tuple[int, Tensor]:
        """The item that an id stands for, broken ones passed over: its number, and what was read."""
        for step in range(len(self)):
            index = (id_ + step) % len(self)
            if index in self.skipped:
                continue
            try:
                return index, self.read(index, id_)
            except (OSError, ValueError) as error:
                if self.strict:
                    raise
                self.skipped[index] = str(error)
        raise ValueError(f"not one of {len(self)} files can be read; the first: {next(iter(self.skipped.values()))}")

    def report(self) -> str:
        """What was skipped so far: a line for each file."""
        return "\n".join([f"skipped {len(self.skipped)} of {len(self)} files", *(f"  {self.skipped[i]}" for i in sorted(self.skipped))])


class Source(Files):
    """Items that are read from files, one at a time, all of one shape."""

    def get(self, ids: Tensor) -> Tensor:
        """The items of some ids, stacked.

        Args:
            ids: int64 ``(B,)``, at least 0.

        Raises:
            TypeError, ValueError: for other ids; for a broken file if ``strict``; if not one file can be read.
            OSError: for a file that cannot be opened, if ``strict``.

        """
        numbers = checks.item_ids(ids)
        if not numbers:
            raise ValueError("ids must name at least one item, got none")
        return torch.stack([self.readable(number)[1] for number in numbers])


def batches(
    source: Numbered[Batch],
    batch_size: int,
    *,
    epoch: int = 0,
    seed: int | None = None,
    shuffle: bool = True,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[Batch, Tensor]]:
    """One epoch of a source: batches of items, and the ids they go by, on to ``PMG(...)(images, ids=ids)``.

    Order and ids depend on epoch and seed alone; ranks share them out without overlap or loss. A source with ``groups`` draws every item's
    group first, all alike, then the item (paper, section 4), and an item may come more than once, or not at all.

    Args:
        source: images, clips or anything else; any object with ``len`` and ``get``.
        batch_size: at least 1; the last batch may be smaller.
        epoch: at least 0.
        seed: of the order; None is 0.
        shuffle: False: in order, every item once.
        num_workers: processes that read; 0 reads in this one.
        rank: of this process among ``world_size``.
        world_size: number of processes that share the epoch.

    Yields:
        What ``source.get`` returns, for images ``(B, 3, H, W)``, and int64 ids ``(B,)``.

    Warns:
        UserWarning: at the end, the files found broken, if there are any.

    """
    batch_size = checks.positive_int("batch_size", batch_size, 2**31)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be from 0 to world_size - 1 = {world_size - 1}, got {rank}")
    own = (order(source, epoch, checks.seed(seed)) if shuffle else torch.arange(len(source), device="cpu") + epoch * len(source))[
        rank::world_size
    ]
    parts = torch.split(own, batch_size) if len(own) else ()
    yield from read_batches(source, parts, num_workers)


def read_batches(source: Numbered[Batch], parts: Sequence[Tensor], num_workers: int = 0) -> Iterator[tuple[Batch, Tensor]]:
    """Items of given ids, batch by batch.

    Args:
        source: what to read.
        parts: int64 ids of every batch; any sequence, which may work them out when asked.
        num_workers: processes that read; 0 reads in this one.

    Yields:
        Items and their ids, in order.

    Warns:
        UserWarning: at the end, the files found broken, if there are any.

    """
    skipped: dict[int, str] = getattr(source, "skipped", {})
    known = set(skipped)
    if num_workers:
        reading = _Reading(source, parts)
        generator = torch.Generator("cpu")  # of its own: the loader would take a seed for its workers from torch's default generator
        for items, ids, found in DataLoader(reading, batch_size=None, num_workers=num_workers, generator=generator):
            skipped.update(found)
            yield items, ids
    else:
        for position in range(len(parts)):
            yield source.get(parts[position]), parts[position]
    if new := sorted(set(skipped) - known):
        warnings.warn("\n".join([f"skipped {len(new)} broken files:", *(f"  {skipped[index]}" for index in new)]), stacklevel=2)


def order(source: Numbered[Batch], epoch: int, seed: int) -> Int64[Tensor, " n"]:
    """The ids of an epoch in the order that ``batches`` takes them."""
    n, groups = len(source), getattr(source, "groups", None)
    position = torch.arange(n, device="cpu")
    draws = Draws(seed, position + epoch * n)
    if groups is None:
        (number,) = draws.uniform("order", 1)
        shuffled: Tensor = number.argsort(stable=True) + epoch * n
        return shuffled
    members, counts = groups.argsort(stable=True), groups.bincount()
    members_from, sizes = (counts.cumsum(0) - counts)[counts > 0], counts[counts > 0]
    group, within = draws.uniform("groups", 2)
    chosen = (group * len(sizes)).long()
    item = members[members_from[chosen] + (within * sizes[chosen]).long()]
    ids: Tensor = item + (position + epoch * n) * n
    return ids  # an item that is drawn again gets another id


class _Reading(Dataset[tuple[Batch, Tensor, dict[int, str]]], Generic[Batch]):
    """Batches of a source, and what was found broken, for the workers of a DataLoader: what they find would stay with them."""

    def __init__(self, source: Numbered[Batch], batches_of_ids: Sequence[Tensor]) -> None:
        self.source = source
        self.batches_of_ids = batches_of_ids

    def __len__(self) -> int:
        return len(self.batches_of_ids)

    def __getitem__(self, position: int) -> tuple[Batch, Tensor, dict[int, str]]:
        ids = self.batches_of_ids[position]
        return self.source.get(ids), ids, dict(getattr(self.source, "skipped", {}))
