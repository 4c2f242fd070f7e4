"""pmg-preview as a user types it: what it writes, and what it says when it cannot."""

import signal
import subprocess
import sys
from itertools import pairwise

import av
import numpy as np
import pytest
from PIL import Image

from pseudomotion import TRANSFORMS
from pseudomotion.preview import GAP, LABEL, main

SMALL = ["--size", "32", "--frames", "4"]


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    return str(path)


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_video_of_all_eight(tmp_path, picture):
    assert main([picture, str(tmp_path / "out.mp4"), *SMALL]) == 0
    frames = frames_of(tmp_path / "out.mp4")
    assert len(frames) == 4 + 2  # forward, and backward without the ends
    height, width = 2 * (LABEL + 32 + GAP) + GAP, 4 * (32 + GAP) + GAP
    assert frames[0].shape == (height, width, 3)
    assert np.abs(frames[1].astype(int) - frames[5]).mean() < 3  # the loop comes back
    assert np.abs(frames[0].astype(int) - frames[3]).mean() > 3


def test_animations(tmp_path, picture):
    for name in ("out.gif", "out.webp"):
        assert main([picture, str(tmp_path / name), "--transforms", "zoom,affine", "--fps", "10", *SMALL]) == 0
        with Image.open(tmp_path / name) as image:
            assert image.n_frames == 6
            assert image.info["loop"] == 0
            assert image.info.get("duration", 100) == 100
            assert image.size == (2 * (32 + GAP) + GAP, LABEL + 32 + 2 * GAP)


def test_contact_sheet(tmp_path, picture):
    """One row per clip, one column per frame; without labels, the sheet holds the clips' pixels."""
    assert main([picture, str(tmp_path / "out.png"), "--transforms", "identity,fade", "--no-labels", "--samples", "2", *SMALL]) == 0
    sheet = np.array(Image.open(tmp_path / "out.png"))
    assert sheet.shape == (4 * (32 + GAP) + GAP, 4 * (32 + GAP) + GAP, 3)
    tile = sheet[GAP : GAP + 32, GAP : GAP + 32]
    assert tile.std() > 10
    assert np.array_equal(tile, sheet[GAP : GAP + 32, 2 * GAP + 32 : 2 * GAP + 64])
    fade = sheet[2 * (32 + GAP) + GAP :][:32]
    assert abs(int(fade[:, GAP : GAP + 32].mean()) - int(fade[:, -GAP - 32 : -GAP].mean())) > 20


def test_labels_are_drawn(tmp_path, picture):
    main([picture, str(tmp_path / "out.png"), "--transforms", "zoom", *SMALL])
    strip = np.array(Image.open(tmp_path / "out.png"))[GAP : GAP + LABEL]
    assert strip.max() > 150


def test_both_resamplings_stand_side_by_side(tmp_path):
    assert main([str(tmp_path / "out.mp4"), "--transforms", "affine", "--resampling", "both", "--frames", "12", "--size", "64"]) == 0
    frames = frames_of(tmp_path / "out.mp4")
    assert frames[0].shape == (LABEL + 64 + 2 * GAP, 2 * (64 + GAP) + GAP, 3)
    left, right = (frames[11][GAP + LABEL :, x : x + 64].astype(float) for x in (GAP, 2 * GAP + 64))
    assert np.abs(np.diff(left, axis=1)).mean() < np.abs(np.diff(right, axis=1)).mean()  # recursion blurs


def test_seeds_and_samples_differ(tmp_path, picture):
    sheets = []
    for seed in ("0", "0", "1"):
        main([picture, str(tmp_path / "out.png"), "--transforms", "zoom", "--samples", "2", "--seed", seed, *SMALL])
        sheets.append(np.array(Image.open(tmp_path / "out.png")))
    assert np.array_equal(sheets[0], sheets[1])
    assert not np.array_equal(sheets[0], sheets[2])
    rows = np.split(sheets[0][GAP:], 2)
    assert not np.array_equal(rows[0][LABEL:], rows[1][LABEL:])


def test_without_an_image_there_is_a_built_in_one(tmp_path):
    assert main([str(tmp_path / "out.png"), *SMALL]) == 0
    assert np.array(Image.open(tmp_path / "out.png")).shape[0] == 8 * (LABEL + 32 + GAP) + GAP


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png", "out.mp4"], "No such file or directory: 'missing.png'"),
        (["out.avi"], "cannot write out.avi: the name must end in .mp4, .gif, .webp, .png"),
        (["out"], "cannot write out: the name must end in"),
        (["nowhere/out.mp4"], "cannot write nowhere/out.mp4: there is no folder nowhere"),
        (["broken.png", "out.mp4"], "cannot read broken.png: cannot identify image file"),
        (["out.mp4", "--transforms", "zoom,spin"], "unknown transform 'spin'; known are identity"),
        (["out.mp4", "--transforms", ","], "--transforms names no transform"),
        (["out.mp4", "--seed", str(2**70)], "seed must fit in 64 bits"),
    ],
)
def test_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"broken")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("pmg-preview: ")
    assert message in error
    assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["broken.png"]


@pytest.mark.parametrize("arguments", [["--frames", "0"], ["--fps", "fast"], ["--padding-mode", "wrap"], ["--samples", "-1"]])
def test_wrong_options(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["out.mp4", *arguments])
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_interrupted_it_leaves_nothing_and_no_traceback(tmp_path):
    """Stopped once the progress bar shows, which it does after two seconds."""
    # Programs that a shell starts in the background are deaf to the signal, and so are theirs, unless they listen again.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{listen}; import sys; from pseudomotion.preview import main; sys.exit(main())"]
    process = subprocess.Popen([*command, str(tmp_path / "out.mp4"), "--samples", "500"], stderr=subprocess.PIPE)
    said = b""
    while b"clips:" not in said and process.poll() is None:
        said += process.stderr.read1()
    process.send_signal(signal.SIGINT)
    said = (said + process.communicate(timeout=60)[1]).decode()
    assert process.returncode == 130
    assert "pmg-preview: interrupted, nothing written" in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_a_sheet_of_all_transforms(picture_file, tmp_path):
    """Every transform moves or changes something; nothing but affine and perspective brings black corners."""
    assert main([str(picture_file), str(tmp_path / "out.png"), "--size", "96", "--frames", "8", "--no-labels"]) == 0
    sheet = np.array(Image.open(tmp_path / "out.png")).astype(float)
    for row, name in enumerate(TRANSFORMS):
        top = GAP + row * (96 + GAP)
        frames = [sheet[top : top + 96, GAP + k * (96 + GAP) :][:, :96] for k in range(8)]
        steps = [np.abs(b - a).mean() for a, b in pairwise(frames)]
        if name == "identity":
            assert max(steps) == 0
        else:
            assert min(steps) > 0.2, name
        if name in ("sliding_window", "zoom", "color_jitter"):
            corners = [f[y, x].max() for f in frames for y in (0, -1) for x in (0, -1)]
            assert np.mean(corners) > 1, name
