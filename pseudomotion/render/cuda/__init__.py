"""The fused renderer for CUDA devices.

``plans`` packs a plan into a table (layout: ``table``). ``launch`` launches the kernels in ``clips``, which call the functions in
``pixels`` for each tile of pixels. This package imports Triton, so it is imported only when the fused renderer is used.
"""

from pseudomotion.render.cuda.launch import pack_ahead, render, run

__all__ = ["pack_ahead", "render", "run"]
