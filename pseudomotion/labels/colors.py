"""Optical flow as a color image: direction as hue, length as saturation."""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

# Number of colors from red to yellow, yellow to green, and so on back to red; more where the eye distinguishes hues better.
WHEEL = (("RY", 15), ("YG", 6), ("GC", 4), ("CB", 11), ("BM", 13), ("MR", 6))
RAMPS = {"RY": (1, "up", 0), "YG": ("down", 1, 0), "GC": (0, 1, "up"), "CB": (0, "down", 1), "BM": ("up", 0, 1), "MR": (1, 0, "down")}
UNKNOWN = 1e9  # longer vectors, in pixels, mean unknown flow


def flow_to_rgb(flow: Tensor, largest: float | None = None) -> UInt8[Tensor, "*b 3 h w"]:
    """Flow in the color coding of the Middlebury benchmark: white where nothing moves, red for motion to the right.

    Source: Baker et al., "A database and evaluation methodology for optical flow", IJCV 2011.

    Args:
        flow: ``(..., 2, h, w)``, (u, v) in pixels. Vectors that are not finite, or longer than 1e9 pixels, are unknown and become black.
        largest: length in pixels that is shown fully saturated; longer vectors are darker. None: the largest length in ``flow``.

    Returns:
        RGB image ``(..., 3, h, w)``, uint8, on the device of the flow.

    Raises:
        TypeError: if the flow is not a float tensor.
        ValueError: for any other shape, or if ``largest`` is not positive and finite.

    Example:
        >>> import torch
        >>> from pseudomotion.labels import flow_to_rgb
        >>> flow_to_rgb(torch.randn(2, 32, 32)).shape
        torch.Size([3, 32, 32])

    """
    if not isinstance(flow, Tensor) or not flow.is_floating_point():
        raise TypeError(f"flow must be a float tensor, got {flow.dtype if isinstance(flow, Tensor) else type(flow).__name__}")
    if flow.ndim < 3 or flow.shape[-3] != 2:
        raise ValueError(f"flow must have shape (..., 2, h, w), got {tuple(flow.shape)}")
    if largest is not None and not 0 < largest < math.inf:
        raise ValueError(f"largest must be a positive number of pixels, got {largest}")
    u, v = flow.double().unbind(-3)
    length = torch.hypot(u, v)
    known = length <= UNKNOWN
    u, v, length = (torch.where(known, part, 0) for part in (u, v, length))
    full = length.max() if largest is None and length.numel() else length.new_tensor(largest or 1.0)
    length = length / full.clamp(min=torch.finfo(torch.float64).tiny)

    wheel = _wheel().to(flow.device)
    # The wheel starts at the right and turns downwards. Its 55 colors are 55 steps apart; the benchmark's own code uses 54 steps and
    # jumps where the circle closes.
    place = (torch.atan2(-v, -u) / math.pi + 1) / 2 * len(wheel)
    low = place.floor().long()
    color = torch.lerp(wheel[low % len(wheel)], wheel[(low + 1) % len(wheel)], (place - low)[..., None])
    length = length[..., None]
    rgb = torch.where(length <= 1, 1 - length * (1 - color), 0.75 * color) * known[..., None]
    return (rgb * 255).floor().to(torch.uint8).movedim(-1, -3)  # (..., 3, h, w)


def _wheel() -> Float[Tensor, "n 3"]:
    """The benchmark's 55 colors, starting at red, in [0, 1]."""
    parts = []
    for name, count in WHEEL:
        up = torch.arange(count, dtype=torch.float64) / count
        ramp = {"up": up, "down": 1 - up, 0: torch.zeros_like(up), 1: torch.ones_like(up)}
        parts.append(torch.stack([ramp[channel] for channel in RAMPS[name]], -1))
    return torch.cat(parts)
