"""From painted clips to finished ones: mixed with their partners, then formatted."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pseudomotion.plan import MotionPlan
from pseudomotion.render.blend import blend_clips
from pseudomotion.render.format import format_clips
from pseudomotion.render.memory import empty


def finish_clips(
    clips: Float[Tensor, "N C T h w"],
    plan: MotionPlan,
    count: int,
    frames_at_once: int,
    *,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: torch.dtype,
    data_format: str,
) -> Shaped[Tensor, "B _ _ h w"]:
    """The first clips of a plan, finished.

    Args:
        clips: all clips of the plan, painted.
        plan: on their device.
        count: B, how many clips are wanted.
        frames_at_once: how many frames to finish together; between two steps of the work they are then still in a cache.
        mean: per channel, subtracted; None for none.
        std: per channel, divided by; given with ``mean``.
        dtype: of the finished clips.
        data_format: "BCTHW" or "BTCHW".

    """
    t = clips.shape[2]
    if frames_at_once >= count * t or not (plan.mixes or mean or dtype != clips.dtype):
        mixed = _mix(clips, plan, slice(count), slice(0, t))
        return format_clips(mixed, mean=mean, std=std, dtype=dtype, data_format=data_format)
    b, c, t, h, w = count, *clips.shape[1:]
    finished = empty((b, c, t, h, w) if data_format == "BCTHW" else (b, t, c, h, w), dtype, clips.device)
    places = finished if data_format == "BCTHW" else finished.transpose(1, 2)
    clips_at_once = max(1, frames_at_once // t)
    for clip in range(0, count, clips_at_once):
        few = slice(clip, min(count, clip + clips_at_once))
        for frame in range(0, t, frames_at_once):
            during = slice(frame, frame + frames_at_once)
            mixed = _mix(clips, plan, few, during)
            places[few, :, during] = format_clips(mixed, mean=mean, std=std, dtype=dtype, data_format="BCTHW")
    return finished


def _mix(clips: Float[Tensor, "N C T h w"], plan: MotionPlan, few: slice, during: slice) -> Float[Tensor, "n C t h w"]:
    """Some frames of some clips, each blended with its partner's within the partner's box and frames."""
    own = clips[few, :, during]
    if not plan.mixes:
        return own
    partners = clips[plan.partner[few], :, during]
    return blend_clips(own, partners, plan.partner_weight[few], plan.partner_box[few], plan.partner_frames[few] - during.start)
