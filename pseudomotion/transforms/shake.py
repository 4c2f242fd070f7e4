"""Shake: a hand-held camera."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pseudomotion import geometry
from pseudomotion.draws import Draws
from pseudomotion.transforms.base import Motion, Params, Range, Transform, View, allowed, between, steps

SINES = 3  # slow ones, and as many fast ones, for each coordinate of a corner
SLOW, FAST = (0.5, 2.0), (4.0, 8.0)  # periods per clip


@dataclass(frozen=True)
class Shake(Transform):
    """A hand-held camera: each of the view's four corners moves by slow and fast sines along x and along y, and stays inside the view.

    Every coordinate is the sum of three slow sines of 0.5 to 2 periods per clip and three fast ones of 4 to 8, as in TAPNext++
    (``tapnet``, 2026), whose largest moves are the upper ends of the default ranges. Not from the paper.

    Args:
        slow: largest move of a corner by slow sines, to either side of its middle position, as a fraction of the view's sides.
        fast: largest move of a corner by fast sines, likewise.

    """

    name: ClassVar[str] = "shake"
    slow: Range = allowed((0.02, 0.05), 0, 0.15)
    fast: Range = allowed((0.0, 0.02), 0, 0.05)

    def make_params(self, draws: Draws) -> Params:
        """Draw both strengths; amplitude, frequency and phase of every sine are drawn numbers in (0, 1)."""
        slow, fast, *rest = draws.numbers(self.name, 2 + 8 * 2 * SINES * 3)
        numbers = {f"sine{n}": number for n, number in enumerate(rest)}
        return {"slow": between(self.slow, slow), "fast": between(self.fast, fast), **numbers}

    def make_plan(self, params: Params, view: View) -> Motion:
        """Homographies of the quadrilaterals seen, which every frame reads from the image."""
        turns = steps(view.num_frames) / max(view.num_frames - 1, 1)  # (T,)
        numbers = np.stack([params[f"sine{n}"] for n in range(8 * 2 * SINES * 3)], -1).reshape(-1, 4, 2, 2, SINES, 3)
        inward = np.zeros((len(view.scale), view.num_frames, 4, 2))
        for speed, (name, (low, high)) in enumerate((("slow", SLOW), ("fast", FAST))):
            amplitude, frequency, phase = np.moveaxis(numbers[:, None, :, :, speed], -1, 0)  # (b, 1, 4, 2, SINES)
            sine, _ = geometry.sincos(2 * math.pi * ((low + (high - low) * frequency) * turns[:, None, None, None] + phase))
            # A weighted mean of sines, shifted by 1: a corner never leaves the view.
            total, waves = (n[..., 0] + n[..., 1] + n[..., 2] for n in (amplitude, amplitude * sine))
            inward += params[name][:, None, None, None] * (1 + waves / total)
        h, w = view.frame_size
        sides = np.array([max(w - 1, 1), max(h - 1, 1)], dtype=np.float64)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float64)
        seen = (corners + inward * (1 - 2 * corners)) * sides  # (b, T, 4, 2): in pixels of the first view
        whole = geometry.unit_square_to(corners * sides)
        home = geometry.matmul(whole, geometry.inverse(geometry.unit_square_to(seen)))
        home = home / home[..., 2:, 2:]
        return view.motion(geometry.matmul(home, view.still()))
