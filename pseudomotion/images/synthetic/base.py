"""``SyntheticSource``, the base class of generators, and the random numbers they draw on their device."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import philox

NOMINAL_LENGTH = 1_000_000  # the length that an endless source reports, for samplers
LARGEST_SIDE = 4096
_MASK = 0xFFFFFFFF

Images = UInt8[Tensor, "B 3 size size"]


class SyntheticSource(ABC):
    """An image source that generates its images: the image of an id is a function of the seed and the id alone.

    The same id gives the same image, bit for bit, in a batch of any size and order, in any process, and under any default dtype or device.
    To this end pixels are computed by additions, multiplications, divisions, square roots, and integer arithmetic only, which round alike
    in vectorized and in scalar code; a library's sine, or a sum over many values, would not. Subclasses define ``generate``, and
    ``__len__`` unless they are endless.

    Args:
        size: side of the square images in pixels.
        seed: any 64-bit integer; None is 0.
        device: where the images are generated, and where they stay.

    Raises:
        TypeError, ValueError: for arguments outside these.

    """

    name: ClassVar[str]  # in ``SOURCES``
    endless: ClassVar[bool] = False  # every id has an image of its own; otherwise id and id + len() have the same

    def __init__(self, *, size: int = 224, seed: int | None = None, device: torch.device | str = "cpu") -> None:
        self.size = checks.positive_int("size", size, LARGEST_SIDE)
        self.seed = checks.seed(seed)
        self.device = torch.device(device)

    def __len__(self) -> int:
        """Number of images; a nominal one if the source is endless."""
        return NOMINAL_LENGTH

    def get(self, ids: Tensor) -> Tensor:
        """The images of some ids.

        Args:
            ids: int64 ``(B,)``, at least 0. Unless the source is endless, ``id % len()`` is the image's index.

        Returns:
            uint8 ``(B, 3, size, size)`` on the source's device.

        Raises:
            TypeError, ValueError: for other ids.

        """
        ids = checks.item_indices(ids, None if self.endless else len(self))
        checks.not_forked(self.device)
        if not len(ids):
            return torch.empty(0, 3, self.size, self.size, dtype=torch.uint8, device=self.device)
        return self.generate(ids)

    @abstractmethod
    def generate(self, ids: Int64[Tensor, " B"]) -> Images:
        """The images of valid ids, which are at least one and on the CPU."""

    def _in_parts(
        self, generate: Callable[[Int64[Tensor, " b"]], Tensor], ids: Int64[Tensor, " B"], at_once: Mapping[str, int], cost: int = 1
    ) -> Images:
        """Images generated a few at a time: ``at_once[device type] // cost`` of them, at least one."""
        return torch.cat([generate(part) for part in torch.split(ids, max(1, at_once.get(self.device.type, at_once["cuda"]) // cost))])


def random_words(seed: int, ids: Int64[Tensor, " B"], purpose: str, n: int, device: torch.device) -> Int64[Tensor, "B n"]:
    """``n`` integers in [0, 2**32) per id, computed on the device: the words that ``Draws.uniform`` is made of, in the same order."""
    ids = ids.to(device, non_blocking=True)
    block = torch.arange((n + 3) // 4, device=device).expand(len(ids), -1)  # (B, blocks)
    low, high = (word[:, None].expand_as(block) for word in (ids & _MASK, (ids >> 32) & _MASK))
    key = (seed & _MASK, (seed >> 32) & _MASK)
    words = philox((low, high, torch.full_like(block, zlib.crc32(purpose.encode())), block), key)
    return torch.stack(words, -1).flatten(1)[:, :n]  # (B, blocks, 4) to (B, n)


def uniform(seed: int, ids: Int64[Tensor, " B"], purpose: str, n: int, device: torch.device) -> Float32[Tensor, "B n"]:
    """``n`` numbers per id, uniform in [0, 1), multiples of 2**-24."""
    return (random_words(seed, ids, purpose, n, device) >> 8).float() * 2.0**-24


def to_uint8(images: Float32[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Values in [0, 1] as levels from 0 to 255; others are clamped."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)
