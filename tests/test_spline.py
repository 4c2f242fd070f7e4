"""Bends: values against de Boor's basis in numpy, derivatives and inverse by themselves, injectivity at the bound."""

import numpy as np
import oracle
import pytest
import torch

from pseudomotion import spline

BOX = torch.tensor([-0.5, 3.5, 59.5, 43.5], dtype=torch.float64)


def points(batch, n=60, margin=30):
    low, high = BOX[:2] - margin, BOX[2:] + margin
    return (low + torch.rand(batch, n, 2, dtype=torch.float64) * (high - low)).unbind(-1)


@pytest.mark.parametrize("grid", [1, 3, 4, 8])
def test_displacement_is_the_oracles(grid):
    bend = (torch.rand(5, 2, grid, grid, dtype=torch.float64) - 0.5) * 0.9
    x, y = points(5)
    dx, dy = spline.displacement(bend, BOX, x, y)
    for i in range(5):
        u, v = oracle.bent(bend[i].numpy(), BOX.numpy(), x[i].numpy(), y[i].numpy())
        np.testing.assert_allclose((x + dx)[i], u, atol=1e-12)
        np.testing.assert_allclose((y + dy)[i], v, atol=1e-12)
    reach = spline.reach(bend, BOX)
    assert (dx.abs().amax(-1) <= reach[:, 0]).all()
    assert (dy.abs().amax(-1) <= reach[:, 1]).all()
    assert dx.abs().max() > 0.3 * reach[:, 0].max()


def worst(grid):
    """Control points at the bound whose signs make the map nearly fold at a point: those of the basis' derivatives."""
    s = torch.arange(grid, dtype=torch.float64) - (grid - 1) / 2
    across, down = torch.meshgrid(s, s, indexing="xy")
    patterns = [
        torch.stack([across.sign(), down.sign()]),
        torch.stack([across.sign(), across.sign() * down.sign()]),
        torch.stack([across.sign() + down.sign(), across.sign() - down.sign()]).sign(),
        torch.stack([(across + down).sign(), (across - down).sign()]),
        torch.stack([-(across - down).sign(), (across + down).sign()]),
    ]
    return torch.cat([torch.stack(patterns), -torch.stack(patterns)]) * spline.LARGEST


@pytest.mark.parametrize("grid", [3, 4, 7, 8])
def test_the_inverse_undoes_a_bend_at_the_bound(grid):
    """Within 1e-9 pixels for signs drawn at random and for the worst, in and around the box; so no two points meet."""
    bend = torch.cat([worst(grid), (torch.rand(20, 2, grid, grid, dtype=torch.float64) - 0.5).sign() * spline.LARGEST])
    x, y = points(len(bend), 120)
    dx, dy = spline.displacement(bend, BOX, x, y)
    back_x, back_y = spline.invert(bend, BOX, x + dx, y + dy)
    torch.testing.assert_close(back_x, x, atol=1e-9, rtol=0)
    torch.testing.assert_close(back_y, y, atol=1e-9, rtol=0)


@pytest.mark.parametrize("grid", [3, 4, 7, 8])
def test_below_the_bound_nothing_folds_and_above_it_does(grid):
    """The determinant of the derivative, by finite differences, stays positive at 0.48 cells and not at 0.6."""
    y, x = (c.reshape(1, -1) for c in torch.meshgrid(*(torch.arange(-10, 70, 1.0).double(),) * 2, indexing="ij"))

    def smallest(bend):
        e, area = 1e-4, []
        for one in bend:
            at = lambda x, y: [c + d for c, d in zip((x, y), spline.displacement(one[None], BOX, x, y), strict=True)]  # noqa: E731, B023
            (xr, yr), (xl, yl), (xd, yd), (xu, yu) = at(x + e, y), at(x - e, y), at(x, y + e), at(x, y - e)
            area.append((((xr - xl) * (yd - yu) - (xd - xu) * (yr - yl)) / (4 * e * e)).min())
        return torch.stack(area).min()

    bend = worst(grid)
    assert 0 < smallest(bend) < 0.6
    assert smallest(bend * (0.6 / spline.LARGEST)) < smallest(bend)
