"""What the paper compares with: other ways to make labelled clips from still images or from nothing (its Table 10)."""

from pseudomotion.baselines.mosi import MoSI
from pseudomotion.baselines.perlin_video import PerlinVideo

__all__ = ["MoSI", "PerlinVideo"]
