"""The reference renderer, which defines what a clip is: plain torch, in kornia's pixel coordinates.

It runs on any device and is differentiable with respect to images and textures. It never reads tensor values on the host, so it compiles
to a single graph and never synchronizes with the device.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.geometry.conversions import normal_transform_pixel
from torch import Tensor

from pseudomotion import geometry, spline
from pseudomotion.outline import coverage
from pseudomotion.passes import Pass
from pseudomotion.plan import MotionPlan

TRANSPARENT = 1e-6  # alpha below which a layer's colors do not matter

Images = Float[Tensor, "N C H W"]
Pyramid = list[Float[Tensor, "N C _ _"]]
Frames = Float[Tensor, "n C t h w"]


def render(images: Images, plan: MotionPlan, textures: Float[Tensor, "M _ _ _"] | None = None) -> Float[Tensor, "B C T h w"]:
    """Render the clips of a plan, before they are blended with their partners.

    Args:
        images: ``(N, C, H, W)`` in [0, 1], float32 or float64. Coordinates are rounded to the same precision.
        plan: on the same device.
        textures: ``(M, C, _, _)``, images that layers show; None: layers show ``images``. Over images of three channels they may have four,
            the last of which is alpha.

    """
    clips = images.new_empty(len(plan), images.shape[1], plan.num_frames, *plan.frame_size)
    in_layers = [p for passes in plan.layer_passes for p in passes]
    pyramid = _pyramid(images, plan.passes if textures is not None else [*plan.passes, *in_layers])
    for p in plan.passes:
        clips[p.clips] = _paint_back(pyramid, plan, p)
    if textures is not None:
        pyramid = _pyramid(_premultiplied(textures) if cut_out(images, textures) else textures, in_layers)
    for layer, passes in enumerate(plan.layer_passes):
        for p in passes:
            frames, opacity = _paint_layer(pyramid, plan, layer, p, images.shape[1])
            clips[p.clips] = torch.lerp(clips[p.clips], frames, opacity)
    return clips


def _paint_back(pyramid: Pyramid, plan: MotionPlan, p: Pass) -> Frames:
    """Equation 1 of the paper: frame t is f(frame t-1). In a pass that is not recursive, every frame is f_t(image)."""
    back, motion = plan.back, plan.back.motion
    images = [level[back.image[p.clips]] for level in pyramid]
    to_read = geometry.inverse(motion.homography[p.clips].double())  # (n, T, 3, 3): pixel of frame t to pixel of what it reads
    color, detail = motion.color[p.clips], plan.detail[p.clips]
    bend = motion.bend[p.clips] if p.bent and motion.bend is not None else None
    image_box, frame_box = (to_read.new_tensor([-0.5, -0.5, w - 0.5, h - 0.5]) for h, w in (plan.image_size, plan.frame_size))
    if not p.recursive:
        return _recolor(_read(images, _Places(to_read, bend, image_box), detail, p, plan), color, p)
    first = _Places(to_read[:, :1], None if bend is None else bend[:, :1], image_box)
    frames = [_recolor(_read(images, first, detail[:, :1], p, plan), color[:, :1], p)]
    grid = None
    for t in range(1, plan.num_frames):
        if grid is None or not p.steady:
            places = _Places(to_read[:, t : t + 1], None if bend is None else bend[:, t : t + 1], frame_box)
            grid = _grid(places, 0, plan.frame_size, plan.frame_size, images[0].dtype)
        frame = _sample(frames[-1][:, :, 0], grid, plan.padding_mode)
        frames.append(_recolor(frame, color[:, t : t + 1], p))
    return torch.cat(frames, 2)


def _paint_layer(
    pyramid: Pyramid, plan: MotionPlan, layer: int, p: Pass, channels: int
) -> tuple[Float[Tensor, "n _ T h w"], Float[Tensor, "n 1 T h w"]]:
    """The frames that a layer shows, and its opacity at every pixel."""
    layers, motion = plan.layers, plan.layers.motion
    textures = [level[layers.texture[p.clips, layer]] for level in pyramid]
    to_texture = geometry.inverse(motion.homography[p.clips, layer].double())
    bend = motion.bend[p.clips, layer] if p.bent and motion.bend is not None else None
    places = _Places(to_texture, bend, layers.box[p.clips, layer, None].double())
    frames = _read(textures, places, plan.layer_detail[p.clips, layer], p, plan)
    alpha = None
    if channels < frames.shape[1]:
        alpha = frames[:, 3]
        frames = frames[:, :3] / alpha[:, None].clamp(min=TRANSPARENT)
    frames = _recolor(frames, motion.color[p.clips, layer], p)
    x, y = places.points(plan.frame_size, frames.dtype).unbind(-1)
    box, outline = (tensor[p.clips, layer, None, None, None].to(x) for tensor in (layers.box, layers.outline))  # (n, 1, 1, 1, K)
    opacity = layers.opacity[p.clips, layer, :, None, None].to(x) * coverage(outline, box, x, y, (p.shape,))
    return frames, (opacity if alpha is None else opacity * alpha)[:, None]


def cut_out(images: Tensor, textures: Tensor | None) -> bool:
    """Whether textures have an alpha channel, which images lack: where it is 0, a layer shows what lies behind it."""
    return textures is not None and (images.shape[1], textures.shape[1]) == (3, 4)


def _premultiplied(textures: Float[Tensor, "M 4 _ _"]) -> Float[Tensor, "M 4 _ _"]:
    """Colors times alpha: interpolated so, transparent pixels do not bleed into their neighbors."""
    alpha = textures[:, 3:]
    return torch.cat([textures[:, :3] * alpha, alpha], 1)


class _Places(NamedTuple):
    """Where frames read: homographies from frame pixel to pixel of what is read, and bends over a box of it."""

    to_read: Float[Tensor, "n t 3 3"]
    bend: Float[Tensor, "n t 2 G G"] | None  # None: rigid
    box: Float[Tensor, "*#nt 4"]

    def points(self, frame_size: tuple[int, int], dtype: torch.dtype) -> Float[Tensor, "n t h w 2"]:
        """What every pixel of the frames reads, (x, y)."""
        points = _points(self.to_read, frame_size, dtype)
        if self.bend is None:
            return points
        x, y = points.flatten(2, 3).unbind(-1)  # (n, t, h * w)
        moved = torch.stack(spline.displacement(self.bend.to(dtype), self.box.to(dtype).expand(*x.shape[:2], 4), x, y), -1)
        return points + moved.view_as(points)


def _read(images: Pyramid, places: _Places, detail: Float[Tensor, "n t"], p: Pass, plan: MotionPlan) -> Frames:
    """Sample frames from an image pyramid, interpolating linearly between two levels where ``detail`` is fractional."""
    levels = []
    for level in range(p.levels[0], p.levels[1] + 1):
        height, width = images[level].shape[-2:]
        grid = _grid(places, level, (height, width), plan.frame_size, images[level].dtype)
        share = (1 - (detail - level).abs()).clamp(min=0).to(images[level])
        levels.append(_sample(images[level], grid, plan.padding_mode) * share[:, None, :, None, None])
    return torch.stack(levels).sum(0) if len(levels) > 1 else levels[0]


def _pyramid(images: Images, passes: list[Pass] | tuple[Pass, ...]) -> Pyramid:
    """The images, and their averages over blocks of 2x2, 4x4, ... pixels; blocks at the right and bottom edges may be cut off."""
    pyramid = [images]
    for _ in range(max([0, *(p.levels[1] for p in passes)])):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2, ceil_mode=True, count_include_pad=False))
    return pyramid


def _grid(places: _Places, level: int, size: tuple[int, int], frame_size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Sampling grid for a pyramid level of ``size``, ``(n, t, h, w, 2)``: in ``grid_sample``'s coordinates, -1 and 1 at outer pixels."""
    to_read = places.to_read
    normalize = normal_transform_pixel(*size, dtype=to_read.dtype, device=to_read.device)[0]
    for axis, side in enumerate(reversed(size)):
        if side == 1:  # kornia 0.8 divides by 0; 0.9 maps the pixel to 0
            normalize[axis, axis], normalize[axis, 2] = 1, 0
    if places.bend is None:
        if level:
            to_read = geometry.matmul(_to_level(level, to_read).expand_as(to_read), to_read)
        return _points(geometry.matmul(normalize.expand_as(to_read), to_read), frame_size, dtype)
    last = geometry.matmul(normalize, _to_level(level, to_read)).to(dtype)
    return places.points(frame_size, dtype) * last.diagonal()[:2] + last[:2, 2]


def _to_level(level: int, like: Tensor) -> Float[Tensor, "3 3"]:
    """Homography from image pixel to pixel of a pyramid level."""
    size = 2.0**level
    return like.new_tensor([[1 / size, 0, (0.5 - size / 2) / size], [0, 1 / size, (0.5 - size / 2) / size], [0, 0, 1]])


def _points(matrices: Float[Tensor, "n t 3 3"], frame_size: tuple[int, int], dtype: torch.dtype) -> Float[Tensor, "n t h w 2"]:
    """Apply homographies to all pixels of a frame."""
    h, w = frame_size
    x = torch.arange(w, dtype=dtype, device=matrices.device)
    y = torch.arange(h, dtype=dtype, device=matrices.device)[:, None]
    center = matrices[..., 2, 0] * ((w - 1) / 2) + matrices[..., 2, 1] * ((h - 1) / 2) + matrices[..., 2, 2]
    a, b, c = (matrices / center[..., None, None]).to(dtype)[..., None, None].unbind(-3)  # each (n, t, 3, 1, 1)
    u, v, depth = (a * x + (b * y + c)).unbind(2)  # each (n, t, h, w)
    return torch.stack([u, v], -1) / depth.clamp(min=geometry.HORIZON)[..., None]


def _sample(images: Float[Tensor, "n C H W"], grid: Float[Tensor, "n t h w 2"], padding_mode: str) -> Frames:
    """Sample images bilinearly."""
    if padding_mode == "zeros":
        # On an axis of one pixel, grid_sample's [-1, 1] is degenerate: all coordinates hit that pixel. Black neighbors avoid this.
        images = F.pad(images, [int(side == 1) for side in images.shape[:-3:-1] for _ in range(2)])
    n, t, h, w, _ = grid.shape
    frames = F.grid_sample(images, grid.flatten(1, 2), padding_mode=padding_mode, align_corners=True)  # (n, C, t * h, w)
    return frames.view(n, -1, t, h, w)


def _recolor(frames: Frames, color: Float[Tensor, "n t 3 4"], p: Pass) -> Frames:
    """Apply color maps to frames, and clamp to [0, 1]."""
    if not p.colored:
        return frames
    weights = color.to(frames)[..., None, None].unbind(2)  # rows, each (n, t, 4, 1, 1)
    red, green, blue = frames.unbind(1)
    rows = [torch.addcmul(row[:, :, 3], row[:, :, 0], red).addcmul(row[:, :, 1], green).addcmul(row[:, :, 2], blue) for row in weights]
    return torch.stack(rows, 1).clamp(0, 1)
