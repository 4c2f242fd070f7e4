"""A surface that bends: where its points go, between its image and its frames, and from frame to frame."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from pseudomotion import spline
from pseudomotion.geometry import HORIZON

Points = tuple[Float64[Tensor, "..."], Float64[Tensor, "..."], Bool[Tensor, "..."]]  # x, y, in front: each (b, K, *places)


def linear(matrices: Float64[Tensor, "b K 3 3"], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three components of ``matrices @ (x, y, 1)``; products that depend on x or y alone are computed once."""
    places = max(x.ndim, y.ndim) - 2
    first, second, third = (
        spread(row[..., 0], places) * x + (spread(row[..., 1], places) * y + spread(row[..., 2], places)) for row in matrices.unbind(-2)
    )
    return first, second, third


def spread(tensor: Tensor, places: int) -> Tensor:
    """Append axes of length 1 to ``(B, K)``, so that it broadcasts against ``(B, K, *places)``."""
    return tensor.reshape(*tensor.shape, *[1] * places)


def fill(
    results: tuple[Shaped[Tensor, "B K *places"], ...],
    clips: Int64[Tensor, " b"],
    chosen: Bool[Tensor, "b 1 *places"],
    x: Tensor,
    y: Tensor,
    compute: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]],
) -> None:
    """Compute results at some points alone, and write them there. For CPUs: how many there are, a GPU would have to be waited for.

    Args:
        results: to be changed.
        clips: positions in the batch of the clips that have the points.
        chosen: which of their points.
        x: of all their points.
        y: of all their points.
        compute: ``x`` and ``y`` of n points of some clips, ``(b, 1, n)``, and the clips' positions in the batch, to the results there.

    """
    counts = chosen.flatten(1).sum(1)
    kept = counts.nonzero()[:, 0]
    if not len(kept):
        return
    row, place = chosen[kept].flatten(1).nonzero().unbind(1)
    number = torch.arange(len(row)) - (counts.cumsum(0) - counts)[kept[row]]  # of the point among those of its clip
    places = torch.zeros(len(kept), int(counts.max()), dtype=torch.int64)  # rows of few points are padded with the first of all
    places[row, number] = place
    some_x, some_y = (each.expand(chosen.shape)[kept].flatten(1).gather(1, places)[:, None] for each in (x, y))  # (b, 1, n)
    positions = clips[kept]
    for whole, part in zip(results, compute(some_x, some_y, positions), strict=True):
        whole.view(*whole.shape[:2], -1)[positions[row], :, place] = part[row, :, number]


@dataclass(frozen=True)
class Bends:
    """One surface of b clips of T frames, some of which bend.

    A step leads from frame t to what it reads: the previous frame in a clip that reads it, for t >= 1; else the image. Points are followed
    step by step, forward by Newton's iteration.
    """

    to_frame: Float64[Tensor, "b T 3 3"]  # homographies of the steps, from what is read to frame t
    to_read: Float64[Tensor, "b T 3 3"]  # their inverses, with denominator 1 at the frame's center
    bend: Float64[Tensor, "b T 2 G G"]
    box: Float64[Tensor, "b T 4"]  # of what is read, over which the control points lie
    recursive: Bool[Tensor, " b"]
    reads_previous: bool  # some clip is recursive

    def select(self, clips: Tensor | slice) -> "Bends":
        """The surface in the clips at these positions in the batch."""
        if isinstance(clips, slice):
            return self
        return Bends(
            self.to_frame[clips], self.to_read[clips], self.bend[clips], self.box[clips], self.recursive[clips], self.reads_previous
        )

    @property
    def _last(self) -> int:
        return self.bend.shape[1]

    def to_image(self, frames: slice, x: Tensor, y: Tensor) -> Points:
        """Image coordinates of points of frames, and whether they are in front of the horizon."""
        x, y = self._spread(frames, x, y)
        found = self._backward(frames, x, y)
        if not self.reads_previous:
            return found
        chain = []
        for k, t in enumerate(range(*frames.indices(self._last))):
            place = x[:, k : k + 1], y[:, k : k + 1], torch.ones_like(x[:, k : k + 1], dtype=torch.bool)
            for step in range(t, -1, -1):
                place = self._step_back(step, place)
            chain.append(place)
        return self._choose(_joined(chain), found)

    def from_image(self, frames: slice, u: Tensor, v: Tensor) -> Points:
        """Frame coordinates of points of the image, and whether they are in front of the horizon."""
        u, v = self._spread(frames, u, v)
        found = self._forward(frames, u, v)
        if not self.reads_previous:
            return found
        place = u[:, :1], v[:, :1], torch.ones_like(u[:, :1], dtype=torch.bool)  # one image, however many frames
        chain = []
        for step in range(range(*frames.indices(self._last))[-1] + 1):
            place = self._step_forth(step, place)
            chain.append(place)
        return self._choose(_joined([chain[t] for t in range(*frames.indices(self._last))]), found)

    def move(self, origin: slice, target: slice, x: Tensor, y: Tensor) -> Points:
        """Coordinates in frames ``target`` of points of frames ``origin``, and whether they are in front of the horizon."""
        x, y = self._spread(origin, x, y)
        u, v, near = self._backward(origin, x, y)
        to_x, to_y, nearer = self._forward(target, *self._spread(target, u, v))
        found = to_x, to_y, near & nearer
        if not self.reads_previous:
            return found
        starts, ends = (list(range(*frames.indices(self._last))) for frames in (origin, target))
        if len(starts) == 1:
            here = x, y, torch.ones_like(x, dtype=torch.bool)
            places = {starts[0]: here}
            for t in range(starts[0] + 1, max(ends) + 1):
                places[t] = self._step_forth(t, places[t - 1])
            for t in range(starts[0] - 1, min(ends) - 1, -1):
                places[t] = self._step_back(t + 1, places[t + 1])
            return self._choose(_joined([places[t] for t in ends]), found)
        chain = []
        for k, (start, end) in enumerate(zip(starts, ends * (len(starts) if len(ends) == 1 else 1), strict=True)):
            place = x[:, k : k + 1], y[:, k : k + 1], torch.ones_like(x[:, k : k + 1], dtype=torch.bool)
            for t in range(start + 1, end + 1):
                place = self._step_forth(t, place)
            for t in range(start, end, -1):
                place = self._step_back(t, place)
            chain.append(place)
        return self._choose(_joined(chain), found)

    def _spread(self, frames: slice, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates of all points, ``(b, K, *places)``."""
        count = max(x.shape[1], y.shape[1], len(range(*frames.indices(self._last))))
        shape = (len(self.bend), count, *(max(sides) for sides in zip(x.shape[2:], y.shape[2:], strict=True)))
        return x.expand(shape), y.expand(shape)

    def _choose(self, recursive: Points, direct: Points) -> Points:
        chosen = spread(self.recursive[:, None], direct[0].ndim - 2)
        x, y, near = (torch.where(chosen, a, b) for a, b in zip(recursive, direct, strict=True))
        return x, y, near

    def _step_back(self, t: int, place: Points) -> Points:
        u, v, near = self._backward(slice(t, t + 1), *place[:2])
        return u, v, near & place[2]

    def _step_forth(self, t: int, place: Points) -> Points:
        x, y, near = self._forward(slice(t, t + 1), *place[:2])
        return x, y, near & place[2]

    def _backward(self, frames: slice, x: Tensor, y: Tensor) -> Points:
        """One step: from frames to what they read."""
        u, v, w = linear(self.to_read[:, frames], x, y)
        near, w = w > HORIZON, w.clamp(min=HORIZON)
        u, v = u / w, v / w
        dx, dy = spline.displacement(self.bend[:, frames], self.box[:, frames], u.flatten(2), v.flatten(2))
        return u + dx.reshape(u.shape), v + dy.reshape(v.shape), near

    def _forward(self, frames: slice, u: Tensor, v: Tensor) -> Points:
        """One step: from what frames read to the frames."""
        a, b = spline.invert(self.bend[:, frames], self.box[:, frames], u.flatten(2), v.flatten(2))
        x, y, w = linear(self.to_frame[:, frames], a.reshape(u.shape), b.reshape(v.shape))
        near, w = w > HORIZON, w.clamp(min=HORIZON)
        return x / w, y / w, near


def _joined(places: list[Points]) -> Points:
    x, y, near = (torch.cat(parts, 1) for parts in zip(*places, strict=True))
    return x, y, near
