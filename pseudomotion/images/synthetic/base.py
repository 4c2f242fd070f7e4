"""What all generators share: an image source whose images are made from their ids, and the random numbers for it."""

import zlib
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import philox

NOMINAL_LENGTH = 1_000_000  # what an endless source says its length is, so that samplers have something to draw from
LARGEST_SIDE = 4096
_MASK = 0xFFFFFFFF

Images = UInt8[Tensor, "B 3 size size"]


class Generator(ABC):
    """An image source that makes its images: the image of an id is a function of the seed and the id alone.

    The same id gives the same image, bit for bit, in a batch of any size and order and in any process. Pixels are made of additions,
    multiplications, divisions, square roots and integer arithmetic only, which round alike in vectorised and in scalar code; a library
    sine or a sum over many values would not.

    Args:
        size: side of the square images in pixels.
        seed: any integer of 64 bits; None is 0. Another seed, other images.
        device: where the images are made, and where they stay.

    Raises:
        TypeError, ValueError: for arguments outside these.

    """

    endless: ClassVar[bool] = False  # every id has an image of its own; else id and id + len() have the same

    def __init__(self, *, size: int = 224, seed: int | None = None, device: torch.device | str = "cpu") -> None:
        self.size = checks.positive_int("size", size, LARGEST_SIDE)
        self.seed = checks.seed(seed)
        self.device = torch.device(device)

    def __len__(self) -> int:
        """Number of images; of an endless source a nominal one."""
        return NOMINAL_LENGTH

    def get(self, ids: Tensor) -> Tensor:
        """The images of some ids.

        Args:
            ids: int64 ``(B,)``, at least 0. Where the source is not endless, the image is that of ``id % len()``.

        Returns:
            uint8 ``(B, 3, size, size)`` on the source's device.

        Raises:
            TypeError, ValueError: for ids outside these.

        """
        ids = check_ids(ids, None if self.endless else len(self))
        checks.not_forked(self.device)
        if not len(ids):
            return torch.empty(0, 3, self.size, self.size, dtype=torch.uint8, device=self.device)
        return self._make(ids)

    @abstractmethod
    def _make(self, ids: Int64[Tensor, " B"]) -> Images:
        """The images of at least one valid id."""


def check_ids(ids: object, length: int | None) -> Int64[Tensor, " B"]:
    """Ids on the CPU, if they are not negative; counted round ``length`` items (None: endless), as every source of the library does."""
    if not isinstance(ids, Tensor) or ids.dtype != torch.int64:
        raise TypeError(f"ids must be an int64 tensor, got {ids.dtype if isinstance(ids, Tensor) else type(ids).__name__}")
    if ids.ndim != 1:
        raise ValueError(f"ids must have shape (B,), got {tuple(ids.shape)}")
    ids = ids.to("cpu")
    if len(ids) and int(ids.min()) < 0:
        raise ValueError(f"ids must be at least 0, got {int(ids.min())}")
    return ids if length is None else ids % length


def count(name: str, value: object, low: int, high: int) -> int:
    """``value``, if it is an integer from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {value}")
    return value


def interval(name: str, value: object, low: float, high: float) -> tuple[float, float]:
    """A pair ``(low, high)`` within bounds."""
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(isinstance(v, (int, float)) for v in value):
        raise TypeError(f"{name} must be a pair of numbers (low, high), got {value!r}")
    if not low <= value[0] <= value[1] <= high:
        raise ValueError(f"{name} must be a pair (low, high) with {low:g} <= low <= high <= {high:g}, got {value!r}")
    return float(value[0]), float(value[1])


def random_words(seed: int, ids: Int64[Tensor, " B"], purpose: str, n: int, device: torch.device) -> Int64[Tensor, "B n"]:
    """``n`` integers in [0, 2**32) for every id, made on the device: ``Draws``, for numbers by the thousand.

    They are the words that ``Draws.uniform`` is made of, in the same order.
    """
    ids = ids.to(device, non_blocking=True)
    block = torch.arange((n + 3) // 4, device=device).expand(len(ids), -1)
    low, high = (word[:, None].expand_as(block) for word in (ids & _MASK, (ids >> 32) & _MASK))
    key = (seed & _MASK, (seed >> 32) & _MASK)
    words = philox((low, high, torch.full_like(block, zlib.crc32(purpose.encode())), block), key)
    return torch.stack(words, -1).flatten(1)[:, :n]


def uniform(seed: int, ids: Int64[Tensor, " B"], purpose: str, n: int, device: torch.device) -> Float32[Tensor, "B n"]:
    """``n`` numbers for every id, uniform in [0, 1), in steps of 2**-24."""
    return (random_words(seed, ids, purpose, n, device) >> 8).float() * 2.0**-24


def batches(ids: Int64[Tensor, " B"], size: int) -> list[Int64[Tensor, " _"]]:
    """The ids in order, ``size`` or fewer at a time."""
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def to_uint8(images: Float32[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Values in [0, 1] as levels; what lies outside is cut off."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)
