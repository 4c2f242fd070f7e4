"""Labels of still images, warped along their clips: boxes, points, masks and maps."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from torch import Tensor

from pseudomotion.labels import visibility
from pseudomotion.labels.motion import check_points
from pseudomotion.labels.surfaces import Surfaces
from pseudomotion.plan import MotionPlan

PROBES = 8  # points per axis of a box whose visibility is tested


@dataclass(frozen=True)
class WarpedLabels:
    """Labels along B clips of T frames; None for labels that were not passed.

    Boxes and points come from S surfaces: the back and the layers of the clip, back to front; if partners are pasted in (VideoMix), theirs
    follow. Layers that show textures hide what is behind them, but have no labels. Without layers and pasting S is 1. Box or point n of
    surface s, which belongs to image ``source[:, s]``, is at position s * N + n of M = S * N.
    """

    source: Int64[Tensor, "B S"]  # index in the batch of the image that each surface shows
    boxes: Float32[Tensor, "B T M 4"] | None = None  # edges (x0, y0, x1, y1) in frame pixels
    boxes_visible: Float32[Tensor, "B T M"] | None = None  # fraction of the box that is visible, in [0, 1]; 0 if not in the clip
    points: Float32[Tensor, "B T M 2"] | None = None  # (x, y) in frame pixels
    points_visible: Bool[Tensor, "B T M"] | None = None
    masks: Shaped[Tensor, "B T h w"] | None = None
    maps: Shaped[Tensor, "B C T h w"] | None = None


def warp_labels(
    plan: MotionPlan,
    size: int | tuple[int, int] | None = None,
    *,
    boxes: Tensor | None = None,
    points: Tensor | None = None,
    masks: Tensor | None = None,
    maps: Tensor | None = None,
    fill: float = 0,
    textures: Tensor | None = None,
) -> WarpedLabels:
    """Warp labels of the images along their clips: for detection, tracking, segmentation, depth. Not from the paper.

    Args:
        plan: the plan of B clips, for B images of size ``(H, W)``.
        size: frame size of the labels: an int, ``(h, w)``, or None for the plan's own.
        boxes: ``(B, N, 4)``, or ``(N, 4)`` for all images: edges ``(x0, y0, x1, y1)`` in image pixels, so the whole image is
            (-0.5, -0.5, W - 0.5, H - 0.5). A box becomes the axis-aligned bounding box of its four moved corners (of points along its
            edges where it bends), clipped to the frame.
        points: ``(B, N, 2)`` or ``(N, 2)``: (x, y) in image pixels.
        masks: ``(B, H, W)`` of any dtype, sampled at the nearest pixel.
        maps: ``(B, C, H, W)``, float, such as depth, sampled bilinearly. Values are not changed otherwise.
        fill: value of masks and maps where a frame shows no image; their dtype must be able to represent it.
        textures: as for ``flow``.

    Returns:
        The labels, in frames of ``size``, on the plan's device.

    Raises:
        ValueError: for labels of any other shape, or a fill value that their dtype cannot represent.
        TypeError: for coordinates that are not real numbers, or maps that are not floats.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> from pseudomotion.labels import warp_labels
        >>> plan = PMG(num_frames=4, size=32).plan((1, 3, 48, 48), ids=torch.arange(1))
        >>> moved = warp_labels(plan, boxes=torch.tensor([[10.0, 10.0, 30.0, 40.0]]), masks=torch.ones(1, 48, 48, dtype=torch.int64))
        >>> moved.boxes.shape, moved.masks.shape
        (torch.Size([1, 4, 1, 4]), torch.Size([1, 4, 32, 32]))

    """
    surfaces = Surfaces.of(plan, size, textures)
    labels = WarpedLabels(surfaces.image[:, :: surfaces.of_images.step])
    if boxes is not None:
        moved, share = _warp_boxes(surfaces, _per_image("boxes", boxes, plan, 4))
        labels = replace(labels, boxes=moved, boxes_visible=share)
    if points is not None:
        places, visible = _warp_points(surfaces, _per_image("points", points, plan, 2))
        labels = replace(labels, points=places, points_visible=visible)
    if masks is not None:
        raster = _check_raster("masks", masks, plan, 3)[:, None]
        _check_fill("masks", fill, masks.dtype)
        labels = replace(labels, masks=_warp_raster(surfaces, raster, fill, nearest=True)[:, 0])
    if maps is not None:
        _check_fill("maps", fill, maps.dtype)
        labels = replace(labels, maps=_warp_raster(surfaces, _check_raster("maps", maps, plan, 4), fill, nearest=False))
    return labels


def _per_image(name: str, value: Tensor, plan: MotionPlan, width: int) -> Float64[Tensor, "B N width"]:
    return check_points(name, value, len(plan), width).to(plan.device, torch.float64).expand(len(plan), -1, width)


def _check_raster(name: str, value: Tensor, plan: MotionPlan, ndim: int) -> Shaped[Tensor, "..."]:
    if value.ndim != ndim or len(value) != len(plan) or value.shape[-2:] != plan.image_size:
        (h, w), channels = plan.image_size, "C, " * (ndim - 3)
        raise ValueError(f"{name} must have shape ({len(plan)}, {channels}{h}, {w}), got {tuple(value.shape)}")
    if name == "maps" and not value.is_floating_point():
        raise TypeError(f"maps must be floats, got {value.dtype}; classes go into masks")
    return value.to(plan.device)


def _check_fill(name: str, fill: float, dtype: torch.dtype) -> None:
    """Reject a fill value that would change in ``dtype``: -100 would become 156 in uint8."""
    if dtype.is_floating_point or dtype.is_complex:
        fits = not math.isfinite(fill) or abs(fill) <= torch.finfo(dtype).max
    elif dtype == torch.bool:
        fits = fill in (0, 1)
    else:
        limits = torch.iinfo(dtype)
        fits = math.isfinite(fill) and fill == int(fill) and limits.min <= fill <= limits.max
    if not fits:
        raise ValueError(f"fill must be a value that {name} of {dtype} can hold, got {fill!r}")


def _warp_points(surfaces: Surfaces, points: Float64[Tensor, "B N 2"]) -> tuple[Float32[Tensor, "B T M 2"], Bool[Tensor, "B T M"]]:
    places, flags = [], []
    for surface in surfaces.of_images:
        x, y = points[surfaces.image[:, surface], None].unbind(-1)
        u, v, visible = visibility.from_image(surfaces, surface, x, y)
        places.append(torch.stack([u, v], -1).float())
        flags.append(visible)
    return torch.cat(places, 2), torch.cat(flags, 2)


def _warp_boxes(surfaces: Surfaces, boxes: Float64[Tensor, "B N 4"]) -> tuple[Float32[Tensor, "B T M 4"], Float32[Tensor, "B T M"]]:
    hulls, shares = [], []
    probe = (torch.arange(PROBES, dtype=torch.float64, device=boxes.device) + 0.5) / PROBES
    probe_y, probe_x = torch.cartesian_prod(probe, probe).unbind(-1)
    for surface in surfaces.of_images:
        x0, y0, x1, y1 = boxes[surfaces.image[:, surface], None, :, None].unbind(-1)
        _, _, visible = visibility.from_image(surfaces, surface, x0 + (x1 - x0) * probe_x, y0 + (y1 - y0) * probe_y)
        shares.append(visible.float().mean(-1))

        left, top, right, bottom = surfaces.box[:, surface, None, None, None].unbind(-1)
        x, y = _corners(x0, y0, x1, y1) if surfaces.bends[surface] is None else _edges(x0, y0, x1, y1)
        u, v, _ = visibility.from_image(surfaces, surface, x.maximum(left).minimum(right), y.maximum(top).minimum(bottom))
        window_x0, window_y0, window_x1, window_y1 = surfaces.window[:, surface, None, None].unbind(-1)
        edges = [u.amin(-1), v.amin(-1), u.amax(-1), v.amax(-1)]
        lowest, highest = [window_x0, window_y0] * 2, [window_x1, window_y1] * 2
        hulls.append(torch.stack([e.maximum(a).minimum(b) for e, a, b in zip(edges, lowest, highest, strict=True)], -1).float())
    return torch.cat(hulls, 2), torch.cat(shares, 2)


def _corners(x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([x0, x1, x1, x0], -1), torch.cat([y0, y0, y1, y1], -1)


def _edges(x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor) -> tuple[Tensor, Tensor]:
    """Points along the edges of boxes that may bend, corners included."""
    along = torch.linspace(0, 1, PROBES + 1, dtype=x0.dtype, device=x0.device)
    x, y = x0 + (x1 - x0) * along, y0 + (y1 - y0) * along
    return torch.cat([x, x, x0.expand_as(y), x1.expand_as(y)], -1), torch.cat([y0.expand_as(x), y1.expand_as(x), y, y], -1)


def _warp_raster(surfaces: Surfaces, raster: Shaped[Tensor, "B C H W"], fill: float, *, nearest: bool) -> Shaped[Tensor, "B C T h w"]:
    """Sample the raster in every frame, at each pixel from the image of the visible surface."""
    x, y = surfaces.pixels()
    out = raster.new_full((*raster.shape[:2], surfaces.num_frames, *surfaces.size), fill)
    sample = _nearest if nearest else _bilinear
    for t in range(surfaces.num_frames):
        frame = slice(t, t + 1)
        shown = visibility.top(surfaces, frame, x, y)
        painted = _painted(surfaces, t, shown)
        for surface in surfaces.of_images:
            u, v, in_front = surfaces.at_image(surface, frame, x, y)
            seen = (shown == surface) & visibility.contains(surfaces, surface, u, v) & in_front & painted
            values = sample(raster[surfaces.image[:, surface]], u[:, 0], v[:, 0])
            out[:, :, t] = torch.where(seen, values, out[:, :, t])
    return out


def _painted(surfaces: Surfaces, t: int, shown: Int64[Tensor, "B 1 h w"]) -> Bool[Tensor, "B 1 h w"]:
    """Where a frame shows image content: not where a clip that reads its previous frame has sampled outside an earlier frame."""
    x, y = surfaces.pixels()
    painted = torch.ones_like(shown, dtype=torch.bool)
    if surfaces.reads_previous:
        for earlier in range(t):
            dx, dy, in_front = surfaces.displace(shown, slice(t, t + 1), slice(earlier, earlier + 1), x, y)
            painted &= surfaces.in_frame(x + dx, y + dy) & in_front
        painted |= ~surfaces.recursive.gather(1, shown.flatten(1)).reshape(shown.shape)
    return painted


def _nearest(raster: Shaped[Tensor, "B C H W"], x: Float64[Tensor, "B h w"], y: Float64[Tensor, "B h w"]) -> Shaped[Tensor, "B C h w"]:
    return _pick(raster, (x + 0.5).floor().long(), (y + 0.5).floor().long())


def _bilinear(raster: Shaped[Tensor, "B C H W"], x: Float64[Tensor, "B h w"], y: Float64[Tensor, "B h w"]) -> Shaped[Tensor, "B C h w"]:
    x0, y0 = x.floor(), y.floor()
    right, below = ((c - c0)[:, None].to(torch.promote_types(raster.dtype, torch.float32)) for c, c0 in ((x, x0), (y, y0)))
    column, row = x0.long(), y0.long()
    upper = _pick(raster, column, row) * (1 - right) + _pick(raster, column + 1, row) * right
    lower = _pick(raster, column, row + 1) * (1 - right) + _pick(raster, column + 1, row + 1) * right
    return (upper * (1 - below) + lower * below).to(raster.dtype)


def _pick(raster: Shaped[Tensor, "B C H W"], column: Int64[Tensor, "B h w"], row: Int64[Tensor, "B h w"]) -> Shaped[Tensor, "B C h w"]:
    """Values at integer pixel coordinates, clamped to the raster."""
    h, w = raster.shape[-2:]
    index = (row.clamp(0, h - 1) * w + column.clamp(0, w - 1)).flatten(1)  # (B, h * w)
    picked = raster.flatten(2).gather(2, index[:, None].expand(-1, raster.shape[1], -1))  # (B, C, h * w)
    return picked.reshape(*raster.shape[:2], *column.shape[1:])
