"""Random numbers as a pure function of (seed, clip id, purpose): Philox4x32-10, vectorized on the host.

A counter-based generator has no state, so the numbers for clip 17 are the same in any batch, worker, rank and order. Source: Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Tested against the known answers in the authors' Random123 library.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from pseudomotion.geometry import sincos
from pseudomotion.untraced import untraced

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
LOG_2 = 0.6931471805599453
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


Words = TypeVar("Words", Tensor, np.ndarray)
Numbers = Float64[np.ndarray, " b"]


def philox(counter: Sequence[Words], key: tuple[int, int]) -> tuple[Words, ...]:
    """Philox4x32-10: four random 32-bit words from four counter words and two key words.

    Args:
        counter: four int64 arrays or tensors in [0, 2**32) that broadcast. numpy is faster for a batch of clips; torch runs on any device.
        key: two integers in [0, 2**32).

    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The product may overflow int64 and become negative. Its low 64 bits are still right, and the mask drops the sign extension.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch of clips.

    A *purpose* is any short name, such as ``"affine"``. Numbers for different purposes, and at different positions under one purpose, are
    independent. Drawing more numbers for a purpose does not change the first ones.

    Args:
        seed: 64-bit integer.
        ids: int64 ``(b,)`` on the CPU, one per clip.

    """

    seed: int
    ids: Int64[Tensor, " b"]

    def select(self, clips: Int64[Tensor, " n"] | Int64[np.ndarray, " n"]) -> "Draws":
        """The draws of the clips at these positions in the batch."""
        return Draws(self.seed, torch.from_numpy(self.ids.numpy()[np.asarray(clips)]))

    @untraced
    def numbers(self, purpose: str, n: int) -> tuple[Numbers, ...]:
        """``n`` numbers per clip, uniform in the open interval (0, 1), as ``n`` float64 arrays ``(b,)``."""
        ids, blocks = self.ids.numpy(), np.arange((n + 3) // 4, dtype=np.int64)[:, None]
        counter = ids & _MASK, (ids >> 32) & _MASK, np.array([zlib.crc32(purpose.encode())], dtype=np.int64), blocks
        words = philox(counter, (self.seed & _MASK, (self.seed >> 32) & _MASK))
        numbers = (np.stack(words, 1).reshape(4 * len(blocks), len(ids)) + 0.5) / 2**32  # (4 blocks, b): four numbers of each block
        return tuple(numbers[:n])

    def uniform(self, purpose: str, n: int) -> tuple[Float64[Tensor, " b"], ...]:
        """Like ``numbers``, but returns float64 CPU tensors."""
        return tuple(map(torch.from_numpy, self.numbers(purpose, n)))

    @untraced
    def choice(self, purpose: str, weights: Sequence[float]) -> Int64[Tensor, " b"]:
        """An index into ``weights`` per clip, ``(b,)``, drawn with probabilities proportional to them."""
        if len(weights) == 1:
            return torch.zeros(len(self.ids), dtype=torch.int64, device="cpu")
        steps = np.cumsum(np.asarray(weights, dtype=np.float64))
        (number,) = self.numbers(purpose, 1)
        return torch.from_numpy(np.searchsorted(steps[:-1], number * steps[-1], side="right"))

    @untraced
    def beta(self, purpose: str, alpha: float) -> Numbers:
        """A number in [0, 1] per clip, from the symmetric beta distribution Beta(alpha, alpha).

        Two uniform numbers give Student's t with ``2 alpha`` degrees of freedom (Bailey, "Polar generation of random variates with the
        t-distribution", Mathematics of Computation 62, 1994), and ``(1 + t / sqrt(2 alpha + t**2)) / 2`` then has the beta distribution.
        This needs no rejection, and only operations that round the same way on every machine (see ``pseudomotion.geometry``).
        """
        radius, turn = self.numbers(purpose, 2)
        _, cosine = sincos(2 * math.pi * turn)
        power = exp(log(radius) / alpha)
        with np.errstate(divide="ignore"):
            return (1 + cosine / np.sqrt(power / (1 - power) + cosine * cosine)) / 2

    def partner_ids(self, purpose: str) -> Int64[Tensor, " b"]:
        """A partner's id for every clip, ``(b,)``, derived from the clip's own id alone: for partners from outside the batch."""
        high, low = ((number * 2**32).long() for number in self.uniform(purpose, 2))
        return ((high & (_MASK >> 1)) << 32) | low

    @untraced
    def partner(self, purpose: str) -> Int64[Tensor, " b"]:
        """The batch position of a partner for every clip, ``(b,)``: the next clip in a cycle sorted by a drawn number.

        The pairing depends on which ids are in the batch, not on their order. It is a permutation, and no clip is its own partner except
        in a batch of one.
        """
        (number,) = self.numbers(purpose, 1)
        order = number.argsort(kind="stable")
        partner = np.empty_like(order)
        partner[order] = np.roll(order, -1)
        return torch.from_numpy(partner)


def log(x: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """Natural logarithm of positive numbers, bitwise equal on every machine; relative error below 1e-14."""
    mantissa, exponent = np.frexp(x)
    ratio = (mantissa - 1) / (mantissa + 1)  # z in [-1/3, 0): log(m) = 2 (z + z**3 / 3 + z**5 / 5 + ...)
    square, series = ratio * ratio, np.zeros_like(ratio)
    for n in range(35, 0, -2):
        series = series * square + 1 / n
    return exponent * LOG_2 + 2 * ratio * series


def exp(x: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """Exponential of numbers up to 0, bitwise equal on every machine; relative error below 1e-12. Below -700 it is 0."""
    small, power = x.clip(min=-700.0) / 2**10, np.ones_like(x)
    for n in range(16, 0, -1):
        power = 1 + small / n * power
    for _ in range(10):
        power = power * power
    return np.where(x < -700, 0.0, power)
