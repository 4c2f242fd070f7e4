"""Labels made from flow and tracks: tokens, boxes, masks and maps along the clip, mixed clips, and colors."""

import colorsys
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
from pseudomotion.labels import (
    displacement_stats,
    flow,
    flow_to_rgb,
    frame_difference,
    mix_labels,
    occlusion,
    patch_correspondence,
    tracks,
    unmixed,
    warp_labels,
)
from pseudomotion.mix import MixInfo, mix_targets
from pseudomotion.plan import Blend
from pseudomotion.trackability import trackability

NAMES = list(TRANSFORMS)


def plan_of(names=NAMES, batch=4, source=(44, 52), size=(32, 48), frames=4, **options):
    return PMG(tuple(names), frames, size, **options).plan((batch, 3, *source), ids=torch.arange(batch))


def with_partners(plan, weight=1.0, box=(9.5, 7.5, 30.5, 25.5)):
    b = len(plan)
    weights = torch.full((b,), float(weight))
    frames = torch.tensor([[0, plan.num_frames]] * b)
    return dataclasses.replace(plan, blend=Blend(torch.arange(b).roll(1), weights, torch.tensor([box] * b), frames))


def everything(plan, images):
    """Every label and measure of a plan, as a flat list of tensors."""
    info = MixInfo(plan.blend.partner, plan.blend.weight, plan.blend)
    clips = torch.rand(4, 3, 4, 32, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    boxes, points = torch.tensor([[3.0, 4, 20, 30]], dtype=torch.float32), torch.tensor([[7, 9]])
    parts = [
        *(label(plan, (16, 24), anchor=a, backward=b) for label in (flow, occlusion) for a in (None, 1) for b in (False, True)),
        flow_to_rgb(flow(plan)),
        tracks(plan),
        displacement_stats(plan),
        patch_correspondence(plan, patch=8),
        warp_labels(plan, boxes=boxes, points=points, masks=images[:, 0], maps=images.float()),
        mix_labels(plan, torch.arange(4)),
        mix_targets(torch.arange(4), info, 5),
        trackability(clips, plan, frames=(2, 4), patch_size=8),
        frame_difference((clips * 255).to(torch.uint8), stride=2),
    ]
    records = [part if isinstance(part, tuple) else [part] if isinstance(part, torch.Tensor) else vars(part).values() for part in parts]
    return [tensor for record in records for tensor in record]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_default_dtype_changes_no_label(dtype):
    plan = with_partners(plan_of(("affine", "perspective", "cutmix", "zoom")))
    images = torch.randint(0, 256, (4, 3, 44, 52), dtype=torch.uint8)
    expected = everything(plan, images)
    torch.set_default_dtype(dtype)
    try:
        found = everything(plan, images)
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))


@pytest.mark.parametrize(("names", "anchor"), [(("affine",), None), (("affine",), 0), (("cutmix",), None), (("zoom",), -1)])
def test_tokens_come_from_where_the_painter_says(names, anchor):
    """Correspondence by brute force: trace every pixel of every token back individually, and count."""
    plan = with_partners(plan_of(names, batch=2, size=(16, 24), frames=4))
    found = patch_correspondence(plan, patch=8, tubelet=2, anchor=anchor)
    painter = Painter(plan)
    assert found.token.shape == (2, 12)
    for i in range(2):
        for token in range(12):
            tubelet, row, column = token // 6, token // 3 % 2, token % 3
            other = tubelet - 1 if anchor is None else anchor % 2
            votes = np.zeros(12)
            for k in range(2) if other >= 0 else ():
                for y in range(8 * row, 8 * row + 8):
                    for x in range(8 * column, 8 * column + 8):
                        (u, v), seen = painter.follow(i, 2 * tubelet + k, 2 * other + k, (x, y))
                        if seen:
                            votes[6 * other + 3 * int((v + 0.5) // 8) + int((u + 0.5) // 8)] += 1
            # Where pixels lie on an edge to within rounding, one may go either way.
            assert float(found.share[i, token]) * 128 == pytest.approx(votes.max(), abs=1.01)
            assert float(found.visible[i, token]) * 128 == pytest.approx(votes.sum(), abs=1.01)
            if votes.max() == 0:
                assert found.token[i, token] == -1
            elif np.sort(votes)[-2] < votes.max() - 2:
                assert found.token[i, token] == votes.argmax()


def test_tokens_of_a_still_clip_come_from_themselves():
    found = patch_correspondence(plan_of(("fade",), size=(32, 48)), 64, patch=16)
    assert found.token[0].tolist() == [-1] * 16 + list(range(16))
    assert found.share[0].tolist() == found.visible[0].tolist() == [0.0] * 16 + [1.0] * 16
    anchored = patch_correspondence(plan_of(("fade",), size=(32, 48)), 64, patch=16, anchor=1)
    assert anchored.token[0].tolist() == [*range(16, 32)] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 7}, "size must be a multiple of patch=7 and the plan's frames of tubelet=2, got 32 x 48 and 4"),
        ({"tubelet": 3}, "size must be a multiple of patch=16 and the plan's frames of tubelet=3, got 32 x 48 and 4"),
        ({"tubelet": 5}, "tubelet must be from 1 to 4, got 5"),
        ({"anchor": 2}, "anchor must be a frame of the plan, from -2 to 1, got 2"),
    ],
)
def test_errors_of_tokens(options, message):
    with pytest.raises(ValueError, match=message):
        patch_correspondence(plan_of(), **options)


@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True), st.booleans(), st.booleans())
def test_points_of_the_images_are_carried_along(names, pasted, composed):
    """Positions and visibility in every frame, compared with the numpy painter."""
    plan = plan_of(names, batch=3, source=(40, 50), size=(24, 30), resampling="composed" if composed else "recursive")
    plan = with_partners(plan, box=(4.5, 5.5, 20.5, 17.5)) if pasted else plan
    points = torch.rand(3, 5, 2, dtype=torch.float64) * torch.tensor([50, 40]) - 0.5
    labels = warp_labels(plan, points=points)
    painter = Painter(plan)
    stacked = 1 + plan.num_layers
    surfaces = stacked * (2 if pasted else 1)
    assert labels.points.shape == (3, 4, 5 * surfaces, 2)
    for i in range(3):
        for s in range(surfaces):
            owner, layer = (i, s) if s < stacked else (int(plan.blend.partner[i]), s - stacked)
            image = int(painter.field["image"][owner, layer])
            assert labels.source[i, s] == image
            x0, y0, x1, y1 = painter.field["box"][owner, layer]
            for n, point in enumerate(points[image].numpy()):
                unbroken = True
                for t in range(4):
                    place = painter.apply(painter.homography(owner, layer, t), point)
                    np.testing.assert_allclose(labels.points[i, t, s * 5 + n], place, atol=1e-4, rtol=1e-5)
                    unbroken = painter.inside(place) and (unbroken or layer or not painter.field["back.reads_previous"][owner])
                    in_box = x0 <= point[0] < x1 and y0 <= point[1] < y1
                    there = painter.field["opacity"][owner, layer, t] > 0
                    seen = bool(unbroken and in_box and there and painter.shown(i, t, place) == (owner, layer))
                    if painter.distance_to_edges(i, t, place) > 1e-6 and (s < stacked or painter.field["blend.weight"][i] == 1):
                        assert bool(labels.points_visible[i, t, s * 5 + n]) == seen


def test_boxes_follow_their_object(smooth):
    """The warped box is the bounding box of a rendered bright rectangle, in frames where all of it is visible."""
    images = torch.zeros(8, 3, 80, 80, dtype=torch.float64)
    images[:, :, 30:50, 24:52] = 1
    pmg = PMG(("zoom", "affine", "sliding_window", "perspective"), 4, 64, resampling="composed")
    plan = pmg.plan(images.shape, ids=torch.arange(8))
    clips = pmg.render(images, plan)[:, 0]
    labels = warp_labels(plan, boxes=torch.tensor([[23.5, 29.5, 51.5, 49.5], [-0.5, -0.5, 1.5, 1.5]]))
    assert labels.boxes.shape == (8, 4, 2, 4)
    whole = 0
    for i in range(8):
        for t in range(4):
            y, x = (clips[i, t] > 0.5).nonzero().unbind(-1)
            expected = [x.min() - 0.5, y.min() - 0.5, x.max() + 0.5, y.max() + 0.5]
            np.testing.assert_allclose(labels.boxes[i, t, 0], np.clip(expected, -0.5, 63.5), atol=1.6)
            whole += bool(labels.boxes_visible[i, t, 0] == 1)
    assert whole > 10
    corner, share = labels.boxes[:, :, 1], labels.boxes_visible[:, :, 1]
    empty = (corner[..., 2:] <= corner[..., :2]).any(-1)
    assert empty.any()
    assert share[empty].max() == 0
    assert ((share > 0) == ~empty).double().mean() > 0.8  # a sliver may lie between the points that are looked for


def test_boxes_are_cut_by_frame_and_layers():
    plan = plan_of(("cutmix",), batch=2, source=(60, 60), size=(48, 48))
    everything = torch.tensor([[-0.5, -0.5, 59.5, 59.5]])
    labels = warp_labels(plan, boxes=everything)
    assert labels.boxes[:, :, 0].eq(torch.tensor([-0.5, -0.5, 47.5, 47.5])).all()
    painter = Painter(plan)
    for t in range(4):
        corners = painter.field["box"][1, 1].reshape(2, 2).T
        expected = painter.apply(painter.homography(1, 1, t), corners).T.reshape(-1)
        np.testing.assert_allclose(labels.boxes[1, t, 1], expected, atol=1e-4)
    assert (labels.boxes_visible[:, :, 0] < 0.99).all()
    assert (labels.boxes_visible[:, :, 1] > 0).all()


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
@pytest.mark.parametrize("name", NAMES)
def test_masks_and_maps_are_those_of_the_source_pixel(name, resampling):
    """Nearest and bilinear sampling of every frame pixel in plain numpy, from the visible image."""
    plan = with_partners(plan_of((name,), batch=3, source=(30, 34), size=(24, 24), resampling=resampling))
    masks = torch.randint(1, 1000, (3, 30, 34))
    maps = torch.rand(3, 2, 30, 34) + 1
    labels = warp_labels(plan, masks=masks, maps=maps, fill=-1)
    assert labels.masks.dtype == torch.int64
    painter = Painter(plan)
    wrong = 0
    for i in range(3):
        for _ in range(60):
            t, y, x = (int(torch.randint(n, ())) for n in (4, 24, 24))
            owner, layer = painter.shown(i, t, (x, y))
            place = painter.apply(np.linalg.inv(painter.homography(owner, layer, t)), (x, y))
            way = range(t) if layer == 0 and painter.field["back.reads_previous"][owner] else ()
            shows = all(painter.inside(painter.apply(painter.homography(owner, layer, k), place)) for k in way)
            column, row = np.floor(place + 0.5).astype(int)
            image = int(painter.field["image"][owner, layer])
            if shows and 0 <= row < 30 and 0 <= column < 34:
                wrong += int(labels.masks[i, t, y, x] != masks[image, row, column])
                expected = oracle.bilinear(maps[image].double().numpy(), *place.reshape(2, 1, 1), "border")[:, 0, 0]
                np.testing.assert_allclose(labels.maps[i, :, t, y, x], expected, atol=1e-4)
            else:
                assert labels.masks[i, t, y, x] == -1
                assert (labels.maps[i, :, t, y, x] == -1).all()
    assert wrong <= 2  # positions that round either way
    assert (labels.masks > 0).double().mean() > 0.5


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({"boxes": torch.zeros(3, 5)}, ValueError, r"boxes must have shape \(N, 4\) or \(4, N, 4\), got \(3, 5\)"),
        ({"points": torch.zeros(3, 5, 2)}, ValueError, r"points must have shape \(N, 2\) or \(4, N, 2\), got \(3, 5, 2\)"),
        ({"masks": torch.zeros(4, 44, 51)}, ValueError, r"masks must have shape \(4, 44, 52\), got \(4, 44, 51\)"),
        ({"maps": torch.zeros(4, 44, 52)}, ValueError, r"maps must have shape \(4, C, 44, 52\), got \(4, 44, 52\)"),
        ({"maps": torch.zeros(4, 1, 44, 52).long()}, TypeError, "maps must be floats, got torch.int64; classes go into masks"),
    ],
)
def test_errors_of_warped_labels(labels, error, message):
    with pytest.raises(error, match=message):
        warp_labels(plan_of(), **labels)


def test_mixup_gives_both_labels_with_their_weights():
    plan = with_partners(plan_of(), 0.3, box=(-0.5, -0.5, 47.5, 31.5))
    classes = torch.tensor([5, 6, 7, 8])
    mixed = mix_labels(plan, classes)
    assert mixed.own.tolist() == [5, 6, 7, 8]
    assert mixed.partner.tolist() == [8, 5, 6, 7]
    torch.testing.assert_close(mixed.share, torch.full((4,), 0.7))
    assert mixed.lam.shape == (4, 4, 32, 48)
    torch.testing.assert_close(mixed.lam, torch.full_like(mixed.lam, 0.7))
    with pytest.raises(ValueError, match="labels must have one entry for each of 4 clips, got 3"):
        mix_labels(plan, classes[:3])


def test_lam_is_the_weight_in_the_rendered_clip():
    """With images of constant color, rendered pixels reveal the weight of each clip."""
    value = torch.tensor([0.1, 0.4, 0.6, 0.8], dtype=torch.float64)
    images = value[:, None, None, None].expand(4, 3, 40, 50)
    pmg = PMG(("identity",), 3, (32, 48))
    plan = with_partners(pmg.plan(images.shape, ids=torch.arange(4)), 0.6)
    clips = pmg.render(images, plan)[:, 0]
    mixed = mix_labels(plan, value)
    expected = mixed.lam * mixed.own[:, None, None, None] + (1 - mixed.lam) * mixed.partner[:, None, None, None]
    torch.testing.assert_close(clips, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed.share, mixed.lam.mean((1, 2, 3)))
    assert mix_labels(plan, value, (64, 96)).lam[0, 0, ::2, ::2].equal(mixed.lam[0, 0])


@pytest.mark.parametrize("frames", [(0, 4), (1, 3)])
def test_videomix_has_the_label_of_whichever_clip_shows(frames):
    plan = with_partners(plan_of(("affine", "zoom", "cutmix"), batch=6))
    plan = dataclasses.replace(plan, blend=dataclasses.replace(plan.blend, frames=torch.tensor([frames] * 6)))
    mixed = mix_labels(plan, flow(unmixed(plan)))
    shown = torch.where(mixed.lam[:, :-1, None] > 0.5, mixed.own, mixed.partner)
    assert torch.equal(flow(plan), shown)
    assert not torch.equal(shown, mixed.own)


def test_points_disappear_under_a_pasted_clip():
    plan = with_partners(plan_of(("sliding_window",), batch=4, frames=8))
    _, visible = tracks(plan, torch.tensor([[20.0, 16.0], [2.0, 2.0]]))
    _, unpasted = tracks(unmixed(plan), torch.tensor([[20.0, 16.0], [2.0, 2.0]]))
    assert visible[:, 0].all()
    assert (visible <= unpasted).logical_or(visible[:, :, :1]).all()
    assert not visible.all()


def test_flow_colors():
    """White at rest; red to the right and then, clockwise on the screen, yellow, green-cyan, blue; darker beyond the largest length."""
    vectors = torch.zeros(2, 1, 5)
    vectors[:, 0, 1:] = torch.tensor([[4.0, 0, -4, 0], [0, 4, 0, -4]])
    rgb = flow_to_rgb(vectors)
    assert rgb.shape == (3, 1, 5)
    assert rgb[:, 0, 0].tolist() == [255, 255, 255]
    hues = [colorsys.rgb_to_hsv(*(rgb[:, 0, k].double() / 255).tolist())[0] * 360 for k in range(1, 5)]
    assert hues == pytest.approx([0, 55, 180, 270], abs=25)
    assert hues == sorted(hues)
    half = flow_to_rgb(vectors, largest=8)[:, 0, 1].double() / 255
    assert colorsys.rgb_to_hsv(*half.tolist())[1] == pytest.approx(0.5, abs=0.02)
    assert flow_to_rgb(vectors, largest=2)[:, 0, 1].max() == pytest.approx(0.75 * 255, abs=1)


def test_flow_colors_of_every_direction_change_smoothly():
    turn = torch.linspace(-1, 6, 721, dtype=torch.float64)
    rgb = flow_to_rgb(torch.stack([turn.cos(), turn.sin()])[:, None]).double()[:, 0]
    assert rgb.diff(dim=1).abs().max() < 30
    assert (rgb.amax(0) > 250).all()
    assert len(rgb.T.unique(dim=0)) > 300


def test_flow_that_is_unknown_is_black_and_shapes_stay():
    vectors = torch.full((3, 4, 2, 5, 6), float("nan"))
    assert flow_to_rgb(vectors).shape == (3, 4, 3, 5, 6)
    assert flow_to_rgb(vectors).max() == 0
    vectors[0] = 1e10
    assert flow_to_rgb(vectors).max() == 0
    assert flow_to_rgb(torch.zeros(2, 3, 3)).min() == 255
    with pytest.raises(ValueError, match=r"flow must have shape \(\.\.\., 2, h, w\), got \(3, 5, 5\)"):
        flow_to_rgb(torch.zeros(3, 5, 5))
    with pytest.raises(TypeError, match=r"flow must be a float tensor, got torch\.int64"):
        flow_to_rgb(torch.zeros(2, 5, 5).long())
    with pytest.raises(ValueError, match="largest must be a positive number of pixels, got 0"):
        flow_to_rgb(torch.zeros(2, 5, 5), 0)


@pytest.mark.parametrize(
    ("dtype", "fill", "fits"),
    [
        (torch.uint8, 255, True),
        (torch.uint8, -100, False),
        (torch.uint8, 1.5, False),
        (torch.int64, -100, True),
        (torch.int16, 40000, False),
        (torch.int32, math.nan, False),
        (torch.bool, True, True),
        (torch.bool, 255, False),
        (torch.float16, -math.inf, True),
        (torch.float16, 1e5, False),
    ],
)
def test_a_fill_that_the_labels_cannot_hold_is_refused(dtype, fill, fits):
    plan = PMG(("affine",), num_frames=3, size=16, seed=3).plan((2, 3, 20, 20), ids=torch.arange(2))
    masks = torch.ones((2, 20, 20), dtype=dtype)
    if fits:
        assert set(warp_labels(plan, masks=masks, fill=fill).masks.unique().tolist()) <= {1, fill}
    else:
        with pytest.raises(ValueError, match=f"fill must be a value that masks of {dtype} can hold, got {fill}"):
            warp_labels(plan, masks=masks, fill=fill)
    with pytest.raises(ValueError, match="fill must be a value that maps"):
        warp_labels(plan, maps=torch.ones(2, 1, 20, 20).half(), fill=-70000)
