"""List files: which videos, and the class of each, in VideoMAE's format and its relatives."""

import re
from collections.abc import Iterable
from pathlib import Path

from pseudomotion.files import whole_file

LINE = re.compile(r'(?:"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>[^"]+?))(?:\s*[\s,;]\s*(?P<label>-?\d+))?\s*')


def read_list(path: str | Path) -> list[tuple[Path, int]]:
    """The videos of a list file, with their labels.

    One video a line: "path label", "path,label" or "path;label"; a path with odd characters may stand in double quotes, a quote within
    twice. The label may be left out and is -1 then; empty lines are passed over. Paths are relative to the list's folder.

    Raises:
        OSError: where there is no such file.
        ValueError: where a line cannot be read, or there is none.

    """
    path = Path(path)
    videos = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not (line := line.strip()):
            continue
        try:
            name, label = parse_line(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        videos.append((path.parent / name, label))
    if not videos:
        raise ValueError(f"{path} must list at least one video, it is empty")
    return videos


def parse_line(line: str) -> tuple[str, int]:
    """The path and the label on a line, -1 where there is none.

    Raises:
        ValueError: where it cannot be read.

    """
    match = LINE.fullmatch(line.strip())
    if not match:
        raise ValueError(f'must be "path label", got {line!r}')
    name: str = match["plain"] or match["quoted"].replace('""', '"')
    return name, int(match["label"] or -1)


def write_list(path: Path, videos: Iterable[tuple[Path, int]]) -> None:
    """Write "path label" lines, paths in quotes where they need them; the file appears whole or not at all."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for video, label in videos:
            name = str(video)
            if re.search(r'[\s",;]', name):
                name = '"' + name.replace('"', '""') + '"'
            file.write(f"{name} {label}\n")
