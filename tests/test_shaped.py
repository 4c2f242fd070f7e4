"""The reference renderer's outlines and bends against the float64 oracle, and what plans accept of them."""

import dataclasses

import numpy as np
import oracle
import pytest
import torch
from shapes import cut_outs, shaped_plan

from pseudomotion import TRANSFORMS, MotionPlan
from pseudomotion.mix import Mixup
from pseudomotion.render import render

ALL = tuple(TRANSFORMS)


@pytest.mark.parametrize(
    ("resampling", "padding_mode"), [("recursive", "zeros"), ("recursive", "border"), ("recursive", "reflection"), ("composed", "zeros")]
)
def test_outlines_and_bends_are_the_oracles(resampling, padding_mode, smooth):
    """Every outline, bent, over every back, bent too (under recursion at every step), with layers that come and go."""
    images = smooth(11, 3, 37, 45)
    plan = shaped_plan(ALL, resampling=resampling, padding_mode=padding_mode, mix=Mixup())
    assert plan.shaped
    expected = oracle.render(images, plan)
    np.testing.assert_allclose(render(images, plan), expected, atol=1e-6)
    np.testing.assert_allclose(render(images.float(), plan), expected, atol=5e-4)


def test_bends_read_every_level_of_the_pyramid(smooth):
    images, textures = smooth(11, 3, 150, 190), smooth(13, 3, 210, 160)
    plan = shaped_plan(("zoom", "affine"), image=(150, 190), texture=(210, 160), size=(24, 31))
    assert plan.detail.max() > 2
    np.testing.assert_allclose(render(images, plan, textures=textures), oracle.render(images, plan, textures), atol=1e-6)


@pytest.mark.parametrize("size", [(24, 31), (60, 70)])
def test_textures_are_cut_out_by_alpha(size, smooth):
    """Recolored, bent, reduced; what is transparent has colors, which show nowhere, not even between pixels."""
    images, textures = smooth(11, 3, 37, 45), cut_outs(smooth, 13, 4, 130, 110)
    plan = shaped_plan(ALL, texture=(130, 110), size=size, padding_mode="reflection", mix=Mixup())
    expected = oracle.render(images, plan, textures)
    np.testing.assert_allclose(render(images, plan, textures=textures), expected, atol=1e-6)
    np.testing.assert_allclose(render(images.float(), plan, textures=textures.float()), expected, atol=5e-4)
    hidden = textures.clone()
    hidden[:, :3] = torch.where(textures[:, 3:] == 0, 1 - textures[:, :3], textures[:, :3])
    torch.testing.assert_close(render(images, plan, textures=hidden), render(images, plan, textures=textures), atol=1e-12, rtol=0)
    opaque = textures.index_fill(1, torch.tensor([3]), 1)
    torch.testing.assert_close(render(images, plan, textures=opaque), render(images, plan, textures=textures[:, :3]), atol=1e-12, rtol=0)


def test_a_rigid_clip_does_not_change_beside_bent_ones(smooth):
    """Bends of zero, and other clips' bends, change no bit of a clip."""
    images = smooth(11, 3, 37, 45, dtype=torch.float32)
    plan = shaped_plan(("zoom", "affine"), kinds=("box",))
    motion = plan.back.motion
    rigid = dataclasses.replace(
        plan, back=dataclasses.replace(plan.back, motion=dataclasses.replace(motion, bend=motion.bend[..., :0, :0]))
    )
    alone, together = render(images, rigid), render(images, plan)
    still = (motion.bend == 0).flatten(1).all(1)
    assert torch.equal(alone[still], together[still])
    assert not torch.equal(alone[~still], together[~still])


def test_state_dict_holds_outlines_and_bends(smooth):
    plan = shaped_plan(ALL)
    again = MotionPlan.from_state_dict(plan.state_dict())
    images = smooth(11, 3, 37, 45, dtype=torch.float32)
    assert torch.equal(render(images, plan), render(images, again))
    assert "bent by up to 0.3" in plan.describe(1)


def test_composed_keeps_the_bend_of_the_first_view_and_refuses_others(smooth):
    plan = shaped_plan(("affine",), layers=0)
    with pytest.raises(ValueError, match="clips bend their previous frame cannot be composed"):
        plan.composed()
    bend = plan.back.motion.bend.clone()
    bend[:, 1:] = 0
    first = dataclasses.replace(plan, back=dataclasses.replace(plan.back, motion=dataclasses.replace(plan.back.motion, bend=bend)))
    whole = first.composed()
    assert torch.equal(whole.back.motion.bend, bend[:, :1].expand_as(bend))
    images = torch.nn.functional.interpolate(smooth(11, 3, 6, 6), (37, 45), mode="bicubic").clamp(0, 1)
    assert (render(images, whole) - render(images, first))[..., 9:-9, 9:-9].abs().max() < 0.02


def replaced(plan, name, change):
    part, field = name.rsplit(".", 1)
    target = plan.layers if part == "layers" else plan.back.motion
    value = getattr(target, field).clone()
    change(value)
    changed = dataclasses.replace(target, **{field: value})
    if part == "layers":
        return dataclasses.replace(plan, layers=changed)
    return dataclasses.replace(plan, back=dataclasses.replace(plan.back, motion=changed))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("layers.outline", lambda o: o[0, 0].fill_(7), "plan.layers.outline must have shapes 0 to 3 in column 0, got"),
        ("layers.outline", lambda o: o[0, 0, 1:2].fill_(0), "plan.layers.outline must have widths above 0 in column 1"),
        ("back.bend", lambda b: b[0, 0, 0, 0].fill_(0.5), "plan.back.motion.bend must be at most 0.48 cells"),
        ("back.bend", lambda b: b[0, 0, 0, 0].fill_(float("nan")), "plan.back.motion.bend must be at most 0.48 cells"),
    ],
)
def test_what_a_plan_refuses(name, change, message):
    with pytest.raises(ValueError, match=message):
        replaced(shaped_plan(("zoom",)), name, change)
