"""Outlines against geometry known exactly, and against the float64 oracle."""

import numpy as np
import oracle
import pytest
import torch
from shapes import KINDS, outline_of

from pseudomotion import outline

BOX = torch.tensor([3.0, -2, 33, 18], dtype=torch.float64)


def grid(step=0.25, margin=8):
    x0, y0, x1, y1 = BOX.tolist()
    y, x = torch.meshgrid(
        *(torch.arange(a - margin, b + margin, step, dtype=torch.float64) for a, b in ((y0, y1), (x0, x1))), indexing="ij"
    )
    return x + 0.013, y + 0.017


def row_of(kind, seed=0, feather=2.0):
    return torch.from_numpy(outline_of(kind, np.random.default_rng(seed), feather))


def covered(row, x, y):
    return outline.coverage(row, BOX, x, y, (int(row[0]),))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("feather", [0.5, 3.0])
def test_coverage_is_the_oracles(kind, feather):
    x, y = grid()
    for seed in range(3):
        row = row_of(kind, seed, feather)
        expected = oracle.coverage(row.numpy(), BOX.numpy(), x.numpy(), y.numpy())
        np.testing.assert_allclose(covered(row, x, y), expected, atol=2e-6)
        np.testing.assert_allclose(outline.coverage(row.float(), BOX.float(), x.float(), y.float(), (int(row[0]),)), expected, atol=2e-4)
        assert 0.2 < (expected > 0.5).mean() / (30 * 20 / (46 * 36)) <= 1.01


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_shows_beyond_the_bounds_and_the_middle_is_opaque_unless_it_is_a_ring(kind):
    x, y = grid()
    row = row_of(kind, feather=4.0)
    x0, y0, x1, y1 = outline.bounds(row, BOX).tolist()
    beyond = (x < x0) | (x > x1) | (y < y0) | (y > y1)
    assert (x0, y1) == (1, 20)
    assert covered(row, x, y)[beyond].max() == 0
    middle = covered(row, torch.tensor([18.0, 18.1]).double(), torch.tensor([8.0, 8.0]).double())
    assert (middle < 0.01 if "ring" in kind else middle > 0.8).all()


def test_edges_are_as_wide_as_the_feather_says():
    """Across the straight edge of a rhombus and of a circle, coverage falls linearly from 1 to 0 within the feather."""
    box = torch.tensor([-10.0, -10, 10, 10], dtype=torch.float64)
    away = torch.linspace(-3, 3, 61, dtype=torch.float64)
    expected = (0.5 - away / 4).clamp(0, 1)
    for kind, apothem in (("rhombus", 10 / 2**0.5), ("ellipse", 10.0)):
        at = (apothem + away) / 2**0.5
        row = row_of(kind, feather=4.0)
        torch.testing.assert_close(outline.coverage(row, box, at, at, (int(row[0]),)), expected)
    triangle = torch.from_numpy(outline.polygons(np.array([[[0.0, -1], [1, 1], [-1, 1]]]), np.array([4.0]))[0])
    bottom = outline.coverage(triangle, box, torch.zeros(61).double(), 10 + away, (outline.POLYGON,))
    torch.testing.assert_close(bottom, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_area_is_right(kind):
    """The mean coverage of a fine grid is the area, known in closed form."""
    x, y = grid(0.05)
    row = row_of(kind, feather=0.1)
    params, half = row[2:].numpy(), 15.0 * 10
    if kind in ("triangle", "quadrilateral", "octagon"):
        u, v = params.reshape(8, 2).T
        area = half * (u * np.roll(v, -1) - np.roll(u, -1) * v).sum() / 2
    elif kind.startswith("blob"):
        area = half * np.pi * (params[1] ** 2 + (params[2:14] ** 2).sum() / 2) * (1 - params[0] ** 2)
    else:
        m = np.inf if kind == "box" else 2 ** params[1]
        angle = np.linspace(0, 2 * np.pi, 200001)[1:]
        radius = 1 / np.linalg.norm([np.cos(angle), np.sin(angle)], m, axis=0)
        area = half * np.pi * (radius**2).mean() * (1 - params[0] ** 2)
    assert float(covered(row, x, y).sum() * 0.05**2) == pytest.approx(area, rel=2e-3)


def test_mixed_shapes_select_by_code():
    """One call with outlines of all shapes gives each its own coverage."""
    x, y = (c.reshape(1, -1) for c in grid(1.0))
    rows = torch.stack([row_of(kind) for kind in KINDS])
    for call in (outline.coverage, outline.distance, outline.inside):
        shapes = tuple(range(4))
        together = call(rows[:, None], BOX, x, y, shapes)
        for row, found in zip(rows, together, strict=True):
            torch.testing.assert_close(found, call(row, BOX, x, y, (int(row[0]),))[0])
    assert torch.equal(outline.inside(rows[1:, None], BOX, x, y, shapes), outline.coverage(rows[1:, None], BOX, x, y, shapes) >= 0.5)


@pytest.mark.parametrize("n", [2, 9])
def test_polygons_have_3_to_8_vertices(n):
    with pytest.raises(ValueError, match=f"vertices must be 3 to 8 points, got {n}"):
        outline.polygons(np.zeros((1, n, 2)), np.ones(1))
