"""The reference renderer: kornia's coordinates, torch's ``grid_sample``, plain tensor arithmetic around it. It defines what is right.

Works on any device and is differentiable with respect to the images. Nothing here reads a tensor's values, so it compiles into one graph
and never waits for a device.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from kornia.geometry.conversions import normal_transform_pixel
from torch import Tensor

from pseudomotion import geometry
from pseudomotion.plan import MotionPlan, Pass
from pseudomotion.render.memory import empty

Images = Float[Tensor, "B C H W"]
Pyramid = list[Float[Tensor, "B C _ _"]]
Clips = Float[Tensor, "B C T h w"]
Frames = Float[Tensor, "n C t h w"]

HORIZON = 1e-3  # denominators below this (of 1 at the frame's centre) are as far outside the image as matters
CACHE = 2**21  # bytes that a core of a CPU keeps at hand


class Lines(NamedTuple):
    """Where pixels are read: the sum of a part that depends on the column and one that depends on the row.

    Both have two coordinates, or where homographies are not affine three, of which the last divides the others.
    """

    columns: Float[Tensor, "n d T 1 w"]
    rows: Float[Tensor, "n d T h 1"]

    def some(self, few: slice) -> "Lines":
        """Those of a few clips."""
        return Lines(self.columns[few], self.rows[few])


class Reading(NamedTuple):
    """Where frames read a level of the image pyramid, and how much it adds to them."""

    level: int
    lines: Lines
    share: Float[Tensor, "n T"]


class Part(NamedTuple):
    """How n clips of a pass are painted."""

    clips: slice | Int64[Tensor, " n"]  # where in the batch they stand
    source: slice | Int64[Tensor, " n"]  # and where the images that they show
    readings: list[Reading]  # of the images: for all frames, or the first where the others read the frame before them
    steps: Lines | None  # where these read it; of the first alone where that holds for all
    coverage: Lines | None  # what a layer before another shows of its image, in pixels
    color: Float[Tensor, "n T 3 4"]
    opacity: Float[Tensor, "n T"]
    box: Float[Tensor, "n 4"]

    def some(self, few: slice) -> "Part":
        """A few of the clips."""
        return Part(
            few if isinstance(self.clips, slice) else self.clips[few],
            few if isinstance(self.source, slice) else self.source[few],
            [Reading(level, lines.some(few), share[few]) for level, lines, share in self.readings],
            None if self.steps is None else self.steps.some(few),
            None if self.coverage is None else self.coverage.some(few),
            self.color[few],
            self.opacity[few],
            self.box[few],
        )


def render(images: Images, plan: MotionPlan, *, padding_mode: str) -> Clips:
    """Clips of a plan, before they are mixed and formatted.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], float32 or float64. Coordinates are computed in the same precision.
        plan: for as many images of the same size, on the same device.
        padding_mode: "zeros", "border" or "reflection": what shows outside what a frame reads.

    """
    pyramid = _pyramid(images, max([0, *(high for p in plan.passes for _, high in p.levels)]))
    clips = empty((len(plan), images.shape[1], plan.num_frames, *plan.frame_size), images.dtype, images.device)
    most = frames_at_once(images, plan)
    for p in plan.passes:
        whole = _part(plan, p, pyramid)
        together = _clips_at_once(p, most, plan.num_frames)
        for start in range(0, len(p.clips), together):
            part = whole.some(slice(start, start + together))
            if p.recursive:
                _recursion(clips, pyramid, p, part, padding_mode)
            else:
                _from_source(clips, pyramid, p, part, padding_mode, most)
    return clips


def frames_at_once(images: Images, plan: MotionPlan) -> int:
    """How many frames to paint together.

    What a CPU has painted it reads again at once, in half the time where it is in a cache still. Elsewhere, and where every piece would
    make a graph longer, it is all of them.
    """
    if images.device.type != "cpu" or torch.compiler.is_compiling() or (images.requires_grad and torch.is_grad_enabled()):
        return max(1, len(plan) * plan.num_frames)
    h, w = plan.frame_size
    touched = (2 * images.shape[1] + 2) * h * w * images.element_size()  # a frame, what it reads, and where
    return torch.get_num_threads() * max(1, CACHE // touched)


def _clips_at_once(p: Pass, most: int, num_frames: int) -> int:
    """How many clips to paint together.

    One, where its frames keep as many cores busy as clips would (see ``_sample``), for they read one image. Small frames, of which a cache
    holds whole clips for every core, are better painted in fewer pieces.
    """
    if p.recursive or most >= len(p.clips) * num_frames:
        return most
    busy = min(torch.get_num_threads(), len(p.clips))
    return 1 if num_frames >= busy and most < busy * num_frames else most


def _pyramid(images: Images, levels: int) -> Pyramid:
    """The images, and their averages over blocks of 2x2, 4x4, ... pixels; a block at the far edge may be cut off."""
    pyramid = [images]
    for _ in range(levels):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2, ceil_mode=True, count_include_pad=False))
    return pyramid


def _part(plan: MotionPlan, p: Pass, pyramid: Pyramid) -> Part:
    """All clips of a pass."""
    chosen = slice(None) if p.everyone else p.clips
    source, homography, detail, color, opacity, box = (
        tensor[:, p.layer][chosen] for tensor in (plan.source, plan.homography, plan.detail, plan.color, plan.opacity, plan.box)
    )
    from_image = slice(1) if p.recursive else slice(None)  # frames that read it
    to_source, size, dtype = geometry.inverse(homography.double()), plan.frame_size, pyramid[0].dtype
    return Part(
        chosen,
        slice(None) if p.own_image else source,
        _readings(to_source[:, from_image], detail[:, from_image], p, pyramid, size),
        _reading(to_source[:, 1 : 2 if p.steady else None], size, size, dtype, affine=p.affine) if p.recursive else None,
        _lines(to_source, size, dtype, affine=p.affine) if p.layer else None,
        color,
        opacity,
        box,
    )


def _readings(
    to_source: Float[Tensor, "n T 3 3"], detail: Float[Tensor, "n T"], p: Pass, pyramid: Pyramid, size: tuple[int, int]
) -> list[Reading]:
    """How frames of a size read the images, under homographies from frame to source, at these levels of detail."""
    low, high = min(low for low, _ in p.levels), max(high for _, high in p.levels)
    readings = []
    for level in range(low, high + 1):
        height, width = pyramid[level].shape[-2:]
        lines = _reading(_to_level(to_source, level), (height, width), size, pyramid[level].dtype, affine=p.affine)
        share = (1 - (detail - level).abs()).clamp(min=0).to(pyramid[level])
        readings.append(Reading(level, lines, share))
    return readings


def _from_source(clips: Clips, pyramid: Pyramid, p: Pass, part: Part, padding_mode: str, most: int) -> None:
    """Paint frames that are read from the source images: more together than of a recursion, for those stay in the cache all the while."""
    at_once = max(1, 8 * most // len(part.opacity))
    images = _images(pyramid, part, padding_mode)
    for t in _pieces(p, at_once):
        frames = _develop(_read(images, p, part, t, padding_mode), p, part, t)
        if part.coverage is not None:
            opacity = part.opacity[:, None, t, None, None].to(frames)
            frames = torch.lerp(clips[part.clips, :, t], frames, opacity * _coverage(part.coverage, t, part.box)[:, None])
        _put(clips, frames, part, t)


def _recursion(clips: Clips, pyramid: Pyramid, p: Pass, part: Part, padding_mode: str) -> None:
    """Paint frame 0 from the source images, every other frame from the one before it."""
    assert part.steps is not None
    frame = _develop(_read(_images(pyramid, part, padding_mode), p, part, slice(1), padding_mode), p, part, slice(1))
    _put(clips, frame, part, slice(1))
    grid = None
    for k in range(1, clips.shape[2]):
        if grid is None or not p.steady:
            grid = _grid(part.steps, slice(k - 1, k))
        t = slice(k, k + 1)
        frame = _develop(_sample(_with_axes(frame[:, :, 0], padding_mode), grid, padding_mode), p, part, t)
        _put(clips, frame, part, t)


def _put(clips: Clips, frames: Frames, part: Part, t: slice) -> None:
    """Write frames to their place."""
    if isinstance(part.clips, slice):
        clips[part.clips, :, t] = frames
    else:
        clips[:, :, t].index_copy_(0, part.clips, frames)


def _develop(frames: Frames, p: Pass, part: Part, t: slice) -> Frames:
    """Sampled frames under their color maps, and where they are a back layer under its opacity."""
    if p.colored:
        frames = _recolor(frames, part.color[:, t])
    if p.layer or p.opaque:
        return frames
    return frames * part.opacity[:, None, t, None, None].to(frames)


def _images(pyramid: Pyramid, part: Part, padding_mode: str) -> list[Float[Tensor, "n C _ _"]]:
    """The images that clips show, at the levels of the pyramid that they read."""
    return [_with_axes(pyramid[reading.level][part.source], padding_mode) for reading in part.readings]


def _pieces(p: Pass, at_once: int) -> Iterator[slice]:
    """The frames of a pass, at most so many together, and only such as read the same levels of the pyramid."""
    start = 0
    for _, run in itertools.groupby(p.levels):
        end = start + len(list(run))
        for first in range(start, end, at_once):
            yield slice(first, min(end, first + at_once))
        start = end


def _read(images: list[Float[Tensor, "n C _ _"]], p: Pass, part: Part, t: slice, padding_mode: str) -> Frames:
    """Frames that read the same levels of the pyramid, sampled from these and added up."""
    low, high = p.levels[t.start or 0]
    frames = None
    for reduced, (level, lines, share) in zip(images, part.readings, strict=True):
        if not low <= level <= high:
            continue
        sampled = _sample(reduced, _grid(lines, t), padding_mode)
        if low < high:
            sampled = sampled * share[:, None, t, None, None]
        frames = sampled if frames is None else frames + sampled
    assert frames is not None
    return frames


def _to_level(matrices: Float[Tensor, "n T 3 3"], level: int) -> Float[Tensor, "n T 3 3"]:
    """Homographies to source pixels, made to lead to the pixels of a pyramid level."""
    if level == 0:
        return matrices
    size = 2.0**level
    reduce = matrices.new_tensor([[1 / size, 0, (0.5 - size / 2) / size], [0, 1 / size, (0.5 - size / 2) / size], [0, 0, 1]])
    return geometry.matmul(reduce.expand_as(matrices), matrices)


def _sample(images: Float[Tensor, "n C H W"], grid: Float[Tensor, "n t h w 2"], padding_mode: str) -> Frames:
    """Frames from images, none of which is copied.

    The frames of one image are a batch, which is shared out among the cores of a CPU; those of several lie below each other in one grid.
    """
    sample = functools.partial(F.grid_sample, padding_mode=padding_mode, align_corners=True)
    if len(images) == 1:
        return sample(images.expand(grid.shape[1], -1, -1, -1), grid[0]).transpose(0, 1)[None]
    return sample(images, grid.flatten(1, 2)).view(*images.shape[:2], *grid.shape[1:4])


def _with_axes(images: Float[Tensor, "n C H W"], padding_mode: str) -> Float[Tensor, "n C _ _"]:
    """Images that the sampler takes right: one pixel makes no axis from -1 to 1, and would be found everywhere.

    Black neighbours make one.
    """
    if padding_mode == "zeros" and 1 in images.shape[-2:]:
        return F.pad(images, [int(side == 1) for side in images.shape[:-3:-1] for _ in range(2)])
    return images


def _reading(
    matrices: Float[Tensor, "n T 3 3"], source: tuple[int, int], size: tuple[int, int], dtype: torch.dtype, *, affine: bool
) -> Lines:
    """Where every pixel of a frame reads images of a size, in coordinates that are -1 and 1 at their outermost pixel centres."""
    normalise = normal_transform_pixel(*source, dtype=matrices.dtype, device=matrices.device)
    return _lines(geometry.matmul(normalise.expand_as(matrices), matrices), size, dtype, affine=affine)


def _lines(matrices: Float[Tensor, "n T 3 3"], size: tuple[int, int], dtype: torch.dtype, *, affine: bool) -> Lines:
    """Every pixel (x, y) of a frame under homographies."""
    x = torch.arange(size[1], dtype=dtype, device=matrices.device)
    y = torch.arange(size[0], dtype=dtype, device=matrices.device)[:, None]
    center = matrices[..., 2, 0] * ((size[1] - 1) / 2) + matrices[..., 2, 1] * ((size[0] - 1) / 2) + matrices[..., 2, 2]
    a, b, c = (matrices / center[..., None, None])[:, :, : 2 if affine else 3].to(dtype).transpose(1, 2)[..., None, None, :].unbind(-1)
    return Lines(a * x, b * y + c)


def _grid(lines: Lines, t: slice) -> Float[Tensor, "n t h w 2"]:
    """The points of some frames; one coordinate lies after the other in memory, for so they are made and sampled soonest."""
    points = lines.columns[:, :, t] + lines.rows[:, :, t]
    if points.shape[1] == 3:
        points = points[:, :2].div_(points[:, 2:].clamp_(min=HORIZON))
    return points.permute(0, 2, 3, 4, 1)


def _recolor(clip: Frames, color: Float[Tensor, "n T 3 4"]) -> Frames:
    """The clip under its color maps, clamped to [0, 1]."""
    weights = color.to(clip)[..., None, None].unbind(2)
    red, green, blue = clip.unbind(1)
    rows = [torch.addcmul(row[:, :, 3], row[:, :, 0], red).addcmul(row[:, :, 1], green).addcmul(row[:, :, 2], blue) for row in weights]
    return torch.stack(rows, 1).clamp(0, 1)


def _coverage(lines: Lines, t: slice, box: Float[Tensor, "n 4"]) -> Float[Tensor, "n t h w"]:
    """Share of every frame pixel that a layer's box covers, with an edge one source pixel soft; lines lead to pixels of its source."""
    x, y = _grid(lines, t).unbind(-1)
    x0, y0, x1, y1 = box[:, None, None, None].to(x).unbind(-1)
    across = (torch.minimum(x - x0, x1 - x) + 0.5).clamp(0, 1)
    return across * (torch.minimum(y - y0, y1 - y) + 0.5).clamp(0, 1)
