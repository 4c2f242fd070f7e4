"""Output files: the rule for what a command may replace, and writing that leaves a whole file or nothing.

The rule, the same for every command: an existing file is replaced only if a command of this package made it, or with ``--force``.
A file that a command makes carries ``MADE_BY`` near its beginning or its end (PNG text, video comment, a key in JSON, ...), and that is
how it is recognized.
"""

import os
import platform
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NoReturn

MADE_BY = "made by pseudomotion"

_SEARCHED = 1024 * 1024  # bytes at either end of a file in which MADE_BY is looked for
_ABANDONED = 24 * 3600  # seconds without a change, after which another machine's temporary file counts as left behind
_HOST = re.sub(r"[^\w-]", "_", platform.node())[:40]
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.pmg-(?P<host>[\w-]*)-(?P<pid>\d+)-\d+\.(?P<kind>new|old)(\.[^.]*)?")

_numbers = count()
_in_use: set[str] = set()  # names of the temporary files and folders that this process is writing


def check_input(path: str | Path) -> Path:
    """Refuse a name that is no file's.

    Returns:
        The path.

    Raises:
        ValueError: for an empty name.
        FileNotFoundError: if there is no such file.
        OSError: for a folder, or anything else that is no file.

    """
    if not str(path):
        raise ValueError('the input must be a file name, got ""')
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"cannot read {path}: there is no such file")
    if not path.is_file():
        raise OSError(f"cannot read {path}: it is {'a folder' if path.is_dir() else 'not a regular file'}")
    return path


def check_output(path: str | Path, *, inputs: Iterable[str | Path] = (), force: bool = False, make_parents: bool = False) -> Path:
    """Refuse an output file that could not, or must not, be written; to be called before any work begins.

    Args:
        path: the file to write.
        inputs: files that the command reads; the output may not be one of them, not even with ``force``.
        force: replace an existing file, whoever made it. A file that carries ``MADE_BY`` is replaced in any case.
        make_parents: missing folders above the file are going to be made.

    Returns:
        The path.

    Raises:
        FileNotFoundError: if its folder does not exist.
        FileExistsError: if a file is there that no command of this package made.
        OSError: if its folder cannot be written to, or there is something else than a file.
        ValueError: if the path is empty or an input.

    """
    if not str(path):
        raise ValueError('the output must be a file name, got ""')
    path = Path(path)
    folder = path.parent
    while make_parents and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        reason = f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}"
        raise FileNotFoundError(f"cannot write {path}: {reason}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write {path}: no permission to write to the folder {folder}")
    if not path.exists():
        return path
    if not path.is_file():
        raise OSError(f"cannot write {path}: it is {'a folder' if path.is_dir() else 'not a regular file'}")
    if any(os.path.samefile(path, each) for each in inputs if os.path.exists(each)):
        raise ValueError(f"cannot write {path}: it is the input; give the output another name")
    if not force and not made_by_us(path):
        raise FileExistsError(
            f"cannot write {path}: it exists, and no pmg command made it; choose another name, or replace it with --force"
        )
    return path


def made_by_us(path: Path) -> bool:
    """Whether a file carries ``MADE_BY`` in its first or last MiB."""
    with open(path, "rb") as file:
        head = file.read(_SEARCHED)
        file.seek(max(0, os.path.getsize(path) - _SEARCHED))
        return MADE_BY.encode() in head or MADE_BY.encode() in file.read(_SEARCHED)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write to a temporary file beside ``path``, which replaces it if the block succeeds, and is deleted if not.

    Temporary files of killed runs in that folder are deleted first.

    Raises:
        OSError: if the file cannot be written; the message names ``path``.

    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    with _temporary(path, path.suffix, name=path.stem[:40]) as temporary:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Fill a new folder beside ``path``, which replaces it if the block succeeds, and is deleted if not.

    Missing folders above it are made. Temporary folders of killed runs beside it are deleted first.

    Raises:
        OSError: if something in it cannot be written; the message names ``path``.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path, name=path.name) as temporary:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        old = temporary.with_suffix(".old")
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
        _remove(old)


def sweep(folder: Path) -> None:
    """Delete the temporary files and folders that killed runs of this package left in a folder.

    Those of a process that lives stay (on another machine: that changed within a day), and so does whatever has another kind of name.

    """
    try:
        entries = list(folder.iterdir())
    except PermissionError:  # a folder may be open to writing alone
        return
    for entry in entries:
        match = _TEMPORARY.fullmatch(entry.name)
        if not match or not _is_abandoned(entry, match["host"], int(match["pid"])):
            continue
        target = folder / match["name"]
        try:
            if match["kind"] == "old" and not target.exists():
                entry.rename(target)  # killed between two renames: the old folder is the only one
            else:
                _remove(entry)
        except OSError:  # another process sweeps too
            pass


@contextmanager
def _temporary(path: Path, suffix: str = "", *, name: str) -> Iterator[Path]:
    """A name of our own beside ``path``, free at first, and free again in the end."""
    sweep(path.parent)
    temporary = path.with_name(f".{name}.pmg-{_HOST}-{os.getpid()}-{next(_numbers)}.new{suffix}")
    _in_use.add(temporary.name)
    try:
        yield temporary
    except OSError as error:
        _raise_about(path, temporary, error)
    finally:
        _remove(temporary)
        _in_use.discard(temporary.name)


def _raise_about(path: Path, temporary: Path, error: OSError) -> NoReturn:
    """Raise an error about the output that names it, and one about another file as it is."""
    about_output = str(error.filename).startswith(str(temporary)) if error.filename else error.errno or type(error) is OSError
    if not about_output:
        raise error
    named = type(OSError(error.errno or 0, ""))(f"cannot write {path}: {error.strerror or error}")
    named.errno = error.errno
    raise named from error


def _is_abandoned(entry: Path, host: str, pid: int) -> bool:
    if host == _HOST and pid == os.getpid():
        return entry.name.replace(".old", ".new") not in _in_use
    if host == _HOST and os.name == "posix" and _has_ended(pid):
        return True
    try:
        changed = max(path.stat().st_mtime for path in (entry, *entry.rglob("*")))
    except OSError:  # it is gone, or being written
        return False
    return time.time() - changed > _ABANDONED


def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text()  # of Linux alone
    except ProcessLookupError:
        return True
    except OSError:  # it lives: another user's, or another system
        return False
    return stat.rpartition(") ")[2].startswith("Z")  # ended, but in a container perhaps nobody ever collects it


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(file: Path) -> None:
    """Wait until a file is on the disk."""
    with open(file, "r+b") as content:
        os.fsync(content.fileno())
