"""Images made from nothing: endless, free of licences, on any device. Each source gives the same image for the same id."""

from pseudomotion.images.synthetic.dead_leaves import DeadLeaves
from pseudomotion.images.synthetic.fractaldb import FractalDB
from pseudomotion.images.synthetic.mixture import SOURCES, Mixture
from pseudomotion.images.synthetic.noise import Noise
from pseudomotion.images.synthetic.shaders import Shaders
from pseudomotion.images.synthetic.visual_atom import VisualAtom

__all__ = ["SOURCES", "DeadLeaves", "FractalDB", "Mixture", "Noise", "Shaders", "VisualAtom"]
