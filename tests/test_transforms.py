"""Shared tests that run for every registered transform, new ones included; then tests of individual transforms."""

import dataclasses
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pseudomotion import PMG, TRANSFORMS, Objects, checks, geometry, transforms
from pseudomotion.draws import Draws
from pseudomotion.motion import map_fields
from pseudomotion.transforms import ALL_TRANSFORMS, Affine, ColorJitter, CutMix, Fade, Perspective, SlidingWindow, Transform, Zoom
from pseudomotion.transforms.base import View
from pseudomotion.transforms.by_name import transforms_and_weights

NAMES = list(ALL_TRANSFORMS)
MOVING = [name for name in NAMES if name != "identity"]
EVERY = [*((name,) for name in NAMES), tuple(NAMES)]
SHAPE = (5, 3, 40, 52)


def plan_of(names, ids, shape=SHAPE, seed=0, **options):
    return PMG(names, 6, 32, seed=seed, **options).plan((len(ids), *shape[1:]), ids=torch.as_tensor(ids))


def rows(plan, i, ids):
    """The plan of clip i, with clip ids instead of batch positions."""
    state = {name: tensor[i] for name, tensor in plan.state_dict().items() if "." in name}
    ids = torch.as_tensor(ids)
    return state | {name: ids[state[name]] for name in ("back.image", "layers.texture")}


def same(a, b, but=()):
    return all(torch.equal(a[name], b[name]) for name in a if name not in but)


def test_there_are_the_papers_eight():
    assert list(TRANSFORMS) == ["identity", "sliding_window", "zoom", "fade", "affine", "perspective", "color_jitter", "cutmix"]
    assert NAMES[:10] == [*TRANSFORMS, "elastic", "shake"]  # plans hold positions
    assert all(ALL_TRANSFORMS[name].name == name for name in NAMES)
    assert set(ALL_TRANSFORMS.values()) == {cls for cls in Transform.__subclasses__() if cls.__module__.startswith("pseudomotion.")}


@pytest.mark.parametrize("names", EVERY, ids="+".join)
def test_same_seed_same_plan_and_other_seed_other_plan(names):
    ids = list(range(20))
    plan, again, other = plan_of(names, ids), plan_of(names, ids), plan_of(names, ids, seed=1)
    assert same(plan.state_dict(), again.state_dict())
    assert names == ("identity",) or not same(plan.state_dict(), other.state_dict())


@pytest.mark.parametrize("names", EVERY, ids="+".join)
@pytest.mark.parametrize("options", [{}, {"crop": (0.3, 0.9)}, {"resampling": "composed"}], ids=str)
def test_a_clip_depends_on_its_id_alone(names, options):
    """Plans are bitwise equal in batches of 64, 8 and 1, and shuffled. Only partners depend on the batch."""
    ids = (torch.arange(64) * 2**35 - 7).tolist()
    whole = plan_of(names, ids, **options)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1)).tolist()
    batches = [ids[k : k + 8] for k in range(0, 64, 8)] + [[i] for i in ids[:16]]
    for batch in batches:
        part = plan_of(names, batch, **options)
        for i, clip in enumerate(batch):
            assert same(rows(whole, ids.index(clip), ids), rows(part, i, batch), but=("back.image", "layers.texture"))
    shuffled = [ids[k] for k in order]
    part = plan_of(names, shuffled, **options)
    for i, clip in enumerate(shuffled):
        assert same(rows(whole, ids.index(clip), ids), rows(part, i, shuffled))


@pytest.mark.parametrize("names", EVERY, ids="+".join)
def test_pixels_depend_on_id_and_image_alone(names, smooth):
    ids = torch.arange(8)
    images = smooth(8, *SHAPE[1:], dtype=torch.float32)
    pmg = PMG(names, 6, 32)
    whole = pmg(images, ids=ids)
    order = torch.tensor([3, 7, 0, 1, 5, 2, 6, 4])
    assert torch.equal(pmg(images[order], ids=ids[order]), whole[order])
    if "cutmix" not in names:  # alone in a batch, a clip is its own partner
        for i in range(8):
            assert torch.equal(pmg(images[i : i + 1], ids=ids[i : i + 1])[0], whole[i])


def test_another_process_makes_the_same_plan():
    program = (
        "import torch; from pseudomotion import PMG; from pseudomotion.transforms import ALL_TRANSFORMS;"
        "plan = PMG(tuple(ALL_TRANSFORMS), 6, 32, crop=(0.2, 1.0)).plan((64, 3, 40, 52), ids=torch.arange(64));"
        "print(''.join(tensor.numpy().tobytes().hex() for tensor in plan.state_dict().values()))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    plan = PMG(tuple(ALL_TRANSFORMS), 6, 32, crop=(0.2, 1.0)).plan((64, 3, 40, 52), ids=torch.arange(64))
    assert answer == "".join(tensor.numpy().tobytes().hex() for tensor in plan.state_dict().values())


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("resampling", ["recursive", "composed"])
def test_differs_from_identity_and_keeps_changing(name, resampling, smooth):
    """At default strength, clips differ from those of identity, and every frame from the previous one."""
    images = smooth(16, *SHAPE[1:])
    moving = PMG((name,), 6, 32, resampling=resampling)(images, ids=torch.arange(16))
    still = PMG(("identity",), 6, 32)(images, ids=torch.arange(16))
    assert torch.equal(still, still[:, :, :1].expand_as(still))
    assert ((moving - still).abs().flatten(1).amax(1) > 0.01).all()
    assert ((moving.diff(dim=2)).abs().amax((1, 3, 4)) > 0.001).all()


@pytest.mark.parametrize("name", NAMES)
def test_input_is_not_changed(name, smooth):
    images, ids = smooth(3, *SHAPE[1:]), torch.arange(3)
    before, versions = images.clone(), (images._version, ids._version)
    PMG((name,), 4, 32, mean=(0.5,) * 3, std=(0.2,) * 3)(images, ids=ids)
    assert torch.equal(images, before)
    assert (images._version, ids._version) == versions


def ranges(transform):
    return [field for field in dataclasses.fields(transform) if "allowed" in field.metadata]


@pytest.mark.parametrize("name", NAMES)
def test_repr_rebuilds(name):
    transform = ALL_TRANSFORMS[name]()
    assert eval(repr(transform), vars(transforms)) == transform
    if fields := ranges(transform):
        middle = {f.name: (sum(getattr(transform, f.name)) / 2,) * 2 for f in fields}
        changed = dataclasses.replace(transform, **middle)
        assert eval(repr(changed), vars(transforms)) == changed != transform


@pytest.mark.parametrize("name", NAMES)
def test_zero_width_ranges_are_deterministic(name):
    """A range (v, v) gives every clip exactly the value v."""
    transform = ALL_TRANSFORMS[name]()
    fixed = dataclasses.replace(transform, **{f.name: (getattr(transform, f.name)[1],) * 2 for f in ranges(transform)})
    params = fixed.make_params(Draws(0, torch.arange(50)))
    wanted = {f.name: getattr(fixed, f.name)[0] for f in ranges(fixed)}
    for field, value in wanted.items():
        same_name = [key for key in params if key == field or key.startswith(f"{field}_")]
        assert all((params[key] == value).all() for key in same_name)
    free = [key for key in params if not any(key == field or key.startswith(f"{field}_") for field in wanted)]
    assert len(free) < len(params) or not wanted or name in ("perspective", "cutmix")


@pytest.mark.parametrize("name", NAMES)
def test_ranges_are_checked(name):
    cls = ALL_TRANSFORMS[name]
    for field in ranges(cls):
        low, high = field.metadata["allowed"]
        for bad in [(high, low), (low - 1, high), (low, high + 1), (low, float("nan"))]:
            with pytest.raises(ValueError, match=rf"{cls.__name__}\.{field.name} must be a pair \(low, high\) with .*, got "):
                cls(**{field.name: bad})
        for bad in ["ab", 1, (low, None)]:
            transform = cls()
            object.__setattr__(transform, field.name, bad)  # the constructor is type-checked while tests run
            with pytest.raises(TypeError, match=rf"{cls.__name__}\.{field.name} must be a pair of numbers \(low, high\), got "):
                transform.__post_init__()
        for kind in (list, Row):
            transform = cls()
            object.__setattr__(transform, field.name, kind([low, high]))
            transform.__post_init__()
            assert getattr(transform, field.name) == (low, high)


class Row(Sequence):
    """As Hydra's ListConfig: neither a list nor a tuple."""

    def __init__(self, entries):
        self.entries = entries

    def __len__(self):
        return len(self.entries)

    def __getitem__(self, index):
        return self.entries[index]


def test_any_sequence_is_taken():
    objects = Objects()
    for name, value in (("count", (0, 2)), ("size", (0.2, 0.4))):
        object.__setattr__(objects, name, Row(value))  # the constructor is type-checked while tests run
    objects.__post_init__()
    assert (objects.count, objects.size) == ((0, 2), (0.2, 0.4))
    assert checks.crop(Row([0.2, 1])) == (0.2, 1)
    assert checks.frame_size(Row([8, 9])) == (8, 9)
    assert checks.interval("radius", Row([1, 2]), 0, 3) == (1, 2)
    assert transforms_and_weights(Row(["zoom", "fade"]))[1] == (0.5, 0.5)
    with pytest.raises(TypeError, match=r"count must be a pair of ints \(smallest, largest\), got"):
        checks.pair("count", Row([0, 1.5]), checks.integer, "a pair of ints (smallest, largest)")


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
@pytest.mark.parametrize("name", NAMES)
def test_the_widest_ranges_make_plans_without_warnings(name, resampling):
    """Overflow in numpy would warn, which is an error here."""
    cls = ALL_TRANSFORMS[name]
    for end in (0, 1):
        extreme = cls(**{field.name: (field.metadata["allowed"][end],) * 2 for field in ranges(cls)})
        for size in (1, 8):
            plan = PMG((extreme,), 400, size, resampling=resampling).plan((3, 3, 9, 9), ids=torch.arange(3))
            assert not plan.composed().back.reads_previous.any()


def view_of(batch, source=(60, 80), frame=(32, 40), num_frames=16, crop=None):
    return View.first(source, frame, num_frames, crop, Draws(0, torch.arange(batch)))


def seen(motion, view):
    """Image coordinates of the corner pixels of every frame: (b, T, 4, 2)."""
    corners = torch.from_numpy(geometry.frame_corners(view.frame_size))
    return geometry.transform_points(geometry.inverse(motion.homography), corners)


def decide(transform, view):
    """The motion, as tensors."""
    motion = transform.make_plan(transform.make_params(Draws(0, torch.arange(len(view.scale)))), view)
    return map_fields(motion, torch.tensor)


@given(
    st.sampled_from([SlidingWindow((0.2, 1.0), (0, 0.3)), Zoom((1.0, 1.4))]),
    st.tuples(st.integers(8, 300), st.integers(8, 300)),
    st.tuples(st.integers(2, 40), st.integers(2, 40)),
    st.sampled_from([None, (0.1, 1.0)]),
)
def test_windows_stay_inside_their_image(transform, source, frame, crop):
    """For all sizes, every sample lies between the outermost pixel centers."""
    view = view_of(64, source, frame, crop=crop)
    corners = seen(decide(transform, view), view)
    largest = torch.tensor([source[1] - 1, source[0] - 1], dtype=torch.float64)
    assert (corners > -1e-9).all()
    assert (corners < largest + 1e-9).all()


def test_sliding_window_moves_straight_at_constant_speed_in_any_direction():
    view = view_of(2000, source=(200, 200), frame=(64, 64))
    motion = decide(SlidingWindow(), view)
    centers = seen(motion, view).mean(2)
    steps = centers.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-9, rtol=0)
    size = seen(motion, view)[:, :, 2] - seen(motion, view)[:, :, 0]
    torch.testing.assert_close(size, size[:, :1].expand_as(size), atol=1e-9, rtol=0)
    angle = torch.atan2(steps[:, 0, 1], steps[:, 0, 0])
    assert ((angle + torch.pi) / (2 * torch.pi) * 8).long().clamp(max=7).bincount(minlength=8).min() > 180


def test_sliding_window_speed_is_what_was_asked_for_where_there_is_room():
    view = view_of(100, source=(400, 400), frame=(64, 64), num_frames=5)
    motion = decide(SlidingWindow(size=(0.25, 0.25), speed=(0.05, 0.05)), view)
    in_frame = geometry.transform_points(motion.homography[:, 1:], seen(motion, view)[:, :-1]) - torch.from_numpy(
        geometry.frame_corners((64, 64))
    )
    torch.testing.assert_close(in_frame.norm(dim=-1), torch.full((100, 4, 4), 0.05 * 64, dtype=torch.float64))


def test_zoom_is_geometric_about_a_fixed_point_in_and_out_equally():
    view = view_of(2000, source=(100, 100), frame=(64, 64))
    motion = decide(Zoom(), view)
    scale = motion.homography[:, :, 0, 0]
    ratio = scale[:, 1:] / scale[:, :-1]
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), atol=1e-9, rtol=0)
    size = torch.where(ratio[:, 0] > 1, ratio[:, 0], 1 / ratio[:, 0])
    assert size.min() > 1.025 - 1e-9
    assert size.max() < 1.05 + 1e-9
    assert 0.45 < (ratio[:, 0] > 1).double().mean() < 0.55
    step = geometry.matmul(motion.homography[:, 1:], geometry.inverse(motion.homography[:, :-1]))
    fixed = step[:, :, :2, 2] / (1 - step[:, :, :1, 0])
    torch.testing.assert_close(fixed, fixed[:, :1].expand_as(fixed), atol=1e-6, rtol=0)
    assert (fixed[:, 0] > -1e-6).all()
    assert (fixed[:, 0] < 63 + 1e-6).all()


def test_fade_is_linear_from_1_towards_0_or_from_0_towards_1():
    gain = decide(Fade(depth=(0.8, 0.8)), view_of(2000, num_frames=5)).color[:, :, 0, 0]
    out = gain[:, 0] == 1
    expected_out, expected_in = (torch.tensor(v, dtype=torch.float64) for v in ([1, 0.8, 0.6, 0.4, 0.2], [0, 0.2, 0.4, 0.6, 0.8]))
    torch.testing.assert_close(gain[out], expected_out.expand(int(out.sum()), 5))
    torch.testing.assert_close(gain[~out], expected_in.expand(int((~out).sum()), 5))
    assert 0.45 < out.double().mean() < 0.55


def test_affine_is_the_stated_map():
    """Rotation by OpenCV about the frame's center, then the shift, at every step; frame 0 is the first view."""
    import cv2

    transform = Affine(degrees=(5, 5), translate=(0.1, 0.1), scale=(1.1, 1.1), shear=(0, 0))
    view = view_of(2, source=(32, 40), frame=(32, 40), num_frames=4)
    steps = decide(transform, view).homography[0]
    expected = cv2.getRotationMatrix2D((19.5, 15.5), -5, 1.1) + np.array([[0, 0, 4.0], [0, 0, 3.2]])
    np.testing.assert_allclose(steps[1:, :2], np.broadcast_to(expected, (3, 2, 3)), atol=1e-9)
    np.testing.assert_allclose(steps[0], np.eye(3), atol=1e-12)


def test_perspective_moves_corners_within_its_scale():
    view = view_of(500, source=(32, 40), frame=(32, 40), num_frames=2)
    step = decide(Perspective((0.05, 0.05)), view).homography[:, 1]
    edges = torch.tensor([[0, 0], [40, 0], [40, 32], [0, 32]], dtype=torch.float64) - 0.5
    moved = geometry.transform_points(step, edges) - edges
    assert (moved.abs() <= torch.tensor([1.0, 0.8]) + 1e-9).all()
    assert (moved.abs().amax((0, 1)) > torch.tensor([0.95, 0.75])).all()


@pytest.mark.parametrize("num_frames", [2, 16, 64])
def test_perspective_never_brings_the_horizon_into_the_frame(num_frames):
    """At the strongest setting, denominators of all powers of the step and of its inverse are checked at all pixels."""
    view = view_of(200, source=(24, 30), frame=(24, 30), num_frames=num_frames)
    step = decide(Perspective((0.5, 0.5)), view).homography[:, 1]
    assert ((step - torch.eye(3)).abs().amax((1, 2)) > 1e-4).all()
    y, x = np.mgrid[:24, :30]
    pixels = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    for way in (step.numpy(), np.linalg.inv(step.numpy())):
        power = np.broadcast_to(np.eye(3), step.shape)
        for _ in range(num_frames - 1):
            power = way @ power
            power = power / np.abs(power).max((1, 2), keepdims=True)
            denominator = power[:, 2] @ pixels
            assert (denominator / denominator.mean(1, keepdims=True) > 0.2).all()


def test_color_jitter_leaves_the_first_frame_and_the_geometry():
    motion = decide(ColorJitter(), view_of(50))
    assert torch.equal(motion.color[:, 0], torch.eye(3, 4, dtype=torch.float64).expand(50, 3, 4))
    assert torch.equal(motion.homography[:, 1:], torch.eye(3, dtype=torch.float64).expand(50, 15, 3, 3))


@given(
    st.tuples(st.integers(8, 300), st.integers(8, 300)),
    st.tuples(st.integers(4, 40), st.integers(4, 40)),
    st.sampled_from([None, (0.2, 1.0)]),
)
def test_cutmix_box_stays_in_its_image_and_in_the_frame(source, frame, crop):
    view = view_of(64, source, frame, crop=crop)
    motion = decide(CutMix((0.05, 1.0), (0, 0.2)), view)
    box = motion.layers.box[:, 0]
    image = torch.tensor([source[1], source[0]], dtype=torch.float64) - 0.5
    assert (box[:, :2] > -0.5 - 1e-9).all()
    assert (box[:, 2:] < image + 1e-9).all()
    corners = box[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 1, 4, 2)
    moving = geometry.transform_points(motion.layers.motion.homography[:, 0], corners)
    edge = torch.tensor([frame[1], frame[0]], dtype=torch.float64) - 0.5
    assert (moving > -0.5 - 1e-9).all()
    assert (moving < edge + 1e-9).all()
    steps = moving.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1, :1].expand_as(steps), atol=1e-9, rtol=0)
    assert torch.equal(motion.homography, torch.tensor(view.still()))


def test_cutmix_takes_the_box_from_its_partner():
    """With images of constant color: the partner's value inside the box, the clip's own outside."""
    value = torch.linspace(0.1, 0.9, 5)
    pmg = PMG(("cutmix",), 4, 32)
    images = value[:, None, None, None].expand(5, 3, 40, 40)
    plan = pmg.plan(images.shape, ids=torch.arange(5))
    clips = pmg.render(images, plan)
    for i in range(5):
        partner = int(plan.layers.texture[i, 0])
        assert partner != i
        assert set(clips[i].unique().tolist()) >= {value[i].item()}
        assert (clips[i] - value[partner]).abs().amin() < 1e-6
        assert ((clips[i] - value[i]).abs() > 1e-6).double().mean() < 0.35
