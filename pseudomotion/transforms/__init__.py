"""The transforms that make motion, by name. A new one takes a file in this package, its import here, and its name in ``names``.

``TRANSFORMS`` holds the paper's eight in its order (section 3.2), ``EXTRA_TRANSFORMS`` all others, which are not from the paper. A plan
stores positions in ``ALL_TRANSFORMS``, which starts with the paper's; so names are only ever appended.
"""

from pseudomotion import names
from pseudomotion.transforms.affine import Affine as Affine
from pseudomotion.transforms.base import Transform as Transform
from pseudomotion.transforms.color_jitter import ColorJitter as ColorJitter
from pseudomotion.transforms.cutmix import CutMix as CutMix
from pseudomotion.transforms.elastic import Elastic as Elastic
from pseudomotion.transforms.fade import Fade as Fade
from pseudomotion.transforms.identity import Identity as Identity
from pseudomotion.transforms.perspective import Perspective as Perspective
from pseudomotion.transforms.shake import Shake as Shake
from pseudomotion.transforms.sliding_window import SlidingWindow as SlidingWindow
from pseudomotion.transforms.zoom import Zoom as Zoom

_imported = {cls.name: cls for cls in vars().values() if isinstance(cls, type) and issubclass(cls, Transform) and cls is not Transform}

TRANSFORMS: dict[str, type[Transform]] = {name: _imported[name] for name in names.TRANSFORMS}
EXTRA_TRANSFORMS: dict[str, type[Transform]] = {name: _imported[name] for name in names.EXTRA_TRANSFORMS}
ALL_TRANSFORMS: dict[str, type[Transform]] = TRANSFORMS | EXTRA_TRANSFORMS

__all__ = ["ALL_TRANSFORMS", "EXTRA_TRANSFORMS", "TRANSFORMS", "Transform"]
__all__ += [cls.__name__ for cls in ALL_TRANSFORMS.values()]
