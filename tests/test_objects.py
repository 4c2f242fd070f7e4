"""Objects: what they depend on, where they are, what they show; the presets; and the extra transforms that bend and shake."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pseudomotion
from pseudomotion import PMG, Objects, geometry, objects, outline
from pseudomotion.labels import boxes, flow, instances, occlusion
from pseudomotion.mix import VideoMix
from pseudomotion.motion import map_fields
from pseudomotion.transforms import ALL_TRANSFORMS, Elastic

TEXTURES = (7, 3, 50, 40)
SINGLE = [name for name, cls in ALL_TRANSFORMS.items() if cls.num_layers == 0]
RICH = Objects(
    count=(0, 5), transforms=tuple(SINGLE), bend=(0.1, 0.4), presence=(0.3, 1.0), opacity=(0.6, 1.0), soft=0.3, feather=(1.0, 4.0)
)


def plan_of(options, ids, textures=TEXTURES, num_frames=5, size=(32, 40), **others):
    return PMG(("affine", "zoom"), num_frames, size, objects=options, **others).plan(
        (len(ids), 3, 44, 52), ids=torch.tensor(ids), textures=textures
    )


def rows(plan, i):
    return {name: tensor[i] for name, tensor in plan.state_dict().items() if name.startswith("layers.")}


def test_objects_depend_on_the_clip_id_alone():
    """Bitwise: alone, in batches, shuffled; and the first objects do not depend on how many there may be."""
    ids = [5, 2**40, -7, 11, 12, 13]
    whole = plan_of(RICH, ids)
    for batch in ([5], [13, -7], ids[::-1]):
        part = plan_of(RICH, batch)
        for i, clip in enumerate(batch):
            assert all(torch.equal(tensor, rows(whole, ids.index(clip))[name]) for name, tensor in rows(part, i).items())
    fewer = plan_of(dataclasses.replace(RICH, count=(0, 2)), ids)
    for i in range(len(ids)):
        own, most = rows(fewer, i), rows(whole, i)
        assert all(torch.equal(own[name], most[name][:2]) for name in own if name != "layers.opacity")
    assert plan_of(RICH, [5], seed=1).layers.box.ne(plan_of(RICH, [5]).layers.box).any()
    # The back is the one that the same id has without objects.
    bare = PMG(("affine", "zoom"), 5, (32, 40)).plan((6, 3, 44, 52), ids=torch.tensor(ids))
    assert torch.equal(bare.back.motion.homography, whole.back.motion.homography)


def test_objects_show_textures_the_batch_or_partner_images():
    ids = list(range(12))
    assert set(plan_of(RICH, ids).layers.texture.flatten().tolist()) == set(range(7))
    batch = plan_of(RICH, ids, textures=None)
    assert batch.texture_size is None
    own = torch.arange(12)[:, None]
    assert (batch.layers.texture != own).all()
    pmg = PMG(num_frames=3, size=16, objects=RICH)
    partners = pmg.plan((4, 3, 20, 20), ids=torch.arange(4), partner_images=True)
    assert torch.equal(partners.layers.texture[:4], (torch.arange(4) + 4)[:, None].expand(4, 5))
    images, others = torch.rand(2, 4, 3, 20, 20)
    whole = pmg(images, ids=torch.arange(4), partner_images=others)
    assert torch.equal(pmg(images[1:2], ids=torch.tensor([1]), partner_images=others[1:2]), whole[1:2])


@pytest.mark.parametrize("options", [RICH, Objects.yu2024(count=(4, 4)), Objects.smile2025()], ids=["rich", "yu", "smile"])
@pytest.mark.parametrize("size", [(50, 40), (9, 300)])
def test_nothing_outside_a_texture_shows(options, size):
    """White objects over white images stay white: no black from beyond a texture's edge bleeds into soft edges, at any pyramid level."""
    options = dataclasses.replace(options, transforms=("affine", "zoom", "shake"))
    pmg = PMG(("identity",), 6, 48, objects=options)
    clips = pmg(torch.ones(6, 3, 50, 50), ids=torch.arange(6), textures=torch.ones(2, 3, *size))
    torch.testing.assert_close(clips, torch.ones_like(clips), atol=1e-5, rtol=0)
    seen = pmg(torch.zeros(6, 3, 50, 50), ids=torch.arange(6), textures=torch.ones(2, 3, *size))
    assert (seen.amax((1, 2, 3, 4)) > 0.5).sum() >= 2


@pytest.mark.parametrize("name", SINGLE)
def test_every_transform_moves_objects(name):
    still = {"speed": (0.0, 0.0), "acceleration": (0.0, 0.0), "angle": (0.0, 0.0)}
    plan = plan_of(Objects(count=(3, 3), transforms=(name,), **still), [0, 1, 2])
    motion = plan.layers.motion
    changes = [(tensor.diff(dim=2) != 0).flatten(2).any(-1) for tensor in (motion.homography, motion.color, motion.bend)]
    assert torch.stack(changes).any(0).all() == (name != "identity")


def centers(plan):
    """Where the middle of every object's box is: (B, L, T, 2)."""
    box = plan.layers.box.double()
    middle = ((box[..., :2] + box[..., 2:]) / 2)[:, :, None, None]
    return geometry.transform_points(plan.layers.motion.homography.double(), middle.expand(-1, -1, plan.num_frames, -1, -1))[..., 0, :]


def test_speed_acceleration_and_size_are_what_was_asked_for():
    options = Objects(
        count=(4, 4),
        transforms=("identity",),
        speed=(0.02, 0.02),
        acceleration=(0.001, 0.001),
        size=(0.3, 0.3),
        aspect=(2.0, 2.0),
        shapes=("box",),
    )
    plan = plan_of(options, list(range(8)), num_frames=9, size=(100, 140))
    step = centers(plan).diff(dim=2).norm(dim=-1)
    torch.testing.assert_close(step, (2 + 0.1 * (torch.arange(8).double() + 0.5)).expand_as(step), atol=1e-3, rtol=0)
    box = plan.layers.box.double()
    sides = (box[..., 2:] - box[..., :2]) * plan.layers.motion.homography[:, :, 0, :2, :2].double().det().sqrt()[..., None]
    torch.testing.assert_close(sides, (torch.tensor([2.0, 0.5]).double().sqrt() * 30).expand_as(sides), atol=1e-3, rtol=0)
    for pace, first in (("accelerating", 0.0), ("decelerating", 4.0)):
        paced = dataclasses.replace(options, paces={pace: 1}, acceleration=(0.0, 0.0))
        step = centers(plan_of(paced, [1], num_frames=9, size=(100, 140))).diff(dim=2).norm(dim=-1)
        torch.testing.assert_close(step.mean(-1), torch.full_like(step[..., 0], 2.0), atol=1e-3, rtol=0)
        torch.testing.assert_close(step[..., 0], torch.full_like(step[..., 0], first + (0.25 if first == 0 else -0.25)), atol=1e-3, rtol=0)


def test_presets_have_the_published_numbers():
    yu = plan_of(Objects.yu2024(), list(range(40)), size=(256, 256), num_frames=2)
    step = centers(yu).diff(dim=2).norm(dim=-1)
    assert 1.2 * 4 - 0.5 <= step.min() <= 1.2 * 4 + 0.5
    assert 3 * 4 - 0.5 <= step.max() <= 3 * 4 + 0.5
    radius = torch.from_numpy(Objects.yu2024()._side(np.linspace(0.0005, 0.9995, 1000)) / 2)
    # P(r < x) of the density r^-3 - 1 on [0.1, 1], by numerical integration
    x = np.linspace(0.1, 1, 100001)
    share = np.cumsum(x**-3 - 1)
    for quantile in (0.1, 0.5, 0.9):
        assert float(radius.quantile(quantile)) == pytest.approx(x[np.searchsorted(share, quantile * share[-1])], rel=0.01)
    smile = plan_of(Objects.smile2025(), list(range(200)), num_frames=16, size=(224, 224))
    assert centers(smile).diff(dim=2).norm(dim=-1).max() <= 12
    shape = smile.layers.outline[..., outline.SHAPE].flatten()
    assert (shape == outline.BOX).double().mean() == pytest.approx(0.5, abs=0.08)
    soft = smile.layers.outline[..., outline.FEATHER] / (smile.layers.box[..., 2:] - smile.layers.box[..., :2]).amin(-1)
    assert (soft > 0.2).double().mean() == pytest.approx(0.5, abs=0.08)


def test_objects_enter_leave_come_and_go():
    options = Objects(count=(6, 6), speed=(0.05, 0.1), presence=(0.4, 0.6), transforms=("identity",), size=(0.2, 0.3))
    plan = plan_of(options, list(range(20)), num_frames=16)
    at, opacity = centers(plan), plan.layers.opacity
    inside = ((at > -0.5) & (at < torch.tensor([39.5, 31.5]))).all(-1)
    assert (inside.any(2) & ~inside.all(2)).double().mean() > 0.5
    assert opacity.diff(dim=2).abs().max() <= 0.5 + 1e-6
    assert 0.3 < (opacity > 0.5).double().mean() < 0.7
    assert (plan_of(Objects(), [1, 2]).layers.opacity.unique().tolist()) == [0, 1]


def test_a_hidden_object_has_a_box_and_does_not_show():
    """Objects under an opaque one of the whole frame: they have amodal boxes, no visible ones, and change no pixel."""
    plan = plan_of(Objects(count=(3, 3), shapes=("box",), transforms=("identity",), size=(0.3, 0.4)), [0, 1, 2], size=(32, 40))
    box = plan.layers.box.clone()
    homography = plan.layers.motion.homography.clone()
    homography[:, 2] = torch.diag(torch.tensor([2.0, 2, 1]))
    homography[:, 2, :, :2, 2] = -20
    box[:, 2] = torch.tensor([4.0, 4, 36, 46])
    motion = dataclasses.replace(plan.layers.motion, homography=homography)
    plan = dataclasses.replace(plan, layers=dataclasses.replace(plan.layers, box=box, motion=motion))
    found, shown = boxes(plan), instances(plan)
    assert (shown == 3).all()
    assert found.visible[:, :, :2].isnan().all()
    assert not found.amodal[:, :, :2].isnan().all()
    assert (found.share[:, :, :2] == 0).all()
    images, textures = torch.rand(3, 3, 44, 52), torch.rand(*TEXTURES)
    opacity = plan.layers.opacity.clone()
    opacity[:, :2] = 0
    alone = dataclasses.replace(plan, layers=dataclasses.replace(plan.layers, opacity=opacity))
    clips = [PMG(("affine",), 5, (32, 40)).render(images, each, textures=textures) for each in (plan, alone)]
    torch.testing.assert_close(*clips, atol=1e-6, rtol=0)


def test_occlusion_is_what_counting_says():
    """Boxes on whole pixels that move by whole pixels over a back that stands still: their maps painted and shifted in numpy."""
    random = np.random.default_rng(0)
    plan = PMG(("identity",), 4, (30, 36), objects=Objects(count=(4, 4), shapes=("box",), transforms=("identity",))).plan(
        (3, 3, 40, 40), ids=torch.arange(3), textures=(2, 3, 40, 40)
    )
    corner, sides, step = (random.integers(low, high, (3, 4, 2)) for low, high in ((0, 25), (4, 14), (-4, 5)))
    box = np.concatenate([np.full((3, 4, 2), 9.5), 9.5 + sides], -1)
    homography = np.tile(np.eye(3), (3, 4, 4, 1, 1))
    homography[..., :2, 2] = (corner - 10)[:, :, None] + step[:, :, None] * np.arange(4)[:, None]
    motion = dataclasses.replace(plan.layers.motion, homography=torch.from_numpy(homography).float())
    layers = dataclasses.replace(plan.layers, box=torch.from_numpy(box).float(), motion=motion)
    plan = dataclasses.replace(plan, layers=layers)
    maps = np.zeros((3, 4, 30, 36), dtype=int)
    for i, t, k in np.ndindex(3, 4, 4):
        (x, y), (w, h) = corner[i, k] + t * step[i, k], sides[i, k]
        maps[i, t, max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = k + 1
    assert np.array_equal(instances(plan).numpy(), maps)
    lost = occlusion(plan).numpy()
    for i, t, y, x in np.ndindex(3, 3, 30, 36):
        k = maps[i, t, y, x]
        u, v = np.array([x, y]) + (step[i, k - 1] if k else 0)
        inside = 0 <= u < 36 and 0 <= v < 30
        assert lost[i, t, y, x] == (not inside or maps[i, t + 1, v, u] != k)
    assert 0.03 < lost.mean() < 0.4


def test_cut_outs_show_whole_textures():
    """The frame shows what alpha leaves of the texture, at the size that was asked for, and no dark rim of what lies beyond it."""
    textures = torch.zeros(2, 4, 60, 90)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 60), torch.linspace(-1, 1, 90), indexing="ij")
    textures[:, 3] = (x * x + y * y < 0.9).float()
    textures[:, :3] = (x * x + y * y < 0.9).float()  # black where it is transparent
    options = Objects(count=(1, 1), shapes=("cutout",), transforms=("identity",), size=(0.5, 0.5), speed=(0.0, 0.0), angle=(0.0, 0.0))
    pmg = PMG(("identity",), 2, 64, objects=options)
    images, ids = torch.ones(8, 3, 64, 64), torch.arange(8)
    plan = pmg.plan(images.shape, ids=ids, textures=textures.shape)
    assert torch.equal(plan.layers.box, torch.tensor([-0.5, -0.5, 89.5, 59.5]).expand(8, 1, 4))
    torch.testing.assert_close(pmg(images, ids=ids, textures=textures), torch.ones(8, 3, 2, 64, 64), atol=1e-5, rtol=0)
    share = (instances(plan, textures=textures)[:, 0] == 1).double().mean((1, 2))
    assert share.max() == pytest.approx(0.25 * 0.9 * np.pi / 4, rel=0.03)
    for wrong in (None, (2, 3, 60, 90)):
        with pytest.raises(ValueError, match="textures must be RGBA, over RGB images, for cut-outs"):
            pmg.plan(images.shape, textures=wrong)


@settings(max_examples=12)
@given(
    st.sampled_from([(0, 0), (0, 1), (1, 1), (2, 3)]),
    st.sampled_from([(0.01, 0.02), (3.0, 5.0), (0.2, 0.6)]),
    st.integers(1, 3),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.sampled_from([(0.0, 0.0), (1.0, 1.0)]),
)
def test_any_objects_can_be_rendered_and_labeled(count, size, num_frames, frame, texture, opacity):
    options = dataclasses.replace(RICH, count=count, size=size, opacity=opacity)
    pmg = PMG(("affine", "elastic"), num_frames, frame, objects=options, mix=VideoMix())
    images, textures = torch.rand(3, 3, 12, 9), torch.rand(2, 3, *texture)
    plan = pmg.plan(images.shape, ids=torch.arange(3), textures=textures.shape)
    clips = pmg.render(images, plan, textures=textures)
    assert clips.isfinite().all()
    assert -1e-5 <= clips.min() <= clips.max() <= 1 + 1e-5
    assert instances(plan).max() < 2 * (1 + count[1])
    bare = dataclasses.replace(plan, layers=map_fields(plan.layers, lambda array: array[:, :0]), texture_size=None)
    without = pmg.render(images, bare)
    for t, i in ((t, i) for t in range(num_frames) for i in range(3)):
        hidden = not (plan.layers.opacity[[i, int(plan.blend.partner[i])], :, t] > 0).any()
        assert not hidden or torch.equal(clips[i, :, t], without[i, :, t])
    if opacity == (0.0, 0.0) or count == (0, 0):
        assert torch.equal(clips, without)
        assert boxes(plan).amodal.isnan().all()
        assert torch.equal(flow(plan) if num_frames > 1 else clips, flow(bare) if num_frames > 1 else clips)


@pytest.mark.parametrize("name", objects.SHAPES)
def test_every_shape_spans_its_box_and_has_an_inside(name):
    """Outlines touch or nearly touch the sides of their boxes, are star-shaped, and cover a plausible share."""
    numbers = np.stack(pseudomotion.draws.Draws(3, torch.arange(40)).numbers("test", objects.NUMBERS), -1)
    rows = torch.from_numpy(objects.SHAPES[name](numbers, np.full(40, 0.02)))
    y, x = torch.meshgrid(*(torch.linspace(-1.2, 1.2, 121, dtype=torch.float64),) * 2, indexing="ij")
    box = torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)
    covered = outline.inside(rows[:, None, None], box, x, y, tuple(range(4)))
    share = covered.double().mean((1, 2)) * 2.4**2 / 4
    assert (share > 0.15).all()
    assert (share <= 1.05).all()
    reach = torch.stack([covered.any(1).sum(-1), covered.any(2).sum(-1)]) * 0.02  # width and height
    assert (reach.amax(0) > 1.5).all()
    assert name == "box" or len({tuple(row) for row in rows.tolist()}) > 1 or name in ("square", "ellipse", "circle", "rhombus", "cutout")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"count": (3, 1)}, ValueError, "Objects.count must be a pair"),
        ({"count": (0, 65)}, ValueError, "0 <= smallest <= largest <= 64"),
        ({"size": (0.5, 0.1)}, ValueError, "Objects.size must be a pair"),
        ({"shapes": ("bax",)}, ValueError, "Objects.shapes must be among box, .*, got 'bax'"),
        ({"shapes": {"box": -1.0}}, ValueError, "weights of at least 0"),
        ({"transforms": ("cutmix",)}, ValueError, "must not paint layers of their own, got cutmix"),
        ({"bend": (0.0, 0.5)}, ValueError, "Objects.bend must be a pair .* <= 0.48"),
        ({"soft": 2.0}, ValueError, "Objects.soft must be from 0 to 1"),
        ({"size_law": "cube"}, ValueError, "size_law must be one of 'uniform', 'inverse_cube'"),
    ],
)
def test_errors_of_objects(options, error, message):
    with pytest.raises(error, match=message):
        Objects(**options)


def test_errors_of_textures():
    with pytest.raises(ValueError, match="textures are what objects show"):
        PMG().plan((2, 3, 8, 8), textures=(1, 3, 8, 8))
    with pytest.raises(ValueError, match="textures must be at least one image of 3 channels"):
        PMG(objects=Objects()).plan((2, 3, 8, 8), textures=(1, 1, 8, 8))
    with pytest.raises(ValueError, match="cutmix, which shows images of the batch"):
        PMG(("cutmix",), objects=Objects()).plan((2, 3, 8, 8), textures=(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"3 channels \(RGB\) for fade, got 1"):
        PMG(("zoom",), objects=Objects(transforms=("fade",))).plan((2, 1, 8, 8))
    with pytest.raises(TypeError, match="objects must be Objects"):
        PMG(objects=3)
    with pytest.raises(ValueError, match="objects must be one of 'mixed', 'yu2024', 'smile2025', 'cutouts', got 'yu'"):
        PMG(objects="yu")
    assert PMG(objects="yu2024").objects == Objects.yu2024()


def test_bends_of_one_generator_have_one_grid():
    """Back and objects may have different ones; the renderers agree on each."""
    images, ids = torch.rand(3, 3, 40, 44), torch.arange(3)
    for back, own in ((3, 8), (8, 3), (4, 5)):
        options = Objects(count=(2, 2), bend=(0.3, 0.4), grid=own)
        clips = [
            PMG((Elastic(grid=back),), 4, 32, objects=options, renderer=renderer)(images, ids=ids) for renderer in ("fused", "reference")
        ]
        torch.testing.assert_close(*clips, atol=2e-4, rtol=0)
    with pytest.raises(ValueError, match="must bend by grids of the same size, got 5 x 5, 6 x 6"):
        PMG(("elastic", Elastic(grid=5)), 4, 32).plan((9, 3, 40, 44), ids=torch.arange(9))
    for wrong in (2, 9):
        with pytest.raises(ValueError, match=f"Elastic.grid must be from 3 to 8, got {wrong}"):
            Elastic(grid=wrong)


def test_repr_rebuilds():
    options = Objects(count=(1, 2), shapes={"ring": 2.0, "blob": 1.0})
    assert eval(repr(options), {"Objects": Objects}) == options
    assert "objects=Objects(" in repr(PMG(objects=options))


@pytest.mark.parametrize("crop", [None, (0.2, 1.0)])
def test_elastic_and_shake_stay_inside_the_image(crop):
    """White images stay white, although the padding is black."""
    for transform in (Elastic(), Elastic(grid=3), Elastic(grid=8), "shake"):
        for image, frame in (((40, 70), (24, 32)), ((300, 200), (20, 16)), ((9, 9), (12, 5))):
            clips = PMG((transform,), 9, frame, crop=crop)(torch.ones(12, 3, *image), ids=torch.arange(12))
            torch.testing.assert_close(clips, torch.ones_like(clips), atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", [3, 6, 8])
def test_elastic_starts_unbent_and_does_not_fold(grid):
    plan = PMG((Elastic(grid=grid),), 16, 224).plan((400, 3, 224, 224), ids=torch.arange(400))
    bend = plan.back.motion.bend
    assert bend.shape == (400, 16, 2, grid, grid)
    assert bend[:, 0].abs().max() < 1e-6
    assert 0.3 < bend.abs().max() <= 0.4
    assert (bend.abs().amax((1, 2, 3, 4)) > 0.08).double().mean() > 0.9
    assert not plan.back.reads_previous.any()
