"""Recipes: options of the commands for the rows of the paper's tables, by name.

One file is a table: ``table2-zoom`` is the row ``zoom`` of ``table2.yaml``. A table has ``rows``, and under ``shared`` what all of them
have. A recipe, and so a row, consists of

- ``about``: what it is, in a line;
- ``pretrain``, ``finetune``, ``evaluate``: options of these commands;
- ``needs``: options that the user must give, and what for ("images or source" stands for either);
- ``sweep``: options to try several values of, by command;
- ``paper``: rows of the paper's tables, and the figures there; ``ours``: figures that were measured.

A file of a user's own is a single recipe, like the ``config.yaml`` of a run.
"""

from collections.abc import Collection
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from pseudomotion.train.engine.options import flag

_FOLDER = resources.files(__name__)

Recipe = dict[str, Any]


def load_recipe(name: str) -> Recipe:
    """A recipe of the library, or of a YAML file; a ``ValueError`` where there is none."""
    if name in _bundled():
        return _bundled()[name]
    if not Path(name).is_file():
        raise ValueError(f"there is no recipe {name}: neither a file, nor one of {', '.join(recipe_names())}")
    return _parsed(Path(name).read_text(), name)


def read_recipe(name: str, section: str) -> dict[str, Any]:
    """The options of a recipe, or of a YAML file, for a command: "pretrain", "finetune" or "evaluate"."""
    options = load_recipe(name).get(section)
    if not isinstance(options, dict):
        raise ValueError(f"recipe {name} has no section {section!r}")
    return dict(options)


def recipe_names() -> list[str]:
    """The recipes that come with the library, table after table."""
    return list(_bundled())


def list_recipes() -> str:
    """A line for every recipe of the library: its name, and what it is."""
    width = max(map(len, _bundled()))
    return "\n".join(f"{name:{width}}  {recipe['about']}" for name, recipe in _bundled().items())


def missing_needs(recipe: str, known: Collection[str], given: Collection[str]) -> None:
    """Raise a ``ValueError`` for what a recipe leaves to the user and was not given; what it needs for other commands does not count."""
    needs = {tuple(names.split(" or ")): what for names, what in load_recipe(recipe).get("needs", {}).items()}
    absent = {names: what for names, what in needs.items() if set(known).issuperset(names) and not set(given) & set(names)}
    if absent:
        texts = [f"{' or '.join(map(flag, names))} ({what})" for names, what in absent.items()]
        raise ValueError(f"recipe {recipe} needs {', '.join(texts)}")


@cache
def _bundled() -> dict[str, Recipe]:
    """All recipes of the library by name, tables in numerical order, rows in the order of their file."""
    files = {entry.name.removesuffix(".yaml"): entry for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml")}
    recipes: dict[str, Recipe] = {}
    for name in sorted(files, key=lambda name: (name.rstrip("0123456789"), len(name), name)):
        content = _parsed(files[name].read_text(), name)
        shared, rows = content.get("shared", {}), content.get("rows")
        if rows is None:
            recipes[name] = content
            continue
        for row, recipe in rows.items():
            recipes[f"{name}-{row}"] = recipe | {section: options | recipe.get(section, {}) for section, options in shared.items()}
    return recipes


def _parsed(text: str, name: str) -> Recipe:
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {name} is not YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"recipe {name} must have sections, got {type(recipe).__name__}")
    return recipe
