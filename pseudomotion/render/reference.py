"""The reference renderer: kornia's coordinates, torch's ``grid_sample``, plain tensor arithmetic around it. It defines what is right.

Works on any device and is differentiable with respect to the images. Nothing here reads a tensor's values, so it compiles into one graph
and never waits for a device.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from kornia.geometry.conversions import normal_transform_pixel
from torch import Tensor

from pseudomotion import geometry
from pseudomotion.plan import MotionPlan, Pass

Images = Float[Tensor, "B C H W"]
Pyramid = list[Float[Tensor, "B C _ _"]]
Clips = Float[Tensor, "B C T h w"]
Frames = Float[Tensor, "n C t h w"]

HORIZON = 1e-3  # denominators below this (of 1 at the frame's centre) are as far outside the image as matters
CACHE = 2**21  # bytes that a core of a CPU keeps at hand


class Part(NamedTuple):
    """What n clips of a pass show: their part of the plan."""

    clips: slice | Int64[Tensor, " n"]  # where in the batch they stand
    source: slice | Int64[Tensor, " n"]  # and where the images that they show
    to_source: Float[Tensor, "n T 3 3"]  # pixel of a frame to pixel of what it reads
    color: Float[Tensor, "n T 3 4"]
    opacity: Float[Tensor, "n T"]
    box: Float[Tensor, "n 4"]


class Lines(NamedTuple):
    """Where pixels are read: the sum of a part that depends on the column and one that depends on the row.

    Both have two coordinates, or where homographies are not affine three, of which the last divides the others.
    """

    columns: Float[Tensor, "n d T 1 w"]
    rows: Float[Tensor, "n d T h 1"]


class Source(NamedTuple):
    """A level of the image pyramid, where frames read it, and how much it adds to them; None for all."""

    images: Float[Tensor, "n C _ _"]
    lines: Lines
    share: Float[Tensor, "n T"] | None


def render(images: Images, plan: MotionPlan, *, padding_mode: str) -> Clips:
    """Clips of a plan, before they are mixed and formatted.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], float32 or float64. Coordinates are computed in the same precision.
        plan: for as many images of the same size, on the same device.
        padding_mode: "zeros", "border" or "reflection": what shows outside what a frame reads.

    """
    pyramid = _pyramid(images, max([0, *(p.levels[1] for p in plan.passes)]))
    clips = images.new_empty(len(plan), images.shape[1], plan.num_frames, *plan.frame_size)
    most = frames_at_once(images, plan)
    for p in plan.passes:
        for part in _parts(plan, p, most):
            sources = _sources(pyramid, p, part, plan.frame_size, padding_mode)
            if p.recursive:
                _recursion(clips, sources, p, part, padding_mode)
            else:
                _from_source(clips, sources, p, part, padding_mode, max(1, most // len(part.opacity)))
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


def _parts(plan: MotionPlan, p: Pass, most: int) -> list[Part]:
    """The clips of a pass, at most so many together."""
    chosen = slice(None) if p.everyone else p.clips
    source, homography, color, opacity, box = (
        tensor[:, p.layer][chosen] for tensor in (plan.source, plan.homography, plan.color, plan.opacity, plan.box)
    )
    to_source = geometry.inverse(homography.double())
    parts = []
    for start in range(0, len(p.clips), most):
        few = slice(start, start + most)
        clips, images = few if p.everyone else p.clips[few], few if p.own_image else source[few]
        parts.append(Part(clips, images, to_source[few], color[few], opacity[few], box[few]))
    return parts


def _pyramid(images: Images, levels: int) -> Pyramid:
    """The images, and their averages over blocks of 2x2, 4x4, ... pixels; a block at the far edge may be cut off."""
    pyramid = [images]
    for _ in range(levels):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2, ceil_mode=True, count_include_pad=False))
    return pyramid


def _sources(pyramid: Pyramid, p: Pass, part: Part, size: tuple[int, int], padding_mode: str) -> list[Source]:
    """What frames of a size read of the source images: all of them, or the first where the others read the frame before."""
    to_source = part.to_source[:, :1] if p.recursive else part.to_source
    low, high = p.levels
    detail = geometry.level_of_detail(geometry.scale_at_center(to_source, size)) if low < high else None
    sources = []
    for level in range(low, high + 1):
        images = pyramid[level][part.source]
        lines = _reading(_to_level(to_source, level), images, size, affine=p.affine)
        share = None if detail is None else (1 - (detail - level).abs()).clamp(min=0).to(images)
        sources.append(Source(_with_axes(images, padding_mode), lines, share))
    return sources


def _from_source(clips: Clips, sources: list[Source], p: Pass, part: Part, padding_mode: str, at_once: int) -> None:
    """Paint frames that are read from the source images, so many together."""
    coverage = _lines(part.to_source, (clips.shape[-2], clips.shape[-1]), clips.dtype, affine=p.affine) if p.layer else None
    for start in range(0, clips.shape[2], at_once):
        t = slice(start, start + at_once)
        frames = _develop(_read(sources, t, padding_mode), p, part, t)
        if coverage is not None:
            opacity = part.opacity[:, None, t, None, None].to(frames)
            frames = torch.lerp(clips[part.clips, :, t], frames, opacity * _coverage(coverage, t, part.box)[:, None])
        _put(clips, frames, part, t)


def _recursion(clips: Clips, sources: list[Source], p: Pass, part: Part, padding_mode: str) -> None:
    """Paint frame 0 from the source images, every other frame from the one before it."""
    frame = _develop(_read(sources, slice(1), padding_mode), p, part, slice(1))
    _put(clips, frame, part, slice(1))
    lines = _reading(part.to_source[:, 1:], frame[:, :, 0], (clips.shape[-2], clips.shape[-1]), affine=p.affine)
    grid = None
    for k in range(1, clips.shape[2]):
        if grid is None or not p.steady:
            grid = _grid(lines, slice(k - 1, k))
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


def _read(sources: list[Source], t: slice, padding_mode: str) -> Frames:
    """Frames sampled from the source images: the levels of the pyramid that they read, added up."""
    frames = None
    for images, lines, share in sources:
        sampled = _sample(images, _grid(lines, t), padding_mode)
        if share is not None:
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
    """Frames from images. They lie below each other in one grid, so that no image is copied."""
    frames = F.grid_sample(images, grid.flatten(1, 2), padding_mode=padding_mode, align_corners=True)
    return frames.view(*images.shape[:2], *grid.shape[1:4])


def _with_axes(images: Float[Tensor, "n C H W"], padding_mode: str) -> Float[Tensor, "n C _ _"]:
    """Images that the sampler takes right: one pixel makes no axis from -1 to 1, and would be found everywhere.

    Black neighbours make one.
    """
    if padding_mode == "zeros" and 1 in images.shape[-2:]:
        return F.pad(images, [int(side == 1) for side in images.shape[:-3:-1] for _ in range(2)])
    return images


def _reading(matrices: Float[Tensor, "n T 3 3"], images: Float[Tensor, "n C H W"], size: tuple[int, int], *, affine: bool) -> Lines:
    """Where every pixel of a frame reads images, in coordinates that are -1 and 1 at their outermost pixel centres."""
    normalise = normal_transform_pixel(*images.shape[-2:], dtype=matrices.dtype, device=matrices.device)
    return _lines(geometry.matmul(normalise.expand_as(matrices), matrices), size, images.dtype, affine=affine)


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
