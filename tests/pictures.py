"""Small images that differ, and what the tests of sources share."""

import math

import numpy as np
import torch
from PIL import Image

from pseudomotion.draws import Draws
from pseudomotion.images import batches


def stained_glass(height, width):
    """Cells of distinct colors and stripes with dark borders, uint8 (3, H, W): textured everywhere, so that its motion can be measured."""
    draws = Draws(seed=7, ids=torch.arange(48, device="cpu"))
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


def picture(k, size=(20, 30)):
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([x * 4 + k, y * 5 + k, x + y + 9 * k], -1).astype(np.uint8)


def save(path, k=0, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(k)).convert(mode).save(path, **options)


def save_cutout(path, k=0, size=(20, 30)):
    """A cut-out: a soft ellipse of a picture, green where it is transparent, so that a halo would show."""
    y, x = np.mgrid[: size[0], : size[1]]
    distance = np.hypot((y - size[0] / 2) / (size[0] * 0.35), (x - size[1] / 2) / (size[1] * 0.4))
    alpha = ((1.1 - distance) / 0.2).clip(0, 1)[..., None]
    rgba = np.where(alpha > 0, np.dstack([picture(k, size), alpha * 255]), (0, 255, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgba.round().astype(np.uint8)).save(path)


def epoch(source, batch_size, **options):
    """Items by id."""
    return {int(i): item for items, ids in batches(source, batch_size, **options) for i, item in zip(ids, items, strict=True)}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[i], b[i]) for i in a)
