"""Closed-form outlines of layers: how much of a pixel lies inside. They need no mask images, so labels need no images either.

An outline is a row of K numbers that spans the layer's box. Column ``SHAPE`` names the shape (so far only ``BOX``). Column ``FEATHER`` is
the width of the soft edge in pixels of the texture, half of it inside the outline and half outside.
"""

from jaxtyping import Float
from torch import Tensor

BOX = 0  # value of SHAPE
SHAPE, FEATHER = 0, 1  # columns
SHARP = (BOX, 1.0)  # a box with an edge 1 pixel wide, which antialiases it at the texture's own scale


def coverage(
    outline: Float[Tensor, "*#b K"], box: Float[Tensor, "*#b 4"], x: Float[Tensor, "*#b"], y: Float[Tensor, "*#b"]
) -> Float[Tensor, "*b"]:
    """How much of the texture's pixels at ``(x, y)`` lies inside the outline, in [0, 1]; 0.5 on the outline itself."""
    x0, y0, x1, y1 = box.unbind(-1)
    feather = outline[..., FEATHER]
    across = ((x - x0).minimum(x1 - x) / feather + 0.5).clamp(0, 1)
    return across * ((y - y0).minimum(y1 - y) / feather + 0.5).clamp(0, 1)
