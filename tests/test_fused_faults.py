"""Faults of the CUDA kernels that right pixels in Triton's interpreter do not exclude: races, wild addresses, stale memory, rounding.

Every check is shown to find a mistake that is planted in the kernels. With a GPU, compute-sanitizer and ``test_gpu`` check these.
"""

import dataclasses
import importlib
import os
import re
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from shapes import shaped_plan

pytest.importorskip("triton", reason="the fused renderer needs Triton, which is not installed")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("watches Triton's interpreter, which is off where there is a CUDA device", allow_module_level=True)

import interpreter
import triton
import triton.language as tl

from pseudomotion import PMG
from pseudomotion.mix import Mixup, VideoMix
from pseudomotion.plan import Blend
from pseudomotion.render.cuda import launch
from pseudomotion.render.cuda.pixels import permute
from pseudomotion.render.output import Output


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    interpreter.poison_allocations(monkeypatch)


def render(launch, images, plan, **options):
    """Clips of the same dtype as the images, not normalized."""
    textures = options.pop("textures", None)
    return launch.render(images, plan, Output(len(images), None, None, images.dtype, "BCTHW"), textures, **options)


@pytest.mark.parametrize(
    ("resampling", "mix"),
    [("recursive", None), ("recursive", Mixup()), ("composed", None), ("composed", VideoMix(mode="spatiotemporal"))],
)
def test_programs_do_not_meet(resampling, mix, smooth, monkeypatch):
    """No races, no address outside a tensor, every value of the clips written once: whatever the order of programs and the chunks."""
    images, watch = smooth(3, 3, 24, 20, dtype=torch.float32), small_programs(launch, monkeypatch)
    pmg = PMG(("affine", "cutmix", "color_jitter"), 2, (9, 8 if mix else 10), resampling=resampling, mix=mix, crop=(0.3, 1.0))
    plan = pmg.plan(images.shape, ids=torch.tensor([1, 2, 3]))
    assert plan.reduces
    clips = written_once(launch, watch, images, plan)
    np.testing.assert_allclose(clips, oracle.render(images, plan), atol=1e-4, rtol=0)
    if resampling == "recursive":
        assert torch.equal(written_once(launch, watch, images, plan, chunk=2), clips)


def test_programs_of_layers_do_not_meet(smooth, monkeypatch):
    """Bent layers that show textures, over backs that are bent, too; some recursive."""
    images, textures = smooth(2, 3, 12, 14, dtype=torch.float32), smooth(3, 3, 20, 18, dtype=torch.float32)
    watch = small_programs(launch, monkeypatch)
    plan = shaped_plan(
        ("affine", "zoom"), batch=2, frames=2, layers=2, image=(12, 14), texture=(20, 18), size=(9, 8), kinds=("ring", "blob")
    )
    clips = written_once(launch, watch, images, plan, textures=textures)
    np.testing.assert_allclose(clips, oracle.render(images, plan, textures), atol=1e-4, rtol=0)


def small_programs(launch, monkeypatch):
    """Make several programs of a frame, and of an image, and watch them."""
    for name, value in {"ROWS": 8, "COLS": 8, "BLOCK": 128, "WAVES": 4, "PROCESSORS": 2}.items():
        monkeypatch.setattr(launch, name, value)
    return interpreter.Watch(monkeypatch)


def written_once(launch, watch, images, plan, **options):
    watch.written.clear()
    clips = render(launch, images, plan, **options)
    assert (watch.written[clips.untyped_storage().data_ptr()] == 1).all(), "values of clips are written more or less often than once"
    return clips


@pytest.mark.parametrize(
    ("module", "right", "wrong"),
    [
        ("clips", "before = working + ((frame + 1) % 2", "before = working + (frame % 2"),
        ("clips", "store(place - frame_stride + at", "store(place + at"),
        ("launch", "clips, first, surfaces, slots", "clips, 0, surfaces, slots"),
        ("pixels", "tl.minimum(tl.maximum(at, low), high)", "tl.minimum(at, high)"),
        ("clips", "mask = (line < h) & (column < w)", "mask = line < h"),
    ],
)
def test_the_watch_finds_mistakes(module, right, wrong, smooth, monkeypatch, tmp_path):
    """Kernels with a mistake, each of which may write right clips when programs happen to run in order."""
    mutant = mutated(module, right, wrong, monkeypatch, tmp_path)
    images, watch = smooth(2, 3, 9, 10, dtype=torch.float32), small_programs(mutant, monkeypatch)
    plan = PMG(("affine",), 2, (9, 10)).plan(images.shape, ids=torch.arange(2))
    plan.back.motion.homography[:, :, :2, 2] += 2  # reads beyond the upper left edge of the image
    plan = dataclasses.replace(plan, blend=halves(2) if "frame_stride" in right else None)
    with pytest.raises(AssertionError, match=r"outside every tensor|two programs write|a program reads what|more or less often"):
        written_once(mutant, watch, images, plan, chunk=2 if plan.mixes else 1)


def mutated(module, right, wrong, monkeypatch, tmp_path):
    """The renderer's modules, copied with a change in one of them; returns the copy of ``launch``."""
    for name in ("table", "plans", "pixels", "clips", "launch"):
        text = (Path(launch.__file__).parent / f"{name}.py").read_text()
        if name == module:
            assert right in text
            text = text.replace(right, wrong)
        text = re.sub(r"pseudomotion\.render\.cuda\.(\w+) import", r"mutant_\1 import", text)
        text = re.sub(r"from pseudomotion\.render\.cuda import (\w+) as", r"import mutant_\1 as", text)
        (tmp_path / f"mutant_{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, f"mutant_{name}", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("mutant_launch")


def halves(frames):
    """Two clips of 9 x 10 pixels, each mixed with half of the other."""
    return Blend(torch.tensor([1, 0]), torch.full((2,), 0.5), torch.tensor([[-0.5, -0.5, 9.5, 8.5]] * 2), torch.tensor([[0, frames]] * 2))


@pytest.mark.parametrize("mixed", [False, True])
def test_working_frames_are_written_before_they_are_read(mixed, smooth, monkeypatch):
    """Over several chunks, the last with fewer clips than slots."""
    images = smooth(3, 3, 12, 10, dtype=torch.float32)
    plan = PMG(("affine",), 3, (9, 8), mix=Mixup() if mixed else None).plan(images.shape, ids=torch.arange(3))
    expected = render(launch, images, plan)
    interpreter.poison_between_launches(launch, monkeypatch)
    assert torch.equal(render(launch, images, plan), expected)
    assert torch.equal(render(launch, images, plan, chunk=2), expected)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("ASM), mask=mask)\n            if not MIXES", "ASM), mask=mask & (line > 0))\n            if not MIXES"),
        ("if (frame > 0) & ((flags & RECURSIVE) != 0):", "if (flags & RECURSIVE) != 0:"),
        ("mask = (line < h) & (column < w)", "mask = (line < h + 1) & (column < w)"),
    ],
)
def test_stale_working_frames_are_noticed(right, wrong, smooth, monkeypatch, tmp_path):
    """A row that is not written, which by luck should be black; the frame before the first; a border that is written."""
    mutant = mutated("clips", right, wrong, monkeypatch, tmp_path)
    images = smooth(2, 3, 9, 10, dtype=torch.float32)
    plan = PMG(("affine",), 3, (9, 10)).plan(images.shape, ids=torch.arange(2))
    plan.back.motion.homography[:, :, 1, 2] += 3  # the first rows see nothing of the image
    expected = oracle.render(images, plan)
    if "line > 0" in wrong:
        np.testing.assert_allclose(render(mutant, images, plan), expected, atol=1e-3, rtol=0)
    interpreter.poison_between_launches(mutant, monkeypatch)
    with pytest.raises(AssertionError, match=r"the border of working frames is written|Not equal to tolerance"):
        np.testing.assert_allclose(render(mutant, images, plan), expected, atol=1e-3, rtol=0)


@triton.jit
def multiplied_and_added(a, b, c, out):
    at = tl.arange(0, 64)
    tl.store(out + at, tl.load(a + at) * tl.load(b + at) - tl.load(c + at))
    tl.store(out + 64 + at, tl.load(c + at) - tl.load(a + at) * tl.load(b + at))


def test_contraction_is_emulated(monkeypatch):
    """A product less itself, rounded, is the error of rounding, which nothing shows unless products are exact."""
    a, b = torch.rand(2, 64)
    rounded, made = a * b, torch.empty(128)
    error = a.double() * b.double() - rounded.double()
    assert (error != 0).sum() > 50
    multiplied_and_added[(1,)](a, b, rounded, made)
    assert (made == 0).all()
    interpreter.contract(monkeypatch)
    multiplied_and_added[(1,)](a, b, rounded, made)
    assert torch.equal(made.double(), torch.cat([error, -error]))


@pytest.mark.parametrize(("resampling", "padding_mode"), [("recursive", "zeros"), ("composed", "reflection")])
def test_contraction_stays_within_the_tolerance(resampling, padding_mode, smooth, monkeypatch):
    """Perspective, colors, reduced images, mixing; the last bits differ."""
    images = smooth(5, 3, 40, 50, dtype=torch.float32)
    options = {"resampling": resampling, "padding_mode": padding_mode, "mix": Mixup(), "crop": (0.1, 1.0)}
    plan = PMG(("zoom", "affine", "perspective", "color_jitter"), 2, (9, 11), **options).plan(images.shape, ids=torch.arange(5))
    assert plan.reduces
    assert len(plan.transform.unique()) == 4
    rounded = render(launch, images, plan)
    interpreter.contract(monkeypatch)
    clips = render(launch, images, plan)
    assert not torch.equal(clips, rounded)
    np.testing.assert_allclose(clips, oracle.render(images, plan), atol=1e-4, rtol=0)


def test_contraction_does_not_add_up_over_fifteen_steps(smooth, monkeypatch):
    interpreter.contract(monkeypatch)
    images = smooth(2, 3, 19, 17, dtype=torch.float32)
    plan = PMG(("affine", "perspective"), 16, (17, 15)).plan(images.shape, ids=torch.arange(2))
    np.testing.assert_allclose(render(launch, images, plan), oracle.render(images, plan), atol=2e-3, rtol=0)


def test_contraction_keeps_bytes(monkeypatch):
    """The identity, and values halfway between two levels, which round to the even one."""
    interpreter.contract(monkeypatch)
    images = torch.randint(0, 256, (1, 3, 21, 34), dtype=torch.uint8)
    pmg = PMG(("identity",), 1, None)
    assert torch.equal(render(launch, images, pmg.plan(images.shape))[:, :, 0], images)
    halfway = (torch.arange(256)[:, None] + torch.tensor([0.0, 0.5])).clamp(max=255)[None, None] / 255
    clips = launch.render(halfway, pmg.plan(halfway.shape), Output(1, None, None, torch.uint8, "BCTHW"))
    assert torch.equal(clips[:, :, 0], (halfway * 255).round().to(torch.uint8))


def test_permutation_without_assembly():
    """The bytes that PTX's ``prmt`` selects: digit k of the selector names the result's byte k, 0 to 3 of a and 4 to 7 of b."""
    words = np.random.default_rng(0).integers(-(2**31), 2**31, 256, dtype=np.int64).astype(np.int32)
    magic = {"0x74": 0x43000000, "0x71": 0x3F000000, "0x73": 0x3F000000, "0x65": None}
    for selector in ("0x7404", "0x7414", "0x7424", "0x7434", "0x7104", "0x7324", "0x6521"):
        other = words[::-1].copy() if magic[selector[:4]] is None else np.full_like(words, magic[selector[:4]])
        chosen = [int(digit, 16) for digit in reversed(selector[2:])]
        expected = np.concatenate([words.view(np.uint8).reshape(-1, 4), other.view(np.uint8).reshape(-1, 4)], 1)[:, chosen]
        made = torch.zeros(256, dtype=torch.int32)
        permuted[(1,)](torch.from_numpy(words), torch.from_numpy(other), made, SELECTOR=selector)
        np.testing.assert_array_equal(made.numpy().view(np.uint8).reshape(-1, 4), expected)


@triton.jit
def permuted(a, b, out, SELECTOR: tl.constexpr):
    at = tl.arange(0, 256)
    tl.store(out + at, permute(tl.load(a + at), tl.load(b + at), SELECTOR, False))
