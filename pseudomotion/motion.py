"""``Motion`` and ``Layers``, which transforms return: float64 numpy arrays while planning, float32 tensors in a ``MotionPlan``."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from pseudomotion import color as color_maps
from pseudomotion import geometry

Array = Any  # a numpy array while planning, a tensor in a plan
Fields = TypeVar("Fields")


@dataclass(frozen=True, eq=False)
class Motion:
    """How clips, or layers of clips, move over T frames.

    Args:
        homography: ``(*b, T, 3, 3)``, maps pixels of what is read (the image, or the previous frame) to pixels of frame t.
        color: ``(*b, T, 3, 4)``, affine map of RGB in [0, 1], applied after sampling; the result is clamped to [0, 1].
        layers: layers that the transform paints over the back, or None. Always None inside a plan, which stores layers separately.
        bend: ``(*b, T, 2, G, G)``, non-rigid part: control points of a cubic B-spline over what is read, in cells of its grid;
            ``pseudomotion.spline`` defines it. None means G = 0, rigid.

    """

    homography: Float[Array, "*b T 3 3"]
    color: Float[Array, "*b T 3 4"]
    layers: "Layers | None" = None
    bend: Float[Array, "*b T 2 G G"] | None = None

    def __post_init__(self) -> None:
        """Replace a missing bend by one without control points (G = 0)."""
        if self.bend is None:
            object.__setattr__(self, "bend", self.homography[..., :2, :0, None][..., :0])


@dataclass(frozen=True, eq=False)
class Layers:
    """L layers painted over the back of b clips, in order.

    Args:
        texture: ``(b, L)``, index of the image that the layer shows: into ``textures`` if the plan has a ``texture_size``, else into the
            batch.
        box: ``(b, L, 4)``, part of the texture that the outline spans: edges ``(x0, y0, x1, y1)`` in pixels of the texture.
        outline: ``(b, L, K)``, shape and softness of the layer's edge; ``pseudomotion.outline`` defines it.
        motion: how each layer moves over the frame, ``(b, L, T, ...)``. A layer always reads its texture, never the previous frame.
        opacity: ``(b, L, T)``, in [0, 1]; 0 means absent.

    """

    texture: Int64[Array, "b L"]
    box: Float[Array, "b L 4"]
    outline: Float[Array, "b L K"]
    motion: Motion
    opacity: Float[Array, "b L T"]


def map_fields(value: Fields, function: Callable[[Any], Any]) -> Fields:
    """A copy of a dataclass with a function applied to all its arrays and tensors, nested dataclasses and tuples included."""

    def mapped(entry: Any) -> Any:
        if dataclasses.is_dataclass(entry):
            return map_fields(entry, function)
        if isinstance(entry, tuple):
            parts = map(mapped, entry)
            return type(entry)(*parts) if hasattr(entry, "_fields") else tuple(parts)
        return function(entry) if isinstance(entry, (Tensor, np.ndarray)) else entry

    # Not dataclasses.replace, which would validate a plan and group its passes again.
    copied: Fields = object.__new__(type(value))
    for name, entry in vars(value).items():
        object.__setattr__(copied, name, mapped(entry))
    return copied


def concatenate(parts: Sequence[Fields], axis: int) -> Fields:
    """Concatenate dataclasses of one type: their arrays along ``axis``, nested dataclasses included."""
    if len(parts) == 1:
        return parts[0]
    joined = {}
    for name, entry in vars(parts[0]).items():
        entries = [getattr(part, name) for part in parts]
        if dataclasses.is_dataclass(entry):
            joined[name] = concatenate(entries, axis)
        else:
            joined[name] = np.concatenate(entries, axis) if isinstance(entry, np.ndarray) else entry
    return dataclasses.replace(parts[0], **joined)  # type: ignore[type-var]  # all Fields are dataclasses


def alike(motions: Sequence[Motion]) -> list[Motion]:
    """Motions of numpy arrays with bends of one grid, so that they can be concatenated: rigid ones get bends of zero.

    Raises:
        ValueError: for bends of different grids, which no plan can hold.

    """
    grids = sorted({motion.bend.shape[-1] for motion in motions if motion.bend is not None} - {0})
    if not grids:
        return list(motions)
    if len(grids) > 1:
        raise ValueError(f"transforms of one generator must bend by grids of the same size, got {', '.join(f'{g} x {g}' for g in grids)}")

    def bent(motion: Motion) -> Motion:
        if motion.bend is None or motion.bend.shape[-1]:
            return motion
        return dataclasses.replace(motion, bend=np.zeros((*motion.homography.shape[:-2], 2, grids[0], grids[0])))

    return list(map(bent, motions))


def concatenate_layers(parts: Sequence[Layers]) -> Layers:
    """Layers of numpy arrays, one over the other: outlines and bends are padded to the same number of columns and control points."""
    columns = max(part.outline.shape[-1] for part in parts)
    motions = alike([part.motion for part in parts])

    def pad(outline: Float[np.ndarray, "b L k"]) -> Float[np.ndarray, "b L K"]:
        missing = columns - outline.shape[-1]
        return np.pad(outline, ((0, 0), (0, 0), (0, missing))) if missing else outline

    padded = [dataclasses.replace(part, outline=pad(part.outline), motion=motion) for part, motion in zip(parts, motions, strict=True)]
    return concatenate(padded, axis=1)


def to_tensors(value: Fields) -> Fields:
    """Convert arrays to a plan's tensors: floats become float32, indices stay int64."""
    return map_fields(value, lambda array: torch.from_numpy(np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else None)))


@np.errstate(all="ignore")  # as in planning
def compose(motion: Motion, recursive: Bool[np.ndarray, " b"]) -> Motion:
    """Multiply the frame-to-frame maps of recursive clips into maps from the image; other clips, and bends, stay unchanged.

    Args:
        motion: of b clips, in numpy arrays.
        recursive: whether frames after the first read the one before.

    """
    if not recursive.any():
        return motion
    colored = bool((motion.color != color_maps.IDENTITY).any())
    homography, color = motion.homography.copy(), motion.color.copy()
    for maps, product in [(homography, geometry.matmul)] + [(color, color_maps.compose)] * colored:
        steps = maps[recursive].astype(np.float64)
        for t in range(1, steps.shape[1]):
            steps[:, t] = product(steps[:, t], steps[:, t - 1])
        maps[recursive] = steps
    return dataclasses.replace(motion, homography=homography, color=color)
