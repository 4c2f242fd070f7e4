"""Exact motion labels of clips: pure, batched functions of the plan, computed on the plan's device.

A new label is a function ``(plan, size)`` in a file of its own, with its import and its name in ``LABELS`` and ``__all__`` here.
"""

from pseudomotion.labels.colors import flow_to_rgb
from pseudomotion.labels.differences import Halves, frame_difference, split_by_difference
from pseudomotion.labels.mixing import MixedLabels, mix_labels, unmixed
from pseudomotion.labels.motion import DisplacementStats, displacement_stats, flow, occlusion, tracks
from pseudomotion.labels.objects import Boxes, boxes, depth_order, instances
from pseudomotion.labels.patches import PatchCorrespondence, patch_correspondence
from pseudomotion.labels.warp import WarpedLabels, warp_labels

# Labels that can be called as ``label(plan, size)``; ``size`` is the frame size of the labels, None for the plan's own.
LABELS = {
    "flow": flow,
    "instances": instances,
    "occlusion": occlusion,
    "patch_correspondence": patch_correspondence,
}

__all__ = [
    "LABELS",
    "Boxes",
    "DisplacementStats",
    "Halves",
    "MixedLabels",
    "PatchCorrespondence",
    "WarpedLabels",
    "boxes",
    "depth_order",
    "displacement_stats",
    "flow",
    "flow_to_rgb",
    "frame_difference",
    "instances",
    "mix_labels",
    "occlusion",
    "patch_correspondence",
    "split_by_difference",
    "tracks",
    "unmixed",
    "warp_labels",
]
