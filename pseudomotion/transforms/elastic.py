"""Elastic: the image bends like rubber."""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from pseudomotion import checks, spline
from pseudomotion.draws import Draws
from pseudomotion.geometry import sincos
from pseudomotion.transforms.base import Motion, Params, Range, Transform, View, allowed, between, steps

FEWEST_POINTS = 3  # least G; a coarser grid hardly bends anything
WAVES = 2  # plane waves whose sum bends along each axis
DRIFT = 0.25  # wavelengths per clip that waves travel which do not travel otherwise, so that no two frames are alike


@dataclass(frozen=True)
class Elastic(Transform):
    """The image bends without folding: the bend swells and dies away, swings to and fro, or travels, equally likely.

    Along each axis, the control points of a cubic B-spline (``pseudomotion.spline``) follow the sum of two plane waves. A travelling bend
    swells in the first quarter of the clip, so that frame 0 always shows the view unbent. The view is a little smaller than the first
    view, so that no bend reads outside it. Not from the paper.

    Args:
        amplitude: greatest displacement of a control point, in cells, ``grid`` of which lie along each side of the view; at most 0.48,
            above which the image could fold.
        cycles: number of swings, or of wavelengths travelled, per clip; without effect on bends that swell and die away.
        waves: number of wavelengths across the view, for each wave; a grid shows at most half as many as it has points.
        grid: G, control points per axis, from 3 to 8: fewer bend farther and more smoothly. All bends of a generator must have the same.

    Raises:
        TypeError, ValueError: for a grid that is no integer from 3 to 8, and as ``Transform`` says.

    """

    name: ClassVar[str] = "elastic"
    amplitude: Range = allowed((0.2, 0.4), 0, spline.LARGEST)
    cycles: Range = allowed((0.5, 1.5), 0, 100)
    waves: Range = allowed((0.5, 1.5), 0, 3)
    grid: int = 6

    def __post_init__(self) -> None:
        """Check the ranges and the grid."""
        super().__post_init__()
        object.__setattr__(self, "grid", checks.bounded_int("Elastic.grid", self.grid, FEWEST_POINTS, spline.MOST_POINTS))

    def make_params(self, draws: Draws) -> Params:
        """Draw strength, kind, number of swings, and every wave's number of wavelengths, direction and phase (in turns)."""
        amplitude, cycles, kind, *rest = draws.numbers(self.name, 3 + 3 * 2 * WAVES)
        params = {"amplitude": between(self.amplitude, amplitude), "cycles": between(self.cycles, cycles), "kind": kind}
        for n in range(2 * WAVES):
            length, direction, phase = rest[3 * n : 3 * n + 3]
            params |= {f"waves_{n}": between(self.waves, length), f"direction{n}": direction, f"phase{n}": phase}
        return params

    def make_plan(self, params: Params, view: View) -> Motion:
        """A view that stands still, under control points that move."""
        side = min(view.frame_size)
        scale = view.scale * (1 - 2 * params["amplitude"] / self.grid * side / max(side - 1, 1)).clip(min=0.05)
        still = dataclasses.replace(view, scale=scale)
        window = (view.scale[:, None] * (view.frame_size[1], view.frame_size[0])) / (view.image_size[1], view.image_size[0])
        size = (params["amplitude"][:, None] * window.clip(max=1))[:, None, :, None, None]  # (b, 1, 2, 1, 1)
        return dataclasses.replace(still.motion(still.still()), bend=size * self._bends(params, view.num_frames, self.grid))

    @staticmethod
    def _bends(params: Params, num_frames: int, grid: int) -> Float64[np.ndarray, "b T 2 G G"]:
        """Control points in units of the amplitude."""
        turns = steps(num_frames) / max(num_frames - 1, 1)  # (T,)
        half, _ = sincos(math.pi * turns)
        swing, _ = sincos(2 * math.pi * params["cycles"][:, None] * turns)
        kind = params["kind"][:, None]
        envelope = np.where(kind < 1 / 3, half, np.where(kind < 2 / 3, swing, (4 * turns).clip(max=1)))  # (b, T)
        travelled = np.where(kind < 2 / 3, DRIFT, params["cycles"][:, None]) * turns  # (b, T)
        at = (np.arange(grid) + 0.5) / grid
        bends = np.zeros((*envelope.shape, 2, grid, grid))
        for n in range(2 * WAVES):
            sine, cosine = sincos(2 * math.pi * params[f"direction{n}"])
            x, y = ((params[f"waves_{n}"] * part)[:, None, None, None] for part in (cosine, sine))
            phase = params[f"phase{n}"][:, None] - travelled
            wave, _ = sincos(2 * math.pi * (x * at + y * at[:, None] + phase[..., None, None]))
            bends[:, :, n % 2] += wave / WAVES
        return envelope[..., None, None, None] * bends
