"""The training loop: what it computes does not depend on how it is run, and nothing that happens to it loses a run."""

import json
import os
import pickle
import platform
import random
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from pictures import save
from processes import pretraining, ranks
from safetensors.torch import load_file
from trainer import pretrain as main
from transformers import VideoMAEForPreTraining, VideoMAEForVideoClassification

from pseudomotion.source import read_batches
from pseudomotion.train.comparators import PerlinClips
from pseudomotion.train.engine import checkpoints
from pseudomotion.train.engine.log import plot, read_metrics
from pseudomotion.train.engine.loop import warn_of_hours
from pseudomotion.train.engine.options import from_values
from pseudomotion.train.engine.stream import Parts, Steps, to_device
from pseudomotion.train.pretrain import PretrainOptions, make_task
from pseudomotion.train.recipes import read_recipe
from pseudomotion.train.videomae.objective import MaskedLoss

CPU = torch.device("cpu")

TINY = (
    *("--source", "noise", "--limit", "6", "--bank", "--model", "micro", "--frame-size", "12", "--image-size", "16", "--num-frames", "4"),
    *("--batch-size", "4", "--save-every", "2", "--log-every", "1", "--log-with", "none", "--seed", "3"),
    *("--objects", "mixed", "--num-textures", "3"),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the processes that are started: sums that threads share out are rounded in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def losses(out):
    return {row["step"]: row["loss"] for row in read_metrics(Path(out))}


def run(out, *more, steps=8):
    main([*TINY, "--max-steps", str(steps), "--out", str(out), *more])
    return losses(out)


def steps_done(out):
    return max(losses(out), default=0)


def wait_for(child, out, steps):
    """Until a run has done so many steps, or is over."""
    deadline = time.time() + 120
    while child.is_alive() and steps_done(out) < steps and time.time() < deadline:
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    return out, run(out, "--log-with", "tensorboard")


@pytest.fixture(scope="module")
def every_step(tmp_path_factory):
    """The same run, with a checkpoint of every step."""
    out = tmp_path_factory.mktemp("every-step") / "run"
    run(out, "--save-every", "1", "--keep", "9")
    return out


def test_a_run_leaves_what_was_promised(undisturbed):
    out, numbers = undisturbed
    assert list(numbers) == list(range(1, 9))
    names = {path.name for path in out.iterdir()}
    assert names == {"config.yaml", "metrics.jsonl", "loss.png", "reconstructions.png", "model", "checkpoints", "tensorboard"}
    assert [path.name for path in checkpoints.checkpoints(out / "checkpoints")] == ["step-00000006", "step-00000008"]
    assert any(path.stat().st_size > 100 for path in (out / "tensorboard").iterdir())
    row = json.loads((out / "metrics.jsonl").read_text().splitlines()[3])
    assert row["epoch"] == pytest.approx(16 / 6)
    assert 0 < row["pmg_share"] < 1
    assert row["clips_per_second"] > 0


def test_the_model_loads_into_transformers_also_for_classification(undisturbed):
    out, _ = undisturbed
    encoder = VideoMAEForPreTraining.from_pretrained(out / "model").videomae.encoder
    classifier, report = VideoMAEForVideoClassification.from_pretrained(out / "model", num_labels=7, output_loading_info=True)
    assert not any("encoder" in key or "embeddings" in key for key in report["missing_keys"])
    torch.testing.assert_close(classifier.videomae.encoder.state_dict(), encoder.state_dict(), rtol=0, atol=0)


def test_weights_change_while_training(undisturbed):
    early, late = (load_file(path / "model" / "model.safetensors") for path in checkpoints.checkpoints(undisturbed[0] / "checkpoints"))
    moved = [name for name in early if not torch.equal(early[name], late[name])]
    assert len(moved) > len(early) * 0.9


def test_resuming_at_any_step_gives_the_same_losses_bit_by_bit(undisturbed, every_step, tmp_path):
    for first in (2, 5):
        out = tmp_path / str(first)
        shutil.copytree(every_step, out)
        for path in checkpoints.checkpoints(out / "checkpoints")[first:]:  # what a run that was killed after `first` would not have
            shutil.rmtree(path)
        main(["--out", str(out), "--resume", "--save-every", "9"])
        assert losses(out) == undisturbed[1]


def test_another_seed_gives_other_losses(undisturbed, tmp_path):
    assert run(tmp_path / "other", "--seed", "4", steps=1)[1] != undisturbed[1][1]


@pytest.mark.parametrize("more", [("--accumulate", "4"), ("--accumulate", "2", "--num-workers", "2", "--no-bank")], ids=" ".join)
def test_losses_depend_neither_on_accumulation_nor_on_workers(undisturbed, tmp_path, more):
    numbers = run(tmp_path / "run", *more)
    assert numbers == pytest.approx(undisturbed[1], rel=1e-4)


def test_two_processes_give_the_losses_of_one(undisturbed, tmp_path):
    """Mixup's partners come from the whole source, so that the clips are the same ones."""
    out = tmp_path / "run"
    arguments = [*TINY, "--max-steps", 8, "--out", out, "--cpu"]
    children = [pretraining(arguments, tmp_path / f"log{place['RANK']}", **place) for place in ranks(2)]
    for child in children:
        child.join(300)
    assert [child.exitcode for child in children] == [0, 0], (tmp_path / "log0").read_text()
    assert losses(out) == pytest.approx(undisturbed[1], rel=1e-4)


def test_killed_at_random_moments_a_run_ends_as_if_undisturbed(tmp_path):
    out, log, moments = tmp_path / "run", tmp_path / "log", random.Random(0)
    expected = run(tmp_path / "undisturbed", "--save-every", "3", steps=60)
    for _ in range(4):
        child = pretraining([*TINY, "--max-steps", 60, "--save-every", 3, "--resume", "--out", out], log)
        wait_for(child, out, steps_done(out) + 4)
        time.sleep(moments.uniform(0, 0.05))
        child.kill()
        child.join()
    assert child.exitcode == -signal.SIGKILL
    assert 8 <= steps_done(out) < 60
    assert run(out, "--resume", "--save-every", "3", steps=60) == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_saves_and_ends_the_run(tmp_path, number):
    out, log = tmp_path / "run", tmp_path / "log"
    child = pretraining([*TINY, "--max-steps", 5000, "--save-every", 5000, "--out", out], log)
    wait_for(child, out, 3)
    os.kill(child.pid, number)
    child.join(60)
    assert child.exitcode == 128 + number, log.read_text()
    done = steps_done(out)
    assert f"stopped by {number.name} and saved after step {done}" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert [path.name for path in checkpoints.checkpoints(out / "checkpoints")] == [f"step-{done:08d}"]


def test_a_damaged_checkpoint_is_passed_over(undisturbed, tmp_path, capsys):
    for name in ("model/model.safetensors", "optimizer.safetensors", "state.json"):
        out = tmp_path / name.replace("/", "-")
        shutil.copytree(undisturbed[0], out)
        file = out / "checkpoints" / "step-00000008" / name
        file.write_bytes(file.read_bytes()[:-7])
        main(["--out", str(out), "--resume"])
        said = capsys.readouterr().err
        assert "step-00000008 is damaged" in said
        assert "going on from" in said
        assert "step-00000006" in said
        assert losses(out) == undisturbed[1]


def test_a_damaged_checkpoint_does_not_outlive_the_good_one_before_it(undisturbed, tmp_path):
    """Saved on the way back to its step, with one checkpoint to keep, the new one stays."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(undisturbed[0] / "checkpoints", folder)
    (folder / "step-00000008" / "state.json").unlink()
    checkpoints.save(folder, taken(7), keep=1)
    assert [path.name for path in checkpoints.checkpoints(folder)] == ["step-00000007"]
    assert checkpoints.newest(folder) == (folder / "step-00000007", [])


def test_a_full_disk_leaves_the_last_good_checkpoint(undisturbed, tmp_path, monkeypatch):
    out = tmp_path / "run"
    shutil.copytree(undisturbed[0], out)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pseudomotion.train.engine.checkpoints.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(out / "checkpoints", taken(9), keep=1)
    assert [path.name for path in checkpoints.checkpoints(out / "checkpoints")] == ["step-00000006", "step-00000008"]
    assert checkpoints.newest(out / "checkpoints")[0].name == "step-00000008"
    assert not list((out / "checkpoints").glob(".*"))


def taken(step):
    """What a checkpoint of a step holds."""
    options = PretrainOptions(out="o", source="noise", limit=6, model="micro", frame_size=12, num_frames=4)
    task = make_task(options, torch.device("cpu"))
    return checkpoints.snapshot(task.model, torch.optim.AdamW(task.groups()), None, {"step": step})


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_clips(tmp_path, monkeypatch):
    original = MaskedLoss.forward
    calls = []

    def forward(self, *inputs):
        calls.append(1)
        return original(self, *inputs) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(MaskedLoss, "forward", forward)
    with pytest.raises(ValueError, match=r"loss is nan in step 3, so training stops; ids of its clips: \[\d+, \d+, \d+, \d+\]"):
        run(tmp_path / "run")
    assert [path.name for path in checkpoints.checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000002"]


def test_a_folder_that_holds_a_run_is_not_written_over(undisturbed):
    with pytest.raises(ValueError, match="holds a run already"):
        run(undisturbed[0])


def test_options_of_a_resumed_run_cannot_change(undisturbed):
    with pytest.raises(ValueError, match=r"--base-lr \(was 0.00015, now 1.0\)"):
        main(["--out", str(undisturbed[0]), "--resume", "--base-lr", "1"])


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size must be a multiple of processes x accumulate = 3"):
        run(tmp_path / "run", "--accumulate", "3")


def test_a_run_can_be_prolonged(undisturbed, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(undisturbed[0], out)
    main(["--out", str(out), "--resume", "--max-steps", "10"])
    assert list(losses(out)) == list(range(1, 11))
    with pytest.raises(ValueError, match="has done 10 steps already, more than the 9 that are asked for"):
        main(["--out", str(out), "--resume", "--max-steps", "9"])


def test_a_run_is_not_resumed_on_other_data(tmp_path):
    images, out = tmp_path / "images", tmp_path / "run"
    for k in range(8):
        save(images / f"{k}.png", k)
    given = ["--images", str(images), *TINY[5:]]
    main([*given, "--max-steps", "2", "--out", str(out)])
    save(images / "8.png", 8)
    with pytest.raises(ValueError, match="was on 8 items, now there are 9; a run goes on with the data that it began with"):
        main(["--out", str(out), "--resume", "--max-steps", "4"])
    (images / "8.png").unlink()
    main(["--out", str(out), "--resume", "--max-steps", "4"])
    assert list(losses(out)) == [1, 2, 3, 4]


def test_rows_hold_means_also_across_a_resume(undisturbed, tmp_path):
    out = tmp_path / "run"
    run(out, "--log-every", "3", "--save-every", "2", steps=5)
    main(["--out", str(out), "--resume", "--max-steps", "8"])
    steps = undisturbed[1]
    assert list(losses(out)) == [3, 5, 6, 8]  # the last step of a run ends a row
    for path in checkpoints.checkpoints(out / "checkpoints"):
        shutil.rmtree(path)
    shutil.rmtree(out)
    run(out, "--log-every", "3", "--save-every", "4", "--keep", "9")
    shutil.rmtree(out / "checkpoints" / "step-00000008")
    main(["--out", str(out), "--resume"])
    means = {last: sum(steps[k] for k in range(first, last + 1)) / (last - first + 1) for first, last in ((1, 3), (4, 6), (7, 8))}
    assert losses(out) == pytest.approx(means, rel=1e-12)


def test_rows_tell_how_a_run_goes(undisturbed):
    row = read_metrics(undisturbed[0])[-1]
    assert row["grad_norm"] > 0
    assert 0 <= row["waiting_share"] <= 1
    assert row["seconds_left"] == 0
    assert 0 < row["tflops"] < 10


def test_the_gradient_norm_is_that_of_all_weights(tmp_path):
    """Against a step by hand."""
    run(tmp_path / "run", steps=1)
    torch.manual_seed(3)
    task = make_task(from_values(PretrainOptions, read_recipe(str(tmp_path / "run" / "config.yaml"), "pretrain")), CPU)
    ids = Steps(task.source, 4, 3)[0]
    loss = task.objective(*task.inputs(task.source.get(ids), ids, CPU))
    loss.backward()
    (row,) = read_metrics(tmp_path / "run")
    assert loss.item() == row["loss"]
    norm = sum(weight.grad.double().square().sum() for weight in task.model.parameters()).sqrt()
    assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)


def test_what_saves_memory_or_disk_changes_no_bit(undisturbed, tmp_path):
    assert run(tmp_path / "run", "--gradient-checkpointing", "--keep", "1") == undisturbed[1]


def test_the_average_of_the_weights(tmp_path):
    """By hand, from the weights after every step, in float64; resumed on the way."""
    out = tmp_path / "run"
    run(out, "--ema", "0.8", "--save-every", "1", "--keep", "9", steps=3)
    main(["--out", str(out), "--resume", "--max-steps", "5"])
    weights = [load_file(path / "model" / "model.safetensors") for path in checkpoints.checkpoints(out / "checkpoints")]
    assert len(weights) == 5
    name = "videomae.encoder.layer.1.output.dense.weight"
    average = weights[0][name].double()
    for each in weights[1:]:
        average = 0.8 * average + 0.2 * each[name].double()
    saved = VideoMAEForPreTraining.from_pretrained(out / "average").state_dict()[name]
    torch.testing.assert_close(saved.double(), average, rtol=1e-6, atol=1e-7)
    assert not torch.equal(saved, weights[-1][name])


def test_training_goes_on_while_a_checkpoint_is_written(every_step, tmp_path, monkeypatch):
    """The first one is held back until two more steps are done, and still holds the weights of its own step."""
    save_now, forward, later, calls = checkpoints.save, MaskedLoss.forward, threading.Event(), []

    def slow(*arguments, **options):
        assert later.wait(60), "training waits for its checkpoint"
        return save_now(*arguments, **options)

    def counted(self, *inputs):
        calls.append(1)
        if len(calls) == 4:
            later.set()
        return forward(self, *inputs)

    monkeypatch.setattr(checkpoints, "save", slow)
    monkeypatch.setattr(MaskedLoss, "forward", counted)
    run(tmp_path / "run", "--keep", "9")
    for name in ("model/model.safetensors", "optimizer.safetensors"):
        plain, held = (load_file(each / "checkpoints" / "step-00000002" / name) for each in (every_step, tmp_path / "run"))
        assert plain.keys() == held.keys()
        assert all(torch.equal(plain[key], held[key]) for key in plain)


def test_checkpoints_by_time(tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr("pseudomotion.train.engine.loop.time.monotonic", lambda: next(clock))
    run(tmp_path / "run", "--save-every", "2m", "--keep", "9")  # a step takes 40 s
    assert [path.name[-1] for path in checkpoints.checkpoints(tmp_path / "run" / "checkpoints")] == ["3", "6", "8"]


def test_the_environment_of_accelerate_does_not_change_a_run(undisturbed, tmp_path, monkeypatch):
    for name, value in (("DYNAMO_BACKEND", "inductor"), ("GRADIENT_ACCUMULATION_STEPS", "4"), ("MIXED_PRECISION", "bf16")):
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    assert run(tmp_path / "run") == undisturbed[1]
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="ACCELERATE_USE_FSDP is set, but models are trained whole on every GPU"):
        run(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_leftovers_of_a_killed_run_are_swept(undisturbed, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(undisturbed[0], out)
    host = re.sub(r"[^\w-]", "_", platform.node())[:40]
    left = out / "checkpoints" / f".step-00000006.pmg-{host}-{2**22 + 1}-0.new"
    (left / "model").mkdir(parents=True)
    main(["--out", str(out), "--resume"])
    assert [path.name for path in (out / "checkpoints").iterdir() if path.name.startswith(".")] == []


def test_a_start_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "run"
    for more, message in (
        (["--images", str(tmp_path / "images")], "can be read"),
        (["--source", "noise", "--mask-ratio", "1"], "mask_ratio must hide some"),
        (["--source", "noise", "--videos", "list.csv"], "exactly one of --images, --source, --videos"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            main([*more, *TINY[5:], "--max-steps", "2", "--out", str(out)])
        assert not out.exists()
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="must be a folder, there is a file of this name"):
        run(tmp_path / "file")


def test_files_of_other_people_are_not_written_over(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("mine: true\n")
    with pytest.raises(ValueError, match=r"holds a run already \(config.yaml\)"):
        run(tmp_path / "run")
    with pytest.raises(ValueError, match="has no section 'pretrain'"):
        run(tmp_path / "run", "--resume")
    assert (tmp_path / "run" / "config.yaml").read_text() == "mine: true\n"
    (tmp_path / "run" / "config.yaml").rename(tmp_path / "run" / "slurm.log")
    run(tmp_path / "run", steps=1)


def test_what_workers_get_can_be_pickled():
    parts = Parts(Steps(PerlinClips(2, 16, 6, 0, CPU), 4, 0), 0, 3)
    parts[1]
    again = pickle.loads(pickle.dumps(parts))
    assert all(torch.equal(again[k], parts[k]) for k in range(3))


def test_a_curve_of_a_long_run_is_thinned(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda self, steps, values, **_: drawn.append((steps, values)))
    plot([{"step": k, "loss": 2.0 * k} for k in range(100_000)], tmp_path / "loss.png")
    ((steps, values),) = drawn
    assert len(steps) <= 2000
    assert steps[0] == 0
    assert steps[-1] > 99_900
    assert all(value == 2 * step for step, value in zip(steps, values, strict=True))


def test_hours_on_a_cpu_are_said_before_they_begin(capsys):
    """A CPU does between a billion and 30,000 billion operations a second."""
    warn_of_hours(1e20, CPU, 1)
    hours = re.fullmatch(r"this will take at least (\d+) hours on a CPU, .*--recipe demo.*\n", capsys.readouterr().err)
    assert 1e20 / 3e13 / 3600 < int(hours[1]) < 1e20 / 1e9 / 3600
    warn_of_hours(1e8, CPU, 1)
    warn_of_hours(None, CPU, 1)
    warn_of_hours(1e20, torch.device("cuda"), 1)
    assert capsys.readouterr().err == ""


def test_batches_for_a_gpu_are_pinned_where_they_are_read(monkeypatch):
    """The loader is asked to, and only then: there is nothing to pin for a CPU."""
    asked = []
    loader = torch.utils.data.DataLoader.__init__

    def watched(self, *arguments, pin_memory=False, **options):
        asked.append(pin_memory)
        loader(self, *arguments, **options)

    monkeypatch.setattr(torch.utils.data.DataLoader, "__init__", watched)
    source = PerlinClips(2, 16, 4, 0, CPU)
    for pin in (False, True):
        list(read_batches(source, [torch.arange(2)], 1, pin=pin))
    assert asked == [False, True]
    images = torch.zeros(2)
    assert to_device(images, CPU) is images
