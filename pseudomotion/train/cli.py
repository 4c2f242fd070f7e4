"""The commands of the trainer. What needs no training library is answered before one is imported."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from pseudomotion import __version__, command


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


def convert(arguments: Sequence[str] | None = None) -> int:
    """``pmg-convert``."""
    parser = command.Parser(
        prog="pmg-convert",
        description="Convert a model to a .pth file of VideoMAE's official key names, or such a file to a folder of transformers.",
    )
    count = command.number(int, at_least=1)
    parser.add_argument("model", metavar="MODEL", help="a run or a model's folder; or a .pth file of VideoMAE's code")
    parser.add_argument("out", metavar="OUT", help="a .pth file; or a folder, if MODEL is a file")
    parser.add_argument("--frame-size", type=count, default=224, metavar="PX", help="of MODEL, if it is a file (default: 224)")
    parser.add_argument("--num-frames", type=count, default=16, metavar="T", help="of MODEL, if it is a file (default: 16)")
    parser.add_argument("--num-heads", type=count, metavar="N", help="of a file's encoder (default: as in VideoMAE's models of its width)")
    parser.add_argument("--decoder-num-heads", type=count, metavar="N", help="of a file's decoder (default: likewise)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    options = parser.parse_args(arguments)
    return command.run("pmg-convert", lambda: _convert(options))


def _convert(options: argparse.Namespace) -> None:
    with command.loading("pmg-convert"):
        module = _import("videomae.convert")
    module.convert(options)


def _run(name: str) -> int:
    prog = f"pmg-{name}"
    warnings.formatwarning = lambda message, *_, **__: f"{prog}: {message}\n"  # without the line of code that warned
    return command.run(prog, lambda: _main(name, prog))


def _main(name: str, prog: str) -> None:
    """Run the ``main`` of a command's module, which imports slow libraries."""
    if "--version" in sys.argv[1:]:
        print(f"{prog} {__version__}")  # noqa: T201  a command talks to its terminal
        return
    with command.loading(prog):
        if "--list-recipes" in sys.argv[1:]:
            print(_import("recipes").list_recipes())  # noqa: T201
            return
        module = _import(name)
    module.main()


def _import(module: str) -> Any:
    try:
        return import_module(f"pseudomotion.train.{module}")
    except ImportError as error:
        raise ImportError(f"{error}; {command.install('train')}") from error
