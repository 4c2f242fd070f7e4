"""Sources: map-style datasets of images or clips whose files may be broken, and one epoch of batches in a drawn order.

An id is any integer from 0. It names item ``id % len(source)`` and counts on from epoch to epoch, so it serves as the clip id of ``PMG``
too: the same image in another epoch has another motion. Where an item's file is broken, its ids stand for the next item that can be read,
and the file is named in ``source.skipped``. Which item an id gets depends on the files alone, never on what was read before.
"""

import atexit
import contextlib
import errno
import multiprocessing.util  # registers its exit handler, which must run after ours
import os
import signal
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import resource_tracker
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.shared_buffers import PackedBatch, SharedBuffers

Batch = TypeVar("Batch")
BatchOut = TypeVar("BatchOut", covariant=True)
Read = TypeVar("Read")

RETRY_AFTER = (0.1, 1.0, 4.0)  # seconds
# Failures of the machine or the network, which pass and are not the file's fault.
_TRANSIENT = {errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT}
_TRANSIENT_OF_SYSTEM = _TRANSIENT | {errno.EIO, errno.ENOMEM, errno.EINTR}


@runtime_checkable
class ItemSource(Protocol[BatchOut]):
    """A map-style dataset: ``len(source)`` items, fetched in batches by id."""

    def __len__(self) -> int:
        """Number of items."""

    def get(self, ids: Int64[Tensor, " B"]) -> BatchOut:
        """The items of some ids, which are at least 0; ``id % len(source)`` is the item's index."""


@runtime_checkable
class ImageSource(ItemSource[UInt8[Tensor, "B 3 H W"]], Protocol):
    """A map-style dataset of images: ``len(source)`` images, fetched in batches by id."""


class InEpochs:
    """Mixin for datasets whose items differ from epoch to epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._epoch = torch.zeros((), dtype=torch.int64, device="cpu")
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # persistent workers see it change

    @property
    def epoch(self) -> int:
        """The epoch of the next pass."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch. Call it before each pass, also with persistent workers.

        Raises:
            TypeError, ValueError: for anything but an integer from 0 to 2**31.

        """
        self._epoch.fill_(checks.bounded_int("epoch", epoch, 0, 2**31))


class FileReader(ABC):
    """Reads items from files, one at a time, and passes over broken ones.

    Args:
        strict: raise at the first broken file instead of skipping it.
        groups: class of every item, to draw from all classes equally; None to take every item once per epoch.

    Attributes:
        skipped: error messages of the files found broken so far, by item index.

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
        """Item ``index``, requested as ``id_``; an OSError or ValueError that names the file if it is broken."""

    def readable(self, id_: int) -> tuple[int, Tensor]:
        """The item that an id stands for, broken ones passed over: its index and its content.

        Raises:
            OSError, ValueError: for a broken file if ``strict``; for a failure that is not the file's fault and persists, such as no free
                file descriptor; if no file can be read.

        """
        for step in range(len(self)):
            index = (id_ + step) % len(self)
            if index in self.skipped:
                continue
            try:
                return index, retry(partial(self.read, index, id_))
            except (OSError, ValueError) as error:
                if self.strict or is_transient(error):
                    raise
                self.skipped[index] = str(error)
        raise ValueError(f"not one of {len(self)} files can be read; the first: {next(iter(self.skipped.values()))}")

    def report(self) -> str:
        """What was skipped so far, one line per file."""
        return "\n".join([f"skipped {len(self.skipped)} of {len(self)} files", *(f"  {self.skipped[i]}" for i in sorted(self.skipped))])


class FileSource(FileReader):
    """Base class of sources that read from files: subclasses define ``__len__`` and ``read``. All items have one shape.

    Example:
        >>> from pathlib import Path
        >>> import torch
        >>> from pseudomotion.images import FileSource, load_image
        >>> class Cats(FileSource):
        ...     paths = sorted(Path("photos/cat").iterdir())
        ...     def __len__(self):
        ...         return len(self.paths)
        ...     def read(self, index, id_):
        ...         return load_image(self.paths[index], (32, 32))
        ...
        >>> Cats().get(torch.arange(3)).shape
        torch.Size([3, 3, 32, 32])

    """

    def get(self, ids: Tensor) -> Tensor:
        """The items of some ids, stacked.

        Args:
            ids: int64 ``(B,)``, at least 0.

        Raises:
            TypeError, ValueError: for other ids; for a broken file if ``strict``; if no file can be read.
            OSError: for a file that cannot be opened, if ``strict``; for a failure that is not the file's fault and persists.

        """
        numbers = checks.item_ids(ids)
        if not numbers:
            raise ValueError("ids must name at least one item, got none")
        return torch.stack([self.readable(number)[1] for number in numbers])


def is_transient(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, is the machine's or the network's and may pass: the file is not to blame.

    FFmpeg also returns EIO and ENOMEM for broken files, so these count only where the operating system raised them.
    """
    cause: BaseException | None = error
    while cause is not None:
        transient = _TRANSIENT_OF_SYSTEM if type(cause).__module__ == "builtins" else _TRANSIENT
        if type(cause) is MemoryError or getattr(cause, "errno", None) in transient:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def retry(read: Callable[[], Read]) -> Read:
    """``read()``, repeated after increasing delays while it fails with a transient error; the last failure is raised."""
    for delay in RETRY_AFTER:
        try:
            return read()
        except (OSError, ValueError) as error:
            if not is_transient(error):
                raise
        time.sleep(delay)
    return read()


def batches(
    source: ItemSource[Batch],
    batch_size: int,
    *,
    epoch: int = 0,
    seed: int | None = None,
    shuffle: bool = True,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    even: bool = True,
) -> Iterator[tuple[Batch, Tensor]]:
    """One epoch of a source: batches of items and their ids, for ``PMG(...)(images, ids=ids)``.

    Order and ids depend on epoch and seed alone; ranks share them without overlap. For a source with ``groups``, each item's group is drawn
    first, all groups equally likely, then the item (paper, section 4); so an item may come several times or not at all.

    Args:
        source: images, clips or anything else; any object with ``len`` and ``get``.
        batch_size: at least 1; the last batch may be smaller.
        epoch: at least 0.
        seed: of the order; None is 0.
        shuffle: False: in order, every item once.
        num_workers: worker processes that read; 0 reads in this one. They ignore SIGINT and SIGTERM; this process handles them. Start
            method ``forkserver`` is replaced by ``spawn``.
        rank: of this process among ``world_size``.
        world_size: number of processes that share the epoch.
        even: every rank gets the same number of items, as distributed training requires: the last ``len(source) % world_size`` ids of the
            epoch's order are left out. False leaves out nothing, for evaluation; ranks may then differ by one batch.

    Yields:
        What ``source.get`` returns, for images ``(B, 3, H, W)``, and int64 ids ``(B,)``.

    Raises:
        TypeError, ValueError: for arguments outside these; with ``even``, for fewer items than ranks.

    Warns:
        UserWarning: at the end, the files found broken, if there are any.

    Example:
        >>> from pseudomotion.images import ImageFolder, batches
        >>> source = ImageFolder("photos", size=32)
        >>> [(images.shape, ids.tolist()) for images, ids in batches(source, 3, epoch=1)]
        [(torch.Size([3, 3, 32, 32]), [6, 5, 8]), (torch.Size([2, 3, 32, 32]), [9, 7])]

    """
    batch_size = checks.positive_int("batch_size", batch_size, 2**31)
    checks.rank(rank, world_size)
    ids = order(source, epoch, checks.seed(seed)) if shuffle else torch.arange(len(source), device="cpu") + epoch * len(source)
    if even and world_size > 1:
        if len(ids) < world_size:
            raise ValueError(f"source must hold at least one item for each of {world_size} ranks, got {len(ids)}; or pass even=False")
        ids = ids[: len(ids) - len(ids) % world_size]
    own = ids[rank::world_size]
    yield from read_batches(source, torch.split(own, batch_size) if len(own) else (), num_workers)


def read_batches(
    source: ItemSource[Batch], parts: Sequence[Tensor], num_workers: int = 0, *, pin: bool = False
) -> Iterator[tuple[Batch, Tensor]]:
    """Items of given ids, batch by batch.

    Args:
        source: what to read.
        parts: int64 ids of every batch; any sequence, which may compute them when asked.
        num_workers: worker processes that read; 0 reads in this one. They ignore SIGINT and SIGTERM; this process handles them. Start
            method ``forkserver`` is replaced by ``spawn``.
        pin: copy what workers read to pinned memory, in a thread, for copies to a GPU that the host does not wait for.

    Yields:
        Items and their ids, in order.

    Warns:
        UserWarning: at the end, the files found broken, if there are any.

    """
    skipped: dict[int, str] = getattr(source, "skipped", {})
    known = set(skipped)
    if num_workers:
        for items, ids, found in _read_in_workers(source, parts, num_workers, pin):
            skipped.update(found)
            yield items, ids
    else:
        for position in range(len(parts)):
            yield source.get(parts[position]), parts[position]
    if new := sorted(set(skipped) - known):
        warnings.warn("\n".join([f"skipped {len(new)} broken files:", *(f"  {skipped[index]}" for index in new)]), stacklevel=2)


def _read_in_workers(
    source: ItemSource[Batch], parts: Sequence[Tensor], num_workers: int, pin: bool
) -> Iterator[tuple[Batch, Tensor, dict[int, str]]]:
    loader = DataLoader(
        _Reading(source, parts),
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin,
        # A fork server would pass the blocked signals on to everyone's processes, and SIGTERM to the process group would end it.
        multiprocessing_context="spawn" if num_workers and multiprocessing.get_start_method() == "forkserver" else None,
        worker_init_fn=partial(_ignore_signals, os.getpid()),
        generator=torch.Generator("cpu"),  # of its own: the loader would take a seed for its workers from torch's default generator
    )
    with signals_held():
        reading: Any = iter(loader)
    workers = set(reading._workers)
    _workers.update(workers)
    buffers = {}  # kept, so that each is mapped once
    try:
        for packed in reading:
            buffers[packed.buffer.data_ptr()] = packed.buffer
            yield packed.unpack()
    finally:
        reading._shutdown_workers()  # each ends once it has read its current batch
        for worker in workers:
            if worker.is_alive():  # a read that hangs: the loader's own SIGTERM is ignored
                worker.kill()
        _workers.difference_update(workers)


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Block stop signals while workers start. Workers inherit this, so that no signal reaches them before they ignore it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # multiprocessing starts it with the first queue, and unblocks both signals after that
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_signals(main: int, worker: int) -> None:
    """Leave it to the main process what Ctrl-C and SIGTERM mean.

    Both reach all processes of a group (from a terminal, SLURM, ``timeout``, torchrun). A worker that died of one would end a training run
    before it can save. Workers end when their loader does, or a few seconds after the main process has died.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # The loader's own check compares parents from here on: a worker whose main process died before would stay for ever.
    if multiprocessing.get_start_method() == "fork" and os.getppid() != main:
        os._exit(1)


_workers: set[Any] = set()


@atexit.register
def _kill_workers() -> None:
    """At exit, multiprocessing ends its children by SIGTERM and waits for them; workers ignore it."""
    if _workers and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report the killed worker as an error
    for worker in _workers:
        worker.kill()


def order(source: ItemSource[Batch], epoch: int, seed: int) -> Int64[Tensor, " n"]:
    """The ids of an epoch in the order in which ``batches`` takes them."""
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


class _Reading(Dataset[PackedBatch]):
    """Batches of a source, for the workers of a ``DataLoader``, with the errors that each worker found so far."""

    def __init__(self, source: ItemSource[Any], batches_of_ids: Sequence[Tensor]) -> None:
        self.source = source
        self.batches_of_ids = batches_of_ids
        self.buffers = SharedBuffers()

    def __len__(self) -> int:
        return len(self.batches_of_ids)

    def __getitem__(self, position: int) -> PackedBatch:
        ids = self.batches_of_ids[position]
        return self.buffers.pack((self.source.get(ids), ids, dict(getattr(self.source, "skipped", {}))))
