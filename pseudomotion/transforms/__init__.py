"""The transforms that make motion, by name. A new transform takes one file in this package and one import here.

``TRANSFORMS`` holds the paper's eight, ``EXTRA_TRANSFORMS`` all others, which are not from the paper. A plan stores positions in
``ALL_TRANSFORMS``, which starts with the paper's.
"""

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

_imported = [value for value in vars().values() if isinstance(value, type) and issubclass(value, Transform) and value is not Transform]

# In the paper's order (section 3.2).
TRANSFORMS: dict[str, type[Transform]] = {
    transform.name: transform for transform in (Identity, SlidingWindow, Zoom, Fade, Affine, Perspective, ColorJitter, CutMix)
}
EXTRA_TRANSFORMS: dict[str, type[Transform]] = {cls.name: cls for cls in _imported if cls.name not in TRANSFORMS}
ALL_TRANSFORMS: dict[str, type[Transform]] = TRANSFORMS | EXTRA_TRANSFORMS

__all__ = ["ALL_TRANSFORMS", "EXTRA_TRANSFORMS", "TRANSFORMS", "Transform"]
__all__ += [cls.__name__ for cls in ALL_TRANSFORMS.values()]
