"""What ``pmg-validate`` found: a table with intervals in Markdown, and a page with curves, arms, settings and examples of clips."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from pseudomotion.files import whole_file
from pseudomotion.train.validate.direction import CHANCE
from pseudomotion.train.validate.options import STAGES

SHOWN_LOSSES = 20  # steps at either end of pre-training whose mean masked loss the table shows
RESAMPLES = 2000  # of the bootstrap
SMOOTHED = 25  # steps that a point of the loss curve is the mean of

Row = dict[str, Any]


def make_table(found: Row) -> str:
    """Test accuracy in Markdown: the mean over the seeds, and the difference from the first arm with its 95 % interval.

    ``found`` is what stands in ``validate.json``. Arms are paired by the seeds that both have, and by test clip. An arm without an answer
    yet has a dash.
    """
    head, *rows = [f"| {' | '.join(cells)} |" for cells in _cells(found)]
    return "\n".join([head, f"|{'---|' * (2 + len(found['films']))}", *rows, "", _caption(found)])


def _cells(found: Row) -> list[list[str]]:
    """The rows of the table, the head first."""
    arms = _by_arm(found)
    first, *_ = arms
    rows = [["pre-training", "masked loss", *found["films"]]]
    for arm, trials in arms.items():
        cells = [arm, _fall(trials)]
        for question in found["films"]:
            right = _right(trials, question)
            cell = f"{100 * np.mean(list(right.values())):.1f}" if right else "-"
            if compared := compare(found, arm, first, question) if arm != first else None:
                difference, low, high = (100 * value for value in compared)
                cell += f" ({difference:+.1f} [{low:+.1f}, {high:+.1f}])"
            cells.append(cell)
        rows.append(cells)
    return rows


def compare(found: Row, arm: str, other: str, question: str) -> tuple[float, float, float] | None:
    """How much more often an arm is right than another one, with the 95 % interval; None where they have no seed in common."""
    arms = _by_arm(found)
    right, base = _right(arms[arm], question), _right(arms[other], question)
    if not (seeds := sorted(right.keys() & base.keys())):
        return None
    ours, theirs = (np.stack([each[seed] for seed in seeds]) for each in (right, base))
    return float(ours.mean() - theirs.mean()), *paired_interval(ours, theirs, found["films"][question])


def paired_interval(right: Bool[np.ndarray, "s n"], base: Bool[np.ndarray, "s n"], films: Sequence[str]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the difference in accuracy between two arms, paired by seed and clip; films are drawn whole."""
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


def make_page(path: Path, found: Row) -> None:
    """Write the report: one HTML file, which needs nothing else, with the pictures of clips in ``examples`` beside it."""
    examples = [
        f"<figure>{_image(picture.read_bytes())}<figcaption>{html.escape(picture.stem)}</figcaption></figure>"
        for picture in sorted((path.parent / "examples").glob("*-0.png"))
    ]
    arms: list[Sequence[object]] = [("arm", "options of pmg-pretrain", "trials")]
    for arm, trials in _by_arm(found).items():
        words = trials[0]["options"]
        arms.append((arm, "none" if words is None else " ".join(words) or "(the options that all share)", len(trials)))
    values = {**found["settings"], "steps": ", ".join(map(str, found["steps"])), **found["machine"], **found["versions"]}
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>pmg-validate</title><style>",
        "body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}",
        "table{border-collapse:collapse;margin:1rem 0}",
        "td,th{border:1px solid #ccc;padding:.3rem .6rem;text-align:left}th{background:#f3f3f3}img{max-width:100%}figure{margin:1rem 0}",
        "</style></head><body><h1>pmg-validate</h1>",
        f"<!-- {html.escape(found['made_by'])} -->",
        "<h2>Test accuracy</h2>",
        _html_table(_cells(found)),
        f"<p>{html.escape(_caption(found))}</p>",
        _image(_draw(found)),
        "<h2>Arms</h2>",
        _html_table(arms),
        "<h2>Clips that were pre-trained on</h2>" if examples else "",
        *examples,
        "<h2>Settings</h2>",
        _html_table([("name", "value"), *values.items()]),
        "</body></html>",
    ]
    with whole_file(path) as file:
        file.write_text("\n".join(parts), encoding="utf-8")


def _by_arm(found: Row) -> dict[str, list[Row]]:
    arms: dict[str, list[Row]] = {}
    for trial in found["trials"]:
        arms.setdefault(trial["arm"], []).append(trial)
    return arms


def _right(trials: Sequence[Row], question: str) -> dict[int, Bool[np.ndarray, " n"]]:
    """By seed, which answers were right."""
    return {trial["seed"]: np.array(list(trial["answers"][question])) == "1" for trial in trials if question in trial["answers"]}


def _caption(found: Row) -> str:
    counts = {f"{len(films)} ({len(set(films))} films)" for films in found["films"].values()}
    seeds = 1 + max(trial["seed"] for trial in found["trials"])
    stages = zip(("pre-training", *STAGES), found["steps"], strict=True)
    steps = ", ".join(f"{number} of {stage}" for stage, number in stages if stage == "pre-training" or stage in found["films"])
    chance = ", ".join(f"{100 * CHANCE[question]:.0f} for {question}" for question in found["films"] if question in CHANCE)
    return (
        f"Top-1 accuracy in percent, mean over up to {seeds} seeds; test clips: {', '.join(sorted(counts))}. In parentheses the difference "
        f"from {found['trials'][0]['arm']}, with its paired bootstrap interval (95 %, {RESAMPLES} resamples of seeds and films; with two "
        f"or three seeds it is too narrow). {f'Chance: {chance}. ' if chance else ''}Steps: {steps}; "
        f"{found['settings']['batch_size']} clips each. Masked loss: just under 1 for guessing the mean of every patch."
    )


def _fall(trials: Sequence[Row]) -> str:
    """The masked loss at the beginning and at the end, mean over the seeds."""
    curves = [trial["pretrain_loss"] for trial in trials if "pretrain_loss" in trial]
    if not curves:
        return "none"
    first, last = (np.mean([np.mean(curve[part]) for curve in curves]) for part in (slice(SHOWN_LOSSES), slice(-SHOWN_LOSSES, None)))
    return f"{first:.3f} → {last:.3f}"


def _draw(found: Row) -> bytes:
    """The masked loss of every arm, and the accuracy of every question, as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms, questions = _by_arm(found), list(found["films"])
    figure = Figure(figsize=(11, 3.6 + 0.3 * len(arms)), layout="constrained")
    loss, accuracy = figure.subplots(1, 2, width_ratios=(2, 3))
    for k, (arm, trials) in enumerate(arms.items()):
        color = f"C{k % 10}"
        for curve in (np.array(trial["pretrain_loss"]) for trial in trials if "pretrain_loss" in trial):
            width = min(SMOOTHED, -(-len(curve) // 4))
            loss.plot(np.convolve(curve, np.ones(width) / width, "valid"), color=color, linewidth=1)
        for q, question in enumerate(questions):
            scores = [100 * right.mean() for right in _right(trials, question).values()]
            place = q + 0.7 * ((k + 0.5) / len(arms) - 0.5)
            accuracy.plot([place] * len(scores), scores, ".", color=color, label=arm if q == 0 else None)
            if scores:
                accuracy.plot(place, np.mean(scores), "_", color=color, markersize=9)
    for q, question in enumerate(questions):
        if question in CHANCE:
            accuracy.plot([q - 0.4, q + 0.4], [100 * CHANCE[question]] * 2, color="gray", linewidth=0.8, linestyle=":")
    loss.set(xlabel="step of pre-training", ylabel="masked loss")
    accuracy.set(ylabel="top-1 accuracy in percent", xticks=range(len(questions)))
    accuracy.set_xticklabels(questions, rotation=30, ha="right", fontsize=8)
    figure.legend(*accuracy.get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8)
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def _image(png: bytes) -> str:
    return f"<img alt='' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"


def _html_table(rows: Sequence[Sequence[object]]) -> str:
    """A table whose first row is its head."""
    tags = ["th", *["td"] * (len(rows) - 1)]
    cells = ("".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in row) for tag, row in zip(tags, rows, strict=True))
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
