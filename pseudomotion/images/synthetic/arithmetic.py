"""Functions of coordinates that round alike everywhere: only ``+ - * /``, ``sqrt``, ``floor``, and integers; see ``SyntheticSource``."""

import torch
from jaxtyping import Float32, Int32
from torch import Tensor

Field = Float32[Tensor, "*n h w"]
Cells = Int32[Tensor, "*n h w"]

_FARTHEST = 4096.0  # coordinates are clamped here: beyond, float32 cannot resolve a pattern
_HASH = (0x27D4EB2D, 0x165667B1, 0x2C1B3C6D, 0x297A2D39)


def sine(turns: Field) -> Field:
    """Sine of an angle in turns, to within 0.0011: a parabola, and a parabola of it."""
    x = turns - turns.round()
    arch = x * (8 - 16 * x.abs())
    return arch * (0.775 + 0.225 * arch.abs())


def cosine(turns: Field) -> Field:
    """Cosine of an angle in turns, to within 0.0011."""
    return sine(turns + 0.25)


def triangle(turns: Field) -> Field:
    """Triangle wave of period 1 between -1 and 1."""
    return 4 * (turns - turns.round()).abs() - 1


def angle(x: Field, y: Field) -> Field:
    """Angle of (x, y) in turns, from -0.5 to 0.5, to within 0.00004: a least-squares polynomial."""
    across, along = x.abs(), y.abs()
    slope = torch.minimum(across, along) / torch.maximum(across, along).clamp(min=1e-12)
    square = slope * slope
    eighth = slope * (0.159046 + square * (-0.0512903 + square * (0.0237109 - 0.0064977 * square)))
    quarter = torch.where(along > across, 0.25 - eighth, eighth)
    half = torch.where(x < 0, 0.5 - quarter, quarter)
    return torch.where(y < 0, -half, half)


def radius(x: Field, y: Field) -> Field:
    """Length of (x, y)."""
    return (x * x + y * y).sqrt()


def smoothstep(low: Tensor | float, high: Tensor | float, x: Field) -> Field:
    """0 below ``low``, 1 above ``high``, a cubic between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def lerp(a: Tensor | float, b: Tensor | float, weight: Tensor) -> Tensor:
    """Linear interpolation from ``a`` at weight 0 to ``b`` at weight 1. Not ``torch.lerp``, which may round otherwise at an array's end."""
    return a + (b - a) * weight


def integer_from(low: float, high: float, number: Tensor) -> Tensor:
    """An integer from ``low`` to ``high``, both included, by a number in [0, 1); of the number's dtype."""
    return (low + (high - low + 1) * number).floor()


def cell(x: Field) -> tuple[Cells, Field]:
    """Index of the unit cell, and the position in it from 0 to 1."""
    x = x.clamp(-_FARTHEST, _FARTHEST)
    floor = x.floor()
    return floor.to(torch.int32), x - floor


def hash_cells(ix: Cells, iy: Cells, salt: Int32[Tensor, "*#n #h #w"]) -> Cells:
    """24 pseudo-random bits of a cell; 32-bit products wrap around, as they should."""
    bits = ix * _HASH[0] + iy * _HASH[1] + salt
    bits = (bits ^ (bits >> 15)) * _HASH[2]
    bits = (bits ^ (bits >> 12)) * _HASH[3]
    return (bits ^ (bits >> 15)) & 0xFFFFFF


def first_half(bits: Cells) -> Field:
    """The lower 12 of 24 random bits, in [0, 1)."""
    return (bits & 0xFFF).float() * 2.0**-12


def second_half(bits: Cells) -> Field:
    """The upper 12 of 24 random bits, in [0, 1)."""
    return (bits >> 12).float() * 2.0**-12


def perlin(x: Field, y: Field, salt: Tensor) -> Field:
    """Gradient noise of one octave, about -1 to 1, with Perlin's quintic fade."""
    (ix, fx), (iy, fy) = cell(x), cell(y)
    u, v = (f * f * f * (f * (f * 6 - 15) + 10) for f in (fx, fy))

    def corner(dx: int, dy: int) -> Field:
        bits = hash_cells(ix + dx, iy + dy, salt)
        return (first_half(bits) - 0.5) * (fx - dx) + (second_half(bits) - 0.5) * (fy - dy)

    upper, lower = (lerp(corner(0, dy), corner(1, dy), u) for dy in (0, 1))
    return 2.8 * lerp(upper, lower, v)


def fbm(x: Field, y: Field, salt: Tensor) -> Field:
    """Fractional Brownian motion: three octaves of gradient noise, each at twice the frequency and half the amplitude; about -1 to 1."""
    total = perlin(x, y, salt)
    for octave in (1, 2):
        # Octaves are rotated against each other, so that their lattices do not line up.
        x, y = 1.6 * x - 1.2 * y + 5.3, 1.2 * x + 1.6 * y - 2.7
        total = total + perlin(x, y, salt + octave) * 0.5**octave
    return total


def worley(x: Field, y: Field, salt: Tensor) -> tuple[Field, Field, Field]:
    """Worley noise, one random site per cell: distances to the nearest and second nearest site, and a number in [0, 1) of the nearest."""
    (ix, fx), (iy, fy) = cell(x), cell(y)
    nearest = torch.full_like(fx, 8.0)
    second = nearest
    tag = torch.zeros_like(fx)
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            bits = hash_cells(ix + dx, iy + dy, salt)
            tx, ty = first_half(bits) + dx - fx, second_half(bits) + dy - fy
            distance = tx * tx + ty * ty
            closer = distance < nearest
            second = torch.minimum(second, torch.maximum(distance, nearest))
            tag = torch.where(closer, first_half(bits >> 5), tag)
            nearest = torch.minimum(nearest, distance)
    return nearest.sqrt(), second.sqrt(), tag
