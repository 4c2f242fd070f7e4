"""Write measurements to a results file, and all results files to the tables and plots of the documentation."""

import json
import os
import platform
import re
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks import growth
from pseudomotion import TRANSFORMS

RESULTS = Path(__file__).parent / "results"
TABLES = RESULTS / "tables.md"  # docs/benchmarks.md includes it
PLOTS = Path(__file__).parents[1] / "docs" / "images"
PACKAGES = (
    "torch",
    "triton",
    "llvmlite",
    "kornia",
    "kornia_rs",
    "opencv-python-headless",
    "torchvision",
    "triton-augment",
    "fuse-augmentations",
    "transformers",
)

Row = dict[str, Any]


def device_facts(device: torch.device) -> Row:
    """Description of the device that was measured."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30),
            "multiprocessors": properties.multi_processor_count,
            "l2_mib": properties.L2_cache_size / 2**20,
        }
    return {"name": _processor(), "threads": torch.get_num_threads(), "cores": os.cpu_count()}


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def results(measurements: list[Row], not_measured: dict[str, str], device: torch.device, command: str, extra: Row) -> Row:
    """All results of one run.

    Args:
        measurements: the "benchmarks" entry of pytest-benchmark's JSON file.
        not_measured: rows that were skipped, with reasons.
        device: the device that was measured.
        command: the command that was run.
        extra: results other than times.

    """
    seconds = {b["extra_info"]["kind"]: b["stats"]["min"] for b in measurements if b["extra_info"]["kind"] in ("fill", "copy")}
    floor_bytes = next(b["extra_info"]["output_bytes"] for b in measurements if b["extra_info"]["kind"] == "fill")
    rates = {kind: floor_bytes / value for kind, value in seconds.items()}
    rows = [_row(b, rates) for b in measurements if b["extra_info"]["kind"] in ("pmg", "plan", "peer")]
    return {
        "device": device_facts(device),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "command": command,
        "versions": {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES},
        "fill_bytes_per_second": rates["fill"],
        "copy_bytes_per_second": rates["copy"],
        "rows": rows,
        "not_measured": not_measured,
    } | extra


def _row(measurement: Row, rates: dict[str, float]) -> Row:
    """One measurement. Its speed is that of the fastest round, because other load on the machine only ever adds time."""
    info, stats = measurement["extra_info"], measurement["stats"]
    return info | {
        "seconds": stats["min"],
        "median_seconds": stats["median"],
        "rounds": stats["rounds"],
        "clips_per_second": info["batch"] / stats["min"],
        "share_of_write_floor": info["output_bytes"] / rates["fill"] / stats["min"],
        "share_of_copy_rate": info["output_bytes"] / rates["copy"] / stats["min"],
    }


def write(found: Row) -> Path:
    """Write a run's results, then the tables and plots of all results. Returns the path of the results file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / (re.sub(r"[^a-z0-9]+", "-", found["device"]["name"].lower()).strip("-") + ".json")
    path.write_text(json.dumps(found, indent=1) + "\n")
    redraw()
    return path


def redraw() -> None:
    """Write the tables and plots of all results files."""
    sections = []
    for file in sorted(RESULTS.glob("*.json")):
        found, plot = json.loads(file.read_text()), PLOTS / f"growth-{file.stem}.png"
        if "rows" not in found:  # a result of pmg-validate
            continue
        sections.append(_section(found, plot if growth.draw(found, plot) else None))
    TABLES.write_text("\n\n".join(sections) + "\n")


def _section(found: Row, plot: Path | None) -> str:
    """One device's Markdown tables, with its scaling plot."""
    facts = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in found["device"].items() if key != "name")
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items() if number)
    rates = {kind: found[f"{kind}_bytes_per_second"] / 1e9 for kind in ("fill", "copy")}
    ours = [row for row in found["rows"] if row["kind"] == "pmg"]
    parts = [
        f"## {found['device']['name']}",
        f"{facts}. {versions}. {found['date']}, `{found['command']}`.\n"
        f"Write floor {rates['fill']:.2f} GB/s, copy {rates['copy']:.2f} GB/s (bytes of clips per second), measured in the same run.",
        _table(
            ["PMG", "B", "T", "side", "in → out", "ms a batch", "clips/s", "of write floor", "of copy rate"],
            [[_name(row), *_shape(row), *_speed(row)] for row in ours],
        ),
        _table(
            ["plans, on the host", "B", "ms a batch", "clips/s"],
            [[_plan(row), str(row["batch"]), *_speed(row)[:2]] for row in found["rows"] if row["kind"] == "plan"],
        ),
        _table(
            ["library, on the affine recursion", "how", "ms a batch", "clips/s", "of write floor", "of copy rate", "PMG is"],
            [_peer(row) for row in found["rows"] if row["kind"] == "peer"]
            + [[name, f"not measured: {reason}", *[""] * 5] for name, reason in found["not_measured"].items()],
        ),
    ]
    if drawn := growth.lines(found["rows"]):
        parts += [f"![Cost per byte over B, T and side](images/{plot.name})"] if plot else []
        verdicts = [[growth.VARIABLES[line.variable], line.label, line.verdict()] for line in drawn]
        parts.append(_table(["cost per byte over", "work", "is"], verdicts))
    for key, title in (("on_gpu", "on the GPU"), ("on_cpu", "the fused CPU renderer")):
        parts += [_table([title, "figure"], [[name, value] for name, value in found[key].items()])] if key in found else []
    return "\n\n".join(parts)


def _name(row: Row) -> str:
    finished = ", mixup, normalize" if row["finished"] else ""
    planned = ", planned" if row["planned"] else ""
    return f"{' + '.join(row['transforms'])}{finished}, {row['resampling']}, {row['renderer']}{planned}"


def _plan(row: Row) -> str:
    names = "all transforms" if len(row["transforms"]) == len(TRANSFORMS) else " + ".join(row["transforms"])
    return f"{names}, {row['resampling']}"


def _shape(row: Row) -> list[str]:
    return [str(row["batch"]), str(row["num_frames"]), str(row["side"]), f"{row['dtype_in']} → {row['dtype_out']}"]


def _speed(row: Row) -> list[str]:
    shares = [f"{100 * row[share]:.1f} %" for share in ("share_of_write_floor", "share_of_copy_rate")]
    return [f"{1000 * row['seconds']:.1f}", f"{row['clips_per_second']:.4g}", *shares]


def _peer(row: Row) -> list[str]:
    """A peer's row, with PMG's relative speed on the same workload, measured in alternating rounds."""
    times = row["seconds"] / row["ours_seconds"]
    verdict = f"{times:.2f} times as fast ({row['like']})"
    return [row["peer"], row["note"], *_speed(row), verdict if times >= 1 else f"**slower**: {verdict}"]


def _table(head: list[str], body: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body])
