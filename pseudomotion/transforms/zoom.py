"""Zoom: a window grows or shrinks."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pseudomotion.draws import Draws
from pseudomotion.transforms.base import Motion, Params, Range, Transform, View, allowed, between


@dataclass(frozen=True)
class Zoom(Transform):
    """A window of the source image shrinks (zoom in) or grows (zoom out), equally likely, by a constant ratio per step.

    The largest window is the first view; the others lie inside it and share a drawn fixed point. Source: section 3.2, item 3; the range
    is not from the paper.

    Args:
        ratio: ratio of the window's sides in successive frames, at least 1. Fifteen steps of 1.05 multiply to 2.08.

    """

    name: ClassVar[str] = "zoom"
    ratio: Range = allowed((1.025, 1.05), 1, 2)

    def make_params(self, draws: Draws) -> Params:
        """Draw the ratio, the direction (zoom in below 0.5, else out), and the fixed point as a fraction of the frame."""
        ratio, out, x, y = draws.numbers(self.name, 4)
        return {"ratio": between(self.ratio, ratio), "out": out, "x": x, "y": y}

    def make_plan(self, params: Params, view: View) -> Motion:
        """A window for every frame."""
        powers = np.ones((len(params["ratio"]), view.num_frames))
        for t in range(1, view.num_frames):
            powers[:, t] = powers[:, t - 1] / params["ratio"]
        powers = np.where(params["out"][:, None] < 0.5, powers, powers[:, ::-1])
        scale = view.scale[:, None] * powers
        h, w = view.frame_size
        fixed = np.stack([(params["x"] - 0.5) * (w - 1), (params["y"] - 0.5) * (h - 1)], -1)
        center = view.center[:, None] + (view.scale[:, None] - scale)[..., None] * fixed[:, None]
        return view.motion(view.window(center, scale))
