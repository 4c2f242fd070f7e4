"""The parts of shader programs: warps of the plane, patterns over it, and combinations of two patterns. Not from the paper.

Every part is a function of coordinates ``(n, h, w)``, of eight parameters in [0, 1), each ``(n, 1, 1)``, and, if it is random across the
plane, of a salt. The first two parameters are phases, which vary with time.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pseudomotion.images.synthetic.arithmetic import (
    Field,
    angle,
    cell,
    cosine,
    fbm,
    first_half,
    hash_cells,
    integer_from,
    lerp,
    perlin,
    radius,
    second_half,
    sine,
    smoothstep,
    triangle,
    worley,
)

Numbers = Sequence[Tensor]  # eight of (n, 1, 1)
Warp = Callable[[Field, Field, Numbers, Tensor], tuple[Field, Field]]
Pattern = Callable[[Field, Field, Numbers, Tensor], Field]
Combine = Callable[[Field, Field, Numbers], Field]


def turn(x: Field, y: Field, turns: Tensor) -> tuple[Field, Field]:
    s, c = sine(turns), cosine(turns)
    return c * x - s * y, s * x + c * y


def _straight(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    return turn(x, y, p[2])


def _waves(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    size = lerp(0.08, 0.4, p[2])
    return x + size * sine(lerp(0.3, 1.6, p[3]) * y + p[0]), y + size * sine(lerp(0.3, 1.6, p[4]) * x + p[1])


def _turbulence(x: Field, y: Field, p: Numbers, salt: Tensor) -> tuple[Field, Field]:
    frequency, size = lerp(0.7, 2.5, p[2]), lerp(0.15, 0.6, p[3])
    u, v = frequency * x + 7 * p[0], frequency * y + 7 * p[1]
    return x + size * perlin(u, v, salt), y + size * perlin(u, v, salt + 17)


def _polar(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    # The angle is mirrored, so that its jump leaves no seam.
    return lerp(0.8, 2.5, p[2]) * radius(x, y) + p[0], 0.5 * triangle(angle(x, y) * integer_from(1, 6, p[3]) + p[1])


def _tunnel(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    return 0.8 / (radius(x, y) + lerp(0.15, 0.5, p[2])) + p[0], 0.9 * triangle(angle(x, y) * integer_from(1, 5, p[3]) + p[1])


def _kaleidoscope(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    sectors = integer_from(3, 10, p[2])
    r, a = radius(x, y), 0.25 * (triangle(angle(x, y) * sectors) + 1) / sectors
    return r * cosine(a) - p[0], r * sine(a) + 0.3 * p[1]


def _mirrors(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    period = lerp(0.8, 2.5, p[2])
    return triangle(x / period + p[0]), triangle(y / period + p[1])


def _swirl(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    x, y = x - p[0] + 0.5, y - p[1] + 0.5
    return turn(x, y, lerp(0.2, 0.9, p[2]) / (x * x + y * y + lerp(0.3, 0.8, p[3])))


def _inversion(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    x, y = x - 1.4 * p[0] + 0.7, y - 1.4 * p[1] + 0.7
    square = x * x + y * y + lerp(0.08, 0.4, p[2])
    return x / square, y / square


def _square(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    x, y = x - p[0] + 0.5, y - p[1] + 0.5
    return 1.3 * (x * x - y * y), 2.6 * x * y


def _folds(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    for k in (2, 3, 4):
        x, y = turn(x.abs() - lerp(0.2, 0.9, p[k]), y.abs() - lerp(0.1, 0.6, p[k + 1]), 0.15 * p[0] + 0.35 * p[k])
    return 1.4 * x, 1.4 * y


def _tiles(x: Field, y: Field, p: Numbers, salt: Tensor) -> tuple[Field, Field]:
    size = lerp(0.5, 1.3, p[2])
    (ix, u), (iy, v) = cell(x / size + p[0]), cell(y / size + p[1])
    quarter = (4 * first_half(hash_cells(ix, iy, salt))).floor() / 4
    return turn(2 * u - 1, 2 * v - 1, quarter)


WARPS: Mapping[str, Warp] = {
    "straight": _straight,
    "waves": _waves,
    "turbulence": _turbulence,
    "polar": _polar,
    "tunnel": _tunnel,
    "kaleidoscope": _kaleidoscope,
    "mirrors": _mirrors,
    "swirl": _swirl,
    "inversion": _inversion,
    "square": _square,
    "folds": _folds,
    "tiles": _tiles,
}


def _stripes(x: Field, y: Field, p: Numbers, _: Tensor) -> Field:
    return sine(lerp(0.8, 4.0, p[2]) * turn(x, y, p[3])[0] + p[0])


def _rings(x: Field, y: Field, p: Numbers, _: Tensor) -> Field:
    return sine(lerp(0.8, 4.0, p[2]) * radius(x - p[3] + 0.5, y - p[4] + 0.5) - p[0])


def _checks(x: Field, y: Field, p: Numbers, _: Tensor) -> Field:
    x, y = turn(x, y, p[4])
    return (6 * sine(lerp(0.6, 2.5, p[2]) * x + p[0]) * sine(lerp(0.6, 2.5, p[3]) * y + p[1])).clamp(-1, 1)


def _shapes(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    """Signed distance to one shape per cell, between diamond, circle, and square, of a random size and angle; with contour lines."""
    frequency = lerp(0.9, 2.6, p[2])
    (ix, u), (iy, v) = cell(frequency * x + p[0]), cell(frequency * y + p[1])
    bits = hash_cells(ix, iy, salt)
    u, v = turn(u - 0.5, v - 0.5, second_half(bits) * p[3])
    u, v = u.abs(), v.abs()
    diamond, circle, square = 0.75 * (u + v), radius(u, v), torch.maximum(u, v)
    shape = torch.where(p[4] < 0.5, lerp(diamond, circle, 2 * p[4]), lerp(circle, square, 2 * p[4] - 1))
    distance = shape - lerp(0.12, 0.42, 0.35 + 0.65 * first_half(bits))
    contours = 0.6 * sine(lerp(2.0, 7.0, p[5]) * distance)
    return torch.where(p[6] < 0.5, contours, 0) - (14 * distance).clamp(-1, 1) * 0.7


def _cells(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    frequency = lerp(1.2, 4.0, p[2])
    nearest, _, _ = worley(frequency * x + p[0], frequency * y + p[1], salt)
    return 2 * nearest - 1


def _cracks(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    frequency = lerp(1.2, 4.0, p[2])
    nearest, second, tag = worley(frequency * x + p[0], frequency * y + p[1], salt)
    return smoothstep(0.02, lerp(0.1, 0.3, p[3]), second - nearest) * (0.7 + 1.3 * tag) - 1


def _mosaic(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    frequency = lerp(1.2, 4.5, p[2])
    nearest, _, tag = worley(frequency * x + p[0], frequency * y + p[1], salt)
    return 2 * tag - 1 - lerp(0.0, 0.6, p[3]) * nearest


def _clouds(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    frequency = lerp(0.8, 2.6, p[2])
    return 1.4 * fbm(frequency * x + 5 * p[0], frequency * y + 5 * p[1], salt)


def _ridges(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    frequency = lerp(0.7, 2.2, p[2])
    return 1 - 3.2 * fbm(frequency * x + 5 * p[0], frequency * y + 5 * p[1], salt).abs()


def _marble(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    noise = fbm(1.1 * x + 3 * p[1], 1.1 * y, salt)
    return sine(lerp(0.5, 2.0, p[2]) * turn(x, y, p[3])[0] + lerp(0.4, 1.6, p[4]) * noise + p[0])


def _contours(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    return sine(lerp(1.5, 4.0, p[2]) * perlin(0.9 * x + 5 * p[0], 0.9 * y + 5 * p[1], salt))


def _plasma(x: Field, y: Field, p: Numbers, _: Tensor) -> Field:
    total = sine(lerp(0.5, 1.8, p[2]) * x + p[0])
    for k in (3, 4, 5):
        total = total + sine(lerp(0.6, 2.0, p[k]) * turn(x, y, p[k + 1])[0] + 2 * p[1] * p[k])
    return 0.5 * total


def _bricks(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    frequency = lerp(1.5, 4.0, p[2])
    iy, v = cell(frequency * y + p[1])
    ix, u = cell(frequency * x * lerp(0.4, 1.0, p[3]) + 0.5 * (iy & 1).float() + p[0])
    edge = torch.minimum(torch.minimum(u, 1 - u), torch.minimum(v, 1 - v))
    return smoothstep(0.03, 0.12, edge) * (0.6 + 1.4 * first_half(hash_cells(ix, iy, salt))) - 1


def _arcs(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    """Truchet tiles: two quarter circles per cell, randomly oriented, which join into winding paths."""
    frequency = lerp(1.2, 3.5, p[2])
    (ix, u), (iy, v) = cell(frequency * x + p[0]), cell(frequency * y + p[1])
    u = torch.where(first_half(hash_cells(ix, iy, salt)) < 0.5, u, 1 - u)
    distance = torch.minimum((radius(u, v) - 0.5).abs(), (radius(1 - u, 1 - v) - 0.5).abs())
    return torch.where(p[3] < 0.5, sine(lerp(1.5, 4.5, p[4]) * distance + p[5]), 1 - 9 * distance).clamp(-1, 1)


def _trap(x: Field, y: Field, p: Numbers, _: Tensor) -> Field:
    """Orbit trap: the smallest distance to the axes under iterated folds and inversions."""
    nearest = torch.full_like(x, 4.0)
    for _step in range(5):
        square = (x * x + y * y).clamp(min=0.02)
        x, y = x.abs() / square - lerp(0.5, 1.0, p[2]), y.abs() / square - lerp(0.3, 0.9, p[3])
        nearest = torch.minimum(nearest, lerp(x.abs(), radius(x, y), p[4]))
    return 1 - 3 * nearest.clamp(max=0.8)


def _spiral(x: Field, y: Field, p: Numbers, _: Tensor) -> Field:
    return sine(angle(x, y) * integer_from(1, 7, p[2]) + lerp(0.5, 3.0, p[3]) * radius(x, y) - p[0])


PATTERNS: Mapping[str, Pattern] = {
    "stripes": _stripes,
    "rings": _rings,
    "checks": _checks,
    "shapes": _shapes,
    "cells": _cells,
    "cracks": _cracks,
    "mosaic": _mosaic,
    "clouds": _clouds,
    "ridges": _ridges,
    "marble": _marble,
    "contours": _contours,
    "plasma": _plasma,
    "bricks": _bricks,
    "arcs": _arcs,
    "trap": _trap,
    "spiral": _spiral,
}

COMBINATIONS: Mapping[str, Combine] = {
    "sum": lambda a, b, _: 0.7 * (a + b),
    "product": lambda a, b, _: 1.3 * a * b,
    "lighter": lambda a, b, _: torch.maximum(a, b),
    "darker": lambda a, b, _: torch.minimum(a, b),
    "inset": lambda a, b, p: torch.where(a > p[5] - 0.5, b, 0.6 * a),
    "fold": lambda a, b, p: triangle(lerp(0.25, 0.6, p[5]) * (a + 0.6 * b)),
    "bands": lambda a, b, p: lerp(a, (2.5 * a + b).floor() / 2.5, 0.5 + 0.5 * p[5]),
    "wave": lambda a, b, p: sine(lerp(0.4, 1.1, p[5]) * a + 0.35 * b),
}
