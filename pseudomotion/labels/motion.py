"""Optical flow, occlusion, point tracks and displacement statistics of clips."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from pseudomotion import checks
from pseudomotion.labels import visibility
from pseudomotion.labels.surfaces import Surfaces
from pseudomotion.plan import MotionPlan

PATCH = 16  # side of VideoMAE's patches


def flow(
    plan: MotionPlan,
    size: int | tuple[int, int] | None = None,
    *,
    anchor: int | None = None,
    backward: bool = False,
    textures: Tensor | None = None,
) -> Float32[Tensor, "B K 2 h w"]:
    """Exact optical flow of every clip: the displacement of each pixel with the visible layer. Not from the paper.

    Flow is defined at every pixel: also where it leads out of the frame or under another layer (see ``occlusion``), and in padding, which
    moves with the back. For blended clips (mixup) it is the flow of the clip itself; ``mix_labels`` adds the partner's. Where a partner is
    pasted in (VideoMix), it is the flow of the visible clip.

    Args:
        plan: the plan of B clips of T frames.
        size: frame size of the flow, to which vectors are scaled: an int, ``(h, w)``, or None for the plan's own.
        anchor: None: flow from each frame to the next, K = T - 1. A frame index, negative from the end: flow from that frame to every frame
            t, K = T, zero at the anchor itself.
        backward: reverse the direction: from each frame to the previous one, or from every frame t to the anchor.
        textures: those that the clips were rendered with. Layers are cut out where RGBA textures are less than half opaque; None, or
            textures without alpha: by their outlines alone.

    Returns:
        ``(B, K, 2, h, w)``: (u, v) = (dx, dy) in pixels of ``size``, on the plan's device. Entry k is defined on the pixels of frame k
        (``backward``: frame k + 1); with an anchor, on those of the anchor (``backward``: frame k).

    Raises:
        TypeError, ValueError: for an anchor that is not a frame of the plan, or a side outside 1 to 32768.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> from pseudomotion.labels import flow
        >>> plan = PMG(num_frames=4, size=32).plan((2, 3, 48, 48), ids=torch.arange(2))
        >>> flow(plan).shape
        torch.Size([2, 3, 2, 32, 32])

    """
    surfaces = Surfaces.of(plan, size, textures)
    x, y = surfaces.pixels()
    pairs = _pairs(surfaces, anchor, backward)
    vectors = torch.empty(len(plan), len(pairs), 2, *surfaces.size, dtype=torch.float32, device=x.device)
    for k, (origin, target) in enumerate(pairs):  # one frame at a time, to stay in the cache
        moved = surfaces.displace(visibility.top(surfaces, origin, x, y), origin, target, x, y)
        vectors[:, k, :1], vectors[:, k, 1:] = moved.dx, moved.dy
    return vectors


def occlusion(
    plan: MotionPlan,
    size: int | tuple[int, int] | None = None,
    *,
    anchor: int | None = None,
    backward: bool = False,
    textures: Tensor | None = None,
) -> Bool[Tensor, "B K h w"]:
    """Pixels whose flow leads out of the frame or under another layer. Not from the paper.

    With an anchor, in a clip that reads its previous frame, a pixel that leaves the frame and later returns is not marked in the frames
    after its return, although its content is lost; ``tracks`` accounts for that.

    Args:
        plan: the plan of B clips of T frames.
        size: as for ``flow``.
        anchor: as for ``flow``.
        backward: as for ``flow``; then this marks disocclusions, what has just come into view.
        textures: as for ``flow``.

    Returns:
        ``(B, K, h, w)``, True where ``flow`` with the same arguments leads to a point that is not visible.

    Raises:
        TypeError, ValueError: as for ``flow``.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> from pseudomotion.labels import occlusion
        >>> plan = PMG(num_frames=4, size=32).plan((2, 3, 48, 48), ids=torch.arange(2))
        >>> occlusion(plan).shape
        torch.Size([2, 3, 32, 32])

    """
    surfaces = Surfaces.of(plan, size, textures)
    x, y = surfaces.pixels()
    pairs = _pairs(surfaces, anchor, backward)
    lost = torch.empty(len(plan), len(pairs), *surfaces.size, dtype=torch.bool, device=x.device)
    for k, (origin, target) in enumerate(pairs):
        lost[:, k : k + 1] = ~visibility.lead(surfaces, origin, target, x, y)[-1]
    return lost


def tracks(
    plan: MotionPlan, points: Tensor | None = None, *, frame: int = 0, textures: Tensor | None = None
) -> tuple[Float32[Tensor, "B T N 2"], Bool[Tensor, "B T N"]]:
    """Trajectories of points through their clips, and their visibility. Not from the paper.

    A point belongs to the layer that is visible there in ``frame``. It is visible while it lies in the frame and no other layer covers it.
    In a clip that reads its previous frame, a point that has left the frame never becomes visible again.

    Args:
        plan: the plan of B clips of T frames.
        points: (x, y) in pixels of ``frame``: ``(B, N, 2)``, or ``(N, 2)`` for all clips. None: the centers of 16-pixel patches.
        frame: index of the frame in which the points are given, negative from the end.
        textures: as for ``flow``.

    Returns:
        Tracks ``(B, T, N, 2)``, (x, y) in pixels, also where invisible; and visibility ``(B, T, N)``.

    Raises:
        ValueError: for points of any other shape, or a frame that is not in the plan.
        TypeError: for points whose dtype is neither float nor integer.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> from pseudomotion.labels import tracks
        >>> plan = PMG(num_frames=4, size=32).plan((2, 3, 48, 48), ids=torch.arange(2))
        >>> places, visible = tracks(plan, torch.tensor([[10.0, 5.0], [20.0, 20.0]]))
        >>> places.shape, visible.shape
        (torch.Size([2, 4, 2, 2]), torch.Size([2, 4, 2]))

    """
    surfaces = Surfaces.of(plan, textures=textures)
    points = patch_centers(surfaces.size) if points is None else check_points("points", points, len(plan))
    x, y = points.to(surfaces.box).expand(len(plan), -1, 2)[:, None].unbind(-1)
    u, v, visible = visibility.follow(surfaces, frame_number("frame", frame, plan.num_frames), slice(0, plan.num_frames), x, y)
    return torch.stack([u, v], -1).float(), visible  # (B, T, N, 2) and (B, T, N)


@dataclass(frozen=True)
class DisplacementStats:
    """How far the back of each of B clips moves."""

    mean: Float64[Tensor, " B"]  # pixels per step, mean over pixels and steps
    percentile_95: Float64[Tensor, " B"]  # pixels per step, by nearest rank
    visible: Float64[Tensor, " B"]  # fraction of the first frame that is still visible in the last frame


def displacement_stats(plan: MotionPlan, *, samples: int = 16) -> DisplacementStats:
    """Displacement per step of every clip's back, and how much of the first frame stays visible. Not from the paper.

    Args:
        plan: a plan of at least two frames.
        samples: points per axis of the regular grid over the frame at which displacement is evaluated.

    Returns:
        Statistics of shape ``(B,)``, in pixels of the plan's own frame size.

    Raises:
        ValueError: for a plan of one frame.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> from pseudomotion.labels import displacement_stats
        >>> stats = displacement_stats(PMG(("zoom",), num_frames=4, size=32).plan((2, 3, 48, 48), ids=torch.arange(2)))
        >>> stats.mean.shape, stats.percentile_95.shape, stats.visible.shape
        (torch.Size([2]), torch.Size([2]), torch.Size([2]))

    """
    if plan.num_frames < 2:
        raise ValueError("plan must have at least two frames, got 1")
    surfaces = Surfaces.of(plan)
    h, w = surfaces.size
    x, y = ((torch.arange(samples, dtype=torch.float64, device=surfaces.box.device) + 0.5) / samples * side - 0.5 for side in (w, h))
    x, y = x[None, None, None], y[None, None, :, None]  # (1, 1, 1, samples) and (1, 1, samples, 1)
    step = surfaces.move(0, slice(None, -1), slice(1, None), x, y)
    moved = torch.hypot(step.dx, step.dy).flatten(1)  # (B, (T - 1) * samples**2)
    last = surfaces.move(0, slice(0, 1), slice(-1, None), x, y)
    visible = surfaces.in_frame(x + last.dx, y + last.dy) & last.in_front
    # Not torch.quantile, which refuses more than 16 million values; 4,600 clips of 16 frames have as many.
    rank = -(-moved.shape[1] * 95 // 100)
    return DisplacementStats(moved.mean(-1), moved.kthvalue(rank, -1).values, visible.double().mean((1, 2, 3)))


def _pairs(surfaces: Surfaces, anchor: int | None, backward: bool) -> list[tuple[slice, slice]]:
    """K pairs of frames (origin, target) between which flow is computed."""
    frames = [slice(t, t + 1) for t in range(surfaces.num_frames)]
    if anchor is None:
        pairs = list(pairwise(frames))
    else:
        pairs = [(frames[frame_number("anchor", anchor, surfaces.num_frames)], frame) for frame in frames]
    return [(target, origin) for origin, target in pairs] if backward else pairs


def frame_number(name: str, value: int, num_frames: int) -> int:
    """A frame index from 0; negative values count from the end."""
    value = checks.integer(name, value, "the number of a frame")
    if not -num_frames <= value < num_frames:
        raise ValueError(f"{name} must be a frame of the plan, from {-num_frames} to {num_frames - 1}, got {value}")
    return value % num_frames


def check_points(name: str, value: Tensor, batch: int, width: int = 2) -> Tensor:
    """Check points or boxes: real numbers, ``(N, width)`` or ``(B, N, width)``."""
    if not isinstance(value, Tensor) or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must be a tensor of coordinates, got {value.dtype if isinstance(value, Tensor) else type(value).__name__}")
    if value.ndim not in (2, 3) or value.shape[-1] != width or (value.ndim == 3 and value.shape[0] != batch):
        raise ValueError(f"{name} must have shape (N, {width}) or ({batch}, N, {width}), got {tuple(value.shape)}")
    return value


def patch_centers(size: tuple[int, int]) -> Float64[Tensor, "N 2"]:
    """Centers (x, y) of the complete patches in a frame, in row-major order; along a side shorter than a patch, its center."""
    y, x = (
        torch.arange(side // PATCH, dtype=torch.float64) * PATCH + (PATCH - 1) / 2
        if side >= PATCH
        else torch.tensor([(side - 1) / 2], dtype=torch.float64)
        for side in size
    )
    return torch.cartesian_prod(y, x).flip(-1)
