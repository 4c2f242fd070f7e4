"""Correspondence between the tokens of a video transformer: which token showed the same content before."""

from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from pseudomotion import checks
from pseudomotion.labels import visibility
from pseudomotion.labels.motion import frame_number
from pseudomotion.labels.surfaces import Surfaces
from pseudomotion.plan import MotionPlan


class PatchCorrespondence(NamedTuple):
    """Where the content of every token of B clips comes from. The N tokens are in VideoMAE's order: by tubelet, then row, then column."""

    token: Int64[Tensor, "B N"]  # token that shows most of the content, in 0 to N - 1; -1 if none shows any
    share: Float32[Tensor, "B N"]  # fraction of the pixels that are visible in that token
    visible: Float32[Tensor, "B N"]  # fraction of the pixels that are visible in any token of that tubelet


def patch_correspondence(
    plan: MotionPlan,
    size: int | tuple[int, int] | None = None,
    *,
    patch: int = 16,
    tubelet: int = 2,
    anchor: int | None = None,
    textures: Tensor | None = None,
) -> PatchCorrespondence:
    """For every token, the earlier token that shows the same content, and how much of it is visible there.

    This measures the paper's hypothesis (sections 3.2 and 4.7) that masked video modeling learns from patches that can be tracked; the
    measure itself is not from the paper. Every pixel of a token is traced from frame k of its tubelet to frame k of the other tubelet.

    Args:
        plan: the plan of B clips whose number of frames is a multiple of ``tubelet``.
        size: frame size, a multiple of ``patch``: an int, ``(h, w)``, or None for the plan's own.
        patch: side of a patch in pixels.
        tubelet: frames per token.
        anchor: None: tokens are traced to the previous tubelet; those of the first tubelet have no counterpart. The index of a tubelet,
            negative from the end: tokens are traced to that tubelet, whose own tokens correspond to themselves.
        textures: as for ``flow``.

    Returns:
        Tensors of shape ``(B, N)``, N = T / tubelet * h / patch * w / patch.

    Raises:
        TypeError, ValueError: if sizes are not multiples, or the anchor does not exist.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> from pseudomotion.labels import patch_correspondence
        >>> plan = PMG(num_frames=4, size=32).plan((2, 3, 48, 48), ids=torch.arange(2))
        >>> found = patch_correspondence(plan, patch=16, tubelet=2)
        >>> found.token.shape
        torch.Size([2, 8])

    """
    patch = checks.positive_int("patch", patch, checks.LARGEST_SIDE)
    tubelet = checks.positive_int("tubelet", tubelet, plan.num_frames)
    surfaces = Surfaces.of(plan, size, textures)
    h, w = surfaces.size
    if h % patch or w % patch or plan.num_frames % tubelet:
        raise ValueError(
            f"size must be a multiple of patch={patch} and the plan's frames of tubelet={tubelet}, got {h} x {w} and {plan.num_frames}"
        )
    tubelets, patches = plan.num_frames // tubelet, (h // patch) * (w // patch)
    fixed = None if anchor is None else frame_number("anchor", anchor, tubelets)
    votes = surfaces.box.new_zeros(len(plan), tubelets, patches, patches + 1, dtype=torch.float32)
    for number in range(tubelets):
        other = number - 1 if fixed is None else fixed
        if other < 0:
            continue
        for k in range(tubelet):
            votes[:, number] += _votes(surfaces, number * tubelet + k, other * tubelet + k, patch)
    most = votes[..., :patches].max(-1)
    before = torch.arange(tubelets, device=votes.device)[:, None] - 1 if fixed is None else fixed
    pixels = patch * patch * tubelet
    return PatchCorrespondence(
        torch.where(most.values > 0, before * patches + most.indices, -1).flatten(1),
        (most.values / pixels).flatten(1),
        (votes[..., :patches].sum(-1) / pixels).flatten(1),
    )


def _votes(surfaces: Surfaces, frame: int, other: int, patch: int) -> Float32[Tensor, "B n m"]:
    """Count, for each of n patches, the pixels that come from each patch of another frame; the last column counts invisible pixels."""
    h, w = surfaces.size
    rows, columns = h // patch, w // patch
    x, y = surfaces.pixels()
    u, v, shown, visible = visibility.lead(surfaces, slice(frame, frame + 1), slice(other, other + 1), x, y)
    visible = visible & visibility.stays(surfaces, frame, other, shown, x, y)
    column, row = (((place + 0.5) / patch).floor().long() for place in (u, v))
    origin = torch.where(visible, row * columns + column, rows * columns)  # (B, 1, h, w)
    origin = origin.reshape(-1, rows, patch, columns, patch).transpose(2, 3)  # (B, rows, columns, patch, patch)
    origin = origin.reshape(-1, rows * columns, patch * patch)  # (B, n, patch**2)
    counts = torch.zeros(len(origin), rows * columns, rows * columns + 1, dtype=torch.float32, device=origin.device)
    return counts.scatter_add_(-1, origin, counts.new_ones(()).expand_as(origin))
