"""Which ids a step trains on: epochs end to end, cut into steps, and each step into the parts of every process."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor

from pseudomotion.images.streamed import ENDLESS
from pseudomotion.source import ItemSource, order

Item = TypeVar("Item")


class Steps:
    """The ids of every step, a function of seed and step alone. Epochs follow each other without a gap, also within a step."""

    def __init__(self, source: ItemSource[Any], batch_size: int, seed: int) -> None:
        self.source = source
        self.batch_size = batch_size
        self.seed = seed
        self._orders: dict[int, Tensor] = {}  # of the epochs that the last step spanned

    def __getitem__(self, step: int) -> Int64[Tensor, " batch_size"]:
        """All ids of a step, from 0."""
        n = len(self.source)
        if n >= ENDLESS:  # in the order in which it can be read
            return torch.arange(step * self.batch_size, (step + 1) * self.batch_size, device="cpu")
        first, last = step * self.batch_size, (step + 1) * self.batch_size
        epochs = range(first // n, -(-last // n))
        self._orders = {epoch: self._orders[epoch] if epoch in self._orders else order(self.source, epoch, self.seed) for epoch in epochs}
        return torch.cat([ids[max(0, first - epoch * n) : last - epoch * n] for epoch, ids in self._orders.items()])


@dataclass(frozen=True)
class Parts(Sequence[Tensor]):
    """What one process reads: its share of every step from ``first`` to ``last``, in as many parts as gradients are accumulated over."""

    steps: Steps
    first: int
    last: int
    accumulate: int = 1
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        return (self.last - self.first) * self.accumulate

    def __getitem__(self, position: int) -> Int64[Tensor, " part"]:  # type: ignore[override]
        """Ids of one part."""
        if not 0 <= position < len(self):
            raise IndexError(position)
        ids = self.steps[self.first + position // self.accumulate]
        return ids[position % self.accumulate * self.world_size + self.rank :: self.accumulate * self.world_size]


def read_ahead(reading: Iterator[Item]) -> Iterator[Item]:
    """The items of an iterator; while one is used, a thread fetches the next."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, reading, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, reading, None)
            yield item


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device. A copy to a GPU goes through pinned memory: from other memory, the host would wait for the GPU."""
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
