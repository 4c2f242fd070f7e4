"""Options of a command: dataclasses that become flags, with recipes and saved runs below them.

Nothing here imports torch, so that commands answer ``--help`` and mistakes at once. A recipe or a saved ``config.yaml`` is turned into the
words of a command line, so that one parser checks files and flags alike. What was typed wins over the file, the file over the defaults.
"""

import argparse
import dataclasses
import functools
import math
import operator
import re
import shutil
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from pseudomotion import command

Config = TypeVar("Config")

CONFIG = "config.yaml"  # the options of a run, in its folder
METAVARS = {int: "N", float: "X"}
BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "least": ("at least", operator.ge),
    "most": ("at most", operator.le),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
}


def option(
    default: Any = dataclasses.MISSING, *, help: str, metavar: str | None = None, choices: Sequence[str] = (), **bounds: float
) -> Any:
    """A field of a dataclass of options; its annotation says what it takes.

    Args:
        default: its value where none is given; without it, the option must be given. A list is copied.
        help: what it does.
        metavar: what stands for its value in the help; N for integers and X for other numbers where it is not given.
        choices: the allowed values; those of a ``Literal`` annotation need not be repeated.
        bounds: of ``BOUNDS``, for a number and for every number of a list; and ``length``, of a list.

    """
    metadata = {"help": help, "metavar": metavar, "choices": choices, "bounds": bounds}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Options:
    """Base of the dataclasses of options: checks the bounds of their fields. None passes."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a number that is out of bounds."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            given, limits = getattr(self, field.name), dict(field.metadata["bounds"])
            values, length = given if isinstance(given, list) else [given], limits.pop("length", None)
            inside = (BOUNDS[kind][1](value, limit) for value in values for kind, limit in limits.items())
            if given is not None and not (length in (None, len(values)) and all(inside)):
                asked = f"{length} numbers " * bool(length) + " and ".join(f"{BOUNDS[kind][0]} {limit}" for kind, limit in limits.items())
                raise ValueError(f"{field.name} must be {asked.strip()}, got {given}")


def parse(config: type[Config], prog: str, about: str, arguments: Sequence[str] | None = None) -> Config:
    """Read a command line. ``--help``, ``--version`` and ``--list-recipes`` end the process, as usual with argparse.

    Args:
        config: a dataclass that inherits from one dataclass per group of flags, whose ``group`` is the group's title. Its ``positional``
            names the field without a flag, its ``free`` those that may change when a run is resumed, its ``presets`` other defaults that a
            true flag brings; without ``has_recipes``, it takes no recipe.
        prog: name of the command; without ``pmg-``, it is the section of a recipe that the command reads.
        about: what the command does, for the help.
        arguments: instead of those of the process.

    Raises:
        ValueError, OSError: for options, values or recipes that the command cannot use.

    """
    parser, section = _parser(config, prog, about), prog.removeprefix("pmg-")
    typed = parser.read(sys.argv[1:] if arguments is None else arguments)
    recipe = typed.pop("recipe", None)
    if typed.pop("list_recipes", False):
        from pseudomotion.train.recipes import list_recipes

        print(list_recipes())  # noqa: T201  a command talks to its terminal
        sys.exit(0)
    below = parser.read_file(recipe, section) if recipe else {}
    saved_file = Path(str(typed.get("out"))) / CONFIG
    if typed.get("resume") and saved_file.is_file():
        below |= parser.read_file(str(saved_file), section) | {"out": typed["out"]}
        options = parser.build(below | typed)
        _check_unchanged(parser.build(below), options)
    else:
        options = parser.build(parser.with_presets(below, typed))
    if recipe:
        from pseudomotion.train.recipes import missing_needs

        missing_needs(recipe, parser.fields, {name for name, value in (below | typed).items() if value is not None})
    return options


def from_values(config: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration of values by name, such as those of a YAML file; a ``ValueError`` for wrong or missing ones."""
    parser = _parser(config)
    return parser.build(parser.with_presets({}, parser.read_values(values, "options")))


def to_words(values: Mapping[str, Any], positional: str | None = None) -> list[str]:
    """The words of a command line that give these values; the one of the name ``positional`` has no flag."""
    words: list[str] = []
    for name, value in values.items():
        if isinstance(value, bool):
            words.append(flag(name if value else f"no_{name}"))
        else:
            words += [flag(name)] * (name != positional) + list(map(str, value if isinstance(value, list) else [value]))
    return words


def to_yaml(config: Any, section: str) -> str:
    """A configuration as a recipe, which ``--recipe`` reads again."""
    import yaml

    return str(yaml.safe_dump({section: dataclasses.asdict(config)}, sort_keys=False))


def interval(text: str) -> tuple[float, float]:
    """Steps and seconds from checkpoint to checkpoint, one of which is infinite."""
    match = re.fullmatch(r"(\d+)(m?)", str(text))
    if not match or not int(match[1]):
        raise ValueError(f"save_every must be a number of steps, or of minutes such as 15m, at least 1, got {text!r}")
    return (math.inf, 60.0 * int(match[1])) if match[2] else (int(match[1]), math.inf)


def flag(name: str) -> str:
    """The command-line flag of an option."""
    return "--" + name.replace("_", "-")


class _Parser(command.Parser):
    """A parser made of a dataclass, which raises ``ValueError`` for mistakes and returns only what was given."""

    def __init__(self, config: type, prog: str = "", about: str = "") -> None:
        self.config, self.fields = config, {field.name: field for field in dataclasses.fields(config)}
        self.positional = getattr(config, "positional", None)
        required = [field for field in self.fields.values() if _default(field) is dataclasses.MISSING]
        usage = " ".join(["%(prog)s", *(" ".join(self._name(field)) for field in required), "[options]"])
        super().__init__(
            prog=prog, description=about, usage=usage, allow_abbrev=False, argument_default=argparse.SUPPRESS, formatter_class=_Help
        )
        if getattr(config, "has_recipes", True):
            self.add_argument("--recipe", metavar="NAME", help="row of the paper's tables, such as table6-pass-100k, or a YAML file")
            self.add_argument("--list-recipes", action="store_true", help="list the recipes and exit")
        hints = typing.get_type_hints(config)
        bases = [base for base in config.__bases__ if dataclasses.is_dataclass(base)] or [config]
        for base in bases:
            group = self.add_argument_group(getattr(base, "group", None))
            for field in sorted(
                dataclasses.fields(base), key=lambda field: _default(field) is not dataclasses.MISSING
            ):  # the required first
                self._add(group, self.fields[field.name], hints[field.name])

    def _name(self, field: "dataclasses.Field[Any]") -> list[str]:
        metavar = field.metadata.get("metavar") or field.name.upper()
        return [metavar] if field.name == self.positional else [flag(field.name), metavar]

    def _add(self, group: Any, field: "dataclasses.Field[Any]", hint: Any) -> None:
        text, default = field.metadata["help"].replace("%", "%%"), _default(field)
        if default is dataclasses.MISSING:
            text += " (required)"
        elif default is not None and default is not False:
            text += f" (default: {' '.join(map(str, default)) if isinstance(default, list) else default})"
        if hint is bool:  # --name and --no-name, neither of which takes the word after it
            group.add_argument(flag(field.name), action=argparse.BooleanOptionalAction, help=text)
            return
        kind, many, optional = _kind(hint)
        choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else tuple(field.metadata.get("choices") or ())

        def value(word: str) -> Any:
            if optional and word.lower() == "none":
                return None
            if choices and word not in choices:
                raise argparse.ArgumentTypeError(f"must be one of {', '.join(choices)}, got {word!r}")
            try:
                return word if choices else kind(word)
            except ValueError:
                what = "an integer" if kind is int else "a number"
                raise argparse.ArgumentTypeError(f"must be {what}{' or none' if optional else ''}, got {word!r}") from None

        metavar = field.metadata["metavar"] or "|".join(choices) or METAVARS.get(kind, field.name.upper())
        settings: dict[str, Any] = {"nargs": "+"} if many else {}
        if field.name == self.positional:
            group.add_argument(field.name, nargs="?", type=value, metavar=metavar, help=text)
        else:
            group.add_argument(flag(field.name), type=value, metavar=metavar, help=text, **settings)

    def error(self, message: str) -> NoReturn:
        raise ValueError(self.hinted(message).removeprefix("argument "))

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        """The values that words give, by name."""
        values = vars(self.parse_args(words))
        return {name: None if value == [None] else value for name, value in values.items()}

    def read_values(self, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Values of a file, checked as if they had been typed."""
        if unknown := sorted(set(values) - set(self.fields)):
            raise ValueError(f"{where} has unknown options {', '.join(unknown)}; known are {', '.join(sorted(self.fields))}")
        try:
            return self.read(to_words(values, self.positional))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    def read_file(self, name: str, section: str) -> dict[str, Any]:
        """The values of a recipe or of a saved run."""
        from pseudomotion.train.recipes import read_recipe

        return self.read_values(read_recipe(name, section), name if name.endswith(CONFIG) else f"recipe {name}")

    def with_presets(self, below: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Values of a file and given ones, and between them the presets of the flags that are set."""
        values = {**below, **given}
        presets = [preset for name, preset in getattr(self.config, "presets", {}).items() if values.get(name)]
        return {**below, **{name: value for preset in presets for name, value in preset.items()}, **given}

    def build(self, values: Mapping[str, Any]) -> Any:
        """The configuration of these values, with the defaults of the others."""
        missing = [field for field in self.fields.values() if field.name not in values and _default(field) is dataclasses.MISSING]
        if missing:
            raise ValueError(f"{', '.join(self._name(field)[0] for field in missing)} must be given")
        return self.config(**values)


_parser: Callable[..., _Parser] = functools.cache(_Parser)  # building one takes longer than parsing


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(100, shutil.get_terminal_size().columns - 2))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction) and "(default: True)" not in str(action.help):
            return action.option_strings[0]  # --no-name only repeats the default
        return super()._format_action_invocation(action)

    def _format_args(self, action: argparse.Action, default_metavar: Any) -> str:
        return f"{action.metavar} ..." if action.nargs == "+" else super()._format_args(action, default_metavar)


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _kind(hint: Any) -> tuple[Any, bool, bool]:
    """What one word of a value becomes, whether there may be several, and whether "none" is a value."""
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union)
    if optional:
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
    many = typing.get_origin(hint) is list
    return (typing.get_args(hint)[0] if many else hint), many, optional


def _check_unchanged(saved: Any, options: Any) -> None:
    was, now = dataclasses.asdict(saved), dataclasses.asdict(options)
    if changed := [f"{flag(name)} (was {was[name]}, now {now[name]})" for name in was if name not in saved.free and was[name] != now[name]]:
        raise ValueError(f"a run goes on with the options that it began with, so these cannot change: {', '.join(changed)}")
