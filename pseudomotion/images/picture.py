"""A drawn picture, for demonstrations without a photo."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

if TYPE_CHECKING:
    from PIL import ImageDraw

Color = tuple[int, int, int]

_SAMPLES = 4  # per pixel and axis, averaged: antialiasing
_HORIZON = 0.58

_DAY: dict[str, Color] = {
    "high": (64, 156, 222),
    "low": (206, 234, 246),
    "sun": (255, 209, 56),
    "far": (126, 132, 168),
    "snow": (248, 250, 252),
    "grass": (112, 178, 76),
    "stripe": (84, 150, 62),
    "wall": (240, 128, 60),
    "roof": (150, 46, 44),
    "window": (70, 84, 120),
    "leaves": (34, 110, 62),
    "trunk": (104, 70, 42),
    "balloon": (214, 48, 64),
    "white": (255, 250, 240),
    "ball": (44, 92, 200),
}
_NIGHT: dict[str, Color] = {
    "high": (14, 18, 52),
    "low": (96, 62, 128),
    "sun": (236, 236, 222),
    "far": (44, 42, 84),
    "snow": (150, 156, 196),
    "grass": (38, 74, 88),
    "stripe": (28, 58, 76),
    "wall": (120, 72, 128),
    "roof": (58, 30, 74),
    "window": (255, 214, 92),
    "leaves": (22, 64, 72),
    "trunk": (44, 34, 48),
    "balloon": (238, 108, 44),
    "white": (250, 214, 140),
    "ball": (0, 168, 150),
}


def builtin_picture(height: int = 448, width: int = 448, *, night: bool = False) -> UInt8[Tensor, "3 H W"]:
    """A landscape of large, distinct things: a house, a tree, a balloon, a ball. They are recognizable at 112 pixels, so motion shows.

    Args:
        height: in pixels.
        width: in pixels.
        night: whether to draw the same landscape mirrored and in other colors, as a partner that is easy to tell apart.

    Returns:
        uint8 ``(3, H, W)`` on the CPU, always the same.

    Example:
        >>> from pseudomotion.images import builtin_picture
        >>> builtin_picture(48, 64).shape
        torch.Size([3, 48, 64])

    """
    from PIL import Image, ImageDraw

    colors = _NIGHT if night else _DAY
    h, w = height * _SAMPLES, width * _SAMPLES
    blend = np.linspace(0, 1 / _HORIZON, h).clip(max=1)[:, None]
    sky = (np.array(colors["high"]) * (1 - blend) + np.array(colors["low"]) * blend).round().astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(np.broadcast_to(sky[:, None], (h, w, 3))))
    _Scene(ImageDraw.Draw(picture), h, w, colors).draw()
    pixels = torch.from_numpy(np.array(picture.reduce(_SAMPLES))).permute(2, 0, 1)  # (3, H, W)
    return (pixels.flip(-1) if night else pixels).contiguous()


class _Scene:
    """Draws things at places ``(x, y)``, fractions of the picture's sides, in sizes that are fractions of its shorter side."""

    def __init__(self, pen: "ImageDraw.ImageDraw", h: int, w: int, colors: dict[str, Color]) -> None:
        self.pen, self.h, self.w, self.unit, self.colors = pen, h, w, min(h, w), colors

    def draw(self) -> None:
        """The whole landscape, from back to front."""
        self.disk(0.17, 0.17, 0.1, "sun")
        for x, size in ((0.12, 0.22), (0.46, 0.34), (0.9, 0.26)):
            self.mountain(x, size)
        self.meadow()
        self.balloon(0.71, 0.24, 0.15)
        self.house(0.3, 0.76, 0.3)
        self.tree(0.84, 0.74, 0.26)
        self.ball(0.6, 0.87, 0.1)

    def polygon(self, x: float, y: float, corners: Iterable[tuple[float, float]], color: str) -> None:
        """Corners relative to a place, in units."""
        self.pen.polygon([(x * self.w + dx * self.unit, y * self.h + dy * self.unit) for dx, dy in corners], fill=self.colors[color])

    def box(self, x: float, y: float, left: float, top: float, right: float, bottom: float, color: str) -> None:
        """A rectangle relative to a place, in units."""
        self.polygon(x, y, [(left, top), (right, top), (right, bottom), (left, bottom)], color)

    def disk(self, x: float, y: float, radius: float, color: str, narrowed: float = 1) -> None:
        """A disk, or an ellipse that is narrower than high."""
        cx, cy, rx, ry = x * self.w, y * self.h, radius * narrowed * self.unit, radius * self.unit
        self.pen.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=self.colors[color])

    def mountain(self, x: float, size: float) -> None:
        self.polygon(x, _HORIZON, [(-size, 0.01), (0, -size), (size, 0.01)], "far")
        self.polygon(x, _HORIZON, [(-size / 3, -size * 2 / 3), (0, -size), (size / 3, -size * 2 / 3), (0, -size / 2)], "snow")

    def meadow(self) -> None:
        """Stripes that meet at the horizon."""
        top = _HORIZON * self.h
        self.pen.rectangle((0, top, self.w, self.h), fill=self.colors["grass"])
        center, step = 0.52 * self.w, 0.3 * self.unit
        count = int(self.w / step) + 2
        for k in range(-count, count, 2):
            far = [(center + 0.2 * step * j, top) for j in (k, k + 1)]
            self.pen.polygon([*far, *((center + step * j, self.h) for j in (k + 1, k))], fill=self.colors["stripe"])

    def balloon(self, x: float, y: float, radius: float) -> None:
        for side in (-1, 1):
            self.polygon(x, y, [(side * radius * 0.75, radius * 0.6), (side * 0.03, radius * 1.55), (0, radius * 1.55), (0, 0)], "balloon")
        for k, narrowed in enumerate((1, 0.72, 0.36)):
            self.disk(x, y, radius, ("balloon", "white", "balloon")[k], narrowed)
        self.box(x, y, -radius / 4, radius * 1.5, radius / 4, radius * 1.85, "trunk")

    def house(self, x: float, y: float, size: float) -> None:
        half = size / 2
        self.box(x, y, size * 0.2, -size * 1.05, size * 0.34, -size * 0.6, "roof")
        self.box(x, y, -half, -size * 0.55, half, size * 0.2, "wall")
        self.polygon(x, y, [(-half * 1.25, -size * 0.5), (0, -size * 1.1), (half * 1.25, -size * 0.5)], "roof")
        self.box(x, y, -size * 0.38, -size * 0.36, -size * 0.1, -size * 0.08, "window")
        self.box(x, y, size * 0.08, -size * 0.32, size * 0.34, size * 0.2, "white")

    def tree(self, x: float, y: float, size: float) -> None:
        self.box(x, y, -size * 0.1, -size * 0.4, size * 0.1, size * 0.35, "trunk")
        for dx, dy, radius in ((-0.22, -0.5, 0.34), (0.24, -0.5, 0.32), (0, -0.85, 0.36)):
            self.disk(x + dx * size * self.unit / self.w, y + dy * size * self.unit / self.h, radius * size, "leaves")

    def ball(self, x: float, y: float, radius: float) -> None:
        """In six sectors, so that its rotation shows."""
        cx, cy, r = x * self.w, y * self.h, radius * self.unit
        for k in range(6):
            self.pen.pieslice((cx - r, cy - r, cx + r, cy + r), 60 * k + 15, 60 * k + 75, fill=self.colors[("ball", "white", "sun")[k % 3]])
