"""What only a GPU shows of the fused renderer: parity on the device, launches, memory, and that nothing waits for it."""

import pytest
import torch
from shapes import shaped_plan

from pseudomotion import PMG, TRANSFORMS
from pseudomotion.mix import Mixup
from pseudomotion.render import render

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)
pytest.importorskip("triton", reason="the fused renderer needs Triton, which is not installed")

from benchmarks.gpu import launches, peak_extra_bytes, waits

NAMES = tuple(TRANSFORMS)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODES = ["recursive", "composed"]


def calls(batch, resampling, side=224, names=("zoom", "affine"), **options):
    """A call of PMG on a batch of uint8 images on the device."""
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, device="cuda")
    pmg = PMG(names, 16, side, resampling=resampling, renderer="fused", **options)
    ids = torch.arange(batch)
    return lambda: pmg(images, ids=ids)


@pytest.mark.parametrize("resampling", MODES)
@pytest.mark.parametrize("batch", [1, 8, 33, 128])
def test_parity_on_the_device(batch, resampling, smooth):
    """At full size, over several chunks, all transforms and mixing in one batch."""
    images = smooth(batch, 3, 250, 230, dtype=torch.float32).cuda()
    options = {"resampling": resampling, "mix": Mixup()}
    fused, expected = (PMG(NAMES, 16, 112, renderer=r, **options)(images, ids=torch.arange(batch)) for r in ("fused", "reference"))
    torch.testing.assert_close(fused, expected, atol=2e-3 if resampling == "recursive" else 1e-4, rtol=0)


@pytest.mark.parametrize("resampling", MODES)
def test_auto_trusts_it_here(resampling):
    """No warning, which would be an error, and the fused renderer's own clips."""
    images = torch.randint(0, 256, (16, 3, 230, 224), dtype=torch.uint8, device="cuda")
    options = {"resampling": resampling, "mix": Mixup(), "mean": MEAN, "std": STD, "dtype": torch.bfloat16}
    auto, fused = (PMG(NAMES, 16, 112, renderer=r, **options)(images, ids=torch.arange(16)) for r in ("auto", "fused"))
    assert torch.equal(auto, fused)


@pytest.mark.parametrize("resampling", MODES)
def test_more_values_than_32_bits_count(resampling):
    """2^31 values and more: the last clips of a large batch are those of a small one."""
    images = torch.randint(0, 256, (900, 3, 224, 224), dtype=torch.uint8, device="cuda")
    ids = torch.arange(900)
    pmg = PMG(("zoom", "affine"), 16, 224, resampling=resampling, renderer="fused")
    assert torch.equal(pmg(images, ids=ids)[-8:], pmg(images[-8:], ids=ids[-8:]))


@pytest.mark.parametrize("resampling", MODES)
def test_the_host_never_waits(resampling):
    assert not waits(calls(8, resampling, names=NAMES, mean=MEAN, std=STD, dtype=torch.bfloat16, mix=Mixup()))


def test_waiting_would_be_noticed():
    images = torch.rand(2, device="cuda")
    assert waits(lambda: torch.tensor(images.sum().item()))


def test_launches():
    """One packs the images, one fills working frames with black; one paints, or T + 1 make a mixed chunk's frames."""
    assert launches(calls(8, "composed", names=NAMES, mix=Mixup())) <= 1 + 1
    assert launches(calls(8, "recursive", names=NAMES, mix=Mixup())) <= 1 + 1 + 1 + 16 + 1


def test_a_captured_graph_is_refused():
    call, graph = calls(2, "composed"), torch.cuda.CUDAGraph()
    call()
    with pytest.raises(RuntimeError, match="every replay would repeat the same clips"), torch.cuda.graph(graph):
        call()


@pytest.mark.parametrize("resampling", MODES)
def test_outlines_bends_and_textures(resampling, smooth):
    images, textures = smooth(11, 3, 60, 70, dtype=torch.float32).cuda(), smooth(4, 3, 50, 40, dtype=torch.float32).cuda()
    plan = shaped_plan(NAMES[:2], image=(60, 70), texture=(50, 40), size=(64, 72), resampling=resampling)
    plan.layers.texture.remainder_(4)
    fused, expected = (render(images, plan, textures=textures, renderer=r) for r in ("fused", "reference"))
    torch.testing.assert_close(fused, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("batch", [8, 128])
def test_memory_beside_the_clips(batch):
    composed = calls(batch, "composed", dtype=torch.bfloat16)
    assert peak_extra_bytes(composed) <= 0.1 * composed().nbytes
    frames, packed = 2 * batch * 227 * 232 * 8, batch * 227 * 232 * 4
    assert peak_extra_bytes(calls(batch, "recursive")) <= frames + packed + 2**21
