"""``pmg-validate`` at the smallest sizes: what it writes, what it reads back, what it refuses, and its intervals."""

import dataclasses
import importlib
import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pseudomotion import PMG
from pseudomotion.train import pretrain, sources
from pseudomotion.train.engine.options import from_values, parse
from pseudomotion.train.validate import command, direction, trial
from pseudomotion.train.validate.options import ARMS, ValidateOptions, words_of
from pseudomotion.train.validate.report import compare, make_table, paired_interval
from pseudomotion.train.validate.trial import read_from_memory, to_gray
from pseudomotion.train.videomae.classifier import classification_model
from pseudomotion.train.videomae.model import model_config
from pseudomotion.transforms import Affine, Zoom
from pseudomotion.video import read_frames, write_video
from pseudomotion.video.list_file import write_list

SMALL = ["--images", "8", "--train-clips", "24", "--test-clips", "12", "--shots", "1", "--batch-size", "4", "--cpu"]
ARGUMENTS = ["--arms", "scratch", "mine: --transforms zoom fade --mix mixup", "--seeds", "1", "--steps", "3", "2", "2", "2", *SMALL]
STAGES = ("fine-tuning", "low-shot", "linear")


def main(arguments):
    command.run(parse(ValidateOptions, "pmg-validate", "", arguments))


def _picture(side):
    """A gray texture (side, side, 3) that has slopes everywhere."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(side, side)), (0, 0), 2.5)
    return np.clip(128 + 400 * noise, 0, 255).astype(np.uint8)[..., None].repeat(3, 2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two arms, one of them of the user's own."""
    out = tmp_path_factory.mktemp("validate") / "run"
    main(["--out", str(out), *ARGUMENTS])
    return out


def test_a_run_writes_table_and_results(finished):
    found = json.loads((finished / "validate.json").read_text())
    scratch, mine = found["trials"]
    assert (scratch["arm"], mine["arm"], mine["options"]) == ("scratch", "mine", ["--transforms", "zoom", "fade", "--mix", "mixup"])
    assert "pretrain_loss" not in scratch
    assert len(mine["pretrain_loss"]) == 3
    assert all(len(trial["answers"][stage]) == 12 for trial in found["trials"] for stage in STAGES)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (finished / "table.md").read_text().splitlines()[2:4]]
    assert rows[0][0] == "scratch"
    share = {arm["arm"]: {stage: 100 * arm["answers"][stage].count("1") / 12 for stage in STAGES} for arm in found["trials"]}
    assert float(rows[0][2]) == pytest.approx(share["scratch"]["fine-tuning"], abs=0.051)
    assert rows[1][4].startswith(f"{share['mine']['linear']:.1f} ({share['mine']['linear'] - share['scratch']['linear']:+.1f} [")
    assert not list(finished.glob(".running-*"))


def test_the_report_is_one_file(finished):
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2  # the plot, and clips of the arm that was pre-trained
    assert "src='http" not in page
    assert "<td>mine</td><td>--transforms zoom fade --mix mixup</td>" in page
    assert "made by pseudomotion" in page


def test_a_repeated_command_runs_only_what_is_missing(finished, tmp_path, monkeypatch):
    """Finished trials are read back, one that is run again comes out the same, and an encoder can be measured later."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    lost = next((out / "trials").glob("mine*"))
    before = json.loads(lost.read_text())
    lost.unlink()
    ran = []
    measure, pretraining = command.measure, command.pretrain_encoder
    monkeypatch.setattr(command, "measure", lambda data, probe, *rest, **more: ran.append(probe) or measure(data, probe, *rest, **more))
    monkeypatch.setattr(command, "pretrain_encoder", lambda data, arm, *rest: ran.append(arm) or pretraining(data, arm, *rest))
    main(["--out", str(out), *ARGUMENTS])
    assert ran == [ARGUMENTS[2], *STAGES]
    again = json.loads(lost.read_text())
    assert {**again, "seconds": 0} == {**before, "seconds": 0}
    del again["answers"]["linear"], again["seconds"]["linear"]
    lost.write_text(json.dumps(again))
    ran.clear()
    main(["--out", str(out), *ARGUMENTS])
    assert ran == ["linear"]
    assert {**json.loads(lost.read_text()), "seconds": 0} == {**before, "seconds": 0}
    with pytest.raises(ValueError, match=r"other settings \(shots\)"):
        main(["--out", str(out), *ARGUMENTS, "--shots", "2"])
    with pytest.raises(ValueError, match="other options"):
        main(["--out", str(out), *ARGUMENTS[:2], "mine: --transforms affine", *ARGUMENTS[3:]])


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """Lists of real videos: eight films, each of which moves to one side, in its own class."""
    folder = tmp_path_factory.mktemp("videos")
    picture, listed = _picture(160), []
    for k in range(8):
        place = np.array([40, 40]) + np.arange(14)[:, None] * (2 if k % 2 else -2) * np.array([1, 0])
        frames = [np.roll(picture, 17 * k, 0)[y : y + 48, x : x + 64] for x, y in place]
        write_video(folder / f"film{k}_a.mp4", frames, fps=8)
        listed.append((folder / f"film{k}_a.mp4", k % 2))
    write_list(folder / "train.csv", listed[:4])
    write_list(folder / "test.csv", listed[4:])
    return folder


def test_real_videos(moving, tmp_path, monkeypatch):
    """An arm may pre-train on the videos themselves, on their frames, or on a source; all probes can be asked for. Videos are read once."""
    read = Counter()
    monkeypatch.setattr(trial, "read_frames", lambda path, pick: (read.update([path.name]), read_frames(path, pick))[1])
    monkeypatch.setattr(sources, "read_frames", lambda path, pick: pytest.fail(f"{path} was read once more"))
    lists = ["--train", str(moving / "train.csv"), "--test", str(moving / "test.csv"), "--film", r"film\d"]
    small = ["--seeds", "1", "--steps", "2", "1", "1", "1", "--batch-size", "2", "--shots", "1", "--images", "4", "--cpu", "--gray"]
    for k in range(2):
        cut = np.dstack([_picture(24), np.full((24, 24), 255, np.uint8)]) * (np.hypot(*np.mgrid[-12:12, -12:12]) < 10)[..., None]
        cut[..., k] //= 2  # colored
        Image.fromarray(cut).save(tmp_path / f"{k}.png")
    cutouts = f"cutouts: --objects cutouts --textures {tmp_path} --num-textures 2"
    arms = ["--arms", "objects", "videos", "pmg-aug", "zoom-affine-noise", cutouts]
    main(["--out", str(tmp_path / "run"), *arms, *lists, *small, "--probe", "linear", "direction"])
    assert read == {f"film{k}_a.mp4": 1 for k in range(8)}
    for picture in (tmp_path / "run" / "examples").iterdir():
        assert np.ptp(np.array(Image.open(picture), dtype=int), 2).max() <= 1, "a picture has colors"
    found = json.loads((tmp_path / "run" / "validate.json").read_text())
    assert found["films"]["linear"] == found["films"]["class, frozen"] == ["film4", "film5", "film6", "film7"]
    assert set(found["films"]["left/right"]) <= {"film4", "film5", "film6", "film7"}
    assert all(set(trial["answers"]) == set(found["films"]) for trial in found["trials"])
    assert sorted(path.name for path in (tmp_path / "run" / "data").iterdir()) == ["frames-0.safetensors", "noise-0.safetensors"]
    with pytest.raises(ValueError, match="must not share films, they share 4"):
        main(["--out", str(tmp_path / "x"), "--train", str(moving / "train.csv"), "--test", str(moving / "train.csv"), *small])
    with pytest.raises(ValueError, match="film must be found"):
        main(["--out", str(tmp_path / "x"), *lists[:-1], "clip", *small])


def test_steps_are_scaled_to_a_budget():
    """Trials whose parts take a fixed time and a time per step: at the scaled steps they fill the budget."""
    fixed, step = {"pre-training": 2.0, "linear": 1.0, "direction": 7.0}, {"pre-training": 0.1, "linear": 0.05, "direction": 0.0}
    few, many = ((count, {part: fixed[part] + count * step[part] for part in fixed}) for count in (10, 30))
    steps, least = command.scaled_steps([1200, 600, 300, 600], 60.0, few, many)
    assert 10 + 0.1 * steps[0] + 0.05 * steps[3] == pytest.approx(60, abs=0.1)
    assert steps[0] == pytest.approx(2 * steps[3], abs=1)
    assert least == pytest.approx(10 + 40 * 0.1 + 20 * 0.05)  # 10 steps of low-shot training are 40 and 20 of the others


def test_a_budget_that_is_too_small_says_what_is_needed(tmp_path, monkeypatch):
    seconds = iter([{"pre-training": 30.0, "linear": 20.0}, {"pre-training": 3.0, "linear": 2.0}, {"pre-training": 5.0, "linear": 3.0}])
    monkeypatch.setattr(command, "_timed", lambda *_: next(seconds))
    arguments = ["--out", str(tmp_path / "run"), "--arms", "zoom-affine", "--seeds", "6", *SMALL]
    with pytest.raises(ValueError, match=r"fewer than 10 steps of a stage for 6 trials, it takes at least 0\.9m"):
        main([*arguments, "--budget", "10s"])


def _shown(matrix, steps=4, side=54):
    """Gray frames of a texture that a 2 x 3 matrix moves by one more step in every frame, about the middle."""
    picture = _picture(256)[..., 0]
    frames, whole, step = [], np.eye(3), np.vstack([matrix, [0, 0, 1]])
    for _ in range(steps):
        middle = np.array([[1, 0, -127.5], [0, 1, -127.5], [0, 0, 1]])
        frames.append(cv2.warpAffine(picture, (np.linalg.inv(middle) @ whole @ middle)[:2], (256, 256), borderMode=cv2.BORDER_REFLECT))
        whole = step @ whole
    start = (256 - side) // 2
    return np.stack(frames)[:, start : start + side, start : start + side]


@pytest.mark.parametrize(
    ("name", "value", "matrix"),
    [
        ("right", 2 / 54, [[1, 0, 2], [0, 1, 0]]),
        ("right", -1.5 / 54, [[1, 0, -1.5], [0, 1, 0]]),
        ("down", 1.5 / 54, [[1, 0, 0], [0, 1, 1.5]]),
        ("growth", 0.04, [[1.04, 0, 0], [0, 1.04, 0]]),
        ("clockwise", 0.05, [[np.cos(0.05), -np.sin(0.05), 0], [np.sin(0.05), np.cos(0.05), 0]]),
    ],
)
def test_measured_motion_is_the_one_that_was_made(name, value, matrix):
    """Pictures moved by OpenCV's warp, each motion found where it is and nowhere else."""
    found = dict(zip(direction.MOTIONS, direction.flow_steps(_shown(np.array(matrix))).mean(0), strict=True))
    assert found[name] == pytest.approx(value, rel=0.2)
    others = {"right", "down", "growth", "clockwise"} - {name}
    assert all(abs(found[other]) < 0.2 * abs(value) for other in others)


@pytest.fixture(scope="module")
def windows():
    """Windows of textures that move by a random shift in each."""
    rng = np.random.default_rng(0)
    videos, motions = {}, rng.uniform(-2, 2, (60, 2))
    picture = _picture(256)
    for k, (dx, dy) in enumerate(motions):
        steps = np.rint(np.arange(12)[:, None] * (dx, dy)).astype(int) + 60 + rng.integers(0, 60, 2)
        frames = np.stack([picture[y : y + 36, x : x + 48] for x, y in steps])
        videos[Path(f"{k}.mp4")] = torch.from_numpy(frames).permute(3, 0, 1, 2)
    listed = dict.fromkeys(videos, 0)
    parts = [dict(list(listed.items())[part]) for part in (slice(40), slice(40, 60))]
    return direction.make_windows(videos, *parts, film=lambda path: path.stem, num_frames=6, size=24, stride=2)


def _model(feature):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(()))

        def forward(self, pixels):
            return SimpleNamespace(last_hidden_state=feature(pixels.mean(2))[:, None])  # gray (B, T, h, w)

    model = classification_model(model_config("micro"), 2)
    model.videomae = Encoder()
    return model


def test_an_encoder_of_motion_answers_and_one_of_looks_does_not(windows):
    """Products of slopes in space and time tell the direction; what one frame shows, and a feature that a mirror leaves, do not."""

    def motion(gray):
        middle = gray[:, 1:, 1:-1, 1:-1]
        change = middle - gray[:, :-1, 1:-1, 1:-1]
        slopes = [gray[:, 1:, 1:-1, 2:] - gray[:, 1:, 1:-1, :-2], gray[:, 1:, 2:, 1:-1] - gray[:, 1:, :-2, 1:-1]]
        return torch.stack([(change * slope).mean((1, 2, 3)) for slope in slopes], 1)

    def look(gray):
        return torch.stack([gray.mean((1, 2, 3)), (gray[:, 1:] - gray[:, :-1]).abs().mean((1, 2, 3))], 1)

    score = {
        feature.__name__: {name: right.mean() for name, (right, _) in direction.ask(_model(feature), windows).items()}
        for feature in (motion, look)
    }
    assert score["motion"]["left/right"] > 0.9
    assert score["motion"]["up/down"] > 0.9
    assert score["motion"][direction.CONTROL] == 0.5
    assert all(score["look"][name] == 0.5 for name in ("left/right", "up/down", "growing/shrinking", "turning"))
    assert score["look"]["still/moving"] > 0.7  # the amount of change is no secret


def test_twins_have_the_opposite_motion():
    """By the flow of clips that shift, scale and rotate, and of their twins, for every question."""
    rng, clips = np.random.default_rng(0), []
    for _ in range(12):
        scale, angle, shift = rng.uniform(0.97, 1.03), rng.uniform(-0.04, 0.04), rng.uniform(-1.5, 1.5, 2)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        clips.append(torch.from_numpy(_shown(np.c_[turn, shift])).expand(3, -1, -1, -1))
    for motion, twin in direction.QUESTIONS.values():
        column = direction.MOTIONS.index(motion)
        own, other = (
            np.array([direction.flow_steps(clip[0].numpy())[:, column].sum() for clip in part])
            for part in (torch.stack(clips), twin(torch.stack(clips)))
        )
        assert np.corrcoef(own, other)[0, 1] < -0.95


def test_a_question_that_no_clip_answers_is_left_out(windows):
    motionless = dataclasses.replace(windows, motion=np.zeros_like(windows.motion))
    answers = direction.ask(_model(lambda gray: gray.mean((2, 3))), motionless)
    assert not set(answers) & {*direction.QUESTIONS, direction.CONTROL}
    assert len(answers["still/moving"][0]) == 40


def test_films_are_either_for_training_or_for_testing(windows):
    assert len(windows.clips) == 120  # two of each video
    tested = {windows.films[video] for video in windows.videos[windows.test]}
    assert tested == {str(k) for k in range(40, 60)}
    (_, films) = direction.ask(_model(lambda gray: gray.mean((2, 3))), windows)["left/right"]
    assert set(films) <= tested


def test_the_linear_probe_is_at_the_minimum_of_its_penalized_loss():
    """Gradient of scikit-learn's objective for C = 1, written down in numpy, at the probabilities that came out."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (300, 5)), rng.integers(0, 3, 300)
    x[:, 0] += y
    found = direction.linear_probe(x, y, x)
    scaled = (x - x.mean(0)) / x.std(0)
    # Logits are linear in the features: their weights follow from the log-probabilities by least squares, up to a constant per feature.
    design = np.c_[scaled, np.ones(300)]
    weights = np.linalg.lstsq(design, np.log(found), rcond=None)[0][:5]
    logits = np.log(found)
    centered = np.linalg.lstsq(design, logits - logits.mean(1, keepdims=True), rcond=None)[0][:5]  # the penalty makes weights sum to 0
    assert weights.shape == (5, 3)
    gradient = scaled.T @ (found - np.eye(3)[y]) + centered
    assert np.abs(gradient).max() < 0.05
    assert np.abs((found - np.eye(3)[y]).sum(0)).max() < 0.05  # of the bias, which has no penalty


def test_opencv_is_asked_for_by_name(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(direction, "import_module", absent)
    with pytest.raises(ImportError, match="pip install opencv-python-headless"):
        direction.flow_steps(np.zeros((2, 8, 8), np.uint8))


def test_gray_is_that_of_opencv():
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    expected = [cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY) for image in pixels]
    for channel in to_gray(pixels, -3).unbind(1):
        assert np.abs(channel.numpy().astype(int) - np.stack(expected)).max() <= 1


def test_arms_are_compared_by_the_seeds_that_both_have():
    films = {"q": ["a", "a", "b"]}
    trials = [
        {"arm": "one", "options": None, "seed": 0, "answers": {"q": "000"}},
        {"arm": "two", "options": [], "seed": 0, "answers": {"q": "111"}},
        {"arm": "two", "options": [], "seed": 1, "answers": {"q": "000"}},
        {"arm": "three", "options": [], "seed": 1, "answers": {"q": "010"}},
    ]
    found = {"films": films, "trials": trials, "steps": [1, 1, 1, 1], "settings": {"batch_size": 2}}
    assert compare(found, "two", "one", "q") == (1.0, 1.0, 1.0)
    assert compare(found, "three", "one", "q") is None
    assert "| three | none | 33.3 |" in make_table(found)


def test_every_arm_is_understood_by_the_trainer():
    for arm in ARMS:
        if words := words_of(arm):
            more = ["--videos", "x"] if "--clips" in words else [] if "--source" in words else ["--images", "x"]
            options = parse(pretrain.PretrainOptions, "pmg-pretrain", "", ["--out", "x", *more, *words])
            PMG(options.transforms, 4, 16)


def test_the_module_is_a_command():
    assert importlib.util.find_spec("pseudomotion.train.validate.__main__")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"arms": ["scratch", "magic"]}, "arms must be of scratch, .*got magic"),
        ({"arms": ["scratch", "scratch"]}, "different names"),
        ({"arms": ["videos"]}, "need lists of real videos"),
        ({"budget": "8"}, "budget must be a number and s, m or h"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"steps": [1, 2]}, "steps must be 4 numbers at least 1"),
        ({"train": "x"}, "train and test must be given together"),
        ({"probe": ["magic"]}, "probe must be of fine-tuning, low-shot, linear, direction, got magic"),
        ({"probe": ["direction"]}, "direction needs lists of real videos"),
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
    read_from_memory(source, clips, motionless=True)
    assert torch.equal(source.frames(0, lambda total: list(range(total))), clips[Path("x")][:, [3] * 6])
