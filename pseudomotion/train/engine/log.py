"""What a run writes down: numbers as JSON lines and for accelerate's trackers, and their curves."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from pseudomotion.files import whole_file

METRICS = "metrics.jsonl"
TRACKERS = tuple(map(str, LOGGER_TYPE_TO_CLASS))
POINTS = 2000  # of a curve, at most


def check_trackers(names: Sequence[str]) -> None:
    """Check that accelerate knows all of these (``ValueError``), and that their packages are installed (``ImportError``)."""
    installed = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"log_with must be of {', '.join(TRACKERS)}, got {name!r}")
        if name not in installed:
            raise ImportError(f"log_with = {name} needs the package {name.replace('_', '-')}, which is not installed")


class Log:
    """Numbers of a run, row by row, in ``folder/metrics.jsonl`` and the accelerator's trackers, which also get the options.

    Rows after ``step``, where the run goes on, are dropped.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, options: Mapping[str, Any], step: int = 0) -> None:
        self.accelerator = accelerator
        rows = [row for row in read_metrics(folder) if row["step"] <= step]
        with whole_file(folder / METRICS) as new:
            new.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self._file = open(folder / METRICS, "a")  # noqa: SIM115  it stays open as long as the run
        accelerator.init_trackers("pseudomotion", init_kwargs={"tensorboard": {"purge_step": step + 1}})
        plain = {name: value if isinstance(value, (bool, int, float, str)) else str(value) for name, value in options.items()}
        for tracker in accelerator.trackers:
            if tracker.name != "tensorboard":  # there they would be a run of their own
                tracker.store_init_configuration(plain)

    def write(self, row: dict[str, Any]) -> None:
        """Add a row; it has a "step"."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self.accelerator.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def close(self) -> None:
        """Write out what is left."""
        self._file.close()
        while self.accelerator.trackers:
            self.accelerator.trackers.pop().finish()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run, without a last line that was cut off when the run was killed."""
    if not (folder / METRICS).is_file():
        return []
    *whole, _ = (folder / METRICS).read_text().split("\n")
    return [json.loads(line) for line in whole]


def plot(rows: Sequence[dict[str, Any]], path: Path, names: Sequence[str] = ("loss",)) -> None:
    """Draw curves of a run over its steps, each number in a panel of its own if it has values; of a long run, evenly chosen rows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = {name: [(row["step"], row[name]) for row in rows if name in row] for name in names}
    drawn = {name: curve[:: -(-len(curve) // POINTS)] for name, curve in curves.items() if curve}
    if not drawn:
        return
    figure = Figure(figsize=(7, 3.5 * len(drawn)), layout="constrained")
    for axes, (name, curve) in zip(figure.subplots(len(drawn), squeeze=False)[:, 0], drawn.items(), strict=True):
        axes.plot(*zip(*curve, strict=True), linewidth=1.2)
        axes.set(xlabel="step", ylabel=name.replace("_", " "))
        axes.grid(alpha=0.3)
    with whole_file(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
