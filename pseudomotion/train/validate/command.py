"""The command: which trials are missing, how long they may take, and what is written."""

import copy
import dataclasses
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from pseudomotion.files import MADE_BY, whole_file
from pseudomotion.train.validate.options import CHANGEABLE, STAGES, ValidateOptions, name_of, words_of
from pseudomotion.train.validate.report import make_page, make_table
from pseudomotion.train.validate.trial import Data, Row, measure, pretrain_encoder

LEAST_STEPS = 10  # of a stage
PRETRAINING = "pre-training"
SETTINGS, RESULTS, TABLE, PAGE = "settings.json", "validate.json", "table.md", "report.html"


def run(options: ValidateOptions) -> None:
    """Run all trials that are not finished yet; write the results and the report, which are renewed after every trial.

    Raises:
        ValueError: if the folder holds trials of other settings.
        OSError: if a list cannot be read, or nothing can be written.

    """
    out = Path(options.out)
    settings = {name: value for name, value in dataclasses.asdict(options).items() if name not in CHANGEABLE}
    fixed = out / SETTINGS
    known = json.loads(fixed.read_text()) if fixed.is_file() else None
    if known is not None and (known["settings"] != settings or (options.budget is None and known["steps"] != options.steps)):
        changed = [name for name, value in settings.items() if known["settings"].get(name, value) != value] or ["steps"]
        raise ValueError(f"{out} holds trials of other settings ({', '.join(changed)}); choose another --out")
    data = Data(options)
    steps = known["steps"] if known else _affordable(data, options.budget) if options.budget else options.steps
    _write(fixed, {"made_by": MADE_BY, "settings": settings, "steps": steps})
    trials: list[Row] = []
    for seed in range(options.seeds):
        for arm in options.arms:
            trials.append(run_trial(data, arm, seed, steps))
            found = {
                "made_by": MADE_BY,
                "settings": settings,
                "steps": steps,
                "machine": {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
                "versions": {name: version(name) for name in ("torch", "transformers", "numpy")},
                **_collected(trials),
            }
            _write(out / RESULTS, found)
            with whole_file(out / TABLE) as file:
                file.write_text(make_table(found) + "\n")
            make_page(out / PAGE, found)
    print((out / TABLE).read_text())  # noqa: T201
    print(f"{out}/{PAGE}: the report; {RESULTS}, {TABLE}: its numbers")  # noqa: T201


def run_trial(data: Data, arm: str, seed: int, steps: Sequence[int]) -> Row:
    """One arm and seed: what is there already is read back, what is missing is done.

    Returns:
        The arm and its options, the masked loss of each step, the answers to each question, and how many seconds each part took.

    """
    out = Path(data.options.out)
    name = f"{re.sub(r'[^A-Za-z0-9-]', '_', name_of(arm))}-{seed}"
    path, encoder, words = out / "trials" / f"{name}.json", out / "encoders" / name, words_of(arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    row: Row = {"arm": name_of(arm), "options": words, "seed": seed, "seconds": {}, "answers": {}}
    if path.is_file():
        row = json.loads(path.read_text())
        if row["options"] != words:
            raise ValueError(f"{out} holds an arm {row['arm']} of other options ({row['options']}); name this one otherwise")
    parts = dict(zip((PRETRAINING, *STAGES), steps, strict=True))
    for part in (*[PRETRAINING] * (words is not None), *data.options.probe):
        if part in row["seconds"]:
            continue
        print(f"{name}: {part}", file=sys.stderr)  # noqa: T201
        begin = time.perf_counter()
        if part == PRETRAINING:
            row["pretrain_loss"] = pretrain_encoder(data, arm, seed, steps[0], encoder, out / "examples" / f"{name}.png")
        else:
            init = None if words is None else encoder
            row["answers"] |= measure(data, part, init, seed, parts.get(part, 0), motionless=arm == "one-frame")
        row["seconds"][part] = round(time.perf_counter() - begin, 1)
        _write(path, row)
    return row


def _collected(trials: Sequence[Row]) -> Row:
    """The trials, and the films of each question's test clips, which are the same for all."""
    films: dict[str, list[str]] = {}
    for trial in trials:
        for question, answers in trial["answers"].items():
            if films.setdefault(question, answers["films"]) != answers["films"]:
                raise ValueError(f"trials were tested on different clips for {question!r}; choose another --out")
    rows = [trial | {"answers": {question: answers["right"] for question, answers in trial["answers"].items()}} for trial in trials]
    return {"films": films, "trials": rows}


def _affordable(data: Data, text: str) -> list[int]:
    """The steps, scaled so that all trials take about the budget: by two short trials, after one that warms up."""
    options = data.options
    budget = float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]
    arm = next((arm for arm in options.arms if words_of(arm) is not None), options.arms[0])
    begin = time.perf_counter()
    _, few, many = ((steps, _timed(data, arm, steps)) for steps in (LEAST_STEPS, LEAST_STEPS, 3 * LEAST_STEPS))  # the first one compiles
    spent = time.perf_counter() - begin
    trials = len(options.arms) * options.seeds
    steps, needed = scaled_steps(options.steps, (budget - spent) / trials, few, many)
    if min(steps) < LEAST_STEPS:
        raise ValueError(
            f"--budget {text} leaves fewer than {LEAST_STEPS} steps of a stage for {trials} trials, it takes at least "
            f"{(spent + trials * needed) / 60 + 0.05:.1f}m; or ask for fewer --arms, --seeds or kinds of --probe"
        )
    return steps


def scaled_steps(
    steps: Sequence[int], seconds: float, few: tuple[int, Mapping[str, float]], many: tuple[int, Mapping[str, float]]
) -> tuple[list[int], float]:
    """Steps in the same proportions that a trial does in some seconds, and the seconds that the least steps take.

    ``few`` and ``many`` are the steps of each part of a short trial and of a longer one, and the seconds that each part took.
    """
    fixed = per_share = 0.0
    lengths = dict(zip((PRETRAINING, *STAGES), steps, strict=True))
    for part, short in few[1].items():
        step = max(0.0, many[1][part] - short) / (many[0] - few[0]) if part in lengths else 0.0
        fixed += max(0.0, short - few[0] * step)
        per_share += step * lengths.get(part, 0)
    share = (seconds - fixed) / max(per_share, 1e-6)
    return [round(count * share) for count in steps], fixed + per_share * LEAST_STEPS / min(steps)


def _timed(data: Data, arm: str, steps: int) -> Mapping[str, float]:
    """The seconds that each part of a trial takes, whose files are deleted."""
    with tempfile.TemporaryDirectory(prefix=".running-", dir=data.options.out) as folder:
        elsewhere = copy.copy(data)
        elsewhere.options = dataclasses.replace(data.options, out=folder)
        return dict(run_trial(elsewhere, arm, 0, [steps] * 4)["seconds"])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)", info.read_text(), re.MULTILINE) if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def _write(path: Path, values: Row) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n")
