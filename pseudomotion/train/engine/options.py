"""Options of a command: one frozen dataclass, from its defaults, a recipe file and the command line, in this order."""

import argparse
import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pseudomotion.train.recipes import flag, missing_needs, read_recipe

Config = TypeVar("Config")

CONFIG = "config.yaml"  # the options of a run, in its folder


def option(
    default: Any, help: str, *, group: str, choices: Sequence[str] | None = None, free: bool = False, positional: bool = False
) -> Any:
    """A field of a command's dataclass.

    Args:
        default: as for a dataclass field; ``dataclasses.MISSING`` for an option that must be given.
        help: what it does, with its unit.
        group: the heading that it stands under in ``--help``.
        choices: what is allowed, where that is a list.
        free: may change when a run is resumed, since it does not touch what is computed.
        positional: a plain argument, without a flag.

    """
    metadata = {"help": help, "group": group, "choices": choices, "free": free, "positional": positional}
    return dataclasses.field(default=default, metadata=metadata)


def parse(config: type[Config], prog: str, description: str, arguments: Sequence[str] | None = None) -> Config:
    """Read a command line; ``--help`` and wrong arguments end the process, as usual with argparse.

    Args:
        config: the dataclass, made of ``option``. Its ``__post_init__`` may raise ValueError, which becomes the command's message.
        prog: name of the command; a recipe's section of the same name, less ``pmg-``, is what counts for it.
        description: what the command does.
        arguments: in place of those of the process.

    """
    parser = argparse.ArgumentParser(prog=prog, description=description, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    parser.add_argument("--recipe", metavar="NAME", help="a recipe of the paper's tables, such as table6-pass-100k, or a YAML file")
    groups: dict[str, Any] = {}
    for field in _fields(config):
        name = field.metadata["group"]
        groups[name] = groups.get(name) or parser.add_argument_group(name)
        _add(groups[name], field, _types(config)[field.name])
    given = vars(parser.parse_args(arguments))
    section = prog.removeprefix("pmg-")
    try:
        recipe = given.pop("recipe", None)
        given = (read_recipe(recipe, section) if recipe else {}) | given
        given = _saved(config, given, section) | given
        if recipe:
            missing_needs(recipe, {field.name for field in _fields(config)}, given)
        return from_values(config, given)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def _saved(config: type, given: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The options that a run was started with, if it is to be resumed."""
    path = Path(str(given.get("out"))) / CONFIG
    if not given.get("resume") or not path.is_file():
        return {}
    saved = read_recipe(str(path), section)
    names = [field.name for field in _fields(config) if not field.metadata["free"]]
    if changed := [
        f"{flag(n)} (was {saved[n]}, now {given[n]})" for n in names if n in given and n in saved and not _same(saved[n], given[n])
    ]:
        raise ValueError(f"a run goes on with the options that it began with, so these cannot change: {', '.join(changed)}")
    return saved


def _same(saved: Any, given: Any) -> bool:
    return bool(saved == (list(given) if isinstance(given, tuple) else given))


def from_values(config: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration of values by name, such as those of a YAML file.

    Raises:
        ValueError: for an unknown name, a value of the wrong type, or an option that must be given and is not.

    """
    hints, known = _types(config), {field.name: field for field in _fields(config)}
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"unknown options {', '.join(unknown)}; known are {', '.join(known)}")
    if missing := [
        n.upper() if f.metadata["positional"] else flag(n) for n, f in known.items() if f.default is dataclasses.MISSING and n not in values
    ]:
        raise ValueError(f"{', '.join(missing)} must be given")
    return config(**{name: _checked(known[name], hints[name], value) for name, value in values.items()})


def to_yaml(config: Any, section: str) -> str:
    """A configuration as a recipe, to be read again by ``--recipe``."""
    values = {f.name: getattr(config, f.name) for f in _fields(type(config))}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return str(yaml.safe_dump({section: plain}, sort_keys=False))


def _fields(config: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(config)


def _types(config: type) -> dict[str, Any]:
    return typing.get_type_hints(config)


def _single(hint: Any) -> tuple[type, bool, bool]:
    """Of a field's type: that of one value, whether there may be several, and whether None is allowed."""
    optional = isinstance(hint, types.UnionType) and type(None) in hint.__args__
    if optional:
        (hint,) = (part for part in hint.__args__ if part is not type(None))
    several = typing.get_origin(hint) is tuple
    return (hint.__args__[0] if several else hint), several, optional


def _add(group: Any, field: dataclasses.Field[Any], hint: Any) -> None:
    kind, several, _ = _single(hint)
    default = field.default
    if default is dataclasses.MISSING:
        ending = "required"
    else:
        ending = f"default: {' '.join(map(str, default)) if isinstance(default, tuple) else default}"
    settings: dict[str, Any] = {"help": f"{field.metadata['help']} ({ending})".replace("%", "%%"), "dest": field.name}
    if kind is bool:
        group.add_argument(flag(field.name), action=argparse.BooleanOptionalAction, **settings)
        return
    names = {int: "N", float: "X", str: "NAME"}
    settings |= {"type": kind, "choices": field.metadata["choices"], "metavar": None if field.metadata["choices"] else names[kind]}
    if field.metadata["positional"]:
        settings |= {"metavar": field.name.upper()}
        group.add_argument(settings.pop("dest"), nargs="?", **settings)
    else:
        group.add_argument(flag(field.name), nargs="+" if several else None, **settings)


def _checked(field: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    """A value in the type of its field."""
    kind, several, optional = _single(hint)
    if value is None and optional:
        return None
    if several:
        if not isinstance(value, (list, tuple)) or not value:
            raise ValueError(f"{field.name} must be a list of {kind.__name__}, got {value!r}")
        return tuple(_one(field, kind, entry) for entry in value)
    return _one(field, kind, value)


def _one(field: dataclasses.Field[Any], kind: type, value: Any) -> Any:
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML takes 3e-4 for text
    if type(value) is not kind:
        raise ValueError(f"{field.name} must be {kind.__name__}, got {value!r}")
    if field.metadata["choices"] and value not in field.metadata["choices"]:
        raise ValueError(f"{field.name} must be one of {', '.join(field.metadata['choices'])}, got {value!r}")
    return value
