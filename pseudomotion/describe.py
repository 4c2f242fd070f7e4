"""A clip of a plan in words and figures, for people."""

from typing import TYPE_CHECKING

import torch

from pseudomotion import geometry
from pseudomotion.transforms import TRANSFORMS

if TYPE_CHECKING:  # plan.py imports this module
    from pseudomotion.plan import MotionPlan


def describe_clip(plan: "MotionPlan", i: int) -> str:
    """What clip ``i`` of a plan on the CPU does; ``MotionPlan.describe`` checks that there is one."""
    (source_h, source_w), (h, w) = plan.source_size, plan.frame_size
    index = int(plan.transform[i])
    name = list(TRANSFORMS)[index] if index >= 0 else "custom"
    reads = "the previous frame" if plan.reads_previous[i] else "the source image"
    lines = [f"clip {i}: {name}, {plan.num_frames} frames of {h}x{w} from {source_h}x{source_w}; each frame reads {reads}"]
    whole = plan.composed()
    last = plan.num_frames - 1
    for layer in range(plan.num_layers):
        if not plan.opacity[i, layer].any():
            continue
        lines.append(f"  layer {layer} shows image {int(plan.source[i, layer])}")
        matrices = whole.homography[i, layer].double()
        if layer == 0:
            corners = torch.from_numpy(geometry.frame_corners(plan.frame_size))
            seen = geometry.transform_points(geometry.inverse(matrices), corners)
            lines += [f"    frame {t} sees {_span(*seen[t, 0].tolist(), *seen[t, 2].tolist())} of it" for t in sorted({0, last})]
            if last:
                step = geometry.matmul(matrices[1:], geometry.inverse(matrices[:-1]))
                moved = (geometry.transform_points(step, corners) - corners).norm(dim=-1)
                lines.append(f"    its corners move {moved.min():.2f} to {moved.max():.2f} px per step")
        else:
            box = plan.box[i, layer].double()
            lines.append(f"    of it the box {_span(*box.tolist())}")
            placed = geometry.transform_points(matrices, box.reshape(2, 2))
            lines += [f"    at {_span(*placed[t].flatten().tolist())} of frame {t}" for t in sorted({0, last})]
        if (whole.color[i, layer] != torch.eye(3, 4, device="cpu")).any():
            for t in sorted({0, last}):
                rows = "; ".join(" ".join(f"{value:+.2f}" for value in row) for row in whole.color[i, layer, t].tolist())
                lines.append(f"    color map of frame {t}: {rows}")
    if plan.partner_weight[i] > 0:
        lines.append(f"  mixed with clip {int(plan.partner[i])}, weight {float(plan.partner_weight[i]):.3f}" + _where_mixed(plan, i))
    return "\n".join(lines)


def _where_mixed(plan: "MotionPlan", i: int) -> str:
    """The part of a clip that its partner is mixed into; nothing where that is all of it."""
    (x0, y0, x1, y1), (first, last), (h, w) = plan.partner_box[i].tolist(), plan.partner_frames[i].tolist(), plan.frame_size
    box = "" if (x0, y0, x1, y1) == (-0.5, -0.5, w - 0.5, h - 0.5) else f", in the box ({x0:.1f}, {y0:.1f}) to ({x1:.1f}, {y1:.1f})"
    frames = "" if (first, last) == (0, plan.num_frames) else f", in frames {first} to {last - 1}"
    return box + frames


def _span(x0: float, y0: float, x1: float, y1: float) -> str:
    return f"({x0:.1f}, {y0:.1f}) to ({x1:.1f}, {y1:.1f})"
