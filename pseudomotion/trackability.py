"""How much of a clip can be tracked, which the paper's hypothesis relates to how well a clip trains a model (section 4.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from pseudomotion.labels.surfaces import Surfaces
from pseudomotion.plan import MotionPlan
from pseudomotion.render.output import to_unit

FLAT = 1e-5  # patches with a smaller variance of gray in [0, 1] are flat; a standard deviation of 0.8 levels out of 255


def trackability(
    clips: Tensor, plan: MotionPlan, *, frames: Sequence[int] = (2, 8, 16), patch_size: int = 16, tolerance: float = 2.0
) -> Float[Tensor, "B n"]:
    """Fraction of frame 1's patches that template matching finds at their true positions in other frames.

    Each patch is searched for in the whole frame by zero-mean normalized cross-correlation (ZNCC) of gray values. It is found if the
    maximum lies within ``tolerance`` of its true position, which the plan gives. Patches whose true position has left the frame are not
    counted, so the measure does not depend on how fast the image leaves. A flat patch is never found. Positions are those of the back.
    The measure is not from the paper, which states the hypothesis in words.

    Args:
        clips: ``(B, C, T, h, w)``, uint8 or float in [0, 1], not normalized.
        plan: the plan from which the clips were rendered.
        frames: frames to search, counted from 1.
        patch_size: side of the patches in pixels; patches tile frame 1 without overlap.
        tolerance: largest distance from the true position, in pixels.

    Returns:
        ``(B, len(frames))``, in [0, 1]; NaN if no patch is left in the frame.

    Raises:
        ValueError: if the clips do not have the plan's shape, a frame does not exist, or a patch does not fit in the frame.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> from pseudomotion.images import builtin_picture
        >>> from pseudomotion.trackability import trackability
        >>> images, pmg = builtin_picture(64, 64)[None], PMG(("sliding_window",), num_frames=4, size=48)
        >>> plan = pmg.plan(images.shape, ids=torch.arange(1))
        >>> trackability(pmg.render(images, plan), plan, frames=(2, 4))
        tensor([[1., 1.]])

    """
    if clips.ndim != 5 or (len(clips), *clips.shape[2:]) != (len(plan), plan.num_frames, *plan.frame_size):
        expected = (len(plan), "C", plan.num_frames, *plan.frame_size)
        raise ValueError(f"clips must have the plan's shape {expected}, got {tuple(clips.shape)}")
    if not all(1 <= frame <= plan.num_frames for frame in frames):
        raise ValueError(f"frames must be from 1 to {plan.num_frames}, got {tuple(frames)}")
    if not 2 <= patch_size <= min(plan.frame_size):
        raise ValueError(f"patch_size must be from 2 to {min(plan.frame_size)}, got {patch_size}")
    surfaces = Surfaces.of(plan.to(clips.device))
    (h, w), half = plan.frame_size, (patch_size - 1) / 2
    x, y = (torch.arange(side // patch_size, device=clips.device, dtype=torch.float64) * patch_size + half for side in (w, h))
    centers = torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], -1)  # (n, 2), row-major
    edge = torch.tensor([w - 1, h - 1], dtype=torch.float64, device=clips.device) - half
    shares = []
    for frame in frames:
        step = surfaces.move(0, slice(0, 1), slice(frame - 1, frame), *centers[None, None].unbind(-1))
        moved = centers + torch.stack([step.dx[:, 0], step.dy[:, 0]], -1)  # (B, n, 2)
        visible = ((moved >= half) & (moved <= edge)).all(-1)
        # One clip at a time: the score map has (patches x positions) entries per clip.
        matches = [best_match(to_unit(clip[:, [0, frame - 1]].transpose(0, 1)).mean(1), patch_size) for clip in clips]
        place, textured = (torch.stack(parts) for parts in zip(*matches, strict=True))
        found = textured & ((place + half - moved).norm(dim=-1) <= tolerance) & visible
        shares.append(found.sum(1).float() / visible.sum(1))
    return torch.stack(shares, 1)


def best_match(pair: Float[Tensor, "2 h w"], patch_size: int) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
    """Where every patch of the first image correlates best with the second image.

    Returns:
        Top left corner (x, y) of the best match for the n patches in row-major order, and whether each patch has any texture.

    """
    first, second = pair - 0.5
    h, w = first.shape
    area = patch_size**2
    cut = first[: h // patch_size * patch_size, : w // patch_size * patch_size]
    patches = cut.unfold(0, patch_size, patch_size).unfold(1, patch_size, patch_size).reshape(-1, patch_size, patch_size)  # (n, p, p)
    patches = patches - patches.mean((-1, -2), keepdim=True)
    energy = patches.square().sum((-1, -2))
    mean, square = (F.avg_pool2d(v[None, None].double(), patch_size, 1)[0, 0] for v in (second, second.double().square()))
    variance = square - mean.square()
    product = F.conv2d(second[None, None], patches[:, None])[0]  # (n, h - p + 1, w - p + 1)
    score = product / (variance.clamp(min=FLAT).sqrt().to(product) * area**0.5)
    best = torch.where(variance > FLAT, score, -torch.inf).flatten(1).argmax(1)
    columns = w - patch_size + 1
    return torch.stack([best % columns, best // columns], -1).to(pair), energy > FLAT * area
