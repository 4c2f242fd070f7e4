"""``MotionPlan``: every decision about a batch of clips, made before any pixel is computed.

Conventions of the whole library
--------------------------------
- Images are uint8 in [0, 255] or float in [0, 1], ``(B, C, H, W)``. Clips are ``(B, C, T, h, w)`` ("BCTHW") or ``(B, T, C, h, w)``
  ("BTCHW"). Sizes are ``(height, width)``.
- Points are ``(x, y)`` in pixels, x to the right, y down. **Pixel centers lie at integers**, so an image of width W covers -0.5 to W - 0.5.
- A homography acts on column vectors ``(x, y, 1)`` and maps pixels **of what is read** (the image, a texture or the previous frame) **to
  pixels of the frame**, as in kornia's ``warp_perspective(..., align_corners=True)``.
- A bend acts on what is read: frame pixel ``p`` is taken to ``q`` by the inverse homography, and shows what is read at ``q + D(q)``
  (``pseudomotion.spline``).
- A clip consists of a back, layers painted over it, and a blend with a partner clip. The back fills the frame; ``padding_mode`` says what
  shows beyond the edge of its image. A layer shows the part of a texture inside its outline (``pseudomotion.outline``), which lies in the
  texture and therefore moves and bends with it.
- Textures may be RGBA where images are RGB. Their colors are multiplied by alpha before they are sampled, and divided by the sampled alpha
  before the color map; that alpha multiplies the outline's coverage.
- Order of operations in a frame: the back (sample, apply the color map, clamp to [0, 1]), then the layers in order. The next frame reads
  the back without layers. Clips are averaged over the exposure, then blended, normalized, cast and transposed.
- Flow is ``(u, v) = (dx, dy)`` in pixels, from frame t to frame t+1.
"""

import dataclasses
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from pseudomotion import outline, spline
from pseudomotion.description import describe
from pseudomotion.motion import Layers, Motion, compose, map_fields
from pseudomotion.passes import Pass, find_detail, find_passes
from pseudomotion.transforms import ALL_TRANSFORMS
from pseudomotion.versions import from_version_1

PADDING_MODES = ("zeros", "border", "reflection")
MOST_SUBFRAMES = 64

__all__ = ["PADDING_MODES", "Back", "Blend", "Layers", "Motion", "MotionPlan"]


@dataclass(frozen=True, eq=False)
class Back:
    """What fills the frames of B clips. Only the back may read its previous frame.

    Args:
        image: ``(B,)``, index in the batch of the image that each clip shows.
        motion: how it moves, ``(B, T, ...)``.
        reads_previous: ``(B,)``. True: frame t >= 1 reads frame t-1 (the paper's equation 1, on pixels). False: every frame reads the
            image.

    """

    image: Int64[Tensor, " B"]
    motion: Motion
    reads_previous: Bool[Tensor, " B"]

    def composed(self) -> "Back":
        """As ``MotionPlan.composed``."""
        motion, recursive = self.motion, self.reads_previous
        if recursive.any() and motion.bend is not None:
            if motion.bend[recursive][:, 1:].any():
                raise ValueError("a plan in which clips bend their previous frame cannot be composed")
            motion = dataclasses.replace(motion, bend=torch.where(recursive[:, None, None, None, None], motion.bend[:, :1], motion.bend))
        composed = compose(map_fields(motion, _to_numpy), _to_numpy(recursive))
        motion = map_fields(composed, lambda array: torch.from_numpy(array).to(recursive.device))
        return Back(self.image, motion, torch.zeros_like(recursive))


@dataclass(frozen=True, eq=False)
class Blend:
    """How B clips are mixed with partner clips, after both have been painted.

    Args:
        partner: ``(B,)``, index in the batch of the clip that is mixed in.
        weight: ``(B,)``, the partner's weight in [0, 1]; 0 means not mixed.
        box: ``(B, 4)``, region that is mixed: edges ``(x0, y0, x1, y1)`` in frame pixels.
        frames: ``(B, 2)``, frames that are mixed: first (inclusive) and last (exclusive).

    """

    partner: Int64[Tensor, " B"]
    weight: Float32[Tensor, " B"]
    box: Float32[Tensor, "B 4"]
    frames: Int64[Tensor, "B 2"]


@dataclass(frozen=True, eq=False)
class MotionPlan:
    """What each of B clips of T frames shows. Pure data: the same plan and images always give the same clips.

    ``PMG.plan`` makes plans, on the CPU; ``pseudomotion.render.render`` renders them.

    Args:
        back: what fills the frames.
        layers: what is painted over the back; every clip has L layers, some of which may be absent.
        blend: partner clips that are mixed in; None if nothing is mixed.
        padding_mode: what shows beyond the edge of an image: "zeros" (black), "border" or "reflection".
        transform: ``(B,)``, position in ``ALL_TRANSFORMS`` of the transform that made the clip; -1 for one that is not in it.
        image_size: ``(H, W)`` of the images that the plan is for.
        texture_size: ``(H, W)`` of the textures that layers show; None if they show images of the batch.
        frame_size: ``(h, w)`` of the frames.
        exposure: share of the frame interval over which every frame is averaged, centered on the frame's instant (motion blur, not from
            the paper); 0 means none. Labels belong to the middle of the exposure.
        subframes: number of instants that are averaged, evenly spaced.

    Computed from these: ``detail`` ``(B, T)`` and ``layer_detail`` ``(B, L, T)``, the level of the image pyramid that every frame reads
    (0 where it reads the previous frame); ``reduces``, whether any visible one is above 0; ``mixes``, whether any clip is mixed;
    ``shaped``, whether anything is bent or has an outline other than a box; ``passes`` and, per layer, ``layer_passes``, which group clips
    for rendering.

    Raises:
        ValueError: if shapes, dtypes or modes do not agree, for unknown outlines, and for bends that might fold (above 0.48 cells).

    Example:
        >>> import torch
        >>> from pseudomotion import PMG, MotionPlan
        >>> pmg = PMG(("zoom",), num_frames=4, size=16)
        >>> plan = pmg.plan((2, 3, 24, 24), ids=torch.arange(2))
        >>> print(plan.describe(0))
        clip 0: zoom, 4 frames of 16x16 from 24x24; each frame reads the image
          back: image 0
            frame 0 sees (0.2, 0.2) to (22.7, 22.7) of it
            frame 3 sees (3.1, 0.8) to (22.7, 20.4) of it
            its corners move 0.15 to 0.90 px per step
        >>> again = MotionPlan.from_state_dict(plan.state_dict())
        >>> images = torch.rand(2, 3, 24, 24)
        >>> torch.equal(pmg.render(images, again), pmg(images, ids=torch.arange(2)))
        True

    """

    VERSION: ClassVar[int] = 2  # of the ``state_dict`` format

    back: Back
    layers: Layers
    blend: Blend | None
    padding_mode: str
    transform: Int64[Tensor, " B"]
    image_size: tuple[int, int]
    texture_size: tuple[int, int] | None
    frame_size: tuple[int, int]
    exposure: float = 0.0
    subframes: int = 4
    detail: Float64[Tensor, "B T"] = field(init=False, repr=False)
    layer_detail: Float64[Tensor, "B L T"] = field(init=False, repr=False)
    reduces: bool = field(init=False, repr=False)
    mixes: bool = field(init=False, repr=False)
    shaped: bool = field(init=False, repr=False)
    passes: tuple[Pass, ...] = field(init=False, repr=False)
    layer_passes: tuple[tuple[Pass, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check that the fields agree, and compute on the host what selects the rendering operations."""
        _check(self)
        device = self.device
        motion, layers = map_fields(self.back.motion, _to_numpy), map_fields(self.layers, _to_numpy)
        recursive = _to_numpy(self.back.reads_previous)
        detail = find_detail(motion.homography, recursive, self.frame_size)
        layer_detail = np.zeros(layers.opacity.shape)
        if self.num_layers:
            layer_detail = find_detail(layers.motion.homography, np.zeros(layers.texture.shape, dtype=bool), self.frame_size)
        visible = (layers.opacity > 0).any(-1)
        layer_passes = []
        for layer in range(self.num_layers):
            shown = visible[:, layer].nonzero()[0]
            theirs = map_fields(layers.motion, lambda array: array[shown, layer])  # noqa: B023  called at once
            shape = layers.outline[shown, layer, outline.SHAPE].astype(np.int64)
            layer_passes.append(find_passes(theirs, np.zeros(len(shown), dtype=bool), layer_detail[shown, layer], shown, shape))
        object.__setattr__(self, "detail", torch.from_numpy(detail).to(device))
        object.__setattr__(self, "layer_detail", torch.from_numpy(layer_detail).to(device))
        object.__setattr__(self, "reduces", bool(detail.any() or layer_detail[layers.opacity > 0].any()))
        object.__setattr__(self, "mixes", self.blend is not None and bool((self.blend.weight > 0).any()))
        object.__setattr__(self, "passes", find_passes(motion, recursive, detail, np.arange(len(self))))
        object.__setattr__(self, "layer_passes", tuple(layer_passes))
        every = [p for passes in (self.passes, *layer_passes) for p in passes]
        object.__setattr__(self, "shaped", any(p.bent or p.shape != outline.BOX for p in every))

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.transform)

    @property
    def num_layers(self) -> int:
        """L, the number of layers over the back."""
        return self.layers.texture.shape[1]

    @property
    def num_frames(self) -> int:
        """T, the number of frames per clip."""
        return self.back.motion.homography.shape[1]

    @property
    def exposed(self) -> bool:
        """Whether frames are averages of several sub-frames that may differ."""
        return self.exposure > 0 and self.subframes > 1 and self.num_frames > 1

    @property
    def device(self) -> torch.device:
        """The device that holds all tensors."""
        return self.transform.device

    def __repr__(self) -> str:
        """A one-line summary; ``describe`` has the details."""
        counts = {name: int((self.transform == index).sum()) for index, name in enumerate(ALL_TRANSFORMS)}
        names = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        (image_h, image_w), (h, w) = self.image_size, self.frame_size
        return (
            f"MotionPlan({len(self)} clips of {self.num_frames} frames, {image_h}x{image_w} -> {h}x{w}, "
            f"layers={self.num_layers}{', ' + names if names else ''}, device={self.device})"
        )

    def to(self, device: torch.device | str) -> "MotionPlan":
        """The plan with its tensors on ``device``: itself, if they are there."""
        if torch.device(device) == self.device:
            return self
        away = torch.device(device).type != "cpu"  # copies to the host must be synchronous, or stale memory could be read

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=away)

        return map_fields(self, move)

    def __getstate__(self) -> dict[str, Any]:
        """Tensors on the CPU as arrays: a process that is sent a plan gets one message, not an open file of shared memory per tensor."""
        return vars(map_fields(self, _to_numpy) if self.device.type == "cpu" else self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what ``__getstate__`` returned."""
        vars(self).update(state)
        vars(self).update(vars(map_fields(self, torch.as_tensor)))

    def composed(self) -> "MotionPlan":
        """The same motion with every frame reading the image: one resampling per frame instead of up to T.

        The homographies and color maps of the steps are multiplied. The side effects of recursion disappear: blur from repeated resampling,
        loss of content that has left the frame, and clamping of colors at every step. Not from the paper.

        Raises:
            ValueError: if a clip bends its previous frame, because bends that follow each other are no single bend.

        """
        return dataclasses.replace(self, back=self.back.composed())

    def state_dict(self) -> dict[str, Tensor]:
        """All fields as a flat dict of tensors, with a format version, for ``torch.save`` or safetensors."""
        names = FIELDS if self.blend is None else (*FIELDS, *BLEND_FIELDS)
        state = {name: operator.attrgetter(name)(self) for name in names if "." in name} | {"transform": self.transform}
        sizes = {name: getattr(self, name) for name in ("image_size", "texture_size", "frame_size")}
        numbers = {"version": self.VERSION, "padding_mode": PADDING_MODES.index(self.padding_mode)} | sizes
        if self.exposure:  # states of other plans are those of releases without exposure
            state["exposure"] = torch.tensor([self.exposure, self.subframes], dtype=torch.float64, device="cpu")
        return state | {name: torch.tensor(value, device="cpu") for name, value in numbers.items() if value is not None}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> "MotionPlan":
        """Rebuild a plan from its ``state_dict``. Reads version 1 too, whose plans padded with zeros.

        Raises:
            ValueError: for an unknown version, for missing or unknown fields, and for fields that do not agree with each other.

        """
        version = int(state.get("version", torch.tensor(1, device="cpu")))
        if version == 1:
            state = from_version_1(state)
        elif version != cls.VERSION:
            raise ValueError(f"state is a MotionPlan of version {version}; this release reads versions 1 and {cls.VERSION}")
        mixed, textured = any(name.startswith("blend.") for name in state), "texture_size" in state
        optional = {name for name in ("texture_size", "exposure") if name in state}
        names = {*FIELDS, *(BLEND_FIELDS if mixed else ()), *optional}
        if set(state) != names:
            missing, unknown = sorted(names - set(state)), sorted(set(state) - names)
            raise ValueError(f"state must have the fields of a MotionPlan; missing: {missing}, unknown: {unknown}")

        def part(prefix: str) -> dict[str, Any]:
            return {name.removeprefix(prefix): state[name] for name in state if name.rpartition(".")[0] == prefix.rstrip(".")}

        def size(name: str) -> tuple[int, int]:
            h, w = state[name].tolist()
            return h, w

        exposure, subframes = state["exposure"].tolist() if "exposure" in state else (0.0, cls.subframes)
        return cls(
            back=Back(**part("back."), motion=Motion(**part("back.motion."))),
            layers=Layers(**part("layers."), motion=Motion(**part("layers.motion."))),
            blend=Blend(**part("blend.")) if mixed else None,
            padding_mode=PADDING_MODES[int(state["padding_mode"])],
            transform=state["transform"],
            image_size=size("image_size"),
            texture_size=size("texture_size") if textured else None,
            frame_size=size("frame_size"),
            exposure=exposure,
            subframes=int(subframes),
        )

    def describe(self, i: int) -> str:
        """Human-readable description of clip ``i``.

        Raises:
            IndexError: if there is no such clip.

        """
        return describe(self, i)


MOTION_FIELDS = ("homography", "color", "bend")
BLEND_FIELDS = tuple(f"blend.{name}" for name in ("partner", "weight", "box", "frames"))
FIELDS = (
    *("back.image", "back.reads_previous", *(f"back.motion.{name}" for name in MOTION_FIELDS)),
    *(f"layers.{name}" for name in ("texture", "box", "outline", "opacity", *(f"motion.{name}" for name in MOTION_FIELDS))),
    *("padding_mode", "transform", "image_size", "frame_size", "version"),
)


def _to_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.numpy(force=True)


def _check(plan: MotionPlan) -> None:
    """Raise ``ValueError`` if the fields of a plan do not agree in shape and dtype."""
    homography, texture, outlines = plan.back.motion.homography, plan.layers.texture, plan.layers.outline
    for name, tensor, axes in (("back.motion.homography", homography, "(B, T, 3, 3)"), ("layers.texture", texture, "(B, L)")):
        if tensor.ndim != axes.count(",") + 1:
            raise ValueError(f"plan.{name} must have shape {axes}, got {tuple(tensor.shape)}")
    (b, t), layers, numbers = homography.shape[:2], texture.shape[1], outlines.shape[-1]
    if outlines.ndim != 3 or numbers <= outline.FEATHER:
        raise ValueError(f"plan.layers.outline must have shape (B, L, K), K at least {outline.FEATHER + 1}, got {tuple(outlines.shape)}")
    tensors = {
        "back.image": (plan.back.image, (b,), torch.int64),
        "back.reads_previous": (plan.back.reads_previous, (b,), torch.bool),
        **_of_motion("back.motion", plan.back.motion, (b, t)),
        "layers.texture": (texture, (b, layers), torch.int64),
        "layers.box": (plan.layers.box, (b, layers, 4), torch.float32),
        "layers.outline": (outlines, (b, layers, numbers), torch.float32),
        **_of_motion("layers.motion", plan.layers.motion, (b, layers, t)),
        "layers.opacity": (plan.layers.opacity, (b, layers, t), torch.float32),
        "transform": (plan.transform, (b,), torch.int64),
    }
    if plan.blend is not None:
        tensors |= {
            "blend.partner": (plan.blend.partner, (b,), torch.int64),
            "blend.weight": (plan.blend.weight, (b,), torch.float32),
            "blend.box": (plan.blend.box, (b, 4), torch.float32),
            "blend.frames": (plan.blend.frames, (b, 2), torch.int64),
        }
    for name, (tensor, shape, dtype) in tensors.items():
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise ValueError(f"plan.{name} must be {dtype} of shape {shape}, got {tensor.dtype} of shape {tuple(tensor.shape)}")
    _check_outlines(outlines)
    for name, motion in (("back", plan.back.motion), ("layers", plan.layers.motion)):
        if motion.bend is not None and motion.bend.numel() and not (motion.bend.abs() <= np.float32(spline.LARGEST)).all():
            raise ValueError(f"plan.{name}.motion.bend must be at most {spline.LARGEST} cells, so that it does not fold, got more")
    if not 0 <= plan.exposure <= 1:
        raise ValueError(f"plan.exposure must be a share of the frame interval, from 0 to 1, got {plan.exposure}")
    if not 1 <= plan.subframes <= MOST_SUBFRAMES:
        raise ValueError(f"plan.subframes must be from 1 to {MOST_SUBFRAMES}, got {plan.subframes}")
    if plan.padding_mode not in PADDING_MODES:
        raise ValueError(f"plan.padding_mode must be one of {', '.join(map(repr, PADDING_MODES))}, got {plan.padding_mode!r}")


def _check_outlines(outlines: Float32[Tensor, "B L K"]) -> None:
    """Raise ``ValueError`` for an unknown shape, a missing column, or an edge of no width."""
    shape, numbers = outlines[..., outline.SHAPE], outlines.shape[-1]
    codes = set(shape.flatten().tolist())
    if unknown := codes - set(range(outline.BLOB + 1)):
        raise ValueError(f"plan.layers.outline must have shapes 0 to {outline.BLOB} in column {outline.SHAPE}, got {sorted(unknown)}")
    if codes - {outline.BOX} and numbers != outline.NUMBERS:
        raise ValueError(f"plan.layers.outline must have {outline.NUMBERS} columns for shapes other than boxes, got {numbers}")
    if not (outlines[..., outline.FEATHER] > 0).all():
        raise ValueError(f"plan.layers.outline must have widths above 0 in column {outline.FEATHER}")


def _of_motion(name: str, motion: Motion, shape: tuple[int, ...]) -> dict[str, tuple[Any, tuple[int, ...], torch.dtype]]:
    """The tensors of a motion with leading axes ``shape``, with their expected shapes and dtypes."""
    bend: Any = motion.bend
    grid = min(bend.shape[-1] if bend.ndim else 0, spline.MOST_POINTS)
    return {
        f"{name}.homography": (motion.homography, (*shape, 3, 3), torch.float32),
        f"{name}.color": (motion.color, (*shape, 3, 4), torch.float32),
        f"{name}.bend": (bend, (*shape, 2, grid, grid), torch.float32),
    }
