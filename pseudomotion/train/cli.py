"""The commands of the trainer, and how they end: with a line that says what is wrong, never with a stack trace."""

import signal
import sys
import warnings
from importlib import import_module


def pretrain() -> int:
    """``pmg-pretrain``."""
    return _run("pretrain")


def finetune() -> int:
    """``pmg-finetune``."""
    return _run("finetune")


def evaluate() -> int:
    """``pmg-evaluate``."""
    return _run("evaluate")


def validate() -> int:
    """``pmg-validate``."""
    return _run("validate")


def _run(command: str) -> int:
    name = f"pmg-{command}"
    warnings.formatwarning = lambda message, *_, **__: f"{name}: {message}\n"  # without the line of code that warned
    try:
        module = import_module(f"pseudomotion.train.{command}")
    except ImportError as error:
        return _end(f"{name}: {error}; pip install 'pseudomotion[train]' installs what it needs", 2)
    from pseudomotion.train.engine.loop import Stopped

    try:
        return int(module.main())
    except KeyboardInterrupt:
        return _end(f"{name}: interrupted", 128 + signal.SIGINT)
    except Stopped as stopped:
        return _end(f"{name}: {stopped}", 128 + stopped.number)
    except (OSError, ValueError, ImportError, MemoryError) as error:
        return _end(f"{name}: {error}", 2)


def _end(message: str, code: int) -> int:
    print(message, file=sys.stderr)  # noqa: T201  a command talks to its terminal
    return code
