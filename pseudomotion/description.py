"""Plans in words."""

import dataclasses
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float32
from torch import Tensor

from pseudomotion import color as color_maps
from pseudomotion import geometry
from pseudomotion.motion import Motion
from pseudomotion.transforms import ALL_TRANSFORMS

if TYPE_CHECKING:
    from pseudomotion.plan import MotionPlan


def describe(drawn: "MotionPlan", i: int) -> str:
    """Describe clip ``i`` of a plan, as ``MotionPlan.describe``."""
    if not -len(drawn) <= i < len(drawn):
        raise IndexError(f"plan has {len(drawn)} clips, so there is no clip {i}")
    i %= len(drawn)
    plan = _without_bends(drawn.to("cpu")).composed()
    (image_h, image_w), (h, w) = plan.image_size, plan.frame_size
    index = int(plan.transform[i])
    name = list(ALL_TRANSFORMS)[index] if index >= 0 else "custom"
    reads = "the previous frame" if drawn.back.reads_previous[i] else "the image"
    lines = [
        f"clip {i}: {name}, {plan.num_frames} frames of {h}x{w} from {image_h}x{image_w}; each frame reads {reads}",
        *_describe_back(plan, i),
        *_describe_bend(drawn.back.motion, i),
    ]
    for layer in range(plan.num_layers):
        lines += _describe_layer(plan, i, layer)
        if plan.layers.opacity[i, layer].any():
            lines += _describe_bend(drawn.layers.motion, (i, layer))
    if plan.blend is not None and plan.blend.weight[i] > 0:
        lines.append(_describe_blend(plan, i))
    if plan.exposed:
        lines.append(f"  exposed for {plan.exposure:g} of the frame interval: averages of {plan.subframes} sub-frames")
    return "\n".join(lines)


def _describe_back(plan: "MotionPlan", i: int) -> list[str]:
    """Lines about the back of clip ``i`` of a composed plan: what it shows, and how fast it moves."""
    matrices, last = plan.back.motion.homography[i].double(), plan.num_frames - 1
    lines = [f"  back: image {int(plan.back.image[i])}"]
    corners = torch.from_numpy(geometry.frame_corners(plan.frame_size))
    seen = geometry.transform_points(geometry.inverse(matrices), corners)
    lines += [f"    frame {t} sees {_span(*seen[t, 0].tolist(), *seen[t, 2].tolist())} of it" for t in sorted({0, last})]
    if last:
        step = geometry.matmul(matrices[1:], geometry.inverse(matrices[:-1]))
        moved = (geometry.transform_points(step, corners) - corners).norm(dim=-1)
        lines.append(f"    its corners move {moved.min():.2f} to {moved.max():.2f} px per step")
    return lines + _describe_color(plan.back.motion.color[i])


def _describe_layer(plan: "MotionPlan", i: int, layer: int) -> list[str]:
    """Lines about a layer: what it shows and where. Empty if the layer is never visible."""
    layers = plan.layers
    if not layers.opacity[i, layer].any():
        return []
    box, of = layers.box[i, layer].double(), "image" if plan.texture_size is None else "texture"
    placed = geometry.transform_points(layers.motion.homography[i, layer].double(), box.reshape(2, 2))
    return [
        f"  layer {layer}: {of} {int(layers.texture[i, layer])}",
        f"    shows the box {_span(*box.tolist())} of it",
        *(f"    at {_span(*placed[t].flatten().tolist())} of frame {t}" for t in sorted({0, plan.num_frames - 1})),
        *_describe_color(layers.motion.color[i, layer]),
    ]


def _describe_bend(motion: Motion, index: int | tuple[int, int]) -> list[str]:
    """A line about a bend; empty if there is none."""
    assert motion.bend is not None
    bend = motion.bend[index]
    return [f"    bent by up to {bend.abs().max():.2f} cells of a {bend.shape[-1]} x {bend.shape[-1]} grid"] if bend.any() else []


def _without_bends(plan: "MotionPlan") -> "MotionPlan":
    assert plan.back.motion.bend is not None
    rigid = dataclasses.replace(plan.back.motion, bend=torch.zeros_like(plan.back.motion.bend))
    return dataclasses.replace(plan, back=dataclasses.replace(plan.back, motion=rigid))


def _describe_color(color: Float32[Tensor, "T 3 4"]) -> list[str]:
    if (color == torch.from_numpy(color_maps.IDENTITY)).all():
        return []
    rows = {t: "; ".join(" ".join(f"{value:+.2f}" for value in row) for row in color[t].tolist()) for t in sorted({0, len(color) - 1})}
    return [f"    color map of frame {t}: {row}" for t, row in rows.items()]


def _describe_blend(plan: "MotionPlan", i: int) -> str:
    """A line about what clip ``i`` is mixed with; region and frames are named unless they are the whole clip."""
    assert plan.blend is not None
    partner, weight, box, frames = (tensor[i].tolist() for tensor in vars(plan.blend).values())
    (x0, y0, x1, y1), (first, last), (h, w) = box, frames, plan.frame_size
    where = "" if (x0, y0, x1, y1) == (-0.5, -0.5, w - 0.5, h - 0.5) else f", in the box ({x0:.1f}, {y0:.1f}) to ({x1:.1f}, {y1:.1f})"
    when = "" if (first, last) == (0, plan.num_frames) else f", in frames {first} to {last - 1}"
    return f"  mixed with clip {partner}, weight {weight:.3f}{where}{when}"


def _span(x0: float, y0: float, x1: float, y1: float) -> str:
    return f"({x0:.1f}, {y0:.1f}) to ({x1:.1f}, {y1:.1f})"
