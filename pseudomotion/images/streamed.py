"""An indexed image source over shards that can only be read sequentially, so that training can resume and run on several ranks."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from itertools import count, islice
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.images.files import decode_image
from pseudomotion.images.huggingface import HFStream
from pseudomotion.images.shards import Shards
from pseudomotion.images.shards import _expanded as expand_shards
from pseudomotion.images.stream import Entry, Stream
from pseudomotion.source import ImageSource, is_transient, retry

ENDLESS = 2**62  # nominal length of an endless source
MOST_LANES = 64
BUFFERED = 4096  # images over all lanes
CHUNK = 1024  # images per shard of a map-style source


class Item(NamedTuple):
    """An image of a shard, not decoded yet."""

    name: str
    load: Callable[[], Tensor]


Shard = Callable[[], Iterator[Item]]  # one pass over its images


class StreamedImages:
    """An endless image source over shards that can only be read sequentially.

    Shards are dealt to *lanes*, as in MosaicML's StreamingDataset: image k is the (k // L)-th of lane k % L. A lane reads its shards one
    after the other, epoch after epoch in a new order, and permutes blocks of its images. So image k is a function of the seed and k,
    whatever the number of ranks and threads. Reading is cheap in ascending order: a rank reads only the lanes of its ids, each image once
    an epoch, if L is a multiple of the number of ranks. After a jump forward, as in a resumed run, it reads past what lies between.

    Args:
        shards: what to read; all images have one size.
        seed: of the order of shards and images.
        threads: that decode; 0 decodes in the caller's.
        buffered: images that blocks hold, over all lanes, not decoded; None for 4,096.

    Attributes:
        skipped: error messages of images that could not be read, by id; another image of their block takes their place.

    """

    def __init__(self, shards: Sequence[Shard], seed: int, *, threads: int = 0, buffered: int | None = None) -> None:
        if not shards:
            raise ValueError("shards must be at least one, got none")
        self.shards, self.seed = list(shards), checks.seed(seed)
        self.lanes = 1 << (min(len(shards), MOST_LANES).bit_length() - 1)  # a power of two
        self.block_size = max(2, (buffered or BUFFERED) // self.lanes)
        self.skipped: dict[int, str] = {}
        self._reading = [_Lane(partial(self._items, lane), partial(self._order, lane), self.block_size) for lane in range(self.lanes)]
        self._threads = ThreadPoolExecutor(threads) if threads else None

    def __len__(self) -> int:
        """``ENDLESS``."""
        return ENDLESS

    def get(self, ids: Tensor) -> UInt8[Tensor, "B 3 H W"]:
        """The images of some ids."""
        return self._load(ids, [0] * len(ids))

    def partners(self, ids: Tensor, seed: int) -> UInt8[Tensor, "B 3 H W"]:
        """For every id another image of its block, drawn by the seed and the id."""
        (number,) = Draws(seed, ids).uniform("streamed partner", 1)
        return self._load(ids, (1 + (number * (self.block_size - 1)).long()).tolist())

    def _load(self, ids: Tensor, steps: Sequence[int]) -> Tensor:
        """For every id, the image ``steps`` places after its own in its block, cyclically."""

        def place(id_: int, step: int) -> tuple[int, list[Item], int]:
            block, number = divmod(id_ // self.lanes, self.block_size)
            return id_, self._reading[id_ % self.lanes].block(block), number + step

        wanted = [place(id_, step) for id_, step in zip(checks.item_ids(ids), steps, strict=True)]
        run = map if self._threads is None else self._threads.map
        return torch.stack(list(run(lambda each: self._readable(*each), wanted)))

    def _readable(self, id_: int, block: list[Item], place: int) -> Tensor:
        """The image at a place of a block, or the next one that can be read."""
        for step in range(len(block)):
            item = block[(place + step) % len(block)]
            try:
                return retry(item.load)
            except (OSError, ValueError) as error:
                if is_transient(error):
                    raise
                self.skipped.setdefault(id_, str(error))
        raise ValueError(f"not one of {len(block)} images in a row can be read; the first: {self.skipped[id_]}")

    def _order(self, lane: int, block: int) -> list[int]:
        """A permutation of a block."""
        numbers = block * self.block_size + torch.arange(self.block_size, device="cpu")
        (order,) = Draws(self.seed, numbers * self.lanes + lane).uniform("streamed order", 1)
        permutation: list[int] = order.argsort(stable=True).tolist()
        return permutation

    def _items(self, lane: int) -> Iterator[Item]:
        """The images of a lane, epoch after epoch."""
        own = self.shards[lane :: self.lanes]
        for epoch in count():
            (number,) = Draws(self.seed, torch.arange(len(own), device="cpu") + epoch * len(own)).uniform(f"shards of lane {lane}", 1)
            empty = True
            for shard in number.argsort(stable=True).tolist():
                for item in own[shard]():
                    empty = False
                    yield item
            if empty:
                raise ValueError(f"shards must hold images, none was found in {len(own)} of them")


class _Lane:
    """Permuted blocks of an endless iterator; the last one requested is kept."""

    def __init__(self, items: Callable[[], Iterator[Item]], order: Callable[[int], list[int]], block_size: int) -> None:
        self.items, self.order, self.block_size = items, order, block_size
        self._iterator, self._number, self._block = items(), -1, list[Item]()

    def block(self, number: int) -> list[Item]:
        """A block. For an earlier block than the last one requested, the lane is read again from its start."""
        if number < self._number:
            self._iterator, self._number = self.items(), -1
        while self._number < number:
            items, self._number = list(islice(self._iterator, self.block_size)), self._number + 1
            self._block = [items[place] for place in self.order(self._number)] if self._number == number else []
        return self._block


def tar_shards(urls: str, size: int) -> list[Shard]:
    """The shards of a pattern, as for ``Shards``: local or remote, compressed or not."""
    return [partial(_stream_items, Shards, url, size, shuffle=0, strict=True) for url in expand_shards(urls)]


def huggingface_shards(dataset: Any, size: int) -> list[Shard]:
    """The shards of a streaming ``datasets.IterableDataset``."""
    count = dataset.n_shards
    return [partial(_stream_items, HFStream, dataset.shard(num_shards=count, index=k), size) for k in range(count)]


def source_shards(source: ImageSource) -> list[Shard]:
    """A map-style source as shards, to be mixed with streams."""

    def load(index: int) -> Tensor:
        return source.get(torch.tensor([index], device="cpu"))[0].cpu()

    def items(first: int) -> Iterator[Item]:
        for index in range(first, min(first + CHUNK, len(source))):
            yield Item(f"image {index}", partial(load, index))

    return [partial(items, first) for first in range(0, len(source), CHUNK)]


def _stream_items(kind: type[Stream], *arguments: Any, **options: Any) -> Iterator[Item]:
    """Open a stream, and iterate over its images."""
    stream = kind(*arguments, **options)

    def load(entry: Entry) -> Tensor:
        return decode_image(BytesIO(entry.content()), entry.name, stream.size)

    return (Item(entry.name, partial(load, entry)) for entry in stream.entries())
