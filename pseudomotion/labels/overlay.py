"""Visualization of motion labels: flow, tracks, a moving grid and instances, drawn over the frames of a clip."""

import colorsys
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from pseudomotion.labels import flow, flow_to_rgb, instances, tracks
from pseudomotion.plan import MotionPlan

Frames = UInt8[np.ndarray, "T h w 3"]
Color = tuple[int, int, int]

FINE = 3  # supersampling factor, for antialiasing
TAIL = 5  # number of previous positions that a track's line connects
POINTS, MESH = 12, 10  # points per axis of tracks and of the grid
LINE = (255, 214, 10)


def draw_flow(frames: Frames, plan: MotionPlan, clip: int, textures: Tensor | None = None) -> Frames:
    """The clip in gray, tinted by its flow to the next frame; the last frame by the flow from the previous one."""
    if plan.num_frames < 2:
        return frames
    vectors = torch.cat([flow(plan, textures=textures)[clip], -flow(plan, backward=True, textures=textures)[clip, -1:]])
    colors = flow_to_rgb(vectors).permute(0, 2, 3, 1).cpu().numpy() / 255
    light = frames.mean(-1, keepdims=True) / 255
    return np.asarray(((0.25 + 0.75 * light) * colors * 255).round(), dtype=np.uint8)


def draw_tracks(frames: Frames, plan: MotionPlan, clip: int, textures: Tensor | None = None) -> Frames:
    """The clip with tracked points, each in its own color, and lines through their last few positions."""
    places, visible = tracks(plan, _lattice(plan.frame_size, POINTS), textures=textures)
    _, h, w, _ = frames.shape
    colors = [_hue(n / POINTS**2) for n in range(POINTS**2)]
    radius = max(min(h, w) / 80, 1.5)

    def lines(t: int) -> Iterable[tuple[Sequence[float], Color, float]]:
        for n, color in enumerate(colors):
            if visible[clip, t, n]:
                for k in range(max(t - TAIL, 0), t):
                    yield (places[clip, k : k + 2, n].flatten().tolist(), color, radius * 0.5)

    def dots(t: int) -> Iterable[tuple[Sequence[float], Color, float]]:
        for n, color in enumerate(colors):
            if visible[clip, t, n]:
                yield (places[clip, t, n].tolist(), color, radius)

    return np.stack([_overlay(frame, lines(t), dots(t)) for t, frame in enumerate(frames)])


def draw_grid(frames: Frames, plan: MotionPlan, clip: int, textures: Tensor | None = None) -> Frames:
    """The clip with a square grid that is placed on the first frame and moves with the image."""
    points = _lattice(plan.frame_size, MESH)
    places, visible = tracks(plan, points, textures=textures)
    pairs = [(n, n + 1) for n in range(MESH**2) if (n + 1) % MESH] + [(n, n + MESH) for n in range(MESH**2 - MESH)]
    edge = (points[1] - points[0]).norm() + (points[MESH] - points[0]).norm()

    def lines(t: int) -> Iterable[tuple[Sequence[float], Color, float]]:
        for a, b in pairs:
            start, end = places[clip, t, a], places[clip, t, b]
            # Grid neighbors on different layers drift apart; a line between them would suggest a motion that does not exist.
            if visible[clip, t, a] and visible[clip, t, b] and (end - start).norm() < 3 * edge:
                yield ([*start.tolist(), *end.tolist()], LINE, max(min(frames.shape[1:3]) / 200, 0.7))

    return np.stack([_overlay(frame, lines(t), ()) for t, frame in enumerate(frames)])


def draw_instances(frames: Frames, plan: MotionPlan, clip: int, textures: Tensor | None = None) -> Frames:
    """The clip in gray, each object tinted in its own color and the back left gray."""
    shown = instances(plan, textures=textures)[clip].cpu().numpy()  # (T, h, w)
    # Steps of the golden ratio: neighbors in depth get hues far apart.
    colors = np.array([(255, 255, 255), *(_hue(0.618 * k % 1) for k in range(1, int(shown.max()) + 1))]) / 255
    light = frames.mean(-1, keepdims=True) / 255
    return np.asarray(((0.25 + 0.75 * light) * colors[shown] * 255).round(), dtype=np.uint8)


SHOWS = {"flow": draw_flow, "tracks": draw_tracks, "grid": draw_grid, "instances": draw_instances}


def _lattice(size: tuple[int, int], count: int) -> Tensor:
    """``count`` x ``count`` points (x, y) in row-major order, spread evenly over a frame."""
    y, x = ((torch.arange(count, dtype=torch.float64) + 0.5) / count * side - 0.5 for side in size)
    return torch.cartesian_prod(y, x).flip(-1)


def _hue(share: float) -> Color:
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(share, 0.75, 1.0))
    return red, green, blue


def _overlay(
    frame: UInt8[np.ndarray, "h w 3"],
    lines: Iterable[tuple[Sequence[float], Color, float]],
    dots: Iterable[tuple[Sequence[float], Color, float]],
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw antialiased lines ``((x0, y0, x1, y1), color, half width)`` and dots ``((x, y), color, radius)``, in pixels, over a frame."""
    h, w, _ = frame.shape
    layer = Image.new("RGBA", (w * FINE, h * FINE))
    pen = ImageDraw.Draw(layer)
    for line, color, half in lines:
        pen.line([(c + 0.5) * FINE for c in line], fill=color, width=max(round(2 * half * FINE), 1))
    for (x, y), color, radius in dots:
        middle_x, middle_y, reach = (x + 0.5) * FINE, (y + 0.5) * FINE, radius * FINE
        pen.ellipse((middle_x - reach, middle_y - reach, middle_x + reach, middle_y + reach), fill=color)
    return np.array(Image.alpha_composite(Image.fromarray(frame).convert("RGBA"), layer.reduce(FINE)).convert("RGB"))
