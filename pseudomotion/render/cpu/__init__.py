"""The fused renderer for CPUs: from images to finished clips in one pass, compiled by LLVM for the processor at hand.

Imports llvmlite, so nothing imports this package before a renderer is chosen.
"""

from pseudomotion.render.cpu.launch import render

__all__ = ["render"]
