"""Perspective: the frame's corners drift, each its own way."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64

from pseudomotion import geometry
from pseudomotion.draws import Draws
from pseudomotion.transforms.base import Motion, Params, Range, Transform, View, allowed, between

NEAREST = 0.25  # least homogeneous denominator in the frame, as a multiple of that at its center
HALVINGS = 12


@dataclass(frozen=True)
class Perspective(Transform):
    """Each frame is the previous one under a constant homography, given by where the four corners go.

    A drawn homography that would bring the horizon near the frame within the T steps is halved until it does not. Source: section 3.2,
    item 6, and equation 1; the range is not from the paper.

    Args:
        distortion_scale: how far a corner moves per step along x and along y at most, as a share of half the frame's width and height.
            Drawn once per clip; each corner's move is then uniform within it.

    """

    name: ClassVar[str] = "perspective"
    reads_previous: ClassVar[bool] = True
    distortion_scale: Range = allowed((0.04, 0.08), 0, 0.5)

    def make_params(self, draws: Draws) -> Params:
        """Draw the corners' moves, in [-1, 1] of half the frame's sides, clockwise from the top left."""
        strength, *moves = draws.numbers(self.name, 9)
        strength = between(self.distortion_scale, strength)
        names = [f"{axis}{corner}" for corner in range(4) for axis in "xy"]
        return {name: strength * (2 * move - 1) for name, move in zip(names, moves, strict=True)}

    def make_plan(self, params: Params, view: View) -> Motion:
        """The first view, then the constant homography."""
        h, w = view.frame_size
        moves = np.stack([np.stack([params[f"x{corner}"], params[f"y{corner}"]], -1) for corner in range(4)], -2)
        moves = moves * np.array([w / 2, h / 2], dtype=np.float64)
        shares = np.array([0.5**n for n in range(HALVINGS)] + [0.0], dtype=np.float64)
        candidates = self._homography(moves * shares[:, None, None, None], view)
        first = self._keeps_away(candidates, view).argmax(0)
        return view.motion(view.then(candidates[first, np.arange(len(first))]))

    @staticmethod
    def _homography(moves: Float64[np.ndarray, "n b 4 2"], view: View) -> Float64[np.ndarray, "n b 3 3"]:
        """Homography that moves the frame's outer corners (pixel edges) by ``moves`` pixels."""
        h, w = view.frame_size
        edges = np.array([[0, 0], [w, 0], [w, h], [0, h]], dtype=np.float64) - 0.5
        step = geometry.matmul(geometry.unit_square_to(edges + moves), geometry.inverse(geometry.unit_square_to(edges)))
        return step / step[..., 2:, 2:]

    @staticmethod
    def _keeps_away(step: Float64[np.ndarray, "n b 3 3"], view: View) -> Bool[np.ndarray, "n b"]:
        """Whether no power of the step, up to T-1 and in either direction, brings the horizon near the frame."""
        nearest = np.full_like(step[..., 0, 0], np.inf)
        for way in (step, geometry.inverse(step)):
            last_row = way[..., 2:, :]
            for _ in range(view.num_frames - 1):
                nearest = np.minimum(nearest, geometry.denominators(last_row[..., 0, :], view.frame_size).min(-1))
                last_row = geometry.matmul(last_row, way)
        return nearest > NEAREST
