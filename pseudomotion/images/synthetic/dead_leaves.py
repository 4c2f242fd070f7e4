"""``DeadLeaves``: occluding shapes of all sizes."""

import torch
from jaxtyping import Float32, Int32, Int64, UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.images.synthetic.arithmetic import cosine, sine
from pseudomotion.images.synthetic.base import Images, SyntheticSource, uniform

SHAPES = ("circle", "square", "rotated square", "rectangle", "triangle", "quadrilateral")
IMAGES_AT_ONCE = {"cpu": 2, "cuda": 64}
INDEX_BITS = 13


class DeadLeaves(SyntheticSource):
    """Dead leaves: circles, squares, rectangles, triangles, and quadrilaterals in random colors, occluding one another. Endless.

    Radii have the density ``r ** -3``, which makes the images statistically alike at every scale. The settings are those of "Learning to
    See by Looking at Noise" (Baradad et al., NeurIPS 2021), with two differences: it paints up to 5,000 shapes or until the image is
    covered, here the number is fixed and the remaining pixels get one more color; and the number of radii in each octave is fixed rather
    than drawn, so that every octave is one pass over all images.

    Args:
        shapes: number of shapes, 1 to 5,000. 1,000 leave a few pixels uncovered.
        radius: smallest and largest radius, as fractions of the image's side.
        size: side of the square images in pixels.
        seed: any 64-bit integer; None is 0.
        device: where the images are generated, and where they stay.

    Raises:
        TypeError, ValueError: for arguments outside these.

    Example:
        >>> import torch
        >>> from pseudomotion.images.synthetic import DeadLeaves
        >>> DeadLeaves(size=32).get(torch.arange(4)).shape
        torch.Size([4, 3, 32, 32])

    """

    name = "dead_leaves"
    endless = True

    def __init__(
        self,
        shapes: int = 1000,
        *,
        radius: tuple[float, float] = (0.03, 1.0),
        size: int = 224,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(size=size, seed=seed, device=device)
        self.shapes = checks.bounded_int("shapes", shapes, 1, 5000)
        self.radius = checks.interval("radius", radius, 0.005, 2.0)

    def octaves(self) -> list[tuple[float, float, int]]:
        """Smallest and largest radius, as fractions of the side, and number of shapes of each octave."""
        low, high = self.radius
        if low == high:
            return [(low, high, self.shapes)]
        edges = [low]
        while edges[-1] * 2 < high:
            edges.append(edges[-1] * 2)
        edges = [*edges, high]
        whole = low**-2 - high**-2
        below = [round(self.shapes * (low**-2 - edge**-2) / whole) for edge in edges]
        return [(a, b, n - m) for a, b, m, n in zip(edges, edges[1:], below, below[1:], strict=False) if n > m]

    def radii(self, ids: Int64[Tensor, " B"]) -> Float32[Tensor, "B n"]:
        """The radii of all shapes, as fractions of the side, octave by octave."""
        number = uniform(self.seed, ids, "radius", self.shapes, self.device)
        parts, start = [], 0
        for low, high, n in self.octaves():
            # The inverse of the cumulative distribution of radii within the octave.
            parts.append(1 / (low**-2 + (high**-2 - low**-2) * number[:, start : start + n]).sqrt())
            start += n
        return torch.cat(parts, 1)

    def generate(self, ids: Int64[Tensor, " B"]) -> Images:
        return self._in_parts(self._pile, ids, IMAGES_AT_ONCE)

    def _pile(self, ids: Int64[Tensor, " b"]) -> UInt8[Tensor, "b 3 size size"]:
        radii = self.radii(ids) * self.size
        kind, x, y, height = uniform(self.seed, ids, "shape", 4 * self.shapes, self.device).view(len(ids), 4, -1).unbind(1)
        corners = uniform(self.seed, ids, "corners", 4 * self.shapes, self.device).view(len(ids), 4, -1)
        sides = _sides((kind * len(SHAPES)).long(), corners, radii)
        order = ((height * 2**17).to(torch.int32) << INDEX_BITS) + torch.arange(self.shapes, dtype=torch.int32, device=self.device)
        top = torch.full((len(ids), self.size * self.size + 1), -1, dtype=torch.int32, device=self.device)
        start = 0
        for _, high, n in self.octaves():
            part = slice(start, start + n)
            place = x[:, part] * self.size, y[:, part] * self.size
            _lay(top, place, [side[..., part] for side in sides], order[:, part], high * self.size, self.size)
            start += n
        colors = (uniform(self.seed, ids, "color", 3 * (self.shapes + 1), self.device) * 256).to(torch.uint8).view(len(ids), 3, -1)
        shown = torch.where(top >= 0, top & ((1 << INDEX_BITS) - 1), self.shapes)[:, None, :-1].expand(-1, 3, -1).long()
        return colors.gather(2, shown).view(-1, 3, self.size, self.size)


def _sides(kind: Int64[Tensor, "b n"], corners: Float32[Tensor, "b 4 n"], radii: Float32[Tensor, "b n"]) -> list[Float32[Tensor, "b _ n"]]:
    """Every shape as the intersection of four half planes and its circumscribed circle.

    Returns cosines and sines of the half planes' directions, their distances from the center, and the radii. The side between the corners
    at angles s and t lies in the direction (s + t) / 2, at the distance ``radius * cos((t - s) / 2)``. A triangle has one corner twice; the
    half planes of a circle lie outside it.
    """
    turn = corners[:, :1]
    quarters = torch.arange(4, device=kind.device, dtype=torch.float32)[:, None] / 4
    drawn = corners.sort(1).values
    thin = 0.03 + 0.19 * corners[:, 1:2]
    rectangle = turn + torch.cat([-thin, thin, 0.5 - thin, 0.5 + thin], 1)
    triangle = torch.cat([drawn[:, :3], drawn[:, 2:3]], 1)
    square = (0.125 + quarters).expand_as(drawn)
    choices = torch.stack([square, square, square + turn, rectangle, triangle, drawn])
    angles = choices.gather(0, kind[None, :, None].expand(1, -1, 4, -1))[0]
    following = torch.cat([angles[:, 1:], angles[:, :1] + 1], 1)
    middle, half = (angles + following) / 2, (following - angles) / 2
    distance = radii[:, None] * torch.where(kind[:, None] == 0, 2.0, cosine(half))
    return [cosine(middle), sine(middle), distance, radii[:, None]]


def _lay(
    top: Int32[Tensor, "b pixels"],
    place: tuple[Float32[Tensor, "b n"], Float32[Tensor, "b n"]],
    sides: list[Float32[Tensor, "b _ n"]],
    order: Int32[Tensor, "b n"],
    reach: float,
    size: int,
) -> None:
    """Paint shapes: ``top`` keeps the topmost at every pixel. One more pixel at its end takes what lies outside."""
    half = int(reach) + 1
    if 2 * half + 1 < size:
        window = torch.arange(-half, half + 1, device=top.device, dtype=torch.float32)
        column, row = (p.round()[:, :, None, None] for p in place)
    else:
        window = torch.arange(size, device=top.device, dtype=torch.float32)
        column, row = (torch.zeros_like(p)[:, :, None, None] for p in place)
    column, row = column + window, row + window[:, None]
    x, y = (p - at[:, :, None, None] for p, at in zip((column, row), place, strict=True))
    cosines, sines, distance, radii = (side[..., None, None] for side in sides)
    inside = x * x + y * y <= radii[:, 0] * radii[:, 0]
    for k in range(4):
        inside = inside & (x * cosines[:, k] + y * sines[:, k] <= distance[:, k])
    inside = inside & (column >= 0) & (column < size) & (row >= 0) & (row < size)
    index = torch.where(inside, row * size + column, size * size).long()
    top.scatter_reduce_(1, index.flatten(1), order[:, :, None, None].expand_as(index).flatten(1), "amax")
