"""Kernel launches, memory and synchronization of the fused renderer, tested without a GPU.

Images on torch's meta device have no values, so any read on the host, which would synchronize with a GPU, fails. Allocations there are
counted, and kernel launches are recorded instead of executed. ``test_gpu.py`` has tests for real GPUs.
"""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pseudomotion import PMG, TRANSFORMS, checks
from pseudomotion.mix import Mixup, VideoMix

NAMES = tuple(TRANSFORMS)
MODES = ["recursive", "composed"]
FINISHED = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "dtype": torch.bfloat16}
CLIP = 3 * 16 * 224 * 224


class Memory(TorchDispatchMode):
    """Count the bytes allocated on the meta device, whether or not they are freed."""

    def __init__(self):
        super().__init__()
        self.blocks = {}  # holds on to them, so that none takes another's place

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                storage = tensor.untyped_storage()
                self.blocks[storage._cdata] = storage
        return made

    @property
    def total(self):
        return sum(storage.nbytes() for storage in self.blocks.values())


class Kernel:
    """Stand-in for a kernel that records the number of programs of each launch."""

    def __init__(self, kernel):
        self.arg_names, self.do_not_specialize = kernel.arg_names, kernel.kwargs.get("do_not_specialize", ())
        self.launches = []

    def __getitem__(self, grid):
        def launch(*args, **options):
            self.launches.append(grid[0])
            return Compiled(self, args, len(args) + len(options) - ("num_warps" in options))

        return launch


class Compiled:
    """Stand-in for the compiled kernel that a launch returns: Triton may have made constants of the numbers it was compiled for."""

    def __init__(self, kernel, compiled_for, arguments):
        self.kernel, self.arguments = kernel, arguments
        self.numbers = self.specialized(compiled_for)

    def specialized(self, args):
        named = zip(self.kernel.arg_names, args, strict=False)
        return {name: value for name, value in named if isinstance(value, int) and name not in self.kernel.do_not_specialize}

    def __getitem__(self, grid):
        def launch(*args):
            assert len(args) == self.arguments
            assert self.numbers.items() <= self.specialized(args).items()
            self.kernel.launches.append(grid[0])

        return launch


@pytest.fixture(autouse=True)
def _meta_images(monkeypatch):
    monkeypatch.setattr(checks, "has_values", lambda images: None)


@pytest.fixture
def launched(monkeypatch):
    """Launches by kernel name; kernels only record. Chunks are sized for a GPU with 50 MiB of L2 cache."""
    pytest.importorskip("triton", reason="the fused renderer needs Triton, which is not installed")
    from pseudomotion.render.cuda import clips

    doubles = {name: Kernel(getattr(clips, name)) for name in ("pack", "halve", "paint_clips", "step_clips")}
    for name, double in doubles.items():
        monkeypatch.setattr(clips, name, double)
    return {name: double.launches for name, double in doubles.items()}


def on_a_device(batch, renderer, resampling, side=224, names=("zoom", "affine"), **options):
    """Render images on the meta device; return the clips and the bytes allocated."""
    images = torch.empty(batch, 3, side, side, dtype=torch.uint8, device="meta")
    pmg = PMG(names, 16, 224, resampling=resampling, renderer=renderer, **options)
    with Memory() as memory:
        clips = pmg(images, ids=torch.arange(batch))
    assert clips.is_meta
    return clips, memory.total


def test_reading_a_value_would_be_noticed():
    images = torch.empty(2, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(images.sum() > 0)
    with pytest.raises((RuntimeError, NotImplementedError)):
        images.nonzero()
    with Memory() as memory:
        images.new_empty(10).view(2, 5)
    assert memory.total == 40


@pytest.mark.parametrize("resampling", MODES)
@pytest.mark.parametrize("side", [224, 900])
@pytest.mark.parametrize("mix", [None, Mixup(), VideoMix()])
def test_the_reference_reads_nothing_back(resampling, side, mix, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: contextlib.nullcontext())  # knows no meta device
    clips, _ = on_a_device(5, "reference", resampling, side, NAMES, mix=mix, **FINISHED)
    assert clips.shape == (5, 3, 16, 224, 224)


@pytest.mark.parametrize("resampling", MODES)
@pytest.mark.parametrize("side", [224, 900])
@pytest.mark.parametrize("mix", [None, Mixup(), VideoMix()])
def test_the_fused_renderer_reads_nothing_back(resampling, side, mix, launched):
    on_a_device(5, "fused", resampling, side, NAMES, mix=mix, **FINISHED)
    assert sum(map(len, launched.values()))


@pytest.mark.parametrize("batch", [1, 8, 128])
def test_composed_clips_are_two_launches_and_little_memory(batch, launched):
    """Memory besides the clips is at most that of the plan's table and the packed images."""
    clips, memory = on_a_device(batch, "fused", "composed", mix=Mixup() if batch > 1 else None, **FINISHED)
    assert {name: len(launches) for name, launches in launched.items()} == {"pack": 1, "halve": 0, "paint_clips": 1, "step_clips": 0}
    assert 0 < memory - clips.nbytes <= 0.1 * clips.nbytes


def test_sources_are_halved_by_one_launch_each(launched):
    """From 900 pixels to 224 there are 4 source pixels per pixel, which level 2 of the pyramid has."""
    on_a_device(8, "fused", "composed", 900, ("identity",))
    assert {name: len(launches) for name, launches in launched.items()} == {"pack": 1, "halve": 2, "paint_clips": 1, "step_clips": 0}


@pytest.mark.parametrize(("batch", "mix", "most"), [(8, None, 17), (8, Mixup(), 18), (27, None, 17), (27, Mixup(), 18)])
def test_recursion_is_a_launch_a_frame_for_clips_that_fit_the_cache(batch, mix, most, launched):
    on_a_device(batch, "fused", "recursive", names=NAMES, mix=mix, **FINISHED)
    assert sum(map(len, launched.values())) - len(launched["pack"]) - len(launched["halve"]) <= most


@pytest.mark.parametrize("mix", [None, Mixup()])
def test_recursion_holds_two_frames_of_each_clip_in_flight(mix, launched):
    """27 clips have two packed frames and a finished one in 0.6 of 50 MiB; the rest is the table of the plan and the packed images."""
    clips, memory = on_a_device(128, "fused", "recursive", names=("affine",), mix=mix, **FINISHED)
    frames, images = 2 * 27 * 227 * 232 * 8, 128 * 227 * 232 * 4
    assert memory - clips.nbytes <= frames + images + 2**20
    assert {programs % 27 for programs in launched["step_clips"][:17]} == {0}


def test_partners_are_rendered_together(launched, monkeypatch):
    """128 clips mixed in pairs, in chunks of 27: almost none is rendered twice."""
    launch = pytest.importorskip("pseudomotion.render.cuda.launch", reason="the fused renderer needs Triton, which is not installed")
    monkeypatch.setattr(launch, "WAVES", 1)  # all chunks are split into programs alike
    on_a_device(128, "fused", "recursive", names=("affine",), mix=Mixup(), **FINISHED)
    tiles = launched["step_clips"][0] // 27
    rendered = [programs // tiles for programs in launched["step_clips"][:: 16 + 1]]
    assert len(rendered) == 5
    assert max(rendered) <= 27
    assert 128 <= sum(rendered) <= 128 + 5


def test_chunks_of_a_small_frame_fill_the_device():
    """Never fewer clips than give every processor its programs, however small the cache."""
    launch = pytest.importorskip("pseudomotion.render.cuda.launch", reason="the fused renderer needs Triton, which is not installed")
    assert launch.chunk_size(None, 3, (224, 224), torch.bfloat16) == 27
    assert launch.chunk_size(None, 3, (32, 32), torch.bfloat16) >= launch.WAVES * launch.PROCESSORS
