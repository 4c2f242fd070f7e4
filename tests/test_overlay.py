"""Labels drawn over clips, and ``pmg-preview --show``."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from pseudomotion import PMG
from pseudomotion.labels.overlay import LINE, SHOWS, draw_flow, draw_grid, draw_tracks
from pseudomotion.preview import main


@pytest.fixture
def shifting():
    """Gray frames, and the plan of a picture that moves 4 pixels to the right at every step."""
    plan = PMG(("identity",), 3, 96).plan((1, 3, 96, 96), ids=torch.arange(1))
    homography = plan.back.motion.homography.clone()
    homography[0, :, 0, 2] = torch.tensor([0.0, 4, 8])
    back = dataclasses.replace(plan.back, motion=dataclasses.replace(plan.back.motion, homography=homography))
    return np.full((3, 96, 96, 3), 128, dtype=np.uint8), dataclasses.replace(plan, back=back)


def test_flow_to_the_right_is_red_on_every_frame(shifting):
    frames, plan = shifting
    drawn = draw_flow(frames, plan, 0).astype(int)
    assert drawn.shape == frames.shape
    assert (drawn[..., 0] > 100).all()
    assert (drawn[..., 1:] < 10).all()


def test_still_clips_stay_gray_and_one_frame_is_left_alone(shifting):
    frames, _ = shifting
    still = PMG(("identity",), 3, 96).plan((1, 3, 96, 96), ids=torch.arange(1))
    assert np.ptp(draw_flow(frames, still, 0)) == 0
    single = PMG(("identity",), 1, 96).plan((1, 3, 96, 96), ids=torch.arange(1))
    assert np.array_equal(draw_flow(frames[:1], single, 0), frames[:1])


def test_the_grid_moves_with_the_picture(shifting):
    frames, plan = shifting
    drawn = draw_grid(frames, plan, 0)
    yellow = np.abs(drawn.astype(int) - LINE).sum(-1) < 150
    assert 0.1 < yellow[0].mean() < 0.5
    assert np.array_equal(yellow[1, :, 4:], yellow[0, :, :-4])


def test_tracks_are_dots_that_leave_a_tail(shifting):
    frames, plan = shifting
    drawn = draw_tracks(frames, plan, 0)
    painted = (drawn != frames).any(-1).mean((1, 2))
    assert 0.05 < painted[0] < painted[1] < 0.9


@pytest.mark.parametrize("show", list(SHOWS))
def test_preview_draws_over_the_clips(tmp_path, show):
    arguments = ["--transforms", "zoom,cutmix", "--frames", "3", "--size", "48"]
    assert main([str(tmp_path / "plain.png"), *arguments]) == 0
    assert main([str(tmp_path / "drawn.png"), *arguments, "--show", show]) == 0
    plain, drawn = (np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("plain", "drawn"))
    assert plain.shape == drawn.shape
    assert (plain != drawn).any(-1).mean() > 0.03
