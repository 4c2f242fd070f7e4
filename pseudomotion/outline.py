"""Closed-form outlines of layers: which part of a texture a layer shows. No mask images, so labels need no images either.

An outline is a row of K numbers. It lies inside the layer's box ``(x0, y0, x1, y1)`` and usually touches its sides. With the box's center
``c`` and half-sides ``(a, b)``, a texture pixel ``(x, y)`` has ``p = (x, y) - c`` in pixels and ``(u, v) = (p_x / a, p_y / b)``, so the box
is the square from -1 to 1 in u and v.

Columns of every outline: ``SHAPE``, one of the codes below, and ``FEATHER`` > 0, the width of the soft edge in pixels of the texture, half
of it on either side of the outline. Boxes need only these two (K = 2); other shapes have K = ``NUMBERS`` columns, the rest from ``PARAMS``:

===================  ===============================================================================================================
``BOX``              the whole box; further columns are ignored
``POLYGON``          8 vertices ``(u, v)`` of a convex polygon, in the order of growing angle from u towards v (clockwise on the
                     screen). Polygons of fewer sides repeat their last vertex.
``SUPERELLIPSE``     ``hole``, ``n``: points where ``|u|^m + |v|^m <= 1`` with ``m = 2^n``, n from 0 to 3: a rhombus, an ellipse, then
                     ever squarer ellipses
``BLOB``             ``hole``, ``r``, then ``c_k, s_k`` for k from 2 to 7: points within the radius
                     ``R(phi) = r + sum_k (c_k cos(k phi) + s_k sin(k phi))``, ``phi`` being the angle from u towards v
===================  ===============================================================================================================

``hole`` in [0, 1) removes a copy of the outline, scaled by this factor about the center, which makes a ring. 0 means no hole.

Signed distance, in pixels of the texture, positive inside; exact for polygons away from their vertices and for rings of circles, else
exact to first order at the edge:

- ``inner = min(a - |p_x|, b - |p_y|)``, the distance to the box
- ``POLYGON``: ``min(inner, min_i (n_i . p + d_i))`` over the edges, whose inward unit normals and offsets ``half_planes`` computes
- ``SUPERELLIPSE`` and ``BLOB``: ``min(inner, min(1 - g, g - hole) / |grad g|)``, without ``g - hole`` if there is no hole. ``g`` is 0 at
  the center, 1 on the outline and linear on every ray from the center, so its gradient, taken per pixel, depends on the ray alone:

  - ``SUPERELLIPSE``: ``g = (|u|^m + |v|^m)^(1/m)``, ``grad g = ((|u| / g)^(m-1) / a, (|v| / g)^(m-1) / b)`` up to signs
  - ``BLOB``: ``g = rho / R``, ``rho = |(u, v)|``, and with ``z = (u, v) / rho`` and ``slope = R'(phi) / R``,
    ``grad g = ((z_u + slope z_v) / (R a), (z_v - slope z_u) / (R b))``. Powers of the complex number ``z`` are ``cos(k phi)`` and
    ``sin(k phi)``, so neither needs an angle.

``coverage = clamp(distance / feather + 0.5, 0, 1)``; for boxes the product of both axes' coverage. It is 0 beyond ``bounds``: the box,
larger by half the feather on every side. Not from the paper, except for boxes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

BOX, POLYGON, SUPERELLIPSE, BLOB = range(4)  # values of SHAPE
SHAPE, FEATHER, PARAMS = 0, 1, 2  # columns
HOLE, POWER = PARAMS, PARAMS + 1  # of SUPERELLIPSE
RADIUS, HARMONICS = PARAMS + 1, PARAMS + 2  # of BLOB, beside HOLE
MOST_VERTICES = 8
ORDERS = range(2, 8)  # k of a blob's harmonics
POWERS = 3  # greatest n of a superellipse
NUMBERS = PARAMS + 2 * MOST_VERTICES  # K of outlines other than boxes
SHARP = (BOX, 1.0)  # a box with an edge 1 pixel wide, which antialiases it at the texture's own scale

FAR = 1e9  # pixels: distance to an edge that does not exist
TINY = 1e-12


def coverage(
    outline: Float[Tensor, "*#b K"],
    box: Float[Tensor, "*#b 4"],
    x: Float[Tensor, "*#b"],
    y: Float[Tensor, "*#b"],
    shapes: Sequence[int] = (BOX,),
) -> Float[Tensor, "*b"]:
    """How much of the texture's pixels at ``(x, y)`` lies inside the outline, in [0, 1]; 0.5 on the outline itself.

    Args:
        outline: as the module's docstring defines it.
        box: edges ``(x0, y0, x1, y1)`` of the layer's box.
        x: in pixels of the texture.
        y: in pixels of the texture.
        shapes: the codes that occur in ``outline``. They are not read from the tensor, because that would synchronize with a GPU.

    """
    feather = outline[..., FEATHER]
    soft = None
    if BOX in shapes:
        x0, y0, x1, y1 = box.unbind(-1)
        across = ((x - x0).minimum(x1 - x) / feather + 0.5).clamp(0, 1)
        soft = across * ((y - y0).minimum(y1 - y) / feather + 0.5).clamp(0, 1)
    others = [shape for shape in shapes if shape != BOX]
    if not others:
        return soft if soft is not None else torch.zeros_like(x + y)
    shaped = (distance(outline, box, x, y, others) / feather + 0.5).clamp(0, 1)
    return shaped if soft is None else torch.where(outline[..., SHAPE] == BOX, soft, shaped)


def distance(
    outline: Float[Tensor, "*#b K"], box: Float[Tensor, "*#b 4"], x: Float[Tensor, "*#b"], y: Float[Tensor, "*#b"], shapes: Sequence[int]
) -> Float[Tensor, "*b"]:
    """Signed distance of texture pixels to the outline, in pixels, positive inside; see the module's docstring. Args as ``coverage``."""
    x0, y0, x1, y1 = box.unbind(-1)
    a, b = (x1 - x0) / 2, (y1 - y0) / 2
    px, py = x - (x0 + x1) / 2, y - (y0 + y1) / 2
    inner = (a - px.abs()).minimum(b - py.abs())
    found = inner
    for shape in shapes:
        if shape == BOX:
            continue
        if shape == POLYGON:
            within = _polygon(outline, box, px, py)
        else:
            value, gradient = (_superellipse if shape == SUPERELLIPSE else _blob)(outline, px / a, py / b, a, b)
            hole = outline[..., HOLE]
            within = (1 - value).minimum(torch.where(hole > 0, value - hole, FAR)) / gradient.clamp(min=TINY)
        within = within.minimum(inner)
        found = within if len(shapes) == 1 else torch.where(outline[..., SHAPE] == shape, within, found)
    return found


def inside(
    outline: Float[Tensor, "*#b K"], box: Float[Tensor, "*#b 4"], x: Float[Tensor, "*#b"], y: Float[Tensor, "*#b"], shapes: Sequence[int]
) -> Bool[Tensor, "*b"]:
    """Whether texture pixels lie inside the outline, for labels. The left and top edges of a box belong to it. Args as ``coverage``."""
    x0, y0, x1, y1 = box.unbind(-1)
    boxed = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    others = [shape for shape in shapes if shape != BOX]
    if not others:
        return boxed
    shaped = distance(outline, box, x, y, others) >= 0
    return torch.where(outline[..., SHAPE] == BOX, boxed, shaped) if BOX in shapes else shaped


def half_planes(outline: Float[Tensor, "*#b K"], box: Float[Tensor, "*#b 4"]) -> Float[Tensor, "*b 8 3"]:
    """Edges of polygons: ``n_x p_x + n_y p_y + d`` is the distance of ``p``, in pixels from the box's center, to each of 8 lines.

    Edges without length, between repeated vertices, are infinitely far away: ``(0, 0, FAR)``.
    """
    half = torch.stack([box[..., 2] - box[..., 0], box[..., 3] - box[..., 1]], -1)[..., None, :] / 2
    numbers = outline[..., PARAMS : PARAMS + 2 * MOST_VERTICES]
    vertices = numbers.reshape(*numbers.shape[:-1], MOST_VERTICES, 2) * half  # (*b, 8, 2)
    edge = vertices.roll(-1, -2) - vertices
    length = edge.norm(dim=-1, keepdim=True)
    normal = torch.stack([-edge[..., 1], edge[..., 0]], -1) / length.clamp(min=TINY)
    offset = -(normal * vertices).sum(-1, keepdim=True)
    real = length > 1e-6 * half.amax(-1, keepdim=True)
    return torch.cat([torch.where(real, normal, 0.0), torch.where(real, offset, FAR)], -1)


def bounds(outline: Float[Tensor, "*#b K"], box: Float[Tensor, "*#b 4"]) -> Float[Tensor, "*b 4"]:
    """Edges ``(x0, y0, x1, y1)`` beyond which nothing of the outline's soft edge shows, in pixels of the texture."""
    soft = outline[..., FEATHER, None] / 2
    return box + soft * box.new_tensor([-1, -1, 1, 1])


def _polygon(outline: Float[Tensor, "*#b K"], box: Float[Tensor, "*#b 4"], px: Float[Tensor, "*#b"], py: Float[Tensor, "*#b"]) -> Tensor:
    lines = half_planes(outline, box).unbind(-2)
    nearest = torch.full_like(px + py, FAR)
    for line in lines:
        nearest = nearest.minimum(line[..., 0] * px + (line[..., 1] * py + line[..., 2]))
    return nearest


def _superellipse(
    outline: Float[Tensor, "*#b K"], u: Float[Tensor, "*#b"], v: Float[Tensor, "*#b"], a: Float[Tensor, "*#b"], b: Float[Tensor, "*#b"]
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """``g`` and the length of its gradient per pixel. Squares and square roots only, relative to the larger of |u| and |v|: no overflow."""
    n = outline[..., POWER]
    u, v = u.abs(), v.abs()
    largest = u.maximum(v).clamp(min=TINY)
    u, v = u / largest, v / largest
    power_u, power_v = u, v
    for k in range(POWERS):
        power_u, power_v = (torch.where(n > k, power * power, power) for power in (power_u, power_v))
    total = power_u + power_v
    for k in range(POWERS):
        total = torch.where(n > k, total.sqrt(), total)
    total = total.clamp(min=1)  # it is, but for rounding and at the center
    parts = []
    for along, half in ((u / total, a), (v / total, b)):
        part, square = torch.ones_like(along), along
        for k in range(POWERS):
            part = torch.where(n > k, part * square, part)
            square = square * square
        parts.append(part / half)
    return largest * total, (parts[0] * parts[0] + parts[1] * parts[1]).sqrt()


def _blob(
    outline: Float[Tensor, "*#b K"], u: Float[Tensor, "*#b"], v: Float[Tensor, "*#b"], a: Float[Tensor, "*#b"], b: Float[Tensor, "*#b"]
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """``g`` and the length of its gradient per pixel."""
    rho = (u * u + v * v).sqrt()
    zu, zv = u / rho.clamp(min=TINY), v / rho.clamp(min=TINY)
    radius, change = outline[..., RADIUS], torch.zeros_like(zu)
    cosine, sine = zu, zv
    for i, k in enumerate(ORDERS):
        cosine, sine = cosine * zu - sine * zv, cosine * zv + sine * zu
        c, s = outline[..., HARMONICS + 2 * i], outline[..., HARMONICS + 2 * i + 1]
        radius = radius + (c * cosine + s * sine)
        change = change + k * (s * cosine - c * sine)
    slope = change / radius
    along_x, along_y = (zu + slope * zv) / (radius * a), (zv - slope * zu) / (radius * b)
    return rho / radius, (along_x * along_x + along_y * along_y).sqrt()


# Builders: rows of outlines in float64, for plans. Each takes arrays (b,) or (b, ...) and a feather (b,) in pixels of the texture.

Rows = Float64[np.ndarray, "b K"]
Numbers = Float64[np.ndarray, " b"]


def _rows(shape: int, feather: Numbers, params: Sequence[Numbers]) -> Rows:
    rows = np.zeros((len(feather), NUMBERS))
    rows[:, SHAPE], rows[:, FEATHER] = shape, feather
    for i, numbers in enumerate(params):
        rows[:, PARAMS + i] = numbers
    return rows


def boxes(feather: Numbers) -> Rows:
    """Whole boxes."""
    return _rows(BOX, feather, [])


def polygons(vertices: Float64[np.ndarray, "b n 2"], feather: Numbers) -> Rows:
    """Convex polygons of 3 to 8 vertices ``(u, v)`` in [-1, 1], in the order of growing angle from u towards v.

    Raises:
        ValueError: for fewer than 3 or more than 8 vertices.

    """
    n = vertices.shape[1]
    if not 3 <= n <= MOST_VERTICES:
        raise ValueError(f"vertices must be 3 to {MOST_VERTICES} points, got {n}")
    padded = np.concatenate([vertices, np.repeat(vertices[:, -1:], MOST_VERTICES - n, 1)], 1)
    return _rows(POLYGON, feather, list(padded.reshape(len(padded), 2 * MOST_VERTICES).T))


def superellipses(power: Numbers, feather: Numbers, hole: Numbers) -> Rows:
    """Superellipses of exponent ``2**power``: 0 rhombus, 1 ellipse, 2 and 3 squarer; with ``hole`` above 0 they are rings."""
    return _rows(SUPERELLIPSE, feather, [hole, power])


def blobs(radius: Numbers, harmonics: Float64[np.ndarray, "b 6 2"], feather: Numbers, hole: Numbers) -> Rows:
    """Smooth blobs of mean radius ``radius`` and ``harmonics`` ``(c_k, s_k)``, whose amplitudes must add up to less than the radius."""
    return _rows(BLOB, feather, [hole, radius, *harmonics.reshape(len(harmonics), 2 * len(ORDERS)).T])
