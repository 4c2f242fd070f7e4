"""What only a GPU shows of the fused renderer: parity on the device, launches, memory, and that nothing waits for it."""

import pytest
import torch

from pseudomotion import PMG, TRANSFORMS
from pseudomotion.mix import Mixup

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
    assert launches(calls(8, "composed", names=NAMES, mix=Mixup())) <= 2
    assert launches(calls(8, "recursive", names=NAMES, mix=Mixup())) <= 16 + 2


@pytest.mark.parametrize("batch", [8, 128])
def test_memory_beside_the_clips(batch):
    composed = calls(batch, "composed", dtype=torch.bfloat16)
    assert peak_extra_bytes(composed) <= 0.1 * composed().nbytes
    frames = 2 * batch * 3 * 224 * 224 * 4
    assert peak_extra_bytes(calls(batch, "recursive")) <= frames + 2**21
