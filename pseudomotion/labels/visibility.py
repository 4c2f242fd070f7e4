"""Which surface is visible at a point, and whether points stay visible while they move.

A layer covers a point inside its outline, where its texture is at least half opaque, in frames in which it is there; the last surface that
covers a point shows. Points and frames are passed as in ``surfaces``.
"""

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from pseudomotion import outline, spline
from pseudomotion.geometry import HORIZON
from pseudomotion.labels.bending import Points, fill, linear, spread
from pseudomotion.labels.surfaces import EVERYONE, Clips, Group, Surfaces, of_clips


def top(surfaces: Surfaces, frames: slice, x: Tensor, y: Tensor) -> Int64[Tensor, "B K *places"]:
    """Index of the surface that is visible at points of the frames."""
    places = [max(sides) for sides in zip(x.shape[2:], y.shape[2:], strict=True)]
    shape = (len(surfaces.box), len(range(*frames.indices(surfaces.num_frames))), *places)
    if len(surfaces) == 1:
        return torch.zeros((), dtype=torch.int64, device=x.device).expand(shape)
    shown = torch.zeros(shape, dtype=torch.int64, device=x.device)
    for group in surfaces.layered:
        covered = covers(surfaces, group, frames, of_clips(x, group.clips), of_clips(y, group.clips))
        shown[group.clips] = torch.where(covered, group.surface, shown[group.clips])
    return shown


def covers(surfaces: Surfaces, group: Group, frames: slice, x: Tensor, y: Tensor) -> Bool[Tensor, "b K *places"]:
    """Whether a surface covers points of the frames; surfaces in front of it may hide it."""
    surface, clips = group.surface, group.clips
    places = max(x.ndim, y.ndim) - 2
    covered = within(x, y, surfaces.window[clips, surface, None]) & spread(surfaces.present[clips, surface, frames], places)
    if surface % surfaces.stacked == 0:
        return covered
    if surfaces.selects and covered.shape[1] == 1:
        return _covers_nearby(surfaces, group, frames, x, y, covered)
    u, v, in_front = surfaces.at_image(surface, frames, x, y, clips, bent=group.bent)
    return covered & _shows(surfaces, group, u, v, clips) & in_front


def _covers_nearby(surfaces: Surfaces, group: Group, frame: slice, x: Tensor, y: Tensor, covered: Tensor) -> Bool[Tensor, "b 1 *places"]:
    """``covers`` in one frame, evaluated at the points that the surface could reach."""

    def shows(x: Tensor, y: Tensor, clips: Tensor) -> tuple[Tensor, ...]:
        u, v, in_front = surfaces.at_image(group.surface, frame, x, y, clips, bent=group.bent)
        return (_shows(surfaces, group, u, v, clips) & in_front,)

    positions = surfaces.positions(group.clips)
    near = covered & _near(surfaces, group, frame, x, y)
    found = torch.zeros(len(surfaces.box), *near.shape[1:], dtype=torch.bool)
    fill((found,), positions, near, x, y, shows)
    return found[positions]


def _near(surfaces: Surfaces, group: Group, frame: slice, x: Tensor, y: Tensor) -> Bool[Tensor, "b 1 *places"]:
    """Where in a frame a surface could show: around the corners of its box, or as far from the box as its bend reaches."""
    surface, clips = group.surface, group.clips
    box = surfaces.box[clips, surface, None]  # (b, 1, 4)
    if group.bent and (bends := surfaces.bends[surface]) is not None:
        u, v, in_front = surfaces.at_image(surface, frame, x, y, clips, bent=False)
        far = spline.reach(bends.bend[clips, frame.start], box[:, 0])[:, None] + 1e-6  # for rounding
        return within(u, v, box + torch.cat([-far, far], -1)) & in_front
    u, v, w = linear(surfaces.to_frame[clips, surface, frame], box[..., [0, 2, 0, 2]], box[..., [1, 1, 3, 3]])
    corners = torch.stack([u, v], -1) / torch.where(w > HORIZON, w, torch.nan)[..., None]  # (b, 1, 4, 2): NaN behind the horizon
    low, high = corners.amin(2) - 1e-6, corners.amax(2) + 1e-6
    return within(x, y, torch.cat([low.nan_to_num(-torch.inf), high.nan_to_num(torch.inf)], -1))


def _shows(surfaces: Surfaces, group: Group, u: Tensor, v: Tensor, clips: Clips) -> Bool[Tensor, "b K *places"]:
    """Whether a layer shows at image coordinates: inside its outline, where its texture is at least half opaque."""
    inside = contains(surfaces, group.surface, u, v, clips, group.shapes)
    if surfaces.alpha is None:
        return inside
    texture = surfaces.image[clips, group.surface]
    return inside & (_interpolated(surfaces.alpha, spread(texture[:, None], u.ndim - 2), u, v) >= 0.5)


def contains(
    surfaces: Surfaces, surface: int, u: Tensor, v: Tensor, clips: Clips = EVERYONE, shapes: tuple[int, ...] | None = None
) -> Tensor:
    """Whether image coordinates lie inside a surface's outline. ``shapes``: codes that occur; None: any."""
    if shapes is None:
        shapes = tuple({shape for group in surfaces.layered if group.surface == surface for shape in group.shapes})
    if surface % surfaces.stacked == 0 or not set(shapes) - {outline.BOX}:
        return within(u, v, surfaces.box[clips, surface, None])
    places = max(u.ndim, v.ndim) - 2
    row, box = (part[clips, surface, None].reshape(-1, 1, *[1] * places, part.shape[-1]) for part in (surfaces.outline, surfaces.box))
    return outline.inside(row, box, u, v, shapes)


def lead(
    surfaces: Surfaces, origin: slice, target: slice, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Int64[Tensor, "B 1 *places"], Tensor]:
    """Where points of one frame are in another, the surface that shows them, and whether it shows in the other frame too."""
    shown = top(surfaces, origin, x, y)
    dx, dy, in_front = surfaces.displace(shown, origin, target, x, y)
    u, v = x + dx, y + dy
    return u, v, shown, surfaces.in_frame(u, v) & in_front & (top(surfaces, target, u, v) == shown)


def stays(surfaces: Surfaces, frame: int, other: int, shown: Tensor, x: Tensor, y: Tensor) -> Bool[Tensor, "B 1 *places"]:
    """Whether points of a frame, on surfaces ``shown``, stay in all frames up to another, or read the image and so need not."""
    kept = torch.ones_like(shown, dtype=torch.bool)
    backs = range(0, len(surfaces), surfaces.stacked) if surfaces.reads_previous else ()  # layers read the image
    for t in range(min(frame, other) + 1, max(frame, other)):
        for back in backs:
            dx, dy, in_front = surfaces.move(back, slice(frame, frame + 1), slice(t, t + 1), x, y)
            inside = surfaces.in_frame(x + dx, y + dy) & in_front
            kept &= inside | (shown != back) | ~spread(surfaces.recursive[:, back, None], inside.ndim - 2)
    return kept


def follow(surfaces: Surfaces, frame: int, frames: slice, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Bool[Tensor, "B K *places"]]:
    """Coordinates in ``frames`` of points given in ``frame``, and whether they are visible there.

    ``frames`` must contain ``frame``, because in a clip that reads its previous frame, points that leave the frame in between are lost.
    """
    origin = slice(frame, frame + 1)
    shown = top(surfaces, origin, x, y)
    dx, dy, in_front = surfaces.displace(shown, origin, frames, x, y)
    u, v = x + dx, y + dy
    inside = surfaces.in_frame(u, v) & in_front
    here = frame - frames.indices(surfaces.num_frames)[0]
    unbroken = torch.cat([_never_false(inside[:, : here + 1].flip(1)).flip(1), _never_false(inside[:, here:])[:, 1:]], 1)
    recursive = surfaces.recursive.gather(1, shown.flatten(1)).reshape(shown.shape)
    visible = torch.where(recursive, unbroken, inside) & (top(surfaces, frames, u, v) == shown)
    return u, v, visible


def from_image(surfaces: Surfaces, surface: int, x: Tensor, y: Tensor) -> Points:
    """Frame coordinates, in every frame, of pixels of a surface's image, and whether they are visible there."""
    u, v, in_front = surfaces.at_frame(surface, x, y)
    inside = surfaces.in_frame(u, v) & in_front
    inside = torch.where(spread(surfaces.recursive[:, surface, None], x.ndim - 2), _never_false(inside), inside)
    return u, v, inside & contains(surfaces, surface, x, y) & (top(surfaces, slice(None), u, v) == surface)


def within(x: Tensor, y: Tensor, box: Float64[Tensor, "B K 4"]) -> Bool[Tensor, "..."]:
    """Whether points lie inside boxes ``(x0, y0, x1, y1)``."""
    places = max(x.ndim, y.ndim) - 2
    x0, y0, x1, y1 = (spread(edge, places) for edge in box.unbind(-1))
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def _never_false(flags: Bool[Tensor, "B K *places"]) -> Bool[Tensor, "B K *places"]:
    """True before the first False along the frames."""
    return flags.int().cummin(1).values.bool()


def _interpolated(rasters: Float64[Tensor, "M H W"], which: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Rasters at points, bilinearly, 0 outside: as renderers read textures at their own scale."""
    h, w = rasters.shape[1:]
    x0, y0 = x.floor(), y.floor()
    total = torch.zeros_like(x)
    for column, share_x in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
        for row, share_y in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
            there = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            index = (which * h + row.clamp(0, h - 1).long()) * w + column.clamp(0, w - 1).long()
            total += torch.where(there, rasters.take(index) * share_x * share_y, 0.0)
    return total
