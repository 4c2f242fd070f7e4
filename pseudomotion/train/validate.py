"""``pmg-validate``: does pre-training on pseudo-motion help to recognise motion? Small models, in minutes, on the library's own probe."""

import dataclasses
import json
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm
from transformers.hf_argparser import HfArg

from pseudomotion.files import whole_file
from pseudomotion.train import validate_report
from pseudomotion.train.arms import ARMS, DEFAULT_ARMS
from pseudomotion.train.budget import SHARES, affordable, seconds
from pseudomotion.train.engine.options import parse
from pseudomotion.train.labelled import Data, make_data
from pseudomotion.train.presets import PRESETS, Setting
from pseudomotion.train.probe import CLASSES
from pseudomotion.train.recipes import flag
from pseudomotion.train.trials import run_trial

RESULTS = "validate.json"
TRIALS = "trials"
WORK_FILE = "work.json"

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ValidateOptions:
    """Options of ``pmg-validate``."""

    out: str = HfArg(help="folder to write to; a repeated command reads back the trials that are finished")
    arms: list[str] = HfArg(default_factory=lambda: list(DEFAULT_ARMS), help=f"ways to pre-train: {', '.join(ARMS)}")
    seeds: int = HfArg(default=2, help="trials of every arm, with weights and order of their own")
    probe: Literal["mean", "attentive"] = HfArg(default="attentive", help="how the tokens of the frozen encoder are pooled")
    budget: str = HfArg(default="8m", help="time for everything: a number and s, m or h; shared out over the trials")
    preset: str | None = HfArg(
        default=None, help="sizes of model and data; none: by the device that is there", metadata={"choices": tuple(PRESETS)}
    )
    images: int | None = HfArg(default=None, help="images to pre-train on; none: the preset's, as for the options below")
    train_clips: int | None = HfArg(default=None, help="labeled clips to train on")
    test_clips: int | None = HfArg(default=None, help="labeled clips to test on")
    shots: int | None = HfArg(default=None, help="clips per class in low-shot training")
    batch_size: int | None = HfArg(default=None, help="clips of a step")
    steps: list[int] | None = HfArg(
        default=None, help="of pre-training, fine-tuning, low-shot training and the probe; none: as many as the budget allows"
    )

    def __post_init__(self) -> None:
        """Check the values."""
        if unknown := sorted(set(self.arms) - set(ARMS)):
            raise ValueError(f"arms must be of {', '.join(ARMS)}, got {', '.join(unknown)}")
        if len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms must differ, got {', '.join(self.arms)}")
        least = {"seeds": 1, "images": 2, "train_clips": len(CLASSES), "test_clips": len(CLASSES), "shots": 1, "batch_size": 2}
        for name, bound in least.items():
            if (value := getattr(self, name)) is not None and value < bound:
                raise ValueError(f"{flag(name)} must be at least {bound}, got {value}")
        if self.steps is not None and (len(self.steps) != len(SHARES) or min(self.steps) < 1):
            raise ValueError(f"--steps must be {len(SHARES)} numbers of at least 1, got {self.steps}")
        seconds(self.budget)

    def setting(self, device: torch.device) -> Setting:
        """The preset, with what was asked for in its place."""
        preset = PRESETS[self.preset or ("gpu" if device.type == "cuda" else "cpu")]
        names = ("images", "train_clips", "test_clips", "shots", "batch_size")
        setting = dataclasses.replace(preset, **{name: value for name in names if (value := getattr(self, name)) is not None})
        if setting.shots * len(CLASSES) > setting.train_clips:
            raise ValueError(
                f"--shots must be at most {setting.train_clips // len(CLASSES)} for {setting.train_clips} clips, got {setting.shots}"
            )
        return setting


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    config = parse(
        ValidateOptions, "pmg-validate", "Compare ways to pre-train by what the encoder then learns of twelve kinds of motion.", arguments
    )
    found = validate(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    print(validate_report.table(found))  # noqa: T201
    print(f"{config.out}/{RESULTS}, table.md, accuracy.png, loss.png: the results")  # noqa: T201
    return 0


def validate(config: ValidateOptions, device: torch.device) -> Row:
    """Run all trials that are not finished yet, and write table, JSON and plots.

    Args:
        config: the options.
        device: to train on.

    Returns:
        What stands in ``validate.json``.

    Raises:
        ValueError: where the folder holds results of other sizes or steps.

    """
    out, setting = Path(config.out), config.setting(device)
    (out / TRIALS).mkdir(parents=True, exist_ok=True)
    fixed = {"setting": dataclasses.asdict(setting), "probe": config.probe, "device": device.type}
    work = _known_work(out, fixed, config)
    todo = [(name, seed) for seed in range(config.seeds) for name in config.arms if not _trial(out, name, seed).is_file()]
    if todo:
        begin = time.perf_counter()
        data = make_data(
            images=setting.images,
            train_clips=setting.train_clips,
            test_clips=setting.test_clips,
            num_frames=setting.num_frames,
            size=setting.frame_size,
            light=setting.light,
            device=device,
        )
        spent = time.perf_counter() - begin
        if work is None:
            work = fixed | {"steps": _steps(config, setting, data, spent), "preparation_seconds": round(spent, 1)}
            write(out / WORK_FILE, json.dumps(work, indent=1) + "\n")
        _run(todo, out, work["steps"], config.probe, setting, data)
    trials = [json.loads(_trial(out, name, seed).read_text()) for name in config.arms for seed in range(config.seeds)]
    found = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "command": _command(config),
        **(work or {}),
        "device": {"name": _device_name(device), "threads": torch.get_num_threads(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("torch", "transformers", "kornia")},
        "trials": trials,
    }
    write(out / RESULTS, _to_json(found))
    write(out / "table.md", validate_report.table(found) + "\n")
    validate_report.plot_accuracy(found, out / "accuracy.png")
    validate_report.plot_losses(found, out / "loss.png")
    return found


def _known_work(out: Path, fixed: Row, config: ValidateOptions) -> Row | None:
    """What an earlier command decided for the folder: sizes, and steps of every stage."""
    if not (out / WORK_FILE).is_file():
        return None
    work: Row = json.loads((out / WORK_FILE).read_text())
    steps = list(work["steps"].values())
    if {name: work[name] for name in fixed} != fixed or (config.steps and list(config.steps) != steps):
        raise ValueError(f"{out} holds results of other sizes, steps or devices; choose another --out")
    if not work["steps"]["pretrain"] and any(ARMS[name].transforms for name in config.arms):
        raise ValueError(f"{out} holds results of arms without pre-training, which was given no steps; choose another --out")
    return work


def _steps(config: ValidateOptions, setting: Setting, data: Data, spent: float) -> dict[str, int]:
    if config.steps:
        return dict(zip(SHARES, config.steps, strict=True))
    return affordable(seconds(config.budget) - spent, [ARMS[name] for name in config.arms], config.seeds, config.probe, setting, data)


def _run(todo: Sequence[tuple[str, int]], out: Path, steps: Row, pool: str, setting: Setting, data: Data) -> None:
    """Run trials, each written when it is finished."""
    total = sum(sum(steps.values()) - (0 if ARMS[name].transforms else steps["pretrain"]) for name, _ in todo)
    with tqdm(total=total, unit="step", mininterval=0.5 if sys.stderr.isatty() else 30) as bar:
        for name, seed in todo:

            def tell(stage: str, loss: float, trial: str = f"{ARMS[name].title}, seed {seed}") -> None:
                bar.set_postfix_str(f"{trial}: {stage.replace('_', ' ')} {loss:.3f}", refresh=False)
                bar.update()

            row = run_trial(ARMS[name], seed, steps, pool, setting, data, tell)
            write(_trial(out, name, seed), json.dumps({"arm": name, "title": ARMS[name].title, "seed": seed} | row) + "\n")


def write(path: Path, text: str) -> None:
    """A file that appears whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text)


def _to_json(found: Row) -> str:
    """JSON with a line for each trial."""
    head = json.dumps({name: value for name, value in found.items() if name != "trials"}, indent=1).removesuffix("\n}")
    trials = ",\n  ".join(json.dumps(trial) for trial in found["trials"])
    return f'{head},\n "trials": [\n  {trials}\n ]\n}}\n'


def _trial(out: Path, name: str, seed: int) -> Path:
    return out / TRIALS / f"{name}-{seed}.json"


def _command(config: ValidateOptions) -> str:
    """The command line that asks for the same again."""
    words = ["pmg-validate"]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if value != default or field.name == "budget":
            words += [flag(field.name), *(map(str, value) if isinstance(value, list) else [str(value)])]
    return " ".join(words)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE) if Path("/proc/cpuinfo").exists() else None
    return found[1] if found else platform.machine()
