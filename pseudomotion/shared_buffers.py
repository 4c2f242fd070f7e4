"""How worker processes hand over batches: in buffers of shared memory that are used again, not in new memory for every tensor.

New memory costs both sides: the system clears its pages, maps them, and takes them back when the batch is freed. For 192 pairs of images
(75 MB) that is more CPU time than all else that a training step does beside the model.
"""

import io
import math
import os
import pickle
import weakref
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 64  # bytes
SPARE = 1.125  # size of a buffer over that of its first batch: later ones may be somewhat larger


class SharedBuffers:
    """The buffers of a worker, as many as batches are alive at a time. Each is unlinked, and so ends with the processes that map it."""

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []  # uint8, in shared memory; the last byte is 1 while a batch is in use

    def pack(self, batch: Any) -> "PackedBatch":
        """A batch, ready to be sent: any object that can be pickled; its tensors are copied to a buffer."""
        pickler = _Pickler()
        pickler.dump(batch)
        buffer = self._free(pickler.size)
        buffer[-1] = 1
        for tensor, place in pickler.tensors:
            _tensor_at(buffer, *place).copy_(tensor)
        return PackedBatch(buffer, pickler.size, pickler.message.getvalue())

    def _free(self, size: int) -> Tensor:
        """A buffer that is not in use and holds ``size`` bytes; a new one replaces those that are too small."""
        fitting = [buffer for buffer in self._buffers if not buffer[-1] and len(buffer) > size]
        if not fitting:
            new = torch.empty(math.ceil(SPARE * size) + 1, dtype=torch.uint8, device="cpu").share_memory_()  # type: ignore[no-untyped-call]
            self._buffers = [buffer for buffer in self._buffers if buffer[-1]] + [new]
            return new
        return fitting[0]


class PackedBatch:
    """A batch in a worker's buffer.

    Attributes:
        buffer: uint8, shared. A receiver that keeps it maps it once, for all batches that come in it.

    """

    def __init__(self, buffer: Tensor, size: int, message: bytes) -> None:
        self.buffer, self._size, self._message = buffer, size, message
        self._pinned: Tensor | None = None

    def pin_memory(self) -> "PackedBatch":
        """The batch with its tensors in pinned memory; the buffer is free. ``DataLoader(pin_memory=True)`` calls this."""
        self._pinned = self.buffer[: self._size].pin_memory()
        _release(self.buffer.numpy()[-1:], os.getpid())
        return self

    def unpack(self) -> Any:
        """The batch, once. Its tensors lie in the buffer, which is free when they and all their views are gone."""
        memory, self._pinned = self._pinned, None
        if memory is None:
            array = self.buffer.numpy()  # a new object, which the tensors' storage keeps alive
            weakref.finalize(array, _release, self.buffer.numpy()[-1:], os.getpid()).atexit = False
            memory = torch.from_numpy(array)
        return _Unpickler(self._message, memory).load()


def _release(in_use: np.ndarray, owner: int) -> None:
    if os.getpid() == owner:  # not in a process that was forked while the batch was in use, and drops what its parent has
        in_use[0] = 0


def _tensor_at(memory: Tensor, start: int, dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    return memory[start : start + math.prod(shape) * dtype.itemsize].view(dtype).as_strided(shape, stride)


class _Pickler(ForkingPickler):
    """Pickles a batch without its tensors, each of which gets a place in ``size`` bytes."""

    def __init__(self) -> None:
        self.message, self.size = io.BytesIO(), 0
        self.tensors: list[tuple[Tensor, tuple[Any, ...]]] = []
        super().__init__(self.message, pickle.HIGHEST_PROTOCOL)

    def persistent_id(self, value: Any) -> Any:
        if type(value) is not Tensor or value.device.type != "cpu" or value.layout != torch.strided or value.requires_grad:
            return None  # torch pickles it
        like = torch.empty_like(value, device="meta")  # without gaps, in the same order in memory
        place = self.size, like.dtype, tuple(like.shape), like.stride()
        self.tensors.append((value, place))
        self.size += -(-like.nbytes // ALIGNMENT) * ALIGNMENT
        return place


class _Unpickler(pickle.Unpickler):
    def __init__(self, message: bytes, memory: Tensor) -> None:
        super().__init__(io.BytesIO(message))
        self.memory = memory

    def persistent_load(self, place: Any) -> Tensor:
        return _tensor_at(self.memory, *place)
