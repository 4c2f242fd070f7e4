"""The compiled renderer for CPUs, against the float64 oracle and the reference."""

import dataclasses
import multiprocessing
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from unittest import mock

import agreement
import numpy as np
import oracle
import pytest
import torch
from agreement import FLOATS, MEAN, PADDING, SIZES, STD
from hypothesis import given
from hypothesis import strategies as st
from shapes import bends, cut_outs, shaped_plan

from pseudomotion import PMG, TRANSFORMS
from pseudomotion import render as rendering
from pseudomotion.mix import Mixup, VideoMix
from pseudomotion.motion import Layers, Motion
from pseudomotion.plan import Blend
from pseudomotion.render import choose
from pseudomotion.render.output import Output

pytest.importorskip("llvmlite", reason="the renderer for CPUs needs llvmlite, which is not installed")

from pseudomotion.render.cpu import compiler, launch, machine

NAMES = tuple(TRANSFORMS)
GUARD = 4096  # bytes before and behind every buffer


@pytest.fixture(autouse=True)
def guards(monkeypatch):
    """Memory is full of NaN, or 255, at first, and what lies around it must not change."""
    buffers = []

    def guarded(size):
        whole = np.full(size + 2 * GUARD + launch.LINE, 255, np.uint8)  # as float32: NaN
        whole = whole[-whole.ctypes.data % launch.LINE :]
        buffers.append((whole, size))
        return whole[GUARD : GUARD + size]

    allocate = launch._empty

    def empty(shape, dtype):
        if 0 in shape:
            return allocate(shape, dtype)
        return torch.from_numpy(guarded(int(np.prod(shape)) * dtype.itemsize)).view(dtype).view(shape)

    def memory(self, size):
        self._bytes = guarded(size)
        self.address = self._bytes.ctypes.data

    monkeypatch.setattr(launch, "_empty", empty)
    monkeypatch.setattr(launch._Memory, "__init__", memory)
    yield buffers
    check_guards(buffers)


def check_guards(buffers):
    for whole, size in buffers:
        assert (whole[:GUARD] == 255).all()
        assert (whole[GUARD + size :] == 255).all()


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def clips_of(images, plan, *, textures=None, mean=None, std=None, dtype=None, data_format="BCTHW"):
    return launch.render(images, plan, Output(len(images), mean, std, dtype or images.dtype, data_format), textures)


def rendered(pmg, images, plan):
    return clips_of(images, plan, dtype=pmg.dtype)


check = partial(agreement.check, rendered)


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
@pytest.mark.parametrize("name", NAMES)
def test_every_transform(name, resampling, smooth):
    check((name,), smooth(2, 3, 13, 16, dtype=torch.float32), 3, (9, 11), resampling=resampling, crop=(0.5, 1.0))


@pytest.mark.parametrize("padding_mode", PADDING)
@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_mixed_batches(resampling, padding_mode, smooth):
    """All transforms in one batch, of images of the frames' size, larger ones, and ones that are reduced several times."""
    for source in ((9, 11), (12, 15), (40, 50), (200, 130)):
        images = smooth(9, 3, *source, dtype=torch.float32)
        plan = check(NAMES, images, 3, (9, 11), resampling=resampling, padding_mode=padding_mode, crop=(0.1, 1.0))
        assert len(plan.transform.unique()) > 4


@pytest.mark.parametrize("padding_mode", PADDING)
@pytest.mark.parametrize(("source", "frame"), SIZES)
def test_sizes(source, frame, padding_mode, smooth):
    check(("perspective", "cutmix"), smooth(2, 3, *source, dtype=torch.float32), 2, frame, padding_mode=padding_mode)


def test_fifteen_recursive_steps(smooth):
    check(("affine", "perspective", "color_jitter"), smooth(3, 3, 39, 37, dtype=torch.float32), 16, (37, 35), atol=2e-3)


@pytest.mark.parametrize(("batch", "num_frames"), [(0, 2), (0, 1), (1, 1), (1, 2)])
def test_small_batches_and_single_frames(batch, num_frames, smooth):
    for resampling in ("recursive", "composed"):
        check(("affine", "cutmix"), smooth(batch, 3, 9, 8, dtype=torch.float32), num_frames, (5, 6), resampling=resampling)


def mixing_plan(images, resampling, num_frames=3, size=(9, 11)):
    plan = PMG(("zoom", "affine", "cutmix"), num_frames, size, resampling=resampling).plan(images.shape, ids=torch.arange(6))
    blend = Blend(
        partner=torch.tensor([1, 2, 3, 4, 4, 0]),
        weight=torch.tensor([0, 0.25, 0.5, 1, 1, 0.3]),
        box=torch.tensor([[-0.5, -0.5, 10.5, 8.5]] * 4 + [[2.5, 3.5, 6.5, 7.5], [0, 0, 5, 4]]),
        frames=torch.tensor([[0, 3], [0, 3], [1, 2], [2, 3], [0, 3], [0, 1]]),
    )
    return dataclasses.replace(plan, blend=blend)


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_mixing_with_the_partner(resampling, smooth):
    images = smooth(6, 3, 12, 14, dtype=torch.float32)
    plan = mixing_plan(images, resampling)
    expected = oracle.render(images, plan)
    assert np.abs(expected - oracle.render(images, dataclasses.replace(plan, blend=None))).max() > 0.1
    np.testing.assert_allclose(clips_of(images, plan), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_partner_images(resampling, smooth):
    images, partners = smooth(3, 3, 10, 12, dtype=torch.float32), smooth(3, 3, 10, 12, dtype=torch.float32)
    agreement.check_partner_images("auto", images, partners, resampling)


def layered_plan(images, texture_size, num_layers, *, recursive, count, padding_mode="zeros"):
    """Layers of random places, opacities, colors and softness, some of which are absent, over any back."""
    b, t = len(images), 3
    plan = PMG(("perspective",), t, (19, 22), resampling="recursive" if recursive else "composed", padding_mode=padding_mode).plan(
        images.shape, ids=torch.arange(b)
    )
    random = torch.Generator().manual_seed(1)
    number = lambda *shape: torch.rand(*shape, generator=random)  # noqa: E731
    homography = torch.eye(3) + (number(b, num_layers, t, 3, 3) - 0.5) * torch.tensor([[0.8, 0.6, 20], [0.6, 0.8, 20], [0.01, 0.01, 0.0]])
    color = torch.eye(3, 4) + (number(b, num_layers, t, 3, 4) - 0.5) * 0.3
    corner, (h, w) = number(b, num_layers, 2) * 8, texture_size
    layers = Layers(
        texture=torch.randint(count, (b, num_layers), generator=random),
        box=torch.cat([corner, corner + 2 + number(b, num_layers, 2) * torch.tensor([w - 11.0, h - 11.0])], -1),
        outline=torch.cat([torch.zeros(b, num_layers, 1), 0.5 + 3 * number(b, num_layers, 1)], -1),
        motion=Motion(homography, color),
        opacity=(number(b, num_layers, t) * 1.3 - 0.2).clamp(0, 1),
    )
    return dataclasses.replace(plan, layers=layers, texture_size=None if count == b else texture_size)


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("padding_mode", PADDING)
def test_layers_of_textures_over_any_back(padding_mode, recursive, smooth):
    images, textures = smooth(4, 3, 21, 18, dtype=torch.float32), smooth(5, 3, 25, 31, dtype=torch.float32)
    plan = layered_plan(images, (25, 31), 4, recursive=recursive, count=5, padding_mode=padding_mode)
    expected = rendering.render(images, plan, textures=textures, renderer="reference")
    bare = dataclasses.replace(plan, layers=dataclasses.replace(plan.layers, opacity=torch.zeros(4, 4, 3)))
    changed = (expected - rendering.render(images, bare, textures=textures, renderer="reference")).abs() > 0.02
    assert 0.1 < changed.float().mean() < 0.98
    torch.testing.assert_close(clips_of(images, plan, textures=textures), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("bent", [False, True])
@pytest.mark.parametrize("padding_mode", PADDING)
@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_outlines_and_bends(resampling, padding_mode, bent, smooth):
    """Of every kind, over every back, bent too, with layers that come and go."""
    images = smooth(11, 3, 37, 45)
    plan = shaped_plan(NAMES, resampling=resampling, padding_mode=padding_mode, bent=bent, mix=Mixup())
    clips = clips_of(images.float(), plan)
    np.testing.assert_allclose(clips, oracle.render(images, plan), atol=2e-5, rtol=0)
    torch.testing.assert_close(clips, rendering.render(images.float(), plan, renderer="reference"), atol=2e-5, rtol=0)


def test_bends_read_every_level_of_the_pyramid(smooth):
    images, textures = smooth(11, 3, 150, 190), smooth(13, 3, 210, 160)
    plan = shaped_plan(("zoom", "affine"), image=(150, 190), texture=(210, 160), size=(24, 31))
    assert plan.detail.max() > 2
    assert plan.layer_detail.max() > 0.5
    clips = clips_of(images.float(), plan, textures=textures.float())
    np.testing.assert_allclose(clips, oracle.render(images, plan, textures), atol=4e-5, rtol=0)


@pytest.mark.parametrize("size", [(24, 31), (60, 70)])
def test_textures_are_cut_out_by_alpha(size, smooth):
    images, textures = smooth(11, 3, 37, 45), cut_outs(smooth, 13, 4, 130, 110)
    plan = shaped_plan(NAMES, texture=(130, 110), size=size, mix=Mixup())
    clips = clips_of(images.float(), plan, textures=textures.float())
    np.testing.assert_allclose(clips, oracle.render(images, plan, textures), atol=4e-5, rtol=0)
    images, textures = ((255 * pixels).round().to(torch.uint8) for pixels in (images, textures))
    expected = 255 * oracle.render(images / 255, plan, textures / 255)
    np.testing.assert_allclose(clips_of(images, plan, textures=textures), expected, atol=0.51, rtol=0)


@pytest.mark.parametrize(("padding_mode", "grid", "side"), [("zeros", 8, 9), ("border", 5, 40), ("reflection", 3, 40), ("zeros", 1, 40)])
def test_bends_along_the_rows_of_frames(padding_mode, grid, side, smooth):
    """Where a row reads along a row of the image; with a grid of 8 over 9 pixels, four pixels lie in more than two of its columns."""
    images = smooth(3, 3, side, side)
    plan = PMG(("identity",), 4, side, padding_mode=padding_mode).plan(images.shape, ids=torch.arange(3))
    reads_previous = torch.tensor([True, False, True])
    bend = (torch.rand(3, 4, 2, grid, grid) - 0.5) * 0.9
    back = dataclasses.replace(plan.back, reads_previous=reads_previous, motion=dataclasses.replace(plan.back.motion, bend=bend))
    plan = dataclasses.replace(plan, back=back)
    clips = clips_of(images.float(), plan)
    np.testing.assert_allclose(clips, oracle.render(images, plan), atol=1e-4, rtol=0)
    assert (clips[:, :, 1] - clips[:, :, 0]).abs().max() > 0.1


@pytest.mark.parametrize("out", [torch.uint8, *FLOATS])
@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS])
def test_dtypes(dtype, out, smooth):
    agreement.check_dtypes(rendered, smooth(2, 3, 9, 11), dtype, out, 2e-5)


@pytest.mark.parametrize("std", [1.0, 3e-6, 1e4, 1e30])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_torchs(dtype, std):
    """Also those that are subnormal, too large, and halfway between two."""
    images = torch.cat([torch.rand(2**14), torch.arange(2**14) / 2**14]).view(1, 1, 128, 256)
    plan = PMG(("identity",), 1, None).plan(images.shape, ids=torch.arange(1))
    single = clips_of(images, plan, mean=(0.5,), std=(std,))
    half = clips_of(images, plan, mean=(0.5,), std=(std,), dtype=dtype)
    assert torch.equal(half, single.to(dtype))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("data_format", ["BCTHW", "BTCHW"])
def test_channels_layouts_and_normalization(data_format, channels, smooth):
    for dtype in (torch.uint8, torch.float32):
        images = smooth(2, channels, 29, 31, dtype=torch.float32)
        images = images if dtype == torch.float32 else (images * 255).to(dtype)
        plan = PMG(("affine", "zoom"), 2, 10).plan(images.shape, ids=torch.arange(2))
        options = {"mean": MEAN[:channels], "std": STD[:channels], "dtype": torch.float32, "data_format": data_format}
        expected = rendering.render(images, plan, renderer="reference", **options)
        torch.testing.assert_close(clips_of(images, plan, **options), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("data_format", ["BCTHW", "BTCHW"])
def test_clips_written_past_the_cache(data_format, monkeypatch, smooth):
    """The same bits, for rows of whole cache lines and for others."""
    for w in (32, 40):
        images = smooth(3, 3, 37, 45, dtype=torch.float32)
        plan = PMG(("affine", "zoom"), 4, (33, w)).plan(images.shape, ids=torch.arange(3))
        made = []
        for least in (0, 2**30):
            monkeypatch.setattr(launch, "STREAMED", least)
            made.append(clips_of(images, plan, mean=MEAN[:3], std=STD[:3], data_format=data_format))
        assert torch.equal(*made)


def test_rounding_to_8_bits_is_the_references():
    """Halves go to the even level."""
    images = (torch.arange(256)[:, None] + torch.tensor([0.0, 0.5])).clamp(max=255)[None, None] / 255
    plan = PMG(("identity",), 1, None).plan(images.shape)
    assert torch.equal(clips_of(images, plan, dtype=torch.uint8)[:, :, 0], (images * 255).round().to(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS])
def test_identity_is_exact(dtype):
    images = torch.randint(0, 256, (1, 3, 21, 34), dtype=torch.uint8)
    images = images if dtype == torch.uint8 else (images / 255).to(dtype)
    assert torch.equal(clips_of(images, PMG(("identity",), 1, None).plan(images.shape))[:, :, 0], images)


def test_images_that_are_not_contiguous(smooth):
    images = smooth(2, 3, 9, 11, dtype=torch.float32)
    plan = PMG(("affine",), 2, 8).plan(images.shape)
    expected = clips_of(images, plan)
    assert torch.equal(clips_of(images.to(memory_format=torch.channels_last), plan), expected)
    assert torch.equal(clips_of(torch.stack([images, images + 1], -1)[..., 0], plan), expected)


@pytest.mark.parametrize("padding_mode", PADDING)
@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_any_number_of_threads_makes_the_same_bits(resampling, padding_mode, threads, monkeypatch, smooth):
    """With a thread for every clip, and with several for one."""
    monkeypatch.setattr(launch, "SHARED", 0)
    images = smooth(6, 3, 80, 70, dtype=torch.float32)
    plan = dataclasses.replace(mixing_plan(images, resampling, 5, (75, 66)), padding_mode=padding_mode)
    bend = bends(np.random.default_rng(0), 6, 5)
    plan = dataclasses.replace(plan, back=dataclasses.replace(plan.back, motion=dataclasses.replace(plan.back.motion, bend=bend)))
    made = []
    for number in (1, 2, 4, 5, 13):
        threads(number)
        made += [clips_of(images, plan) for _ in range(3)]
    assert made[0].isfinite().all()
    assert all(torch.equal(clips, made[0]) for clips in made[1:])


def test_python_threads_render_at_the_same_time(smooth):
    images = smooth(4, 3, 80, 70, dtype=torch.float32)
    plan = mixing_plan(images[[0, 1, 2, 3, 0, 1]], "recursive", 5, (75, 66))
    batch = images[[0, 1, 2, 3, 0, 1]]
    expected, made = clips_of(batch, plan), [None] * 6
    workers = [threading.Thread(target=lambda k=k: made.__setitem__(k, clips_of(batch, plan))) for k in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(clips, expected) for clips in made)


class Rendered(torch.utils.data.Dataset):
    """Clips that are rendered by several threads in a worker."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        torch.manual_seed(index)
        with mock.patch.object(torch, "get_num_threads", return_value=2):  # torch's own threads do not survive a fork
            return PMG(("affine",), 8, 128)(torch.rand(1, 3, 128, 128), ids=torch.tensor([index]))


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.filterwarnings("ignore:This process .*is multi-threaded:DeprecationWarning")
def test_loader_workers(method):
    expected = [Rendered()[index] for index in range(4)]  # the parent has its helping threads then
    loader = torch.utils.data.DataLoader(Rendered(), batch_size=None, num_workers=2, multiprocessing_context=method)
    assert all(torch.equal(clips, first) for clips, first in zip(loader, expected, strict=True))


@given(
    seed=st.integers(0, 2**32 - 1),
    source=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    frame=st.tuples(st.integers(1, 21), st.integers(1, 21)),
    channels=st.sampled_from([1, 3, 4]),
    padding_mode=st.sampled_from(PADDING),
    resampling=st.sampled_from(["recursive", "composed"]),
    out=st.sampled_from([torch.uint8, torch.float32, torch.bfloat16]),
    mix=st.sampled_from([None, Mixup(), VideoMix()]),
)
def test_plans_of_any_kind(seed, source, frame, channels, padding_mode, resampling, out, mix):
    images = torch.rand(3, channels, *source, generator=torch.Generator().manual_seed(seed))
    names = NAMES if channels == 3 else ("affine", "zoom", "sliding_window", "perspective", "cutmix")
    pmg = PMG(names, 3, frame, padding_mode=padding_mode, resampling=resampling, mix=mix, crop=(0.2, 1.0), seed=seed, dtype=out)
    plan = pmg.plan(images.shape, ids=torch.arange(3))
    clips = clips_of(images, plan, dtype=out)
    expected = rendering.render(images, plan, dtype=out, renderer="reference")
    atol = 1 if out == torch.uint8 else 2e-3 if out == torch.float32 else 2**-7
    torch.testing.assert_close(clips.float(), expected.float(), atol=atol, rtol=0)


@given(
    numbers=st.lists(st.floats(width=32), min_size=9, max_size=9),
    padding_mode=st.sampled_from(PADDING),
    recursive=st.booleans(),
)
def test_no_homography_reaches_beyond_memory(numbers, padding_mode, recursive):
    """Singular, infinite and not a number: some pixels come out, all of them numbers between black and white."""
    images = torch.rand(2, 3, 20, 25)
    plan = layered_plan(images, (20, 25), 2, recursive=recursive, count=2, padding_mode=padding_mode)
    wild = torch.tensor(numbers).view(3, 3)
    back, layers = plan.back.motion.homography.clone(), plan.layers.motion.homography.clone()
    back[:, 1:], layers[:, :, 1:] = wild, wild
    with np.errstate(all="ignore"):
        plan = dataclasses.replace(
            plan,
            back=dataclasses.replace(plan.back, motion=dataclasses.replace(plan.back.motion, homography=back)),
            layers=dataclasses.replace(plan.layers, motion=dataclasses.replace(plan.layers.motion, homography=layers)),
        )
    clips = clips_of(images, plan)
    assert ((clips >= -1e-5) & (clips <= 1 + 1e-5)).all()


@pytest.mark.parametrize("part", ["back.image", "layers.texture", "blend.partner"])
@pytest.mark.parametrize("index", [-1, 6])
def test_what_is_not_there_is_an_error(part, index, smooth):
    images = smooth(6, 3, 12, 14, dtype=torch.float32)
    plan = mixing_plan(images, "composed")
    owner, name = part.split(".")
    changed = dataclasses.replace(getattr(plan, owner), **{name: torch.full_like(getattr(getattr(plan, owner), name), index)})
    with pytest.raises(IndexError, match=f"plan.{part} must be from 0 to 5"):
        clips_of(images, dataclasses.replace(plan, **{owner: changed}))


def test_choice_and_explanation(monkeypatch):
    cpu = torch.device("cpu")
    assert choose("auto", cpu, torch.uint8, torch.uint8).renderer == "fused"
    assert choose("auto", cpu, torch.float64).renderer == "reference"
    assert "gradient" in choose("auto", cpu, needs_grad=True).reason
    assert choose("auto", torch.device("meta")).renderer == "reference"
    assert "cpu: fused: images are on the CPU" in PMG().explain()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="float64"):
        PMG(("affine",), 2, 4, renderer="fused")(torch.rand(1, 3, 5, 5, dtype=torch.float64))
    assert PMG(("affine",), 2, 4, renderer="fused")(torch.rand(1, 3, 5, 5)).shape == (1, 3, 2, 4, 4)
    grown = torch.rand(1, 3, 5, 5, requires_grad=True)
    assert PMG(("affine",), 2, 4)(grown).requires_grad


def run(program, **environment):
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_llvmlite_the_reference_renders_and_says_so_once():
    out = run(
        "import sys, warnings, torch; sys.modules['llvmlite'] = None; from pseudomotion import PMG\n"
        "import importlib.util; importlib.util.find_spec = lambda name: None\n"
        "pmg = PMG(('affine',), 2, 4)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    pmg(torch.rand(1, 3, 5, 5)); pmg(torch.rand(1, 3, 5, 5))\n"
        "print(len(caught), caught[0].message); print(pmg.explain())\n"
        "try: PMG(('affine',), 2, 4, renderer='fused')(torch.rand(1, 3, 5, 5))\n"
        "except RuntimeError as error: print(error)",
        TRITON_INTERPRET="0",
    )
    assert out.startswith("1 llvmlite is not installed")
    assert out.count("pip install llvmlite") == 3


def test_importing_the_library_does_not_import_llvmlite():
    run("import sys, pseudomotion; assert 'llvmlite' not in sys.modules")


@compiler.compiled
def doubled(number) -> compiler.Int:
    """Twice a number."""
    return 2 * number


def test_machine_code_is_kept_where_that_can_be_written(tmp_path, monkeypatch):
    def load():
        return machine.load([doubled], [Path(__file__)])[0]

    monkeypatch.setenv("PSEUDOMOTION_CACHE", str(tmp_path / "kept"))
    assert load()(21) == 42
    (kept,) = (tmp_path / "kept").iterdir()
    translate = mock.Mock(side_effect=machine._translate)
    monkeypatch.setattr(machine, "_translate", translate)
    assert load()(21) == 42
    assert not translate.called
    kept.write_bytes(kept.read_bytes()[:-1])  # cut short
    assert load()(21) == 42
    assert translate.call_count == 1
    assert load()(21) == 42
    assert translate.call_count == 1
    (tmp_path / "file").touch()
    monkeypatch.setenv("PSEUDOMOTION_CACHE", str(tmp_path / "file" / "kept"))
    assert load()(21) == 42
    assert translate.call_count == 2


def test_memory_of_clips_is_used_again_but_never_twice(monkeypatch):
    monkeypatch.undo()  # the guards
    monkeypatch.setattr(launch, "_spare", {})
    first = launch._empty((3, 1000), torch.float32)
    address, kept = first.data_ptr(), first[1:].numpy()
    del first
    assert not launch._spare  # a view is still there
    del kept
    assert list(launch._spare) == [address]
    assert launch._empty((999,), torch.float32).data_ptr() != address
    again, other = launch._empty((1500,), torch.float64), launch._empty((3, 1000), torch.float32)
    assert again.data_ptr() == address != other.data_ptr()
    monkeypatch.setattr(launch, "SPARE", 20_000)
    del again, other
    assert sum(memory.nbytes for memory in launch._spare.values()) <= 20_000
