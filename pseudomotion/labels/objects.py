"""Instance masks, boxes and depth order of objects."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from pseudomotion.labels import visibility
from pseudomotion.labels.surfaces import Surfaces
from pseudomotion.plan import MotionPlan


class Boxes(NamedTuple):
    """Where the L layers of B clips are: edges ``(x0, y0, x1, y1)`` in pixels of the frame, around whole pixels; NaN where nothing is."""

    visible: Float32[Tensor, "B T L 4"]  # around the pixels that show the layer
    amodal: Float32[Tensor, "B T L 4"]  # around the pixels in the frame that the layer covers, hidden ones included
    share: Float32[Tensor, "B T L"]  # of the pixels that the layer covers in the frame, how many show it; 0 where it covers none


def instances(plan: MotionPlan, size: int | tuple[int, int] | None = None, *, textures: Tensor | None = None) -> Int64[Tensor, "B T h w"]:
    """The surface that shows at every pixel. Not from the paper.

    A layer shows where no later layer lies, inside its outline, in frames in which its opacity is at least one half.

    Args:
        plan: the plan of B clips of T frames.
        size: frame size of the labels: an int, ``(h, w)``, or None for the plan's own.
        textures: as for ``flow``.

    Returns:
        ``(B, T, h, w)``: 0 for the back, 1 + k for layer k; where a partner is pasted in (VideoMix), as many more as there are surfaces
        per clip, so ``instances % (1 + plan.num_layers)`` is the surface within either clip.

    Raises:
        TypeError, ValueError: for an invalid plan or size.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG, Objects
        >>> from pseudomotion.labels import instances
        >>> plan = PMG(num_frames=4, size=32, objects=Objects(count=(3, 3))).plan((2, 3, 48, 48), ids=torch.arange(2))
        >>> instances(plan).shape, int(instances(plan).max())
        (torch.Size([2, 4, 32, 32]), 3)

    """
    surfaces = Surfaces.of(plan, size, textures)
    x, y = surfaces.pixels()
    shown = torch.empty(len(plan), plan.num_frames, *surfaces.size, dtype=torch.int64, device=surfaces.box.device)
    for t in range(plan.num_frames):  # one frame at a time, to stay in the cache
        shown[:, t : t + 1] = visibility.top(surfaces, slice(t, t + 1), x, y)
    return shown


def boxes(plan: MotionPlan, size: int | tuple[int, int] | None = None, *, textures: Tensor | None = None) -> Boxes:
    """Boxes around the layers of every clip, in every frame. Not from the paper.

    Pasted partners (VideoMix) hide what they cover; their own layers have no boxes here, but in the partner's entry.

    Args:
        plan: the plan of B clips of T frames and L layers.
        size: frame size of the labels: an int, ``(h, w)``, or None for the plan's own.
        textures: as for ``flow``.

    Returns:
        Boxes and the visible share.

    Raises:
        TypeError, ValueError: for an invalid plan or size.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG, Objects
        >>> from pseudomotion.labels import boxes
        >>> plan = PMG(num_frames=4, size=32, objects=Objects(count=(3, 3))).plan((2, 3, 48, 48), ids=torch.arange(2))
        >>> found = boxes(plan)
        >>> found.visible.shape, found.amodal.shape, found.share.shape
        (torch.Size([2, 4, 3, 4]), torch.Size([2, 4, 3, 4]), torch.Size([2, 4, 3]))

    """
    surfaces = Surfaces.of(plan, size, textures)
    x, y = surfaces.pixels()
    b, t, layers, device = len(plan), plan.num_frames, plan.num_layers, surfaces.box.device
    visible, amodal = (torch.full((b, t, layers, 4), torch.nan, dtype=torch.float32, device=device) for _ in range(2))
    share = torch.zeros(b, t, layers, dtype=torch.float32, device=device)
    for frame in range(t):
        here = slice(frame, frame + 1)
        shown = visibility.top(surfaces, here, x, y)[:, 0]
        for group in surfaces.layered:
            if group.surface > layers:
                continue
            layer = group.surface - 1
            covered = visibility.covers(surfaces, group, here, x, y)[:, 0]  # (b, h, w)
            seen = shown[group.clips] == group.surface
            visible[group.clips, frame, layer], amodal[group.clips, frame, layer] = _box(seen), _box(covered)
            share[group.clips, frame, layer] = seen.sum((1, 2)) / covered.sum((1, 2)).clamp(min=1)
    return Boxes(visible, amodal, share)


def depth_order(plan: MotionPlan) -> Int64[Tensor, "B T S"]:
    """The surfaces of every clip that exist in a frame, from the nearest to the back; -1 pads. Not from the paper.

    Args:
        plan: the plan of B clips of T frames; S is the number of surfaces, numbered as in ``instances``.

    Raises:
        TypeError: if that is no plan.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG, Objects
        >>> from pseudomotion.labels import depth_order
        >>> plan = PMG(num_frames=4, size=32, objects=Objects(count=(2, 2))).plan((1, 3, 48, 48), ids=torch.arange(1))
        >>> depth_order(plan)[0, 0]
        tensor([2, 1, 0])

    """
    surfaces = Surfaces.of(plan)
    order = torch.arange(len(surfaces), device=surfaces.box.device).flip(0)
    present = surfaces.present.transpose(1, 2).flip(2)  # (B, T, S), nearest first
    place = torch.where(present, present.long().cumsum(2) - 1, len(surfaces))
    padded = torch.full((*present.shape[:2], len(surfaces) + 1), -1, dtype=torch.int64, device=order.device)
    return padded.scatter(2, place, order.expand_as(place))[..., : len(surfaces)]


def _box(mask: Bool[Tensor, "b h w"]) -> Float32[Tensor, "b 4"]:
    """The box around the pixels of a mask, NaN if there are none."""
    edges = []
    for seen in (mask.any(1), mask.any(2)):  # columns, rows
        at = torch.arange(seen.shape[1], dtype=torch.float32, device=mask.device)
        edges.append((torch.where(seen, at, torch.inf).amin(1) - 0.5, torch.where(seen, at, -torch.inf).amax(1) + 0.5))
    (left, right), (top, bottom) = edges
    found = torch.stack([left, top, right, bottom], 1)
    return torch.where(found.isfinite(), found, torch.nan)
