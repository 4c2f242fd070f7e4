"""Transforms as users give them: names, objects, or a mapping of either to weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from pseudomotion import checks
from pseudomotion.transforms import ALL_TRANSFORMS, Transform

Transforms = Sequence[str | Transform] | Mapping[str | Transform, float]


def transforms_and_weights(transforms: Any) -> tuple[tuple[Transform, ...], tuple[float, ...]]:
    """Transform objects, and their weights scaled to a sum of 1."""
    if isinstance(transforms, (str, Transform)):
        raise TypeError(f"transforms must be a sequence or a mapping to weights, got {transforms!r}; write ({transforms!r},)")
    if not isinstance(transforms, (Sequence, Mapping)):
        raise TypeError(f"transforms must be a sequence or a mapping to weights, got {type(transforms).__name__}")
    if not transforms:
        raise ValueError("transforms must have at least one entry")
    weights = checks.weights("transforms", transforms)
    return tuple(_transform(entry) for entry in transforms), weights


def _transform(entry: Any) -> Transform:
    if isinstance(entry, Transform):
        return entry
    if not isinstance(entry, str):
        raise TypeError(f"transforms must hold names or Transform objects, got {entry!r}")
    if entry not in ALL_TRANSFORMS:
        raise ValueError(f"unknown transform {entry!r}; known are {', '.join(ALL_TRANSFORMS)}")
    return ALL_TRANSFORMS[entry]()
