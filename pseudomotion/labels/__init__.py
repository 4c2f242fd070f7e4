"""What is known exactly about the motion of a clip: pure functions of its plan, batched, on the plan's device.

A new label is a function of a plan and a size in a file of its own, and an entry in ``LABELS``.
"""

from collections.abc import Callable
from typing import Any

from pseudomotion.labels.colors import flow_to_rgb
from pseudomotion.labels.differences import Halves, frame_difference, split_by_difference
from pseudomotion.labels.mixing import MixedLabels, mix_labels, unmixed
from pseudomotion.labels.motion import DisplacementStats, displacement_stats, flow, occlusion, tracks
from pseudomotion.labels.patches import PatchCorrespondence, patch_correspondence
from pseudomotion.labels.warp import WarpedLabels, warp_labels

# Labels that need nothing but ``(plan, size)``; ``size`` is that of the frames they are for, None for the plan's own.
LABELS: dict[str, Callable[..., Any]] = {
    "flow": flow,
    "occlusion": occlusion,
    "patch_correspondence": patch_correspondence,
}

__all__ = [
    "LABELS",
    "DisplacementStats",
    "Halves",
    "MixedLabels",
    "PatchCorrespondence",
    "WarpedLabels",
    "displacement_stats",
    "flow",
    "flow_to_rgb",
    "frame_difference",
    "mix_labels",
    "occlusion",
    "patch_correspondence",
    "split_by_difference",
    "tracks",
    "unmixed",
    "warp_labels",
]
