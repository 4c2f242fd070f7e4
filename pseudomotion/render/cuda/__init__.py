"""The fused renderer for CUDA devices: Triton kernels, and ``launch``, which fills their table and starts them.

Imports Triton, so nothing imports this package before a fused renderer is wanted.
"""

from pseudomotion.render.cuda.launch import render

__all__ = ["render"]
