"""``MotionPlan``: every decision about a batch of clips, made before the first pixel.

Conventions, valid in the whole library
---------------------------------------
- Images are uint8 in [0, 255] or float in [0, 1], ``(B, C, H, W)``. Clips are ``(B, C, T, h, w)`` ("BCTHW") or ``(B, T, C, h, w)``
  ("BTCHW"). Sizes are ``(height, width)``.
- Points are ``(x, y)`` in pixels, x to the right, y down; **pixel centres lie at integers**, so an image of width W covers -0.5 to W - 0.5.
- A homography acts on column vectors ``(x, y, 1)`` and maps **what a layer reads to the frame**, as kornia's
  ``warp_perspective(..., align_corners=True)``.
- A clip is a stack of layers, painted back to front. Layer 0, the back, is opaque and fills the frame; ``padding_mode`` says what shows
  where its image ends. A layer before it shows its ``box`` only, with an edge one source pixel soft.
- Order within a frame: sample, color, clamp to [0, 1], paint the layers; the next frame reads the result.
- Flow is ``(u, v) = (dx, dy)`` in pixels, from frame t to frame t+1.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from pseudomotion import color as color_maps
from pseudomotion import geometry
from pseudomotion.describe import describe_clip
from pseudomotion.transforms import TRANSFORMS


class Pass(NamedTuple):
    """Clips whose frames are painted alike on one layer, so that a renderer can paint them together.

    Found on the host when a plan is made: what to do never depends on reading a value back from a device, nor does ``torch.compile``
    meet a data-dependent branch.
    """

    clips: Int64[Tensor, " n"]
    layer: int
    everyone: bool  # all clips of the batch, in order
    own_image: bool  # and each shows its own image
    recursive: bool
    steady: bool  # the homography from frame to frame is the same at every step
    affine: bool  # all homographies keep parallels: their last row is (0, 0, 1)
    colored: bool  # some color map is not the identity
    opaque: bool  # opacity is 1 throughout
    levels: tuple[tuple[int, int], ...]  # first and last level of the source's image pyramid that is read, in every frame that reads it


@dataclass(frozen=True, eq=False)
class MotionPlan:
    """What each of B clips shows: L layers, T frames. Pure data; the same plan and images give the same clips.

    Made on the CPU by ``PMG.plan``; a renderer takes it from there. Fields (shapes as annotated):

    Args:
        source: index in the batch of the image that the layer shows.
        homography: pixel of what the layer reads to pixel of frame t.
        color: affine map of RGB in [0, 1], applied after sampling; the result is clamped to [0, 1].
        box: the opaque part of the source image, ``(x0, y0, x1, y1)`` in source pixels (edges, so a whole image starts at -0.5).
        opacity: 0 where the layer is absent, 1 where it is painted in full.
        reads_previous: True: frame t >= 1 reads frame t-1, the paper's equation 1 on pixels. False: every frame reads the source image.
        partner: index in the batch of the clip that is mixed in.
        partner_weight: its weight, 0 for none.
        partner_box: where it is mixed in, ``(x0, y0, x1, y1)`` in frame pixels (edges).
        partner_frames: when it is mixed in, from the first of these frames up to, not including, the second.
        transform: position in ``TRANSFORMS`` of the transform that made the clip; -1 for one that is not in it.
        source_size: ``(H, W)`` of the images that the plan is for.
        frame_size: ``(h, w)`` of the frames.

    From these it works out ``detail``, the level of the source's image pyramid that every frame reads (0 where it reads the previous
    frame), ``passes``, and whether it ``mixes``.

    Raises:
        ValueError: where shapes or dtypes do not agree, or a clip that reads its previous frame has more than its back layer.

    """

    source: Int64[Tensor, "B L"]
    homography: Float32[Tensor, "B L T 3 3"]
    color: Float32[Tensor, "B L T 3 4"]
    box: Float32[Tensor, "B L 4"]
    opacity: Float32[Tensor, "B L T"]
    reads_previous: Bool[Tensor, " B"]
    partner: Int64[Tensor, " B"]
    partner_weight: Float32[Tensor, " B"]
    partner_box: Float32[Tensor, "B 4"]
    partner_frames: Int64[Tensor, "B 2"]
    transform: Int64[Tensor, " B"]
    source_size: tuple[int, int]
    frame_size: tuple[int, int]
    detail: Float64[Tensor, "B L T"] = field(init=False, repr=False)
    passes: tuple[Pass, ...] = field(init=False, repr=False)
    mixes: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the fields against each other, and read off on the host what decides how to render."""
        self._check()
        detail = _find_detail(self)
        object.__setattr__(self, "detail", torch.from_numpy(detail).to(self.homography.device))
        object.__setattr__(self, "passes", tuple(_find_passes(self, detail)))
        object.__setattr__(self, "mixes", bool((self.partner_weight > 0).any()))

    def _check(self) -> None:
        if self.homography.ndim != 5:
            raise ValueError(f"plan.homography must have shape (B, L, T, 3, 3), got {tuple(self.homography.shape)}")
        b, layers, t = self.homography.shape[:3]
        expected: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "source": ((b, layers), torch.int64),
            "homography": ((b, layers, t, 3, 3), torch.float32),
            "color": ((b, layers, t, 3, 4), torch.float32),
            "box": ((b, layers, 4), torch.float32),
            "opacity": ((b, layers, t), torch.float32),
            "reads_previous": ((b,), torch.bool),
            "partner": ((b,), torch.int64),
            "partner_weight": ((b,), torch.float32),
            "partner_box": ((b, 4), torch.float32),
            "partner_frames": ((b, 2), torch.int64),
            "transform": ((b,), torch.int64),
        }
        for name, (shape, dtype) in expected.items():
            tensor = getattr(self, name)
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                raise ValueError(f"plan.{name} must be {dtype} of shape {shape}, got {tensor.dtype} of shape {tuple(tensor.shape)}")
        if bool((self.reads_previous[:, None, None] & (self.opacity[:, 1:] > 0)).any()):
            raise ValueError("plan.reads_previous must be False for clips with more than one visible layer")

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.transform)

    @property
    def num_layers(self) -> int:
        """L."""
        return self.homography.shape[1]

    @property
    def num_frames(self) -> int:
        """T."""
        return self.homography.shape[2]

    def __repr__(self) -> str:
        """One line; ``describe`` says more."""
        counts = {name: int((self.transform == index).sum()) for index, name in enumerate(TRANSFORMS)}
        names = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        (source_h, source_w), (h, w) = self.source_size, self.frame_size
        return (
            f"MotionPlan({len(self)} clips of {self.num_frames} frames, {source_h}x{source_w} -> {h}x{w}, "
            f"layers={self.num_layers}{', ' + names if names else ''}, device={self.homography.device})"
        )

    def to(self, device: torch.device | str) -> "MotionPlan":
        """The plan with its tensors on ``device``."""
        away = torch.device(device).type != "cpu"  # towards the host it is waited for, or what is read next might not be there yet
        return self._map(lambda tensor: tensor.to(device, non_blocking=away))

    def _map(self, function: Callable[[Tensor], Tensor]) -> "MotionPlan":
        moved = copy.copy(self)  # takes over what was read on the host; building a new one would read it again
        for name in (*TENSORS, "detail"):
            object.__setattr__(moved, name, function(getattr(self, name)))
        object.__setattr__(moved, "passes", tuple(p._replace(clips=function(p.clips)) for p in self.passes))
        return moved

    def composed(self) -> "MotionPlan":
        """The equivalent plan in which every frame reads the source image: one resampling per frame instead of up to T.

        Homographies and color maps are multiplied up. What recursion does between the steps is no part of it: blur by repeated resampling,
        loss of what has left the frame, and clamping of colors.
        """
        recursive = self.reads_previous.numpy(force=True)
        homography, color = compose(self.homography.numpy(force=True), self.color.numpy(force=True), recursive)
        device = self.homography.device
        return dataclasses.replace(
            self,
            homography=torch.from_numpy(homography).to(device),
            color=torch.from_numpy(color).to(device),
            reads_previous=torch.zeros_like(self.reads_previous),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """All fields as tensors, for ``torch.save`` or safetensors."""
        sizes = {name: torch.tensor(getattr(self, name), device="cpu") for name in ("source_size", "frame_size")}
        return {name: getattr(self, name) for name in TENSORS} | sizes

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> "MotionPlan":
        """The plan that ``state_dict`` took apart.

        Raises:
            ValueError: where a field is missing or unknown, or has another shape or dtype than the fields beside it.

        """
        names = {*TENSORS, "source_size", "frame_size"}
        if set(state) != names:
            missing, unknown = sorted(names - set(state)), sorted(set(state) - names)
            raise ValueError(f"state must have the fields of a MotionPlan; missing: {missing}, unknown: {unknown}")
        (source_h, source_w), (h, w) = state["source_size"].tolist(), state["frame_size"].tolist()
        return cls(**{name: state[name] for name in TENSORS}, source_size=(source_h, source_w), frame_size=(h, w))

    def describe(self, i: int) -> str:
        """What clip ``i`` does, in words and figures, for people.

        Raises:
            IndexError: where there is no such clip.

        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"plan has {len(self)} clips, so there is no clip {i}")
        return describe_clip(self.to("cpu"), i % len(self))


TENSORS = (
    "source",
    "homography",
    "color",
    "box",
    "opacity",
    "reads_previous",
    "partner",
    "partner_weight",
    "partner_box",
    "partner_frames",
    "transform",
)


@np.errstate(all="ignore")  # as in planning
def compose(
    homography: Float32[np.ndarray, "B L T 3 3"], color: Float32[np.ndarray, "B L T 3 4"], recursive: Bool[np.ndarray, " B"]
) -> tuple[Float32[np.ndarray, "B L T 3 3"], Float32[np.ndarray, "B L T 3 4"]]:
    """Maps from frame to frame, of the clips that are recursive, multiplied up to maps from the source image."""
    if not recursive.any():
        return homography, color
    colored = bool((color != color_maps.IDENTITY).any())
    homography, color = homography.copy(), color.copy()
    for maps, product in [(homography, geometry.matmul)] + [(color, color_maps.compose)] * colored:
        steps = maps[recursive].astype(np.float64)
        for t in range(1, steps.shape[2]):
            steps[:, :, t] = product(steps[:, :, t], steps[:, :, t - 1])
        maps[recursive] = steps
    return homography, color


def _find_detail(plan: MotionPlan) -> Float64[np.ndarray, "B L T"]:
    """Level of the image pyramid that every frame reads, 0 where it reads the frame before it."""
    homography, recursive = plan.homography.numpy(force=True), plan.reads_previous.numpy(force=True)
    first = homography[:, :, :1] if recursive.all() else homography
    with np.errstate(all="ignore"):  # what shows nothing may be any matrix
        scale = np.nan_to_num(geometry.source_scale(first.astype(np.float64), plan.frame_size), nan=1.0, posinf=1.0)
    detail = np.zeros(homography.shape[:3])
    detail[:, :, : first.shape[2]] = geometry.level_of_detail(scale)
    detail[recursive, :, 1:] = 0
    return detail


def _find_passes(plan: MotionPlan, detail: Float64[np.ndarray, "B L T"]) -> list[Pass]:
    """Group the clips of every layer by how they are painted."""
    homography, color, opacity = (tensor.numpy(force=True) for tensor in (plan.homography, plan.color, plan.opacity))
    source, recursive = plan.source.numpy(force=True), plan.reads_previous.numpy(force=True)[:, None]
    read = np.where(recursive[..., None], detail[..., :1], detail)
    affine = np.logical_and.reduce(homography[..., 2, :] == (0, 0, 1), (2, 3))
    visible = np.logical_or.reduce(opacity > 0, -1)
    visible[:, 0] = True
    keys = np.stack(
        np.broadcast_arrays(
            recursive,
            (homography[:, :, 1:] == homography[:, :, 1:2]).all((2, 3, 4)),
            (color != color_maps.IDENTITY).any((2, 3, 4)),
            (opacity == 1).all(-1),
            np.floor(read.min(-1)),
            np.ceil(read.max(-1)),
        ),
        -1,
    ).astype(np.int64)
    passes = []
    for layer in range(plan.num_layers):
        for key in dict.fromkeys(map(tuple, keys[:, layer].tolist())):
            clips = ((keys[:, layer] == key).all(-1) & visible[:, layer]).nonzero()[0]
            if not len(clips):
                continue
            recursive_, steady, colored, opaque, *_ = key
            frames = read[clips, layer, : 1 if recursive_ else None]
            low, high = (ends.astype(int).tolist() for ends in (np.floor(frames.min(0)), np.ceil(frames.max(0))))
            everyone = len(clips) == len(plan)
            passes.append(
                Pass(
                    torch.from_numpy(clips),
                    layer,
                    everyone,
                    own_image=everyone and bool((source[:, layer] == clips).all()),
                    recursive=bool(recursive_),
                    steady=bool(steady),
                    affine=bool(affine[clips, layer].all()),
                    colored=bool(colored),
                    opaque=bool(opaque),
                    levels=tuple(zip(low, high, strict=True)),
                )
            )
    return passes
