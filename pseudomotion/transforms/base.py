"""What a transform is: ranges (fields), numbers drawn from them (``make_params``), and the motion they mean (``make_plan``)."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from pseudomotion import color as color_maps
from pseudomotion.draws import Draws
from pseudomotion.geometry import level_of_detail, stack

Range = tuple[float, float]
Params = Mapping[str, Float64[Tensor, " b"]]


def allowed(default: Range, low: float, high: float) -> Any:
    """A field that holds a range ``(low, high)`` to draw from, itself within ``[low, high]``."""
    return dataclasses.field(default=default, metadata={"allowed": (low, high)})


@dataclass(frozen=True)
class Motion:
    """What a transform decides for ``b`` clips of ``T`` frames on ``l`` layers; the fields are those of ``MotionPlan``, in float64."""

    homography: Float64[Tensor, "b l T 3 3"]
    color: Float64[Tensor, "b l T 3 4"]
    box: Float64[Tensor, "b l 4"]


@dataclass(frozen=True)
class View:
    """The first view of ``b`` clips: which window of the source fills the frame. A window is a centre and a scale.

    A window of centre ``(x, y)`` and scale ``s`` shows, at frame pixel ``(u, v)``, the source at ``x + s (u - (w-1)/2)``,
    ``y + s (v - (h-1)/2)``. It *lies inside* the source where no sample, and none of the pixels averaged into it, is outside.
    """

    source_size: tuple[int, int]
    frame_size: tuple[int, int]
    num_frames: int
    center: Float64[Tensor, "b 2"]
    scale: Float64[Tensor, " b"]

    @classmethod
    def first(cls, source_size: tuple[int, int], frame_size: tuple[int, int], num_frames: int, crop: Range | None, draws: Draws) -> "View":
        """The largest centred window, or with ``crop`` a random one whose area is drawn as a share of the largest one's."""
        ids = draws.ids
        center = torch.tensor([(source_size[1] - 1) / 2, (source_size[0] - 1) / 2], dtype=torch.float64, device="cpu").expand(len(ids), 2)
        view = cls(source_size, frame_size, num_frames, center, cls.largest_scale(source_size, frame_size).expand(len(ids)))
        if crop is None:
            return view
        area, x, y = draws.uniform("crop", 3)
        scale = view.scale * between(crop, area).sqrt()
        return dataclasses.replace(view, center=view.place(scale, torch.stack([x, y], -1)), scale=scale)

    @staticmethod
    def largest_scale(source_size: tuple[int, int], frame_size: tuple[int, int]) -> Float64[Tensor, ""]:
        """Scale of the largest window that lies inside the source."""
        sides = list(zip(source_size, frame_size, strict=True))
        scale = min(source / frame for source, frame in sides)
        averaged = 2 ** int(level_of_detail(torch.tensor(scale, dtype=torch.float64, device="cpu")).ceil())
        # A larger scale would read beyond the outermost pixel centres, where padding mixes in: dark lines around an enlarged image.
        fits = [(source - averaged) / (frame - 1) for source, frame in sides if frame > 1 and source > averaged]
        return torch.tensor(min([scale, *fits]), dtype=torch.float64, device="cpu")

    def select(self, clips: Tensor) -> "View":
        """The view of some clips of the batch."""
        return dataclasses.replace(self, center=self.center[clips], scale=self.scale[clips])

    def limits(self, scale: Float64[Tensor, " b"]) -> tuple[Float64[Tensor, "b 2"], Float64[Tensor, "b 2"]]:
        """Least and greatest centre (x, y) of a window of ``scale`` that lies inside the source; both its middle if none does."""
        (source_h, source_w), (h, w) = self.source_size, self.frame_size
        margin = (2 ** level_of_detail(scale).ceil() - 1) / 2
        low = torch.stack([scale * ((w - 1) / 2) + margin, scale * ((h - 1) / 2) + margin], -1)
        middle = torch.tensor([(source_w - 1) / 2, (source_h - 1) / 2], dtype=torch.float64, device="cpu")
        return torch.minimum(low, middle), torch.maximum(2 * middle - low, middle)

    def place(self, scale: Float64[Tensor, " b"], at: Float64[Tensor, "b 2"]) -> Float64[Tensor, "b 2"]:
        """Centre of a window of ``scale`` inside the source; ``at`` in [0, 1] goes from its least to its greatest (x, y)."""
        low, high = self.limits(scale)
        return low + (high - low) * at

    def window(self, center: Float64[Tensor, "*b 2"], scale: Float64[Tensor, "*b"]) -> Float64[Tensor, "*b 3 3"]:
        """Homography, source pixel to frame pixel, of a window."""
        h, w = self.frame_size
        x, y = center.unbind(-1)
        zoom = 1 / scale
        return stack([[zoom, 0.0, (w - 1) / 2 - x * zoom], [0.0, zoom, (h - 1) / 2 - y * zoom], [0.0, 0.0, 1.0]])

    def still(self) -> Float64[Tensor, "b T 3 3"]:
        """The first view on every frame."""
        return self.window(self.center, self.scale)[:, None].expand(-1, self.num_frames, -1, -1)

    def then(self, step: Float64[Tensor, "b 3 3"]) -> Float64[Tensor, "b T 3 3"]:
        """The first view on frame 0, and the same ``step`` from each frame to the next (for transforms that read the previous frame)."""
        return torch.cat([self.still()[:, :1], step[:, None].expand(-1, self.num_frames - 1, -1, -1)], 1)

    def image_box(self) -> Float64[Tensor, "b 4"]:
        """The whole source image as a box."""
        h, w = self.source_size
        return torch.tensor([-0.5, -0.5, w - 0.5, h - 0.5], dtype=torch.float64, device="cpu").expand(len(self.scale), 4)

    def motion(self, homography: Float64[Tensor, "b T 3 3"], color: Float64[Tensor, "b T 3 4"] | None = None) -> Motion:
        """A motion of one layer that shows the whole source image."""
        color = color_maps.identity(len(self.scale), self.num_frames) if color is None else color
        return Motion(homography[:, None], color[:, None], self.image_box()[:, None])


class Transform(ABC):
    """Base of all transforms: a frozen dataclass whose fields are ranges ``(low, high)``, per step from one frame to the next.

    A subclass sets ``name``, declares its ranges with ``allowed`` and writes ``make_params`` and ``make_plan``. Both are vectorised
    over the clips of the batch that drew this transform; the clip at position i depends on the draws and the view at i alone.
    """

    name: ClassVar[str]
    reads_previous: ClassVar[bool] = False  # frame t+1 is made from frame t, else every frame from the source image
    needs_rgb: ClassVar[bool] = False  # has a color map, so images need three channels
    num_layers: ClassVar[int] = 1  # a second layer shows the clip's partner in the batch

    def __post_init__(self) -> None:
        """Check every range; a list becomes a tuple."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            value, (low, high) = getattr(self, field.name), field.metadata["allowed"]
            if not isinstance(value, (tuple, list)) or not all(isinstance(v, (int, float)) for v in value):
                raise TypeError(f"{type(self).__name__}.{field.name} must be a pair of numbers (low, high), got {value!r}")
            if len(value) != 2 or not all(map(math.isfinite, value)) or not low <= value[0] <= value[1] <= high:
                raise ValueError(
                    f"{type(self).__name__}.{field.name} must be a pair (low, high) with {low:g} <= low <= high <= {high:g}, got {value!r}"
                )
            object.__setattr__(self, field.name, tuple(value))

    @abstractmethod
    def make_params(self, draws: Draws) -> Params:
        """Draw: one number per clip for every parameter, in this transform's units."""

    @abstractmethod
    def make_plan(self, params: Params, view: View) -> Motion:
        """Decide: the motion that the parameters mean for this first view."""


def between(bounds: Range, number: Float64[Tensor, " b"]) -> Float64[Tensor, " b"]:
    """``number`` in [0, 1], spread over a range."""
    return bounds[0] + (bounds[1] - bounds[0]) * number


def steps(num_frames: int) -> Float64[Tensor, " T"]:
    """Number of the frame, 0 to T-1."""
    return torch.arange(num_frames, dtype=torch.float64, device="cpu")
