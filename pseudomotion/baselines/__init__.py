"""Baselines of the paper: other ways to make labeled clips, from still images or from noise (its Table 10)."""

from pseudomotion.baselines.mosi import MoSI
from pseudomotion.baselines.perlin_video import PerlinVideo

__all__ = ["MoSI", "PerlinVideo"]
