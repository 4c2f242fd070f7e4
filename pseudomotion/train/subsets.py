"""The three halves of a list of videos by frame difference (the paper's Table 13): ``python -m pseudomotion.train.subsets LIST OUT``.

Writes ``large.csv``, ``medium.csv`` and ``small.csv`` to OUT, lists in VideoMAE's format with absolute paths, to pre-train on: the half
whose frames differ most, the one from the 25th to the 75th percentile, and the half whose frames differ least. Each video is decoded once.
"""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from pseudomotion import command
from pseudomotion.video.list_file import parse_line, write_list

PROG = "python -m pseudomotion.train.subsets"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = command.Parser(prog=PROG, description="Split a list of videos by frame difference into three halves, which overlap.")
    parser.add_argument("list", type=command.path, metavar="LIST", help='list of videos, lines of "path label"')
    parser.add_argument("out", type=command.path, metavar="OUT", help="folder to write large.csv, medium.csv and small.csv to")
    parser.add_argument(
        "--stride",
        type=command.number(int, at_least=1),
        default=1,
        metavar="N",
        help="frames of the video from one frame to the one it is compared with (default: 1)",
    )
    options = parser.parse_args(arguments)

    def run() -> None:
        with command.loading(PROG):
            import pseudomotion.labels.differences  # noqa: F401  which imports torch
        print("\n".join(write_subsets(options.list, options.out, stride=options.stride)))  # noqa: T201

    return command.run(PROG, run)


def write_subsets(list_file: Path, out: Path, *, stride: int = 1) -> list[str]:
    """Write the three lists; returns what there is to say: counts, differences, and what was skipped.

    Args:
        list_file: as for ``split_by_difference``.
        out: folder of the new lists; it is made where there is none.
        stride: as for ``split_by_difference``.

    Raises:
        OSError: where the list cannot be read, or a file not be written.
        ValueError: where no two of its videos can be read.

    """
    from pseudomotion.labels.differences import split_by_difference

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what was skipped: it is said below
        halves = split_by_difference(list_file, stride=stride)
    out.mkdir(parents=True, exist_ok=True)
    messages = []
    for name, lines in (("large", halves.top), ("medium", halves.middle), ("small", halves.bottom)):
        videos = [parse_line(line) for line in lines]
        write_list(out / f"{name}.csv", [((list_file.parent / path).absolute(), label) for path, label in videos])
        differences = [halves.differences[line] for line in lines]
        messages.append(f"{name}.csv: {len(lines)} videos, frame difference {min(differences):.4f} to {max(differences):.4f}")
    skipped = [f"skipped {reason}" for reason in halves.skipped.values()]
    return [*messages, f"{len(halves.differences)} videos read, {len(skipped)} skipped", *skipped]


if __name__ == "__main__":
    sys.exit(main())
