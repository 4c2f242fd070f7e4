"""MotionPlan: exact composition, tested on coordinates; saving and loading; the printed description."""

import dataclasses
import operator
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import fields
from test_render import plan_for

from pseudomotion import PMG, TRANSFORMS, MotionPlan, geometry
from pseudomotion.mix import Mixup
from pseudomotion.render import render

ALL = tuple(TRANSFORMS)


def plan_of(names=ALL, batch=16, num_frames=6, **options):
    return PMG(names, num_frames, 32, **options).plan((batch, 3, 40, 52), ids=torch.arange(batch))


@given(st.integers(0, 2**40), st.sampled_from(ALL), st.integers(1, 20))
def test_composed_moves_points_as_the_steps_do(clip, name, num_frames):
    """A point moved step by step under the recursive plan lands where the composed plan puts it, up to float32 rounding."""
    plan = PMG((name,), num_frames, 32).plan((1, 3, 40, 52), ids=torch.tensor([clip]))
    whole = plan.composed()
    assert not whole.back.reads_previous.any()
    points = torch.tensor([[20.0, 10], [30, 35], [26, 20]], dtype=torch.float64)
    at = points
    for k in range(num_frames):
        step = plan.back.motion.homography[:, k].double()
        start = at if plan.back.reads_previous[0] and k else points
        at = geometry.transform_points(step, start)
        direct = geometry.transform_points(whole.back.motion.homography[:, k].double(), points)
        # The composed matrix is rounded to float32 once; far outside the frame that is more than a hair.
        torch.testing.assert_close(direct, at.expand_as(direct), atol=2e-4, rtol=1e-5)
    assert torch.equal(plan.layers.motion.homography, whole.layers.motion.homography)


@given(st.integers(0, 2**40), st.integers(1, 20))
def test_composed_colors_are_the_steps_one_after_the_other(clip, num_frames):
    plan = PMG(("color_jitter",), num_frames, 32).plan((1, 3, 40, 52), ids=torch.tensor([clip]))
    whole = plan.composed()
    rgb = np.array([0.2, 0.5, 0.7])
    at = rgb
    for k in range(num_frames):
        step, direct = (p.back.motion.color[0, k].double().numpy() for p in (plan, whole))
        at = step[:, :3] @ at + step[:, 3]
        np.testing.assert_allclose(direct[:, :3] @ rgb + direct[:, 3], at, rtol=1e-4, atol=1e-6)


def test_composing_twice_changes_nothing_and_leaves_what_reads_the_source():
    plan = plan_of()
    whole = plan.composed()
    twice = whole.composed()
    steps, composed, again = (p.back.motion for p in (plan, whole, twice))
    assert torch.equal(composed.homography, again.homography)
    assert torch.equal(composed.color, again.color)
    direct = ~plan.back.reads_previous
    assert torch.equal(composed.homography[direct], steps.homography[direct])
    assert not torch.equal(composed.homography, steps.homography)


def test_composed_and_recursive_clips_agree_as_the_steps_get_small(smooth):
    """Recursive and composed clips of smooth images differ by resampling blur only, which shrinks with the step."""
    from pseudomotion.transforms import Affine

    image = torch.nn.functional.interpolate(smooth(1, 3, 8, 8), (64, 64), mode="bicubic", align_corners=False).clamp(0, 1)
    differences = []
    for step in (0.01, 0.001):
        transform = Affine(degrees=(0, 0), translate=(step, step), scale=(1, 1), shear=(0, 0))
        recursive, composed = (PMG((transform,), 4, 64, resampling=r, padding_mode="border")(image) for r in ("recursive", "composed"))
        differences.append((recursive - composed).abs().max().item())
    assert differences[0] > 0
    assert differences[1] < differences[0] / 3


@pytest.mark.parametrize("mix", [None, Mixup()])
def test_state_dict_puts_a_plan_together_again(mix, tmp_path, smooth):
    images = smooth(16, 3, 40, 52, dtype=torch.float32)
    plan = plan_of(mix=mix, padding_mode="reflection")
    torch.save(plan.state_dict(), tmp_path / "plan.pt")
    again = MotionPlan.from_state_dict(torch.load(tmp_path / "plan.pt", weights_only=True))
    state = plan.state_dict()
    assert state.keys() == again.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(state.values(), again.state_dict().values(), strict=True))
    assert torch.equal(render(images, plan), render(images, again))


def test_a_plan_alone_decides_the_clips(smooth):
    """A plan renders the same way in any PMG, because it holds the padding mode too."""
    images = smooth(16, 3, 40, 52, dtype=torch.float32)
    plan = plan_of(padding_mode="border")
    assert torch.equal(PMG(("identity",), 3, 5).render(images, plan), render(images, plan))
    assert not torch.equal(render(images, dataclasses.replace(plan, padding_mode="zeros")), render(images, plan))


def test_states_of_the_first_version_are_read():
    """A version 1 state, written out field by field: the back was layer 0 of a stack, and there was no padding mode."""
    plan = plan_of(mix=Mixup())
    field = fields(plan)
    old = {
        "source": torch.tensor(field["image"]),
        **{name: torch.tensor(field[name], dtype=torch.float32) for name in ("homography", "color", "box", "opacity")},
        "reads_previous": plan.back.reads_previous,
        "partner": plan.blend.partner,
        "partner_weight": plan.blend.weight,
        "partner_box": plan.blend.box,
        "partner_frames": plan.blend.frames,
        "transform": plan.transform,
        "source_size": torch.tensor([40, 52]),
        "frame_size": torch.tensor([32, 32]),
    }
    again = MotionPlan.from_state_dict(old).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in plan.state_dict().items())
    with pytest.raises(ValueError, match=r"missing: \['box'\], unknown: \['boxes'\]"):
        MotionPlan.from_state_dict({("boxes" if name == "box" else name): tensor for name, tensor in old.items()})
    with pytest.raises(ValueError, match="a back with opacity below 1"):
        MotionPlan.from_state_dict(old | {"opacity": old["opacity"] / 2})


def test_from_state_dict_names_what_is_wrong():
    state = plan_of().state_dict()
    with pytest.raises(ValueError, match=r"missing: \['back.image'\], unknown: \['back.images'\]"):
        MotionPlan.from_state_dict({name.replace("back.image", "back.images"): tensor for name, tensor in state.items()})
    with pytest.raises(ValueError, match="state is a MotionPlan of version 3; this release reads versions 1 and 2"):
        MotionPlan.from_state_dict(state | {"version": torch.tensor(3)})


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        (
            "layers",
            "opacity",
            torch.ones(15, 1, 6),
            r"plan.layers.opacity must be torch.float32 of shape \(16, 1, 6\), got torch.float32 of shape \(15, 1, 6\)",
        ),
        ("back", "image", torch.zeros(16), r"plan.back.image must be torch.int64 of shape \(16,\), got torch.float32 of shape \(16,\)"),
        ("back.motion", "homography", torch.eye(3), r"plan.back.motion.homography must have shape \(B, T, 3, 3\), got \(3, 3\)"),
        ("back.motion", "bend", torch.zeros(16, 6, 2, 9, 9), r"plan.back.motion.bend must be torch.float32 of shape \(16, 6, 2, 8, 8\)"),
        ("layers", "outline", torch.ones(16, 1, 2), "plan.layers.outline must have 18 columns for shapes other than boxes, got 2"),
    ],
)
def test_fields_must_agree(part, field, value, message):
    plan = plan_of()
    object.__setattr__(operator.attrgetter(part)(plan), field, value)  # the constructor is type-checked while tests run
    with pytest.raises(ValueError, match=message):
        plan.__post_init__()


def test_an_unknown_padding_mode_is_refused():
    with pytest.raises(ValueError, match=r"plan\.padding_mode must be one of 'zeros', 'border', 'reflection', got 'wrap'"):
        dataclasses.replace(plan_of(), padding_mode="wrap")


def test_a_plan_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan_of().back = None


def test_passes_cover_every_clip_once():
    plan = plan_of(batch=64)
    back = torch.cat([p.clips for p in plan.passes])
    assert back.sort().values.tolist() == list(range(64))
    (passes,) = plan.layer_passes
    front = torch.cat([p.clips for p in passes])
    assert front.sort().values.tolist() == (plan.transform == ALL.index("cutmix")).nonzero()[:, 0].tolist()


def test_to_moves_every_tensor():
    plan = plan_of()
    moved = plan.to("meta")
    assert all(tensor.device.type == "meta" for name, tensor in moved.state_dict().items() if "." in name)
    assert all(p.clips.device.type == "meta" for passes in (moved.passes, *moved.layer_passes) for p in passes)
    assert (plan.device.type, moved.device.type) == ("cpu", "meta")
    assert len(moved) == 16


def test_plans_are_sent_to_other_processes_as_one_message():
    """Tensors that are sent would each be an open file of shared memory."""
    plan = plan_of()
    sent = bytes(ForkingPickler.dumps(plan))
    assert b"rebuild_" not in sent
    came = pickle.loads(sent)
    assert all(torch.equal(tensor, came.state_dict()[name]) for name, tensor in plan.state_dict().items())
    computed = ("reduces", "mixes", "shaped")
    assert [getattr(came, name) for name in computed] == [getattr(plan, name) for name in computed]
    assert torch.equal(came.detail, plan.detail)
    assert [p._replace(clips=p.clips.tolist()) for p in came.passes] == [p._replace(clips=p.clips.tolist()) for p in plan.passes]
    came.back.image.add_(1)  # can be written to


def test_repr_and_describe_speak_of_what_happens():
    plan = plan_of()
    assert repr(plan).startswith("MotionPlan(16 clips of 6 frames, 40x52 -> 32x32, layers=1")
    for i in range(16):
        name = ALL[int(plan.transform[i])]
        text = plan.describe(i)
        assert text.startswith(f"clip {i}: {name}, 6 frames of 32x32 from 40x52")
        assert ("the previous frame" in text) == bool(plan.back.reads_previous[i])
        assert ("color map" in text) == (name in ("fade", "color_jitter"))
        assert ("the box" in text) == (name == "cutmix")
    assert plan.describe(-1) == plan.describe(15)
    with pytest.raises(IndexError, match="plan has 16 clips, so there is no clip 16"):
        plan.describe(16)


def test_describe_gives_the_right_figures():
    step = np.array([[1.0, 0, 3], [0, 1, 4], [0, 0, 1]])
    text = plan_for([np.eye(3), step], (20, 30), (20, 30), reads_previous=True).describe(0)
    assert "frame 0 sees (0.0, 0.0) to (29.0, 19.0) of it" in text
    assert "frame 1 sees (-3.0, -4.0) to (26.0, 15.0) of it" in text
    assert "its corners move 5.00 to 5.00 px per step" in text
