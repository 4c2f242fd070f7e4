"""The reference renderer against the float64 oracle in numpy, and against cases known exactly."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from shapes import shaped_plan

from pseudomotion import PMG, TRANSFORMS
from pseudomotion.mix import Mixup
from pseudomotion.plan import Blend
from pseudomotion.render import render
from pseudomotion.transforms import Zoom

NAMES = list(TRANSFORMS)
PADDING = ["zeros", "border", "reflection"]
SIZES = [
    ((37, 45), (33, 29)),  # about equal: no reduction
    ((90, 121), (31, 40)),  # past twice the frame: a halved copy, and blends
    ((20, 24), (33, 47)),  # enlarged
    ((200, 230), (21, 24)),  # far larger: several levels
]


def plan_for(homography, image_size, frame_size, reads_previous=False):
    """A plan of one clip without layers from homographies (T, 3, 3)."""
    homography = torch.as_tensor(np.asarray(homography), dtype=torch.float32)[None]
    plan = PMG(("identity",), homography.shape[1], frame_size).plan((1, 3, *image_size))
    motion = dataclasses.replace(plan.back.motion, homography=homography)
    back = dataclasses.replace(plan.back, motion=motion, reads_previous=torch.tensor([reads_previous]))
    return dataclasses.replace(plan, back=back)


@pytest.mark.parametrize("padding_mode", PADDING)
@pytest.mark.parametrize("resampling", ["recursive", "composed"])
@pytest.mark.parametrize("name", NAMES)
def test_every_frame_is_the_oracles(name, resampling, padding_mode, smooth):
    """float32 within 2e-5 (design: 1e-4 per resampling), float64 within 1e-9."""
    for source, frame in SIZES:
        images = smooth(2, 3, *source)
        pmg = PMG((name,), 4, frame, resampling=resampling, padding_mode=padding_mode, crop=(0.5, 1.0))
        plan = pmg.plan(images.shape, ids=torch.arange(2))
        expected = oracle.render(images, plan)
        np.testing.assert_allclose(pmg.render(images, plan), expected, atol=1e-9)
        np.testing.assert_allclose(pmg.render(images.float(), plan), expected, atol=2e-5)


@pytest.mark.parametrize("renderer", ["reference", "auto"])  # the second runs LLVM's kernels; for Triton's see test_fused
@pytest.mark.parametrize(("resampling", "padding_mode"), [("recursive", "zeros"), ("composed", "border"), ("recursive", "reflection")])
def test_every_renderer_paints_the_oracles_clips(renderer, resampling, padding_mode, smooth):
    """All transforms in one batch, mixed, under layers of every outline, bent and rigid; float32, bfloat16 and bytes."""
    pytest.importorskip({"reference": "torch", "auto": "llvmlite"}[renderer])
    images = smooth(11, 3, 12, 14).float()
    options = {"resampling": resampling, "padding_mode": padding_mode, "mix": Mixup(), "image": (12, 14), "size": (9, 10), "frames": 2}
    for bent in (True, False):
        plan = shaped_plan(NAMES, bent=bent, **options)
        expected = oracle.render(images, plan)
        np.testing.assert_allclose(render(images, plan, renderer=renderer), expected, atol=2e-5, rtol=0)
    clips = render(images, plan, renderer=renderer, dtype=torch.bfloat16)
    np.testing.assert_allclose(clips.float(), expected, atol=2**-8, rtol=0)
    levels = render((images * 255).round().to(torch.uint8), plan, renderer=renderer)
    assert np.abs(levels.numpy() - 255 * expected).max() < 1.6  # the images are rounded, too


@pytest.mark.parametrize("padding_mode", PADDING)
def test_mixed_batches_are_the_oracles(padding_mode, smooth):
    images = smooth(16, 3, 70, 60)
    pmg = PMG(tuple(NAMES), 5, (31, 27), padding_mode=padding_mode, crop=(0.1, 1.0))
    plan = pmg.plan(images.shape, ids=torch.arange(16))
    assert len(plan.transform.unique()) > 5
    np.testing.assert_allclose(pmg.render(images, plan), oracle.render(images, plan), atol=1e-9)


@pytest.mark.parametrize("padding_mode", PADDING)
@pytest.mark.parametrize(("source", "frame"), [((1, 9), (7, 6)), ((9, 1), (5, 8)), ((7, 5), (1, 1)), ((1, 1), (3, 2)), ((2, 2), (1, 5))])
def test_sides_of_one_pixel(source, frame, padding_mode, smooth):
    images = smooth(8, 3, *source)
    pmg = PMG(tuple(NAMES), 3, frame, padding_mode=padding_mode)
    plan = pmg.plan(images.shape, ids=torch.arange(8))
    np.testing.assert_allclose(pmg.render(images, plan), oracle.render(images, plan), atol=1e-9)


def test_fifteen_recursive_steps_in_float32(smooth):
    images = smooth(4, 3, 64, 64)
    pmg = PMG(("affine", "perspective"), 16, 64)
    plan = pmg.plan(images.shape, ids=torch.arange(4))
    np.testing.assert_allclose(pmg.render(images.float(), plan), oracle.render(images, plan), atol=2e-3)


def test_identity_is_exact():
    images = torch.randint(0, 256, (2, 3, 21, 34), dtype=torch.uint8)
    clips = PMG(("identity",), 3, None)(images)
    assert torch.equal(clips, images[:, :, None].expand(-1, -1, 3, -1, -1))
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        pixels = torch.rand(2, 3, 21, 34).to(dtype)
        clips = PMG(("identity",), 3, None)(pixels)
        assert clips.dtype == dtype
        torch.testing.assert_close(clips, pixels[:, :, None].expand(-1, -1, 3, -1, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("reads_previous", [False, True])
def test_whole_pixel_shift_is_exact(reads_previous):
    images = torch.randint(0, 256, (1, 3, 20, 30), dtype=torch.uint8)
    step = np.array([[1.0, 0, 2], [0, 1, -3], [0, 0, 1]])
    homography = [np.linalg.matrix_power(step, k if not reads_previous else min(k, 1)) for k in range(4)]
    clips = PMG(("identity",), 4, None).render(images, plan_for(homography, (20, 30), (20, 30), reads_previous))
    for k in range(4):
        expected = torch.zeros_like(images[0])
        expected[:, : 20 - 3 * k, 2 * k :] = images[0, :, 3 * k :, : 30 - 2 * k]
        assert torch.equal(clips[0, :, k], expected)


def test_quarter_turn_and_flip_are_exact():
    images = torch.randint(0, 256, (1, 3, 20, 20), dtype=torch.uint8)
    quarter = np.array([[0.0, -1, 19], [1, 0, 0], [0, 0, 1]])  # (x, y) -> (19 - y, x): clockwise on the screen
    flip = np.array([[-1.0, 0, 19], [0, 1, 0], [0, 0, 1]])
    clips = PMG(("identity",), 2, None).render(images, plan_for([quarter, flip], (20, 20), (20, 20)))
    assert torch.equal(clips[0, :, 0], torch.rot90(images[0], -1, (1, 2)))
    assert torch.equal(clips[0, :, 1], images[0].flip(-1))


def test_halving_is_a_mean_over_blocks():
    """Images two or four times as large as the frame: each pixel is the mean of its block, as with OpenCV's INTER_AREA."""
    import cv2

    images = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    for factor in (2, 4):
        clips = PMG(("identity",), 1, (64 // factor, 96 // factor))(images)
        area = cv2.resize(images[0].permute(1, 2, 0).numpy(), (96 // factor, 64 // factor), interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(clips[0, :, 0].permute(1, 2, 0), area, atol=1e-12)


def test_large_sources_do_not_alias():
    """At every reduction above 1.5, a one-pixel checkerboard becomes gray, and a noise image keeps its mean."""
    board = (torch.arange(240)[:, None] + torch.arange(240)) % 2
    images = board.double().expand(1, 3, 240, 240)
    for side in (120, 96, 80, 50, 31, 10):
        clips = PMG(("identity",), 1, side)(images)
        assert (clips - 0.5).abs().max() < 0.02, side


def test_enlarging_has_no_dark_edges():
    images = torch.ones(2, 3, 10, 14)
    for name in ("identity", "sliding_window", "zoom", "cutmix"):
        for size in ((40, 50), (9, 40), (4, 3)):
            torch.testing.assert_close(PMG((name,), 5, size, crop=(0.3, 1.0))(images), torch.ones(2, 3, 5, *size))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_channels(dtype, channels, smooth):
    """Clips of every dtype equal the float64 clip of the same images, rounded once at the end."""
    names = [name for name in NAMES if channels == 3 or name not in ("fade", "color_jitter")]
    images = smooth(8, channels, 30, 34)
    images = (images * 255).round().to(dtype) if dtype == torch.uint8 else images.to(dtype)
    exact = images.double() / (255 if dtype == torch.uint8 else 1)
    pmg = PMG(names, 4, 24)
    ids = torch.arange(8)
    clips, expected = pmg(images, ids=ids), pmg(exact, ids=ids)
    assert clips.dtype == dtype
    if dtype == torch.uint8:
        assert (clips.double() - expected * 255).abs().max() < 0.51
    else:
        tolerance = {torch.float16: 2**-11, torch.bfloat16: 2**-8}.get(dtype, 2e-5)
        torch.testing.assert_close(clips.double(), expected, atol=tolerance, rtol=tolerance)


def test_a_zoom_goes_through_the_levels_of_the_pyramid(smooth):
    pmg = PMG({Zoom((1.15, 1.15)): 1}, 12, 40)
    images = smooth(1, 3, 150, 150)
    plan = pmg.plan(images.shape, ids=torch.tensor([0]))
    assert plan.detail.min() == 0
    assert plan.detail.max() > 1
    np.testing.assert_allclose(pmg.render(images, plan), oracle.render(images, plan), atol=1e-9)


def test_layers_over_a_recursive_back_are_not_fed_back(smooth):
    """A layer over an affine recursion: the float64 oracle paints it over each finished frame of the back."""
    images = smooth(6, 3, 37, 45)
    ids = torch.arange(6)
    moving, boxed = (PMG((name,), 6, (33, 29)).plan(images.shape, ids=ids) for name in ("affine", "cutmix"))
    layers = dataclasses.replace(boxed.layers, opacity=torch.linspace(0, 1, 36).view(6, 1, 6))
    plan = dataclasses.replace(moving, layers=layers)
    clips = render(images, plan)
    np.testing.assert_allclose(clips, oracle.render(images, plan), atol=1e-9)
    bare = render(images, moving)
    assert (clips != bare).any()
    inside = oracle.fields(plan)["opacity"][:, 1] > 0
    assert torch.equal(clips[0, :, ~torch.tensor(inside[0])], bare[0, :, ~torch.tensor(inside[0])])


def test_textures_of_their_own_size(smooth):
    """Layers that show textures, of another size and number than the images, do not depend on the rest of the batch."""
    images, textures = smooth(4, 3, 37, 45), smooth(7, 3, 90, 61)
    boxed = PMG(("cutmix",), 5, (33, 29)).plan(textures[:4].shape, ids=torch.arange(4))
    back = PMG(("affine",), 5, (33, 29)).plan(images.shape, ids=torch.arange(4)).back
    layers = dataclasses.replace(boxed.layers, texture=torch.tensor([[6], [0], [3], [3]]))
    plan = dataclasses.replace(boxed, back=back, layers=layers, image_size=(37, 45), texture_size=(90, 61))
    clips = render(images, plan, textures=textures)
    np.testing.assert_allclose(clips, oracle.render(images, plan, textures), atol=1e-9)
    with pytest.raises(ValueError, match=r"textures for this plan must be given, of size \(90, 61\); got None"):
        render(images, plan)
    with pytest.raises(ValueError, match="textures must have the channels, dtype and device of images"):
        render(images, plan, textures=textures.float())
    with pytest.raises(ValueError, match="textures for this plan must be None, because its layers show images"):
        render(textures[:4], boxed, textures=textures)


@pytest.mark.parametrize("feather", [0.5, 4.0])
def test_feathered_edges(feather, smooth):
    images = smooth(2, 3, 37, 45)
    plan = PMG(("cutmix",), 3, (33, 29)).plan(images.shape, ids=torch.arange(2))
    outline = plan.layers.outline.clone()
    outline[..., 1] = feather
    feathered = dataclasses.replace(plan, layers=dataclasses.replace(plan.layers, outline=outline))
    np.testing.assert_allclose(render(images, feathered), oracle.render(images, feathered), atol=1e-9)
    assert not torch.equal(render(images, feathered), render(images, plan))


def test_output_is_written_everywhere(smooth, monkeypatch):
    """Memory is filled with NaN first, so unwritten pixels are noticed."""
    images = smooth(8, 3, 30, 34, dtype=torch.float32)
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda like, *shape, **options: like.new_full(shape, float("nan"), **options))
    assert images.new_empty(2, 3).isnan().all()
    for dtype in (torch.float32, torch.bfloat16):
        assert PMG(tuple(NAMES), 4, 24, mix=Mixup(), dtype=dtype)(images, ids=torch.arange(8)).isfinite().all()


@pytest.mark.parametrize(("batch", "num_frames"), [(0, 4), (0, 1), (1, 1), (1, 4), (3, 1)])
def test_small_batches_and_single_frames(batch, num_frames):
    for names in [*((name,) for name in NAMES), tuple(NAMES)]:
        for resampling in ("recursive", "composed"):
            clips = PMG(names, num_frames, (8, 10), resampling=resampling)(torch.rand(batch, 3, 12, 9))
            assert clips.shape == (batch, 3, num_frames, 8, 10)
            assert clips.isfinite().all()


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_gradients_reach_the_images(resampling):
    """gradcheck for all transforms at once, in random directions (fast mode); a full Jacobian would take minutes."""
    images = (torch.rand(24, 3, 7, 6, dtype=torch.float64) * 0.5 + 0.25).requires_grad_()
    pmg = PMG(NAMES, 3, 5, resampling=resampling, mix=Mixup())
    plan = pmg.plan(images.shape, ids=torch.arange(24))
    assert set(plan.transform.tolist()) == set(range(len(NAMES)))
    assert torch.autograd.gradcheck(lambda x: pmg.render(x, plan), images, atol=1e-6, fast_mode=True)


def test_mixing_with_the_partner(smooth):
    images = smooth(6, 3, 24, 24)
    pmg = PMG(("zoom", "affine"), 4, 20)
    plan = dataclasses.replace(
        pmg.plan(images.shape, ids=torch.arange(6)),
        blend=Blend(
            partner=torch.tensor([1, 2, 3, 4, 5, 0]),
            weight=torch.tensor([0, 0.25, 0.5, 1, 1, 0.3]),
            box=torch.tensor([[-0.5, -0.5, 19.5, 19.5]] * 4 + [[2.5, 3.5, 9.5, 15.5], [0, 0, 10, 5]]),
            frames=torch.tensor([[0, 4]] * 4 + [[0, 4], [1, 3]]),
        ),
    )
    mixed = pmg.render(images, plan)
    np.testing.assert_allclose(mixed, oracle.render(images, plan), atol=1e-9)
    alone = pmg.render(images, dataclasses.replace(plan, blend=None))
    assert torch.equal(mixed[0], alone[0])
    assert torch.equal(mixed[3], alone[4])
    assert torch.equal(mixed[4, :, :, 4:16, 3:10], alone[5, :, :, 4:16, 3:10])
    assert torch.equal(mixed[4, :, :, :4], alone[4, :, :, :4])
    assert torch.equal(mixed[5, :, [0, 3]], alone[5, :, [0, 3]])
    assert not torch.equal(mixed[5, :, 1], alone[5, :, 1])


def test_compiled_it_gives_the_same_clips():
    program = Path(__file__).with_name("compiled.py")
    environment = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # no pool of processes for a few small kernels
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("ok\n"), done.stderr


def test_rendering_is_kornias_recursion(stained_glass):
    """The paper's equation 1 as a user would write it with kornia."""
    from kornia.geometry.transform import warp_perspective

    image = stained_glass[None, :, :224, :224].double() / 255
    pmg = PMG(("affine",), 6, 224)
    plan = pmg.plan(image.shape, ids=torch.tensor([4]))
    clip = pmg.render(image, plan)
    frame = image
    for k in range(1, 6):
        frame = warp_perspective(frame, plan.back.motion.homography[:, k].double(), (224, 224), align_corners=True)
        torch.testing.assert_close(clip[:, :, k], frame, atol=1e-5, rtol=0)  # kornia 0.8 is off by 5e-6
