"""What is known exactly about the motion of a clip: pure functions of its plan, batched, on the plan's device."""

from pseudomotion.labels.colors import flow_to_rgb
from pseudomotion.labels.differences import Halves, frame_difference, split_by_difference
from pseudomotion.labels.mixing import MixedLabels, mix_labels, unmixed
from pseudomotion.labels.motion import DisplacementStats, displacement_stats, flow, occlusion, tracks
from pseudomotion.labels.patches import PatchCorrespondence, patch_correspondence
from pseudomotion.labels.warp import WarpedLabels, warp_labels

__all__ = [
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
