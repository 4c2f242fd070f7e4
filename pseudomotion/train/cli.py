"""The commands of the trainer."""

import warnings
from importlib import import_module

from pseudomotion.command import run


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
    return run(name, lambda: _main(command))


def _main(command: str) -> None:
    """Run the ``main`` of a command's module, which imports slow libraries."""
    try:
        module = import_module(f"pseudomotion.train.{command}")
    except ImportError as error:
        raise ImportError(f"{error}; pip install 'pseudomotion[train]' installs what it needs") from error
    module.main()
