"""Recipes: options of the commands for the rows of the paper's tables, by name."""

from collections.abc import Collection
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

RECIPES = resources.files(__name__)


def read_recipe(name: str, section: str) -> dict[str, Any]:
    """The section of a recipe that is meant for a command.

    Raises:
        ValueError: where there is no such recipe, it is not YAML, or has no such section.

    """
    recipe = _load(name)
    if not isinstance(recipe.get(section), dict):
        raise ValueError(f"recipe {name} has no section {section!r}")
    return dict(recipe[section])


def recipe_names() -> list[str]:
    """The recipes that come with the library."""
    return sorted(entry.name.removesuffix(".yaml") for entry in RECIPES.iterdir() if entry.name.endswith(".yaml"))


def missing_needs(recipe: str, known: Collection[str], given: Collection[str]) -> None:
    """Check that all that a recipe leaves to the user was given; "images or source" stands for either.

    Args:
        recipe: its name, or a YAML file.
        known: options of the command; what a recipe needs for other commands does not count.
        given: options that have a value.

    Raises:
        ValueError: naming what is missing, and what it is for.

    """
    needs = {tuple(names.split(" or ")): what for names, what in _load(recipe).get("needs", {}).items()}
    absent = {names: what for names, what in needs.items() if set(known).issuperset(names) and not set(given) & set(names)}
    if absent:
        texts = [f"{' or '.join(map(flag, names))} ({what})" for names, what in absent.items()]
        raise ValueError(f"recipe {recipe} needs {', '.join(texts)}")


def _load(name: str) -> dict[str, Any]:
    bundled = RECIPES / f"{name}.yaml"
    text = bundled.read_text() if bundled.is_file() else _read(name)
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {name} is not YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"recipe {name} must have sections, got {type(recipe).__name__}")
    return recipe


def flag(name: str) -> str:
    """The command-line flag of a field."""
    return "--" + name.replace("_", "-")


def _read(name: str) -> str:
    if not Path(name).is_file():
        raise ValueError(f"there is no recipe {name}: neither a file, nor one of {', '.join(recipe_names())}")
    return Path(name).read_text()
