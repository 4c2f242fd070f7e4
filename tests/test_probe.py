"""The motion probe: what its pixels do by OpenCV, that frames tell nothing, and that clips are a function of their id."""

import itertools

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from pseudomotion.geometry import transform_points
from pseudomotion.labels import flow
from pseudomotion.train.probe import CLASSES, DIRECTIONS, MotionProbe, Motions, textures

SIZE, FRAMES = 48, 5
GREY = 128
STILL_BACKGROUND = Motions(drift=(0.0, 0.0))


def test_there_are_at_least_twelve_classes_and_ids_hold_them_alike():
    probe = MotionProbe(textures(torch.arange(4), 36), 4, 24)
    _, labels = probe.get(torch.arange(24))
    assert labels.bincount().tolist() == [2] * 12 == [2] * len(CLASSES)


@pytest.fixture(scope="module")
def patches():
    """By label, clips (T, h, w) of a bright texture on a flat background, taken from a probe of one texture and one flat image."""
    flat = torch.full((1, 3, 72, 72), GREY, dtype=torch.uint8)
    noise = torch.nn.functional.interpolate(torch.rand(1, 1, 18, 18), 72, mode="bicubic").clamp(0, 1)
    texture = (170 + 85 * noise).to(torch.uint8).repeat(1, 3, 1, 1)
    probe = MotionProbe(torch.cat([flat, texture]), FRAMES, SIZE, motions=STILL_BACKGROUND)
    clips, labels = probe.get(torch.arange(120))
    clips = clips[:, :, 0].numpy().astype(np.float32)
    on_flat = (clips == GREY).mean((1, 2, 3)) > 0.5  # a patch has at most 0.49 of the frame
    assert 30 < on_flat.sum() < 90
    return [(int(label), clip) for label, clip, chosen in zip(labels, clips, on_flat, strict=True) if chosen]


def test_directions_by_phase_correlation(patches):
    """The frame is a torus, so phase correlation, which is circular, finds the shift exactly."""
    found = 0
    for label, clip in patches:
        if label >= len(DIRECTIONS):
            continue
        steps = np.array([cv2.phaseCorrelate(a - GREY, b - GREY)[0] for a, b in itertools.pairwise(clip)])
        steps = (steps + SIZE / 2) % SIZE - SIZE / 2
        dx, dy = np.median(steps, 0) * (FRAMES - 1) / SIZE
        angle = np.radians(label * 45)
        assert 0.22 < np.hypot(dx, dy) < 0.48
        assert np.hypot(dx, dy) * np.cos(np.arctan2(dy, dx) - angle) > 0.97 * np.hypot(dx, dy), CLASSES[label]
        found += 1
    assert found > 20


def test_a_patch_that_leaves_comes_in_on_the_other_side(patches):
    for label, clip in patches:
        if label < len(DIRECTIONS) + 2:  # not those that change their size
            area = np.abs(clip - GREY).sum((1, 2))
            assert area.std() / area.mean() < 0.03


def test_rotations_by_trying_them(patches):
    found = 0
    for label, clip in patches:
        if CLASSES[label] not in ("clockwise", "counterclockwise"):
            continue
        first, last = (_centered(frame) for frame in (clip[0], clip[-1]))
        degrees = np.arange(-100, 101, 5)
        turned = [cv2.warpAffine(first, cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), float(-d), 1), (SIZE, SIZE)) for d in degrees]
        best = degrees[np.argmin([np.abs(t - last).mean() for t in turned])]
        low, high = (55, 95) if CLASSES[label] == "clockwise" else (-95, -55)  # on the screen, from x towards y
        assert low <= best <= high, (CLASSES[label], best)
        found += 1
    assert found > 4


def test_scalings_by_area(patches):
    found = 0
    for label, clip in patches:
        if CLASSES[label] not in ("growing", "shrinking"):
            continue
        side = np.sqrt((np.abs(clip - GREY) > 15).sum((1, 2)))
        whole = np.median(side[1:] / side[:-1]) ** (FRAMES - 1)  # the median passes over the jump from the largest to the least
        growth = whole if CLASSES[label] == "growing" else 1 / whole
        assert 1.25 < growth < 1.65, CLASSES[label]
        found += 1
    assert found > 4


def _centered(frame):
    """The patch, less its background, moved to the middle of the torus."""
    patch = np.abs(frame - GREY)
    turns = np.exp(2j * np.pi * np.arange(SIZE) / SIZE)
    x, y = (np.angle((patch.sum(axis) * turns).sum()) / (2 * np.pi) * SIZE for axis in (0, 1))
    shift = np.array([[1, 0, SIZE / 2 - x], [0, 1, SIZE / 2 - y]])
    return cv2.warpAffine(np.tile(patch, (3, 3)), shift, (3 * SIZE, 3 * SIZE))[SIZE : 2 * SIZE, SIZE : 2 * SIZE]


def test_labels_of_the_library_agree():
    """``flow`` in the middle of the patch, from frame to frame, points where the class says."""
    probe = MotionProbe(textures(torch.arange(4), 36), FRAMES, SIZE, motions=STILL_BACKGROUND)
    plan = probe.plan(torch.arange(8))
    vectors = flow(plan)
    for label in range(8):
        moved = vectors[label, 0].flatten(1)
        moved = moved[:, moved.norm(dim=0) > 0.5]
        direction = torch.tensor([np.cos(np.radians(45 * label)), np.sin(np.radians(45 * label))], dtype=moved.dtype)
        assert moved.shape[1] > 50
        along = (moved.mT @ direction) / moved.norm(dim=0)
        assert (along > 0.999).double().mean() > 0.9, CLASSES[label]  # all but a copy that changes sides as it leaves the frame


def test_every_frame_of_every_class_has_one_distribution():
    """Place, angle and size of the patch: Kolmogorov and Smirnov's distance between classes, on every frame."""
    each, probe = 1500, MotionProbe(torch.zeros(2, 3, 36, 36, dtype=torch.uint8), 4, 32)
    plan = probe.plan(torch.arange(each * len(CLASSES)))
    homography, box = plan.layers.motion.homography[:, 0].double(), plan.layers.box[:, 0]
    middle = ((box[:, :2] + box[:, 2:]) / 2).double()
    place = transform_points(homography, middle[:, None, None].expand(-1, 4, -1, -1))[:, :, 0] % 32
    angle = torch.atan2(homography[..., 1, 0], homography[..., 0, 0])
    states = torch.cat([place, angle[..., None], homography[..., :2, :2].det()[..., None]], -1)
    by_class = states.view(each, len(CLASSES), -1).sort(0).values
    ranks = torch.linspace(0, 1, each, dtype=torch.float64)
    for k in range(by_class.shape[-1]):
        reference = states[..., :].reshape(len(states), -1)[:, k].sort().values
        for label in range(len(CLASSES)):
            share = torch.searchsorted(reference, by_class[:, label, k].contiguous()) / len(reference)
            assert (share - ranks).abs().max() < 1.95 / each**0.5


@pytest.fixture(scope="module")
def labelled():
    images = textures(torch.arange(240), 36)
    train, test = (MotionProbe(part, 3, 24, seed) for seed, part in enumerate((images[:160], images[160:])))
    return train.get(torch.arange(1200)), test.get(torch.arange(480))


def test_a_network_learns_nothing_from_one_frame(labelled):
    """It does learn its training clips by heart, so that it could have learnt a sign of the class."""
    (clips, labels), (held_out, truth) = labelled
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 48, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48 * 36, 12),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for step in range(150):
        chosen = torch.arange(step * 64, (step + 1) * 64) * 7 % len(clips)
        loss = nn.functional.cross_entropy(network(clips[chosen, 0].float() / 128 - 1), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        learnt, new = ((network(c[:, 0].float() / 128 - 1).argmax(1) == y).float().mean() for c, y in ((clips, labels), (held_out, truth)))
    assert learnt > 0.3
    assert abs(new - 1 / 12) < 4 * (1 / 12 * 11 / 12 / len(truth)) ** 0.5


def test_two_frames_tell_the_class(labelled):
    """Farneback's optical flow, four numbers of it, and a linear classifier."""
    (clips, labels), (held_out, truth) = labelled
    features, new = (torch.tensor(np.stack([_motion(clip) for clip in part[:, :, 0].numpy()])) for part in (clips, held_out))
    layer = nn.Linear(4, 12).double()
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200)

    def loss():
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(layer(features), labels)
        value.backward()
        return value

    optimizer.step(loss)
    assert (layer(new).argmax(1) == truth).double().mean() > 0.4


def _motion(clip):
    """Mean flow of what moves, and its turning and spreading about its middle, each over its own size."""
    field = cv2.calcOpticalFlowFarneback(clip[0], clip[1], None, 0.5, 2, 9, 3, 5, 1.1, 0).astype(np.float64)
    weight = np.linalg.norm(field, axis=-1) ** 2
    weight /= weight.sum() + 1e-9
    y, x = np.mgrid[: field.shape[0], : field.shape[1]]
    x, y = x - (weight * x).sum(), y - (weight * y).sum()
    u, v = field[..., 0], field[..., 1]
    numbers = np.array([(weight * u).sum(), (weight * v).sum(), (weight * (x * v - y * u)).sum() / 5, (weight * (x * u + y * v)).sum() / 5])
    return 3 * numbers / (np.linalg.norm(numbers) + 1e-9)


def test_a_clip_is_a_function_of_seed_and_id():
    images = textures(torch.arange(6), 36)
    before = images.clone()
    probe = MotionProbe(images, 4, 24, seed=3)
    clips, labels = probe.get(torch.arange(30))
    some = torch.tensor([29, 4, 17])
    again, again_labels = MotionProbe(images, 4, 24, seed=3).get(some)
    assert torch.equal(again, clips[some])
    assert torch.equal(again_labels, labels[some])
    assert not torch.equal(MotionProbe(images, 4, 24, seed=4).get(some)[0], again)
    assert torch.equal(images, before)
    assert clips.dtype == torch.uint8
    assert clips.shape == (30, 4, 3, 24, 24)


def test_light_is_that_of_the_background():
    images = textures(torch.arange(6), 36)
    full, dim = (MotionProbe(images, 4, 24, motions=Motions(light=light)).get(torch.arange(24))[0].double() for light in (1.0, 0.5))
    halved = (dim - full / 2).abs() <= 1
    assert ((dim == full) | halved)[:, :, 0].double().mean() > 0.85  # all but the soft edge of the patch
    assert 0.4 < halved.double().mean() < 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": torch.zeros(2, 3, 36, 36)}, "must be uint8"),
        ({"images": torch.zeros(1, 3, 36, 36, dtype=torch.uint8)}, "N >= 2"),
        ({"images": torch.zeros(2, 3, 36, 30, dtype=torch.uint8)}, "S, S"),
        ({"num_frames": 1}, "clips 2 frames long"),
        ({"size": 4}, "8 pixels large"),
        ({"motions": Motions(drift=(0.0, 0.5))}, "drift must be at most"),
        ({"motions": Motions(side=(0.5, 0.9))}, "side must be a pair"),
        ({"motions": Motions(light=2.0)}, "light must be from 0 to 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MotionProbe(**({"images": torch.zeros(2, 3, 36, 36, dtype=torch.uint8)} | arguments))
