"""Options of a command: dataclasses that transformers' ``HfArgumentParser`` turns into flags, with recipes and saved runs below them.

A recipe or a saved ``config.yaml`` is turned into the words of a command line and put before those that were typed. So the parser checks
all three alike, and what was typed wins.
"""

import argparse
import dataclasses
import sys
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from transformers import HfArgumentParser

from pseudomotion.train.recipes import flag, missing_needs, read_recipe

Config = TypeVar("Config")

CONFIG = "config.yaml"  # the options of a run, in its folder


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
    typed, _ = _parser(config, required=False).parse_known_args(arguments)
    words: list[str] = []
    if typed.recipe:
        words += _words(config, read_recipe(typed.recipe, section), f"recipe {typed.recipe}")
    saved_file = Path(str(typed.out)) / CONFIG
    saved = None
    if getattr(typed, "resume", False) and saved_file.is_file():
        words += _words(config, read_recipe(str(saved_file), section), str(saved_file))
        saved = _build(config, parser, [*words, flag("out"), typed.out])
    options = _build(config, parser, [*words, *arguments])
    if saved is not None:
        _check_unchanged(saved, options)
    if typed.recipe:
        given = {field.name for field in dataclasses.fields(config) if getattr(options, field.name) != _default(field)}
        missing_needs(typed.recipe, {field.name for field in dataclasses.fields(config)}, given)
    return options


def from_values(config: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration of values by name, such as those of a YAML file.

    Raises:
        ValueError: for an unknown name, a value of the wrong type, or an option that must be given and is not.

    """
    return _build(config, _parser(config), _words(config, values, "options"))


def to_yaml(config: Any, section: str) -> str:
    """A configuration as a recipe, which ``--recipe`` reads again."""
    return str(yaml.safe_dump({section: dataclasses.asdict(config)}, sort_keys=False))


def _parser(config: type, *, required: bool = True, **settings: Any) -> Any:
    """The parser of a command; with ``required=False`` nothing has to be given."""
    groups = [base for base in config.__bases__ if dataclasses.is_dataclass(base)]
    parser = _Parser(groups or config, allow_abbrev=False, **settings)
    parser.optional = {name for name, hint in typing.get_type_hints(config).items() if type(None) in typing.get_args(hint)}
    parser.add_argument("--recipe", metavar="NAME", help="row of the paper's tables, such as table6-pass-100k, or a YAML file")
    for action in parser._actions:
        # HfArgumentParser also takes names with underscores; the help shows one spelling.
        action.option_strings = [name for name in action.option_strings if "_" not in name]
        action.required = action.required and required
        if action.dest == getattr(config, "positional", None):
            action.option_strings, action.metavar = [], action.dest.upper()
    return parser


def _build(config: type[Config], parser: Any, words: Sequence[str]) -> Config:
    """The configuration that a command line stands for."""
    values = vars(parser.parse_args(words))
    for name, preset in getattr(config, "presets", {}).items():
        if values[name]:
            values = vars(parser.parse_args([*_words(config, preset, name), *words]))
    values.pop("recipe")
    # "none" for a list arrives as [None]
    return config(**{name: None if value == [None] else value for name, value in values.items()})


def _words(config: type, values: Mapping[str, Any], where: str) -> list[str]:
    """Values by name as the words of a command line."""
    known = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
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
