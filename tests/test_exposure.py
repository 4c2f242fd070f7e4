"""Motion blur, in all renderers: against a brute force in float64, against integrals in closed form, and what labels say of it."""

import dataclasses
import importlib.util

import numpy as np
import oracle
import pytest
import torch
from shapes import outline_of, shaped_plan

from pseudomotion import PMG, TRANSFORMS, MotionPlan, Objects
from pseudomotion.labels import boxes, tracks
from pseudomotion.mix import Mixup
from pseudomotion.motion import Layers, Motion
from pseudomotion.render import exposure, render

ALL = tuple(TRANSFORMS)
NEEDS = {"reference": "torch", "llvm": "llvmlite", "triton": "triton"}


@pytest.fixture(params=NEEDS)
def renderer(request, monkeypatch):
    """The name of a renderer, with what selects its compiler."""
    if importlib.util.find_spec(NEEDS[request.param]) is None:
        pytest.skip(f"{NEEDS[request.param]} is not installed")
    if request.param == "llvm":
        monkeypatch.setenv("TRITON_INTERPRET", "0")
    return "reference" if request.param == "reference" else "fused"


def exposed(plan, share=0.8, subframes=3):
    return dataclasses.replace(plan, exposure=share, subframes=subframes)


def test_exposed_clips_are_the_oracles(smooth):
    """Everything at once: outlines, bends, layers that come and go, over recursive and other backs, mixed."""
    images = smooth(11, 3, 37, 45)
    for resampling, padding_mode in (("recursive", "zeros"), ("composed", "reflection")):
        plan = shaped_plan(ALL, frames=3, size=(13, 17), resampling=resampling, padding_mode=padding_mode, mix=Mixup())
        plan = exposed(plan, subframes=2)
        expected = oracle.exposed(images, plan)
        np.testing.assert_allclose(render(images, plan, renderer="reference"), expected, atol=1e-6)


def small_plan(resampling="recursive"):
    """So little that Triton's interpreter takes a few seconds."""
    plan = shaped_plan(("affine", "zoom"), 2, 2, (13, 16), (9, 11), ("ellipse", "triangle"), 1, texture=(18, 15), resampling=resampling)
    return exposed(plan, subframes=2)


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_every_renderer_exposes(renderer, resampling, smooth):
    images, textures = smooth(2, 3, 13, 16, dtype=torch.float32), smooth(2, 3, 18, 15, dtype=torch.float32)
    plan = small_plan(resampling)
    assert plan.back.reads_previous.any() == (resampling == "recursive")
    clips = render(images, plan, textures=textures, renderer=renderer)
    np.testing.assert_allclose(clips, oracle.exposed(images, plan, textures), atol=1e-4)


@pytest.mark.parametrize("renderer", ["reference", "llvm"], indirect=True)
@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_formats_and_mixing(renderer, resampling, smooth):
    images, textures = smooth(5, 3, 13, 16, dtype=torch.float32), smooth(5, 3, 18, 15, dtype=torch.float32)
    plan = shaped_plan(("affine", "zoom"), 5, 3, (13, 16), (9, 11), texture=(18, 15), resampling=resampling, mix=Mixup())
    for mixed in (exposed(plan), exposed(dataclasses.replace(plan, blend=None))):
        expected = oracle.exposed(images, mixed, textures)
        found = render(images, mixed, textures=textures, renderer=renderer, mean=(0.4,) * 3, std=(0.2,) * 3, count=4)
        np.testing.assert_allclose(found, (expected[:4] - 0.4) / 0.2, atol=1e-4)
        pixels, look = ((tensor * 255).round().byte() for tensor in (images, textures))
        found = render(pixels, mixed, textures=look, renderer=renderer, data_format="BTCHW")
        np.testing.assert_allclose(found.transpose(1, 2), expected * 255, atol=1.1)


def test_short_exposures_are_none(renderer, smooth):
    """In the limit, clips are those without blur; and at one sub-frame they are so to the bit."""
    images, textures = smooth(2, 3, 13, 16, dtype=torch.float32), smooth(2, 3, 18, 15, dtype=torch.float32)
    plan = small_plan()

    def clips(**changes):
        return render(images, dataclasses.replace(plan, **changes), textures=textures, renderer=renderer)

    sharp = clips(exposure=0.0)
    torch.testing.assert_close(clips(exposure=1e-9), sharp, atol=1e-4, rtol=0)
    assert torch.equal(clips(subframes=1), sharp)
    if renderer == "reference":
        assert (clips() - sharp).abs().max() > 0.02


def moving_box(frames=4, speed=4.0, share=1.0, subframes=4, *, recursive=False):
    """A white box of 6 x 5 pixels that moves to the right over black: a layer, or a part of the image that the back moves."""
    homography = np.tile(np.eye(3), (1, frames, 1, 1))
    homography[0, 1:, 0, 2] = speed if recursive else speed * np.arange(1, frames)
    images = torch.zeros(1, 1, 12, 40, dtype=torch.float64)
    plan = PMG(("identity",), frames, None).plan(images.shape, ids=torch.zeros(1, dtype=torch.int64))
    motion = Motion(torch.from_numpy(homography).float(), plan.back.motion.color)
    if recursive:
        images[..., 4:9, 10:16] = 1
        back = dataclasses.replace(plan.back, motion=motion, reads_previous=torch.tensor([True]))
        return images, None, exposed(dataclasses.replace(plan, back=back), share, subframes)
    layers = Layers(
        texture=torch.zeros(1, 1, dtype=torch.int64),
        box=torch.tensor([[[9.5, 3.5, 15.5, 8.5]]]),
        outline=torch.tensor(outline_of("box", None, 1.0)).float()[None, None],
        motion=Motion(motion.homography[:, None], motion.color[:, None]),
        opacity=torch.ones(1, 1, frames),
    )
    return images, torch.ones_like(images), exposed(dataclasses.replace(plan, layers=layers, texture_size=(12, 40)), share, subframes)


@pytest.mark.parametrize("renderer", ["reference", "llvm"], indirect=True)
@pytest.mark.parametrize("recursive", [False, True])
def test_a_moving_box_is_the_integral_over_the_exposure(recursive, renderer):
    """Four sub-frames, one pixel of way apart, sum up the exact integral, because a pixel is covered as much as the box overlaps it."""
    images, textures, plan = moving_box(recursive=recursive)
    clips = render(images.float(), plan, textures=None if textures is None else textures.float(), renderer=renderer)
    x, t = np.arange(40), np.arange(4)[:, None]
    seen = np.minimum(x + 2, 15.5 + 4 * t) - np.maximum(x - 2, 9.5 + 4 * t)  # of the box, from 2 pixels before to 2 behind
    np.testing.assert_allclose(clips[0, 0, :, 6], seen.clip(0) / 4, atol=1e-4)
    assert not clips[0, 0, :, :3].any()


@pytest.mark.parametrize("recursive", [False, True])
def test_labels_belong_to_the_middle_of_the_exposure(recursive):
    """What moves is as much before its label as behind it, in the first and the last frame too."""
    images, textures, plan = moving_box(speed=3.0, share=0.7, recursive=recursive)
    clips = render(images, plan, textures=textures)
    centers = (clips[0, 0].sum(1) * torch.arange(40)).sum(-1) / clips[0, 0].sum((1, 2))
    points, _ = tracks(plan, torch.tensor([[[12.5, 6.0]]]))
    torch.testing.assert_close(centers, points[0, :, 0, 0].double(), atol=1e-6, rtol=0)
    if not recursive:
        x0, _, x1, _ = boxes(plan).amodal[0, :, 0].unbind(-1)
        torch.testing.assert_close((x0 + x1) / 2, centers.float())


def test_many_subframes_converge_to_the_integral(smooth):
    images = smooth(4, 3, 37, 45)
    plan = exposed(PMG(("affine", "zoom"), 3, (17, 21)).plan(images.shape, ids=torch.arange(4)), 1.0, 4)
    integral = oracle.exposed(images, plan, subframes=48)
    off = [np.abs(render(images, exposed(plan, 1.0, n)).numpy() - integral).mean() for n in (1, 4, 16)]
    assert off[1] < off[0] / 4
    assert off[2] < off[1] / 3


def test_clips_depend_on_no_others_and_no_chunk(monkeypatch, smooth):
    images, textures = smooth(5, 3, 13, 16, dtype=torch.float32), smooth(4, 3, 13, 16, dtype=torch.float32)
    pmg = PMG(("affine", "zoom"), 3, (9, 11), objects=Objects(count=(1, 2)), exposure=0.5)
    ids = torch.arange(5)
    clips = pmg(images, ids=ids, textures=textures)
    assert torch.equal(pmg(images[2:3], ids=ids[2:3], textures=textures), clips[2:3])
    monkeypatch.setattr(exposure, "CHUNK", 1)
    assert torch.equal(pmg(images, ids=ids, textures=textures), clips)


def test_gradients_flow_through_the_exposure(smooth):
    images = smooth(2, 3, 13, 16).requires_grad_()
    pmg = PMG(("affine", "zoom"), 3, (9, 11), exposure=0.5, subframes=2, renderer="reference")
    pmg(images, ids=torch.arange(2)).sum().backward()
    assert images.grad is not None
    assert images.grad.sum() > 100


def test_plans_hold_the_exposure(smooth):
    images = smooth(2, 3, 13, 16, dtype=torch.float32)
    pmg = PMG(("affine",), 3, (9, 11), exposure=0.3, subframes=5)
    plan = pmg.plan(images.shape, ids=torch.arange(2))
    again = MotionPlan.from_state_dict(plan.state_dict())
    assert (again.exposure, again.subframes) == (0.3, 5)
    assert torch.equal(render(images, again), render(images, plan))
    prepared = pmg.prepare(images.shape, images_dtype=images.dtype, ids=torch.arange(2))
    assert torch.equal(pmg.render(images, prepared), render(images, plan))
    assert plan.describe(0).endswith("exposed for 0.3 of the frame interval: averages of 5 sub-frames")
    assert plan.composed().exposure == 0.3
    without = PMG(("affine",), 3, (9, 11)).plan(images.shape, ids=torch.arange(2))
    assert "exposure" not in without.state_dict()
    assert MotionPlan.from_state_dict(without.state_dict()).exposure == 0
    assert set(plan.state_dict()) - set(without.state_dict()) == {"exposure"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exposure": 1.1}, "exposure must be from 0 to 1, got 1.1"),
        ({"exposure": float("nan")}, "exposure must be from 0 to 1, got nan"),
        ({"exposure": 0.5, "subframes": 65}, "subframes must be from 1 to 64, got 65"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PMG(**options)
    plan = PMG(num_frames=2, size=8).plan((1, 3, 8, 8), ids=torch.arange(1))
    with pytest.raises(ValueError, match=r"plan\.(exposure|subframes) must be"):
        dataclasses.replace(plan, **options)
