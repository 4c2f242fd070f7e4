"""Comparisons of compiled renderers with the float64 oracle and the reference. ``render(pmg, images, plan)`` is the renderer under test."""

import numpy as np
import oracle
import torch

from pseudomotion import PMG, render
from pseudomotion.mix import VideoMix

PADDING = ["zeros", "border", "reflection"]
FLOATS = [torch.float16, torch.bfloat16, torch.float32]
MEAN, STD = (0.48, 0.45, 0.4, 0.5), (0.22, 0.23, 0.25, 0.2)
# Images and frames: sides of one pixel, images far larger than the frame, frames whose last tile is only partly filled.
SIZES = [((1, 9), (7, 6)), ((9, 1), (5, 8)), ((7, 5), (1, 1)), ((1, 1), (3, 2)), ((97, 61), (5, 4)), ((31, 23), (29, 41))]


def check(renderer, names, images, num_frames, size, *, atol=1e-4, **options):
    """The same clips of the same float32 images; returns the plan."""
    pmg = PMG(names, num_frames, size, **options)
    plan = pmg.plan(images.shape, ids=torch.arange(len(images)))
    clips = renderer(pmg, images, plan)
    np.testing.assert_allclose(clips, oracle.render(images, plan), atol=atol, rtol=0)
    torch.testing.assert_close(clips, render.render(images, plan, renderer="reference"), atol=atol, rtol=0)
    return plan


def check_dtypes(renderer, images, dtype, out, single):
    """Clips are the float64 clip of the same pixels, rounded once at the end. ``single`` is the tolerance of float32."""
    images = (images * 255).round().to(dtype) if dtype == torch.uint8 else images.to(dtype)
    exact = images.double() / (255 if dtype == torch.uint8 else 1)
    pmg = PMG(("affine", "color_jitter"), 2, (8, 9), dtype=out)
    plan = pmg.plan(images.shape, ids=torch.arange(2))
    clips, expected = renderer(pmg, images, plan), torch.from_numpy(oracle.render(exact, plan))
    assert clips.dtype == out
    if out == torch.uint8:
        assert (clips.double() - expected * 255).abs().max() < 0.51
    else:
        tolerance = {torch.float16: 2**-11, torch.bfloat16: 2**-8, torch.float32: single}[out]
        torch.testing.assert_close(clips.double(), expected, atol=tolerance, rtol=tolerance)


def check_partner_images(name, images, partners, resampling):
    """Clips of partner images are mixed in, but not returned."""
    made = [
        PMG(("zoom", "affine"), 3, 8, resampling=resampling, mix=VideoMix(), renderer=renderer)(
            images, ids=torch.arange(3), partner_images=partners
        )
        for renderer in (name, "reference")
    ]
    assert len(made[0]) == 3
    torch.testing.assert_close(*made, atol=1e-4, rtol=0)
