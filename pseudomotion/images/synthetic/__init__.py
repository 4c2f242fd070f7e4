"""Generated images: endless, free of licenses, on any device. Each source gives the same image for the same id.

A new generator takes a file in this package, its import here, and its name in ``pseudomotion.names``.
"""

from pseudomotion import names
from pseudomotion.images.synthetic.base import SyntheticSource as SyntheticSource
from pseudomotion.images.synthetic.dead_leaves import DeadLeaves as DeadLeaves
from pseudomotion.images.synthetic.fractaldb import FractalDB as FractalDB
from pseudomotion.images.synthetic.mixture import Mixture as Mixture
from pseudomotion.images.synthetic.noise import Noise as Noise
from pseudomotion.images.synthetic.shaders import Shaders as Shaders
from pseudomotion.images.synthetic.visual_atom import VisualAtom as VisualAtom

_imported = {cls.name: cls for cls in vars().values() if isinstance(cls, type) and hasattr(cls, "name")}
SOURCES: dict[str, type[SyntheticSource]] = {name: _imported[name] for name in names.SOURCES}

__all__ = ["SOURCES", "Mixture", "SyntheticSource"]
__all__ += [cls.__name__ for cls in SOURCES.values()]
