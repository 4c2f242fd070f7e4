"""Pseudo-motion video clips from still images: "Data Collection-free Masked Video Modeling" (ECCV 2024)."""

from pseudomotion.mix import Mixup, VideoMix
from pseudomotion.plan import MotionPlan
from pseudomotion.pmg import PMG
from pseudomotion.pmg_aug import PMGAug
from pseudomotion.transforms import EXTRA_TRANSFORMS, TRANSFORMS

__version__ = "0.1.0"

__all__ = ["EXTRA_TRANSFORMS", "PMG", "TRANSFORMS", "Mixup", "MotionPlan", "PMGAug", "VideoMix"]
