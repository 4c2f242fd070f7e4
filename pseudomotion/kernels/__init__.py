"""Triton kernels of the fused renderer; ``pseudomotion.render.fused`` fills their table and launches them.

Imports Triton, so nothing imports this package before a fused renderer is wanted.
"""

from pseudomotion.kernels.clips import halve, paint_clips, step_clips

__all__ = ["halve", "paint_clips", "step_clips"]
