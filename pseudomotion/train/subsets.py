"""The three halves of a list of videos by frame difference (the paper's Table 13): ``python -m pseudomotion.train.subsets LIST OUT``.

Writes ``large.csv``, ``medium.csv`` and ``small.csv`` to OUT, lists in VideoMAE's format with absolute paths, to pre-train on: the half
whose frames differ most, the one from the 25th to the 75th percentile, and the half whose frames differ least. Each video is decoded once.
"""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from pseudomotion import command

PROG = "python -m pseudomotion.train.subsets"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = command.Parser(prog=PROG, description="Split a list of videos by frame difference into three halves, which overlap.")
    parser.add_argument("list", type=command.path, metavar="LIST", help='list of videos, lines of "path label"')
    parser.add_argument("out", type=command.path, metavar="OUT", help="folder to write large.csv, medium.csv and small.csv to")
    count = command.number(int, at_least=1)
    parser.add_argument("--stride", type=count, default=1, metavar="N", help="frames from one to the one it is compared with (default: 1)")
    options = parser.parse_args(arguments)
    return command.run(PROG, lambda: _write(options.list, options.out, options.stride))


def _write(list_file: Path, out: Path, stride: int) -> None:
    """Write the three lists, and say how many videos they have, how these differ, and what was skipped."""
    with command.loading(PROG):
        from pseudomotion.labels.differences import split_by_difference
        from pseudomotion.video.list_file import parse_line, write_list
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what was skipped: it is said below
        halves = split_by_difference(list_file, stride=stride)
    out.mkdir(parents=True, exist_ok=True)
    for name, lines in (("large", halves.top), ("medium", halves.middle), ("small", halves.bottom)):
        videos = [parse_line(line) for line in lines]
        write_list(out / f"{name}.csv", [((list_file.parent / path).absolute(), label) for path, label in videos])
        differences = [halves.differences[line] for line in lines]
        print(f"{name}.csv: {len(lines)} videos, frame difference {min(differences):.4f} to {max(differences):.4f}")  # noqa: T201
    print(f"{len(halves.differences)} videos read, {len(halves.skipped)} skipped")  # noqa: T201
    for reason in halves.skipped.values():
        print(f"skipped {reason}")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
