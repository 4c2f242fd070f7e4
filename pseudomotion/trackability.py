"""How much of a clip can be followed: the paper's hypothesis on what makes a clip good for training (section 4.2), as a number."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from pseudomotion import geometry
from pseudomotion.plan import MotionPlan
from pseudomotion.render.output import to_unit

FLAT = 1e-5  # variance of grey levels in [0, 1] below which a patch or window has nothing to match: a fifth of a level


def trackability(
    clips: Tensor, plan: MotionPlan, *, frames: Sequence[int] = (2, 8, 16), patch_size: int = 16, tolerance: float = 2.0
) -> Float[Tensor, "B n"]:
    """Share of the patches of frame 1 that are found again where the plan says, in other frames.

    A patch is looked for in the whole frame, by the zero-mean normalised cross-correlation of grey levels. It is found where the place of
    the highest correlation lies within the tolerance of its true place, and counts only while its true place lies in the frame: what is
    measured is the image, not how fast it leaves. A patch of one color is never found. Measure and figures are not from the paper, which
    states the hypothesis in words. Follows the back layer.

    Args:
        clips: ``(B, C, T, h, w)``, uint8 or float in [0, 1], not normalised.
        plan: that the clips were made of.
        frames: numbers of the frames to look in, the first being 1.
        patch_size: side of the patches in pixels, which are cut from frame 1 without overlap.
        tolerance: in pixels.

    Returns:
        ``(B, len(frames))``, each from 0 to 1; NaN where no patch is left in the frame.

    Raises:
        ValueError: for clips that are not the plan's, or frames that it does not have.

    """
    if clips.ndim != 5 or (len(clips), *clips.shape[2:]) != (len(plan), plan.num_frames, *plan.frame_size):
        expected = (len(plan), "C", plan.num_frames, *plan.frame_size)
        raise ValueError(f"clips must have the plan's shape {expected}, got {tuple(clips.shape)}")
    if not all(1 <= frame <= plan.num_frames for frame in frames):
        raise ValueError(f"frames must be from 1 to {plan.num_frames}, got {tuple(frames)}")
    if not 2 <= patch_size <= min(plan.frame_size):
        raise ValueError(f"patch_size must be from 2 to {min(plan.frame_size)}, got {patch_size}")
    whole = plan.to(clips.device).composed().back.motion.homography.double()
    (h, w), half = plan.frame_size, (patch_size - 1) / 2
    x, y = (torch.arange(side // patch_size, device=clips.device, dtype=torch.float64) * patch_size + half for side in (w, h))
    centers = torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], -1)
    edge = torch.tensor([w - 1, h - 1], dtype=torch.float64, device=clips.device) - half
    shares = []
    for frame in frames:
        moved = geometry.transform_points(geometry.matmul(whole[:, frame - 1], geometry.inverse(whole[:, 0])), centers)
        visible = ((moved >= half) & (moved <= edge)).all(-1)
        # One clip at a time: the correlations of a clip are its patches times its pixels.
        matches = [best_match(to_unit(clip[:, [0, frame - 1]].transpose(0, 1)).mean(1), patch_size) for clip in clips]
        place, textured = (torch.stack(parts) for parts in zip(*matches, strict=True))
        found = textured & ((place + half - moved).norm(dim=-1) <= tolerance) & visible
        shares.append(found.sum(1).float() / visible.sum(1))
    return torch.stack(shares, 1)


def best_match(pair: Float[Tensor, "2 h w"], patch_size: int) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
    """Where every patch of the first picture correlates best with the second.

    Returns:
        Left top corner (x, y) of the best place, for patches in rows from the left top; and whether the patch has any texture.

    """
    first, second = pair - 0.5
    h, w = first.shape
    area = patch_size**2
    cut = first[: h // patch_size * patch_size, : w // patch_size * patch_size]
    patches = cut.unfold(0, patch_size, patch_size).unfold(1, patch_size, patch_size).reshape(-1, patch_size, patch_size)
    patches = patches - patches.mean((-1, -2), keepdim=True)
    energy = patches.square().sum((-1, -2))
    mean, square = (F.avg_pool2d(v[None, None].double(), patch_size, 1)[0, 0] for v in (second, second.double().square()))
    variance = square - mean.square()
    product = F.conv2d(second[None, None], patches[:, None])[0]
    score = product / (variance.clamp(min=FLAT).sqrt().to(product) * area**0.5)
    best = torch.where(variance > FLAT, score, -torch.inf).flatten(1).argmax(1)
    columns = w - patch_size + 1
    return torch.stack([best % columns, best // columns], -1).to(pair), energy > FLAT * area
