"""How a command starts and ends: it parses before it imports anything heavy, and reports an error in one line, never as a traceback."""

import argparse
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from pseudomotion import __version__

__all__ = ["Parser", "Terminated", "check_textures", "end", "install", "loading", "number", "path", "run"]

Number = TypeVar("Number", int, float)
Handler = Callable[[int, FrameType | None], NoReturn]


class Parser(argparse.ArgumentParser):
    """An argument parser with ``--version``, which reports an error in one line, without the usage."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.words: list[str] = []
        self.add_argument("--version", action="version", version=f"{self.prog} {__version__}", help="print the version and exit")

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        sys.exit(end(f"{self.prog}: {self.hinted(message)} (--help lists the arguments)", 2))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and remember the words for messages."""
        self.words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def hinted(self, message: str) -> str:
        """An error message with what may have been meant: another option, or a word that an option before it took as its own."""
        from difflib import get_close_matches

        if "are required" in message:
            greedy = [name for action in self._actions if action.nargs == "+" for name in action.option_strings if name in self.words]
            return f"{message}; write it before {greedy[-1]}, which takes all words that follow" if greedy else message
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        close = get_close_matches(unknown[1], self._option_string_actions, 1) if unknown else []
        return f"{message}; did you mean {close[0]}?" if close else message


def number(kind: Callable[[str], Number], *, at_least: float = -math.inf, at_most: float = math.inf) -> Callable[[str], Number]:
    """A ``type`` for a parser's argument: a number of a kind, ``int`` or ``float``, within a range."""
    limits = "" if at_least == -math.inf else f" of at least {at_least:g}" if at_most == math.inf else f" from {at_least:g} to {at_most:g}"

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not at_least <= value <= at_most:
            raise argparse.ArgumentTypeError(f"must be {'an integer' if kind is int else 'a number'}{limits}, got {text!r}")
        return value

    return parse


def path(text: str) -> Path:
    """A ``type`` for a parser's argument: a path, which may not be empty."""
    if not text:
        raise argparse.ArgumentTypeError('must be a path, got ""')
    return Path(text)


def check_textures(objects: str | None, textures: Sequence[str] | None) -> None:
    """Refuse ``--textures`` without ``--objects``, and cut-outs without ``--textures``, with a ``ValueError``."""
    if textures is not None and objects is None:
        raise ValueError("--textures are what objects show; they need --objects")
    if objects == "cutouts" and textures is None:
        raise ValueError("--objects cutouts need --textures, images with alpha")


class Terminated(BaseException):
    """A signal to end was received. Not an ``Exception``, so that only ``run`` catches it; temporary files are deleted on its way there."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Around the imports of what does a command's work: a signal ends the process at once, with one line.

    An exception is not enough here: raised within the initialization of a compiled library, it arrives as ``ImportError`` or not at all.
    Nothing has been written yet, so there is nothing to clean up.

    Args:
        name: of the command, which begins the line.

    """

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        text = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        os.write(2, f"{name}: {text}\n".encode())
        os._exit(128 + number)

    with _handled(dict.fromkeys([signal.SIGINT, *_TERMINATING], stop)):
        yield


def install(extra: str) -> str:
    """How to install an extra, for messages. The package is on no index, so it is installed from its repository."""
    return f"to install what it needs, run pip install '.[{extra}]' in the repository of pseudomotion"


def run(name: str, command: Callable[[], object]) -> int:
    """Run a command to its end.

    Args:
        name: of the command, which begins the line.
        command: what to run.

    Returns:
        The exit code: 0; 2 for what the user did wrong (``OSError``, ``ValueError``, ``ImportError``, ``MemoryError``); 128 + signal if
        stopped by SIGINT, SIGTERM or SIGHUP.

    """
    try:
        with _handled(dict.fromkeys(_TERMINATING, _stop)):
            command()
    except KeyboardInterrupt:
        return end(f"{name}: interrupted", 128 + signal.SIGINT)
    except Terminated as stopped:
        return end(f"{name}: {stopped}", 128 + stopped.number)
    except (OSError, ValueError, ImportError, MemoryError) as error:
        return end(f"{name}: {_explain(error)}", 2)
    return 0


def end(message: str, code: int) -> int:
    """Print a message to stderr, on one line; returns the code."""
    print(" ".join(message.splitlines()), file=sys.stderr)  # noqa: T201  a command talks to its terminal
    return code


def _explain(error: Exception) -> str:
    """The message of an error; that of the operating system in words, with the file first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(number)


_TERMINATING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_UNTOUCHED = (signal.SIG_DFL, signal.default_int_handler, _stop)


@contextmanager
def _handled(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Handle signals for a while, except those that somebody else handles or ignores: ``nohup`` has SIGHUP ignored."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        handlers = {}
    before = {number: signal.getsignal(number) for number in handlers}
    taken = [number for number in handlers if before[number] in _UNTOUCHED]
    for number in taken:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
