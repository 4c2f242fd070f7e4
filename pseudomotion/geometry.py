"""3x3 homographies in float64: builders and matrix algebra.

Builders take and return numpy arrays: plans are small and made on the host, where numpy is about three times as fast as torch. Functions
that renderers and labels use too accept arrays and tensors.

Everything here uses only ``+ - * /`` and comparisons, which IEEE 754 rounds the same way on every machine. A library ``sin`` or a BLAS
product may differ in its last bit between processors, and even between batch sizes; plans would then not be bitwise equal.

A homography acts on column vectors ``(x, y, 1)``; pixel centers lie at integers (``pseudomotion.plan`` has all conventions).
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

HORIZON = 1e-3  # smallest homogeneous denominator (1 at the frame's center); a smaller one lies far outside the image anyway
MAX_LEVEL = 12  # highest pyramid level: an image reduced 4096 times along each axis
UNREDUCED = 1.5  # image pixels per frame pixel up to which bilinear sampling reads the image itself

Array = Float64[np.ndarray, "*b"]
Values = TypeVar("Values", Tensor, np.ndarray)


def stack(rows: Sequence[Sequence[Array | float]]) -> Float64[np.ndarray, "*b r c"]:
    """Matrices ``(*b, r, c)`` from r rows of c entries; each entry is a number or an array ``(*b,)``, broadcast."""
    matrix = np.empty((*np.broadcast(*(entry for row in rows for entry in row)).shape, len(rows), len(rows[0])))
    for i, row in enumerate(rows):
        for j, entry in enumerate(row):
            matrix[..., i, j] = entry
    return matrix


def translation(x: Array | float, y: Array | float) -> Float64[np.ndarray, "*b 3 3"]:
    """Homography ``(*b, 3, 3)`` that shifts by ``(x, y)`` pixels."""
    return stack([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def matmul(a: Values, b: Values) -> Values:
    """``a @ b`` of shapes ``(..., r, 3)`` and ``(..., 3, c)``, summed in a fixed order (see the module's docstring)."""
    return a[..., :, 0:1] * b[..., 0:1, :] + a[..., :, 1:2] * b[..., 1:2, :] + a[..., :, 2:3] * b[..., 2:3, :]


def inverse(h: Values) -> Values:
    """Inverse of invertible matrices ``(..., 3, 3)`` by cofactors; unlike ``torch.linalg.inv`` it never synchronizes with a GPU."""
    concatenate = torch.cat if isinstance(h, Tensor) else np.concatenate
    wide = concatenate([h, h[..., :2]], -1)  # (..., 3, 5)
    around = concatenate([wide, wide[..., :2, :]], -2)  # (..., 5, 5): rows and columns repeat cyclically
    cofactors = around[..., 1:4, 1:4] * around[..., 2:, 2:] - around[..., 1:4, 2:] * around[..., 2:, 1:4]
    products = h[..., 0, :] * cofactors[..., 0, :]
    determinants = products[..., 0] + products[..., 1] + products[..., 2]
    return cofactors.swapaxes(-1, -2) / determinants[..., None, None]


def transform_points(h: Float[Tensor, "*#b 3 3"], points: Float[Tensor, "*#b n 2"]) -> Float[Tensor, "*b n 2"]:
    """Apply homographies ``(*b, 3, 3)`` to points (x, y), ``(*b, n, 2)``; leading shapes broadcast."""
    x, y = points.unbind(-1)
    u, v, w = (row[..., 0, None] * x + row[..., 1, None] * y + row[..., 2, None] for row in h.unbind(-2))
    return torch.stack([u / w, v / w], -1)


def sincos(radians: Values) -> tuple[Values, Values]:
    """Sine and cosine by Taylor series after reduction to one turn; absolute error below 1e-14 within a few turns."""
    x = radians - 2 * math.pi * (radians / (2 * math.pi)).round()
    square = x * x
    sine = cosine = 0 * square + 1
    for n in range(16, 0, -1):
        sine = square / -((2 * n) * (2 * n + 1)) * sine + 1
        cosine = square / -((2 * n - 1) * (2 * n)) * cosine + 1
    return x * sine, cosine


def about(center: tuple[float, float], h: Float64[np.ndarray, "*b 3 3"]) -> Float64[np.ndarray, "*b 3 3"]:
    """``h``, applied about ``center`` (x, y) instead of the origin."""
    x, y = center
    return matmul(translation(x, y), matmul(h, translation(-x, -y)))


def rotation_scale_shear(degrees: Array, scale: Array, shear_x: Array, shear_y: Array) -> Float64[np.ndarray, "*b 3 3"]:
    """Shear along y, shear along x, scale and rotate about the origin, in that order.

    Args:
        degrees: rotation in degrees, from x towards y.
        scale: factor.
        shear_x: angle of the shear along x, in degrees.
        shear_y: angle of the shear along y, in degrees.

    """
    (sine, sx, sy), (cosine, cx, cy) = sincos(np.stack([degrees, shear_x, shear_y]) * (math.pi / 180))
    rotate = stack([[scale * cosine, -scale * sine, 0.0], [scale * sine, scale * cosine, 0.0], [0.0, 0.0, 1.0]])
    along_x = stack([[1.0, sx / cx, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    along_y = stack([[1.0, 0.0, 0.0], [sy / cy, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return matmul(rotate, matmul(along_x, along_y))


def unit_square_to(quad: Float64[np.ndarray, "*b 4 2"]) -> Float64[np.ndarray, "*b 3 3"]:
    """Homography that maps the unit square's corners (0, 0), (1, 0), (1, 1), (0, 1) to the four given points, in that order."""
    (x0, x1, x2, x3), (y0, y1, y2, y3) = (np.moveaxis(quad[..., axis], -1, 0) for axis in range(2))
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    g, h = (sx * dy2 - dx2 * sy) / area, (dx1 * sy - sx * dy1) / area
    return stack([[x1 - x0 + g * x1, x3 - x0 + h * x3, x0], [y1 - y0 + g * y1, y3 - y0 + h * y3, y0], [g, h, 1.0]])


def frame_corners(size: tuple[int, int]) -> Float64[np.ndarray, "4 2"]:
    """Centers (x, y) of the four corner pixels of a frame ``(h, w)``, clockwise from the top left."""
    h, w = size
    return np.array([[0.0, 0.0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]])


def denominators(last_row: Float64[np.ndarray, "*b 3"], size: tuple[int, int]) -> Float64[np.ndarray, "*b 4"]:
    """Homogeneous denominators at a frame's four corner pixels, relative to that at its center.

    The denominator is linear in x and y, so its extremes in the frame lie at the corners.
    """
    x, y = frame_corners(size).T
    at = last_row[..., 0, None] * x + last_row[..., 1, None] * y + last_row[..., 2, None]
    return at / ((at[..., 0] + at[..., 1] + at[..., 2] + at[..., 3]) / 4)[..., None]


def source_scale(h: Float64[np.ndarray, "*b 3 3"], size: tuple[int, int]) -> Float64[np.ndarray, "*b"]:
    """Image pixels per frame pixel at the center of a frame ``(h, w)``, as the geometric mean of both directions.

    Args:
        h: homographies from image pixel to frame pixel.
        size: of the frame.

    """
    a, b, c, d, e, f, g, i, j = (h[..., row, column] for row in range(3) for column in range(3))
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    determinant = a * (e * j - f * i) - b * (d * j - f * g) + c * (d * i - e * g)
    w = (d * i - e * g) * x + (b * g - a * i) * y + (a * e - b * d)  # inverse's denominator at the center, times the determinant
    return np.sqrt(np.abs(determinant * determinant / (w * w * w)))


def level_of_detail(scale: Array) -> Array:
    """Level of the image pyramid to sample at ``scale`` image pixels per frame pixel.

    Level k is the image downsampled k times by 2x2 averaging. Scales up to 1.5 sample level 0, 2 to 3 level 1, 4 to 6 level 2, and so on.
    In between, the level is fractional, meaning linear interpolation of two levels, so that a zoom does not jump.
    """
    if not (scale > UNREDUCED).any():
        return np.zeros_like(scale)
    halved = np.multiply.outer(0.5 ** np.arange(MAX_LEVEL), scale)
    return ((halved - UNREDUCED) / (2 - UNREDUCED)).clip(0, 1).sum(0)
