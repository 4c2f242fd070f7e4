"""Sliding window: a window of constant size moves over the source image."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from pseudomotion.draws import Draws
from pseudomotion.geometry import sincos
from pseudomotion.transforms.base import Motion, Params, Range, Transform, View, allowed, between, steps


def straight_path(
    params: Params, low: Float64[np.ndarray, "b 2"], high: Float64[np.ndarray, "b 2"], unit: Float64[np.ndarray, " b"], num_frames: int
) -> Float64[np.ndarray, "b T 2"]:
    """Points (x, y) on a straight line at constant speed that stays between ``low`` and ``high``.

    ``params`` holds ``direction`` (turns, from x towards y), ``speed`` (``unit`` per step) and the place of the path, ``x`` and ``y`` in
    [0, 1]. A path too long for the room it has becomes shorter, and keeps its direction.
    """
    sine, cosine = sincos(params["direction"] * (2 * math.pi))
    travel = np.stack([cosine, sine], -1) * (params["speed"] * unit * (num_frames - 1))[:, None]
    room = high - low
    fits = np.divide(room, np.abs(travel), out=np.ones_like(room), where=np.abs(travel) > room).min(-1, keepdims=True)
    travel = travel * fits
    start = low + np.abs(travel.clip(max=0)) + (room - np.abs(travel)) * np.stack([params["x"], params["y"]], -1)
    moved = steps(num_frames)[:, None] / max(num_frames - 1, 1)
    return start[:, None] + moved * travel[:, None]


@dataclass(frozen=True)
class SlidingWindow(Transform):
    """A window of constant size moves over the source image along a straight line in any direction, and stays inside it.

    Source: section 3.2, item 2; the ranges are not from the paper.

    Args:
        size: side of the window, as a share of the first view's side, in (0, 1]. At 1 on an image without room to spare nothing moves.
        speed: distance per step, as a share of the frame's shorter side. A path too long for the image is shortened.

    """

    name: ClassVar[str] = "sliding_window"
    size: Range = allowed((0.5, 0.75), 0.01, 1)
    speed: Range = allowed((0.01, 0.04), 0, 1)

    def make_params(self, draws: Draws) -> Params:
        """Draw size, speed, direction (turns) and place."""
        size, speed, direction, x, y = draws.numbers(self.name, 5)
        return {"size": between(self.size, size), "speed": between(self.speed, speed), "direction": direction, "x": x, "y": y}

    def make_plan(self, params: Params, view: View) -> Motion:
        """A window on every frame."""
        scale = view.scale * params["size"]
        low, high = view.limits(scale)
        centers = straight_path(params, low, high, scale * min(view.frame_size), view.num_frames)
        return view.motion(view.window(centers, np.repeat(scale[:, None], view.num_frames, 1)))
