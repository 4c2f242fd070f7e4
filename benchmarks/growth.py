"""Scaling of the cost per byte of clips with batch size, number of frames and frame size; ideally it is constant."""

import dataclasses
from pathlib import Path
from typing import Any

from benchmarks.work import Work

VARIABLES = {"batch": "B, clips", "num_frames": "T, frames", "side": "side of the frames, pixels"}
LEVEL = 1.2  # a line is level if its largest cost is at most this multiple of its smallest
FEWEST = 3  # smallest number of points for a line

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Line:
    """Costs of workloads that differ in one variable.

    Args:
        variable: a key of ``VARIABLES``.
        label: description of the rest of the workload.
        values: values of the variable, in ascending order.
        costs: nanoseconds per byte of clips, one per value.

    """

    variable: str
    label: str
    values: tuple[int, ...]
    costs: tuple[float, ...]

    @property
    def level_from(self) -> int | None:
        """Smallest value from which on the cost is level, over at least two points; None if there is none."""
        for start, value in enumerate(self.values[:-1]):
            if max(self.costs[start:]) <= LEVEL * min(self.costs[start:]):
                return value
        return None

    def verdict(self) -> str:
        """One phrase: where the line is level, and the ratio of its largest to its smallest cost."""
        spread = f"largest over smallest {max(self.costs) / min(self.costs):.2f}"
        if self.level_from is None:
            return f"not level ({spread})"
        return (
            f"level within {LEVEL - 1:.0%} "
            + ("throughout" if self.level_from == self.values[0] else f"from {self.level_from} on")
            + f" ({spread})"
        )


def lines(rows: list[Row]) -> list[Line]:
    """All lines in the rows of a results file: groups of PMG rows that differ in one variable only."""
    names = [field.name for field in dataclasses.fields(Work)]
    found = []
    for variable in VARIABLES:
        groups: dict[tuple[Any, ...], dict[int, Row]] = {}
        for row in rows:
            if row["kind"] == "pmg":
                key = tuple(str(row[name]) for name in names if name != variable)
                groups.setdefault(key, {})[row[variable]] = row
        for group in groups.values():
            if len(group) >= FEWEST:
                ordered = [group[value] for value in sorted(group)]
                costs = tuple(1e9 * row["seconds"] / row["output_bytes"] for row in ordered)
                found.append(Line(variable, _label(ordered[0], variable), tuple(sorted(group)), costs))
    return found


def _label(row: Row, variable: str) -> str:
    symbols = {"batch": "B", "num_frames": "T", "side": "side"}
    same = ", ".join(f"{symbol} = {row[name]}" for name, symbol in symbols.items() if name != variable)
    return f"{row['resampling']}, {row['renderer']}, {row['dtype_in']} → {row['dtype_out']}, {same}"


def draw(found: Row, path: Path) -> bool:
    """Write the plot of a results file. Returns False if there are no lines or matplotlib is not installed."""
    drawn = lines(found["rows"])
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not drawn:
        return False
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    panels = figure.subplots(1, len(VARIABLES), sharey=True)
    for panel, (variable, name) in zip(panels, VARIABLES.items(), strict=True):
        shown = [line for line in drawn if line.variable == variable]
        for line in shown:
            panel.plot(line.values, line.costs, "o-", label=line.label)
        values = sorted({value for line in shown for value in line.values})
        panel.set_xscale("log", base=2)
        panel.set_xticks(values, [str(value) for value in values])
        panel.minorticks_off()
        panel.set_xlabel(name)
        panel.grid(alpha=0.3)
        if shown:
            panel.legend(loc="upper center", fontsize=8)
    panels[0].set_ylim(0, 1.4 * max(cost for line in drawn for cost in line.costs))  # room for the legends
    panels[0].set_ylabel("ns per byte of clips")
    figure.suptitle(f"{found['device']['name']}: cost per byte of clips; ideally constant")
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    return True
