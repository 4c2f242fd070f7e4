"""Fade: the image gradually becomes visible or invisible."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pseudomotion import color
from pseudomotion.draws import Draws
from pseudomotion.transforms.base import Motion, Params, Range, Transform, View, allowed, between, steps


@dataclass(frozen=True)
class Fade(Transform):
    """Brightness goes from 1 towards 0 (fade out) or from 0 towards 1 (fade in), equally likely, by the same amount at every step.

    Source: section 3.2, item 4; the range is not from the paper.

    Args:
        depth: total change of brightness by the last frame, in [0, 1].

    """

    name: ClassVar[str] = "fade"
    needs_rgb: ClassVar[bool] = True
    depth: Range = allowed((0.7, 1.0), 0, 1)

    def make_params(self, draws: Draws) -> Params:
        """Draw the depth, and the direction: fade out below 0.5, else fade in."""
        depth, fade_in = draws.numbers(self.name, 2)
        return {"depth": between(self.depth, depth), "in": fade_in}

    def make_plan(self, params: Params, view: View) -> Motion:
        """The first view in every frame, under a varying gain."""
        way = params["depth"][:, None] * (steps(view.num_frames) / max(view.num_frames - 1, 1))
        return view.motion(view.still(), color.gain(np.where(params["in"][:, None] < 0.5, 1 - way, way)))
