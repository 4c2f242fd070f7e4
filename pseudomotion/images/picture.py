"""A computed picture, for demonstrations without a photo."""

import math

import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion.draws import Draws

CELLS = 48


def builtin_picture(height: int = 448, width: int = 448) -> UInt8[Tensor, "3 H W"]:
    """A stained-glass picture: cells of distinct colors and stripes with dark borders, textured everywhere, so easy to track by eye.

    Args:
        height: in pixels.
        width: in pixels.

    Returns:
        uint8 ``(3, H, W)`` on the CPU, always the same.

    """
    draws = Draws(seed=7, ids=torch.arange(CELLS, device="cpu"))
    site_x, site_y, phase, angle, frequency = draws.uniform("picture", 5)
    y, x = (torch.linspace(0, end, n, dtype=torch.float64, device="cpu") for end, n in ((height / width, height), (1, width)))
    y, x = torch.meshgrid(y, x, indexing="ij")
    distance = ((x[..., None] - site_x).square() + (y[..., None] - site_y * height / width).square()).sqrt()
    (near, second), cell = (found := distance.topk(2, largest=False)).values.unbind(-1), found.indices[..., 0]

    turn = 2 * math.pi * phase[cell]
    hues = torch.stack([torch.cos(turn - 2 * math.pi * k / 3) for k in range(3)])
    along = x * torch.cos(math.pi * angle[cell]) + y * torch.sin(math.pi * angle[cell])
    stripes = torch.sin(along * 2 * math.pi * (12 + 28 * frequency[cell]))
    light = 0.75 - 0.9 * near + 0.14 * stripes
    leading = ((second - near - 0.006) / 0.006).clamp(0, 1)
    return ((light * (0.62 + 0.38 * hues) * leading).clamp(0, 1) * 255).round().to(torch.uint8)
