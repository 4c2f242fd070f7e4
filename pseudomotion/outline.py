"""Outlines of layers in closed form: how much of a pixel lies inside. No pixels are needed, so labels need no images.

An outline is a row of numbers, of which the first two are its ``SHAPE`` and its ``FEATHER``: how wide the soft edge is, in pixels of the
texture, half of it inside and half outside. It spans the layer's box.
"""

from jaxtyping import Float
from torch import Tensor

BOX = 0  # value of SHAPE
SHAPE, FEATHER = 0, 1  # columns
SHARP = (BOX, 1.0)  # a box with an edge one pixel soft, which antialiases it at the texture's own scale


def coverage(
    outline: Float[Tensor, "*#b K"], box: Float[Tensor, "*#b 4"], x: Float[Tensor, "*#b"], y: Float[Tensor, "*#b"]
) -> Float[Tensor, "*b"]:
    """How much of the pixels at ``(x, y)`` of a texture lies inside, from 0 to 1; 0.5 is the outline itself."""
    x0, y0, x1, y1 = box.unbind(-1)
    feather = outline[..., FEATHER]
    across = ((x - x0).minimum(x1 - x) / feather + 0.5).clamp(0, 1)
    return across * ((y - y0).minimum(y1 - y) / feather + 0.5).clamp(0, 1)
