"""What is known exactly about the motion of a clip, from its plan alone."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from pseudomotion import geometry
from pseudomotion.plan import MotionPlan


@dataclass(frozen=True)
class DisplacementStats:
    """How far each of B clips moves; of its back layer."""

    mean: Float64[Tensor, " B"]  # px per step, mean over pixels and steps
    percentile_95: Float64[Tensor, " B"]  # px per step
    visible: Float64[Tensor, " B"]  # share of the first frame still in view in the last


def displacement_stats(plan: MotionPlan, *, samples: int = 16) -> DisplacementStats:
    """Displacement per step and share of the first frame still in view, of every clip's back layer.

    Args:
        plan: of at least two frames.
        samples: points per axis of the grid, spread over the frame, that is followed.

    Returns:
        Figures of shape ``(B,)``.

    Raises:
        ValueError: for a plan of one frame, which has no steps.

    """
    if plan.num_frames < 2:
        raise ValueError("plan must have at least two frames to move between")
    h, w = plan.frame_size
    x, y = ((torch.arange(samples, dtype=torch.float64, device=plan.homography.device) + 0.5) / samples * side - 0.5 for side in (w, h))
    points = torch.cartesian_prod(x, y)
    whole = plan.composed().homography[:, 0].double()
    step = geometry.matmul(whole[:, 1:], geometry.inverse(whole[:, :-1]))
    moved = (geometry.transform_points(step, points) - points).norm(dim=-1).flatten(1)
    last = geometry.transform_points(geometry.matmul(whole[:, -1], geometry.inverse(whole[:, 0])), points)
    edge = torch.tensor([w, h], dtype=torch.float64, device=points.device) - 0.5
    visible = ((last > -0.5) & (last < edge)).all(-1).double().mean(-1)
    return DisplacementStats(moved.mean(-1), moved.quantile(0.95, -1), visible)
