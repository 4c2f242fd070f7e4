"""``pmg-validate``: does pre-training on pseudo-motion help to recognize motion? The shipped trainer, small models, minutes.

A trial is one arm and one seed: ``pmg-pretrain``'s task, then ``pmg-finetune``'s on all labelled clips, on a few, and on the frozen encoder
(a linear probe). Labelled clips are those of the built-in motion probe, or of two lists of real videos. Not from the paper.
"""

import dataclasses
import json
import os
import platform
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor
from transformers.hf_argparser import HfArg

from pseudomotion.files import MADE_BY, whole_file
from pseudomotion.images import ImageBank, VideoFrames
from pseudomotion.train import finetune, pretrain
from pseudomotion.train.engine.log import read_metrics
from pseudomotion.train.engine.loop import make_accelerator, train
from pseudomotion.train.engine.options import from_values, parse
from pseudomotion.train.evaluate import predict
from pseudomotion.train.probe import MotionProbe, Motions, textures
from pseudomotion.train.videomae.model import SIZES
from pseudomotion.video.list_file import read_list, write_list
from pseudomotion.video.read import read_frames

# An arm is a name and options of pmg-pretrain, from the settings below; "scratch" and "one-frame" have no pre-training.
ARMS = {
    "scratch": None,
    "identity": "--transforms identity",
    "zoom-affine": "",
    "zoom-affine-mixup": "--mix mixup",
    "perspective": "--transforms perspective",
    "cutmix": "--transforms cutmix",
    "all": "--transforms sliding_window zoom fade affine perspective color_jitter cutmix",
    "composed": "--resampling composed",
    "border": "--padding-mode border",
    "reflection": "--padding-mode reflection",
    "videos": "--clips videos",
    "pmg-aug": "--clips pmg-aug",
    "one-frame": None,
}
STAGES = {"fine_tune": "fine-tuning", "low_shot": "low-shot", "probe": "linear probe"}
PROBE_LR = 5.0  # a linear layer bears, and needs, a higher learning rate than a transformer
SHOWN_LOSSES = 20  # steps at either end of pre-training whose mean masked loss the table shows
RESAMPLES = 1000  # of the bootstrap
PAPER_FRAMES = 16
SPARE = 1.5  # side of the images over that of the frames
DEFAULT_STEPS = (1200, 600, 300, 600)

Row = dict[str, Any]
Clips = dict[Path, UInt8[Tensor, "3 T H W"]]


@dataclass(frozen=True, kw_only=True)
class ValidateOptions:
    """Options of ``pmg-validate``."""

    out: str = HfArg(help="folder to write to; a repeated command reads back the trials that are finished")
    arms: list[str] = HfArg(
        default_factory=lambda: ["scratch", "identity", "zoom-affine", "zoom-affine-mixup"],
        help=f'ways to pre-train: {", ".join(ARMS)}; or your own, as "NAME: options of pmg-pretrain"',
    )
    seeds: int = HfArg(default=2, help="trials of every arm; images, labelled clips, weights and order vary with the seed")
    train: str | None = HfArg(default=None, help='real videos to train on, lines of "path label"; none for the built-in motion probe')
    test: str | None = HfArg(default=None, help="list of real videos to test on")
    film: str | None = HfArg(default=None, help="regular expression: the part of a video's name that tells its film, for the intervals")
    stride: int = HfArg(default=2, help="of real videos: frames from one frame of a clip to the next")
    model: str = HfArg(default="micro", help="size of the model", metadata={"choices": tuple(SIZES)})
    strength: float = HfArg(default=1.0, help="of zoom and affine; 1 for as much motion in a clip as the defaults of PMG make in 16 frames")
    images: int = HfArg(default=600, help="textures to pre-train on; with --train, a frame of every video instead")
    train_clips: int = HfArg(default=2400, help="clips of the motion probe to train on")
    test_clips: int = HfArg(default=600, help="clips of the motion probe to test on")
    shots: int = HfArg(default=20, help="clips per class in low-shot training")
    batch_size: int = HfArg(default=32, help="clips of a step")
    steps: list[int] = HfArg(
        default_factory=lambda: list(DEFAULT_STEPS), help="of pre-training, fine-tuning, low-shot training and the linear probe"
    )
    budget: str | None = HfArg(
        default=None, help="time for all trials, such as 8m, to which --steps are scaled by a short trial; none: as they are"
    )
    base_lr: float = HfArg(default=0.016, help="peak learning rate of all stages, for 256 clips a step")
    cpu: bool = HfArg(default=False, help="train on the CPU even if there is a GPU")

    def __post_init__(self) -> None:
        """Check the values."""
        if bad := [arm for arm in self.arms if arm not in ARMS and ":" not in arm]:
            raise ValueError(f'arms must be of {", ".join(ARMS)}, or "NAME: options", got {", ".join(bad)}')
        if len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms must differ, got {', '.join(self.arms)}")
        for name, least in {"seeds": 1, "images": 2, "train_clips": 12, "test_clips": 12, "shots": 1, "batch_size": 2}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if len(self.steps) != 4 or min(self.steps) < 1:
            raise ValueError(f"steps must be 4 numbers of at least 1, got {self.steps}")
        if (self.train is None) != (self.test is None):
            raise ValueError("train and test must be given together")
        if self.budget is not None and not re.fullmatch(r"\d+(\.\d+)?[smh]", self.budget):
            raise ValueError(f"budget must be a number and s, m or h, got {self.budget!r}")
        if self.train is None and (real := [arm for arm in self.arms if "--clips" in (words_of(arm) or [])]):
            raise ValueError(f"arms {', '.join(real)} need lists of real videos: --train and --test")


def words_of(arm: str) -> list[str] | None:
    """The options of ``pmg-pretrain`` that make an arm; None for no pre-training."""
    options = ARMS[arm] if arm in ARMS else arm.partition(":")[2]
    return None if options is None else shlex.split(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parse(ValidateOptions, "pmg-validate", "Compare ways to pre-train by what the encoder then learns of motion.", arguments)
    found = validate(options)
    print(table(found))  # noqa: T201
    print(f"{options.out}/validate.json, table.md: the results")  # noqa: T201
    return 0


def validate(options: ValidateOptions) -> Row:
    """Run all trials that are not finished yet, and write ``validate.json`` and ``table.md``.

    Returns:
        What stands in ``validate.json``.

    Raises:
        ValueError: if the folder holds trials of other settings.
        OSError: if a list cannot be read, or nothing can be written.

    """
    out, changeable = Path(options.out), {"out", "arms", "seeds", "budget", "steps"}
    (out / "trials").mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in dataclasses.asdict(options).items() if name not in changeable}
    fixed = out / "settings.json"
    known = json.loads(fixed.read_text()) if fixed.is_file() else None
    if known is not None and (known["settings"] != settings or (options.budget is None and known["steps"] != options.steps)):
        raise ValueError(f"{out} holds trials of other settings; choose another --out")
    read = _real_videos(options) if options.train else None
    steps = known["steps"] if known else _affordable(options, read) if options.budget else options.steps
    _write(fixed, json.dumps({"made_by": MADE_BY, "settings": settings, "steps": steps}, indent=1))
    for seed in range(options.seeds):
        for arm in options.arms:
            path = _trial_file(out, arm, seed)
            if not path.is_file():
                print(f"{arm}, seed {seed}", file=sys.stderr)  # noqa: T201
                _write(path, json.dumps(run_trial(options, arm, seed, steps, read)) + "\n")
    trials = [json.loads(_trial_file(out, arm, seed).read_text()) for arm in options.arms for seed in range(options.seeds)]
    found = {
        "made_by": MADE_BY,
        "settings": settings,
        "steps": steps,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {name: version(name) for name in ("torch", "transformers", "kornia")},
        "trials": trials,
    }
    _write(out / "validate.json", json.dumps(found, indent=1) + "\n")
    _write(out / "table.md", table(found) + "\n")
    return found


def run_trial(options: ValidateOptions, arm: str, seed: int, steps: Sequence[int], read: Clips | None = None) -> Row:
    """Pre-train, then train on labelled clips in three ways; the folder of the runs is deleted.

    Args:
        options: the settings.
        arm: a name of ``ARMS``, or "NAME: options of pmg-pretrain".
        seed: of everything but the test clips.
        steps: of pre-training and of each of ``STAGES``.
        read: frames of the real videos, as ``_real_videos`` reads them; None for the motion probe.

    Returns:
        For each stage which test clips were right; the films of these; the masked loss, step by step; seconds.

    """
    begin, words = time.perf_counter(), words_of(arm)
    row: Row = {"arm": arm.partition(":")[0], "options": words, "seed": seed}
    common: Row = {"seed": seed, "batch_size": options.batch_size, "base_lr": options.base_lr, "min_lr": 1e-5, "clip_grad": 1.0}
    common |= {"log_with": None, "log_every": 1, "save_every": "1000000", "cpu": options.cpu}
    with tempfile.TemporaryDirectory(prefix=".running-", dir=options.out) as name:
        folder = Path(name)
        clips, lists = (read, (Path(str(options.train)), Path(str(options.test)))) if read else _probe_clips(options, seed, folder)
        init = None
        if words is not None:
            ImageBank(_images(options, seed)).save(folder / "images.safetensors")
            bank, videos = {"images": [str(folder / "images.safetensors")]}, {"videos": str(lists[0]), "stride": options.stride}
            values = common | {"out": str(folder / "pretrained"), "model": options.model, "mix": "none", "max_steps": steps[0]}
            # A clip has fewer steps than the paper's 16 frames, so they are larger.
            values |= {"strength": options.strength * (PAPER_FRAMES - 1) / (SIZES[options.model].num_frames - 1), "picture_every": 10**9}
            values |= videos if "--clips" in words else bank
            asked = parse(pretrain.PretrainOptions, "pmg-pretrain", "", [*_as_words(values), *words])
            accelerator = make_accelerator(asked)
            init = train(pretrain.make_task(asked, accelerator.device), asked, "pretrain", accelerator)
            row["pretrain_loss"] = [round(each["loss"], 5) for each in read_metrics(folder / "pretrained") if "loss" in each]
        for stage, length in zip(STAGES, steps[1:], strict=True):
            values = common | {"out": str(folder / stage), "max_steps": length, "train": str(lists[0]), "val": str(lists[1])}
            values |= {"model": options.model} if init is None else {"init": str(init)}
            values |= {"copies": 1, "randaugment": 0, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0, "evaluate_every": 1e9}
            values |= {"drop_path": 0.0, "head_dropout": 0.0, "label_smoothing": 0.0, "layer_decay": 1.0}
            values |= {"crop": [0.5, 1.0], "stride": options.stride} if read else {"crop": [1.0, 1.0], "flip": 0.0, "stride": 1}
            values |= {"shots": options.shots} if stage == "low_shot" else {}
            values |= {"linear_probe": True, "base_lr": PROBE_LR * options.base_lr} if stage == "probe" else {}
            tuning = from_values(finetune.FinetuneOptions, values)
            accelerator = make_accelerator(tuning)
            task = finetune.make_task(tuning)
            for source in (task.source, task.validation):
                _read_from_memory(source, clips, still=arm == "one-frame")
            train(task, tuning, "finetune", accelerator)
            task.model.eval()
            with torch.no_grad():
                probabilities, _ = predict(task.model, task.validation, accelerator, batch_size=256)
            row[stage] = (probabilities.argmax(1) == task.validation.labels).int().tolist()
            row["films"] = [_film(options, path) for path in task.validation.paths]
    return row | {"seconds": round(time.perf_counter() - begin, 1)}


def table(found: Row) -> str:
    """Test accuracy in Markdown: the mean over the seeds, and the difference from the first arm with its 95 % interval.

    Arms are paired by seed and by test clip. Intervals are of a bootstrap that draws seeds and films (or clips) anew, the same for both
    arms; they are of this probe and these sizes, and with two or three seeds too narrow.
    """
    arms: dict[str, list[Row]] = {}
    for trial in found["trials"]:
        arms.setdefault(trial["arm"], []).append(trial)
    first, *_ = arms
    lines = [f"| pre-training | masked loss | {' | '.join(STAGES.values())} |", f"|{'---|' * (2 + len(STAGES))}"]
    for arm, trials in arms.items():
        cells = []
        for stage in STAGES:
            right = np.array([trial[stage] for trial in trials], bool)  # (seeds, clips)
            cell = f"{100 * right.mean():.1f}"
            if arm != first:
                base = np.array([trial[stage] for trial in arms[first]], bool)
                low, high = paired_interval(right, base, trials[0]["films"])
                cell += f" ({100 * (right.mean() - base.mean()):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}])"
            cells.append(cell)
        lines.append(f"| {arm} | {_fall(trials)} | {' | '.join(cells)} |")
    seeds, clips = len(arms[first]), len(found["trials"][0]["films"])
    steps = ", ".join(f"{number} of {stage}" for stage, number in zip(("pre-training", *STAGES.values()), found["steps"], strict=True))
    return "\n".join(
        [
            *lines,
            "",
            f"Top-1 accuracy in percent on {clips} test clips, mean over {seeds} seeds; in parentheses the difference from {first} and its "
            f"paired bootstrap interval (95 %, {RESAMPLES} resamples of seeds and films). Steps: {steps}; "
            f"{found['settings']['batch_size']} clips each. Masked loss: just under 1 for guessing the mean of every patch.",
        ]
    )


def paired_interval(right: Bool[np.ndarray, "s n"], base: Bool[np.ndarray, "s n"], films: Sequence[str]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the difference in accuracy between two arms, paired by seed and clip.

    Args:
        right: which of n clips an arm had right, for each of s seeds.
        base: the same of the other arm.
        films: of every clip; clips of one film are drawn together.

    """
    rng = np.random.default_rng(0)
    _, film = np.unique(np.array(films), return_inverse=True)
    sizes = np.bincount(film)
    gained = right.astype(float) - base
    sums = np.stack([np.bincount(film, row, len(sizes)) for row in gained])  # (s, films)
    drawn = rng.integers(len(sizes), size=(RESAMPLES, len(sizes)))
    of_seeds = sums[:, drawn].sum(2) / sizes[drawn].sum(1)  # (s, resamples)
    differences = np.take_along_axis(of_seeds, rng.integers(len(sums), size=of_seeds.shape), 0).mean(0)
    low, high = np.quantile(differences, (0.025, 0.975))
    return float(low), float(high)


def _fall(trials: Sequence[Row]) -> str:
    """The masked loss at the beginning and at the end, mean over the seeds."""
    curves = [trial["pretrain_loss"] for trial in trials if "pretrain_loss" in trial]
    if not curves:
        return "none"
    first, last = (np.mean([np.mean(curve[part]) for curve in curves]) for part in (slice(SHOWN_LOSSES), slice(-SHOWN_LOSSES, None)))
    return f"{first:.3f} → {last:.3f}"


class _Images:
    """Images in memory, as a source."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def get(self, ids: Tensor) -> Tensor:
        return self.images[ids % len(self)]


def _images(options: ValidateOptions, seed: int) -> Any:
    """What is pre-trained on: textures, or a frame of every real video; others for every seed. No texture serves two purposes."""
    side = round(SIZES[options.model].frame_size * SPARE)
    if options.train:
        return VideoFrames(options.train, side, seed=seed)
    return _Images(textures(torch.arange(options.images) + (2 * seed + 1) * 10**6, side))


def _probe_clips(options: ValidateOptions, seed: int, folder: Path) -> tuple[Clips, tuple[Path, Path]]:
    """Labelled clips of the motion probe, and lists of their names; the clips to test on are the same for all seeds."""
    size = SIZES[options.model]
    clips: Clips = {}
    lists = (folder / "train.csv", folder / "test.csv")
    for path, count, first, own in (
        (lists[0], options.train_clips, (2 * seed + 2) * 10**6, seed + 1),
        (lists[1], options.test_clips, 0, 0),
    ):
        images = textures(torch.arange(options.images) + first, round(size.frame_size * SPARE))
        probe = MotionProbe(images, size.num_frames, size.frame_size, own, motions=Motions(light=0.4))
        made, labels = probe.get(torch.arange(count))  # (count, T, 3, h, w)
        names = [(folder / path.stem / f"{k}.mp4").absolute() for k in range(count)]
        clips |= dict(zip(names, made.transpose(1, 2), strict=True))
        write_list(path, list(zip(names, labels.tolist(), strict=True)))
    return clips, lists


def _real_videos(options: ValidateOptions) -> Clips:
    """All frames of the videos of both lists, decoded once, at half again the side of the model's frames."""
    side = round(SIZES[options.model].frame_size * SPARE)
    paths = {path for each in (options.train, options.test) for path, _ in read_list(str(each))}
    return {path: _shrunk(read_frames(path, lambda total: list(range(total))), side) for path in sorted(paths)}


def _shrunk(frames: UInt8[Tensor, "3 T H W"], side: int) -> UInt8[Tensor, "3 T h w"]:
    scale = min(1.0, side / min(frames.shape[2:]))
    size = [max(1, round(length * scale)) for length in frames.shape[2:]]
    small = torch.nn.functional.interpolate(frames.transpose(0, 1).float(), size, mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8).transpose(0, 1)


def _read_from_memory(source: Any, clips: Clips, *, still: bool) -> None:
    """Let labelled videos take their frames from memory; ``still``: all of a clip's frames are its middle one."""

    def frames(index: int, pick: Callable[[int], list[int]]) -> UInt8[Tensor, "3 T H W"]:
        video = clips[source.paths[index]]
        chosen = pick(video.shape[1])
        return video[:, [chosen[len(chosen) // 2]] * len(chosen) if still else chosen]

    source.frames = frames


def _film(options: ValidateOptions, path: Path) -> str:
    found = re.search(options.film, path.name) if options.film else None
    return found[0] if found else path.name


def _affordable(options: ValidateOptions, read: Clips | None) -> list[int]:
    """The steps, scaled so that all trials take about the budget: measured on a trial of 40 steps a stage, less one of 10."""
    number = float(options.budget[:-1]) * {"s": 1, "m": 60, "h": 3600}[options.budget[-1]]  # type: ignore[index]
    arm = next((arm for arm in options.arms if words_of(arm) is not None), options.arms[0])
    short, long = (run_trial(options, arm, 0, [count] * 4, read)["seconds"] for count in (10, 40))
    step, trials = max(1e-3, (long - short) / 120), len(options.arms) * options.seeds  # seconds, of a mean stage
    share = max(0.0, number - short - long - trials * max(0.0, short - 40 * step)) / (trials * step * sum(options.steps))
    scaled = [round(count * share) for count in options.steps]
    if min(scaled) < 10:
        raise ValueError(f"--budget {options.budget} leaves fewer than 10 steps a stage for {trials} trials; ask for fewer arms or seeds")
    return scaled


def _as_words(values: Row) -> list[str]:
    words: list[str] = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return words


def _trial_file(out: Path, arm: str, seed: int) -> Path:
    return out / "trials" / f"{re.sub(r'[^A-Za-z0-9-]', '_', arm)}-{seed}.json"


def _write(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text)
