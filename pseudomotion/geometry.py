"""3x3 homographies in float64: builders and the algebra that planning needs.

Everything here is built from ``+ - * /`` and comparisons alone, which IEEE 754 rounds the same way on every machine. A library
``sin`` or a BLAS product may differ in its last bit between processors, and even between a batch of one and a batch of eight; plans
would then not be bitwise equal.

A homography acts on column vectors ``(x, y, 1)``; pixel centres lie at integers (``pseudomotion.plan`` has all conventions).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

MAX_LEVEL = 12  # images of 4096 times the frame's side are reduced no further
UNREDUCED = 1.5  # source pixels per frame pixel up to which bilinear sampling needs no reduced copy of the source


def stack(rows: Sequence[Sequence[Tensor | float]]) -> Float[Tensor, "*b r c"]:
    """Matrix from nested rows of equally shaped tensors ``(*b,)`` and numbers."""
    like = next(entry for row in rows for entry in row if isinstance(entry, Tensor))
    numbers = {entry: torch.full_like(like, entry) for row in rows for entry in row if not isinstance(entry, Tensor)}
    entries = [entry if isinstance(entry, Tensor) else numbers[entry] for row in rows for entry in row]
    return torch.stack(entries, -1).view(*like.shape, len(rows), len(rows[0]))


def translation(x: Float[Tensor, "*b"], y: Float[Tensor, "*b"]) -> Float[Tensor, "*b 3 3"]:
    """Shift by ``(x, y)`` pixels."""
    return stack([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def matmul(a: Float[Tensor, "*b r 3"], b: Float[Tensor, "*b 3 c"]) -> Float[Tensor, "*b r c"]:
    """``a @ b``, summed in a fixed order (see the module's docstring)."""
    first, second, third = (a.unsqueeze(-1) * b.unsqueeze(-3)).unbind(-2)
    return first + second + third


def determinant(h: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """Determinant."""
    (a, b, c), (d, e, f), (g, i, j) = (row.unbind(-1) for row in h.unbind(-2))
    return a * (e * j - f * i) - b * (d * j - f * g) + c * (d * i - e * g)


def inverse(h: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Inverse by cofactors: no factorisation, so nothing to synchronise on a GPU. The matrix must be regular."""
    wide = torch.cat([h, h[..., :2]], -1)
    around = torch.cat([wide, wide[..., :2, :]], -2)  # the next and the next but one row and column of each, cyclically
    cofactors = around[..., 1:4, 1:4] * around[..., 2:, 2:] - around[..., 1:4, 2:] * around[..., 2:, 1:4]
    first, second, third = (h[..., 0, :] * cofactors[..., 0, :]).unbind(-1)
    return cofactors.mT / (first + second + third)[..., None, None]


def transform_points(h: Float[Tensor, "*#b 3 3"], points: Float[Tensor, "*#b n 2"]) -> Float[Tensor, "*b n 2"]:
    """Points ``(x, y)`` moved by homographies; the leading shapes broadcast."""
    x, y = points.unbind(-1)
    u, v, w = (row[..., 0, None] * x + row[..., 1, None] * y + row[..., 2, None] for row in h.unbind(-2))
    return torch.stack([u / w, v / w], -1)


def sincos(radians: Float[Tensor, "*b"]) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Sine and cosine by Taylor's series after reduction to one turn; absolute error below 1e-14 for a few turns."""
    x = radians - 2 * math.pi * (radians / (2 * math.pi)).round()
    square = x * x
    sine, cosine = torch.ones_like(x), torch.ones_like(x)
    for n in range(16, 0, -1):
        sine = square / -((2 * n) * (2 * n + 1)) * sine + 1
        cosine = square / -((2 * n - 1) * (2 * n)) * cosine + 1
    return x * sine, cosine


def about(center: tuple[float, float], h: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """``h``, acting about ``center`` (x, y) in place of the origin."""
    x, y = (torch.full_like(h[..., 0, 0], c) for c in center)
    return matmul(translation(x, y), matmul(h, translation(-x, -y)))


def rotation_scale_shear(
    degrees: Float[Tensor, "*b"], scale: Float[Tensor, "*b"], shear_x: Float[Tensor, "*b"], shear_y: Float[Tensor, "*b"]
) -> Float[Tensor, "*b 3 3"]:
    """About the origin: first shear along y and along x (degrees), then scale (factor), then rotate (degrees, from x towards y)."""
    (sine, sx, sy), (cosine, cx, cy) = sincos(torch.stack([degrees, shear_x, shear_y]) * (math.pi / 180))
    rotate = stack([[scale * cosine, -scale * sine, 0.0], [scale * sine, scale * cosine, 0.0], [0.0, 0.0, 1.0]])
    along_x = stack([[torch.ones_like(sx), sx / cx, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    along_y = stack([[torch.ones_like(sy), 0.0, 0.0], [sy / cy, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return matmul(rotate, matmul(along_x, along_y))


def unit_square_to(quad: Float[Tensor, "*b 4 2"]) -> Float[Tensor, "*b 3 3"]:
    """Homography that takes the corners (0, 0), (1, 0), (1, 1), (0, 1) to the four given points, in that order."""
    (x0, x1, x2, x3), (y0, y1, y2, y3) = (c.unbind(-1) for c in quad.unbind(-1))
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    g, h = (sx * dy2 - dx2 * sy) / area, (dx1 * sy - sx * dy1) / area
    return stack([[x1 - x0 + g * x1, x3 - x0 + h * x3, x0], [y1 - y0 + g * y1, y3 - y0 + h * y3, y0], [g, h, 1.0]])


def frame_corners(size: tuple[int, int]) -> Float[Tensor, "4 2"]:
    """Centres (x, y) of the four corner pixels of a frame ``(h, w)``, clockwise from the top left."""
    h, w = size
    return torch.tensor([[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]], dtype=torch.float64, device="cpu")


def denominators(last_row: Float[Tensor, "*b 3"], size: tuple[int, int]) -> Float[Tensor, "*b 4"]:
    """Homogeneous denominators at a frame's corners, as multiples of that at its centre; between them they are linear."""
    corners = frame_corners(size)
    x, y, constant = last_row.unsqueeze(-2).unbind(-1)
    at = x * corners[:, 0] + y * corners[:, 1] + constant
    return at / (at.sum(-1, keepdim=True) / 4)


def source_scale(h: Float[Tensor, "*b 3 3"], size: tuple[int, int]) -> Float[Tensor, "*b"]:
    """Source pixels per frame pixel, at the centre of a frame ``(h, w)``, under homographies from source to frame."""
    return scale_at_center(inverse(h), size)


def scale_at_center(back: Float[Tensor, "*b 3 3"], size: tuple[int, int]) -> Float[Tensor, "*b"]:
    """The same under homographies from frame to source: geometric mean of both directions."""
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    w = back[..., 2, 0] * x + back[..., 2, 1] * y + back[..., 2, 2]
    return (determinant(back) / (w * w * w)).abs().sqrt()


def level_of_detail(scale: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Level of the image pyramid to read at ``scale`` source pixels per frame pixel; between two levels, their blend.

    Level k halves the source k times by averaging. Up to 1.5 source pixels per frame pixel level 0 is read, from 2 to 3 level 1,
    from 4 to 6 level 2, and so on; in between the reading moves linearly from one level to the next, so that a zoom does not jump.
    """
    halvings = scale.new_full((MAX_LEVEL, *[1] * scale.ndim), 0.5).cumprod(0) * 2  # 1, 1/2, 1/4, ...
    return ((scale * halvings - UNREDUCED) / (2 - UNREDUCED)).clamp_(0, 1).sum(0)
