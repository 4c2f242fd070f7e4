"""Motion blur: frames that are averages over the time that a shutter is open. Not from the paper.

Frame t is exposed from ``t - exposure / 2`` to ``t + exposure / 2``, in frame intervals. It is the average of ``subframes`` sub-frames,
each in the middle of an equal part of that time. Labels of frame t belong to the **middle** of its exposure: they are those of the clip
without blur.

Between two frames everything moves at constant speed: where pixels read, color maps, bends and opacities are interpolated linearly.
Before the first frame and after the last, motion goes on as in the nearest interval. Where a back reads its previous frame, a sub-frame is
that frame without blur under the step, shortened or lengthened; in frame 0, frame 0 itself under a part of the next step. So blur is never
fed back, and clips without blur are the limit of short exposures.

Every renderer renders sub-frames, as frames of plans of their own.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from pseudomotion import color, geometry, spline
from pseudomotion.motion import Layers, Motion, map_fields, to_tensors
from pseudomotion.plan import Back, MotionPlan
from pseudomotion.render.output import Output, finish, to_unit
from pseudomotion.untraced import untraced

CHUNK = 2**28  # bytes, as float32, of the sub-frames of all the clips that are exposed at a time

Numbers = Float[np.ndarray, "..."]
Render = Callable[[Shaped[Tensor, "N C H W"], MotionPlan, Output, Shaped[Tensor, "M _ _ _"] | None, int], Shaped[Tensor, "N T C h w"]]


@untraced
def expose(
    images: Shaped[Tensor, "N C H W"], plan: MotionPlan, output: Output, textures: Shaped[Tensor, "M _ _ _"] | None, render: Render
) -> Shaped[Tensor, "B _ _ h w"]:
    """Clips of a plan with an exposure, finished.

    Args:
        images: ``(N, C, H, W)``, uint8 or float in [0, 1].
        plan: for these images.
        output: format of the clips.
        textures: what layers show; None: they show ``images``.
        render: makes clips of a plan without exposure: of images, plan, output, textures and a number of sub-frames, which are averaged:
            so many frames of the plan become one.

    """
    plan = plan.to("cpu")
    t, (h, w), channels = plan.num_frames, plan.frame_size, images.shape[1]
    unit = replace(output, mean=None, std=None, dtype=_float(images.dtype), data_format="BTCHW")  # clips in [0, 1]
    form = unit if plan.mixes else replace(output, data_format="BTCHW")
    count = len(plan) if plan.mixes else output.count
    clips = images.new_empty((count, t, channels, h, w), dtype=form.dtype)
    most = max(1, CHUNK // max(1, 4 * plan.subframes * t * channels * h * w))
    for recursive in (False, True):
        group = (plan.back.reads_previous[:count] == recursive).nonzero()[:, 0]
        for first in range(0, len(group), most):
            some = group[first : first + most]
            shown, shown_by_layers = images[plan.back.image[some].to(images.device)], images if textures is None else textures
            if recursive:
                sharp = render(shown, _sharp_backs(plan, some), replace(unit, count=len(some)), None, 1)
                shown, shown_by_layers = sharp.flatten(0, 1), to_unit(shown_by_layers)  # (n * T, C, h, w)
            parts = _sub_plan(plan, some, recursive=recursive)
            made = render(shown, parts, replace(form, count=len(parts)), shown_by_layers if plan.num_layers else None, plan.subframes)
            clips[some.to(clips.device)] = made.view(len(some), t, channels, h, w)
    if plan.mixes:
        return finish(clips.transpose(1, 2), plan.blend, output)
    return clips if output.data_format == "BTCHW" else clips.transpose(1, 2).contiguous()


def _float(dtype: torch.dtype) -> torch.dtype:
    """In which frames are averaged."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _sharp_backs(plan: MotionPlan, some: Int64[Tensor, " n"]) -> MotionPlan:
    """The backs of some clips, which read their previous frames, without layers."""
    motion = map_fields(plan.back.motion, lambda tensor: tensor[some])
    back = Back(torch.arange(len(some), device="cpu"), motion, plan.back.reads_previous[some])
    none = map_fields(plan.layers, lambda tensor: tensor[some, :0])
    return _replace(plan, back, none, plan.transform[some], plan.image_size)


def _sub_plan(plan: MotionPlan, some: Int64[Tensor, " n"], *, recursive: bool) -> MotionPlan:
    """The sub-frames of some clips, S for every frame: n clips of T S frames.

    ``recursive``: n T clips of S frames instead, each of which shows one of the n T frames without blur.
    """
    n, t, parts = len(some), plan.num_frames, plan.subframes
    instants = np.arange(t).repeat(parts) + plan.exposure * np.tile((np.arange(parts) + 0.5) / parts - 0.5, t)
    motion = map_fields(plan.back.motion, lambda tensor: tensor[some].numpy())
    layers = map_fields(plan.layers, lambda tensor: tensor[some].numpy())
    before = np.floor(instants).clip(0, t - 2).astype(np.int64)
    share = instants - before  # of the interval from the frame before to the next; below 0 or above 1 at the ends of the clip
    opacity = _lerp(layers.opacity[..., before], layers.opacity[..., before + 1], share).clip(0, 1)
    moved = _between(_at(layers.motion, before), _at(layers.motion, before + 1), share, plan.frame_size)
    layers = replace(layers, motion=moved, opacity=opacity)
    transform = plan.transform[some]
    if not recursive:
        motion = _between(_at(motion, before), _at(motion, before + 1), share, plan.frame_size)
        back = Back(torch.arange(n, device="cpu"), to_tensors(motion), torch.zeros(n, dtype=torch.bool, device="cpu"))
        return _replace(plan, back, to_tensors(layers), transform, plan.image_size)
    frame = np.arange(t).repeat(parts)
    last = np.maximum(frame - 1, 0)  # the frame without blur that is read
    step = _at(motion, np.maximum(frame, 1))
    motion = _between(_still(step), step, instants - last, plan.frame_size)
    motion = map_fields(motion, lambda array: array.reshape(n * t, parts, *array.shape[2:]))
    image = torch.from_numpy((np.arange(n)[:, None] * t + last[::parts]).reshape(n * t))
    back = Back(image, to_tensors(motion), torch.zeros(n * t, dtype=torch.bool, device="cpu"))

    def split(array: Numbers) -> Numbers:
        parted = array.reshape(*array.shape[:2], t, parts, *array.shape[3:])  # (n, L, T, S, ...)
        return parted.swapaxes(1, 2).reshape(n * t, array.shape[1], parts, *array.shape[3:])

    layers = replace(
        map_fields(layers, lambda array: array.repeat(t, 0)),  # (n T, L, ...)
        motion=map_fields(layers.motion, split),
        opacity=split(layers.opacity),
    )
    return _replace(plan, back, to_tensors(layers), transform.repeat_interleave(t), plan.frame_size)


def _replace(plan: MotionPlan, back: Back, layers: Layers, transform: Int64[Tensor, " n"], image_size: tuple[int, int]) -> MotionPlan:
    """A plan without exposure and blend, whose layers show textures even where those of ``plan`` show images."""
    texture_size = (plan.texture_size or plan.image_size) if layers.texture.shape[1] else None
    return replace(
        plan, back=back, layers=layers, blend=None, transform=transform, image_size=image_size, texture_size=texture_size, exposure=0.0
    )


def _at(motion: Motion, frames: Int64[np.ndarray, " T"]) -> Motion:
    """Motion with the given frames."""
    assert motion.bend is not None
    return Motion(motion.homography[..., frames, :, :], motion.color[..., frames, :, :], bend=motion.bend[..., frames, :, :, :])


def _still(like: Motion) -> Motion:
    """No motion."""
    assert like.bend is not None
    homography, colors = (np.broadcast_to(unit, a.shape) for unit, a in ((np.eye(3), like.homography), (color.IDENTITY, like.color)))
    return Motion(homography, colors, bend=np.zeros_like(like.bend))


def _between(before: Motion, after: Motion, share: Float64[np.ndarray, " T"], frame_size: tuple[int, int]) -> Motion:
    """Motion part of the way from one to the other."""
    assert before.bend is not None
    assert after.bend is not None
    share = share[:, None, None]
    same = (before.homography == after.homography).all((-1, -2), keepdims=True)
    with np.errstate(all="ignore"):  # a homography that shows nothing may be any matrix
        read = _lerp(_to_read(before.homography, frame_size), _to_read(after.homography, frame_size), share)
        homography = np.where(same, before.homography, geometry.inverse(read))
    bend = _lerp(before.bend, after.bend, share[..., None]).clip(-spline.LARGEST, spline.LARGEST)  # extrapolated bends must not fold
    return Motion(homography, _lerp(before.color, after.color, share), bend=bend)


def _to_read(homography: Float[np.ndarray, "*b 3 3"], frame_size: tuple[int, int]) -> Float64[np.ndarray, "*b 3 3"]:
    """Homographies from frame pixel to pixel of what is read; denominators are 1 at the frame's center."""
    matrix = geometry.inverse(homography.astype(np.float64))
    h, w = frame_size
    center = matrix[..., 2, 0] * ((w - 1) / 2) + matrix[..., 2, 1] * ((h - 1) / 2) + matrix[..., 2, 2]
    return matrix / center[..., None, None]


def _lerp(
    before: Float[np.ndarray, "..."], after: Float[np.ndarray, "..."], share: Float64[np.ndarray, "..."]
) -> Float64[np.ndarray, "..."]:
    return before + share * (after - before)
