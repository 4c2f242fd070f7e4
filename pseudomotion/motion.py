"""``Motion`` and ``Layers``: what a transform decides. numpy float64 while planning, float32 tensors in a ``MotionPlan``."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

Array = Any  # of numpy while planning, a tensor in a plan
Fields = TypeVar("Fields")


@dataclass(frozen=True, eq=False)
class Motion:
    """How clips, or layers of clips, move in T frames.

    Args:
        homography: pixel of what is read to pixel of frame t.
        color: affine map of RGB in [0, 1], applied after sampling; the result is clamped to [0, 1].
        layers: what a transform paints over the back; None for none, and always None inside a plan, which holds them apart.
        bend: control points of a cubic B-spline over what is read, in cells of its grid. None, or G = 0: rigid, the only kind yet.

    """

    homography: Float[Array, "*b T 3 3"]
    color: Float[Array, "*b T 3 4"]
    layers: "Layers | None" = None
    bend: Float[Array, "*b T 2 G G"] | None = None

    def __post_init__(self) -> None:
        """Rigid motions have control points too: none of them."""
        if self.bend is None:
            object.__setattr__(self, "bend", self.homography[..., :2, :0, None][..., :0])


@dataclass(frozen=True, eq=False)
class Layers:
    """L layers painted over the back of B clips, in order.

    Args:
        texture: index of the image that the layer shows: in ``textures`` where the plan has a ``texture_size``, else in the batch.
        box: the part of the texture that the outline spans, ``(x0, y0, x1, y1)``, edges in pixels of the texture.
        outline: shape and softness of the layer's edge, laid out in ``pseudomotion.outline``.
        motion: how each layer moves over the frame; always reads the texture, never the frame before.
        opacity: 0 where the layer is absent, 1 where it is painted in full.

    """

    texture: Int64[Array, "b L"]
    box: Float[Array, "b L 4"]
    outline: Float[Array, "b L K"]
    motion: Motion
    opacity: Float[Array, "b L T"]


def map_fields(value: Fields, function: Callable[[Any], Any]) -> Fields:
    """A dataclass whose arrays, also those of dataclasses inside it, went through a function; all else stays as it is."""

    def mapped(entry: Any) -> Any:
        if dataclasses.is_dataclass(entry):
            return map_fields(entry, function)
        return function(entry) if isinstance(entry, (Tensor, np.ndarray)) else entry

    # Not dataclasses.replace: a plan would be checked, and its passes found, again.
    copied: Fields = object.__new__(type(value))
    for name, entry in vars(value).items():
        object.__setattr__(copied, name, mapped(entry))
    return copied


def concatenate(parts: Sequence[Fields], axis: int) -> Fields:
    """Dataclasses of the same kind as one, their arrays joined along an axis."""
    joined = {}
    for name, entry in vars(parts[0]).items():
        entries = [getattr(part, name) for part in parts]
        if dataclasses.is_dataclass(entry):
            joined[name] = concatenate(entries, axis)
        else:
            joined[name] = np.concatenate(entries, axis) if isinstance(entry, np.ndarray) else entry
    return dataclasses.replace(parts[0], **joined)  # type: ignore[type-var]  # all Fields are dataclasses


def to_tensors(value: Fields) -> Fields:
    """Planned arrays as a plan holds them: numbers in float32, indices in int64."""
    return map_fields(value, lambda array: torch.from_numpy(np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else None)))
