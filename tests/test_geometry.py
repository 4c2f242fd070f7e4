"""Homographies: the algebra against numpy's, and its laws."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pseudomotion import geometry

small = st.floats(-0.3, 0.3)


@st.composite
def homographies(draw):
    """Invertible matrices: the identity plus small noise."""
    entries = [draw(small) for _ in range(9)]
    return np.eye(3) + np.array(entries).reshape(3, 3) / 2


@given(homographies(), homographies(), homographies())
def test_product_is_numpys_and_associative(a, b, c):
    np.testing.assert_allclose(geometry.matmul(a, b), a @ b, atol=1e-15)
    left, right = geometry.matmul(geometry.matmul(a, b), c), geometry.matmul(a, geometry.matmul(b, c))
    np.testing.assert_allclose(left, right, atol=1e-14)


@given(homographies())
def test_inverse_undoes(h):
    np.testing.assert_allclose(geometry.inverse(h), np.linalg.inv(h), atol=1e-12)
    np.testing.assert_allclose(geometry.matmul(h, geometry.inverse(h)), np.eye(3), atol=1e-13)


@given(homographies(), homographies(), st.floats(-20, 20))
def test_tensors_and_arrays_give_the_same_bits(a, b, angle):
    for function, arguments in [(geometry.matmul, (a, b)), (geometry.inverse, (a,)), (geometry.sincos, (np.array([angle]),))]:
        of_tensors = function(*map(torch.from_numpy, arguments))
        for array, tensor in zip(*(r if isinstance(r, tuple) else (r,) for r in (function(*arguments), of_tensors)), strict=True):
            np.testing.assert_array_equal(array, tensor.numpy())


@given(homographies(), homographies(), st.floats(-3, 3), st.floats(-3, 3))
def test_points_follow_products(a, b, x, y):
    point = torch.tensor([[x, y]], dtype=torch.float64)
    projected = b @ (x, y, 1)
    twice = a @ projected
    if abs(projected[2]) > 0.1 and abs(twice[2]) > 0.1:
        first, second = torch.from_numpy(a), torch.from_numpy(b)
        one_by_one = geometry.transform_points(first, geometry.transform_points(second, point))
        torch.testing.assert_close(one_by_one, geometry.transform_points(geometry.matmul(first, second), point), atol=1e-9, rtol=1e-9)


def test_batches_are_bitwise_the_single_results():
    """Results do not depend on the batch size, which BLAS does not guarantee."""
    a, b = np.random.default_rng(0).random((2, 64, 3, 3))
    angle = np.random.default_rng(1).random(64) * 7 - 3
    for function, arguments in [(geometry.matmul, (a, b)), (geometry.inverse, (a,)), (geometry.sincos, (angle,))]:
        whole = function(*arguments)
        for i in range(64):
            single = function(*(argument[i : i + 1] for argument in arguments))
            for x, y in zip(*(r if isinstance(r, tuple) else (r,) for r in (whole, single)), strict=True):
                np.testing.assert_array_equal(x[i : i + 1], y)


def test_sincos():
    angle = np.linspace(-20, 20, 4001)
    sine, cosine = geometry.sincos(angle)
    np.testing.assert_allclose(sine, np.sin(angle), atol=1e-14)
    np.testing.assert_allclose(cosine, np.cos(angle), atol=1e-14)
    assert geometry.sincos(np.zeros(1)) == (0, 1)


def test_rotation_is_opencvs():
    """OpenCV's positive angle is counter-clockwise on the screen, ours clockwise."""
    angle, scale, zero = np.array([17.0]), np.array([1.2]), np.zeros(1)
    ours = geometry.about((10.0, 4.0), geometry.rotation_scale_shear(angle, scale, zero, zero))
    np.testing.assert_allclose(ours[0, :2], cv2.getRotationMatrix2D((10, 4), -17, 1.2), atol=1e-12)


def test_shear_by_its_definition():
    zero, one = np.zeros(1), np.ones(1)
    x, y = np.array([[10.0], [-20.0]])
    along_x = np.array([[1, math.tan(math.radians(10)), 0], [0, 1, 0], [0, 0, 1]])
    along_y = np.array([[1, 0, 0], [math.tan(math.radians(-20)), 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(geometry.rotation_scale_shear(zero, one, x, y)[0], along_x @ along_y, atol=1e-13)


def test_quadrilateral_is_opencvs():
    quad = np.array([[1.0, 2], [9, 1], [11, 8], [0, 7]])
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float32)
    theirs = cv2.getPerspectiveTransform(square, quad.astype(np.float32))
    np.testing.assert_allclose(geometry.unit_square_to(quad), theirs, atol=1e-6)


@given(homographies(), st.integers(3, 40), st.integers(3, 40))
def test_denominators(h, height, width):
    """Each corner's denominator over the center's, written out."""
    h[2, :2] /= 100
    corners = [(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)]
    row = h[2]
    expected = [row @ (x, y, 1) / (row @ ((width - 1) / 2, (height - 1) / 2, 1)) for x, y in corners]
    np.testing.assert_allclose(geometry.denominators(h[2], (height, width)), expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.4, 2.7])
def test_source_scale_of_a_scaling(scale):
    h = np.diag([1 / scale, 1 / scale, 1])[None]
    assert geometry.source_scale(h, (30, 40)).item() == pytest.approx(scale)


def test_level_of_detail():
    scale = np.array([0.1, 1, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 6, 8, 16])
    np.testing.assert_allclose(geometry.level_of_detail(scale), [0, 0, 0, 0.5, 1, 1, 1, 1.5, 2, 2, 3, 4])
    np.testing.assert_array_equal(geometry.level_of_detail(scale[:3]), 0)
