"""3x4 affine maps of RGB in float64: builders and composition.

A color map M computes ``M[:, :3] @ (r, g, b) + M[:, 3]`` on values in [0, 1]. All maps are affine, so any number of them compose into one,
and no statistics of the image are needed. Brightness and saturation are the usual definitions. Contrast scales about 0.5 (torchvision:
about the image's mean gray), and hue rotates about the gray axis (torchvision: shifts H in HSV).

As in ``geometry``, only ``+ - * /`` are used.
"""

import math

import numpy as np
from jaxtyping import Float64

from pseudomotion.geometry import Array, matmul, sincos, stack

Maps = Float64[np.ndarray, "*b 3 4"]
IDENTITY: Float64[np.ndarray, "3 4"] = np.eye(3, 4)  # no change
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601 weights, which torchvision and OpenCV use for gray


def gain(factor: Array) -> Maps:
    """Multiply every channel by ``factor``: brightness and fades."""
    return stack([[factor, 0.0, 0.0, 0.0], [0.0, factor, 0.0, 0.0], [0.0, 0.0, factor, 0.0]])


def contrast(factor: Array) -> Maps:
    """Scale the distance from mid-gray 0.5 by ``factor``."""
    offset = (1 - factor) / 2
    return stack([[factor, 0.0, 0.0, offset], [0.0, factor, 0.0, offset], [0.0, 0.0, factor, offset]])


def saturation(factor: Array) -> Maps:
    """Scale the distance from the pixel's own luma by ``factor``."""
    gray = [(1 - factor) * weight for weight in LUMA]
    return stack([[gray[c] + factor if c == r else gray[c] for c in range(3)] + [0.0] for r in range(3)])


def hue(turns: Array) -> Maps:
    """Rotate colors about the gray axis r = g = b by ``turns`` (1 is a full circle), from red towards green."""
    sine, cosine = sincos(turns * (2 * math.pi))
    third, side = (1 - cosine) / 3, sine / math.sqrt(3)
    same, before, after = cosine + third, third - side, third + side
    return stack([[same, before, after, 0.0], [after, same, before, 0.0], [before, after, same, 0.0]])


def compose(after: Maps, before: Maps) -> Maps:
    """The map that applies ``before``, then ``after``, without clamping in between."""
    composed = matmul(after[..., :3], before)
    composed[..., 3] += after[..., 3]
    return composed
