"""A motion probe: labelled clips that are made, not filmed, and whose class no single frame tells. Not from the paper.

A square patch of one image lies over another image. Its place, its angle and its size stand on circles: a patch that leaves the frame on
one side comes in on the other, and one that has grown to the largest size starts again from the least. A class is a constant speed on one
of these circles, from a state drawn evenly on all of them. Every frame of every class therefore has the same distribution, exactly, and
only the change from frame to frame is left to tell the classes apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from pseudomotion import checks, geometry, outline
from pseudomotion import color as color_maps
from pseudomotion.draws import Draws, Numbers, exp, log
from pseudomotion.images.synthetic import DeadLeaves, Mixture, Noise
from pseudomotion.motion import Layers, Motion, to_tensors
from pseudomotion.plan import Back, MotionPlan
from pseudomotion.pmg import PMG
from pseudomotion.transforms.base import Range, between, steps

DIRECTIONS = ("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right")
CLASSES = (*DIRECTIONS, "clockwise", "counterclockwise", "growing", "shrinking")

BOX = 0.5  # side of the patch, as a share of its image's
WINDOW = 0.75  # what the background shows of its image, as a share of the side
COPIES = ((0, 0), (1, 0), (0, 1), (1, 1))  # of a patch that lies across the frame's edge
LEAST_SIDE = 8
MARGIN = 2  # source pixels between what a layer shows and its image's edge, for soft edges and averages


def textures(ids: Tensor, side: int) -> UInt8[Tensor, "n 3 side side"]:
    """Gray textures, most of them smooth, some with edges: three independent channels would be three times as much to learn."""
    source = Mixture({Noise(size=side, exponent=(1.5, 3.0)): 0.8, DeadLeaves(200, radius=(0.08, 0.5), size=side): 0.2}, size=side)
    return torch.cat([source.get(part) for part in torch.split(ids, 256)])[:, :1].repeat(1, 3, 1, 1)


@dataclass(frozen=True)
class Motions:
    """How far things move from the first frame of a clip to its last, as ranges ``(low, high)``, and how large and light they are."""

    shift: Range = (0.25, 0.45)  # of the eight directions, as a share of the frame's side
    degrees: Range = (60.0, 90.0)  # of the two rotations
    growth: Range = (1.35, 1.55)  # of the two scalings, the larger side over the smaller
    drift: Range = (0.0, 0.07)  # of the background, as a share of the frame's side, in a direction of its own
    side: Range = (0.35, 0.7)  # of the patch, as shares of the frame's; its diagonal must be shorter than the frame
    # What the background's colors are multiplied by, up to 1: where it is dim, the patch stands out, and a small model learns sooner.
    light: float = 1.0


class MotionProbe:
    """Labelled clips of a patch in motion; clip and label of an id depend on the seed, the id and the images alone.

    The label is ``id % 12``, so that consecutive ids hold all classes alike. The images are uint8 ``(N, 3, S, S)``, at least two, on any
    device. Give other ones for training than for testing, or the textures can be learnt by heart.

    Raises:
        TypeError, ValueError: for images, frames or a size that are too few or too small; for a background that drifts out of its image.

    Example:
        >>> probe = MotionProbe(torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8), num_frames=4, size=16)
        >>> clips, labels = probe.get(torch.arange(12))
        >>> clips.shape, CLASSES[labels[8]]
        (torch.Size([12, 4, 3, 16, 16]), 'clockwise')

    """

    def __init__(self, images: Tensor, num_frames: int = 8, size: int = 32, seed: int = 0, *, motions: Motions | None = None) -> None:
        checks.images(images)
        if images.dtype != torch.uint8 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or len(images) < 2:
            raise ValueError(f"images must be uint8 (N, 3, S, S) with N >= 2, got {images.dtype} {tuple(images.shape)}")
        if min(size, images.shape[2]) < LEAST_SIDE or num_frames < 2:
            raise ValueError(f"frames and images must be at least {LEAST_SIDE} pixels large, clips 2 frames long, got {size}, {num_frames}")
        self.images = images
        self.num_frames, self.size, self.seed = num_frames, size, checks.seed(seed)
        self.motions = motions or Motions()
        if (room := (1 - WINDOW) / WINDOW - 2 * MARGIN / (WINDOW * images.shape[2])) < self.motions.drift[1]:
            raise ValueError(f"motions.drift must be at most {room:.3g} for images of this size, got {self.motions.drift[1]}")
        if not 0 <= self.motions.light <= 1:
            raise ValueError(f"motions.light must be from 0 to 1, got {self.motions.light}")
        if not 0 < self.motions.side[0] < self.motions.side[1] <= 0.5**0.5:
            raise ValueError(f"motions.side must be a pair with 0 < low < high <= 0.707, got {self.motions.side}")
        self._pmg = PMG(("identity",), num_frames, size, data_format="BTCHW")

    def get(self, ids: Tensor) -> tuple[UInt8[Tensor, "B T 3 h w"], Int64[Tensor, " B"]]:
        """Clips of some ids, uint8 ``(B, T, 3, size, size)``, and their labels, positions in ``CLASSES``; both on the images' device."""
        checks.item_ids(ids)
        ids = ids.to("cpu")
        back, front = self._pairs(ids)
        pairs = torch.cat([self.images[back.to(self.images.device)], self.images[front.to(self.images.device)]], 3)
        return self._pmg.render(pairs, self.plan(ids)), (ids % len(CLASSES)).to(self.images.device)

    def plan(self, ids: Tensor) -> MotionPlan:
        """What happens in the clips of some ids; the back is the background; the layers are the patch, once for every side it can cross.

        The plan is for images of S x 2 S: the background's on the left, the patch's on the right.
        """
        draws, side = Draws(self.seed, ids), self.images.shape[2]
        t = self.num_frames
        place_x, place_y, angle, size, *box = draws.numbers("probe patch", 6)
        velocity = self._velocity(draws, (ids % len(CLASSES)).numpy())
        x, y, angle, size = (
            start[:, None] + way[:, None] * self._time() for start, way in zip((place_x, place_y, angle, size), velocity, strict=True)
        )
        states = (x, y, angle, size % 1.0)
        box_side = side * BOX
        corner = np.stack(box, -1) * (side - box_side - 2 * MARGIN) + MARGIN - 0.5 + (side, 0.0)
        copies = len(COPIES)
        color = np.broadcast_to(color_maps.IDENTITY, (len(ids), t, 3, 4)).copy()
        color *= self.motions.light
        back = Motion(self._background(draws), color)
        front = Motion(
            self._patch(states, corner + box_side / 2, box_side),
            np.broadcast_to(color_maps.IDENTITY, (len(ids), copies, t, 3, 4)),
        )
        own = np.arange(len(ids))
        layers = Layers(
            texture=np.repeat(own[:, None], copies, 1),
            box=np.repeat(np.concatenate([corner, corner + box_side], -1)[:, None], copies, 1),
            outline=np.broadcast_to(np.array(outline.SHARP, dtype=np.float64), (len(ids), copies, len(outline.SHARP))),
            motion=front,
            opacity=np.ones((len(ids), copies, t)),
        )
        return MotionPlan(
            back=Back(torch.from_numpy(own), to_tensors(back), torch.zeros(len(ids), dtype=torch.bool)),
            layers=to_tensors(layers),
            blend=None,
            padding_mode="border",
            transform=torch.full((len(ids),), -1),
            image_size=(side, 2 * side),
            texture_size=None,
            frame_size=(self.size, self.size),
        )

    def _pairs(self, ids: Int64[Tensor, " b"]) -> tuple[Int64[Tensor, " b"], Int64[Tensor, " b"]]:
        """For every clip two different images: of the background and of the patch."""
        n = len(self.images)
        back, other = Draws(self.seed, ids).uniform("probe images", 2)
        first = (back * n).long()
        return first, (first + 1 + (other * (n - 1)).long()) % n

    def _velocity(self, draws: Draws, labels: Int64[np.ndarray, " b"]) -> Sequence[Numbers]:
        """Turns in a whole clip on the circles of x, y, angle and logarithm of the size."""
        (share,) = draws.numbers("probe speed", 1)
        motions, directions = self.motions, len(DIRECTIONS)
        shifts, rotates = labels < directions, (labels >= directions) & (labels < directions + 2)
        sine, cosine = geometry.sincos(labels * (2 * math.pi / directions))
        shift = np.where(shifts, between(motions.shift, share), 0.0)
        sign = 1.0 - 2.0 * (labels % 2)
        turn = np.where(rotates, sign * between(motions.degrees, share) / 360, 0.0)
        grow = sign * between((_log(motions.growth[0]), _log(motions.growth[1])), share) / _log(motions.side[1] / motions.side[0])
        return shift * cosine, shift * sine, turn, np.where(shifts | rotates, 0.0, grow)

    def _background(self, draws: Draws) -> Float64[np.ndarray, "b T 3 3"]:
        """A window of the left image that drifts within it."""
        x, y, share, direction = draws.numbers("probe background", 4)
        side, middle = self.images.shape[2], (self.size - 1) / 2
        scale = side * WINDOW / self.size
        drift = between(self.motions.drift, share) * side * WINDOW
        sine, cosine = geometry.sincos(direction * 2 * math.pi)
        path = []
        for start, way in ((x, drift * cosine), (y, drift * sine)):
            room = side * (1 - WINDOW) / 2 - MARGIN - np.abs(way) / 2
            path.append(((side - 1) / 2 + (2 * start - 1) * room)[:, None] + way[:, None] * (self._time() - 0.5))
        zoom = 1 / scale
        return geometry.stack([[zoom, 0.0, middle - path[0] * zoom], [0.0, zoom, middle - path[1] * zoom], [0.0, 0.0, 1.0]])

    def _time(self) -> Float64[np.ndarray, " T"]:
        """From 0 at the first frame to 1 at the last."""
        return steps(self.num_frames) / (self.num_frames - 1)

    def _patch(
        self, states: Sequence[Float64[np.ndarray, "b T"]], middle: Float64[np.ndarray, "b 2"], side: float
    ) -> Float64[np.ndarray, "b 4 T 3 3"]:
        """The patch, of a middle and side in its image, where its state says, and where it comes in again on the other sides."""
        x, y, angle, size = states
        least, greatest = self.motions.side
        scale = greatest * self.size / side * exp((size - 1) * _log(greatest / least))
        sine, cosine = (scale * part for part in geometry.sincos(angle * 2 * math.pi))
        from_x, from_y = middle[:, :1], middle[:, 1:]
        copies = []
        for across, down in COPIES:
            # Where the patch lies across an edge, it is the nearer one.
            to_x, to_y = ((at + far * np.where(at < 0.5, 1.0, -1.0)) * self.size - 0.5 for at, far in ((x, across), (y, down)))
            rows = [[cosine, -sine, to_x - cosine * from_x + sine * from_y], [sine, cosine, to_y - sine * from_x - cosine * from_y]]
            copies.append(geometry.stack([*rows, [0.0, 0.0, 1.0]]))
        return np.stack(copies, 1)


def _log(value: float) -> float:
    """Natural logarithm that is the same on every machine."""
    return float(log(np.array([value]))[0])
