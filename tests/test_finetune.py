"""Fine-tuning and testing on small written videos that are easy to tell apart."""

import json

import numpy as np
import pytest
import torch
import trainer
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, pipeline

from pseudomotion.draws import Draws
from pseudomotion.mix import Mixup, VideoMix
from pseudomotion.train import finetune
from pseudomotion.train.engine.log import read_metrics
from pseudomotion.train.engine.options import from_values
from pseudomotion.train.evaluate import predict
from pseudomotion.train.video.augment import MixupOrCutMix, RandomErasing
from pseudomotion.train.video.views import EvaluationViews, LabelledViews, Sampling
from pseudomotion.train.videomae.classifier import ClassifierLoss
from pseudomotion.video import read_clip, write_video
from pseudomotion.video.list_file import read_list, write_list

CLASSES = ["red", "green", "blue"]
NOTHING = {"videos": 0, "skipped": {}, "missing": []}
MEAN, STD = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def write(path, label, seed, n=10, h=16, w=24):
    """A disk in the color of its class that moves over dim noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    noise, place = rng.integers(0, 90, (h, w, 3)), rng.integers(w)
    frames = []
    for k in range(n):
        frame = noise.copy()
        frame[((x - place - k) % w - 8) ** 2 + (y - 8) ** 2 < 36] = 60 + 160 * np.eye(3)[label]
        frames.append(frame.astype(np.uint8))
    write_video(path, frames, fps=10)
    return path, label


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """Lists of 24 videos to train on and 12 to validate on, of three classes."""
    folder = tmp_path_factory.mktemp("videos")
    for split, n, seed in (("train", 8, 0), ("val", 4, 1000)):
        rows = [write(folder / f"{split}_{label}_{k}.mp4", label, seed + 100 * label + k) for k in range(n) for label in range(3)]
        write_list(folder / f"{split}.csv", rows)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return folder


MODEL = {"model": "tiny", "frame_size": 16, "num_frames": 4}
PLAIN = {"drop_path": 0.0, "head_dropout": 0.0, "mixup": 0.0, "cutmix": 0.0, "randaugment": 0, "erasing": 0.0, "copies": 1}


def arguments(lists, out, **options):
    options = {
        "train": lists / "train.csv",
        "val": lists / "val.csv",
        "out": out,
        "stride": 2,
        "cpu": True,
        "batch_size": 12,
        "log_every": 1,
        "log_with": "none",
    } | options
    line = []
    for name, value in options.items():
        if value is True:
            line.append(f"--{name.replace('_', '-')}")
        else:
            line += [f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return line


def losses(out):
    return [row["loss"] for row in read_metrics(out) if "loss" in row]


@pytest.fixture(scope="module")
def run(lists, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    options = MODEL | PLAIN | {"layer_decay": 1.0, "base_lr": 0.02, "epochs": 12, "crop": (0.6, 1.0), "classes": lists / "classes.txt"}
    trainer.finetune(arguments(lists, out, **options))
    return out


def test_classes_that_are_easy_to_tell_apart_are_learned(run, capsys):
    measured = [row["val_top1"] for row in read_metrics(run) if "val_top1" in row]
    assert len(measured) == 2  # every ten epochs, and at the end
    assert measured[-1] > 95
    assert losses(run)[-1] < 0.6 * losses(run)[0]
    assert losses(run)[0] == pytest.approx(np.log(3), abs=0.01)  # the small head finds all classes alike
    best = json.loads((run / "best" / "scores.json").read_text())
    assert best["val_top1"] == max(measured)
    assert (run / "loss.png").read_bytes()[:4] == b"\x89PNG"


def views_by_hand(path):
    """Two clips, three crops: frames of 16 x 24, so that nothing is resized."""
    for start in (0, 3):
        clip = read_clip(path, 4, 2, start).float() / 255
        for left in (0, 4, 8):
            yield (clip.transpose(0, 1)[..., left : left + 16] - MEAN) / STD


def test_testing_averages_the_softmax_of_views(run, lists, capsys):
    """Against transformers' plain class and a loop over views."""
    trainer.evaluate([str(run), "--test", str(lists / "val.csv"), "--clips", "2", "--crops", "3", "--cpu", "--batch-size", "7"])
    assert "top-1" in capsys.readouterr().out
    result = json.loads((run / "test.json").read_text())
    model = VideoMAEForVideoClassification.from_pretrained(run / "model").eval()
    videos = EvaluationViews(lists / "val.csv", Sampling(4, "dense", 2), 16, clips=2, crops=3)
    with torch.no_grad():
        expected = torch.stack([model(torch.stack(list(views_by_hand(path)))).logits.softmax(1).mean(0) for path in videos.paths])
    probabilities, seen = predict(model, videos, Accelerator(cpu=True), batch_size=7)
    assert seen.all()
    assert torch.allclose(probabilities, expected, atol=1e-5)
    right = expected.argmax(1) == videos.labels
    assert result["top1"] == pytest.approx(100 * right.float().mean().item())
    assert result["top1"] > 95
    assert list(result["class_top1"]) == CLASSES
    assert (result["videos"], result["skipped"], result["stride"], result["num_frames"]) == (12, {}, 2, 4)


class OneOfTwo(Accelerator):
    """A process that does not wait for the other."""

    process_index, num_processes = None, 2

    def __init__(self, rank):
        super().__init__(cpu=True)
        self.process_index = rank

    def reduce(self, tensor, reduction):
        assert reduction == "sum"
        return tensor


def test_processes_share_the_videos(run, lists):
    """Also where what one of them reads in place of a broken video belongs to the other."""
    model = VideoMAEForVideoClassification.from_pretrained(run / "model").eval()
    (lists / "torn.mp4").write_bytes(b"no video")
    listed = [(lists / "torn.mp4", 2), *read_list(lists / "val.csv")]
    videos = EvaluationViews(listed, Sampling(4, "dense", 2), 16)
    with pytest.warns(UserWarning, match="skipped 1 broken files"):
        whole, seen = predict(model, videos, Accelerator(cpu=True), batch_size=5)
    assert seen.tolist() == [False] + [True] * 12
    assert torch.allclose(whole.sum(1), seen.float())
    parts = [predict(model, videos, OneOfTwo(rank), batch_size=5) for rank in range(2)]
    assert torch.allclose(parts[0][0] + parts[1][0], whole, atol=1e-6)
    assert torch.equal(parts[0][1] ^ parts[1][1], seen)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_broken_videos_are_counted_not_replaced(run, lists, tmp_path, num_workers):
    (lists / "bad.mp4").write_bytes(b"no video")
    lines = (lists / "val.csv").read_text().splitlines()
    (lists / "part.csv").write_text("\n".join(["bad.mp4 2", *lines[:5], "gone.mp4 1"]))
    line = [str(run), "--test", str(lists / "part.csv"), "--cpu", "--out", str(tmp_path / "a.json"), "--num-workers", str(num_workers)]
    with pytest.warns(UserWarning, match="skipped 2 broken files"):
        trainer.evaluate(line)
    result = json.loads((tmp_path / "a.json").read_text())
    assert result["videos"] == 5
    assert [path.rpartition("/")[2] for path in result["skipped"]] == ["bad.mp4", "gone.mp4"]
    assert [path.rpartition("/")[2] for path in result["missing"]] == ["gone.mp4"]
    assert "there is no such file" in list(result["skipped"].values())[1]


def test_a_run_goes_on_as_if_nothing_had_happened(lists, tmp_path, monkeypatch):
    """With every kind of chance: dropout, mixing, erasing, RandAugment."""
    options = MODEL | {"max_steps": 4, "save_every": 1, "batch_size": 6}
    trainer.finetune(arguments(lists, tmp_path / "whole", **options))
    forward = ClassifierLoss.forward

    def failing(self, *inputs, left=[3]):  # noqa: B006
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("power is gone")
        return forward(self, *inputs)

    monkeypatch.setattr(ClassifierLoss, "forward", failing)
    with pytest.raises(RuntimeError, match="power is gone"):
        trainer.finetune(arguments(lists, tmp_path / "cut", **options))
    monkeypatch.setattr(ClassifierLoss, "forward", forward)
    trainer.finetune(["--resume", "--out", str(tmp_path / "cut")])
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "cut")) == 4
    whole, cut = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.fixture
def pretrained(tmp_path):
    settings = VideoMAEConfig(
        image_size=16,
        patch_size=8,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        decoder_num_attention_heads=2,
        decoder_hidden_size=12,
        decoder_num_hidden_layers=1,
        decoder_intermediate_size=24,
        use_mean_pooling=False,
    )
    VideoMAEForPreTraining(settings).save_pretrained(tmp_path / "pretrained" / "model")
    return tmp_path / "pretrained"


@pytest.mark.parametrize("probe", [False, True])
def test_pretrained_weights_are_the_start(pretrained, lists, tmp_path, probe):
    options = {"init": pretrained, "max_steps": 2, "base_lr": 0.01, "weight_decay": 0.0}
    trainer.finetune(arguments(lists, tmp_path / "run", **options, **({"linear_probe": True} if probe else {})))
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (pretrained, tmp_path / "run"))
    moved = {name: (after[name] - before[name]).abs().max() for name in after if name in before}
    assert len(moved) > 20
    assert all((change == 0) == probe for change in moved.values())
    if not probe:  # layers move by about their learning rates, Adam's step: 0.7 from layer to layer
        first, second = (moved[f"videomae.encoder.layer.{k}.output.dense.weight"] for k in (0, 1))
        assert 0.6 < first / second < 0.8
        assert 0.6 < moved["videomae.embeddings.patch_embeddings.projection.weight"] / first < 0.8
    assert after["classifier.weight"].abs().max() > 1e-4


def task(lists, **options):
    values = {"train": str(lists / "train.csv"), "val": str(lists / "val.csv"), "out": "none"} | MODEL | options
    return finetune.make_task(from_values(finetune.FinetuneOptions, values))


def test_low_shot(lists):
    source = task(lists, shots=2).source
    assert len(source) == 6
    assert source.labels.bincount().tolist() == [2, 2, 2]
    assert task(lists, shots=2, seed=1).source.paths != source.paths


def test_defaults_are_those_of_ucf101(lists):
    made = task(lists)
    assert (made.source.copies, made.source.augmentation.area, made.source.augmentation.flip) == (2, (0.08, 1.0), 0.5)
    assert made.source.augmentation.randaugment.operations == 4
    assert made.mix == MixupOrCutMix(Mixup(0.8), VideoMix(1.0), 0.5)
    assert made.erasing == RandomErasing(0.25)
    assert sorted({group["lr_scale"] for group in made.groups()}) == pytest.approx([0.7**k for k in (5, 4, 3, 2, 1, 0)])
    no_decay = {id(weight) for group in made.groups() if group["weight_decay"] == 0 for weight in group["params"]}
    assert no_decay == {id(weight) for weight in made.model.parameters() if weight.ndim == 1}
    assert task(lists, mixup=0.0).mix == VideoMix(1.0)
    assert task(lists, cutmix=0.0).mix == Mixup(0.8)
    assert task(lists, cutmix=0.0, mixup=0.0).mix is None


def test_a_linear_probe_has_defaults_of_its_own(lists):
    """Which give way to what is asked for."""
    made = task(lists, linear_probe=True, cutmix=0.5)
    assert (made.source.copies, made.source.augmentation.randaugment.operations, made.source.augmentation.flip) == (1, 0, 0.5)
    assert (made.mix, made.erasing.p, made.options.label_smoothing) == (VideoMix(0.5), 0, 0)
    assert [group["weight_decay"] for group in made.groups()] == [0.0]
    assert made.model.classifier.weight.std() > 0.015


def test_the_saved_model_is_ready_to_be_used_by_others(run, lists):
    """By transformers' own pipeline, with class names; and its card says how it was made."""
    video = read_list(lists / "val.csv")[0][0]
    found = pipeline("video-classification", str(run / "model"), frame_sampling_rate=2)(str(video))
    assert {entry["label"] for entry in found} == set(CLASSES)
    assert found[0]["label"] == CLASSES[read_list(lists / "val.csv")[0][1]]
    settings = json.loads((run / "model" / "preprocessor_config.json").read_text())
    assert (settings["image_mean"], settings["crop_size"]) == ([0.485, 0.456, 0.406], {"height": 16, "width": 16})
    card = (run / "model" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == "video-classification"
    assert "layer_decay: 1.0" in card
    measured = [row["val_top1"] for row in read_metrics(run) if "val_top1" in row]
    assert f"| val top1 | {measured[0]:.4g} (step 20) | {measured[-1]:.4g} (step 24) |" in card
    assert (run / "best" / "README.md").is_file()


def test_where_a_result_cannot_go_is_said_before_the_work(run, lists, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("it began to work")

    monkeypatch.setattr("pseudomotion.train.evaluate.evaluate", never)
    given = [str(run), "--test", str(lists / "val.csv"), "--cpu"]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        trainer.evaluate([*given, "--out", str(tmp_path / "no" / "where.json")])
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"it exists, and no pmg command made it; .*--force"):
        trainer.evaluate([*given, "--out", str(tmp_path / "mine.json")])
    with pytest.raises(FileNotFoundError, match="there is no model in nowhere"):
        trainer.evaluate(["nowhere", "--test", str(lists / "val.csv"), "--cpu"])
    monkeypatch.setattr("pseudomotion.train.evaluate.evaluate", lambda *_: {"top1": 1.0, "top5": 2.0, "mean_class_top1": 3.0} | NOTHING)
    (tmp_path / "mine.json").unlink()
    for _ in range(2):  # our own result is replaced
        trainer.evaluate([*given, "--out", str(tmp_path / "mine.json")])
    assert json.loads((tmp_path / "mine.json").read_text())["top1"] == 1.0


def test_a_result_is_printed_also_where_it_cannot_be_written(run, lists, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pseudomotion.train.evaluate.evaluate", lambda *_: {"top1": 1.25, "top5": 2.0, "mean_class_top1": 3.0} | NOTHING)

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pseudomotion.train.evaluate.whole_file", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.evaluate([str(run), "--test", str(lists / "val.csv"), "--cpu", "--out", str(tmp_path / "a.json")])
    assert "top-1 1.25 %" in capsys.readouterr().out


def test_inputs_and_targets_belong_together(lists):
    """Clips each of one color: the mixed pixels tell what the label must be."""
    made = task(lists, erasing=0.0, label_smoothing=0.0)
    labels = torch.tensor([0, 1, 2, 1, 0, 2])
    levels = torch.tensor([40, 120, 200])
    clips = levels[labels].byte().view(6, 1, 1, 1, 1, 1).expand(6, 2, 3, 4, 16, 16)
    pixels, targets = made.inputs(LabelledViews(clips, labels, labels), torch.arange(6), torch.device("cpu"))
    assert pixels.shape == (12, 4, 3, 16, 16)
    shown = (pixels * STD + MEAN).mean((1, 2, 3, 4)) * 255
    assert torch.allclose(targets @ levels.float(), shown, atol=0.01)
    assert torch.allclose(targets.sum(1), torch.ones(12))
    assert (targets.amax(1) < 0.999).sum() > 4
    flat = pixels.flatten(1).std(1) < 0.2  # of mixup; a box of another level stands out
    assert 0 < flat.sum() < 12


def test_erasing_belongs_to_the_clip(lists):
    """Every copy has noise of its own, by its own id."""
    made = task(lists, erasing=1.0, mixup=0.0, cutmix=0.0)
    clips = torch.full((2, 2, 3, 4, 16, 16), 124, dtype=torch.uint8)
    items = LabelledViews(clips, torch.tensor([0, 1]), torch.tensor([0, 1]))
    pixels, _ = made.inputs(items, torch.tensor([8, 3]), torch.device("cpu"))
    boxes = made.erasing.make_plan(Draws(0, torch.tensor([16, 17, 6, 7])), (16, 16))
    for clip, (top, left, height, width) in zip(pixels, boxes, strict=True):
        erased = (clip - clip[:, :, :1, :1]).abs().sum((0, 1)) > 0 if top or left else None
        if erased is not None:
            assert erased.sum() == height * width
            assert erased[top : top + height, left : left + width].all()


def test_wrong_input(lists, run, tmp_path, pretrained):
    (tmp_path / "odd.csv").write_text("a.mp4 7\n")
    with pytest.raises(ValueError, match=r"odd\.csv must have classes from 0 to 2, it has 7"):
        task(lists, val=str(tmp_path / "odd.csv"))
    (tmp_path / "two.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"train\.csv must have classes from 0 to 1, it has 2"):
        task(lists, classes=str(tmp_path / "two.txt"))
    with pytest.raises(FileNotFoundError, match="there is no model in nowhere"):
        task(lists, init="nowhere", model=None)
    with pytest.raises(ValueError, match="model must be left out with init, whose model has its own, got 'tiny'"):
        task(lists, init=str(pretrained))
    with pytest.raises(ValueError, match=r"num_frames is 4 in the model of .*pretrained, got 8; leave it out"):
        task(lists, init=str(pretrained), model=None, num_frames=8)
    (tmp_path / "bare.csv").write_text("a.mp4\nb.mp4\n")
    with pytest.raises(ValueError, match=r'bare\.csv must have lines of "path label", with a class from 0 for every video; 2 have none'):
        task(lists, train=str(tmp_path / "bare.csv"))
    with pytest.raises(ValueError, match="label_smoothing must be at least 0"):
        task(lists, label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"odd\.csv must have classes from 0 to 2, it has 7"):
        trainer.evaluate([str(run), "--test", str(tmp_path / "odd.csv"), "--cpu"])
    with pytest.raises(ValueError, match=r"holds no whole VideoMAEForVideoClassification: classifier\.bias"):
        trainer.evaluate([str(pretrained), "--test", str(lists / "val.csv"), "--cpu"])
    with pytest.raises(FileNotFoundError, match=r"there is no model in .*best"):
        trainer.evaluate([str(pretrained), "--test", str(lists / "val.csv"), "--cpu", "--weights", "best"])
