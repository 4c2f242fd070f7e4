"""Color maps: against colorsys, OpenCV and torchvision's formulas, and their laws."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudomotion import color

factor = st.floats(0.2, 3)
channel = st.floats(0, 1)


def apply(map_, rgb):
    return map_[0, :, :3] @ np.asarray(rgb) + map_[0, :, 3]


def one(value):
    return np.array([value], dtype=np.float64)


@given(factor, channel, channel, channel)
def test_gain_and_contrast(f, r, g, b):
    rgb = np.array([r, g, b])
    np.testing.assert_allclose(apply(color.gain(one(f)), rgb), rgb * f, atol=1e-12)
    np.testing.assert_allclose(apply(color.contrast(one(f)), rgb), (rgb - 0.5) * f + 0.5, atol=1e-12)


@given(factor, channel, channel, channel)
def test_saturation_moves_from_opencvs_gray(f, r, g, b):
    rgb = np.array([r, g, b])
    gray = cv2.cvtColor(rgb.astype(np.float32)[None, None], cv2.COLOR_RGB2GRAY)[0, 0]
    np.testing.assert_allclose(apply(color.saturation(one(f)), rgb), gray + f * (rgb - gray), atol=1e-6)


def test_hue_turns_red_to_green_to_blue():
    red, green, blue = np.eye(3)
    for turns, start, end in [(1 / 3, red, green), (1 / 3, green, blue), (1 / 3, blue, red), (-1 / 3, red, blue), (1, red, red)]:
        np.testing.assert_allclose(apply(color.hue(one(turns)), start), end, atol=1e-12)


@given(st.floats(-0.5, 0.5), channel, channel, channel)
def test_hue_is_a_rotation_about_gray(turns, r, g, b):
    """Length and gray component stay; the angle about the gray axis, measured with atan2, grows by ``turns``."""
    rgb = np.array([r, g, b])
    turned = apply(color.hue(one(turns)), rgb)
    assert turned.sum() == pytest.approx(rgb.sum())
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(rgb))

    def angle(v):
        return math.atan2(math.sqrt(3) * (v[1] - v[2]), 2 * v[0] - v[1] - v[2])

    if np.ptp(rgb) > 1e-3:
        difference = (angle(turned) - angle(rgb) - 2 * math.pi * turns) / (2 * math.pi)
        assert difference - round(difference) == pytest.approx(0, abs=1e-9)


@given(factor, factor, st.floats(-0.5, 0.5), channel, channel, channel)
def test_compose_is_one_after_the_other(contrast, saturation, turns, r, g, b):
    maps = [color.contrast(one(contrast)), color.saturation(one(saturation)), color.hue(one(turns))]
    expected = np.array([r, g, b])
    for map_ in maps:
        expected = apply(map_, expected)
    first, second, third = maps
    left = color.compose(third, color.compose(second, first))
    np.testing.assert_allclose(apply(left, [r, g, b]), expected, atol=1e-12)
    np.testing.assert_allclose(left, color.compose(color.compose(third, second), first), atol=1e-12)


def test_identity():
    np.testing.assert_array_equal(color.IDENTITY, np.eye(3, 4))
    np.testing.assert_array_equal(color.compose(color.hue(one(0.2)), color.IDENTITY[None]), color.hue(one(0.2)))
