"""Bends: the non-rigid part of a motion, a displacement by uniform cubic B-splines. Not from the paper.

A bend is a backward map, which is what samplers need: frame pixel ``p`` is taken by the inverse homography to ``q = H^-1 p`` in pixels of
what is read, and shows what is read at ``q + D(q)``.

``D`` has G x G control points ``(2, G, G)``: component x or y, row, column. They sit at the centers of the G x G equal cells of a box: for
a back the whole image, or the whole previous frame where it reads that; for a layer the layer's box. With cell sides ``(e_x, e_y)``, the
lattice coordinates of a pixel are ``s = (q_x - x0) / e_x - 0.5`` and ``t = (q_y - y0) / e_y - 0.5``, and

    D_x = e_x sum_ji B(t - j) B(s - i) bend[0, j, i],    D_y = e_y sum_ji B(t - j) B(s - i) bend[1, j, i]

where ``B`` is the cubic B-spline, ``B(d) = ((2 - |d|)_+^3 - 4 (1 - |d|)_+^3) / 6``. Control points are thus **in cells**. Those outside the
grid are zero, so ``D`` is smooth everywhere (C2) and fades to zero within two cells of the box.

Where no control point exceeds ``LARGEST`` = 0.48 cells, ``q -> q + D(q)`` is injective (Choi and Lee, "Injectivity conditions of 2D and 3D
uniform cubic B-spline functions", Graphical Models 62, 2000: below 1 / 2.046 cells), so labels can invert it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

LARGEST = 0.48  # cells: largest absolute control point in a plan
MOST_POINTS = 8  # largest G in a plan
STEPS = 8  # Newton iterations; 6 suffice at the bound
PIECE = 4096  # points inverted at once on a CPU
STRIDE = 0.5  # cells: longest Newton step, because near the bound the derivative is nearly singular in places


def displacement(
    bend: Float[Tensor, "*b 2 G G"], box: Float[Tensor, "*#b 4"], x: Float[Tensor, "*b n"], y: Float[Tensor, "*b n"]
) -> tuple[Float[Tensor, "*b n"], Float[Tensor, "*b n"]]:
    """``D`` at n points, in pixels.

    Args:
        bend: control points in cells.
        box: edges ``(x0, y0, x1, y1)`` of what the grid divides, in pixels.
        x: in pixels of what is read.
        y: in pixels of what is read.

    """
    corner_x, corner_y, cell_x, cell_y = _cells(bend, box)
    u, v, _ = _lattice(bend, (x - corner_x) / cell_x, (y - corner_y) / cell_y, slopes=False)
    return u * cell_x, v * cell_y


def invert(
    bend: Float[Tensor, "*b 2 G G"], box: Float[Tensor, "*#b 4"], x: Float[Tensor, "*b n"], y: Float[Tensor, "*b n"], steps: int = STEPS
) -> tuple[Float[Tensor, "*b n"], Float[Tensor, "*b n"]]:
    """The points ``q`` with ``q + D(q) = (x, y)``, by a fixed number of Newton iterations, so that nothing is read back from a GPU.

    Args:
        bend: as for ``displacement``, at most ``LARGEST``.
        box: as for ``displacement``.
        x: in pixels of what is read.
        y: in pixels of what is read.
        steps: of the iteration. In float64 the default leaves errors below 1e-9 pixels at the bound.

    """
    if x.device.type == "cpu" and x.shape[-1] > PIECE:  # the intermediate results of one piece fit in the cache
        parts = [slice(first, first + PIECE) for first in range(0, x.shape[-1], PIECE)]
        pieces = [invert(bend, box, x[..., part], y[..., part], steps) for part in parts]
        return torch.cat([piece[0] for piece in pieces], -1), torch.cat([piece[1] for piece in pieces], -1)
    corner_x, corner_y, cell_x, cell_y = _cells(bend, box)
    goal_s, goal_t = (x - corner_x) / cell_x, (y - corner_y) / cell_y
    s, t = goal_s, goal_t
    for _ in range(steps):
        u, v, slopes = _lattice(bend, s, t, slopes=True)
        assert slopes is not None
        us, ut, vs, vt = slopes
        off_s, off_t = goal_s - s - u, goal_t - t - v
        determinant = ((1 + us) * (1 + vt) - ut * vs).clamp(min=1e-3)
        step_s = ((1 + vt) * off_s - ut * off_t) / determinant
        step_t = ((1 + us) * off_t - vs * off_s) / determinant
        shorten = (STRIDE / torch.hypot(step_s, step_t).clamp(min=STRIDE)).clamp(max=1)
        s, t = s + shorten * step_s, t + shorten * step_t
    return s * cell_x + corner_x, t * cell_y + corner_y


def reach(bend: Float[Tensor, "*b 2 G G"], box: Float[Tensor, "*#b 4"]) -> Float[Tensor, "*b 2"]:
    """Upper bound of a bend's displacement along x and along y, in pixels."""
    _, _, cell_x, cell_y = _cells(bend, box)
    most = bend.abs().flatten(-2).amax(-1)  # (*b, 2); weights of a B-spline add up to at most 1
    return most * torch.stack([cell_x[..., 0], cell_y[..., 0]], -1)


def _cells(bend: Float[Tensor, "*b 2 G G"], box: Float[Tensor, "*#b 4"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Position of the first control point, and the sides of a cell; each ``(*b, 1)``."""
    x0, y0, x1, y1 = box[..., None].unbind(-2)
    cell_x, cell_y = (x1 - x0) / bend.shape[-1], (y1 - y0) / bend.shape[-1]
    return x0 + cell_x / 2, y0 + cell_y / 2, cell_x, cell_y


def _lattice(
    bend: Float[Tensor, "*b 2 G G"], s: Float[Tensor, "*b n"], t: Float[Tensor, "*b n"], *, slopes: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor] | None]:
    """The displacement in cells at lattice coordinates, and its derivatives.

    Sums run over all G x G control points: for so few that is faster than to gather the 16 that matter.
    """
    points = range(bend.shape[-1])
    across, down = [[_weight(at - i) for i in points] for at in (s, t)]
    control = bend.unbind(-3)  # x and y, each (*b, G, G)
    columns = [[_sum(down, part[..., :, i]) for i in points] for part in control]
    u, v = (_products(across, part) for part in columns)
    if not slopes:
        return u, v, None
    steep_across, steep_down = [[_slope(at - i) for i in points] for at in (s, t)]
    slanted = [[_sum(steep_down, part[..., :, i]) for i in points] for part in control]
    us, vs = (_products(steep_across, part) for part in columns)
    ut, vt = (_products(across, part) for part in slanted)
    return u, v, (us, ut, vs, vt)


def _sum(weights: list[Tensor], control: Float[Tensor, "*b G"]) -> Tensor:
    total = weights[0] * control[..., :1]
    for j in range(1, len(weights)):
        total = torch.addcmul(total, weights[j], control[..., j : j + 1])
    return total


def _products(weights: list[Tensor], values: list[Tensor]) -> Tensor:
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = torch.addcmul(total, weight, value)
    return total


def _weight(d: Tensor) -> Tensor:
    """The cubic B-spline."""
    d = d.abs()
    wide, narrow = (2 - d).clamp(min=0), (1 - d).clamp(min=0)
    return (wide * wide * wide - 4 * (narrow * narrow * narrow)) / 6


def _slope(d: Tensor) -> Tensor:
    """Its derivative."""
    wide, narrow = (2 - d.abs()).clamp(min=0), (1 - d.abs()).clamp(min=0)
    return d.sign() * (2 * (narrow * narrow) - wide * wide / 2)
