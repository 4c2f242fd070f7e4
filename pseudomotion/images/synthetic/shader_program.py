"""The parts that a shader program is put together from, and how: warps of the plane, fields over it, and colors.

All are our own. Every part is a function of coordinates ``(n, h, w)``, of its eight parameters in [0, 1), each ``(n, 1, 1)``, and where it is
random from place to place, of a salt. The first two parameters are phases: the time value moves them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int32, Int64
from torch import Tensor

from pseudomotion.draws import Draws
from pseudomotion.images.synthetic.arithmetic import (
    Field,
    angle,
    blend,
    cell,
    cosine,
    fbm,
    first_half,
    hash_cells,
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

PARAMETERS = 8


def _between(low: float, high: float, number: Tensor) -> Tensor:
    return low + (high - low) * number


def _whole(low: int, high: int, number: Tensor) -> Tensor:
    return (low + (high - low + 1) * number).floor()


def _turn(x: Field, y: Field, turns: Tensor) -> tuple[Field, Field]:
    s, c = sine(turns), cosine(turns)
    return c * x - s * y, s * x + c * y


def _straight(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    return _turn(x, y, p[2])


def _waves(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    size = _between(0.08, 0.4, p[2])
    return x + size * sine(_between(0.3, 1.6, p[3]) * y + p[0]), y + size * sine(_between(0.3, 1.6, p[4]) * x + p[1])


def _turbulence(x: Field, y: Field, p: Numbers, salt: Tensor) -> tuple[Field, Field]:
    frequency, size = _between(0.7, 2.5, p[2]), _between(0.15, 0.6, p[3])
    u, v = frequency * x + 7 * p[0], frequency * y + 7 * p[1]
    return x + size * perlin(u, v, salt), y + size * perlin(u, v, salt + 17)


def _polar(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    # The angle is mirrored, so that no seam shows where it jumps.
    return _between(0.8, 2.5, p[2]) * radius(x, y) + p[0], 0.5 * triangle(angle(x, y) * _whole(1, 6, p[3]) + p[1])


def _tunnel(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    return 0.8 / (radius(x, y) + _between(0.15, 0.5, p[2])) + p[0], 0.9 * triangle(angle(x, y) * _whole(1, 5, p[3]) + p[1])


def _kaleidoscope(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    sectors = _whole(3, 10, p[2])
    r, a = radius(x, y), 0.25 * (triangle(angle(x, y) * sectors) + 1) / sectors
    return r * cosine(a) - p[0], r * sine(a) + 0.3 * p[1]


def _mirrors(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    period = _between(0.8, 2.5, p[2])
    return triangle(x / period + p[0]), triangle(y / period + p[1])


def _swirl(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    x, y = x - p[0] + 0.5, y - p[1] + 0.5
    return _turn(x, y, _between(0.2, 0.9, p[2]) / (x * x + y * y + _between(0.3, 0.8, p[3])))


def _inversion(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    x, y = x - 1.4 * p[0] + 0.7, y - 1.4 * p[1] + 0.7
    square = x * x + y * y + _between(0.08, 0.4, p[2])
    return x / square, y / square


def _square(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    x, y = x - p[0] + 0.5, y - p[1] + 0.5
    return 1.3 * (x * x - y * y), 2.6 * x * y


def _folds(x: Field, y: Field, p: Numbers, _: Tensor) -> tuple[Field, Field]:
    for k in (2, 3, 4):
        x, y = _turn(x.abs() - _between(0.2, 0.9, p[k]), y.abs() - _between(0.1, 0.6, p[k + 1]), 0.15 * p[0] + 0.35 * p[k])
    return 1.4 * x, 1.4 * y


def _tiles(x: Field, y: Field, p: Numbers, salt: Tensor) -> tuple[Field, Field]:
    size = _between(0.5, 1.3, p[2])
    (ix, u), (iy, v) = cell(x / size + p[0]), cell(y / size + p[1])
    quarter = (4 * first_half(hash_cells(ix, iy, salt))).floor() / 4
    return _turn(2 * u - 1, 2 * v - 1, quarter)


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
    return sine(_between(0.8, 4.0, p[2]) * _turn(x, y, p[3])[0] + p[0])


def _rings(x: Field, y: Field, p: Numbers, _: Tensor) -> Field:
    return sine(_between(0.8, 4.0, p[2]) * radius(x - p[3] + 0.5, y - p[4] + 0.5) - p[0])


def _checks(x: Field, y: Field, p: Numbers, _: Tensor) -> Field:
    x, y = _turn(x, y, p[4])
    return (6 * sine(_between(0.6, 2.5, p[2]) * x + p[0]) * sine(_between(0.6, 2.5, p[3]) * y + p[1])).clamp(-1, 1)


def _shapes(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    """Signed distance to one shape per cell, from diamond over circle to square, each of its own size and angle, with contour lines."""
    frequency = _between(0.9, 2.6, p[2])
    (ix, u), (iy, v) = cell(frequency * x + p[0]), cell(frequency * y + p[1])
    bits = hash_cells(ix, iy, salt)
    u, v = _turn(u - 0.5, v - 0.5, second_half(bits) * p[3])
    u, v = u.abs(), v.abs()
    diamond, circle, square = 0.75 * (u + v), radius(u, v), torch.maximum(u, v)
    shape = torch.where(p[4] < 0.5, blend(diamond, circle, 2 * p[4]), blend(circle, square, 2 * p[4] - 1))
    distance = shape - _between(0.12, 0.42, 0.35 + 0.65 * first_half(bits))
    contours = 0.6 * sine(_between(2.0, 7.0, p[5]) * distance)
    return torch.where(p[6] < 0.5, contours, 0) - (14 * distance).clamp(-1, 1) * 0.7


def _cells(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    frequency = _between(1.2, 4.0, p[2])
    nearest, _, _ = worley(frequency * x + p[0], frequency * y + p[1], salt)
    return 2 * nearest - 1


def _cracks(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    frequency = _between(1.2, 4.0, p[2])
    nearest, second, tag = worley(frequency * x + p[0], frequency * y + p[1], salt)
    return smoothstep(0.02, _between(0.1, 0.3, p[3]), second - nearest) * (0.7 + 1.3 * tag) - 1


def _mosaic(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    frequency = _between(1.2, 4.5, p[2])
    nearest, _, tag = worley(frequency * x + p[0], frequency * y + p[1], salt)
    return 2 * tag - 1 - _between(0.0, 0.6, p[3]) * nearest


def _clouds(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    frequency = _between(0.8, 2.6, p[2])
    return 1.4 * fbm(frequency * x + 5 * p[0], frequency * y + 5 * p[1], salt)


def _ridges(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    frequency = _between(0.7, 2.2, p[2])
    return 1 - 3.2 * fbm(frequency * x + 5 * p[0], frequency * y + 5 * p[1], salt).abs()


def _marble(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    noise = fbm(1.1 * x + 3 * p[1], 1.1 * y, salt)
    return sine(_between(0.5, 2.0, p[2]) * _turn(x, y, p[3])[0] + _between(0.4, 1.6, p[4]) * noise + p[0])


def _contours(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    return sine(_between(1.5, 4.0, p[2]) * perlin(0.9 * x + 5 * p[0], 0.9 * y + 5 * p[1], salt))


def _plasma(x: Field, y: Field, p: Numbers, _: Tensor) -> Field:
    total = sine(_between(0.5, 1.8, p[2]) * x + p[0])
    for k in (3, 4, 5):
        total = total + sine(_between(0.6, 2.0, p[k]) * _turn(x, y, p[k + 1])[0] + 2 * p[1] * p[k])
    return 0.5 * total


def _bricks(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    frequency = _between(1.5, 4.0, p[2])
    iy, v = cell(frequency * y + p[1])
    ix, u = cell(frequency * x * _between(0.4, 1.0, p[3]) + 0.5 * (iy & 1).float() + p[0])
    edge = torch.minimum(torch.minimum(u, 1 - u), torch.minimum(v, 1 - v))
    return smoothstep(0.03, 0.12, edge) * (0.6 + 1.4 * first_half(hash_cells(ix, iy, salt))) - 1


def _arcs(x: Field, y: Field, p: Numbers, salt: Tensor) -> Field:
    """Truchet's tiles: two quarter circles per cell, turned at random, which join into winding paths."""
    frequency = _between(1.2, 3.5, p[2])
    (ix, u), (iy, v) = cell(frequency * x + p[0]), cell(frequency * y + p[1])
    u = torch.where(first_half(hash_cells(ix, iy, salt)) < 0.5, u, 1 - u)
    distance = torch.minimum((radius(u, v) - 0.5).abs(), (radius(1 - u, 1 - v) - 0.5).abs())
    return torch.where(p[3] < 0.5, sine(_between(1.5, 4.5, p[4]) * distance + p[5]), 1 - 9 * distance).clamp(-1, 1)


def _trap(x: Field, y: Field, p: Numbers, _: Tensor) -> Field:
    """Folded inversions, repeated; how near the orbit comes to an axis."""
    nearest = torch.full_like(x, 4.0)
    for _step in range(5):
        square = (x * x + y * y).clamp(min=0.02)
        x, y = x.abs() / square - _between(0.5, 1.0, p[2]), y.abs() / square - _between(0.3, 0.9, p[3])
        nearest = torch.minimum(nearest, blend(x.abs(), radius(x, y), p[4]))
    return 1 - 3 * nearest.clamp(max=0.8)


def _spiral(x: Field, y: Field, p: Numbers, _: Tensor) -> Field:
    return sine(angle(x, y) * _whole(1, 7, p[2]) + _between(0.5, 3.0, p[3]) * radius(x, y) - p[0])


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
    "fold": lambda a, b, p: triangle(_between(0.25, 0.6, p[5]) * (a + 0.6 * b)),
    "bands": lambda a, b, p: blend(a, (2.5 * a + b).floor() / 2.5, 0.5 + 0.5 * p[5]),
    "wave": lambda a, b, p: sine(_between(0.4, 1.1, p[5]) * a + 0.35 * b),
}


@dataclass(frozen=True)
class Programs:
    """``n`` drawn programs: which parts each is made of, and their parameters."""

    warps: Int64[Tensor, "2 n"]
    patterns: Int64[Tensor, "3 n"]
    combination: Int64[Tensor, " n"]
    numbers: Float32[Tensor, "stages parameters n"]
    salt: Int32[Tensor, " n"]


def draw_programs(draws: Draws) -> Programs:
    """A program for every id of the draws."""
    stages = ("view", "warp 0", "warp 1", "pattern 0", "pattern 1", "pattern 2", "combine", "color 0", "color 1", "color 2")
    numbers = torch.stack([torch.stack(draws.uniform(stage, PARAMETERS)) for stage in stages]).float()
    # The plain view is left to one stage in four: a program without any warp is one of stripes and blobs.
    warps = torch.stack([draws.choice(f"which warp {k}", [plain] + [1] * (len(WARPS) - 1)) for k, plain in enumerate((1.5, 5))])
    patterns = torch.stack([draws.choice(f"which pattern {k}", [1] * len(PATTERNS)) for k in range(3)])
    (salt,) = draws.uniform("salt", 1)
    return Programs(
        warps, patterns, draws.choice("which combination", [1] * len(COMBINATIONS)), numbers, (salt * 2**31).long().to(torch.int32)
    )


def paint(programs: Programs, time: Float32[Tensor, " n"], size: int, device: torch.device) -> Float32[Tensor, "n 3 size size"]:
    """Images of programs, each at a time value, in [0, 1]: all in one pass, every part computed for those that are made of it."""
    moved = programs.numbers.clone()
    # Each phase has its own pace, given by a parameter beside it.
    moved[:, :2] = moved[:, :2] + time * (0.03 + 0.15 * moved[:, 6:8])
    moved = (moved - moved.floor()).to(device, non_blocking=True)[..., None, None]
    salt = programs.salt.to(device, non_blocking=True)[:, None, None]
    view, warp, pattern, combine, color = moved[0], moved[1:3], moved[3:6], moved[6], moved[7:10]

    line = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (2 / size) - 1
    zoom = 0.45 + 0.9 * view[2]
    x, y = _turn(zoom * line, zoom * line[:, None], view[3])
    x, y = x + 2 * view[0] * view[4] - view[4], y + 2 * view[1] * view[5] - view[5]
    for stage in range(2):
        x, y = _apply(list(WARPS.values()), programs.warps[stage], (x, y), (warp[stage], salt + 101 * stage))

    parts = list(PATTERNS.values())
    (a,) = _apply(parts, programs.patterns[0], (x, y), (pattern[0], salt + 211))
    # The second pattern lies on coordinates that the first has displaced: it bends around its shapes.
    bend = 0.25 * combine[2] * a
    (b,) = _apply(parts, programs.patterns[1], (1.3 * x + bend, 1.3 * y - bend), (pattern[1], salt + 307))
    scale = 1.2 + 2.0 * combine[3] * combine[3]
    (c,) = _apply(parts, programs.patterns[2], (scale * x + 0.7, scale * y - bend), (pattern[2], salt + 401))
    (value,) = _apply(list(COMBINATIONS.values()), programs.combination, (a, b), (combine,))
    return _colors(value, b, c, combine, color)


def _apply(
    parts: Sequence[Callable[..., Field | tuple[Field, Field]]],
    which: Int64[Tensor, " n"],
    coordinates: Sequence[Field],
    rest: Sequence[Tensor],
) -> list[Field]:
    """Every image's own part applied to it: one call for all the images of a part."""
    first = coordinates[0]
    used = which.unique().tolist()
    results: list[Field] = []
    for number in used:
        at = (which == number).nonzero()[:, 0].to(first.device, non_blocking=True)
        numbers, *salts = rest
        made = parts[number](*(c[at] for c in coordinates), numbers[:, at].unbind(0), *(s[at] for s in salts))
        made = made if isinstance(made, tuple) else (made,)
        results = results or [torch.empty_like(first) for _ in made]
        for result, values in zip(results, made, strict=True):
            result[at] = values
    return results


def _colors(value: Field, b: Field, c: Field, combine: Tensor, color: Tensor) -> Float32[Tensor, "n 3 h w"]:
    """Two cosine palettes along the value, the second where the detail says so; light from its slope."""
    spread = 0.15 + 0.45 * combine[4]
    mask = smoothstep(-0.2, 0.2, c + 1.2 * combine[6] - 0.6)
    relief = _slope(value + 0.5 * c, combine[7]) * (0.1 + 0.25 * combine[1])
    shade = 1 + relief.clamp(-0.6, 0.6) + 0.25 * (c.clamp(-1, 1) * (0.3 + combine[0]))
    channels = []
    for channel in range(3):
        p = color[channel]
        # The channels swing nearly together: otherwise every picture is a rainbow.
        tint, shadow = color[0][0] + 0.6 * (p[0] - 0.5), color[0][1] + 0.6 * (p[1] - 0.5)
        first = 0.5 + (0.2 + 0.3 * p[2]) * cosine(spread * (0.8 + 0.4 * p[3]) * value + tint)
        second = 0.5 + (0.2 + 0.3 * p[4]) * cosine(spread * (0.8 + 0.4 * p[5]) * (b + 0.4 * value) + shadow)
        channels.append(blend(first, second, mask) * shade)
    return torch.stack(channels, 1).clamp(0, 1)


def _slope(height: Field, direction: Tensor) -> Field:
    """How steeply a field rises along a direction, per 1/56 of the image's side; 0 at the last row and column."""
    across, down = torch.zeros_like(height), torch.zeros_like(height)
    across[..., :-1] = height[..., 1:] - height[..., :-1]
    down[..., :-1, :] = height[..., 1:, :] - height[..., :-1, :]
    return (across * cosine(direction) + down * sine(direction)) * (height.shape[-1] / 56)
