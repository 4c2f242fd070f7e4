"""The back and layers of every clip as moving surfaces: what there is, and where points on it go. ``visibility`` says which one shows.

Points are passed as ``x`` and ``y`` that broadcast against ``(B, K, *places)``. All pixels of a frame are thus ``x`` of shape (1, 1, 1, w)
and ``y`` of shape (1, 1, h, 1), without a list of points. Frames are passed as slices, because indexing with them never synchronizes with
a GPU.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from pseudomotion import checks, geometry, outline
from pseudomotion.geometry import HORIZON
from pseudomotion.labels.bending import Bends, Points, fill, linear
from pseudomotion.passes import Pass
from pseudomotion.plan import Blend, MotionPlan
from pseudomotion.render.output import to_unit

Clips = Int64[Tensor, " b"] | slice  # positions of clips in the batch

EVERYONE = slice(None)
SELECTING = ("cpu",)  # devices that compute at selected points alone; on a GPU, their number would have to be waited for
Results = TypeVar("Results", bound=tuple[Tensor, ...])


class Moved(NamedTuple):
    """Displacement of points in pixels, and whether they are in front of the horizon."""

    dx: Float64[Tensor, "b K *places"]
    dy: Float64[Tensor, "b K *places"]
    in_front: Bool[Tensor, "b K *places"]


class Group(NamedTuple):
    """Clips in which a surface is of one kind, as far as the host knows."""

    surface: int
    clips: Clips
    bent: bool  # it may bend
    shapes: tuple[int, ...]  # of its outlines


@dataclass(frozen=True)
class Surfaces:
    """All surfaces that can be visible in B clips of T frames, from back to front.

    The first of the S surfaces are the plan's back and layers. If the plan pastes partners in (VideoMix: weight 1 within a box, in some
    frames), the partners' back and layers follow, each visible only inside that box. Padding belongs to the back and moves with it.
    """

    to_frame: Float64[Tensor, "B S T 3 3"]  # image pixel to frame pixel
    to_image: Float64[Tensor, "B S T 3 3"]  # its inverse, with denominator 1 at the frame's center
    image: Int64[Tensor, "B S"]  # index of the surface's image in the batch, or of its texture
    box: Float64[Tensor, "B S 4"]  # part of the image that the outline spans: edges (x0, y0, x1, y1) in image pixels
    outline: Float64[Tensor, "B S K"]
    bends: tuple[Bends | None, ...]  # every surface as one that bends; None: it bends in no clip
    present: Bool[Tensor, "B S T"]  # frames in which the surface exists
    window: Float64[Tensor, "B S 4"]  # part of the frame where the surface can be visible: edges in frame pixels
    recursive: Bool[Tensor, "B S"]  # reads its previous frame, so content that has left the frame is lost
    layered: tuple[Group, ...]  # surfaces in front of the first
    bent: tuple[Tensor | slice | None, ...]  # clips in which each surface may bend
    reads_previous: bool  # some surface is recursive
    textured: bool  # layers show textures
    alpha: Float64[Tensor, "M H W"] | None  # of the textures, if they have it
    stacked: int  # 1 + L, surfaces per clip; every multiple of it is the index of a back
    size: tuple[int, int]  # (h, w) of the frames

    @classmethod
    def of(cls, plan: MotionPlan, size: int | tuple[int, int] | None = None, textures: Tensor | None = None) -> "Surfaces":
        """The surfaces of a plan, in frames of ``size``, or of its own size if that is None; cut out by the alpha of ``textures``."""
        if not isinstance(plan, MotionPlan):
            raise TypeError(f"plan must be a MotionPlan, got {type(plan).__name__}")
        h, w = checks.frame_size(size) or plan.frame_size
        scale_y, scale_x = h / plan.frame_size[0], w / plan.frame_size[1]
        from_image = _from_image(plan)
        resize = from_image.new_tensor([[scale_x, 0, (scale_x - 1) / 2], [0, scale_y, (scale_y - 1) / 2], [0, 0, 1]])
        to_frame = geometry.matmul(resize.expand_as(from_image), from_image)
        to_image = geometry.inverse(to_frame)
        last = to_image[..., 2, :]
        center = last[..., 0] * ((w - 1) / 2) + last[..., 1] * ((h - 1) / 2) + last[..., 2]
        to_frame, to_image = to_frame * center[..., None, None], to_image / center[..., None, None]
        stacked = 1 + plan.num_layers
        frame = to_frame.new_tensor([-0.5, -0.5, w - 0.5, h - 0.5])
        image_h, image_w = plan.image_size
        image = to_frame.new_tensor([-0.5, -0.5, image_w - 0.5, image_h - 0.5])
        outlines = plan.layers.outline.double()
        whole = outlines.new_tensor([*outline.SHARP, *[0.0] * (outlines.shape[-1] - len(outline.SHARP))])
        passes = (plan.passes, *plan.layer_passes)
        bent = tuple(torch.cat(clips) if (clips := [p.clips for p in each if p.bent]) else None for each in passes)
        surfaces = cls(
            to_frame=to_frame,
            to_image=to_image,
            image=torch.cat([plan.back.image[:, None], plan.layers.texture], 1),
            box=torch.cat([image.expand(len(plan), 1, 4), plan.layers.box.double()], 1),
            present=F.pad(plan.layers.opacity >= 0.5, (0, 0, 1, 0), value=True),
            window=frame.expand(len(plan), stacked, 4),
            recursive=F.pad(plan.back.reads_previous[:, None], (0, plan.num_layers)),
            outline=torch.cat([whole.expand(len(plan), 1, -1), outlines], 1),
            bends=(
                None if bent[0] is None else _bent_back(plan, resize, image, frame),
                *(None if clips is None else _bent_layer(plan, k, to_frame, to_image) for k, clips in enumerate(bent[1:])),
            ),
            layered=tuple(group for layer, each in enumerate(plan.layer_passes) for group in _groups(1 + layer, each)),
            bent=bent,
            reads_previous=any(p.recursive for p in plan.passes),
            textured=plan.texture_size is not None,
            alpha=None if textures is None else _alpha(plan, textures),
            stacked=stacked,
            size=(h, w),
        )
        return surfaces._with_partners(plan.blend, frame.new_tensor([scale_x, scale_y] * 2)) if plan.blend and plan.mixes else surfaces

    def _with_partners(self, blend: Blend, scale: Tensor) -> "Surfaces":
        """Add, in front, the surfaces of the partners that are pasted in."""
        t = torch.arange(self.num_frames, device=self.box.device)
        first, last = blend.frames[:, None].unbind(-1)
        pasted = ((blend.weight >= 1)[:, None] & (t >= first) & (t < last))[:, None]
        window = ((blend.box + 0.5) * scale.float() - 0.5).double()
        theirs = blend.partner
        return replace(
            self,
            to_frame=torch.cat([self.to_frame, self.to_frame[theirs]], 1),
            to_image=torch.cat([self.to_image, self.to_image[theirs]], 1),
            image=torch.cat([self.image, self.image[theirs]], 1),
            box=torch.cat([self.box, self.box[theirs]], 1),
            present=torch.cat([self.present, self.present[theirs] & pasted], 1),
            window=torch.cat([self.window, window[:, None].expand(-1, self.stacked, -1)], 1),
            recursive=torch.cat([self.recursive, self.recursive[theirs]], 1),
            outline=torch.cat([self.outline, self.outline[theirs]], 1),
            bends=(*self.bends, *(None if bends is None else bends.select(theirs) for bends in self.bends)),
            layered=(*self.layered, *(self._of_partners(surface) for surface in range(self.stacked))),
            bent=(*self.bent, *(None if clips is None else EVERYONE for clips in self.bent)),
        )

    def _of_partners(self, surface: int) -> Group:
        """A surface of the partners: which clips are partners, the host does not know."""
        shapes = {shape for group in self.layered if group.surface == surface for shape in group.shapes}
        return Group(self.stacked + surface, EVERYONE, self.bent[surface] is not None, tuple(sorted(shapes | {outline.BOX})))

    def __len__(self) -> int:
        """S, the number of surfaces per clip."""
        return self.to_frame.shape[1]

    @property
    def num_frames(self) -> int:
        """T, the number of frames."""
        return self.to_frame.shape[2]

    @property
    def selects(self) -> bool:
        """Whether to compute at the points that count alone."""
        return self.box.device.type in SELECTING

    @property
    def of_images(self) -> range:
        """The surfaces that show images of the batch: all, or the backs alone if layers show textures."""
        return range(0, len(self), self.stacked if self.textured else 1)

    def pixels(self) -> tuple[Float64[Tensor, "1 1 1 w"], Float64[Tensor, "1 1 h 1"]]:
        """Coordinates ``x`` and ``y`` of all pixels of a frame."""
        h, w = self.size
        x, y = (torch.arange(side, dtype=torch.float64, device=self.box.device) for side in (w, h))
        return x[None, None, None], y[None, None, :, None]

    def move(
        self, surface: int, origin: slice, target: slice, x: Tensor, y: Tensor, clips: Clips | None = None, *, bent: bool = True
    ) -> Moved:
        """Displacement of points on one surface from frames ``origin`` to frames ``target``.

        If nothing bends, it is computed from the difference of the homographies, so that it is exactly zero if they are equal.

        Args:
            surface: which.
            origin: frames in which the points are given.
            target: as many frames, or one.
            x: in pixels.
            y: in pixels.
            clips: that have the points; None: all.
            bent: whether the surface may bend in them.

        """
        if clips is None:
            moved = self.move(surface, origin, target, x, y, EVERYONE, bent=False)
            return self._with_bent(
                surface, moved, lambda clips: self.move(surface, origin, target, of_clips(x, clips), of_clips(y, clips), clips)
            )
        if bent and (bends := self.bends[surface]) is not None:
            to_x, to_y, in_front = bends.select(clips).move(origin, target, x, y)
            return Moved(to_x - x, to_y - y, in_front)
        before, after = self.to_frame[clips, surface, origin], self.to_frame[clips, surface, target]
        difference = after - before
        change = geometry.matmul(difference, self.to_image[clips, surface, origin].expand_as(difference))
        a, b, c = linear(change, x, y)
        in_front = c > HORIZON - 1
        a, b = a.addcmul_(x, c, value=-1), b.addcmul_(y, c, value=-1)  # in place: allocating large arrays is slow
        w = c.add_(1).clamp_(min=HORIZON)
        return Moved(a.div_(w), b.div_(w), in_front)

    def at_image(self, surface: int, frames: slice, x: Tensor, y: Tensor, clips: Clips | None = None, *, bent: bool = True) -> Points:
        """Image coordinates of frame pixels on one surface, and whether they are in front of the horizon. Args as ``move``."""
        if clips is None:
            found = self.at_image(surface, frames, x, y, EVERYONE, bent=False)
            return self._with_bent(
                surface, found, lambda clips: self.at_image(surface, frames, of_clips(x, clips), of_clips(y, clips), clips)
            )
        if bent and (bends := self.bends[surface]) is not None:
            return bends.select(clips).to_image(frames, x, y)
        u, v, w = linear(self.to_image[clips, surface, frames], x, y)
        in_front = w > HORIZON
        w = w.clamp_(min=HORIZON)
        return u.div_(w), v.div_(w), in_front

    def at_frame(self, surface: int, x: Tensor, y: Tensor) -> Points:
        """Frame coordinates, in every frame, of pixels of a surface's image, and whether they are in front of the horizon."""
        u, v, w = linear(self.to_frame[:, surface], x, y)
        in_front = w > HORIZON
        w = w.clamp_(min=HORIZON)
        found = u.div_(w), v.div_(w), in_front
        if (bends := self.bends[surface]) is None:
            return found
        every = slice(None)
        return self._with_bent(surface, found, lambda clips: bends.select(clips).from_image(every, of_clips(x, clips), of_clips(y, clips)))

    def _with_bent(self, surface: int, rigid: Results, bent: Callable[[Clips], tuple[Tensor, ...]]) -> Results:
        """Results for all clips, replaced by those of ``bent`` where the surface bends."""
        clips = self.bent[surface]
        if clips is not None:
            for whole, part in zip(rigid, bent(clips), strict=True):
                whole[clips] = part
        return rigid

    def in_frame(self, x: Tensor, y: Tensor) -> Bool[Tensor, "*b"]:
        """Whether points lie in the frame."""
        h, w = self.size
        return (x >= -0.5) & (x < w - 0.5) & (y >= -0.5) & (y < h - 0.5)

    def displace(self, shown: Int64[Tensor, "B K *places"], origin: slice, target: slice, x: Tensor, y: Tensor) -> Moved:
        """Displacement of points, each with the surface ``shown`` there."""
        if len(self) == 1:
            return self.move(0, origin, target, x, y)
        moved = self.move(0, origin, target, x, y, EVERYONE, bent=False)
        back = [] if self.bent[0] is None else [(0, self.bent[0], True)]
        for surface, clips, bent in [*back, *(group[:3] for group in self.layered)]:
            chosen, their_x, their_y = shown[clips] == surface, of_clips(x, clips), of_clips(y, clips)
            move = partial(self.move, surface, origin, target, bent=bent)
            if self.selects:
                fill(moved, self.positions(clips), chosen, their_x, their_y, move)
                continue
            for whole, part in zip(moved, move(their_x, their_y, clips), strict=True):
                whole[clips] = torch.where(chosen, part, whole[clips])
        return moved

    def positions(self, clips: Clips) -> Int64[Tensor, " b"]:
        """Positions of clips in the batch, as a tensor."""
        return torch.arange(len(self.box), device=self.box.device)[clips]


def of_clips(coordinate: Tensor, clips: Clips) -> Tensor:
    """Coordinates of some clips; coordinates shared by all clips stay unchanged."""
    return coordinate if len(coordinate) == 1 else coordinate[clips]


def _alpha(plan: MotionPlan, textures: Tensor) -> Float64[Tensor, "M H W"] | None:
    """The alpha channel of the textures of a plan; None if they have none."""
    checks.images(textures)
    if plan.texture_size is None or tuple(textures.shape[2:]) != plan.texture_size:
        raise ValueError(
            f"textures for this plan must be {'None' if plan.texture_size is None else f'of size {plan.texture_size}'}, "
            f"got shape {tuple(textures.shape)}"
        )
    return to_unit(textures[:, 3:])[:, 0].to(plan.device, torch.float64) if textures.shape[1] == 4 else None


def _groups(surface: int, passes: tuple[Pass, ...]) -> Iterator[Group]:
    """Clips that have a layer, by whether it bends and by its shape."""
    kinds: dict[tuple[bool, int], list[Tensor]] = {}
    for p in passes:
        kinds.setdefault((p.bent, p.shape), []).append(p.clips)
    for (bent, shape), clips in kinds.items():
        yield Group(surface, torch.cat(clips), bent, (shape,))


def _bent_back(plan: MotionPlan, resize: Tensor, image: Tensor, frame: Tensor) -> Bends:
    """The back, step by step, in frames of the labels' size."""
    assert plan.back.motion.bend is not None
    steps, recursive = plan.back.motion.homography.double(), plan.back.reads_previous
    first = torch.arange(plan.num_frames, device=steps.device) == 0
    reads_image = (~recursive[:, None] | first)[..., None]  # (B, T, 1)
    resized = geometry.matmul(resize.expand_as(steps), steps)
    between = geometry.matmul(resized, geometry.inverse(resize).expand_as(steps))
    to_frame = torch.where(reads_image[..., None], resized, between)
    to_read = geometry.inverse(to_frame)
    x, y = (frame[0] + frame[2]) / 2, (frame[1] + frame[3]) / 2
    center = (to_read[..., 2, 0] * x + to_read[..., 2, 1] * y + to_read[..., 2, 2])[..., None, None]
    reads_previous = any(p.recursive and p.bent for p in plan.passes)
    box = torch.where(reads_image, image, frame)
    return Bends(to_frame * center, to_read / center, plan.back.motion.bend.double(), box, recursive, reads_previous)


def _bent_layer(plan: MotionPlan, layer: int, to_frame: Tensor, to_image: Tensor) -> Bends:
    assert plan.layers.motion.bend is not None
    bend = plan.layers.motion.bend[:, layer].double()
    box = plan.layers.box[:, layer, None].double().expand(-1, plan.num_frames, -1)
    never = torch.zeros_like(plan.back.reads_previous)
    return Bends(to_frame[:, 1 + layer], to_image[:, 1 + layer], bend, box, never, reads_previous=False)


def _from_image(plan: MotionPlan) -> Float64[Tensor, "B S T 3 3"]:
    """Homographies from image pixel to pixel of every frame, for the back and every layer.

    As in ``MotionPlan.composed``, but in float64, and without copying the plan to the host.
    """
    recursive = plan.back.reads_previous[:, None, None]
    steps = plan.back.motion.homography.double()
    matrices = [steps[:, 0]]
    for step in steps[:, 1:].unbind(1):
        matrices.append(torch.where(recursive, geometry.matmul(step, matrices[-1]), step))
    return torch.cat([torch.stack(matrices, 1)[:, None], plan.layers.motion.homography.double()], 1)
