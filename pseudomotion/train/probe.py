"""A motion probe: labelled clips that are made, not filmed, and whose class no single frame tells. Not from the paper.

A square patch of one image lies over another image. Its place, its angle and its size stand on circles: a patch that leaves the frame on
one side comes in on the other, and one that has grown to the largest size starts again from the least. A class is a constant speed on one
of these circles, from a state drawn evenly on all of them. Every frame of every class therefore has the same distribution, exactly, and
only the change from frame to frame is left to tell the classes apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from pseudomotion import checks, geometry
from pseudomotion import color as color_maps
from pseudomotion.draws import Draws, exp, log
from pseudomotion.mix import whole_clips
from pseudomotion.plan import MotionPlan
from pseudomotion.pmg import PMG
from pseudomotion.transforms.base import Range, between, steps

DIRECTIONS = ("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right")
CLASSES = (*DIRECTIONS, "clockwise", "counterclockwise", "growing", "shrinking")

BOX = 0.5  # side of the patch, as a share of its image's
WINDOW = 0.75  # what the background shows of its image, as a share of the side
COPIES = ((0, 0), (1, 0), (0, 1), (1, 1))  # of a patch that lies across the frame's edge
LEAST_SIDE = 8


@dataclass(frozen=True)
class Look:
    """How fast things move, and how they look. Speeds are ranges per step from one frame to the next.

    Args:
        shift: of the eight directions, as a share of the frame's side.
        degrees: of the two rotations.
        growth: of the two scalings, the larger side over the smaller.
        drift: of the background, as a share of the frame's side, in a direction of its own.
        side: least and greatest side of the patch, as shares of the frame's; its diagonal must be shorter than the frame.
        light: what the background's colors are multiplied by; below 1 the patch stands out, and a small model learns the classes sooner.

    """

    shift: Range = (0.03, 0.06)
    degrees: Range = (7.0, 12.0)
    growth: Range = (1.04, 1.07)
    drift: Range = (0.0, 0.01)
    side: Range = (0.3, 0.7)
    light: float = 0.5


class MotionProbe:
    """Labelled clips of a patch in motion; clip and label of an id depend on the seed, the id and the images alone.

    The label is ``id % 12``, so that consecutive ids hold all classes alike. Give other images for training than for testing, or the
    textures can be learnt by heart.

    Args:
        images: uint8 ``(N, 3, S, S)``, at least two, at least 8 pixels large; such as ``ImageBank(...).images``. They, and so the clips,
            may lie on any device.
        num_frames: T, at least 2.
        size: side of the frames in pixels, at least 8.
        seed: any integer of 64 bits.
        look: how fast the classes move, and how they look. The background must not drift out of its image.

    Raises:
        TypeError, ValueError: for arguments outside these.

    Example:
        >>> probe = MotionProbe(torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8), num_frames=4, size=16)
        >>> clips, labels = probe.get(torch.arange(12))
        >>> clips.shape, CLASSES[labels[8]]
        (torch.Size([12, 4, 3, 16, 16]), 'clockwise')

    """

    def __init__(self, images: Tensor, num_frames: int = 8, size: int = 32, seed: int = 0, *, look: Look | None = None) -> None:
        checks.images(images)
        if images.dtype != torch.uint8 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or len(images) < 2:
            raise ValueError(f"images must be uint8 (N, 3, S, S) with N >= 2, got {images.dtype} {tuple(images.shape)}")
        for name, value, least in (("images' side", images.shape[2], LEAST_SIDE), ("size", size, LEAST_SIDE), ("num_frames", num_frames, 2)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an int of at least {least}, got {value!r}")
        self.images = images
        self.num_frames, self.size, self.seed = num_frames, size, checks.seed(seed)
        self.look = look or Look()
        if (room := 1 - WINDOW) < (need := WINDOW * self.look.drift[1] * (num_frames - 1) + 4 / images.shape[2]):
            raise ValueError(f"look.drift leads out of the image: it needs {need:.3g} of its side in {num_frames} frames, of {room:.3g}")
        self._pmg = PMG(("identity",), num_frames, size, data_format="BTCHW", padding_mode="border")

    def get(self, ids: Tensor) -> tuple[UInt8[Tensor, "B T 3 h w"], Int64[Tensor, " B"]]:
        """Clips and labels of some ids.

        Args:
            ids: int64 ``(B,)``, at least 0.

        Returns:
            uint8 ``(B, T, 3, size, size)`` and int64 ``(B,)``, positions in ``CLASSES``, both on the images' device.

        Raises:
            TypeError, ValueError: for ids outside these.

        """
        checks.item_ids(ids)
        ids = ids.to("cpu")
        back, front = self._pairs(ids)
        pairs = torch.cat([self.images[back.to(self.images.device)], self.images[front.to(self.images.device)]], 3)
        return self._pmg.render(pairs, self.plan(ids)), (ids % len(CLASSES)).to(self.images.device)

    def plan(self, ids: Tensor) -> MotionPlan:
        """What happens in the clips of some ids; layer 0 is the background, the others are the patch, once for every side it can cross.

        The plan is for images of S x 2 S: the background's on the left, the patch's on the right.
        """
        draws, side = Draws(self.seed, ids), self.images.shape[2]
        layers, t = 1 + len(COPIES), self.num_frames
        place_x, place_y, angle, size, *box = draws.uniform("probe patch", 6)
        velocity = self._velocity(draws, ids % len(CLASSES))
        states = [(start[:, None] + speed[:, None] * steps(t)) % 1.0 for start, speed in zip((place_x, place_y, angle, size), velocity, strict=True)]
        corner = torch.stack(box, -1) * (side * (1 - BOX) - 4) + 2 - 0.5  # two pixels inside, so that the soft edge reads its own image
        corner = corner + torch.tensor([side, 0.0], dtype=torch.float64)
        box_side = side * BOX
        homography = torch.cat([self._background(draws)[:, None], self._patch(states, corner + box_side / 2, box_side)], 1)
        boxes = torch.cat([corner, corner + box_side], -1)[:, None].repeat(1, layers, 1)
        boxes[:, 0] = torch.tensor([-0.5, -0.5, 2 * side - 0.5, side - 0.5], dtype=torch.float64)
        color = color_maps.identity(len(ids), layers, t).clone()
        color[:, 0] *= self.look.light
        blend = whole_clips(len(ids), t, (self.size, self.size))
        own = torch.arange(len(ids))
        return MotionPlan(
            source=own[:, None].repeat(1, layers),
            homography=homography.float(),
            color=color.float(),
            box=boxes.float(),
            opacity=torch.ones(len(ids), layers, t),
            reads_previous=torch.zeros(len(ids), dtype=torch.bool),
            partner=own,
            partner_weight=blend.weight,
            partner_box=blend.box,
            partner_frames=blend.frames,
            transform=torch.full((len(ids),), -1),
            source_size=(side, 2 * side),
            frame_size=(self.size, self.size),
        )

    def _pairs(self, ids: Int64[Tensor, " b"]) -> tuple[Int64[Tensor, " b"], Int64[Tensor, " b"]]:
        """For every clip two different images: of the background and of the patch."""
        n = len(self.images)
        back, other = Draws(self.seed, ids).uniform("probe images", 2)
        first = (back * n).long()
        return first, (first + 1 + (other * (n - 1)).long()) % n

    def _velocity(self, draws: Draws, labels: Int64[Tensor, " b"]) -> Sequence[Float64[Tensor, " b"]]:
        """Turns per step on the circles of x, y, angle and logarithm of the size."""
        (speed,) = draws.uniform("probe speed", 1)
        look = self.look
        sine, cosine = geometry.sincos(labels.double() * (2 * math.pi / len(DIRECTIONS)))
        moves = labels < len(DIRECTIONS)
        shift = torch.where(moves, between(look.shift, speed), 0.0)
        turn = between(look.degrees, speed) / 360
        low, high = (log(torch.tensor(value, dtype=torch.float64)) for value in look.growth)
        grow = (low + (high - low) * speed) / log(torch.tensor(look.side[1] / look.side[0], dtype=torch.float64))
        sign = 1.0 - 2.0 * (labels % 2)
        rotates = ~moves & (labels < len(DIRECTIONS) + 2)
        return shift * cosine, shift * sine, torch.where(rotates, sign * turn, 0.0), torch.where(moves | rotates, 0.0, sign * grow)

    def _background(self, draws: Draws) -> Float64[Tensor, "b T 3 3"]:
        """A window of the left image, at its middle in the middle of the clip plus what is left of the room, drifting."""
        x, y, speed, direction = draws.uniform("probe background", 4)
        side = self.images.shape[2]
        scale = side * WINDOW / self.size
        sine, cosine = geometry.sincos(direction * 2 * math.pi)
        drift = between(self.look.drift, speed) * self.size * scale
        time = steps(self.num_frames) - (self.num_frames - 1) / 2
        path = []
        for start, along in ((x, cosine), (y, sine)):
            reach = (drift * along).abs() * (self.num_frames - 1) / 2
            room = side * (1 - WINDOW) / 2 - 2 - reach
            path.append((side - 1) / 2 + ((2 * start - 1) * room)[:, None] + (drift * along)[:, None] * time)
        zoom = torch.full_like(path[0], 1 / scale)
        middle = (self.size - 1) / 2
        return geometry.stack([[zoom, 0.0, middle - path[0] * zoom], [0.0, zoom, middle - path[1] * zoom], [0.0, 0.0, 1.0]])

    def _patch(self, states: Sequence[Float64[Tensor, "b T"]], middle: Float64[Tensor, "b 2"], box_side: float) -> Float64[Tensor, "b 4 T 3 3"]:
        """The patch where its state says, and where it comes in again on the other sides."""
        x, y, angle, size = states
        least, greatest = self.look.side
        ratio = log(torch.tensor(greatest / least, dtype=torch.float64))
        scale = greatest * self.size / box_side * exp((size - 1) * ratio)
        sine, cosine = geometry.sincos(angle * 2 * math.pi)
        mx, my = middle[:, None].expand(-1, self.num_frames, 2).unbind(-1)
        copies = []
        for across, down in COPIES:
            # The patch itself, or the copy a frame's side further on: towards the side that it is not already at.
            at_x = (x - across * torch.where(x < 0.5, -1.0, 1.0)) * self.size - 0.5
            at_y = (y - down * torch.where(y < 0.5, -1.0, 1.0)) * self.size - 0.5
            turned_x = scale * (cosine * mx - sine * my)
            turned_y = scale * (sine * mx + cosine * my)
            copies.append(
                geometry.stack([[scale * cosine, -scale * sine, at_x - turned_x], [scale * sine, scale * cosine, at_y - turned_y], [0.0, 0.0, 1.0]])
            )
        return torch.stack(copies, 1)
