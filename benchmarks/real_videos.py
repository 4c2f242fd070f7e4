"""What encoders know of real videos: tables with intervals and a figure, from the answers in ``benchmarks/results/validate-real-*.json``.

``python -m benchmarks.real_videos [FIGURE.png]``. docs/validation.md says how the answers were made and what they mean. To compare with an
arm of your own, put the trials of its ``validate.json`` beside these; they must have been tested on the same clips.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pseudomotion.train.validate.report import compare

RESULTS = Path(__file__).with_name("results")
MOTION = ("left/right", "left/right, one frame", "up/down", "growing/shrinking", "turning", "still/moving", "speed in 4 bins")
CLASSES = ("class, frozen", "linear", "low-shot", "fine-tuning")
SHADERS = "zoom-affine-shaders"
ON_FILMS = (
    ("zoom-affine", "identity"),
    ("pmg-aug", "videos"),
    ("zoom-affine", "videos"),
    ("zoom-affine", "pmg-aug"),
    ("videos", "scratch"),
    ("perspective-shaders", SHADERS),
    ("objects-still-shaders", "identity-shaders"),
    *((f"{count}-shader{'s' * (count > 1)}", SHADERS) for count in (1, 10, 100)),
    *((f"{SHADERS}, {steps} steps", SHADERS) for steps in (450, 900, 3600)),
    ("border-shaders, 5400 steps", "scratch"),
    ("videos, 5400 steps", "videos"),
    ("videos, 5400 steps", "zoom-affine"),
)
ON_SPLITS = (
    *((arm, "scratch") for arm in ("identity", "zoom-affine", SHADERS, "videos")),
    ("zoom-affine", "identity"),
    (SHADERS, "zoom-affine"),
    ("videos", "zoom-affine"),
)
SHOWN = {
    "scratch": "random weights",
    "identity": "film frames, still",
    "videos": "real clips",
    "pmg-aug": "real clips and pseudo-motion",
    "zoom-affine": "film frames, zoom + affine",
    "identity-shaders": "shaders, still",
    "yu2024-shaders": "shaders, 32 objects (yu2024)",
    "border-shaders": "shaders, zoom + affine, border padding",
    "half-shaders": "shaders, half the motion",
    SHADERS: "shaders, zoom + affine",
    "perspective-shaders": "shaders, perspective",
    "double-shaders": "shaders, twice the motion",
}

Row = dict[str, Any]


def read(*names: str) -> Row:
    """Results in one: what an earlier file and a later one have both is taken from the later."""
    files = [json.loads((RESULTS / f"{name}.json").read_text()) for name in names]
    trials = {(trial["arm"], trial["seed"]): trial for found in files for trial in found["trials"]}
    return {"films": {question: films for found in files for question, films in found["films"].items()}, "trials": list(trials.values())}


def accuracies(found: Row, arm: str, question: str) -> list[float]:
    """Percent right of each seed."""
    answers = [trial["answers"].get(question, "") for trial in found["trials"] if trial["arm"] == arm]
    return [100 * right.count("1") / len(right) for right in answers if right]


def table(found: Row) -> str:
    """Of each arm the masked loss, first and last, and percent right, mean over the seeds."""
    questions = [name for name in (*MOTION, *CLASSES) if name in found["films"]]
    lines = [f"| pre-training | seeds | masked loss | {' | '.join(questions)} |", f"|{'---|' * (3 + len(questions))}"]
    for arm in dict.fromkeys(trial["arm"] for trial in found["trials"]):
        trials = [trial for trial in found["trials"] if trial["arm"] == arm]
        curves = [trial["pretrain_loss_mean_of_20_steps"] for trial in trials if "pretrain_loss_mean_of_20_steps" in trial]
        loss = f"{np.mean([c[0] for c in curves]):.3f} → {np.mean([c[-1] for c in curves]):.3f}" if curves else "none"
        cells = [f"{np.mean(right):.1f}" if (right := accuracies(found, arm, question)) else "-" for question in questions]
        lines.append(f"| `{arm}` | {len(trials)} | {loss} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(found: Row, pairs: Iterable[tuple[str, str]], questions: Sequence[str]) -> str:
    """In points, with 95 % intervals; a dash where one of the arms has no answer."""
    lines = [f"| difference | {' | '.join(questions)} |", f"|{'---|' * (1 + len(questions))}"]
    arms = {trial["arm"] for trial in found["trials"]}
    for arm, other in pairs:
        if {arm, other} <= arms:
            compared = [compare(found, arm, other, question) for question in questions]
            cells = ["-" if each is None else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * x for x in each)) for each in compared]
            lines.append(f"| `{arm}` less `{other}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(films: Row, splits: Row, path: Path) -> None:
    """Left/right of the arms; against steps and images; and the classes over three splits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 0.9, 1))
    for k, arm in enumerate(reversed(SHOWN)):
        seeds = accuracies(films, arm, "left/right")
        compared = compare(films, arm, "scratch", "left/right")
        left.barh(k, np.mean(seeds), color="tab:orange" if compared and compared[1] > 0 else "lightgray")  # above random weights
        left.plot(seeds, [k] * len(seeds), "k.", markersize=4)
    left.set_yticks(range(len(SHOWN)), list(reversed(SHOWN.values())))
    left.set_xlim(40, 90)
    left.axvline(50, color="black", linewidth=0.8)
    left.set_title("left or right? (percent, frozen encoder)", fontsize=10)

    curves = {
        "steps, 16 clips each": {steps: f"{SHADERS}, {steps} steps" for steps in (450, 900, 3600)} | {1800: SHADERS},
        "shaders": {1: "1-shader", 10: "10-shaders", 100: "100-shaders", 600: SHADERS},
    }
    for (name, arms), color in zip(curves.items(), ("tab:orange", "tab:blue"), strict=True):
        numbers = sorted(arms)
        middle.plot(numbers, [np.mean(accuracies(films, arms[n], "left/right")) for n in numbers], "o-", color=color, label=name)
    middle.set_xscale("log")
    middle.set_ylim(50, 90)
    middle.set_title("left/right by length and by images", fontsize=10)
    middle.legend(fontsize=8)

    for k, arm in enumerate(("identity", "zoom-affine", SHADERS, "videos")):
        for j, question in enumerate(CLASSES):
            if (compared := compare(splits, arm, "scratch", question)) is not None:
                mean, low, high = (100 * x for x in compared)
                label = None if j else SHOWN[arm]
                right.errorbar(j + 0.15 * (k - 1.5), mean, [[mean - low], [high - mean]], fmt="o", color=f"C{k}", label=label, markersize=4)
    right.set_xticks(range(len(CLASSES)), CLASSES, fontsize=8)
    right.axhline(0, color="black", linewidth=0.8)
    right.set_title("21 actions, points above scratch", fontsize=10)
    right.set_ylim(-6, 18)
    right.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the tables and, where a file is named, draw the figure."""
    films, third, splits = read("validate-real-2", "validate-real-3"), read("validate-real-3"), read("validate-real-splits")
    parts = [
        "On the films of the first two runs:",
        table(third),
        differences(films, ON_FILMS, [MOTION[k] for k in (0, 2, 5, 6)]),
        differences(films, (("pmg-aug", "videos"), ("videos", "scratch"), ("pmg-aug", "scratch")), CLASSES),
        "Three splits by film:",
        table(splits),
        differences(splits, ON_SPLITS, [MOTION[k] for k in (0, 2, 5, 6)]),
        differences(splits, ON_SPLITS, CLASSES),
    ]
    print("\n\n".join(parts))
    if len(sys.argv) > 1:
        draw(films, splits, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
