"""Generated images: endless, free of licenses, on any device. Each source gives the same image for the same id.

A new generator is a subclass of ``SyntheticSource`` in a file of its own, and an entry in ``SOURCES``.
"""

from collections.abc import Mapping

from pseudomotion.images.synthetic.base import SyntheticSource
from pseudomotion.images.synthetic.dead_leaves import DeadLeaves
from pseudomotion.images.synthetic.fractaldb import FractalDB
from pseudomotion.images.synthetic.mixture import Mixture
from pseudomotion.images.synthetic.noise import Noise
from pseudomotion.images.synthetic.shaders import Shaders
from pseudomotion.images.synthetic.visual_atom import VisualAtom

SOURCES: Mapping[str, type[SyntheticSource]] = {
    "shaders": Shaders,
    "fractaldb": FractalDB,
    "visual_atom": VisualAtom,
    "dead_leaves": DeadLeaves,
    "noise": Noise,
}

__all__ = ["SOURCES", "DeadLeaves", "FractalDB", "Mixture", "Noise", "Shaders", "SyntheticSource", "VisualAtom"]
