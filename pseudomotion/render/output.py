"""Input and output of the renderers: images to floats in [0, 1]; painted clips blended, normalized, cast and transposed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor

from pseudomotion.plan import Blend

DATA_FORMATS = ("BCTHW", "BTCHW")


@dataclass(frozen=True)
class Output:
    """Format of the clips."""

    count: int  # number of clips to return, from the first; later clips only serve as partners
    mean: tuple[float, ...] | None  # per channel, of values in [0, 1]; None: not normalized
    std: tuple[float, ...] | None
    dtype: torch.dtype
    data_format: str  # "BCTHW" or "BTCHW"

    def scale_and_shift(self) -> Float32[np.ndarray, " 8"]:
        """Factor, then summand, of each of four channels: normalization, or the scale of 8-bit clips. For compiled renderers."""
        numbers = np.array([255.0 if self.dtype == torch.uint8 else 1.0] * 4 + [0.0] * 4)
        if self.mean is not None and self.std is not None:
            mean, std = np.array(self.mean), np.array(self.std)
            numbers[: len(std)] = 1 / std
            numbers[4 : 4 + len(std)] = -mean / std
        return numbers.astype(np.float32)


def to_unit(images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Convert uint8 or float images to float32 in [0, 1]; float64 images stay float64."""
    if images.dtype == torch.uint8:
        return images.to(torch.float32) / 255
    return images.to(torch.promote_types(images.dtype, torch.float32))


def finish(clips: Float[Tensor, "N C T h w"], blend: Blend | None, output: Output) -> Shaped[Tensor, "B _ _ h w"]:
    """The first ``output.count`` clips, blended with their partners and formatted."""
    wanted = clips[: output.count]
    if blend is not None:
        wanted = blend_clips(wanted, clips[blend.partner[: output.count]], blend)
    return format_clips(wanted, mean=output.mean, std=output.std, dtype=output.dtype, data_format=output.data_format)


def blend_clips(clips: Shaped[Tensor, "b C T h w"], partners: Shaped[Tensor, "b C T h w"], blend: Blend) -> Shaped[Tensor, "b C T h w"]:
    """Blend partners into clips, keeping their dtype; float16, bfloat16 and uint8 are blended in float32 and rounded once."""
    (b, _, t, h, w), device = clips.shape, clips.device
    weight, box, frames = (tensor[:b].to(device, non_blocking=True) for tensor in (blend.weight, blend.box, blend.frames))
    x, y, k = (torch.arange(side, device=device) for side in (w, h, t))
    x0, y0, x1, y1 = box[:, :, None].unbind(1)  # each (b, 1)
    inside = ((y >= y0) & (y < y1))[:, :, None] & ((x >= x0) & (x < x1))[:, None]  # (b, h, w)
    during = (k >= frames[:, :1]) & (k < frames[:, 1:])  # (b, T)
    share = weight[:, None, None, None] * during[:, :, None, None] * inside[:, None]  # (b, T, h, w)
    dtype = torch.promote_types(clips.dtype, torch.float32) if clips.is_floating_point() else torch.float32
    mixed = torch.lerp(clips.to(dtype), partners.to(dtype), share[:, None].to(dtype))
    return (mixed if clips.is_floating_point() else mixed.round()).to(clips.dtype)


def format_clips(
    clips: Float[Tensor, "B C T h w"], *, mean: Sequence[float] | None, std: Sequence[float] | None, dtype: torch.dtype, data_format: str
) -> Shaped[Tensor, "B _ _ h w"]:
    """Normalize clips in [0, 1] per channel, scale and round them for uint8, cast, and transpose to ``data_format``."""
    if mean is not None and std is not None:
        mean_, std_ = (torch.tensor(v, dtype=clips.dtype, device="cpu").to(clips.device, non_blocking=True) for v in (mean, std))
        clips = (clips - mean_[:, None, None, None]).div_(std_[:, None, None, None])
    if data_format == "BTCHW":
        clips = clips.transpose(1, 2)
    if dtype == torch.uint8:
        clips = (clips * 255).round_()
    return clips.to(dtype).contiguous()
