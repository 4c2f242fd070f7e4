"""Tube masks: which tokens of a clip are hidden."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from pseudomotion.draws import Draws


def tube_tokens(draws: Draws, slices: int, patches: int, ratio: float) -> tuple[Int64[Tensor, "b n_visible"], Int64[Tensor, "b n_hidden"]]:
    """The visible and the hidden tokens of every clip: the same pattern of hidden patches in all slices of time (VideoMAE's tube masking).

    Args:
        draws: of the clips; the pattern of an id is always the same.
        slices: of time: frames over the tubelet size.
        patches: of a frame: rows times columns.
        ratio: share of the patches that is hidden, rounded down to whole patches: 0.75 of 196 hides 147.

    Returns:
        Numbers of the visible tokens and of the hidden ones, each in ascending order; tokens count over time, rows, columns. On the CPU.

    Raises:
        ValueError: where nothing would be hidden, or everything.

    """
    hidden = math.floor(ratio * patches)
    if not 0 < hidden < patches:
        raise ValueError(f"mask_ratio must hide some of {patches} patches and leave some, got {ratio}, which hides {hidden}")
    # Keys of 40 bits: the drawn number, and the patch, so that no two are equal. The smallest are hidden: a selection, not a sort.
    keys = (np.stack(draws.numbers("mask", patches), 1) * 2**32).astype(np.int64) * patches + np.arange(patches)  # (b, patches)
    limit = np.partition(keys, hidden - 1)[:, hidden - 1 : hidden]
    firsts = np.arange(slices)[None, :, None] * patches

    def tokens(chosen: Bool[np.ndarray, "b patches"]) -> Int64[Tensor, "b n"]:
        numbers = chosen.nonzero()[1].reshape(len(chosen), 1, -1)  # in ascending order
        return torch.from_numpy((firsts + numbers).reshape(len(chosen), -1))

    return tokens(keys > limit), tokens(keys <= limit)


def tube_mask(draws: Draws, slices: int, patches: int, ratio: float) -> Bool[Tensor, "b n"]:
    """``tube_tokens`` as a mask ``(B, slices * patches)``, True for hidden tokens, as transformers' models take it."""
    _, hidden = tube_tokens(draws, slices, patches, ratio)
    return torch.zeros(len(hidden), slices * patches, dtype=torch.bool, device="cpu").scatter_(1, hidden, True)
