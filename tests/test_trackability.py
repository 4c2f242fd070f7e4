"""Trackability: the search against OpenCV's, and clips of which the answer is known."""

import cv2
import numpy as np
import pytest
import torch

from pseudomotion import PMG
from pseudomotion.trackability import best_match, trackability


def test_places_are_those_of_opencv(stained_glass):
    image = stained_glass.float().mean(0) / 255
    pair = torch.stack([image[40:136, 60:172], image[43:139, 55:167] * 0.8 + 0.1])
    place, textured = best_match(pair, 16)
    first, second = pair.numpy()
    for k, (x, y) in enumerate(place.long().tolist()):
        row, column = k // 7 * 16, k % 7 * 16
        patch = np.ascontiguousarray(first[row : row + 16, column : column + 16])
        if patch.std() < 0.02:
            continue
        assert textured[k]
        scores = cv2.matchTemplate(second, patch, cv2.TM_CCOEFF_NORMED)
        assert scores[y, x] == pytest.approx(scores.max(), abs=1e-4)


def test_random_pixels_are_all_found_and_flat_ones_never():
    pmg = PMG(("identity",), 3, 64)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    images[1] = 90
    plan = pmg.plan(images.shape)
    shares = trackability(pmg.render(images, plan), plan, frames=(2, 3))
    assert shares.tolist() == [[1, 1], [0, 0]]


def test_a_repeating_pattern_is_not_found_where_it_is():
    """Stripes match everywhere along themselves; the plan knows better."""
    pmg = PMG(("sliding_window",), 8, 64)
    images = ((torch.arange(128) // 4 % 2) * 255).to(torch.uint8).expand(4, 3, 128, 128).contiguous()
    noise = torch.randint(0, 256, (4, 3, 128, 128), dtype=torch.uint8)
    plan = pmg.plan(images.shape, ids=torch.arange(4))
    assert trackability(pmg.render(images, plan), plan, frames=(8,)).nan_to_num(0).max() < 0.5
    assert trackability(pmg.render(noise, plan), plan, frames=(8,)).nan_to_num(1).min() > 0.7


def test_motion_that_the_plan_does_not_know_is_not_found():
    pmg = PMG(("identity",), 4, 64)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    plan = pmg.plan(images.shape)
    clips = pmg.render(images, plan)
    clips[:, :, 3] = clips[:, :, 3].roll(5, -1)
    assert trackability(clips, plan, frames=(2, 4))[0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": (5,)}, "frames must be from 1 to 4"),
        ({"patch_size": 65, "frames": (2,)}, "patch_size must be from 2 to 64"),
    ],
)
def test_bad_arguments(arguments, message):
    pmg = PMG(("identity",), 4, 64)
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    plan = pmg.plan(images.shape)
    with pytest.raises(ValueError, match=message):
        trackability(pmg.render(images, plan), plan, **arguments)
    with pytest.raises(ValueError, match="clips must have the plan's shape"):
        trackability(pmg.render(images, plan)[:, :, :3], plan)
