"""What the paper compares pseudo-motion with: MoSI clips with a task of their own, and video Perlin noise."""

from pseudomotion.train.comparators.mosi import make_mosi_task
from pseudomotion.train.comparators.perlin import PerlinClips

__all__ = ["PerlinClips", "make_mosi_task"]
