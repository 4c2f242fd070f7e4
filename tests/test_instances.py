"""Labels of clips with objects of every outline, bent and over bent backs, by brute force; and instances, boxes and depth order."""

import dataclasses

import numpy as np
import oracle
import pytest
import torch
from painter import Painter
from shapes import shaped_plan
from test_labels import with_videomix

from pseudomotion import PMG, Objects
from pseudomotion.labels import boxes, depth_order, flow, instances, occlusion, patch_correspondence, surfaces, tracks, warp_labels
from pseudomotion.render import render


def plan_of(seed=0, **options):
    return shaped_plan(("zoom", "affine", "sliding_window"), batch=6, frames=4, size=(25, 31), seed=seed, **options)


@pytest.mark.parametrize(("pasted", "cut"), [(False, False), (True, False), (True, True)])
def test_tracks_flow_and_occlusion_are_the_painters(pasted, cut, smooth):
    """Over recursive backs that bend at every step, too; and of cut-outs."""
    plan = plan_of(texture=(41, 38)) if cut else plan_of()
    plan = with_videomix(plan) if pasted else plan
    textures = smooth(6, 4, 41, 38) if cut else None
    assert plan.back.reads_previous.any()
    assert not plan.back.reads_previous.all()
    h, w = plan.frame_size
    points = torch.stack([torch.randint(w, (4,)), torch.randint(h, (4,))], -1)
    found, visible = tracks(plan, points, frame=1, textures=textures)
    vectors, lost = flow(plan, textures=textures), occlusion(plan, textures=textures)
    painter = Painter(plan, textures[:, 3].numpy() if cut else None)
    compared = 0
    for i in range(len(plan)):
        for n, (x, y) in enumerate(points.tolist()):
            if painter.distance_to_edges(i, 1, (x, y)) < 1e-3:
                continue
            for t in range(plan.num_frames):
                place, seen = painter.follow(i, 1, t, (x, y))
                np.testing.assert_allclose(found[i, t, n], place, atol=2e-5)
                if painter.distance_to_edges(i, t, place) > 1e-3:
                    assert bool(visible[i, t, n]) == seen
                    compared += 1
                    if t == 2:
                        assert bool(lost[i, 1, y, x]) == (not seen)
                if t == 2:
                    np.testing.assert_allclose(vectors[i, 1, :, y, x], place - (x, y), atol=2e-5)
    assert compared > 50
    assert 0.05 < lost.double().mean() < 0.6


def test_there_and_back_is_exact():
    """Following points to another frame and back errs by less than 1e-6 pixels, but for rounding to float32 in between."""
    plan = plan_of(1)
    points = torch.rand(30, 2, dtype=torch.float64) * torch.tensor([30.0, 24])
    there, visible = tracks(plan, points, frame=0)
    again, _ = tracks(plan, there[:, 3], frame=3)
    kept = visible[:, 3] & visible[:, 0]
    assert kept.sum() > 50
    torch.testing.assert_close(again[:, 0][kept].double(), points.expand(6, -1, 2)[kept], atol=2e-5, rtol=0)


def test_instances_are_what_the_pixels_show():
    """With images of constant color and hard edges, every pixel has the color of the instance's image."""
    plan = plan_of(2, kinds=("triangle", "ellipse", "ring", "blob", "octagon", "squircle"))
    outline = plan.layers.outline.clone()
    outline[..., 1] = 1e-3
    motion = dataclasses.replace(plan.layers.motion, color=torch.eye(3, 4).expand_as(plan.layers.motion.color))
    layers = dataclasses.replace(plan.layers, outline=outline, motion=motion, opacity=(plan.layers.opacity >= 0.5).float())
    back = dataclasses.replace(plan.back.motion, color=torch.eye(3, 4).expand_as(plan.back.motion.color))
    plan = dataclasses.replace(plan, layers=layers, back=dataclasses.replace(plan.back, motion=back), padding_mode="border")
    textures = torch.linspace(0.3, 0.9, 6, dtype=torch.float64)
    images = torch.zeros(6, 3, 37, 45, dtype=torch.float64)
    painted = render(images, dataclasses.replace(plan, texture_size=(37, 45)), textures=textures[:, None, None, None].expand(6, 3, 37, 45))
    shown = instances(plan)
    colors = torch.cat([torch.zeros(6, 1), textures[plan.layers.texture]], 1).double()  # (B, 1 + L)
    expected = colors.gather(1, shown.flatten(1)).view_as(shown)
    wrong = (painted[:, 0] - expected).abs() > 1e-6
    assert wrong.double().mean() < 2e-3  # a pixel whose center lies on an edge
    assert all((shown == k).double().mean() > 0.02 for k in range(4))
    assert torch.equal(instances(plan, plan.frame_size), shown)


def test_maps_of_strongly_bent_objects_are_the_oracles():
    """All pixels, also those that only the bend brings into an object's box."""
    plan = plan_of(6, kinds=("box", "ellipse", "octagon"))
    pulled = torch.full_like(plan.layers.motion.bend, 0.45) * torch.tensor([1.0, -1, 1]).view(1, 3, 1, 1, 1, 1)
    motion = dataclasses.replace(plan.layers.motion, bend=pulled)
    plan = dataclasses.replace(plan, layers=dataclasses.replace(plan.layers, motion=motion))
    shown, field, beyond = instances(plan).numpy(), oracle.fields(plan), 0
    for i, t in np.ndindex(6, 4):
        expected, near = np.zeros(plan.frame_size, dtype=int), np.zeros(plan.frame_size, dtype=bool)
        for k in range(1, 4):
            if field["opacity"][i, k, t] >= 0.5:
                u, v = oracle.coordinates(field["homography"][i, k, t], plan.frame_size)
                x0, y0, x1, y1 = box = field["box"][i, k]
                off = oracle.distance(field["outline"][i, k], box, *oracle.bent(field["bend"][i][k][t], box, u, v))
                expected[off >= 0] = k
                near |= np.abs(off) < 1e-4
                beyond += ((off >= 0) & ~((u >= x0) & (u < x1) & (v >= y0) & (v < y1))).sum()
        assert (near | (shown[i, t] == expected)).all()
    assert beyond > 100


@pytest.mark.parametrize("behind", [False, True])
def test_labels_computed_where_it_counts_are_those_of_all_points(monkeypatch, behind):
    """As on a GPU, which computes every surface at all points; also where a part of an object is behind the horizon."""
    plan = with_videomix(plan_of(9, kinds=("box", "ellipse", "octagon")))
    if behind:
        tilt = torch.eye(3).repeat(6, 3, 4, 1, 1)
        tilt[:, :, :, 2, 0], tilt[:, :, :, 2, 1] = torch.linspace(-0.05, 0.05, 18).view(6, 3, 1), 0.02
        motion = plan.layers.motion
        motion = dataclasses.replace(
            motion, homography=motion.homography @ tilt, bend=motion.bend * (torch.arange(3) > 1).view(3, 1, 1, 1, 1)
        )
        plan = dataclasses.replace(plan, layers=dataclasses.replace(plan.layers, motion=motion))

    def labels():
        return [
            flow(plan),
            occlusion(plan, backward=True),
            instances(plan),
            *boxes(plan),
            *patch_correspondence(plan, 32, patch=8, tubelet=1),
        ]

    chosen = labels()
    monkeypatch.setattr(surfaces, "SELECTING", ())
    for some, every in zip(chosen, labels(), strict=True):
        torch.testing.assert_close(some, every, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert all((chosen[2] == k).double().mean() > 0.01 for k in range(4))


def test_boxes_are_counted():
    plan = plan_of(3)
    shown, found, painter = instances(plan), boxes(plan), Painter(plan)
    h, w = plan.frame_size
    for i, t in ((3, 2),):
        for k in range(3):
            alone = [(x, y) for y in range(h) for x in range(w) if painter.covers(i, k + 1, t, (x, y))]
            seen = (shown[i, t] == k + 1).nonzero().flip(-1).tolist()
            for listed, box in ((seen, found.visible[i, t, k]), (alone, found.amodal[i, t, k])):
                if not listed:
                    assert box.isnan().all()
                    continue
                xs, ys = zip(*listed, strict=True)
                assert box.tolist() == [min(xs) - 0.5, min(ys) - 0.5, max(xs) + 0.5, max(ys) + 0.5]
            assert float(found.share[i, t, k]) == pytest.approx(len(seen) / max(len(alone), 1))
    assert found.visible[:, 0, 2].isnan().all()  # opacity 0 in frame 0


def test_labels_of_cut_outs_are_what_the_pixels_show(smooth):
    """Textures of one color each, opaque or transparent: every pixel has the color of the surface that labels name; boxes fit it."""
    plan = plan_of(5, kinds=("box", "ellipse"), texture=(41, 38), bent=False)
    outline = plan.layers.outline.clone()
    outline[..., 1] = 1e-3
    motion = dataclasses.replace(plan.layers.motion, color=torch.eye(3, 4).expand_as(plan.layers.motion.color))
    opacity = (plan.layers.opacity >= 0.5).float()
    plan = dataclasses.replace(plan, layers=dataclasses.replace(plan.layers, outline=outline, motion=motion, opacity=opacity))
    colors = torch.linspace(0.3, 0.9, 6, dtype=torch.float64)
    alpha = (smooth(6, 1, 41, 38) > 0.5).double()
    textures = torch.cat([colors.view(6, 1, 1, 1).expand(6, 3, 41, 38), alpha], 1)
    painted = render(torch.zeros(6, 3, 37, 45, dtype=torch.float64), plan, textures=textures)
    shown = instances(plan, textures=textures)
    known = torch.cat([torch.zeros(6, 1), colors[plan.layers.texture]], 1).double()  # (B, 1 + L)
    matches = (painted[:, 0, ..., None] - known[:, None, None, None]).abs() < 1e-6  # (B, T, h, w, 1 + L)
    clean = matches.any(-1)  # not between an opaque and a transparent pixel of a texture
    assert clean.double().mean() > 0.6
    named = matches.gather(-1, shown[..., None])[..., 0]
    assert (clean & ~named).double().mean() < 2e-3  # a pixel whose center lies on an edge
    whole = instances(plan)
    assert 0.1 < (shown != whole).double().mean() < 0.5
    found, bare = boxes(plan, textures=textures), boxes(plan)
    inside = (found.amodal[..., :2] >= bare.amodal[..., :2]) & (found.amodal[..., 2:] <= bare.amodal[..., 2:])
    assert (inside.all(-1) | found.amodal.isnan().any(-1)).all()
    assert ((shown == 3).flatten(2).any(2) == (found.share[..., 2] == 1)).all()  # nothing lies before the last
    assert torch.equal(instances(plan, textures=textures[:, :3]), whole)
    with pytest.raises(ValueError, match=r"textures for this plan must be of size \(41, 38\), got shape \(6, 4, 40, 38\)"):
        instances(plan, textures=textures[:, :, 1:])


def test_depth_order_lists_what_is_there():
    plan = plan_of()
    order = depth_order(plan)
    assert order[0].tolist() == [[2, 1, 0, -1], [3, 2, 1, 0], [3, 2, 1, 0], [3, 2, 1, 0]]
    assert order.shape == (6, 4, 4)


def test_masks_and_points_of_images_follow_bends():
    """A mask holding pixel numbers gives, at every pixel, the pixel that the painter finds there; points go where tracks go."""
    plan = plan_of(4)
    mask = torch.arange(37 * 45).view(1, 37, 45).repeat(6, 1, 1)
    labels = warp_labels(plan, masks=mask, fill=-1, points=torch.tensor([[20.0, 17.0]]), boxes=torch.tensor([[10.0, 9, 30, 28]]))
    painter, shown = Painter(plan), instances(plan)
    compared = 0
    for i in range(6):
        for x, y in ((15, 12), (4, 20), (27, 3), (9, 9)):
            u, v = painter.to_image(i, int(shown[i, 2, y, x]), 2, (x, y))
            value = int(labels.masks[i, 2, y, x])
            if value >= 0 and max(abs((c % 1) - 0.5) for c in (u, v)) < 0.499:
                assert value == round(v) * 45 + round(u)
                compared += 1
        np.testing.assert_allclose(labels.points[i, 2, 0], painter.to_frame(i, 0, 2, (20.0, 17.0)), atol=1e-4)
        corner = painter.to_frame(i, 0, 2, (10.0, 28.0)).clip((-0.5, -0.5), (30.5, 24.5))
        x0, y0, x1, y1 = labels.boxes[i, 2, 0].tolist()
        assert x0 - 1e-4 <= corner[0] <= x1 + 1e-4
        assert y0 - 1e-4 <= corner[1] <= y1 + 1e-4
    assert compared > 8


def test_objects_with_textures_have_every_label():
    pmg = PMG(("zoom", "elastic"), 4, 32, objects=Objects(count=(0, 4), bend=(0.1, 0.4), presence=(0.4, 1.0)))
    plan = pmg.plan((5, 3, 40, 48), ids=torch.arange(5), textures=(7, 3, 30, 30))
    masks = torch.randint(9, (5, 40, 48))
    labels = warp_labels(plan, masks=masks, points=torch.tensor([[8.0, 9]]))
    assert labels.points.shape == (5, 4, 1, 2)
    assert (labels.masks[instances(plan) > 0] == 0).all()
    assert patch_correspondence(plan, patch=8, tubelet=1).share.isfinite().all()
    assert flow(plan).isfinite().all()
