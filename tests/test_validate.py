"""``pmg-validate`` at the smallest sizes: what it writes, what it reads back, what it refuses, and its intervals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pseudomotion.train import pretrain, validate
from pseudomotion.train.engine.options import from_values
from pseudomotion.train.validate import ARMS, ValidateOptions, main, paired_interval, words_of
from pseudomotion.transforms import Affine, Zoom
from pseudomotion.video import write_video
from pseudomotion.video.list_file import write_list

SMALL = ["--images", "8", "--train-clips", "24", "--test-clips", "12", "--shots", "1", "--batch-size", "4", "--cpu"]
ARGUMENTS = ["--arms", "scratch", "mine: --transforms zoom fade --mix mixup", "--seeds", "1", "--steps", "3", "2", "2", "2", *SMALL]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two arms, one of them of the user's own."""
    out = tmp_path_factory.mktemp("validate") / "run"
    assert main(["--out", str(out), *ARGUMENTS]) == 0
    return out


def test_a_run_writes_table_and_results(finished):
    found = json.loads((finished / "validate.json").read_text())
    scratch, mine = found["trials"]
    assert (scratch["arm"], mine["arm"], mine["options"]) == ("scratch", "mine", ["--transforms", "zoom", "fade", "--mix", "mixup"])
    assert "pretrain_loss" not in scratch
    assert len(mine["pretrain_loss"]) == 3
    assert all(len(trial[stage]) == 12 for trial in found["trials"] for stage in validate.STAGES)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (finished / "table.md").read_text().splitlines()[2:4]]
    assert rows[0][0] == "scratch"
    assert float(rows[0][2]) == pytest.approx(100 * np.mean(scratch["fine_tune"]), abs=0.051)
    assert rows[1][4].startswith(f"{100 * np.mean(mine['probe']):.1f} (")
    assert not list(finished.glob(".running-*"))


def test_a_repeated_command_runs_only_what_is_missing(finished, tmp_path, monkeypatch):
    """Finished trials are read back, and one that is run again comes out the same."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    lost = next((out / "trials").glob("mine*"))
    before = json.loads(lost.read_text())
    lost.unlink()
    run, ran = validate.run_trial, []

    def counting(options, arm, *rest):
        ran.append(arm)
        return run(options, arm, *rest)

    monkeypatch.setattr(validate, "run_trial", counting)
    assert main(["--out", str(out), *ARGUMENTS]) == 0
    assert ran == [ARGUMENTS[2]]
    assert {**json.loads(lost.read_text()), "seconds": 0} == {**before, "seconds": 0}
    with pytest.raises(ValueError, match="other settings"):
        main(["--out", str(out), *ARGUMENTS, "--shots", "2"])


def test_real_videos(tmp_path):
    """Their frames are decoded once, and an arm may pre-train on the videos themselves."""
    rng = np.random.default_rng(0)
    for k in range(4):
        write_video(tmp_path / f"film{k // 2}_{k}.mp4", list(rng.integers(0, 256, (14, 48, 64, 3), np.uint8)), fps=8)
    write_list(tmp_path / "list.csv", [(tmp_path / f"film{k // 2}_{k}.mp4", k % 2) for k in range(4)])
    lists = ["--train", str(tmp_path / "list.csv"), "--test", str(tmp_path / "list.csv"), "--film", r"film\d"]
    small = ["--seeds", "1", "--steps", "2", "1", "1", "1", "--batch-size", "2", "--shots", "1", "--cpu"]
    assert main(["--out", str(tmp_path / "run"), "--arms", "identity", "videos", *lists, *small]) == 0
    found = json.loads((tmp_path / "run" / "validate.json").read_text())
    assert [trial["films"] for trial in found["trials"]] == [["film0", "film0", "film1", "film1"]] * 2


def test_every_arm_is_understood_by_the_trainer():
    for arm in ARMS:
        if words := words_of(arm):
            more = ["--videos", "x"] if "--clips" in words else ["--images", "x"]
            validate.parse(validate.pretrain.PretrainOptions, "pmg-pretrain", "", ["--out", "x", *more, *words])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"arms": ["scratch", "magic"]}, "arms must be of scratch, .*got magic"),
        ({"arms": ["scratch", "scratch"]}, "must differ"),
        ({"arms": ["videos"]}, "need lists of real videos"),
        ({"budget": "8"}, "budget must be a number and s, m or h"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"steps": [1, 2]}, "steps must be 4 numbers"),
        ({"train": "x"}, "train and test must be given together"),
    ],
)
def test_wrong_options_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        from_values(ValidateOptions, {"out": "x"} | values)


def test_twice_the_strength_moves_twice_as_far():
    """Logarithms of zooms and scalings, and degrees and shares of shifts, are twice as large; other transforms stay as they are."""
    (zoom, affine, other), plain = pretrain.scaled(["zoom", "affine", "fade"], 2.0), Affine()
    assert np.log(zoom.ratio) == pytest.approx(2 * np.log(Zoom().ratio))
    assert np.log(affine.scale) == pytest.approx(2 * np.log(plain.scale))
    for name in ("degrees", "translate", "shear"):
        assert getattr(affine, name) == pytest.approx(tuple(2 * value for value in getattr(plain, name)))
    assert other == "fade"


def test_intervals_hold_the_true_difference_as_often_as_they_say():
    """Of 200 experiments with a known difference, whose clips differ in difficulty, so that pairing matters."""
    rng, covered, widths = np.random.default_rng(0), 0, []
    for _ in range(200):
        hard = rng.random(150) < 0.5  # both arms are wrong about these
        base, right = (~hard & (rng.random((1, 150)) < share) for share in (0.6, 0.8))
        low, high = paired_interval(right, base, [str(k) for k in range(150)])
        covered += low <= 0.1 <= high
        widths.append(high - low)
    assert 0.88 <= covered / 200 <= 0.99
    assert np.mean(widths) < 0.25
    right, base = np.ones((2, 40), bool), np.zeros((2, 40), bool)
    assert paired_interval(right, base, ["a"] * 40) == (1.0, 1.0)


def test_clips_of_one_frame_stand_still():
    source = type("Source", (), {"paths": [Path("x")]})()
    clips = {Path("x"): torch.arange(3 * 6).reshape(3, 6, 1, 1).to(torch.uint8)}
    validate._read_from_memory(source, clips, still=True)
    assert torch.equal(source.frames(0, lambda total: list(range(total))), clips[Path("x")][:, [3] * 6])
