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

from pseudomotion import PMG, TRANSFORMS, MotionPlan
from pseudomotion.mix import Mixup, VideoMix
from pseudomotion.render import memory, reference
from pseudomotion.transforms import Zoom

NAMES = list(TRANSFORMS)
PADDING = ["zeros", "border", "reflection"]
SIZES = [
    ((37, 45), (33, 29)),  # about equal: no reduction
    ((90, 121), (31, 40)),  # past twice the frame: a halved copy, and blends
    ((20, 24), (33, 47)),  # enlarged
    ((200, 230), (21, 24)),  # far larger: several levels
]


def plan_for(homography, source_size, frame_size, reads_previous=False):
    """A plan of one clip and one layer from homographies (T, 3, 3)."""
    homography = torch.as_tensor(np.asarray(homography), dtype=torch.float32)[None, None]
    t = homography.shape[2]
    h, w = frame_size
    return MotionPlan(
        source=torch.zeros(1, 1, dtype=torch.int64),
        homography=homography,
        color=torch.eye(3, 4).expand(1, 1, t, 3, 4),
        box=torch.tensor([[[-0.5, -0.5, source_size[1] - 0.5, source_size[0] - 0.5]]]),
        opacity=torch.ones(1, 1, t),
        reads_previous=torch.tensor([reads_previous]),
        partner=torch.zeros(1, dtype=torch.int64),
        partner_weight=torch.zeros(1),
        partner_box=torch.tensor([[-0.5, -0.5, w - 0.5, h - 0.5]]),
        partner_frames=torch.tensor([[0, t]]),
        transform=torch.tensor([0]),
        source_size=source_size,
        frame_size=frame_size,
    )


@pytest.mark.parametrize("padding_mode", PADDING)
@pytest.mark.parametrize("resampling", ["recursive", "composed"])
@pytest.mark.parametrize("name", NAMES)
def test_every_frame_is_the_oracles(name, resampling, padding_mode, smooth):
    """float32 within 2e-5 (design: 1e-4 per resampling), float64 within 1e-9."""
    for source, frame in SIZES:
        images = smooth(3, 3, *source)
        pmg = PMG((name,), 6, frame, resampling=resampling, padding_mode=padding_mode, crop=(0.5, 1.0))
        plan = pmg.plan(images.shape, ids=torch.arange(3))
        expected = oracle.render(images, plan, padding_mode)
        np.testing.assert_allclose(pmg.render(images, plan), expected, atol=1e-9)
        np.testing.assert_allclose(pmg.render(images.float(), plan), expected, atol=2e-5)


@pytest.mark.parametrize("padding_mode", PADDING)
def test_mixed_batches_are_the_oracles(padding_mode, smooth):
    images = smooth(16, 3, 70, 60)
    pmg = PMG(tuple(NAMES), 5, (31, 27), padding_mode=padding_mode, crop=(0.1, 1.0))
    plan = pmg.plan(images.shape, ids=torch.arange(16))
    assert len(plan.transform.unique()) > 5
    np.testing.assert_allclose(pmg.render(images, plan), oracle.render(images, plan, padding_mode), atol=1e-9)


@pytest.mark.parametrize("padding_mode", PADDING)
@pytest.mark.parametrize(("source", "frame"), [((1, 9), (7, 6)), ((9, 1), (5, 8)), ((7, 5), (1, 1)), ((1, 1), (3, 2)), ((2, 2), (1, 5))])
def test_sides_of_one_pixel(source, frame, padding_mode, smooth):
    images = smooth(8, 3, *source)
    pmg = PMG(tuple(NAMES), 3, frame, padding_mode=padding_mode)
    plan = pmg.plan(images.shape, ids=torch.arange(8))
    np.testing.assert_allclose(pmg.render(images, plan), oracle.render(images, plan, padding_mode), atol=1e-9)


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
    """A source twice, or four times, as large: each pixel the mean of its block, as OpenCV's INTER_AREA."""
    import cv2

    images = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    for factor in (2, 4):
        clips = PMG(("identity",), 1, (64 // factor, 96 // factor))(images)
        area = cv2.resize(images[0].permute(1, 2, 0).numpy(), (96 // factor, 64 // factor), interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(clips[0, :, 0].permute(1, 2, 0), area, atol=1e-12)


def test_large_sources_do_not_alias():
    """A chequerboard of single pixels turns grey at every reduction past 1.5, and the means of a noise image stay."""
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
    """Every pixel type is the float64 clip of the same pixels, rounded once at the end."""
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


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_a_few_frames_at_a_time_are_the_same_clips(resampling, smooth, monkeypatch):
    """Large frames are painted in pieces that fit into a cache; here the cache is too small for any two."""
    calls = []
    sample = torch.nn.functional.grid_sample
    monkeypatch.setattr(torch.nn.functional, "grid_sample", lambda *a, **k: calls.append(1) or sample(*a, **k))
    for names, source in ((tuple(NAMES), (70, 60)), (("affine",), (31, 27)), (("cutmix",), (31, 27))):
        images = smooth(13, 3, *source)
        pmg = PMG(names, 19, (31, 27), resampling=resampling, crop=(0.1, 1.0))
        plan = pmg.plan(images.shape, ids=torch.arange(13))
        calls.clear()
        whole, few = pmg.render(images, plan), len(calls)
        with monkeypatch.context() as patch:
            patch.setattr(reference, "CACHE", 1)
            patch.setattr(torch, "get_num_threads", lambda: 2)
            pieces = pmg.render(images, plan)
        assert len(calls) > 2 * few
        torch.testing.assert_close(pieces, whole, atol=1e-12, rtol=0)
        np.testing.assert_allclose(pieces, oracle.render(images, plan), atol=1e-9)


def test_a_frame_reads_the_levels_it_needs_and_no_other(smooth, monkeypatch):
    """One where its scale is that of a level, else the two it lies between."""
    pmg = PMG({Zoom((1.15, 1.15)): 1}, 12, 40)
    images = smooth(1, 3, 150, 150)
    plan = pmg.plan(images.shape, ids=torch.tensor([0]))
    detail = plan.detail[0, 0]
    assert detail.min() == 0
    assert detail.max() > 1
    frames = []
    sample = torch.nn.functional.grid_sample
    monkeypatch.setattr(torch.nn.functional, "grid_sample", lambda x, grid, **k: frames.append(len(grid)) or sample(x, grid, **k))
    clips = pmg.render(images, plan)
    assert sum(frames) == sum(1 if level == level.round() else 2 for level in detail)
    np.testing.assert_allclose(clips, oracle.render(images, plan), atol=1e-9)


@pytest.mark.parametrize("data_format", ["BCTHW", "BTCHW"])
@pytest.mark.parametrize("num_frames", [3, 11])
def test_a_few_frames_finished_at_a_time_are_the_same_clips(num_frames, data_format, smooth, monkeypatch):
    images, partners = smooth(7, 3, 31, 27, dtype=torch.float32), smooth(7, 3, 31, 27, dtype=torch.float32)
    for mix in (None, Mixup(), VideoMix()):
        finish = {"mix": mix, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "dtype": torch.bfloat16, "data_format": data_format}
        for extra in (finish, {"mix": mix, "dtype": torch.uint8, "data_format": data_format}):
            pmg = PMG(("zoom", "affine"), num_frames, (31, 27), **extra)
            whole = pmg(images, ids=torch.arange(7), partner_images=partners)
            with monkeypatch.context() as patch:
                patch.setattr(reference, "CACHE", 1)
                patch.setattr(torch, "get_num_threads", lambda: 1)
                pieces = pmg(images, ids=torch.arange(7), partner_images=partners)
            assert pieces.is_contiguous()
            torch.testing.assert_close(pieces.float(), whole.float(), atol=1 if whole.dtype == torch.uint8 else 1e-5, rtol=2**-7)


def test_output_is_written_everywhere(smooth, monkeypatch):
    """Unwritten memory would show as NaN, which bytes of 255 make in any float type."""
    images = smooth(8, 3, 30, 34, dtype=torch.float32)
    empty = np.empty

    def poisoned(*args, **options):
        made = empty(*args, **options)
        made.view(np.uint8).fill(255)
        return made

    monkeypatch.setattr(np, "empty", poisoned)
    assert memory.empty((2, 3), torch.float32, images.device).isnan().all()
    for dtype in (torch.float32, torch.bfloat16):
        assert PMG(tuple(NAMES), 4, 24, mix=Mixup(), dtype=dtype)(images, ids=torch.arange(8)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 3), (300, 3, 5, 64)])
def test_memory_is_as_asked_for(shape, dtype):
    made = memory.empty(shape, dtype, torch.device("cpu"))
    assert (made.shape, made.dtype) == (shape, dtype)
    assert made.is_contiguous()
    assert made.fill_(1).sum(dtype=torch.float64) == made.numel()


@pytest.mark.parametrize(("batch", "num_frames"), [(0, 4), (0, 1), (1, 1), (1, 4), (3, 1)])
def test_small_batches_and_single_frames(batch, num_frames):
    for names in [*((name,) for name in NAMES), tuple(NAMES)]:
        for resampling in ("recursive", "composed"):
            clips = PMG(names, num_frames, (8, 10), resampling=resampling)(torch.rand(batch, 3, 12, 9))
            assert clips.shape == (batch, 3, num_frames, 8, 10)
            assert clips.isfinite().all()


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_gradients_reach_the_images(resampling):
    """Of all transforms at once, in random directions (fast mode), which a full Jacobian would take minutes for."""
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
        partner=torch.tensor([1, 2, 3, 4, 5, 0]),
        partner_weight=torch.tensor([0, 0.25, 0.5, 1, 1, 0.3]),
        partner_box=torch.tensor([[-0.5, -0.5, 19.5, 19.5]] * 4 + [[2.5, 3.5, 9.5, 15.5], [0, 0, 10, 5]]),
        partner_frames=torch.tensor([[0, 4]] * 4 + [[0, 4], [1, 3]]),
    )
    mixed = pmg.render(images, plan)
    np.testing.assert_allclose(mixed, oracle.render(images, plan), atol=1e-9)
    alone = pmg.render(images, dataclasses.replace(plan, partner_weight=torch.zeros(6)))
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
        frame = warp_perspective(frame, plan.homography[:, 0, k].double(), (224, 224), align_corners=True)
        torch.testing.assert_close(clip[:, :, k], frame, atol=1e-6, rtol=0)
