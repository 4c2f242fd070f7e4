"""pmg-preview as a user types it: what it writes, and what it says when it cannot."""

import resource
import signal
import subprocess
import sys
import time
from io import BytesIO
from itertools import pairwise

import av
import numpy as np
import pytest
import torch
from pictures import save_cutout
from PIL import Image

from pseudomotion import PMG, TRANSFORMS
from pseudomotion.images import load_image, load_textures
from pseudomotion.labels.overlay import SHOWS
from pseudomotion.preview import main
from pseudomotion.preview.clips import GAP, LABEL
from pseudomotion.video import write_video

SMALL = ["--size", "32", "--frames", "4"]


def _png():
    file = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(file, "png")
    return file.getvalue()


PICTURE = _png()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(PICTURE)
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


def test_exposure_is_that_of_the_generator(tmp_path, picture):
    assert main([picture, str(tmp_path / "out.png"), "--transforms", "zoom", "--no-labels", "--exposure", "0.9", *SMALL]) == 0
    sheet = np.array(Image.open(tmp_path / "out.png"))
    image = load_image(picture)[None]
    clip = PMG(("zoom",), 4, 32, exposure=0.9, subframes=8)(image, ids=torch.arange(1))[0]
    for t in range(4):
        assert np.array_equal(sheet[GAP : GAP + 32, GAP + t * (32 + GAP) :][:, :32], clip[:, t].permute(1, 2, 0))
    assert (clip.int() - PMG(("zoom",), 4, 32)(image, ids=torch.arange(1))[0]).abs().max() > 10


def test_cut_outs_of_a_folder_move_over_the_clips(tmp_path, picture):
    """As the generator shows them; of the paper's transforms all but cutmix, which shows images in layers of its own."""
    for k in range(3):
        save_cutout(tmp_path / "cutouts" / f"{k}.png", k)
    arguments = [picture, str(tmp_path / "out.png"), *SMALL, "--no-labels", "--objects", "cutouts"]
    assert main([*arguments, "--textures", str(tmp_path / "cutouts")]) == 0
    sheet = np.array(Image.open(tmp_path / "out.png"))
    assert sheet.shape[0] == 7 * (32 + GAP) + GAP
    textures, image, ids = load_textures(tmp_path / "cutouts", 32, alpha=True), load_image(picture)[None], torch.arange(1)
    for row, name in enumerate(name for name in TRANSFORMS if name != "cutmix"):
        clip = PMG((name,), 4, 32, objects="cutouts", seed=0)(image, ids=ids, textures=textures)[0].permute(1, 2, 3, 0).numpy()
        top = GAP + row * (32 + GAP)
        assert np.array_equal(sheet[top : top + 32, GAP : GAP + 32], clip[0])
    for show in ("instances", "flow", "tracks", "grid"):  # cut out by alpha too
        more = ["--transforms", "identity", "--textures", str(tmp_path / "cutouts"), "--show", show, "--force"]
        assert main([*arguments, *more]) == 0
        pmg = PMG(("identity",), 4, 32, objects="cutouts", seed=0)
        plan = pmg.plan(image.shape, ids=ids, textures=textures.shape)
        frames = pmg.render(image, plan, textures=textures)[0].permute(1, 2, 3, 0).numpy()
        shown = np.array(Image.open(tmp_path / "out.png"))[GAP : GAP + 32, GAP : GAP + 32]
        assert np.array_equal(shown, SHOWS[show](frames, plan, 0, textures)[0])
        if show in ("instances", "flow"):
            assert not np.array_equal(shown, SHOWS[show](frames, plan, 0)[0])


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
        (["missing.png", "out.mp4"], "cannot read missing.png: there is no such file"),
        (["", "out.mp4"], 'the input must be a file name, got ""'),
        ([".", "out.mp4"], "cannot read .: it is a folder"),
        (["out.avi"], 'cannot write "out.avi": the name must end in .mp4, .gif, .webp, .png'),
        ([""], 'cannot write "": the name must end in'),
        (["nowhere/out.mp4"], "cannot write nowhere/out.mp4: there is no folder nowhere"),
        (["broken.png", "out.mp4"], "cannot read broken.png: cannot identify image file"),
        (["broken.png", "out.mp4", "--source", "shaders"], "--source makes the images, so there is nothing to do with broken.png"),
        (["out.mp4", "--transforms", "zoom,spin"], "unknown transform 'spin'; known are identity"),
        (["out.mp4", "--transforms", ","], "--transforms names no transform"),
        (["out.mp4", "--objects", "cutouts"], "--objects cutouts need --textures, images with alpha"),
        (["out.mp4", "--textures", "noise"], "--textures are what objects show; they need --objects"),
        (["out.mp4", "--objects", "cutouts", "--textures", "noise"], "textures must be cut-outs, such as PNG files with transparent parts"),
        (["out.mp4", "--objects", "mixed", "--textures", "none"], "cannot read none: there is no such file or folder"),
        (["out.mp4", "--objects", "mixed", "--textures", "noise", "--transforms", "cutmix"], "textures cannot be given beside cutmix"),
        (["out.mp4", "--seed", str(2**70)], "seed must fit in 64 bits"),
        (["out.mp4", "--samples", "80"], "cannot write out.mp4: it would be 18406 x 2006 pixels, and 16384 pixels on a side is the most"),
        (["out.webp", "--samples", "80"], "and 16383 pixels on a side is the most: take a smaller --size, --samples or fewer --transforms"),
        (["out.png", "--samples", "100", "--frames", "100"], "178 million pixels is the most: take a smaller --size, --frames, --samples"),
        (["out.png", "--size", "70000", "--transforms", "zoom"], "size must be"),
    ],
)
def test_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    """Said before any clip is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(PMG, "render", None)
    (tmp_path / "broken.png").write_bytes(b"broken")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("pmg-preview: ")
    assert message in error
    assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["broken.png"]


def test_an_output_that_an_option_took_is_missed_with_its_place(capsys):
    with pytest.raises(SystemExit):
        main(["--objects", "cutouts", "--textures", "cutouts", "out.mp4"])
    line = "pmg-preview: the following arguments are required: OUT; write it before --textures, which takes all words that follow"
    assert capsys.readouterr().err.startswith(line)
    with pytest.raises(SystemExit):
        main(["--objects"])
    assert "write it before" not in capsys.readouterr().err


def test_a_forgotten_output_is_named(tmp_path, capsys):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"any")
    assert main([str(photo)]) == 2
    assert f"name the output too: pmg-preview {photo} out.mp4" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--frames", "0"], ["--fps", "fast"], ["--fps", "nan"], ["--padding-mode", "wrap"], ["--samples", "-1"]]
)
def test_wrong_options(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["out.mp4", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"pmg-preview: argument {arguments[0]}: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp", ".mp4"])
def test_a_picture_is_never_written_over(tmp_path, capsys, suffix):
    """Neither by forgetting the output, nor by naming it twice; what an earlier preview wrote is replaced."""
    photo, out = tmp_path / f"photo{suffix}", tmp_path / f"out{suffix}"
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 80, 3), np.uint8)
    if suffix == ".mp4":
        write_video(photo, frames, fps=10)
    else:
        Image.fromarray(frames[0]).save(photo)
    before = photo.read_bytes()
    short = ["--transforms", "zoom", *SMALL]
    assert main([str(photo), *short]) == 2
    assert f"name the output too: pmg-preview {photo} out.mp4" in capsys.readouterr().err
    assert main([str(photo), str(photo), "--force", *short]) == 2
    assert "it is the input; give the output another name" in capsys.readouterr().err
    (tmp_path / "other.png").write_bytes(PICTURE)
    assert main([str(tmp_path / "other.png"), str(photo), *short]) == 2
    assert "no pmg command made it; choose another name, or replace it with --force" in capsys.readouterr().err
    assert photo.read_bytes() == before
    assert main([str(tmp_path / "other.png"), str(photo), "--force", *short]) == 0
    assert photo.read_bytes() != before
    assert main([str(out), *short]) == 0
    first = out.read_bytes()
    assert main([str(out), *short, "--seed", "1"]) == 0
    assert out.read_bytes() != first


@pytest.mark.parametrize(
    ("fps", "suffix", "step", "shown"),
    [
        ("60", ".gif", 10, 25),
        ("240", ".gif", 10, 6),
        ("40", ".gif", 10, 30),
        ("12", ".gif", 10, 30),
        ("60", ".webp", 1, 30),
        ("240", ".webp", 1, 11),
    ],
)
def test_an_animation_has_the_right_length_and_no_delay_that_browsers_ignore(tmp_path, fps, suffix, step, shown):
    """Below 20 ms a GIF's frame is shown for 100. Frames are left out where there is no room for all 30."""
    arguments = ["--transforms", "zoom", "--size", "32", "--frames", "16", "--fps", fps]
    assert main([str(tmp_path / f"out{suffix}"), *arguments]) == 0
    delays = []
    with Image.open(tmp_path / f"out{suffix}") as image:
        for k in range(image.n_frames):
            image.seek(k)
            image.load()
            delays.append(image.info["duration"])
    assert len(delays) == shown
    assert min(delays) >= (20 if suffix == ".gif" else 11)
    assert sum(delays) == pytest.approx(30_000 / float(fps), abs=step / 2 + 0.5)


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, capsys):
    """A limit on the size of files stands in for the disk."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        for suffix in (".png", ".gif", ".webp", ".mp4"):
            assert main([str(tmp_path / f"out{suffix}"), "--transforms", "zoom", *SMALL]) == 2
            assert capsys.readouterr().err.startswith(f"pmg-preview: cannot write {tmp_path}/out{suffix}: ")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "code", "line"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped by SIGTERM")])
def test_stopped_it_leaves_nothing_and_no_traceback(tmp_path, number, code, line):
    """While the video is being written: its temporary file is there."""
    # Programs that a shell starts in the background are deaf to SIGINT, and so are theirs, unless they listen again.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{listen}; import sys; from pseudomotion.preview import main; sys.exit(main())"]
    arguments = ["--frames", "4000", "--size", "64", "--transforms", "identity,fade"]
    process = subprocess.Popen([*command, str(tmp_path / "out.mp4"), *arguments], stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.iterdir()) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said
    assert f"pmg-preview: {line}\n" in said
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
