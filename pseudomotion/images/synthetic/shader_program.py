"""Drawing and evaluating shader programs: two warps, three patterns, a combination, two palettes, and a relief."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int32, Int64
from torch import Tensor

from pseudomotion.draws import Draws
from pseudomotion.images.synthetic.arithmetic import Field, cosine, lerp, sine, smoothstep
from pseudomotion.images.synthetic.shader_parts import COMBINATIONS, PATTERNS, WARPS, turn

PARAMETERS = 8  # per stage


@dataclass(frozen=True)
class Programs:
    """``n`` programs: indices of the parts that each consists of, and their parameters."""

    warps: Int64[Tensor, "2 n"]
    patterns: Int64[Tensor, "3 n"]
    combination: Int64[Tensor, " n"]
    numbers: Float32[Tensor, "stages parameters n"]
    salt: Int32[Tensor, " n"]


def draw_programs(draws: Draws) -> Programs:
    """One program per id."""
    stages = ("view", "warp 0", "warp 1", "pattern 0", "pattern 1", "pattern 2", "combine", "color 0", "color 1", "color 2")
    numbers = torch.stack([torch.stack(draws.uniform(stage, PARAMETERS)) for stage in stages]).float()
    # The first part leaves the plane as it is, with a probability of its own: without any warp, programs are stripes and blobs.
    warps = torch.stack([draws.choice(f"which warp {k}", [plain] + [1] * (len(WARPS) - 1)) for k, plain in enumerate((1.5, 5))])
    patterns = torch.stack([draws.choice(f"which pattern {k}", [1] * len(PATTERNS)) for k in range(3)])
    (salt,) = draws.uniform("salt", 1)
    return Programs(
        warps, patterns, draws.choice("which combination", [1] * len(COMBINATIONS)), numbers, (salt * 2**31).long().to(torch.int32)
    )


def paint(programs: Programs, time: Float32[Tensor, " n"], size: int, device: torch.device) -> Float32[Tensor, "n 3 size size"]:
    """Images in [0, 1] of programs, each at a time in seconds; every part is evaluated once, for all programs that have it."""
    moved = programs.numbers.clone()
    # The first two parameters of a stage are phases; two others are their speeds.
    moved[:, :2] = moved[:, :2] + time * (0.03 + 0.15 * moved[:, 6:8])
    moved = (moved - moved.floor()).to(device, non_blocking=True)[..., None, None]
    salt = programs.salt.to(device, non_blocking=True)[:, None, None]
    view, warp, pattern, combine, color = moved[0], moved[1:3], moved[3:6], moved[6], moved[7:10]

    line = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (2 / size) - 1
    zoom = 0.45 + 0.9 * view[2]
    across, down = ((zoom * part).expand(-1, size, size) for part in (line, line[:, None]))
    x, y = turn(across, down, view[3])
    x, y = x + 2 * view[0] * view[4] - view[4], y + 2 * view[1] * view[5] - view[5]
    for stage in range(2):
        x, y = _apply(list(WARPS.values()), programs.warps[stage], (x, y), (warp[stage], salt + 101 * stage))

    parts = list(PATTERNS.values())
    (a,) = _apply(parts, programs.patterns[0], (x, y), (pattern[0], salt + 211))
    # The first pattern displaces the coordinates of the second, which bends around its shapes.
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
    """Apply its own part to every image: one call per part, for all its images."""
    first = coordinates[0]
    results: list[Field] = []
    for number in sorted(set(which.tolist())):
        at = (which == number).nonzero()[:, 0].to(first.device, non_blocking=True)
        numbers, *salts = rest
        made = parts[number](*(c[at] for c in coordinates), numbers[:, at].unbind(0), *(s[at] for s in salts))
        made = made if isinstance(made, tuple) else (made,)
        results = results or [torch.empty_like(first) for _ in made]
        for result, values in zip(results, made, strict=True):
            result[at] = values
    return results


def _colors(value: Field, b: Field, c: Field, combine: Tensor, color: Tensor) -> Float32[Tensor, "n 3 h w"]:
    """Two cosine palettes over the value, mixed by the third pattern ``c``; shaded by the slope."""
    spread = 0.15 + 0.45 * combine[4]
    mask = smoothstep(-0.2, 0.2, c + 1.2 * combine[6] - 0.6)
    relief = _slope(value + 0.5 * c, combine[7]) * (0.1 + 0.25 * combine[1])
    shade = 1 + relief.clamp(-0.6, 0.6) + 0.25 * (c.clamp(-1, 1) * (0.3 + combine[0]))
    channels = []
    for channel in range(3):
        p = color[channel]
        # The channels vary nearly in phase: otherwise every image is a rainbow.
        tint, shadow = color[0][0] + 0.6 * (p[0] - 0.5), color[0][1] + 0.6 * (p[1] - 0.5)
        first = 0.5 + (0.2 + 0.3 * p[2]) * cosine(spread * (0.8 + 0.4 * p[3]) * value + tint)
        second = 0.5 + (0.2 + 0.3 * p[4]) * cosine(spread * (0.8 + 0.4 * p[5]) * (b + 0.4 * value) + shadow)
        channels.append(lerp(first, second, mask) * shade)
    return torch.stack(channels, 1).clamp(0, 1)


def _slope(height: Field, direction: Tensor) -> Field:
    """Slope of a field along a direction in turns, per 1/56 of the image's side; 0 in the last row and column."""
    across, down = torch.zeros_like(height), torch.zeros_like(height)
    across[..., :-1] = height[..., 1:] - height[..., :-1]
    down[..., :-1, :] = height[..., 1:, :] - height[..., :-1, :]
    return (across * cosine(direction) + down * sine(direction)) * (height.shape[-1] / 56)
