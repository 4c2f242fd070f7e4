"""``pmg-validate`` at the smallest sizes: what it writes, what it reads back, and that its parts learn or stay as they are."""

import dataclasses
import itertools
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pseudomotion.train import budget, trials
from pseudomotion.train.arms import ARMS, DEFAULT_ARMS
from pseudomotion.train.budget import SHARES, affordable, seconds
from pseudomotion.train.engine.options import from_values
from pseudomotion.train.labelled import Labelled, make_data
from pseudomotion.train.presets import PRESETS
from pseudomotion.train.probe import CLASSES
from pseudomotion.train.validate import ValidateOptions, main
from pseudomotion.train.videomae.model import normalize

CPU = torch.device("cpu")
SMALL = ["--images", "16", "--train-clips", "48", "--test-clips", "24", "--shots", "2", "--batch-size", "4", "--preset", "cpu"]
ARGUMENTS = ["--arms", "scratch", "zoom-affine-mixup", "--seeds", "2", "--steps", "3", "2", "2", "2", *SMALL]


@pytest.fixture(scope="module")
def data():
    return make_data(images=16, train_clips=48, test_clips=24, num_frames=6, size=24, light=0.4, device=CPU)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two arms."""
    out = tmp_path_factory.mktemp("validate") / "run"
    assert main(["--out", str(out), *ARGUMENTS]) == 0
    return out


def test_a_run_writes_table_results_and_plots(finished, capsys):
    found = json.loads((finished / "validate.json").read_text())
    assert [(t["arm"], t["seed"]) for t in found["trials"]] == [(arm, seed) for arm in ("scratch", "zoom-affine-mixup") for seed in (0, 1)]
    assert found["steps"] == {"pretrain": 3, "fine_tune": 2, "low_shot": 2, "probe": 2}
    assert found["setting"]["shots"] == 2
    assert {"torch", "transformers"} < set(found["versions"])
    scratch, pretrained = found["trials"][0], found["trials"][2]
    assert "pretrain_loss" not in scratch
    assert [step for step, _ in pretrained["pretrain_loss"]] == [0, 1, 2]
    table = (finished / "table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[:4]]
    values = np.array([100 * trial["probe"] for trial in found["trials"][2:]])
    assert rows[3][0] == "zoom + affine + mixup"
    assert rows[3][4] == f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
    assert rows[2][1] == "none"
    for name in ("accuracy.png", "loss.png"):
        assert np.asarray(Image.open(finished / name).convert("L")).std() > 10


def test_a_repeated_command_runs_only_what_is_missing(finished, tmp_path, monkeypatch):
    """Finished trials are read back, and one that is run again comes out the same, as its weights and batches depend on the seed alone."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before = json.loads((out / "validate.json").read_text())["trials"]
    (out / "trials" / "zoom-affine-mixup-1.json").unlink()
    (out / "validate.json").unlink()
    run, ran = trials.run_trial, []

    def counting(arm, seed, *rest):
        ran.append((arm.title, seed))
        return run(arm, seed, *rest)

    monkeypatch.setattr("pseudomotion.train.validate.run_trial", counting)
    assert main(["--out", str(out), *ARGUMENTS]) == 0
    assert ran == [("zoom + affine + mixup", 1)]
    after = json.loads((out / "validate.json").read_text())["trials"]
    assert [{k: v for k, v in trial.items() if k != "seconds"} for trial in after] == [
        {k: v for k, v in trial.items() if k != "seconds"} for trial in before
    ]
    monkeypatch.setattr("pseudomotion.train.validate.make_data", lambda **sizes: pytest.fail("nothing is left to do"))
    assert main(["--out", str(out), *ARGUMENTS]) == 0


def test_results_of_other_sizes_are_not_mixed(finished):
    other = [*ARGUMENTS, "--shots", "3"]
    with pytest.raises(ValueError, match="other sizes, steps or devices"):
        main(["--out", str(finished), *other])


def test_arms_that_need_pretraining_cannot_join_those_that_had_none(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    work = json.loads((out / "work.json").read_text())
    work["steps"]["pretrain"] = 0
    (out / "work.json").write_text(json.dumps(work))
    with pytest.raises(ValueError, match="arms without pre-training"):
        main(["--out", str(out), *ARGUMENTS[:5], *SMALL])


def test_more_shots_than_clips_are_refused():
    config = from_values(ValidateOptions, {"out": "x", "train_clips": 48, "preset": "cpu"})
    with pytest.raises(ValueError, match="--shots must be at most 4"):
        config.setting(CPU)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"arms": ["scratch", "magic"]}, "arms must be of scratch, .*got magic"),
        ({"arms": ["scratch", "scratch"]}, "must differ"),
        ({"budget": "8"}, "budget must be a number and s, m or h"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"steps": [1, 2]}, "steps must be 4 numbers"),
        ({"train_clips": 3}, "train-clips must be at least 12"),
        ({"preset": "tpu"}, "invalid choice"),
    ],
)
def test_wrong_options_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        from_values(ValidateOptions, {"out": "x"} | values)


def test_budgets():
    assert [seconds(text) for text in ("8m", "90s", "1.5h")] == [480, 90, 5400]


def test_steps_share_out_the_budget(data, monkeypatch):
    """A clock of our own: every step, and every other look at it, takes 10 ms."""
    ticks = itertools.count()
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: next(ticks) / 100))
    setting = ValidateOptions(out="x", images=16, train_clips=48, test_clips=24, shots=2, batch_size=4, preset="cpu").setting(CPU)
    arms = [ARMS[name] for name in DEFAULT_ARMS]
    runs = dict.fromkeys(SHARES, 2 * len(arms)) | {"pretrain": 2 * sum(bool(arm.transforms) for arm in arms)}
    steps = affordable(400.0, arms, 2, "mean", setting, data)
    for stage, share in SHARES.items():
        assert steps[stage] * runs[stage] / 100 == pytest.approx(share * 400, rel=0.01)
    assert affordable(400.0, [ARMS["scratch"]], 1, "mean", setting, data)["pretrain"] == 0  # nothing to pre-train
    with pytest.raises(ValueError, match="--budget leaves 0 s to train 8 models, fewer than 10 steps of"):
        affordable(0.1, arms, 2, "mean", setting, data)


def test_every_arm_makes_clips_for_the_model(data):
    setting = PRESETS["cpu"]
    for name, arm in ARMS.items():
        if arm.transforms:
            clips = arm.pmg(setting.num_frames, setting.frame_size, 0)(data.images[:4], ids=torch.arange(4))
            assert clips.shape == (4, setting.num_frames, 3, setting.frame_size, setting.frame_size), name
            assert clips.dtype == torch.float32
            moved = float((clips[:, 1:] - clips[:, :-1]).abs().mean())
            assert (moved == 0) == (name == "identity"), name


def test_a_short_clip_of_zoom_moves_as_much_as_a_long_one(data):
    scales = [ARMS["zoom-affine"].pmg(frames, 24, 0).transforms[0].ratio[1] ** (frames - 1) for frames in (6, 16)]
    assert scales[0] == pytest.approx(scales[1]) == pytest.approx(1.05**15)


def test_a_model_learns_the_clips_it_is_shown(data):
    """All parts together: a small set is learnt by heart, by a fine-tuned encoder and by a probe, which leaves its encoder alone."""
    setting = dataclasses.replace(PRESETS["cpu"], batch_size=12)
    model = trials.new_model(setting, 0, CPU)
    few = Labelled(data.train.clips[:24], data.train.labels[:24])
    tuned = trials.FineTuned(model.videomae, len(CLASSES))
    losses = list(trials.classify(tuned, few, setting, 80, 3e-3, 0))
    assert len(losses) == 80
    assert losses[-1] < losses[0] / 2
    assert trials.accuracy(tuned, few) > 0.6
    probe = trials.Classifier(model.videomae, len(CLASSES), "attentive")
    before = {name: value.clone() for name, value in model.videomae.state_dict().items()}
    losses = list(trials.classify(probe, few, setting, 50, 1e-2, 0))
    assert losses[-1] < losses[0] / 2
    assert all(torch.equal(value, before[name]) for name, value in model.videomae.state_dict().items())


def test_a_loss_that_is_no_number_stops_the_run(data):
    tuned = trials.FineTuned(trials.new_model(PRESETS["cpu"], 0, CPU).videomae, len(CLASSES))
    with torch.no_grad():
        tuned.model.classifier.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="the loss became nan"):
        list(trials.classify(tuned, data.train, PRESETS["cpu"], 2, 1e-3, 0))


def test_fine_tuning_begins_with_the_pretrained_weights(data):
    """All but the final norm, which is new; so tokens before it are those of the encoder."""
    model = trials.new_model(PRESETS["cpu"], 0, CPU).eval()
    tuned = trials.FineTuned(model.videomae, len(CLASSES)).eval()
    pixels = normalize(data.test.clips[:2].transpose(1, 2))
    with torch.no_grad():
        tokens = tuned.model.videomae(pixels).last_hidden_state
        torch.testing.assert_close(model.videomae.layernorm(tokens), model.videomae(pixels).last_hidden_state)


def test_clips_of_one_frame_stand_still(data):
    still = data.one_frame()
    assert torch.equal(still.test.clips[:, 0], data.test.clips[:, 3])
    assert torch.equal(still.test.clips[:, 0], still.test.clips[:, -1])
    assert not torch.equal(data.test.clips[:, 0], data.test.clips[:, -1])
