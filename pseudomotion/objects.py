"""``Objects``: things that move on their own over any back. Not from the paper.

An object is a clip of its own, cut out by an outline: a part of a texture, moved by a transform of its own, along a path of its own.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from pseudomotion import checks, geometry, outline, spline
from pseudomotion.draws import Draws, Numbers
from pseudomotion.motion import Layers, Motion, alike, compose, concatenate, map_fields
from pseudomotion.transforms import Affine, Elastic, Transform
from pseudomotion.transforms.base import Range, View, allowed, averaged, between, check_ranges, steps
from pseudomotion.transforms.by_name import Transforms, transforms_and_weights
from pseudomotion.transforms.elastic import FEWEST_POINTS

__all__ = ["MIXED", "PRESETS", "SHAPES", "Objects"]

MOST = 64  # objects per clip
RAMP = 2.0  # frames in which an object comes or goes
Rows = Float64[np.ndarray, "n K"]


def _polygon(count: Numbers, numbers: Float64[np.ndarray, "b m"], feather: Numbers, *, irregular: float, even: bool = False) -> Rows:
    """Convex polygons of ``count`` vertices on a circle, turned at random, stretched to span their boxes unless they are ``even``."""
    k = np.minimum(np.arange(outline.MOST_VERTICES), count[:, None] - 1)  # the last vertex repeats
    jitter = np.take_along_axis(numbers, k.astype(np.int64), 1) - 0.5
    sine, cosine = geometry.sincos(2 * math.pi * ((k + irregular * jitter) / count[:, None] + numbers[:, -1:]))
    vertices = np.stack([cosine, sine], -1)  # (b, 8, 2)
    low, high = vertices.min(1, keepdims=True), vertices.max(1, keepdims=True)
    half = (high - low) / 2
    return outline.polygons((vertices - (low + high) / 2) / (half.max(-1, keepdims=True) if even else half), feather)


def _blob(numbers: Float64[np.ndarray, "b m"], feather: Numbers) -> Rows:
    """Smooth blobs, whose harmonics get weaker as they get faster, so that no part of the edge points back at the center."""
    sine, cosine = geometry.sincos(2 * math.pi * numbers[:, :6])
    strength = np.array([0.14, 0.08, 0.05, 0.03, 0.02, 0.015]) * numbers[:, 6:12]
    radius = 1 - strength.sum(1)
    return outline.blobs(radius, np.stack([strength * cosine, strength * sine], -1), feather, np.zeros(len(numbers)))


def _superellipse(power: float) -> Callable[[Float64[np.ndarray, "b m"], Numbers], Rows]:
    return lambda numbers, feather: outline.superellipses(np.full(len(feather), float(power)), feather, np.zeros(len(feather)))


def _between(low: int, high: int, number: Numbers) -> Numbers:
    """A whole number from ``low`` to ``high``."""
    return low + np.floor(number * (high - low + 1))


NUMBERS = 16  # random numbers that an outline is made from
UPRIGHT = ("square", "circle", "rotated_square", "regular")  # outlines whose boxes are squares
SHAPES: dict[str, Callable[[Float64[np.ndarray, "b m"], Numbers], Rows]] = {
    "box": lambda n, feather: outline.boxes(feather),
    "square": lambda n, feather: outline.boxes(feather),
    "rotated_square": lambda n, feather: _polygon(np.full(len(n), 4.0), n, feather, irregular=0, even=True),
    "ellipse": _superellipse(1),
    "circle": _superellipse(1),
    "rhombus": _superellipse(0),
    "superellipse": lambda n, feather: outline.superellipses(_between(2, 3, n[:, 0]), feather, np.zeros(len(n))),
    "triangle": lambda n, feather: _polygon(np.full(len(n), 3.0), n, feather, irregular=0.6),
    "quadrilateral": lambda n, feather: _polygon(np.full(len(n), 4.0), n, feather, irregular=0.6),
    "regular": lambda n, feather: _polygon(_between(3, 8, n[:, 8]), n, feather, irregular=0, even=True),
    "polygon": lambda n, feather: _polygon(_between(5, 8, n[:, 8]), n, feather, irregular=0.6),
    "blob": _blob,
    "ring": lambda n, feather: outline.superellipses(np.ones(len(n)), feather, 0.4 + 0.35 * n[:, 0]),
    "cutout": lambda n, feather: outline.boxes(feather),
}
MIXED = ("box", "ellipse", "rhombus", "superellipse", "triangle", "quadrilateral", "polygon", "blob", "ring")
PACES = ("steady", "accelerating", "decelerating")
LAWS = ("uniform", "inverse_cube")


@dataclass(frozen=True, kw_only=True)
class Objects:
    """Objects that move on their own over the backs of clips. Not from the paper, as are all numbers without another source.

    Each object draws an outline, a texture and a view in it, a size, a place, a path with speed and acceleration, a transform that moves
    it about its own center, opacity and softness. All draws come from an id derived of the clip's id and the object's position, so the
    objects of a clip depend on nothing else. Later objects lie before earlier ones; their order is as random as they are. An object is at
    a place drawn from the whole frame at a time drawn from the whole clip, so objects enter and leave.

    Args:
        count: smallest and largest number of objects per clip, up to 64.
        size: side of an object's box, the geometric mean of width and height, as a fraction of the frame's shorter side.
        size_law: "uniform", or "inverse_cube": a density of ``(size / largest)**-3 - 1``, so small objects are far more frequent.
        aspect: width of the box over its height; 1 for square, circle, rotated_square and regular, the texture's for cutout.
        shapes: names in ``SHAPES``, a mapping of them to weights, or "mixed" for those in ``MIXED``. "cutout" shows a whole RGBA texture,
            whose alpha is the outline; of other shapes, alpha cuts something out.
        transforms: what moves an object about its own center: as for ``PMG``, but for transforms that paint layers, and always composed.
        speed: in frame 0, as a fraction of the frame's shorter side per frame; the direction is drawn too.
        acceleration: along the path, as a fraction of the frame's shorter side per frame, per frame.
        paces: weights of "steady", "accelerating" (from standstill) and "decelerating" (to standstill) paths; ``speed`` is then the mean.
        angle: of the object in frame 0, in degrees, from x towards y.
        view: area of the texture that the object shows, as a fraction of the largest part with its aspect.
        bend: greatest bend, in cells, as ``Elastic``'s amplitude; (0, 0): rigid. A transform that bends itself is left as it is.
        grid: control points per axis of bends, as ``Elastic``'s, and the same as that of transforms that bend.
        feather: width of the soft edge in pixels of the frame, where the object is smallest.
        soft: probability of an edge of width ``softness`` instead.
        softness: width of that soft edge, as a fraction of half the shorter side of the box.
        opacity: in [0, 1].
        presence: fraction of the clip in which an object is there; it comes and goes within two frames. 1: always.

    Raises:
        TypeError, ValueError: for ranges outside their limits, and unknown names.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> pmg = PMG(num_frames=4, size=32, objects=Objects(count=(1, 3)))
        >>> clips = pmg(torch.rand(2, 3, 48, 64), ids=torch.arange(2), textures=torch.rand(5, 3, 40, 40))
        >>> clips.shape
        torch.Size([2, 3, 4, 32, 32])

    """

    count: tuple[int, int] = (1, 8)
    size: Range = allowed((0.1, 0.5), 0.001, 10)
    size_law: str = "uniform"
    aspect: Range = allowed((0.6, 1.7), 0.01, 100)
    shapes: str | Sequence[str] | Mapping[str, float] = "mixed"
    transforms: Transforms = ("affine", "zoom", "sliding_window")
    speed: Range = allowed((0.0, 0.03), 0, 10)
    acceleration: Range = allowed((-0.001, 0.001), -1, 1)
    paces: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"steady": 1.0})
    angle: Range = allowed((-30.0, 30.0), -180, 180)
    view: Range = allowed((0.05, 0.6), 1e-4, 1)
    bend: Range = allowed((0.0, 0.0), 0, spline.LARGEST)
    grid: int = 6
    feather: Range = allowed((1.0, 2.0), 0.1, 1000)
    soft: float = 0.0
    softness: Range = allowed((0.3, 0.7), 0.01, 1)
    opacity: Range = allowed((1.0, 1.0), 0, 1)
    presence: Range = allowed((1.0, 1.0), 0.01, 1)

    def __post_init__(self) -> None:
        """Check the options."""
        check_ranges(self)
        object.__setattr__(self, "grid", checks.bounded_int("Objects.grid", self.grid, FEWEST_POINTS, spline.MOST_POINTS))
        checks.one_of("size_law", self.size_law, LAWS)
        low, high = checks.pair("Objects.count", self.count, checks.integer, "a pair of ints (smallest, largest)")
        if not 0 <= low <= high <= MOST:
            raise ValueError(
                f"Objects.count must be a pair (smallest, largest) with 0 <= smallest <= largest <= {MOST}, got {self.count!r}"
            )
        object.__setattr__(self, "count", (low, high))
        _weights("shapes", self._shapes, tuple(SHAPES))
        _weights("paces", self.paces, PACES)
        transforms, _ = transforms_and_weights(self.transforms)
        if layered := [transform.name for transform in transforms if transform.num_layers]:
            raise ValueError(f"Objects.transforms must not paint layers of their own, got {', '.join(layered)}")
        checks.probability(self.soft, "Objects.soft")

    @classmethod
    def yu2024(cls, *, count: tuple[int, int] = (32, 32)) -> "Objects":
        """The generator of Yu, Chen and Gandelsman, "Learning Video Representations without Natural Videos" (arXiv 2410.24213, 2024).

        From its code, on a canvas of 256 x 256 at 25 frames per second, for every fourth frame: six shapes alike; radii of 0.1 to 1 sides,
        density proportional to r^-3 - 1; speed of 1.2 to 3.0 px, acceleration up to 0.06 px per frame squared along the path; every frame
        turns by up to 1.8 degrees, scales by up to 0.005 and shears by up to 0.005. Different here: 32 objects (there 500, most of which
        lie outside the frame or are covered), centers drawn from the frame at any time (there from twice its sides at the start), steps
        that multiply (there linear in time), one scale for both axes, and soft edges one pixel wide (there aliased).
        """
        step, side = 4, 256
        affine = Affine(
            degrees=(-1.8 * step, 1.8 * step), translate=(0.0, 0.0), scale=(1 - 0.005 * step, 1 + 0.005 * step), shear=(-1.15, 1.15)
        )
        return cls(
            count=count,
            size=(0.2, 2.0),
            size_law="inverse_cube",
            aspect=(0.5, 2.0),
            shapes=("circle", "square", "rotated_square", "box", "triangle", "quadrilateral"),
            transforms=(affine,),
            speed=(1.2 * step / side, 3.0 * step / side),
            acceleration=(-0.06 * step**2 / side, 0.06 * step**2 / side),
            angle=(0.0, 0.0),
            feather=(1.0, 1.0),
        )

    @classmethod
    def smile2025(cls) -> "Objects":
        """The patches of Thoker et al., "SMILE: Infusing Spatial and Motion Semantics in Masked Video Learning" (CVPR 2025).

        From its code, for 16 frames of 224 x 224: 2 objects; half of them boxes, 35 % ellipses, 15 % rhombi; half of them with an edge that
        fades from 0.30 to 0.45 of the half-side on; opacity 0.8 to 1.0; paths of 70 % steady, 15 % accelerating and 15 % decelerating
        speed, up to 12 px and 6 degrees a frame; growth by up to e^0.025 a frame. Different here: straight paths (there smooth curves),
        sizes of 0.15 to 0.55 sides (those of Tubelet-Contrast, its predecessor), constant opacity.
        """
        affine = Affine(degrees=(-6.0, 6.0), translate=(0.0, 0.0), scale=(0.9753, 1.0253), shear=(0.0, 0.0))
        return cls(
            count=(2, 2),
            size=(0.15, 0.55),
            shapes={"box": 0.5, "ellipse": 0.35, "rhombus": 0.15},
            transforms=(affine,),
            speed=(0.0, 6 / 224),
            acceleration=(0.0, 0.0),
            paces={"steady": 0.7, "accelerating": 0.15, "decelerating": 0.15},
            angle=(0.0, 0.0),
            soft=0.5,
            softness=(0.55, 0.7),
            opacity=(0.8, 1.0),
        )

    @classmethod
    def cutouts(cls) -> "Objects":
        """Whole cut-outs: RGBA textures, whose alpha is the outline."""
        return cls(shapes=("cutout",), size=(0.2, 0.6))

    @property
    def _shapes(self) -> Sequence[str] | Mapping[str, float]:
        return MIXED if isinstance(self.shapes, str) and self.shapes == "mixed" else self.shapes

    @property
    def needs_rgb(self) -> tuple[str, ...]:
        """Names of the transforms that apply color maps, so images need three channels."""
        transforms, _ = transforms_and_weights(self.transforms)
        return tuple(transform.name for transform in transforms if transform.needs_rgb)

    @property
    def needs_alpha(self) -> bool:
        """Whether some objects are cut-outs, so textures need an alpha channel."""
        return "cutout" in self._shapes

    @np.errstate(all="ignore")  # extreme ranges can overflow; that is the user's choice, not worth a warning
    def make_layers(
        self, draws: Draws, texture_size: tuple[int, int], frame_size: tuple[int, int], num_frames: int, texture: int | Tensor | None
    ) -> Layers:
        """The objects of b clips, as layers: L of them, the largest number of objects, those beyond a clip's own number absent.

        Args:
            draws: of the clips.
            texture_size: ``(H, W)`` of the textures.
            frame_size: ``(h, w)``.
            num_frames: T.
            texture: number of textures to draw from; or int64 ``(b,)``, the image of the batch that all objects of a clip show; or None:
                every object shows another image of the batch.

        """
        b, num_objects = len(draws.ids), self.count[1]
        (chance,) = draws.numbers("objects", 1)
        count = _between(*self.count, chance)
        places = [draws.partner_ids(f"object {k}") for k in range(num_objects)]
        own = Draws(draws.seed, torch.stack(places, 1).flatten() if places else draws.ids[:0])  # b * L objects, by clip
        if isinstance(texture, Tensor):
            shown = texture.numpy().repeat(num_objects)
        elif texture is None:
            others = [draws.partner(f"object {k}").numpy() for k in range(num_objects)]
            shown = np.stack(others, 1).reshape(-1) if others else np.zeros(0, dtype=np.int64)
        else:
            shown = np.floor(own.numbers("object texture", 1)[0] * texture).astype(np.int64)
        flat = self._layers(own, shown, texture_size, frame_size, num_frames)

        def by_clip(array: np.ndarray) -> np.ndarray:
            return array.reshape(b, num_objects, *array.shape[1:])

        opacity = by_clip(flat[4])
        opacity[np.arange(num_objects) >= count[:, None]] = 0
        return Layers(by_clip(flat[0]), by_clip(flat[1]), by_clip(flat[2]), map_fields(flat[3], by_clip), opacity)

    def _layers(
        self, draws: Draws, texture: Int64[np.ndarray, " n"], texture_size: tuple[int, int], frame_size: tuple[int, int], num_frames: int
    ) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n 4"], Rows, Motion, Float64[np.ndarray, "n T"]]:
        """Texture, box, outline, motion and opacity of n objects."""
        names = ("size", "aspect", "angle", "feather", "soft", "softness", "opacity", "view", "from_x", "from_y", "presence", "start")
        drawn = dict(zip(names, draws.numbers("object", len(names)), strict=True))
        ranges = {
            name: between(getattr(self, name), drawn[name]) for name in ("aspect", "angle", "feather", "softness", "opacity", "presence")
        }
        motion = self._motion(draws, num_frames)
        side = self._side(drawn["size"]) * min(frame_size)
        shape = draws.choice("object shape", _weights("shapes", self._shapes, tuple(SHAPES))[1]).numpy()
        shapes = _weights("shapes", self._shapes, tuple(SHAPES))[0]
        upright, whole = (np.array([name in kind for name in shapes])[shape] for kind in (UPRIGHT, ("cutout",)))
        stretch = np.sqrt(np.where(whole, texture_size[1] / texture_size[0], np.where(upright, 1.0, ranges["aspect"])))
        half = np.stack([side * stretch, side / stretch], -1) / 2  # (n, 2): x and y, in pixels of the frame
        soft = drawn["soft"] < self.soft
        width = np.where(soft, ranges["softness"] * half.min(-1), np.minimum(ranges["feather"], half.min(-1)))

        # How much of the texture fits: soft edge and averaged blocks must lie inside it, where the object is smallest too.
        canvas = (CANVAS, CANVAS)
        shrunk = np.nan_to_num(geometry.source_scale(motion.homography, canvas), nan=1.0, posinf=1.0).max(1).clip(min=1.0)
        texture_half = np.array([texture_size[1], texture_size[0]]) / 2
        most = (texture_half / half).min(-1)
        room = texture_half - (averaged(most * shrunk)[:, None] + 1) / 2
        most = (room / (half + (width * shrunk)[:, None] / 2)).min(-1).clip(min=1e-3)
        scale = most * np.sqrt(between(self.view, drawn["view"]))  # texture pixels per frame pixel
        scale = np.where(whole, texture_half[0] / half[:, 0], scale)
        in_texture = half * scale[:, None]
        margin = in_texture + (width * shrunk * scale)[:, None] / 2 + (averaged(scale * shrunk)[:, None] + 1) / 2
        free = (2 * (texture_half - margin)).clip(min=0)  # none for cut-outs
        middle = texture_half - 0.5 + free * (np.stack([drawn["from_x"], drawn["from_y"]], -1) - 0.5)

        # Texture to canvas, the transform there, canvas to frame at the object's own place.
        center = (CANVAS - 1) / 2
        unit = side / CANVAS  # frame pixels per pixel of the canvas
        to_canvas = geometry.matmul(
            geometry.translation(center, center),
            geometry.matmul(_scaling(1 / (unit * scale)), geometry.translation(-middle[:, 0], -middle[:, 1])),
        )
        turn = geometry.rotation_scale_shear(ranges["angle"], unit, np.zeros_like(unit), np.zeros_like(unit))
        path = self._path(draws, frame_size, num_frames)
        to_frame = geometry.matmul(
            geometry.translation(path[..., 0], path[..., 1]),
            geometry.matmul(turn, np.broadcast_to(geometry.translation(-center, -center), turn.shape))[:, None],
        )
        homography = geometry.matmul(to_frame, geometry.matmul(motion.homography, to_canvas[:, None]))
        opacity = ranges["opacity"][:, None] * _presence(ranges["presence"], drawn["start"], num_frames)
        rows = self._outlines(draws, shape, width * shrunk * scale)
        box = np.concatenate([middle - in_texture, middle + in_texture], -1)
        moved = dataclasses.replace(motion, homography=homography)
        return texture, box, rows, moved, opacity

    def _side(self, number: Numbers) -> Numbers:
        """Sides of boxes, as fractions of the frame's shorter side."""
        low, high = self.size
        if self.size_law == "uniform" or low == high:
            return between(self.size, number)
        ratio = low / high

        def below(r: Array) -> Array:
            """Integral of r**-3 - 1 from ``ratio`` to r."""
            return (1 / (ratio * ratio) - 1 / (r * r)) / 2 - (r - ratio)

        start, end, goal = np.full_like(number, ratio), np.ones_like(number), number * below(np.ones(1))
        for _ in range(50):  # bisection: only operations that round the same way on every machine
            middle = (start + end) / 2
            start, end = np.where(below(middle) < goal, middle, start), np.where(below(middle) < goal, end, middle)
        return high * (start + end) / 2

    def _motion(self, draws: Draws, num_frames: int) -> Motion:
        """How the transforms move the objects on their canvas, relative to frame 0."""
        transforms, weights = transforms_and_weights(self.transforms)
        chosen = draws.choice("object transform", weights).numpy()
        view = View.first((CANVAS, CANVAS), (CANVAS, CANVAS), num_frames, None, draws)
        motions, objects = [], []
        for number, transform in enumerate(transforms):
            those = (chosen == number).nonzero()[0]
            motions.append(self._moved_by(transform, draws.select(those), view.select(those)))
            objects.append(those)
        in_order = np.argsort(np.concatenate(objects))
        return map_fields(concatenate(alike(motions), axis=0), lambda array: array[in_order])

    def _moved_by(self, transform: Transform, draws: Draws, view: View) -> Motion:
        motion = transform.make_plan(transform.make_params(draws), view)
        if transform.reads_previous:
            motion = compose(motion, np.ones(len(view.scale), dtype=bool))
        if self.bend[1] > 0 and motion.bend is not None and not motion.bend.shape[-1]:
            elastic = Elastic(amplitude=self.bend, grid=self.grid)
            motion = dataclasses.replace(motion, bend=elastic.make_plan(elastic.make_params(draws), view).bend)
        start = geometry.inverse(motion.homography[:, :1])
        return dataclasses.replace(motion, homography=geometry.matmul(motion.homography, np.broadcast_to(start, motion.homography.shape)))

    def _path(self, draws: Draws, frame_size: tuple[int, int], num_frames: int) -> Float64[np.ndarray, "n T 2"]:
        """Centers (x, y) of the objects in every frame."""
        speed, acceleration, direction, x, y, when = draws.numbers("object path", 6)
        h, w = frame_size
        last = max(num_frames - 1, 1)
        speed, acceleration = between(self.speed, speed), between(self.acceleration, acceleration)
        names, weights = _weights("paces", self.paces, PACES)
        pace = np.array([PACES.index(name) for name in names])[draws.choice("object pace", weights).numpy()]
        start = speed * np.array([1.0, 0.0, 2.0])[pace]
        acceleration = acceleration + speed * np.array([0.0, 2.0, -2.0])[pace] / last
        sine, cosine = geometry.sincos(2 * math.pi * direction)

        def travelled(t: Array) -> Array:
            return min(frame_size) * (start[:, None] * t + acceleration[:, None] * t * t / 2)

        distance = travelled(steps(num_frames)) - travelled((when * last)[:, None])  # (n, T)
        place = np.stack([x * w, y * h], -1) - 0.5
        return place[:, None] + distance[..., None] * np.stack([cosine, sine], -1)[:, None]

    def _outlines(self, draws: Draws, shape: Int64[np.ndarray, " n"], feather: Numbers) -> Rows:
        names, _ = _weights("shapes", self._shapes, tuple(SHAPES))
        numbers = np.stack(draws.numbers("object outline", NUMBERS), -1)
        rows = np.zeros((len(shape), outline.NUMBERS))
        for number, name in enumerate(names):
            those = (shape == number).nonzero()[0]
            rows[those] = SHAPES[name](numbers[those], feather[those])
        return rows


CANVAS = 128  # side, in its own pixels, of the square on which a transform moves an object; its choice changes nothing that can be seen
Array = Any


PRESETS: dict[str, Callable[[], Objects]] = {  # of commands
    "mixed": Objects,
    "yu2024": Objects.yu2024,
    "smile2025": Objects.smile2025,
    "cutouts": Objects.cutouts,
}


def _weights(name: str, value: Any, known: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names, and their weights scaled to a sum of 1."""
    if isinstance(value, str) or not isinstance(value, (Sequence, Mapping)) or not value:
        raise TypeError(f"Objects.{name} must be a sequence of names or a mapping of them to weights, got {value!r}")
    if unknown := [entry for entry in value if entry not in known]:
        raise ValueError(f"Objects.{name} must be among {', '.join(known)}, got {unknown[0]!r}")
    return tuple(value), checks.weights(f"Objects.{name}", value)


def _scaling(factor: Numbers) -> Float64[np.ndarray, "n 3 3"]:
    return geometry.stack([[factor, 0.0, 0.0], [0.0, factor, 0.0], [0.0, 0.0, 1.0]])


def _presence(share: Numbers, start: Numbers, num_frames: int) -> Float64[np.ndarray, "n T"]:
    """How much of an object is there in every frame: it comes and goes linearly, unless it always stays."""
    last = max(num_frames - 1, 1)
    begin = start * (1 - share) * last
    t = steps(num_frames)
    ramp = np.minimum(t - begin[:, None], (begin + share * last)[:, None] - t) / RAMP + 0.5
    return np.where(share[:, None] >= 1, 1.0, ramp.clip(0, 1))
