"""Augmentation of clips, against Pillow's own calls and hand-made numbers."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from pseudomotion.draws import Draws
from pseudomotion.train.video.augment import Box, ClipAugmentation, RandomErasing, View, augment, crop_box, resize
from pseudomotion.train.video.randaugment import OPERATIONS, RandAugment, apply_operations


def draws(*ids, seed=0):
    return Draws(seed, torch.tensor(ids))


def clip(t=3, h=40, w=60):
    y, x = np.mgrid[:h, :w]
    frames = [np.stack([(x * 4 + 9 * k) % 256, (y * 6) % 256, 90 + 60 * np.sin((x + y + 9 * k) / 3)], -1) for k in range(t)]
    return torch.from_numpy(np.stack(frames).astype(np.uint8)).permute(3, 0, 1, 2)


def picture(k=0, h=40, w=60):
    return Image.fromarray(clip(k + 1, h, w)[:, k].permute(1, 2, 0).numpy())


def distance(sample, cdf):
    """Kolmogorov's distance times the root of the number; above 1.95 with a chance of 0.001."""
    sample = np.sort(np.asarray(sample, np.float64))
    n = len(sample)
    expected = cdf(sample)
    return np.sqrt(n) * max((np.arange(1, n + 1) / n - expected).max(), (expected - np.arange(n) / n).max())


def even(low, high):
    return lambda x: ((x - low) / (high - low)).clip(0, 1)


GREY, BICUBIC = (128, 128, 128), Image.Resampling.BICUBIC


def affine(*coefficients):
    return lambda p: p.transform(p.size, Image.Transform.AFFINE, coefficients, BICUBIC, fillcolor=GREY)


def raised(p, by):
    levels = np.asarray(p).astype(int)
    return Image.fromarray(np.where(levels < 128, np.minimum(levels + by, 255), levels).astype(np.uint8))


# What every operation does at strength 0.7 and sign -1, and at strength 1 and sign 1, written out.
EXPECTED = {
    "auto_contrast": (ImageOps.autocontrast, ImageOps.autocontrast),
    "equalize": (ImageOps.equalize, ImageOps.equalize),
    "invert": (ImageOps.invert, ImageOps.invert),
    "rotate": (lambda p: p.rotate(-21, BICUBIC, fillcolor=GREY), lambda p: p.rotate(30, BICUBIC, fillcolor=GREY)),
    "posterize": (lambda p: ImageOps.posterize(p, 2), lambda p: ImageOps.posterize(p, 1)),
    "solarize": (lambda p: ImageOps.solarize(p, 77), lambda p: ImageOps.solarize(p, 0)),
    "solarize_add": (lambda p: raised(p, 77), lambda p: raised(p, 110)),
    "color": (lambda p: ImageEnhance.Color(p).enhance(0.37), lambda p: ImageEnhance.Color(p).enhance(1.9)),
    "contrast": (lambda p: ImageEnhance.Contrast(p).enhance(0.37), lambda p: ImageEnhance.Contrast(p).enhance(1.9)),
    "brightness": (lambda p: ImageEnhance.Brightness(p).enhance(0.37), lambda p: ImageEnhance.Brightness(p).enhance(1.9)),
    "sharpness": (lambda p: ImageEnhance.Sharpness(p).enhance(0.37), lambda p: ImageEnhance.Sharpness(p).enhance(1.9)),
    "shear_x": (affine(1, -0.21, 0, 0, 1, 0), affine(1, 0.3, 0, 0, 1, 0)),
    "shear_y": (affine(1, 0, 0, -0.21, 1, 0), affine(1, 0, 0, 0.3, 1, 0)),
    "translate_x": (affine(1, 0, -0.315 * 60, 0, 1, 0), affine(1, 0, 27, 0, 1, 0)),
    "translate_y": (affine(1, 0, 0, 0, 1, -0.315 * 40), affine(1, 0, 0, 0, 1, 18)),
}


def test_fifteen_operations():
    assert list(OPERATIONS) == list(EXPECTED)
    assert len(OPERATIONS) == 15


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_pillows(name):
    for strength, sign, expected in ((0.7, -1, EXPECTED[name][0]), (1.0, 1, EXPECTED[name][1])):
        frame = picture()
        argument = OPERATIONS[name].argument(strength, sign)
        done = apply_operations(frame, [(name, argument)])
        assert np.abs(np.asarray(done).astype(int) - np.asarray(expected(frame))).max() <= 1
        assert not np.array_equal(done, frame)
        assert np.array_equal(frame, picture())  # left alone


def test_translation_moves_by_its_share():
    moved = np.asarray(apply_operations(picture(), [("translate_x", 0.25)]))
    assert np.array_equal(moved[:, :-15], np.asarray(picture())[:, 15:])
    assert (moved[:, -15:] == 128).all()


def test_operations_are_drawn_alike():
    """All fifteen equally often, each done with p, both signs, and strengths of the asked mean and deviation."""
    augmentation = RandAugment(operations=4, magnitude=6, magnitude_std=0.5, p=0.5)
    plans = [augmentation.make_plan(draws(k)) for k in range(1500)]
    counts = np.bincount([len(plan) for plan in plans], minlength=5)
    expected = np.array([1, 4, 6, 4, 1]) / 16 * 1500
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # chi-square of 4 degrees of freedom: above with a chance of 0.001
    names = [name for plan in plans for name, _ in plan]
    expected = len(names) / 15
    assert sum((names.count(name) - expected) ** 2 / expected for name in OPERATIONS) < 36.2  # of 14 degrees
    shears = np.array([argument for plan in plans for name, argument in plan if name in ("shear_x", "shear_y")])
    assert 0.4 < (shears > 0).mean() < 0.6
    assert abs(np.abs(shears).mean() / 0.03 - 6) < 0.1
    assert abs(np.abs(shears).std() / 0.03 - 0.5) < 0.1


def test_magnitude_without_deviation_is_exact():
    plan = RandAugment(operations=60, magnitude=7, magnitude_std=0, p=1).make_plan(draws(0))
    assert len(plan) == 60
    assert {argument for name, argument in plan if name == "posterize"} == {2}
    assert {round(abs(argument), 9) for name, argument in plan if name == "rotate"} == {21}


def test_magnitude_is_cut():
    plan = RandAugment(operations=200, magnitude=10, magnitude_std=5, p=1).make_plan(draws(0))
    assert max(abs(argument) for name, argument in plan if name == "rotate") == 30


def test_a_whole_crop_is_a_plain_resize():
    frames = clip()
    whole = ClipAugmentation(size=20, area=(1, 1), aspect=(1.5, 1.5), flip=0, randaugment=RandAugment(operations=0))
    for k in range(3):
        expected = np.asarray(Image.fromarray(frames[:, k].permute(1, 2, 0).numpy()).resize((20, 20), Image.Resampling.BILINEAR))
        done = whole(frames, draws(k))[:, k].permute(1, 2, 0)
        assert np.abs(done.numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [(20, 20), (17, 90), (40, 60), (80, 30)])
def test_resizing_is_pillows(size):
    frames = clip()
    for k in range(3):
        expected = np.asarray(Image.fromarray(frames[:, k].permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BILINEAR))
        assert np.abs(resize(frames, size)[:, k].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_the_plan_is_done_to_every_frame():
    """Crop, then flip, then the operations: the same by Pillow, frame by frame."""
    frames = clip()
    done = augment(frames, View(Box(4, 10, 30, 40), True, [("rotate", 20.0), ("invert", 0.0)]), 24)
    assert done.shape == (3, 3, 24, 24)
    assert done.is_contiguous()
    for k in range(3):
        frame = picture(k).crop((10, 4, 50, 34)).resize((24, 24), Image.Resampling.BILINEAR).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        expected = np.asarray(ImageOps.invert(frame.rotate(20, BICUBIC, fillcolor=GREY))).astype(int)
        assert np.abs(done[:, k].permute(1, 2, 0).numpy() - expected).max() <= 2


def test_crops_follow_the_asked_distribution():
    """Boxes that always fit, so that none is drawn again."""
    boxes = [crop_box(draws(k), (300, 400), (0.05, 0.2), (1 / 3, 3)) for k in range(1000)]
    top, left, height, width = np.array(boxes).T
    assert ((top >= 0) & (left >= 0) & (top + height <= 300) & (left + width <= 400)).all()
    assert distance(height * width / 120000, even(0.05, 0.2)) < 1.95
    assert distance(np.log(width / height), even(-np.log(3), np.log(3))) < 1.95
    y, x = (top + 0.5) / (300 - height + 1), (left + 0.5) / (400 - width + 1)
    assert distance(y, even(0, 1)) < 1.95
    assert distance(x, even(0, 1)) < 1.95
    assert np.abs(np.corrcoef([y, x, height * width, width / height]) - np.eye(4)).max() < 0.12


def test_crops_at_extremes():
    assert crop_box(draws(0), (30, 40), (1, 1), (4 / 3, 4 / 3)) == (0, 0, 30, 40)
    assert crop_box(draws(0), (1, 1), (0.08, 1), (3 / 4, 4 / 3)) == (0, 0, 1, 1)
    # Nothing of these shapes fits: the largest that does, in the middle.
    assert crop_box(draws(0), (30, 300), (1, 1), (3 / 4, 4 / 3)) == (0, 130, 30, 40)
    assert crop_box(draws(0), (300, 30), (1, 1), (3 / 4, 4 / 3)) == (130, 0, 40, 30)


def test_augmentation_depends_on_seed_and_id_alone():
    augmentation, frames = ClipAugmentation(size=16), clip()
    first = augmentation(frames, draws(5, seed=1))
    assert torch.equal(first, augmentation(frames, draws(5, seed=1)))
    assert not torch.equal(first, augmentation(frames, draws(6, seed=1)))
    assert not torch.equal(first, augmentation(frames, draws(5, seed=2)))
    flips = [augmentation.make_plan(draws(k), (40, 60)).flipped for k in range(400)]
    assert 160 < sum(flips) < 240
    assert not any(ClipAugmentation(flip=0).make_plan(draws(k), (40, 60)).flipped for k in range(50))


def test_erasing_is_noise_in_one_box_of_all_frames():
    clips = torch.full((40, 4, 3, 32, 32), 7.0)
    ids = draws(*range(40))
    erasing = RandomErasing(p=0.5)
    erased = erasing(clips, ids)
    assert (clips == 7).all()
    boxes = erasing.make_plan(ids, (32, 32))
    assert 10 < sum(box is not None for box in boxes) < 30
    for before, after, box in zip(clips, erased, boxes, strict=True):
        inside = torch.zeros(32, 32, dtype=torch.bool)
        if box:
            inside[box.top : box.top + box.height, box.left : box.left + box.width] = True
            assert 0.01 < box.height * box.width / 1024 < 0.36
        assert torch.equal(after[:, :, ~inside], before[:, :, ~inside])
        assert (after[:, :, inside] != 7).all()
    noise = torch.cat([after[after != 7] for after in erased])
    normal = torch.distributions.Normal(0.0, 1.0)
    assert distance(noise[:20000], lambda x: normal.cdf(torch.from_numpy(x)).numpy()) < 1.95
    assert len(noise.unique()) > 0.99 * len(noise)  # not one value twice: every frame, channel, pixel and clip has its own


def test_erasing_depends_on_the_id_alone():
    clips = torch.randn(6, 2, 3, 16, 16)
    erasing = RandomErasing(p=1)
    together = erasing(clips, draws(*range(6)))
    assert torch.equal(erasing(clips[4:5], draws(4)), together[4:5])
    assert RandomErasing(p=0)(clips, draws(*range(6))) is clips
