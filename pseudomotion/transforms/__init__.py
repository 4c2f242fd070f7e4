"""The transforms that make motion, by name. A new one is one file beside these and one entry here."""

from pseudomotion.transforms.affine import Affine
from pseudomotion.transforms.base import Transform
from pseudomotion.transforms.color_jitter import ColorJitter
from pseudomotion.transforms.cutmix import CutMix
from pseudomotion.transforms.fade import Fade
from pseudomotion.transforms.identity import Identity
from pseudomotion.transforms.perspective import Perspective
from pseudomotion.transforms.sliding_window import SlidingWindow
from pseudomotion.transforms.zoom import Zoom

# In the paper's order (section 3.2). A plan stores the position in this dict, so new transforms go to the end.
TRANSFORMS: dict[str, type[Transform]] = {
    transform.name: transform for transform in (Identity, SlidingWindow, Zoom, Fade, Affine, Perspective, ColorJitter, CutMix)
}

__all__ = ["TRANSFORMS", "Affine", "ColorJitter", "CutMix", "Fade", "Identity", "Perspective", "SlidingWindow", "Transform", "Zoom"]
