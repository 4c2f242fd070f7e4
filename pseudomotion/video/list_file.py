"""List files: the videos of a dataset and the class of each, in VideoMAE's format and its relatives."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from pseudomotion.files import check_output, whole_file

__all__ = ["SUFFIXES", "format_list", "parse_line", "read_lines", "read_list", "write_list", "write_lists"]

SUFFIXES = (".avi", ".mp4", ".webm", ".mkv", ".mov")

_LINE = re.compile(r'(?:"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>[^"]+?))(?:\s*[\s,;]\s*(?P<label>-?\d+))?\s*')
_SUFFIX = "|".join(map(re.escape, SUFFIXES))
_NAMED = re.compile(rf'(?:"(?:[^"]|"")+"|.+(?:{_SUFFIX}))\s*[\s,;]\s*(?P<label>.*(?<!\s))', re.IGNORECASE)


def read_list(path: str | Path) -> list[tuple[Path, int]]:
    """The videos of a list file, with their labels.

    One video per line: "path label", "path,label" or "path;label"; a path may stand in double quotes, with a quote inside it doubled. A
    missing label is -1; empty lines are skipped. Relative paths start from the list's folder.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is not UTF-8, a line cannot be read, or it lists nothing.

    """
    path = Path(path)
    videos = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            name, label = parse_line(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        videos.append((path.parent / name, label))
    if not videos:
        raise ValueError(f"{path} must list at least one video, it is empty")
    return videos


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, with or without a byte order mark.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is not UTF-8.

    """
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"cannot read {path}: it must be text in UTF-8 (byte {error.start} is not); save it again in that encoding"
        ) from error


def parse_line(line: str) -> tuple[str, int]:
    """The path and the label of a line, -1 if it has none.

    Raises:
        ValueError: if it cannot be read, or its label is not a number.

    """
    line = line.strip()
    match = _LINE.fullmatch(line)
    named = _NAMED.fullmatch(line)
    if named and not re.fullmatch(r"-?\d+", named["label"]) and not named["label"].lower().endswith(SUFFIXES):
        raise ValueError(f'must be "path label" with a number for the label, such as 0 for the first class, got label {named["label"]!r}')
    if not match:
        raise ValueError(f'must be "path label", got {line!r}')
    name: str = match["plain"] or match["quoted"].replace('""', '"')
    return name, int(match["label"] or -1)


def write_list(path: Path, videos: Iterable[tuple[Path, int]]) -> None:
    """Write "path label" lines, with quotes around a path that needs them; the file appears whole or not at all, and replaces an older one.

    Raises:
        OSError: if it cannot be written.
        ValueError: as ``format_list``.

    """
    _write(path, format_list(videos))


def write_lists(folder: Path, lists: Mapping[str, Iterable[tuple[Path, int]]], *, inputs: Iterable[Path] = (), force: bool = False) -> None:
    """Write several lists to a folder, which is made if missing. None is written unless all may be.

    Args:
        folder: of the lists.
        lists: videos and labels by the name of the file.
        inputs: files that were read, which are not replaced.
        force: replace lists that exist and are different. The format has no room for a mark, so that our own count as others' here.

    Raises:
        FileExistsError: if a list exists and is different.
        OSError: if a list cannot be written.
        ValueError: for a list that is an input, or a path that no list can hold.

    """
    texts = {folder / name: format_list(videos) for name, videos in lists.items()}
    changed = {path: text for path, text in texts.items() if not path.is_file() or path.read_bytes() != text.encode()}
    for path in changed:
        check_output(path, inputs=inputs, force=force, make_parents=True)
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in changed.items():
            _write(path, text)
    except BaseException:
        for parent in made:
            with suppress(OSError):  # it is not empty, or was not made
                parent.rmdir()
        raise


def format_list(videos: Iterable[tuple[Path, int]]) -> str:
    """The text of a list file.

    Raises:
        ValueError: for a path that UTF-8 or a single line cannot hold.

    """
    return "".join(f"{_quote(str(video))} {label}\n" for video, label in videos)


def _write(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(text.encode())


def _quote(name: str) -> str:
    if "\n" in name or "\r" in name or name != name.encode(errors="replace").decode():
        raise ValueError(f"a list file cannot hold the path {name!r}: it must be UTF-8 without line breaks; rename the file")
    return '"' + name.replace('"', '""') + '"' if re.search(r'[\s",;]', name) else name
