"""The fused renderer against the reference and the float64 oracle. Without a GPU its kernels run in Triton's interpreter.

Sizes are tiny: the interpreter takes some 50 ms for each tile of each frame.
"""

import contextlib
import dataclasses
import pickle
import subprocess
import sys
from functools import partial

import agreement
import numpy as np
import oracle
import pytest
import torch
from agreement import FLOATS, MEAN, PADDING, SIZES, STD
from shapes import shaped_plan

pytest.importorskip("triton", reason="the fused renderer needs Triton, which is not installed")

import interpreter

from pseudomotion import PMG, TRANSFORMS, checks
from pseudomotion import render as rendering
from pseudomotion.mix import Mixup
from pseudomotion.plan import Blend
from pseudomotion.render import choose, cuda, proof, reference
from pseudomotion.render.cuda import launch
from pseudomotion.render.output import Output, format_clips

NAMES = list(TRANSFORMS)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    interpreter.poison_allocations(monkeypatch)


def clips_of(pmg, images, plan, **options):
    """Clips by the fused renderer, on the CPU."""
    mean, std = (value and value[: images.shape[1]] for value in (pmg.mean, pmg.std))
    dtype = pmg.dtype or images.dtype
    return launch.render(images.to(DEVICE), plan, Output(len(images), mean, std, dtype, pmg.data_format), **options).cpu()


check = partial(agreement.check, clips_of)


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
@pytest.mark.parametrize("name", NAMES)
def test_every_transform(name, resampling, smooth):
    check((name,), smooth(2, 3, 13, 16, dtype=torch.float32), 3, (9, 11), resampling=resampling, crop=(0.5, 1.0))


@pytest.mark.parametrize("padding_mode", PADDING)
@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_mixed_batches(resampling, padding_mode, smooth):
    """Recursive clips, clips that read images, and clips with a layer in one batch; pyramid levels up to 2 are used."""
    for source in ((12, 15), (40, 50))[: 1 + (padding_mode == "zeros")]:
        images = smooth(7, 3, *source, dtype=torch.float32)
        plan = check(tuple(NAMES), images, 2, (9, 11), resampling=resampling, padding_mode=padding_mode, crop=(0.1, 1.0))
        assert len(plan.transform.unique()) > 4


@pytest.mark.parametrize("padding_mode", PADDING)
@pytest.mark.parametrize(("source", "frame"), SIZES)
def test_sizes(source, frame, padding_mode, smooth):
    check(("perspective", "cutmix"), smooth(2, 3, *source, dtype=torch.float32), 2, frame, padding_mode=padding_mode)


def test_fifteen_recursive_steps(smooth):
    check(("affine", "perspective"), smooth(2, 3, 19, 17, dtype=torch.float32), 16, (17, 15), atol=2e-3)


def test_many_chunks_are_one(smooth):
    """The chunk size, one, two or all clips, does not change the clips."""
    images = smooth(5, 3, 12, 10, dtype=torch.float32)
    pmg = PMG(("affine", "zoom"), 3, 8)
    plan = pmg.plan(images.shape, ids=torch.arange(5))
    assert 2 < plan.back.reads_previous.sum() < 5
    whole = clips_of(pmg, images, plan)
    assert whole.isfinite().all()
    for chunk in (1, 2):
        assert torch.equal(clips_of(pmg, images, plan, chunk=chunk), whole)


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_mixing_with_the_partner(resampling, smooth):
    """Whole frames and boxes, with partners that are recursive, not recursive, in another chunk, or mixed themselves."""
    images = smooth(6, 3, 12, 14, dtype=torch.float32)
    pmg = PMG(("zoom", "affine", "cutmix"), 3, (9, 11), resampling=resampling)
    plan = dataclasses.replace(
        pmg.plan(images.shape, ids=torch.arange(6)),
        blend=Blend(
            partner=torch.tensor([1, 2, 3, 4, 5, 0]),
            weight=torch.tensor([0, 0.25, 0.5, 1, 1, 0.3]),
            box=torch.tensor([[-0.5, -0.5, 10.5, 8.5]] * 4 + [[2.5, 3.5, 6.5, 7.5], [0, 0, 5, 4]]),
            frames=torch.tensor([[0, 3], [0, 3], [1, 2], [2, 3], [0, 3], [0, 1]]),
        ),
    )
    expected = oracle.render(images, plan)
    assert np.abs(expected - oracle.render(images, dataclasses.replace(plan, blend=None))).max() > 0.1
    for chunk in (None, 1, 4) if resampling == "recursive" else (None,):
        np.testing.assert_allclose(clips_of(pmg, images, plan, chunk=chunk), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_partner_images(resampling, smooth):
    images, partners = smooth(3, 3, 10, 12, dtype=torch.float32).to(DEVICE), smooth(3, 3, 10, 12, dtype=torch.float32).to(DEVICE)
    agreement.check_partner_images("fused", images, partners, resampling)


@pytest.mark.parametrize("mix", [None, Mixup()])
def test_layers_over_any_back(mix, smooth):
    """Layers, feathered and fading in, over recursive and other backs, with mixing, are never fed back into the next frame."""
    images = smooth(4, 3, 14, 12, dtype=torch.float32)
    ids = torch.arange(4)
    pmg = PMG(("affine", "zoom"), 3, (9, 11), mix=mix)
    layers = PMG(("cutmix",), 3, (9, 11)).plan(images.shape, ids=ids).layers
    layers = dataclasses.replace(layers, opacity=torch.tensor([[[0.0, 0.4, 1.0]]]).repeat(4, 1, 1), outline=layers.outline * 2)
    plan = dataclasses.replace(pmg.plan(images.shape, ids=ids), layers=layers)
    assert 0 < plan.back.reads_previous.sum() < 4
    clips = clips_of(pmg, images, plan)
    np.testing.assert_allclose(clips, oracle.render(images, plan), atol=1e-4, rtol=0)
    assert not torch.equal(
        clips[0], clips_of(pmg, images, dataclasses.replace(plan, layers=dataclasses.replace(layers, opacity=layers.opacity * 0)))[0]
    )


@pytest.mark.parametrize(("resampling", "padding_mode", "layers"), [("recursive", "zeros", 4), ("composed", "reflection", 1)])
def test_outlines_and_bends(resampling, padding_mode, layers, smooth):
    """Bent layers, in recursive clips of every outline, over backs that bend too, some of them at every step of the recursion."""
    images = smooth(3, 3, 37, 45, dtype=torch.float32)
    options = {"resampling": resampling, "padding_mode": padding_mode}
    plan = shaped_plan(("affine", "zoom"), batch=3, frames=2, size=(29, 31), layers=layers, **options)
    clips = clips_of(PMG(("affine",), dtype=torch.float32), images, plan)
    np.testing.assert_allclose(clips, oracle.render(images, plan), atol=1e-4, rtol=0)


def test_textures(smooth):
    """Layers show images of their own, of another number and size, reduced where they are large; some are bent."""
    images, textures = smooth(2, 3, 20, 30, dtype=torch.float32), smooth(3, 3, 90, 80, dtype=torch.float32)
    plan = shaped_plan(("affine",), batch=2, frames=2, layers=2, image=(20, 30), texture=(90, 80), size=(24, 31), kinds=("ellipse", "blob"))
    plan.layers.motion.homography[:, 0, :, :2] *= 0.3
    plan.layers.texture[:] = torch.tensor([[0, 1], [2, 0]])
    plan = dataclasses.replace(plan)
    assert plan.reduces
    clips = clips_of(PMG(("affine",), dtype=torch.float32), images, plan, textures=textures)
    np.testing.assert_allclose(clips, oracle.render(images, plan, textures), atol=1e-4, rtol=0)
    textures = torch.cat([textures, textures[:, :1].sub(0.4).mul(5).clamp(0, 1)], 1)  # cut out by alpha
    clips = clips_of(PMG(("affine",), dtype=torch.float32), images, plan, textures=textures)
    np.testing.assert_allclose(clips, oracle.render(images, plan, textures), atol=1e-4, rtol=0)


@pytest.mark.parametrize("out", [torch.uint8, *FLOATS])
@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS])
def test_dtypes(dtype, out, smooth):
    agreement.check_dtypes(clips_of, smooth(2, 3, 9, 11), dtype, out, 6e-5)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("data_format", ["BCTHW", "BTCHW"])
def test_channels_layouts_and_normalization(data_format, channels, smooth):
    images = smooth(2, channels, 9, 11, dtype=torch.float32)
    for resampling in ("recursive", "composed"):
        pmg = PMG(("affine",), 2, 8, resampling=resampling, mean=MEAN[:channels], std=STD[:channels], data_format=data_format)
        plan = pmg.plan(images.shape, ids=torch.arange(2))
        clips = clips_of(pmg, images, plan)
        mean, std = (torch.tensor(value[:channels])[:, None, None, None] for value in (MEAN, STD))
        expected = (torch.from_numpy(oracle.render(images, plan)) - mean) / std
        expected = expected if data_format == "BCTHW" else expected.transpose(1, 2)
        torch.testing.assert_close(clips.double(), expected.double(), atol=1e-4 / min(STD), rtol=0)


def test_rounding_to_8_bits_is_the_references():
    """Values halfway between two levels round to the even one."""
    images = (torch.arange(256)[:, None] + torch.tensor([0.0, 0.5])).clamp(max=255)[None, None] / 255
    pmg = PMG(("identity",), 1, None, dtype=torch.uint8)
    plan = pmg.plan(images.shape)
    expected = format_clips(images[:, :, None], mean=None, std=None, dtype=torch.uint8, data_format="BCTHW")
    assert torch.equal(clips_of(pmg, images, plan), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS])
def test_identity_keeps_bytes_and_15_bits_of_floats(dtype):
    """Also where other clips of the batch read reduced images, so that bytes are packed to 15 bits, too."""
    images = torch.randint(0, 256, (1, 3, 21, 34), dtype=torch.uint8)
    images = images if dtype == torch.uint8 else torch.rand(1, 3, 21, 34).to(dtype)
    pmg = PMG(("identity",), 2, None)
    plan = pmg.plan(images.shape)
    plan.back.motion.homography[:, 1] = torch.diag(torch.tensor([0.2, 0.2, 1]))
    for whole in (pmg.plan(images.shape), dataclasses.replace(plan)):
        clips = clips_of(pmg, images, whole)[:, :, 0]
        if dtype == torch.uint8:
            assert torch.equal(clips, images)
        else:
            rounding = {torch.float16: 2**-12, torch.bfloat16: 2**-9, torch.float32: 2**-23}[dtype]
            assert (clips.double() - images.double()).abs().max() <= 0.5 / 32640 + rounding


def test_values_beyond_black_and_white_are_clamped():
    images = torch.tensor([-1.0, -1e-6, 0, 1, 1 + 1e-6, 2, torch.inf]).expand(1, 3, 2, 7)
    pmg = PMG(("identity",), 1, None)
    clips = clips_of(pmg, images, pmg.plan(images.shape))
    torch.testing.assert_close(clips[:, :, 0], images.clamp(0, 1), atol=2e-7, rtol=0)


def test_images_that_are_not_contiguous(smooth):
    images = smooth(2, 3, 9, 11, dtype=torch.float32)
    pmg = PMG(("affine",), 2, 8)
    plan = pmg.plan(images.shape)
    expected = clips_of(pmg, images, plan)
    assert torch.equal(clips_of(pmg, images.to(memory_format=torch.channels_last), plan), expected)
    assert torch.equal(clips_of(pmg, torch.stack([images, images + 1], -1)[..., 0], plan), expected)


@pytest.mark.parametrize(("batch", "num_frames"), [(0, 2), (0, 1), (1, 1), (1, 2)])
def test_small_batches_and_single_frames(batch, num_frames, smooth):
    for resampling in ("recursive", "composed"):
        check(("affine", "cutmix"), smooth(batch, 3, 9, 8, dtype=torch.float32), num_frames, (5, 6), resampling=resampling)


def test_pmg_runs_it_when_asked(smooth):
    images = smooth(2, 3, 9, 11, dtype=torch.float32).to(DEVICE)
    options = {"num_frames": 2, "size": 8, "mean": MEAN[:3], "std": STD[:3], "dtype": torch.bfloat16}
    clips, expected = (PMG(("affine",), renderer=r, **options)(images, ids=torch.arange(2)) for r in ("fused", "reference"))
    torch.testing.assert_close(clips, expected, atol=2**-6, rtol=2**-7)


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_prepared_plans_render_the_same(resampling, smooth):
    """Also sent to another process, and by the other renderers, which need no packed plan."""
    images = (smooth(3, 3, 9, 11) * 255).to(torch.uint8).to(DEVICE)
    options = {"num_frames": 2, "size": 8, "mean": MEAN[:3], "std": STD[:3], "mix": Mixup(), "resampling": resampling}
    pmg, other = (PMG(("affine", "zoom"), renderer=renderer, **options) for renderer in ("fused", "reference"))
    prepared = pickle.loads(pickle.dumps(pmg.prepare(images.shape, ids=torch.arange(3))))
    assert torch.equal(pmg.render(images, prepared), pmg(images, ids=torch.arange(3)))
    assert torch.equal(other.render(images, prepared), other(images, ids=torch.arange(3)))
    with pytest.raises(
        ValueError, match=r"images must be torch.uint8, as the plan was prepared for, got torch.float32; pass images_dtype=torch"
    ):
        pmg.render(images / 255, prepared)
    with pytest.raises(ValueError, match="clips must have the format that the plan was prepared for"):
        PMG(("affine", "zoom"), 2, 8, mix=Mixup(), renderer="fused").render(images, prepared)


def test_plans_are_prepared_without_triton(monkeypatch):
    monkeypatch.setattr(rendering, "_import_error", lambda compiler: "not installed")
    prepared = PMG(("affine",), 2, 8).prepare((2, 3, 9, 9))
    assert prepared.packed is None
    assert prepared.pin_memory() is prepared


def test_asked_for_but_impossible_is_an_error(monkeypatch):
    pmg = PMG(("affine",), 2, 4, renderer="fused")
    with pytest.raises(ValueError, match="float64"):
        pmg(torch.rand(1, 3, 5, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match="gradients"):
        pmg(torch.rand(1, 3, 5, 5, requires_grad=True))
    with pytest.raises(ValueError, match="clips are to be float64"):
        PMG(("affine",), 2, 4, renderer="fused", dtype=torch.float64)(torch.rand(1, 3, 5, 5))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="images are on meta"):
        choose("fused", torch.device("meta"))


def test_auto_takes_it_on_cuda_where_it_can():
    cuda = torch.device("cuda")
    assert choose("fused", cuda, torch.uint8, torch.bfloat16).renderer == "fused"
    assert choose("auto", cuda, torch.uint8, torch.bfloat16).renderer == "fused"
    assert choose("auto", cuda, torch.float64, torch.float32).renderer == "reference"
    assert choose("auto", cuda, torch.float32, torch.float32, needs_grad=True).renderer == "reference"
    assert "gradient" in choose("auto", cuda, torch.float32, torch.float32, needs_grad=True).reason


def test_explain_names_renderer_and_reason():
    assert "its first clips are compared with the reference's" in PMG().explain()
    assert "cuda" in PMG(renderer="fused").explain()
    text = PMG(renderer="auto").explain()
    assert "fused" in text.splitlines()[2]
    assert "float64" in PMG(renderer="auto", dtype=torch.float64).explain().splitlines()[2]


@pytest.fixture
def calls(monkeypatch):
    """Record how many clips each renderer makes. "auto" chooses the fused one here, as on CUDA, with no comparison cached yet."""
    made = {"fused": [], "reference": []}
    for name, module in (("fused", cuda), ("reference", reference)):
        render = module.render

        def counted(images, *args, name=name, render=render, **options):
            made[name].append(len(images))
            return render(images, *args, **options)

        monkeypatch.setattr(module, "render", counted)
    monkeypatch.setattr(rendering, "_compiled_by", lambda *_: "triton")
    monkeypatch.setattr(
        rendering, "choose", lambda renderer, *args, **options: rendering.Choice("reference" if renderer == "reference" else "fused", "")
    )
    monkeypatch.setattr(proof, "_found", {})
    return made


MIXED = ("zoom", "affine", "cutmix", "color_jitter")
AFFINE = NAMES.index("affine")


def test_auto_trusts_the_fused_renderer_once_it_agrees(calls, smooth):
    images, ids = smooth(6, 3, 14, 12, dtype=torch.float32).to(DEVICE), torch.arange(6)
    pmg = PMG(MIXED, 2, 10, mix=Mixup())
    kinds = len(pmg.plan(images.shape, ids=ids).transform.unique())
    first = pmg(images, ids=ids)
    assert calls["reference"] == calls["fused"][:1]
    assert 1 < kinds <= calls["reference"][0] <= 6
    assert calls["fused"][1:] == [6]
    again = pmg(images, ids=ids)
    assert calls == {"reference": calls["reference"], "fused": [*calls["reference"], 6, 6]}
    assert torch.equal(first, again)
    pmg(images[:2], ids=ids[:2])
    assert len(calls["reference"]) == 1  # its transforms are known
    PMG(MIXED, 2, 10, mix=Mixup(), padding_mode="border")(images[:2], ids=ids[:2])
    assert len(calls["reference"]) == 2  # this kind of call is not


@pytest.mark.parametrize(
    ("finish", "level"),
    [({"mean": MEAN[:3], "std": STD[:3], "dtype": torch.bfloat16}, 1 / 255 / min(STD[:3])), ({"dtype": torch.uint8}, 1)],
)
def test_auto_compares_in_units_of_the_output(finish, level, calls, smooth, monkeypatch):
    """One 8-bit level is no disagreement, which would be a warning; two are."""
    images, ids, render = smooth(2, 3, 14, 12, dtype=torch.float32).to(DEVICE), torch.arange(2), cuda.render
    for levels in (1, 2):
        monkeypatch.setattr(proof, "_found", {})
        monkeypatch.setattr(cuda, "render", lambda *args, levels=levels, **options: render(*args, **options) + levels * level)
        with pytest.warns(UserWarning, match="differs from the reference") if levels == 2 else contextlib.nullcontext():
            PMG(("zoom",), 1, 10, **finish)(images * 0.9, ids=ids)
        assert calls["reference"] == [1, 1, 2][: 2 * levels - 1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda clips, plan: clips.roll(1, 2), "differs from the reference .transforms: affine, zoom; mean difference up to "),
        (
            lambda clips, plan: clips.where(plan.transform.to(DEVICE)[:, None, None, None, None] != AFFINE, clips + 0.01),
            "reference .transforms: affine; mean difference",
        ),
        (lambda clips, plan: clips.fill_(torch.nan), "differs from the reference"),
        (lambda clips, plan: 1 / 0, "failed with ZeroDivisionError: division by zero on "),
    ],
)
def test_auto_does_not_trust_a_fused_renderer_that_is_wrong(wrong, message, calls, smooth, monkeypatch):
    images, ids = smooth(4, 3, 24, 22, dtype=torch.float32).to(DEVICE), torch.arange(4)
    render = cuda.render
    monkeypatch.setattr(cuda, "render", lambda images, plan, *a, **k: wrong(render(images, plan, *a, **k), plan))
    pmg = PMG(("zoom", "affine"), 3, 20)
    expected = PMG(("zoom", "affine"), 3, 20, renderer="reference")(images, ids=ids)
    with pytest.warns(UserWarning, match=message):
        clips = pmg(images, ids=ids)
    assert torch.equal(clips, expected)
    assert torch.equal(pmg(images, ids=ids), expected)  # without another warning, which would be an error here
    assert len(calls["fused"]) == 1


def test_the_comparison_uses_the_kernels_of_the_batch(calls, smooth):
    """A clip that reads a reduced image decides how all images are packed: it is compared beside every new transform."""
    images = smooth(2, 3, 60, 60, dtype=torch.float32).to(DEVICE)
    shrunk = PMG(("affine",), 2, 10).plan(images.shape, ids=torch.arange(2))
    whole = dataclasses.replace(shrunk, transform=torch.full((2,), NAMES.index("zoom")))
    whole.back.motion.homography[:] = torch.eye(3)
    whole = dataclasses.replace(whole)
    both = dataclasses.replace(
        whole,
        back=dataclasses.replace(
            whole.back,
            motion=dataclasses.replace(
                whole.back.motion, homography=torch.stack([whole.back.motion.homography[0], shrunk.back.motion.homography[1]])
            ),
        ),
        transform=torch.stack([whole.transform[0], shrunk.transform[1]]),
    )
    for plan, compared in ((whole, 1), (shrunk, 1), (both, 2)):
        made = len(calls["fused"])
        rendering.render(images, plan)
        assert calls["fused"][made:] == [compared, 2]


def test_a_failing_reference_is_not_blamed_on_the_fused_renderer(calls, smooth, monkeypatch):
    """Such as for lack of memory: the error passes, and the next call tries again."""
    images = smooth(2, 3, 14, 12, dtype=torch.float32).to(DEVICE)
    pmg, render = PMG(("zoom",), 2, 10), reference.render
    monkeypatch.setattr(reference, "render", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pmg(images)
    monkeypatch.setattr(reference, "render", render)
    pmg(images)
    assert calls["fused"] == [1, 2]


def test_a_captured_graph_is_refused(monkeypatch):
    checks.not_captured(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=r"every replay would repeat the same clips\. Make clips outside the graph"):
        checks.not_captured(torch.device("cuda"))


def test_importing_the_library_does_not_import_triton():
    program = "import sys, pseudomotion; sys.exit('pseudomotion.render.cuda' in sys.modules or 'triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
