"""The command that splits a list of videos by frame difference."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pseudomotion.train.subsets import main
from pseudomotion.video import write_video
from pseudomotion.video.list_file import read_list, write_list


@pytest.fixture
def listing(tmp_path):
    """A list of six videos, each brighter by so many levels a frame, one of which is broken; some names need quotes."""
    folder = tmp_path / "a; b"
    folder.mkdir()
    steps = {"one, 1.mp4": 9, "two.mp4": 3, "three.mp4": 0, "four.mp4": 12, "five.mp4": 6}
    for name, step in steps.items():
        write_video(folder / name, [np.full((32, 32, 3), 40 + step * t, np.uint8) for t in range(5)], fps=8, crf=1)
    (folder / "broken.mp4").write_text("no video")
    write_list(folder / "train.csv", [(Path(name), 7 + k) for k, name in enumerate([*steps, "broken.mp4"])])
    return folder / "train.csv"


def test_lists(listing, tmp_path, capsys):
    out = tmp_path / "new" / "lists"
    assert main([str(listing), str(out)]) == 0
    expected = {"large": ["one, 1", "four"], "medium": ["two", "five"], "small": ["two", "three"]}
    labels = {"one, 1": 7, "two": 8, "three": 9, "four": 10, "five": 11}
    assert {path.name for path in out.iterdir()} == {f"{name}.csv" for name in expected}
    for name, stems in expected.items():
        videos = read_list(out / f"{name}.csv")
        assert videos == [(listing.parent / f"{stem}.mp4", labels[stem]) for stem in stems]
        assert all(path.is_file() for path, _ in videos)
    printed = capsys.readouterr().out
    assert "large.csv: 2 videos, frame difference 0.03" in printed
    assert "5 videos read, 1 skipped" in printed
    assert "broken.mp4" in printed


def test_it_can_be_run_from_a_shell(listing, tmp_path):
    command = [sys.executable, "-W", "error", "-m", "pseudomotion.train.subsets", str(listing), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_errors(tmp_path, capsys):
    assert main([str(tmp_path / "none.csv"), str(tmp_path)]) == 2
    (tmp_path / "empty.csv").write_text("")
    assert main([str(tmp_path / "empty.csv"), str(tmp_path)]) == 2
    assert "must list at least two videos" in capsys.readouterr().err
    assert not (tmp_path / "large.csv").exists()
