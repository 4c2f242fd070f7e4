"""Small images that differ, and what the tests of sources share."""

import numpy as np
import torch
from PIL import Image

from pseudomotion.images import batches


def picture(k, size=(20, 30)):
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([x * 4 + k, y * 5 + k, x + y + 9 * k], -1).astype(np.uint8)


def save(path, k=0, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(k)).convert(mode).save(path, **options)


def epoch(source, batch_size, **options):
    """Items by id."""
    return {int(i): item for items, ids in batches(source, batch_size, **options) for i, item in zip(ids, items, strict=True)}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[i], b[i]) for i in a)
