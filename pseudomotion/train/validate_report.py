"""What ``pmg-validate`` found, as a table and as plots."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pseudomotion.files import whole_file
from pseudomotion.train.probe import CLASSES

STAGES = {"fine_tune": "fine-tuning", "low_shot": "low-shot", "probe": "frozen encoder"}
CHANCE = 100 / len(CLASSES)

Row = dict[str, Any]


def arms(found: Row) -> dict[str, list[Row]]:
    """The trials of every arm, in order."""
    grouped: dict[str, list[Row]] = {}
    for trial in found["trials"]:
        grouped.setdefault(trial["title"], []).append(trial)
    return grouped


def table(found: Row) -> str:
    """Test accuracy of every arm in Markdown: mean over the seeds, and their standard deviation."""
    steps, setting = found["steps"], found["setting"]
    shots = f"{setting['shots']} clips per class"
    lines = [
        f"| pre-training | masked loss, first to last | fine-tuning | low-shot ({shots}) | frozen encoder, {found['probe']} probe |",
        "|---|---|---|---|---|",
    ]
    for title, trials in arms(found).items():
        cells = [_spread([100 * trial[stage] for trial in trials]) for stage in STAGES]
        lines.append(f"| {title} | {_fall(trials)} | {' | '.join(cells)} |")
    seeds = len(next(iter(arms(found).values())))
    lines += [
        "",
        f"Top-1 accuracy in percent on {setting['test_clips']} test clips of {len(CLASSES)} classes (chance is {CHANCE:.1f}), "
        f"mean ± standard deviation over {seeds} seeds; {steps['pretrain']} steps of pre-training, {steps['fine_tune']} of fine-tuning, "
        f"{steps['low_shot']} of low-shot training, {steps['probe']} of the probe, {setting['batch_size']} clips each. "
        f"{found['device']['name']}, {found['preparation_seconds'] / 60 + sum(t['seconds'] for t in found['trials']) / 60:.1f} minutes.",
    ]
    return "\n".join(lines)


def plot_accuracy(found: Row, path: Path) -> None:
    """Bars of test accuracy with their standard deviation, a dot for every seed."""
    figure, axes = _figure(1, len(STAGES), width=4.2)
    grouped = arms(found)
    for axis, (stage, name) in zip(axes, STAGES.items(), strict=True):
        for place, trials in enumerate(grouped.values()):
            values = [100 * trial[stage] for trial in trials]
            axis.bar(place, statistics.mean(values), yerr=_deviation(values), capsize=5, color=f"C{place}", alpha=0.7)
            axis.plot([place] * len(values), values, "k.", markersize=5)
        axis.axhline(CHANCE, color="grey", linestyle="--", linewidth=1)
        axis.set(title=name, ylim=(0, 100), ylabel="test accuracy, %")
        axis.set_xticks(range(len(grouped)), list(grouped), rotation=25, ha="right")
    _save(figure, path)


def plot_losses(found: Row, path: Path) -> None:
    """Loss curves of every trial: of pre-training, to see whether it fell at all, and of fine-tuning."""
    stages = {"pretrain": "masked loss of pre-training", "fine_tune": "loss of fine-tuning", "low_shot": "loss of low-shot training"}
    figure, axes = _figure(1, len(stages), width=4.8)
    for axis, (stage, name) in zip(axes, stages.items(), strict=True):
        for place, (title, trials) in enumerate(arms(found).items()):
            for trial in trials:
                if curve := trial.get(f"{stage}_loss"):
                    axis.plot(*zip(*curve, strict=True), color=f"C{place}", linewidth=1.2, label=None if trial["seed"] else title)
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    _save(figure, path)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {_deviation(values):.1f}"


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _fall(trials: Sequence[Row]) -> str:
    """The first and the last point of the masked loss, mean over the seeds."""
    curves = [trial["pretrain_loss"] for trial in trials if "pretrain_loss" in trial]
    if not curves:
        return "none"
    first, last = (statistics.mean(curve[end][1] for curve in curves) for end in (0, -1))
    return f"{first:.3f} → {last:.3f}"


def _figure(rows: int, columns: int, width: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, 4.2 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)[0]


def _save(figure: Any, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with whole_file(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
