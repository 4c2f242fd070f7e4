"""Blending clips with their partners."""

import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor


def blend_clips(
    clips: Shaped[Tensor, "b C T h w"],
    partners: Shaped[Tensor, "b C T h w"],
    weight: Float32[Tensor, " b"],
    box: Float32[Tensor, "b 4"],
    frames: Int64[Tensor, "b 2"],
) -> Shaped[Tensor, "b C T h w"]:
    """Clips with their partners blended in, in their own dtype; halves and bytes are blended in float32 and rounded once.

    Weight, box and frames are the partner fields of a ``MotionPlan``.
    """
    t, h, w = clips.shape[2:]
    weight, box, frames = (tensor.to(clips.device, non_blocking=True) for tensor in (weight, box, frames))
    x, y, k = (torch.arange(side, device=clips.device) for side in (w, h, t))
    x0, y0, x1, y1 = box[:, :, None].unbind(1)
    inside = ((y >= y0) & (y < y1))[:, :, None] & ((x >= x0) & (x < x1))[:, None]
    during = (k >= frames[:, :1]) & (k < frames[:, 1:])
    share = weight[:, None, None, None] * during[:, :, None, None] * inside[:, None]
    dtype = torch.promote_types(clips.dtype, torch.float32) if clips.is_floating_point() else torch.float32
    mixed = torch.lerp(clips.to(dtype), partners.to(dtype), share[:, None].to(dtype))
    return (mixed if clips.is_floating_point() else mixed.round()).to(clips.dtype)
