"""CutMix: a box of another image moves over the image."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pseudomotion.draws import Draws
from pseudomotion.transforms.base import Motion, Params, Range, Transform, View, allowed, averaged, between
from pseudomotion.transforms.sliding_window import straight_path


@dataclass(frozen=True)
class CutMix(Transform):
    """The first view stands still. Over it, a box cut from the partner's image moves in a straight line and stays in the frame.

    By default the partner is another image of the batch, so, unlike other transforms, clips depend on which ids are in the batch. Source:
    section 3.2, item 8 ("move a small area of the image in the manner of Sliding Window"); the ranges are not from the paper.

    Args:
        size: width and height of the box, drawn independently, as a fraction of the frame's width and height.
        speed: distance per step, as a fraction of the frame's shorter side. A path that is too long for the frame is shortened.

    """

    name: ClassVar[str] = "cutmix"
    num_layers: ClassVar[int] = 1
    size: Range = allowed((0.3, 0.5), 0.01, 1)
    speed: Range = allowed((0.01, 0.04), 0, 1)

    def make_params(self, draws: Draws) -> Params:
        """Draw the box's size, its position in the partner's image, and its path over the frame."""
        width, height, from_x, from_y, speed, direction, x, y = draws.numbers(self.name, 8)
        return {
            "width": between(self.size, width),
            "height": between(self.size, height),
            "from_x": from_x,
            "from_y": from_y,
            "speed": between(self.speed, speed),
            "direction": direction,
            "x": x,
            "y": y,
        }

    def make_plan(self, params: Params, view: View) -> Motion:
        """Back: the first view. Layer: the box, at the first view's scale."""
        (image_h, image_w), (h, w) = view.image_size, view.frame_size
        frame = np.array([w, h], dtype=np.float64)
        image = np.array([image_w, image_h], dtype=np.float64)
        # The box's soft edge samples half a pixel beyond it, and pyramid levels average whole blocks; both must lie inside the image.
        margin = ((averaged(view.scale) + 1) / 2)[:, None]
        half = np.stack([params["width"], params["height"]], -1) * frame / 2 * view.scale[:, None]
        half = np.minimum(half, image / 2 - margin).clip(min=0)
        middle = (half + margin) + (image - 2 * (half + margin)) * np.stack([params["from_x"], params["from_y"]], -1) - 0.5
        in_frame = half / view.scale[:, None]
        path = straight_path(params, in_frame - 0.5, frame - in_frame - 0.5, np.full_like(view.scale, min(h, w)), view.num_frames)
        centered = path - np.array([(w - 1) / 2, (h - 1) / 2], dtype=np.float64)
        moving = view.window(middle[:, None] - centered * view.scale[:, None, None], np.repeat(view.scale[:, None], view.num_frames, 1))
        box = np.concatenate([middle - half, middle + half], -1)
        return dataclasses.replace(view.motion(view.still()), layers=view.layer(box, moving))
