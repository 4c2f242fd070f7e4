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
    """Points (x, y) on a straight path at constant speed that stays between ``low`` and ``high``.

    Args:
        params: arrays ``(b,)``: ``direction`` in turns, from x towards y; ``speed`` in ``unit`` per step; ``x`` and ``y``, the position of
            the path within the bounds, in [0, 1].
        low: smallest (x, y).
        high: largest (x, y).
        unit: unit of the speed, in pixels.
        num_frames: T. A path too long for the bounds is shortened and keeps its direction.

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
    """A window of constant size moves over the source image in a straight line in any direction, and stays inside the image.

    Source: section 3.2, item 2; the ranges are not from the paper.

    Args:
        size: side of the window, as a fraction of the first view's side. At 1 there may be no room to move.
        speed: distance per step, as a fraction of the frame's shorter side. A path that is too long for the image is shortened.

    """

    name: ClassVar[str] = "sliding_window"
    size: Range = allowed((0.5, 0.75), 0.01, 1)
    speed: Range = allowed((0.01, 0.04), 0, 1)

    def make_params(self, draws: Draws) -> Params:
        """Draw size, speed, direction (in turns) and position of the path."""
        size, speed, direction, x, y = draws.numbers(self.name, 5)
        return {"size": between(self.size, size), "speed": between(self.speed, speed), "direction": direction, "x": x, "y": y}

    def make_plan(self, params: Params, view: View) -> Motion:
        """A window for every frame."""
        scale = view.scale * params["size"]
        low, high = view.limits(scale)
        centers = straight_path(params, low, high, scale * min(view.frame_size), view.num_frames)
        return view.motion(view.window(centers, np.repeat(scale[:, None], view.num_frames, 1)))
