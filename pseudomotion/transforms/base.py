"""``Transform``, the base class: fields are ranges, ``make_params`` draws from them, ``make_plan`` turns the draws into motion."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from pseudomotion import checks, outline
from pseudomotion import color as color_maps
from pseudomotion.draws import Draws, Numbers
from pseudomotion.geometry import level_of_detail, stack
from pseudomotion.motion import Layers, Motion, map_fields

__all__ = ["Motion", "Params", "Range", "Transform", "View", "allowed", "averaged", "between", "check_ranges", "steps"]

Range = tuple[float, float]
Params = Mapping[str, Numbers]


def allowed(default: Range, low: float, high: float) -> Any:
    """A dataclass field for a range ``(a, b)`` to draw from, where ``low <= a <= b <= high`` must hold."""
    return dataclasses.field(default=default, metadata={"allowed": (low, high)})


@dataclass(frozen=True)
class View:
    """The first view of b clips: the window of the source image that fills the frame, given by a center and a scale.

    A window with center ``(x, y)`` and scale ``s`` shows, at frame pixel ``(u, v)``, the image at ``x + s (u - (w-1)/2)``,
    ``y + s (v - (h-1)/2)``. It *lies inside* the image if all its samples do, including the pixels averaged into them.
    """

    image_size: tuple[int, int]  # (H, W) of the images
    frame_size: tuple[int, int]  # (h, w)
    num_frames: int  # T
    center: Float64[np.ndarray, "b 2"]  # (x, y) in image pixels
    scale: Float64[np.ndarray, " b"]  # image pixels per frame pixel
    partner: Int64[np.ndarray, " b"]  # index in the batch of the image that a layer of the clip may show

    @classmethod
    def first(
        cls,
        image_size: tuple[int, int],
        frame_size: tuple[int, int],
        num_frames: int,
        crop: Range | None,
        draws: Draws,
        partner: Int64[np.ndarray, " b"] | None = None,
    ) -> "View":
        """The largest centered window, or, with ``crop``, a random window whose area is a fraction of the largest one's.

        If ``partner`` is None, every clip is its own partner.
        """
        b = len(draws.ids)
        center = np.broadcast_to([(image_size[1] - 1) / 2, (image_size[0] - 1) / 2], (b, 2))
        scale = np.full(b, cls.largest_scale(image_size, frame_size))
        view = cls(image_size, frame_size, num_frames, center, scale, np.arange(b) if partner is None else partner)
        if crop is None:
            return view
        area, x, y = draws.numbers("crop", 3)
        scale = view.scale * np.sqrt(between(crop, area))
        return dataclasses.replace(view, center=view.place(scale, np.stack([x, y], -1)), scale=scale)

    @staticmethod
    def largest_scale(image_size: tuple[int, int], frame_size: tuple[int, int]) -> float:
        """Scale of the largest window that lies inside the image."""
        sides = list(zip(image_size, frame_size, strict=True))
        scale = min(source / frame for source, frame in sides)
        block = float(averaged(np.array([scale]))[0])
        # A larger scale would sample beyond the outermost pixel centers, where black padding blends in as a dark border.
        fits = [(source - block) / (frame - 1) for source, frame in sides if frame > 1 and source > block]
        return min([scale, *fits])

    def select(self, clips: Int64[np.ndarray, " n"]) -> "View":
        """The view of the clips at these positions in the batch."""
        return dataclasses.replace(self, center=self.center[clips], scale=self.scale[clips], partner=self.partner[clips])

    def limits(self, scale: Numbers) -> tuple[Float64[np.ndarray, "b 2"], Float64[np.ndarray, "b 2"]]:
        """Smallest and largest center (x, y) of windows of ``scale`` inside the image; both are its center if no window fits."""
        (image_h, image_w), (h, w) = self.image_size, self.frame_size
        margin = (averaged(scale) - 1) / 2
        low = np.stack([scale * ((w - 1) / 2) + margin, scale * ((h - 1) / 2) + margin], -1)
        middle = np.array([(image_w - 1) / 2, (image_h - 1) / 2])
        return np.minimum(low, middle), np.maximum(2 * middle - low, middle)

    def place(self, scale: Numbers, at: Float64[np.ndarray, "b 2"]) -> Float64[np.ndarray, "b 2"]:
        """Center of a window of ``scale`` inside the image; ``at`` in [0, 1] interpolates between the limits of (x, y)."""
        low, high = self.limits(scale)
        return low + (high - low) * at

    def window(self, center: Float64[np.ndarray, "*b 2"], scale: Float64[np.ndarray, "*b"]) -> Float64[np.ndarray, "*b 3 3"]:
        """Homography from image pixel to frame pixel of a window."""
        h, w = self.frame_size
        zoom = 1 / scale
        x, y = (w - 1) / 2 - center[..., 0] * zoom, (h - 1) / 2 - center[..., 1] * zoom
        return stack([[zoom, 0.0, x], [0.0, zoom, y], [0.0, 0.0, 1.0]])

    def still(self) -> Float64[np.ndarray, "b T 3 3"]:
        """Homographies that show the first view in every frame."""
        first = self.window(self.center, self.scale)
        return np.broadcast_to(first[:, None], (len(first), self.num_frames, 3, 3))

    def then(self, step: Float64[np.ndarray, "b 3 3"]) -> Float64[np.ndarray, "b T 3 3"]:
        """The first view in frame 0, then ``step`` from every frame to the next: for transforms that read the previous frame."""
        steps = np.repeat(step[:, None], self.num_frames, 1)
        steps[:, 0] = self.window(self.center, self.scale)
        return steps

    def motion(self, homography: Float64[np.ndarray, "b T 3 3"], color: Float64[np.ndarray, "b T 3 4"] | None = None) -> Motion:
        """A motion without bends or layers. If ``color`` is None, colors do not change."""
        if color is None:
            color = np.broadcast_to(color_maps.IDENTITY, (len(self.scale), self.num_frames, 3, 4))
        return Motion(homography, color)

    def layer(self, box: Float64[np.ndarray, "b 4"], homography: Float64[np.ndarray, "b T 3 3"]) -> Layers:
        """One layer, visible in every frame: a box of the partner's image, with unchanged colors."""
        b, t = len(box), self.num_frames
        color = np.broadcast_to(color_maps.IDENTITY, (b, 1, t, 3, 4))
        motion = Motion(homography[:, None], color)
        sharp = np.broadcast_to(np.array(outline.SHARP, dtype=np.float64), (b, 1, len(outline.SHARP)))
        return Layers(self.partner[:, None], box[:, None], sharp, motion, np.ones((b, 1, t)))

    def absent_layers(self, count: int) -> Layers:
        """``count`` layers of opacity 0, to pad clips to the same number of layers."""
        h, w = self.image_size
        b, t = len(self.scale), self.num_frames
        box = np.broadcast_to([-0.5, -0.5, w - 0.5, h - 0.5], (b, 4))
        absent = self.layer(box, np.broadcast_to(np.eye(3), (b, t, 3, 3)))
        absent = dataclasses.replace(absent, opacity=np.zeros((b, 1, t)))
        return map_fields(absent, lambda array: np.repeat(array, count, 1))  # (b, count, ...)


class Transform(ABC):
    """Base class of transforms: a frozen dataclass whose fields are ranges ``(low, high)``, usually per step.

    A subclass sets ``name``, declares its ranges with ``allowed`` and implements ``make_params`` and ``make_plan``. Both are vectorized
    in numpy over the b clips that drew this transform; clip i must depend only on the draws and the view of clip i.

    Raises:
        TypeError, ValueError: if a range is not a pair of finite numbers in ascending order within its allowed limits.

    """

    name: ClassVar[str]
    reads_previous: ClassVar[bool] = False  # True: frame t+1 reads frame t. False: every frame reads the image
    needs_rgb: ClassVar[bool] = False  # True: applies a color map, so images need three channels
    num_layers: ClassVar[int] = 0  # number of layers it paints over the back

    def __post_init__(self) -> None:
        """Check every range, and convert it to a tuple of floats."""
        check_ranges(self)

    @abstractmethod
    def make_params(self, draws: Draws) -> Params:
        """Draw one number per clip for every parameter, in the transform's own units: arrays ``(b,)`` by name."""

    @abstractmethod
    def make_plan(self, params: Params, view: View) -> Motion:
        """Turn the parameters into a motion that starts at the first view."""


def check_ranges(options: Any) -> None:
    """Check the fields of a dataclass that were declared with ``allowed``, sequences of two numbers, and convert them to tuples of floats.

    Raises:
        TypeError, ValueError: as ``Transform`` says.

    """
    for field in dataclasses.fields(options):
        if "allowed" not in field.metadata:
            continue
        name = f"{type(options).__name__}.{field.name}"
        object.__setattr__(options, field.name, checks.interval(name, getattr(options, field.name), *field.metadata["allowed"]))


def averaged(scale: Numbers) -> Numbers:
    """Side, in image pixels, of the blocks averaged into one sample at ``scale`` image pixels per frame pixel; a power of 2."""
    return np.ldexp(1.0, np.ceil(level_of_detail(scale)).astype(int))


def between(bounds: Range, number: Numbers) -> Numbers:
    """Map ``number`` in [0, 1] linearly to a range."""
    return bounds[0] + (bounds[1] - bounds[0]) * number


def steps(num_frames: int) -> Float64[np.ndarray, " T"]:
    """Frame indices 0 to T-1, as floats."""
    return np.arange(num_frames, dtype=np.float64)
