"""The commands of the trainer. What a command was told is read, and mistakes in it are answered, before a training library is imported."""

import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

from pseudomotion import command
from pseudomotion.train.engine.options import parse
from pseudomotion.train.options import EvaluateOptions, FinetuneOptions, PretrainOptions
from pseudomotion.train.validate.options import ValidateOptions


def _load(prog: str, module: str) -> Any:
    with command.loading(prog):
        try:
            return import_module(f"pseudomotion.train.{module}")
        except ImportError as error:
            raise ImportError(f"{error}; {command.install('train')}") from error


def _run(name: str, config: type[Any], about: str, *, module: str = "") -> int:
    prog = f"pmg-{name}"
    warnings.formatwarning = lambda message, *_, **__: f"{prog}: {message}\n"  # without the line of code that warned

    def main() -> None:
        options = parse(config, prog, about)
        _load(prog, module or name).run(options)

    return command.run(prog, main)


# What ``pmg-pretrain`` and the others call.
pretrain = partial(_run, "pretrain", PretrainOptions, "Pre-train VideoMAE with masked modeling, with no video data at all.")
finetune = partial(_run, "finetune", FinetuneOptions, "Fine-tune VideoMAE to classify videos.")
evaluate = partial(_run, "evaluate", EvaluateOptions, "Test a fine-tuned VideoMAE on several clips and crops of every video.")
_about_validate = "Compare ways to pre-train by what the encoder then knows of motion."
validate = partial(_run, "validate", ValidateOptions, _about_validate, module="validate.command")


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
    return command.run("pmg-convert", lambda: _load("pmg-convert", "videomae.pretrained").convert(options))
