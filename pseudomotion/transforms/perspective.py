"""Perspective: the frame's corners drift independently."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64

from pseudomotion import geometry
from pseudomotion.draws import Draws
from pseudomotion.transforms.base import Motion, Params, Range, Transform, View, allowed, between

NEAREST = 0.25  # smallest homogeneous denominator allowed in the frame, relative to that at its center
HALVINGS = 12  # corner moves are halved at most 11 times, then set to 0


@dataclass(frozen=True)
class Perspective(Transform):
    """Each frame is the previous frame under a constant homography, given by the displacements of the four corners.

    If a drawn homography would bring the horizon near the frame within T frames, its corner moves are halved until it does not. Source:
    section 3.2, item 6, and equation 1; the range is not from the paper.

    Args:
        distortion_scale: largest move of a corner per step along x and along y, as a fraction of half the frame's width and height.
            Drawn once per clip; each corner's move is then drawn uniformly up to it in either direction.

    """

    name: ClassVar[str] = "perspective"
    reads_previous: ClassVar[bool] = True
    distortion_scale: Range = allowed((0.04, 0.08), 0, 0.5)

    def make_params(self, draws: Draws) -> Params:
        """Draw the corners' moves as fractions of half the frame's sides, in [-1, 1], clockwise from the top left."""
        strength, *moves = draws.numbers(self.name, 9)
        strength = between(self.distortion_scale, strength)
        names = [f"{axis}{corner}" for corner in range(4) for axis in "xy"]
        return {name: strength * (2 * move - 1) for name, move in zip(names, moves, strict=True)}

    def make_plan(self, params: Params, view: View) -> Motion:
        """Frame 0 shows the first view; the homography then repeats at every step."""
        h, w = view.frame_size
        moves = np.stack([np.stack([params[f"x{corner}"], params[f"y{corner}"]], -1) for corner in range(4)], -2)  # (b, 4, 2)
        moves = moves * np.array([w / 2, h / 2], dtype=np.float64)
        shares = np.array([0.5**n for n in range(HALVINGS)] + [0.0], dtype=np.float64)
        candidates = self._homography(moves * shares[:, None, None, None], view)  # (HALVINGS + 1, b, 3, 3)
        first = self._keeps_away(candidates, view).argmax(0)
        return view.motion(view.then(candidates[first, np.arange(len(first))]))

    @staticmethod
    def _homography(moves: Float64[np.ndarray, "n b 4 2"], view: View) -> Float64[np.ndarray, "n b 3 3"]:
        """Homography that moves the frame's corners (outer pixel edges) by ``moves`` pixels."""
        h, w = view.frame_size
        edges = np.array([[0, 0], [w, 0], [w, h], [0, h]], dtype=np.float64) - 0.5
        step = geometry.matmul(geometry.unit_square_to(edges + moves), geometry.inverse(geometry.unit_square_to(edges)))
        return step / step[..., 2:, 2:]

    @staticmethod
    def _keeps_away(step: Float64[np.ndarray, "n b 3 3"], view: View) -> Bool[np.ndarray, "n b"]:
        """Whether all powers of the step up to T-1, and of its inverse, keep the horizon away from the frame."""
        nearest = np.full_like(step[..., 0, 0], np.inf)
        for way in (step, geometry.inverse(step)):
            last_row = way[..., 2:, :]
            for _ in range(view.num_frames - 1):
                nearest = np.minimum(nearest, geometry.denominators(last_row[..., 0, :], view.frame_size).min(-1))
                last_row = geometry.matmul(last_row, way)
        return nearest > NEAREST
