"""Flow, occlusion and tracks against rendered pixels, and against OpenCV's optical flow."""

import dataclasses
import math
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import oracle
import pytest
import torch
from painter import Painter

from pseudomotion import PMG, TRANSFORMS, Objects
from pseudomotion.images import load_image
from pseudomotion.labels import flow, instances, occlusion, tracks

NAMES = list(TRANSFORMS)
STATIC = ("identity", "fade", "color_jitter")


def waves(batch, height, width):
    """Images without detail: sums of waves at least 20 pixels long."""
    generator = torch.Generator().manual_seed(5)
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    images = torch.full((batch, 3, height, width), 0.5, dtype=torch.float64)
    for _ in range(4):
        angle, phase = torch.rand(2, batch, 3, 1, 1, generator=generator, dtype=torch.float64) * 2 * math.pi
        images += 0.12 * torch.sin((x * angle.cos() + y * angle.sin()) * (2 * math.pi / 20) + phase)
    return images.clamp(0, 1)


def smooth_around(painter, i, t, x, y):
    """Points whose neighborhood shows a single image: no edge of an image or box, also none carried over from earlier frames."""

    def inside(point, size, margin):
        return np.all([(c > margin) & (c < side - 1 - margin) for c, side in zip(point, size[::-1], strict=True)], 0)

    def at(k, layer=0):
        return painter.apply(painter.homography(i, layer, k), painter.apply(np.linalg.inv(painter.homography(i, layer, t)), (x, y)))

    source = painter.apply(np.linalg.inv(painter.homography(i, 0, t)), (x, y))
    smooth = inside(source, painter.field["image_size"], 1)
    if painter.field["back.reads_previous"][i]:
        for k in range(t + 1):
            smooth &= inside(at(k), (painter.h, painter.w), 1 + t - k)  # an edge spreads by a pixel at every resampling
    if painter.layers > 1:
        u, v = painter.apply(np.linalg.inv(painter.homography(i, 1, t)), (x, y))
        x0, y0, x1, y1 = painter.field["box"][i, 1]
        smooth &= np.abs(np.minimum(np.minimum(u - x0, x1 - u), np.minimum(v - y0, y1 - v))) > 2
    return smooth


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
@pytest.mark.parametrize("name", NAMES)
def test_the_next_frame_warped_back_is_the_frame(name, resampling):
    """On visible pixels, within the error of bilinear sampling of a smooth image.

    Colors are left out of the plan, for they change from frame to frame while the motion stays.
    """
    images = waves(3, 60, 60)
    pmg = PMG((name,), 5, 56, resampling=resampling)
    plan = pmg.plan(images.shape, ids=torch.arange(3))
    motion = dataclasses.replace(plan.back.motion, color=torch.eye(3, 4).expand_as(plan.back.motion.color))
    plan = dataclasses.replace(plan, back=dataclasses.replace(plan.back, motion=motion))
    clips, vectors, lost = pmg.render(images, plan).numpy(), flow(plan).double().numpy(), occlusion(plan).numpy()
    painter = Painter(plan)
    y, x = np.mgrid[:56, :56].astype(float)
    error = still = 0.0
    for i in range(3):
        for t in range(4):
            u, v = vectors[i, t]
            keep = ~lost[i, t] & smooth_around(painter, i, t, x, y) & smooth_around(painter, i, t + 1, x + u, y + v)
            keep &= (np.minimum(x + u, y + v) >= 0) & (np.maximum(x + u, y + v) <= 55)
            assert keep.mean() > 0.3
            back = oracle.bilinear(clips[i, :, t + 1], x + u, y + v)
            error = max(error, np.abs(back - clips[i, :, t])[:, keep].max())
            still = max(still, np.abs(clips[i, :, t + 1] - clips[i, :, t])[:, keep].max())
    # One sampling errs by at most an eighth of the second derivative along each axis; three are between the two frames and the image.
    assert error < 3 * 2 * 0.48 * (2 * math.pi / 20) ** 2 / 8
    assert name in STATIC or still > 4 * error


def test_visible_points_keep_their_color():
    """With images of constant color, a point of the back has its color exactly in the frames where it is labeled visible."""
    value = torch.linspace(0.1, 0.9, 6)
    pmg = PMG(("cutmix",), 8, 48)
    plan = pmg.plan((6, 3, 60, 60), ids=torch.arange(6))
    clips = pmg.render(value[:, None, None, None].expand(6, 3, 60, 60), plan)[:, 0]
    x, y = torch.cartesian_prod(torch.arange(48), torch.arange(48)).unbind(-1)
    _, visible = tracks(plan, torch.stack([x, y], -1))
    now = clips[:, :, y, x]
    own, box = ((now - of[:, None, None]).abs() < 1e-6 for of in (value, value[plan.layers.texture[:, 0]]))
    background, front = own[:, :1], box[:, :1]
    decided = background & (own | box)  # the rest lies on the soft edge
    assert torch.equal(own[decided], visible[decided])
    assert 0.02 < (~visible)[decided].double().mean() < 0.5
    assert front.sum() > 1000
    assert visible[front.expand_as(visible)].all()


def textured(gray):
    """Pixels with structure in both directions: the smaller eigenvalue of the structure tensor, above its 40th percentile and noise."""
    strength = cv2.cornerMinEigenVal(gray.astype(np.float32) / 255, 9)
    return strength > max(np.quantile(strength, 0.4), 1e-4)


@pytest.mark.parametrize("bend", [(0.0, 0.0), (0.1, 0.3)])
def test_opencv_sees_the_same_flow_of_objects_of_photos(bend):
    """As below, on parts of a photo that move over it: within one pixel on 90 % of the pixels inside objects, and on the back."""
    photo = load_image(Path(__file__).parent.parent / "docs" / "images" / "chelsea.jpg")
    images = torch.stack([photo, photo.flip(-1), photo.flip(-2), photo.flip(-1, -2)])
    objects = Objects(count=(2, 3), size=(0.3, 0.5), speed=(0.005, 0.02), bend=bend)
    pmg = PMG(("zoom", "affine"), 3, 192, padding_mode="border", objects=objects)
    plan = pmg.plan(images.shape, ids=torch.arange(4), textures=images.shape)
    clips, vectors, lost = pmg.render(images, plan, textures=images), flow(plan).numpy(), occlusion(plan).numpy()
    shown, estimator = instances(plan).numpy(), cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    agree, total = np.zeros(2), np.zeros(2)
    for i in range(4):
        grays = [cv2.cvtColor(frame.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY) for frame in clips[i].transpose(0, 1)]
        for t, (before, after) in enumerate(pairwise(grays)):
            estimate = estimator.calc(before, after, None).transpose(2, 0, 1)
            surface, patch = shown[i, t].astype(np.uint8), np.ones((9, 9))
            keep = textured(before) & ~lost[i, t] & (cv2.dilate(surface, patch) == cv2.erode(surface, patch))
            close = np.hypot(*(estimate - vectors[i, t])) < 1
            for k, part in enumerate((surface == 0, surface > 0)):
                agree[k] += (close & keep & part).sum()
                total[k] += (keep & part).sum()
    assert (total > 0.1 * 8 * 192**2).all()
    assert (agree / total >= 0.9).all()


@pytest.mark.parametrize("name", ["sliding_window", "zoom", "affine", "perspective", "cutmix"])
def test_opencv_sees_the_same_flow(name, stained_glass):
    """DIS optical flow, which knows only the pixels: within one pixel on at least 90 % of the visible, textured pixels."""
    image = torch.nn.functional.interpolate(stained_glass[None].float(), (256, 256), mode="area").round().to(torch.uint8)
    images = torch.cat([image, image.flip(-1), image.flip(-2), image.transpose(-1, -2)])
    pmg = PMG((name,), 3, 192, padding_mode="border")
    plan = pmg.plan(images.shape, ids=torch.arange(4))
    clips, vectors, lost = pmg.render(images, plan), flow(plan).numpy(), occlusion(plan).numpy()
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    agree = total = 0
    for i in range(4):
        grays = [cv2.cvtColor(frame.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY) for frame in clips[i].transpose(0, 1)]
        for t, (before, after) in enumerate(pairwise(grays)):
            estimate = estimator.calc(before, after, None).transpose(2, 0, 1)
            keep = textured(before) & ~lost[i, t]
            agree += (np.hypot(*(estimate - vectors[i, t]))[keep] < 1).sum()
            total += keep.sum()
    assert total > 0.2 * 8 * 192**2
    assert agree / total >= 0.9
