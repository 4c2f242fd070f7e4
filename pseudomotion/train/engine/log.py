"""What a run leaves behind: numbers as JSON lines and for TensorBoard, and the curve of the loss."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pseudomotion.files import whole_file

METRICS = "metrics.jsonl"


class Records:
    """Numbers of a run, row by row; ``folder/metrics.jsonl`` and ``folder/tensorboard``.

    Args:
        folder: of the run.
        step: where the run goes on; rows after it are dropped.

    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / METRICS
        kept = [row for row in read_metrics(folder) if row["step"] <= step]
        with whole_file(self.path) as new:
            new.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self._file = open(self.path, "a")  # noqa: SIM115  it stays open as long as the run
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Add a row; it has a "step"."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)):
                self._board.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Write out what is left."""
        self._file.close()
        self._board.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run; a last line that was cut off when the run was killed is left out."""
    if not (folder / METRICS).is_file():
        return []
    *whole, _ = (folder / METRICS).read_text().split("\n")
    return [json.loads(line) for line in whole]


def plot(rows: Sequence[dict[str, Any]], path: Path, names: Sequence[str] = ("loss",)) -> None:
    """Curves of a run over its steps, as a picture.

    Args:
        rows: as ``read_metrics`` gives them.
        path: of the picture; it appears whole or not at all.
        names: of the numbers to draw, each in a panel of its own; those without a value are left out.

    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [name for name in names if any(name in row for row in rows)]
    if not drawn:
        return
    figure = Figure(figsize=(7, 3.5 * len(drawn)), layout="constrained")
    for axes, name in zip(figure.subplots(len(drawn), squeeze=False)[:, 0], drawn, strict=True):
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), linewidth=1.2)
        axes.set(xlabel="step", ylabel=name.replace("_", " "))
        axes.grid(alpha=0.3)
    with whole_file(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
