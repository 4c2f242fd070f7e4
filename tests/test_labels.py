"""Flow, tracks, occlusion and visibility, against brute force in numpy and against each other."""

import dataclasses
import math

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from painter import Painter

from pseudomotion import PMG, TRANSFORMS
from pseudomotion.labels import LABELS, displacement_stats, flow, occlusion, patch_correspondence, tracks
from pseudomotion.plan import Blend

NAMES = list(TRANSFORMS)
STATIC = ("identity", "fade", "color_jitter")


def plan_of(names=NAMES, batch=4, source=(44, 52), size=(36, 40), frames=4, seed=0, **options):
    return PMG(tuple(names), frames, size, seed=seed, **options).plan((batch, 3, *source), ids=torch.arange(batch))


def with_videomix(plan, weight=1.0, frames=None):
    """The plan with a box of each clip's neighbor pasted into all or some of its frames; the last clip stays unmixed."""
    b, (h, w) = len(plan), plan.frame_size
    box = torch.tensor([w * 0.25, h * 0.3, w * 0.8, h * 0.7]).round() - 0.5
    weights = torch.full((b,), weight)
    weights[-1] = 0
    during = torch.tensor([frames or (0, plan.num_frames)]).repeat(b, 1)
    partner = torch.arange(b).roll(1)
    return dataclasses.replace(plan, blend=Blend(partner, weights, box.repeat(b, 1), during))


side = st.integers(8, 70)
recipes = st.fixed_dictionaries(
    {
        "names": st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
        "batch": st.just(3),
        "source": st.tuples(side, side),
        "size": st.tuples(side, side),
        "frames": st.integers(2, 6),
        "seed": st.integers(0, 2**32),
        "crop": st.sampled_from([None, (0.2, 1.0)]),
        "resampling": st.sampled_from(["recursive", "composed"]),
        "pasted": st.sampled_from([None, "always", "at times"]),
    }
)


def make(recipe):
    options = dict(recipe)
    pasted = options.pop("pasted")
    plan = plan_of(**options)
    if pasted is None:
        return plan
    return with_videomix(plan, frames=None if pasted == "always" else (1, max(2, plan.num_frames - 1)))


def random_points(plan, n=6):
    h, w = plan.frame_size
    return torch.rand(n, 2, dtype=torch.float64) * torch.tensor([w, h]) - 0.5


@given(recipes, st.data())
def test_tracks_and_visibility_are_the_painters(recipe, data):
    plan = make(recipe)
    points = random_points(plan)
    frame = data.draw(st.integers(0, plan.num_frames - 1))
    found, visible = tracks(plan, points, frame=frame)
    painter = Painter(plan)
    for i in range(len(plan)):
        for n, point in enumerate(points.numpy()):
            if painter.distance_to_edges(i, frame, point) < 1e-6:
                continue
            for t in range(plan.num_frames):
                place, seen = painter.follow(i, frame, t, point)
                np.testing.assert_allclose(found[i, t, n], place, atol=1e-4, rtol=1e-6)
                if painter.distance_to_edges(i, t, place) > 1e-6:
                    assert bool(visible[i, t, n]) == seen


@given(recipes, st.data())
def test_flow_and_occlusion_are_the_painters(recipe, data):
    """Forward and backward flow, frame to frame and from an anchor, compared at random pixels."""
    plan = make(recipe)
    backward = data.draw(st.booleans())
    anchor = data.draw(st.one_of(st.none(), st.integers(-plan.num_frames, plan.num_frames - 1)))
    found, lost = flow(plan, anchor=anchor, backward=backward), occlusion(plan, anchor=anchor, backward=backward)
    painter = Painter(dataclasses.replace(plan.composed()) if anchor is not None else plan)
    h, w = plan.frame_size
    assert found.shape == (len(plan), plan.num_frames - (anchor is None), 2, h, w)
    for i in range(len(plan)):
        for _ in range(8):
            k, x, y = (int(torch.randint(n, ())) for n in (found.shape[1], w, h))
            pair = (k, k + 1) if anchor is None else (anchor % plan.num_frames, k)
            origin, target = pair[::-1] if backward else pair
            if painter.distance_to_edges(i, origin, (x, y)) < 1e-4:
                continue
            place, seen = painter.follow(i, origin, target, (x, y))
            np.testing.assert_allclose(found[i, k, :, y, x], place - (x, y), atol=1e-4, rtol=1e-5)
            if painter.distance_to_edges(i, target, place) > 1e-4:
                assert bool(lost[i, k, y, x]) == (not seen)


@given(recipes, st.integers(0, 2))
def test_tracks_and_flow_agree(recipe, frame):
    plan = make(recipe)
    frame = min(frame, plan.num_frames - 2)
    h, w = plan.frame_size
    points = torch.stack([torch.randint(w, (20,)), torch.randint(h, (20,))], -1)
    found, visible = tracks(plan, points, frame=frame)
    x, y = points.unbind(-1)
    moved = flow(plan)[:, frame, :, y, x].mT
    torch.testing.assert_close(found[:, frame + 1] - points, moved, atol=1e-4, rtol=1e-4)
    assert torch.equal(visible[:, frame + 1], ~occlusion(plan)[:, frame, y, x])
    torch.testing.assert_close(flow(plan, anchor=frame)[:, :, :, y, x].mT, found - points, atol=1e-4, rtol=1e-4)


@given(recipes, st.integers(0, 2))
def test_there_and_back_again(recipe, frame):
    """Points followed to the next frame and back return to their start, wherever they are visible."""
    plan = make(recipe)
    frame = min(frame, plan.num_frames - 2)
    points = random_points(plan, 30)
    there, visible = tracks(plan, points, frame=frame)
    back, seen = tracks(plan, there[:, frame + 1], frame=frame + 1)
    kept = visible[:, frame + 1] & visible[:, frame]
    torch.testing.assert_close(back[:, frame][kept].double(), points.expand(len(plan), -1, 2)[kept], atol=1e-3, rtol=0)
    assert (seen[:, frame] | ~kept).double().mean() > 0.99


def test_backward_flow_undoes_forward_flow_on_every_pixel():
    """Backward flow, sampled where forward flow leads, is its negative; flow of affine maps is linear, so sampling it is exact."""
    plan = plan_of(("affine", "zoom", "sliding_window"), batch=6)
    forward, backward, lost = flow(plan), flow(plan, backward=True), occlusion(plan)
    h, w = plan.frame_size
    y, x = np.mgrid[:h, :w].astype(float)
    assert forward.abs().amax() > 0.5
    for i in range(6):
        for t in range(3):
            u, v = forward[i, t].double().numpy()
            back = oracle.bilinear(backward[i, t].double().numpy(), x + u, y + v, "border")
            inner = ~lost[i, t].numpy() & (x + u > 0) & (x + u < w - 1) & (y + v > 0) & (y + v < h - 1)
            assert inner.mean() > 0.5
            np.testing.assert_allclose(np.stack([u, v])[:, inner], -back[:, inner], atol=1e-4)


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_static_transforms_have_no_flow_at_all(name, resampling):
    plan = plan_of((name,), crop=(0.2, 1.0), resampling=resampling)
    assert flow(plan).abs().max() == 0
    assert not occlusion(plan).any()
    assert displacement_stats(plan).mean.max() == 0
    assert tracks(plan)[1].all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in STATIC])
def test_moving_transforms_have_flow(name):
    assert (flow(plan_of((name,), batch=8)).abs().amax((1, 2, 3, 4)) > 0.1).all()


@pytest.mark.parametrize("size", [(72, 120), 17])
def test_another_size_scales_the_flow(size):
    """At another frame size, a pixel has the flow of the point at its position, scaled to the other pixels."""
    plan = with_videomix(plan_of(("cutmix", "affine", "perspective"), batch=6))
    found = flow(plan, size).numpy()
    h, w = found.shape[-2:]
    scale = np.array([w / plan.frame_size[1], h / plan.frame_size[0]])
    painter = Painter(plan)
    for i in range(6):
        for y, x in [(0, 0), (h // 2, w // 2), (h - 1, w // 3), (h // 3, w - 1)]:
            point = (np.array([x, y]) + 0.5) / scale - 0.5
            place, _ = painter.follow(i, 1, 2, point)
            np.testing.assert_allclose(found[i, 1, :, y, x], (place - point) * scale, atol=1e-4)


def test_a_blend_has_the_flow_of_the_clip_itself():
    plan = plan_of(("affine",))
    assert torch.equal(flow(with_videomix(plan, 0.4)), flow(plan))
    assert not torch.equal(flow(with_videomix(plan)), flow(plan))


def test_what_left_a_recursive_clip_is_lost():
    """Under rotation by 120 degrees per step a point leaves the frame and returns: lost in a recursive clip, visible in a composed one."""
    plan = plan_of(("affine",), batch=1, source=(32, 32), size=(32, 32), frames=4)
    turn = torch.tensor([[-0.5, -math.sqrt(0.75), 0], [math.sqrt(0.75), -0.5, 0], [0, 0, 1]])
    homography = torch.stack([torch.eye(3), turn, turn, turn])[None]
    plan = dataclasses.replace(
        plan, back=dataclasses.replace(plan.back, motion=dataclasses.replace(plan.back.motion, homography=homography))
    )
    point = torch.tensor([[20.0, 10.0]])
    for resampled, expected in [(plan, [True, False, False, False]), (plan.composed(), [True, False, False, True])]:
        found, visible = tracks(resampled, point)
        torch.testing.assert_close(found[0, 3], point, atol=1e-4, rtol=0)
        assert visible[0, :, 0].tolist() == expected
        share = patch_correspondence(resampled, patch=4, tubelet=1, anchor=0).visible.view(4, 8, 8)
        assert (share[3].min() == 1) == expected[3]  # the corners of frame 3 were outside in between
        assert share[1].min() < 1


def test_default_points_are_patch_centers():
    found, _ = tracks(plan_of(size=(32, 50)))
    assert found[0, 0].tolist() == [[7.5, 7.5], [23.5, 7.5], [39.5, 7.5], [7.5, 23.5], [23.5, 23.5], [39.5, 23.5]]
    assert tracks(plan_of(size=(8, 9)))[0][0, 0].tolist() == [[4.0, 3.5]]


def test_one_frame_has_no_flow():
    plan = plan_of(frames=1)
    assert flow(plan).shape == (4, 0, 2, 36, 40)
    assert occlusion(plan).shape == (4, 0, 36, 40)
    assert flow(plan, anchor=0).abs().max() == 0
    with pytest.raises(ValueError, match="plan must have at least two frames"):
        displacement_stats(plan)


def tensors_of(label):
    """The tensors of a label: one, or the fields of a record."""
    fields = [label] if isinstance(label, torch.Tensor) else vars(label).values() if dataclasses.is_dataclass(label) else label
    return [tensor for tensor in fields if isinstance(tensor, torch.Tensor)]


@pytest.mark.parametrize("name", LABELS)
def test_every_label_is_a_pure_function_of_a_plan_and_a_size(name):
    """A label never synchronizes (it runs on the meta device), supports another size, and leaves the plan unchanged."""
    label, plan = LABELS[name], with_videomix(plan_of(size=(32, 48)))
    before = {key: tensor.clone() for key, tensor in plan.state_dict().items()}
    own, larger, away = tensors_of(label(plan)), tensors_of(label(plan, (64, 96))), tensors_of(label(plan.to("meta")))
    assert all(torch.equal(before[key], tensor) for key, tensor in plan.state_dict().items())
    assert own
    assert [(t.shape, t.dtype, "meta") for t in own] == [(t.shape, t.dtype, t.device.type) for t in away]
    assert any(a.shape != b.shape for a, b in zip(own, larger, strict=True))
    for again, tensor in zip(tensors_of(label(plan, (32, 48))), own, strict=True):
        assert torch.equal(again.nan_to_num(), tensor.nan_to_num())


def test_nothing_waits_for_a_device():
    """The meta device holds no values, so code that reads one fails there."""
    plan = with_videomix(plan_of())
    meta = plan.to("meta")
    for label in (flow(meta), flow(meta, 64, anchor=1, backward=True), occlusion(meta), *tracks(meta)):
        assert label.device.type == "meta"
    assert flow(meta).shape == flow(plan).shape
    assert displacement_stats(meta).mean.device.type == "meta"


def test_the_plan_is_not_changed():
    plan = with_videomix(plan_of())
    before = {name: tensor.clone() for name, tensor in plan.state_dict().items()}
    flow(plan), occlusion(plan), tracks(plan), displacement_stats(plan)
    assert all(torch.equal(before[name], tensor) for name, tensor in plan.state_dict().items())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda plan: flow(plan, anchor=4), ValueError, "anchor must be a frame of the plan, from -4 to 3, got 4"),
        (lambda plan: occlusion(plan, anchor=-5), ValueError, "anchor must be a frame of the plan, from -4 to 3, got -5"),
        (lambda plan: tracks(plan, frame=9), ValueError, "frame must be a frame of the plan, from -4 to 3, got 9"),
        (lambda plan: tracks(plan, torch.zeros(3)), ValueError, r"points must have shape \(N, 2\) or \(4, N, 2\), got \(3,\)"),
        (lambda plan: tracks(plan, torch.zeros(3, 5, 2)), ValueError, r"points must have shape \(N, 2\) or \(4, N, 2\), got \(3, 5, 2\)"),
        (lambda plan: tracks(plan, torch.zeros(5, 2).bool()), TypeError, "points must be a tensor of coordinates, got torch.bool"),
        (lambda plan: flow(plan, size=0), ValueError, "size must be from 1 to 32768, got 0"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(plan_of())


@pytest.mark.parametrize("name", ["sliding_window", "zoom", "affine", "perspective"])
def test_calibration(name):
    """Over 4,096 draws at 224 x 224, 16 frames: median mean step of 2 to 10 px; 40 % of the first frame still visible in the last."""
    plan = PMG((name,), 16, 224).plan((4096, 3, 256, 256), ids=torch.arange(4096))
    stats = displacement_stats(plan, samples=8)
    assert 2 < stats.mean.median() < 10
    assert stats.visible.mean() > 0.4
    assert (stats.percentile_95 >= stats.mean * 0.99).all()


def test_displacement_stats_are_those_of_the_flow():
    plan = plan_of(("zoom", "affine", "perspective"), batch=6, size=(32, 32))
    stats = displacement_stats(plan, samples=32)
    length = flow(plan).double().norm(dim=2).flatten(1)
    torch.testing.assert_close(stats.mean, length.mean(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(stats.percentile_95, length.quantile(0.95, 1, interpolation="higher"), atol=1e-2, rtol=0)
    torch.testing.assert_close(stats.visible, 1 - occlusion(plan, anchor=0)[:, -1].double().mean((1, 2)), atol=1e-9, rtol=0)
