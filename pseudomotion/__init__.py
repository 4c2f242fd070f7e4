"""Pseudo-motion video clips from still images: "Data Collection-free Masked Video Modeling" (ECCV 2024).

Public names are imported on first use, so that commands answer ``--help`` without waiting for torch.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from pseudomotion.dataset import PseudoMotionDataset
    from pseudomotion.mix import Mixup, VideoMix
    from pseudomotion.objects import Objects
    from pseudomotion.plan import MotionPlan
    from pseudomotion.pmg import PMG
    from pseudomotion.pmg_aug import PMGAug
    from pseudomotion.transform_v2 import PseudoMotion
    from pseudomotion.transforms import EXTRA_TRANSFORMS, TRANSFORMS

__version__ = "0.1.0"

__all__ = [
    "EXTRA_TRANSFORMS",
    "PMG",
    "TRANSFORMS",
    "Mixup",
    "MotionPlan",
    "Objects",
    "PMGAug",
    "PseudoMotion",
    "PseudoMotionDataset",
    "VideoMix",
]

_HOMES = {
    "EXTRA_TRANSFORMS": "transforms",
    "PMG": "pmg",
    "TRANSFORMS": "transforms",
    "Mixup": "mix",
    "MotionPlan": "plan",
    "Objects": "objects",
    "PMGAug": "pmg_aug",
    "PseudoMotion": "transform_v2",
    "PseudoMotionDataset": "dataset",
    "VideoMix": "mix",
}
_SUBPACKAGES = ("baselines", "export", "images", "labels", "render", "transforms", "video")

if not typing.TYPE_CHECKING:  # a type checker reads the imports above instead

    def __getattr__(name):
        """Import a public name, or a public subpackage, on first use (PEP 562)."""
        if name in _SUBPACKAGES:
            return importlib.import_module(f"{__name__}.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value

    def __dir__():
        return sorted({*globals(), *_HOMES, *_SUBPACKAGES})
