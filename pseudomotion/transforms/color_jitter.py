"""Color jitter: the same small color change at every step."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pseudomotion import color
from pseudomotion.draws import Draws
from pseudomotion.transforms.base import Motion, Params, Range, Transform, View, allowed, between


@dataclass(frozen=True)
class ColorJitter(Transform):
    """Each frame is the previous frame under a constant affine color map: brightness, contrast, saturation, then hue.

    Source: section 3.2, item 7, and equation 1; the ranges are not from the paper. All ranges are per step. ``pseudomotion.color``
    describes how the maps differ from torchvision's.

    Args:
        brightness: factor on every channel.
        contrast: factor on the distance from mid-gray 0.5.
        saturation: factor on the distance from the pixel's own luma.
        hue: rotation about the gray axis, in turns (0.5 is the opposite color).

    """

    name: ClassVar[str] = "color_jitter"
    reads_previous: ClassVar[bool] = True
    needs_rgb: ClassVar[bool] = True
    brightness: Range = allowed((0.97, 1.03), 0, 10)
    contrast: Range = allowed((0.97, 1.03), 0, 10)
    saturation: Range = allowed((0.95, 1.05), 0, 10)
    hue: Range = allowed((-0.03, 0.03), -0.5, 0.5)

    def make_params(self, draws: Draws) -> Params:
        """Draw one value for every parameter."""
        brightness, contrast, saturation, hue = draws.numbers(self.name, 4)
        return {
            "brightness": between(self.brightness, brightness),
            "contrast": between(self.contrast, contrast),
            "saturation": between(self.saturation, saturation),
            "hue": between(self.hue, hue),
        }

    def make_plan(self, params: Params, view: View) -> Motion:
        """Frame 0 shows the first view in its own colors; the color map then repeats at every step."""
        step = color.compose(color.contrast(params["contrast"]), color.gain(params["brightness"]))
        step = color.compose(color.hue(params["hue"]), color.compose(color.saturation(params["saturation"]), step))
        colors = np.repeat(step[:, None], view.num_frames, 1)
        colors[:, 0] = color.IDENTITY
        return view.motion(view.then(np.broadcast_to(np.eye(3), (len(step), 3, 3))), colors)
