"""Tube masks: which tokens of a clip are hidden."""

import math

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from pseudomotion.draws import Draws


def tube_mask(draws: Draws, slices: int, patches: int, ratio: float) -> Bool[Tensor, "b n"]:
    """A pattern of hidden patches for every clip, the same in all its slices of time (VideoMAE's tube masking).

    Args:
        draws: of the clips; the mask of an id is always the same.
        slices: of time: frames over the tubelet size.
        patches: of a frame: rows times columns.
        ratio: share of the patches that is hidden, rounded down to whole patches: 0.75 of 196 hides 147.

    Returns:
        True for hidden tokens, in the order of time, rows, columns: ``(B, slices * patches)``.

    Raises:
        ValueError: where nothing would be hidden, or everything.

    """
    hidden = math.floor(ratio * patches)
    if not 0 < hidden < patches:
        raise ValueError(f"mask_ratio must hide some of {patches} patches and leave some, got {ratio}, which hides {hidden}")
    order = torch.stack(draws.uniform("mask", patches), 1).argsort(dim=1, stable=True)
    mask = torch.zeros(len(draws.ids), patches, dtype=torch.bool, device="cpu").scatter_(1, order[:, :hidden], True)
    return mask.repeat(1, slices)


def token_numbers(mask: Bool[Tensor, "b n"]) -> tuple[Int64[Tensor, "b n_visible"], Int64[Tensor, "b n_hidden"]]:
    """Numbers of the visible and of the hidden tokens of a mask, in order; every clip has the same number of hidden tokens."""
    visible, hidden = ((part.nonzero()[:, 1]).view(len(mask), -1) for part in (~mask, mask))
    return visible, hidden
