"""The reference renderer: kornia's sampling, plain tensor arithmetic around it. It defines what is right.

Works on any device and is differentiable with respect to the images. Nothing here reads a tensor's values, so it compiles into one graph
and never waits for a device.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.geometry.transform import remap
from torch import Tensor

from pseudomotion import geometry
from pseudomotion.plan import MotionPlan, Pass, scales
from pseudomotion.render.blend import blend_clips

Images = Float[Tensor, "B C H W"]
Pyramid = list[Float[Tensor, "B C _ _"]]
Frames = Float[Tensor, "n C T h w"]

HORIZON = 1e-3  # denominators below this (of 1 at the frame's centre) are as far outside the image as matters


def render(images: Images, plan: MotionPlan, *, padding_mode: str) -> Float[Tensor, "B C T h w"]:
    """Clips of a plan, before formatting.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], float32 or float64. Coordinates are computed in the same precision.
        plan: for as many images of the same size, on the same device.
        padding_mode: "zeros", "border" or "reflection": what shows outside what a frame reads.

    """
    pyramid = _pyramid(images, max([0, *(p.levels[1] for p in plan.passes)]))
    clips = images.new_empty(len(plan), images.shape[1], plan.num_frames, *plan.frame_size)
    for p in plan.passes:
        frames = _recursion(pyramid, plan, p, padding_mode) if p.recursive else _from_source(pyramid, plan, p, padding_mode)
        if p.layer:
            opacity = _of(plan.opacity, p)[:, None, :, None, None].to(frames)
            frames = torch.lerp(clips[p.clips], frames, opacity * _coverage(plan, p, frames.dtype)[:, None])
        clips = frames if p.everyone else clips.index_copy_(0, p.clips, frames)
    return _mix(clips, plan) if plan.mixes else clips


def _of(tensor: Tensor, p: Pass) -> Tensor:
    """The pass's part of a plan's tensor ``(B, L, ...)``."""
    layer = tensor[:, p.layer]
    return layer if p.everyone else layer[p.clips]


def _pyramid(images: Images, levels: int) -> Pyramid:
    """The images, and their averages over blocks of 2x2, 4x4, ... pixels; a block at the far edge may be cut off."""
    pyramid = [images]
    for _ in range(levels):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2, ceil_mode=True, count_include_pad=False))
    return pyramid


def _from_source(pyramid: Pyramid, plan: MotionPlan, p: Pass, padding_mode: str, frames: int | None = None) -> Frames:
    """Frames of one layer sampled from the source images: all of them, or the first few."""
    matrices = geometry.inverse(_of(plan.homography, p)[:, :frames].double())
    low, high = p.levels
    detail = geometry.level_of_detail(_of(scales(plan), p)[:, :frames])
    clip = None
    for level in range(low, high + 1):
        images = pyramid[level] if p.own_image else pyramid[level][_of(plan.source, p)]
        sampled = _sample(images, _to_level(matrices, level), plan.frame_size, padding_mode, affine=p.affine)
        if low < high:
            sampled = sampled * (1 - (detail - level).abs()).clamp(min=0)[:, None, :, None, None].to(sampled)
        clip = sampled if clip is None else clip + sampled
    assert clip is not None
    return _develop(clip, plan, p, slice(frames))


def _recursion(pyramid: Pyramid, plan: MotionPlan, p: Pass, padding_mode: str) -> Frames:
    """Frame 0 sampled from the source images, every other frame from the one before it."""
    frame = _from_source(pyramid, plan, p, padding_mode, frames=1)
    clip = frame.new_empty(*frame.shape[:2], plan.num_frames, *plan.frame_size)
    clip[:, :, :1] = frame
    matrices = geometry.inverse(_of(plan.homography, p)[:, 1:].double())
    grid = None
    for t in range(1, plan.num_frames):
        if grid is None or not p.steady:
            # Kept from step to step: kornia's ``remap`` would stack it anew every time, a quarter of the recursion's time.
            grid = torch.stack(_grid(matrices[:, t - 1 : t], plan.frame_size, plan.frame_size, frame.dtype, affine=p.affine), -1)[:, 0]
        frame = F.grid_sample(_with_axes(frame[:, :, 0], padding_mode), grid, padding_mode=padding_mode, align_corners=True)[:, :, None]
        frame = _develop(frame, plan, p, slice(t, t + 1))
        clip[:, :, t : t + 1] = frame
    return clip


def _develop(frames: Frames, plan: MotionPlan, p: Pass, t: slice) -> Frames:
    """Sampled frames under their color maps, and where they are a back layer under its opacity."""
    if p.colored:
        frames = _recolor(frames, _of(plan.color, p)[:, t])
    if p.layer or p.opaque:
        return frames
    return frames * _of(plan.opacity, p)[:, None, t, None, None].to(frames)


def _to_level(matrices: Float[Tensor, "n T 3 3"], level: int) -> Float[Tensor, "n T 3 3"]:
    """Homographies to source pixels, made to lead to the pixels of a pyramid level."""
    if level == 0:
        return matrices
    size = 2.0**level
    reduce = matrices.new_tensor([[1 / size, 0, (0.5 - size / 2) / size], [0, 1 / size, (0.5 - size / 2) / size], [0, 0, 1]])
    return geometry.matmul(reduce.expand_as(matrices), matrices)


def _sample(
    images: Float[Tensor, "n C H W"], matrices: Float[Tensor, "n T 3 3"], size: tuple[int, int], padding_mode: str, *, affine: bool
) -> Float[Tensor, "n C T h w"]:
    """Frames of a size from images, by homographies from frame pixel to image pixel.

    The frames lie below each other in one map, so that no image is copied.
    """
    grid = _grid(matrices, (images.shape[-2], images.shape[-1]), size, images.dtype, affine=affine)
    x, y = (coordinate.flatten(1, 2) for coordinate in grid)
    images = _with_axes(images, padding_mode)
    frames: Tensor = remap(images, x, y, padding_mode=padding_mode, align_corners=True, normalized_coordinates=True)
    return frames.reshape(*frames.shape[:2], *grid[0].shape[1:])


def _with_axes(images: Float[Tensor, "n C H W"], padding_mode: str) -> Float[Tensor, "n C _ _"]:
    """Images that the sampler takes right: one pixel makes no axis from -1 to 1, and would be found everywhere.

    Black neighbours make one.
    """
    if padding_mode == "zeros" and 1 in images.shape[-2:]:
        return F.pad(images, [int(side == 1) for side in images.shape[:-3:-1] for _ in range(2)])
    return images


def _grid(
    matrices: Float[Tensor, "n T 3 3"], source_size: tuple[int, int], size: tuple[int, int], dtype: torch.dtype, *, affine: bool
) -> tuple[Float[Tensor, "n T h w"], Float[Tensor, "n T h w"]]:
    """Where every frame pixel reads the source, in coordinates that are -1 and 1 at its outermost pixel centres."""
    (scale_y, shift_y), (scale_x, shift_x) = ((2 / (side - 1), -1.0) if side > 1 else (1.0, 0.0) for side in source_size)
    normalise = matrices.new_tensor([[scale_x, 0, shift_x], [0, scale_y, shift_y], [0, 0, 1]])
    return _project(geometry.matmul(normalise.expand_as(matrices), matrices), size, dtype, affine=affine)


def _project(
    matrices: Float[Tensor, "n T 3 3"], size: tuple[int, int], dtype: torch.dtype, *, affine: bool
) -> tuple[Float[Tensor, "n T h w"], Float[Tensor, "n T h w"]]:
    """Every pixel (x, y) of a frame under homographies."""
    x = torch.arange(size[1], dtype=dtype, device=matrices.device)
    y = torch.arange(size[0], dtype=dtype, device=matrices.device)[:, None]
    center = matrices[..., 2, 0] * ((size[1] - 1) / 2) + matrices[..., 2, 1] * ((size[0] - 1) / 2) + matrices[..., 2, 2]
    rows = (matrices / center[..., None, None]).to(dtype)[..., None, None, :, :].unbind(-2)
    u, v = (row[..., 0] * x + (row[..., 1] * y + row[..., 2]) for row in rows[:2])
    if affine:
        return u, v
    w = (rows[2][..., 0] * x + (rows[2][..., 1] * y + rows[2][..., 2])).clamp_(min=HORIZON)
    return u.div_(w), v.div_(w)


def _recolor(clip: Frames, color: Float[Tensor, "n T 3 4"]) -> Frames:
    """The clip under its color maps, clamped to [0, 1]."""
    weights = color.to(clip)[..., None, None].unbind(2)
    red, green, blue = clip.unbind(1)
    rows = [torch.addcmul(row[:, :, 3], row[:, :, 0], red).addcmul(row[:, :, 1], green).addcmul(row[:, :, 2], blue) for row in weights]
    return torch.stack(rows, 1).clamp(0, 1)


def _coverage(plan: MotionPlan, p: Pass, dtype: torch.dtype) -> Float[Tensor, "n T h w"]:
    """Share of every frame pixel that the layer's box covers, with an edge one source pixel soft."""
    x, y = _project(geometry.inverse(_of(plan.homography, p).double()), plan.frame_size, dtype, affine=p.affine)
    x0, y0, x1, y1 = _of(plan.box, p)[:, None, None, None].to(dtype).unbind(-1)
    across = (torch.minimum(x - x0, x1 - x) + 0.5).clamp(0, 1)
    return across * (torch.minimum(y - y0, y1 - y) + 0.5).clamp(0, 1)


def _mix(clips: Float[Tensor, "B C T h w"], plan: MotionPlan) -> Float[Tensor, "B C T h w"]:
    """Every clip blended with its partner, within the partner's box and frames."""
    return blend_clips(clips, clips[plan.partner], plan.partner_weight, plan.partner_box, plan.partner_frames)
