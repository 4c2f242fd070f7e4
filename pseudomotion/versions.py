"""States of plans of earlier formats, converted to that of ``pseudomotion.plan``."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pseudomotion import outline

OLD = ("source", "homography", "color", "box", "opacity", "reads_previous")
BLEND = {"partner": "blend.partner", "partner_weight": "blend.weight", "partner_box": "blend.box", "partner_frames": "blend.frames"}


def from_version_1(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of version 1, in which the back was layer 0 of a stack, as one of version 2."""
    names = {*OLD, *BLEND, "transform", "source_size", "frame_size"}
    if set(state) != names:
        missing, unknown = sorted(names - set(state)), sorted(set(state) - names)
        raise ValueError(f"state must have the fields of a MotionPlan; missing: {missing}, unknown: {unknown}")
    homography, color, opacity, box = (state[name] for name in ("homography", "color", "opacity", "box"))
    if (opacity[:, 0] != 1).any():
        raise ValueError("state has a back with opacity below 1, which is no longer supported")
    new = {
        "version": torch.tensor(2, device="cpu"),
        "padding_mode": torch.tensor(0, device="cpu"),  # "zeros"
        "back.image": state["source"][:, 0],
        "back.reads_previous": state["reads_previous"],
        "back.motion.homography": homography[:, 0],
        "back.motion.color": color[:, 0],
        "back.motion.bend": homography[:, 0, :, :2, :0, None][..., :0],
        "layers.texture": state["source"][:, 1:],
        "layers.box": box[:, 1:],
        "layers.outline": box.new_tensor(outline.SHARP).expand(*box[:, 1:].shape[:2], -1),
        "layers.motion.homography": homography[:, 1:],
        "layers.motion.color": color[:, 1:],
        "layers.motion.bend": homography[:, 1:, :, :2, :0, None][..., :0],
        "layers.opacity": opacity[:, 1:],
        "transform": state["transform"],
        "image_size": state["source_size"],
        "frame_size": state["frame_size"],
    }
    if (state["partner_weight"] > 0).any():
        new |= {new_name: state[name] for name, new_name in BLEND.items()}
    return new
