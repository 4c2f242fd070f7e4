"""From rendered clips to what the user asked for: normalise, cast, order the axes; and images to what a renderer reads."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

DATA_FORMATS = ("BCTHW", "BTCHW")


def to_unit(images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """uint8 or float images as float64 where they are float64, else float32, in [0, 1]."""
    if images.dtype == torch.uint8:
        return images.to(torch.float32) / 255
    return images.to(torch.promote_types(images.dtype, torch.float32))


def format_clips(
    clips: Float[Tensor, "B C T h w"], *, mean: Sequence[float] | None, std: Sequence[float] | None, dtype: torch.dtype, data_format: str
) -> Shaped[Tensor, "B _ _ h w"]:
    """Clips in [0, 1], normalised per channel, rounded to uint8 or cast, in the order of axes asked for."""
    if mean is not None and std is not None:
        mean_, std_ = (torch.tensor(v, dtype=clips.dtype, device="cpu").to(clips.device, non_blocking=True) for v in (mean, std))
        clips = (clips - mean_[:, None, None, None]).div_(std_[:, None, None, None])
    if data_format == "BTCHW":
        clips = clips.transpose(1, 2)
    if dtype == torch.uint8:
        clips = (clips * 255).round_()
    return clips.to(dtype).contiguous()
