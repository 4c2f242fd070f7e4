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
        print(f"{name}: {error}; pip install 'pseudomotion[train]' installs what it needs", file=sys.stderr)  # noqa: T201
        return 2
    from pseudomotion.train.loop import Stopped

    try:
        return int(module.main())
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)  # noqa: T201
        return 128 + signal.SIGINT
    except Stopped as stopped:
        print(f"{name}: {stopped}", file=sys.stderr)  # noqa: T201
        return 128 + stopped.number
    except (OSError, ValueError, ImportError, MemoryError) as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201
        return 2
