"""Affine: the same small rotation, scaling, shear and translation at every step."""

from dataclasses import dataclass
from typing import ClassVar

from pseudomotion import geometry
from pseudomotion.draws import Draws
from pseudomotion.transforms.base import Motion, Params, Range, Transform, View, allowed, between


@dataclass(frozen=True)
class Affine(Transform):
    """Each frame is the previous frame under a constant affine map about the frame's center.

    Source: section 3.2, item 5, and equation 1; the ranges are not from the paper. All ranges are per step.

    Args:
        degrees: rotation in degrees, from x towards y (clockwise on the screen).
        translate: shift along x and along y, drawn independently, as a fraction of the frame's width and height.
        scale: scaling factor.
        shear: shear angles along x and along y, drawn independently, in degrees.

    """

    name: ClassVar[str] = "affine"
    reads_previous: ClassVar[bool] = True
    degrees: Range = allowed((-3.0, 3.0), -180, 180)
    translate: Range = allowed((-0.02, 0.02), -1, 1)
    scale: Range = allowed((0.98, 1.02), 0.1, 10)
    shear: Range = allowed((-1.0, 1.0), -45, 45)

    def make_params(self, draws: Draws) -> Params:
        """Draw one value for every parameter."""
        numbers = draws.numbers(self.name, 6)
        ranges = {
            "degrees": self.degrees,
            "translate_x": self.translate,
            "translate_y": self.translate,
            "scale": self.scale,
            "shear_x": self.shear,
            "shear_y": self.shear,
        }
        return {name: between(bounds, number) for (name, bounds), number in zip(ranges.items(), numbers, strict=True)}

    def make_plan(self, params: Params, view: View) -> Motion:
        """Frame 0 shows the first view; the map then repeats at every step."""
        h, w = view.frame_size
        turn = geometry.rotation_scale_shear(params["degrees"], params["scale"], params["shear_x"], params["shear_y"])
        shift = geometry.translation(params["translate_x"] * w, params["translate_y"] * h)
        return view.motion(view.then(geometry.matmul(shift, geometry.about(((w - 1) / 2, (h - 1) / 2), turn))))
