"""How a command ends: with one line that says what is wrong, and never with a stack trace."""

import argparse
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

__all__ = ["Parser", "Terminated", "end", "number", "path", "run"]

Number = TypeVar("Number", int, float)


class Parser(argparse.ArgumentParser):
    """A parser of arguments that says what is wrong in one line, without its usage."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        sys.exit(end(f"{self.prog}: {message} (--help lists the arguments)", 2))


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


class Terminated(BaseException):
    """A signal to end was received. Not an ``Exception``, so that only ``run`` catches it; temporary files are deleted on its way there."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


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
        with _signals_raise():
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


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP raise ``Terminated``, where nothing else is made of them: ``nohup`` has SIGHUP ignored."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        numbers = []
    taken = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(number)
