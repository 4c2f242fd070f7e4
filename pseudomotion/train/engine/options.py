"""Options of a command: dataclasses that transformers' ``HfArgumentParser`` turns into flags, with recipes and saved runs below them.

A recipe or a saved ``config.yaml`` is turned into the words of a command line and put before those that were typed. So the parser checks
all three alike, and what was typed wins.
"""

import argparse
import dataclasses
import math
import re
import sys
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, TypeVar

import yaml
from transformers.hf_argparser import HfArg, HfArgumentParser

from pseudomotion.train.engine.log import TRACKERS, check_trackers
from pseudomotion.train.recipes import flag, list_recipes, missing_needs, read_recipe

Config = TypeVar("Config")

CONFIG = "config.yaml"  # the options of a run, in its folder


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options that all training commands share."""

    _argument_group_name: ClassVar[str] = "run"

    out: str = HfArg(help="folder of the run")
    resume: bool = HfArg(default=False, help="go on from the newest good checkpoint in --out, with its options; begin where there is none")
    epochs: int = HfArg(default=2000, help="length of the run; an epoch shows every item once; may grow on --resume")
    max_steps: int | None = HfArg(default=None, help="length of the run in steps, instead of --epochs; may grow on --resume")
    batch_size: int = HfArg(default=192, help="clips per step, over all processes and gradient accumulation steps")
    accumulate: int = HfArg(default=1, help="gradient accumulation steps, to save memory")
    gradient_checkpointing: bool = HfArg(default=False, help="recompute activations in the backward pass, to save memory")
    seed: int = HfArg(default=0, help="of weights, order, motion, masks and dropout")
    num_workers: int = HfArg(default=0, help="processes that read files, per training process")
    precision: Literal["no", "bf16", "fp16"] = HfArg(default="no", help="no: float32; bf16, fp16: autocast")
    tf32: bool = HfArg(default=True, help="TF32 for float32 matrix products on GPUs that have it")
    compile: bool = HfArg(default=False, help="compile the model with torch.compile")
    cpu: bool = HfArg(default=False, help="train on the CPU even if there is a GPU")
    save_every: str = HfArg(default="1000", help="steps from checkpoint to checkpoint, or minutes, such as 15m")
    keep: int = HfArg(default=2, help="checkpoints that are kept")
    log_every: int = HfArg(default=10, help="steps from one row of the log to the next")
    log_with: list[str] | None = HfArg(
        default_factory=lambda: ["tensorboard"], help=f"log with these too: {', '.join(TRACKERS)}; none for metrics.jsonl alone"
    )

    def __post_init__(self) -> None:
        """Check the numbers."""
        least = {"batch_size": 1, "accumulate": 1, "epochs": 1, "keep": 1, "num_workers": 0, "log_every": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")
        if not self.out:
            raise ValueError('out must be a folder, got ""')
        interval(self.save_every)
        check_trackers(self.log_with or ())


@dataclass(frozen=True, kw_only=True)
class OptimizationOptions:
    """Options of the optimizer, which all training commands share."""

    _argument_group_name: ClassVar[str] = "optimization"

    base_lr: float = HfArg(default=1.5e-4, help="learning rate for 256 clips a step; it grows with --batch-size")
    min_lr: float = HfArg(default=1e-5, help="what the learning rate falls to, for 256 clips a step")
    warmup_epochs: float = HfArg(default=40.0, help="epochs in which the learning rate rises from 0, a tenth of the run at most")
    weight_decay: float = HfArg(default=0.05, help="of all weights but biases, norms and the mask token")
    betas: list[float] = HfArg(default_factory=lambda: [0.9, 0.95], help="of AdamW, two numbers")
    clip_grad: float | None = HfArg(default=None, help="largest norm of the gradient; none for any")
    ema: float | None = HfArg(
        default=None, help="decay of a moving average of the weights, such as 0.9999, kept as average/; none: none is kept"
    )

    def __post_init__(self) -> None:
        """Check the numbers."""
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers from 0 to less than 1, got {self.betas}")
        if not self.base_lr > 0:
            raise ValueError(f"base_lr must be above 0, got {self.base_lr}")
        if self.clip_grad is not None and not self.clip_grad > 0:
            raise ValueError(f"clip_grad must be above 0 or none, got {self.clip_grad}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema must be between 0 and 1 or none, got {self.ema}")


# Options that may change when a run is resumed, since they do not touch what is computed, or only prolong it.
_ANY_TIME = "out resume epochs max_steps accumulate gradient_checkpointing num_workers compile cpu save_every keep log_every log_with"
FREE = frozenset(_ANY_TIME.split())


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return f"{action.help} (required)" if action.required else super()._get_help_string(action)


class _Parser(HfArgumentParser):  # type: ignore[misc]
    """A parser that raises ValueError instead of printing a page of usage, and reads "none" where a field may be None."""

    optional: Collection[str] = ()

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    @staticmethod
    def _parse_dataclass_field(parser: Any, field: dataclasses.Field[Any]) -> None:
        if field.type is bool:  # --name and --no-name, neither of which takes the word after it
            action = argparse.BooleanOptionalAction
            parser.add_argument(flag(field.name), action=action, default=field.default, help=field.metadata["help"])
        else:
            HfArgumentParser._parse_dataclass_field(parser, field)

    def _get_value(self, action: Any, text: str) -> Any:
        return None if action.dest in self.optional and text.lower() == "none" else super()._get_value(action, text)

    def _check_value(self, action: Any, value: Any) -> None:
        if value is not None:
            super()._check_value(action, value)


def check_groups(options: Any) -> None:
    """Run the checks of every group of options that a dataclass inherits from."""
    for base in type(options).__bases__:
        if check := getattr(base, "__post_init__", None):
            check(options)


def parse(config: type[Config], prog: str, description: str, arguments: Sequence[str] | None = None) -> Config:
    """Read a command line; ``--help`` ends the process, as usual with argparse.

    Args:
        config: a dataclass that inherits from one dataclass per group of flags; its ``positional`` names the field without a flag, its
            ``free`` those that may change when a run is resumed, its ``presets`` other defaults that a true flag brings.
        prog: name of the command; less ``pmg-``, it is the section of a recipe that the command reads.
        description: what the command does.
        arguments: instead of those of the process.

    Raises:
        ValueError: for options that the command does not take, values it cannot use, and options that are missing.
        OSError: for a recipe that cannot be read.

    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser, section = _parser(config, prog=prog, description=description), prog.removeprefix("pmg-")
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        sys.exit(0)
    if "--list-recipes" in arguments:
        print(list_recipes())  # noqa: T201  a command talks to its terminal
        sys.exit(0)
    typed, _ = _parser(config, required=False).parse_known_args(arguments)
    words = _words(config, read_recipe(typed.recipe, section), f"recipe {typed.recipe}") if typed.recipe else []
    saved_file = Path(str(typed.out)) / CONFIG
    if getattr(typed, "resume", False) and saved_file.is_file():
        words += _words(config, read_recipe(str(saved_file), section), str(saved_file))
        saved = _build(config, parser, words, [flag("out"), typed.out], presets=False)
        options = _build(config, parser, words, arguments, presets=False)
        _check_unchanged(saved, options)
    else:
        options = _build(config, parser, words, arguments)
    if typed.recipe:
        fields: Any = dataclasses.fields(options)  # type: ignore[arg-type]
        given = {field.name for field in fields if getattr(options, field.name) != _default(field)}
        missing_needs(typed.recipe, {field.name for field in fields}, given)
    return options


def from_values(config: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration of values by name, such as those of a YAML file.

    Raises:
        ValueError: for an unknown name, a value of the wrong type, or an option that must be given and is not.

    """
    return _build(config, _parser(config), (), _words(config, values, "options"))


def to_yaml(config: Any, section: str) -> str:
    """A configuration as a recipe, which ``--recipe`` reads again."""
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(config).items()}
    return str(yaml.safe_dump({section: values}, sort_keys=False))


def _parser(config: type, *, required: bool = True, **settings: Any) -> Any:
    """The parser of a command; with ``required=False`` nothing has to be given."""
    groups = [base for base in config.__bases__ if dataclasses.is_dataclass(base)]
    positional = getattr(config, "positional", None)
    usage = f"%(prog)s {positional.upper() if positional else ''} [options]"
    parser = _Parser(groups or config, allow_abbrev=False, usage=usage, formatter_class=_Help, **settings)
    parser.optional = {name for name, hint in typing.get_type_hints(config).items() if type(None) in typing.get_args(hint)}
    parser.add_argument("--recipe", metavar="NAME", help="row of the paper's tables, such as table6-pass-100k, or a YAML file")
    parser.add_argument("--list-recipes", action="store_true", default=argparse.SUPPRESS, help="list the recipes and exit")
    for action in parser._actions:
        # HfArgumentParser also takes names with underscores; the help shows one spelling.
        action.option_strings = [name for name in action.option_strings if "_" not in name]
        action.required = action.required and required
        if action.dest == positional:
            action.option_strings, action.metavar = [], action.dest.upper()
    return parser


def _build(config: type[Config], parser: Any, below: Sequence[str], words: Sequence[str], *, presets: bool = True) -> Config:
    """The configuration that words stand for; those ``below`` give way to presets, the others do not."""
    values = vars(parser.parse_args([*below, *words]))
    for name, preset in getattr(config, "presets", {}).items() if presets else ():
        if values[name]:
            values = vars(parser.parse_args([*below, *_words(config, preset, name), *words]))
    values.pop("recipe")
    # "none" for a list arrives as [None]
    return config(**{name: None if value == [None] else value for name, value in values.items()})


def _words(config: type, values: Mapping[str, Any], where: str) -> list[str]:
    """Values by name as the words of a command line."""
    known = {field.name for field in dataclasses.fields(config)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{where} has unknown options {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    words: list[str] = []
    for name, value in values.items():
        if isinstance(value, bool):
            words.append(flag(name if value else f"no_{name}"))
            continue
        own = [] if name == getattr(config, "positional", None) else [flag(name)]
        words += [*own, *map(str, value if isinstance(value, (list, tuple)) else [value])]
    return words


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _check_unchanged(saved: Any, options: Any) -> None:
    names = [field.name for field in dataclasses.fields(saved) if field.name not in saved.free]
    was, now = dataclasses.asdict(saved), dataclasses.asdict(options)
    if changed := [f"{flag(name)} (was {was[name]}, now {now[name]})" for name in names if was[name] != now[name]]:
        raise ValueError(f"a run goes on with the options that it began with, so these cannot change: {', '.join(changed)}")


def interval(text: str) -> tuple[float, float]:
    """Steps and seconds from checkpoint to checkpoint, one of which is infinite."""
    match = re.fullmatch(r"(\d+)(m?)", str(text))
    if not match or not int(match[1]):
        raise ValueError(f"save_every must be a number of steps, or of minutes such as 15m, at least 1, got {text!r}")
    return (math.inf, 60.0 * int(match[1])) if match[2] else (int(match[1]), math.inf)
