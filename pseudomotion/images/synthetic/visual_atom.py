"""``VisualAtom``: wavy rings around a center."""

from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.geometry import sincos
from pseudomotion.images.synthetic.arithmetic import hash_cells, integer_from, lerp, radius
from pseudomotion.images.synthetic.base import Images, SyntheticSource, to_uint8, uniform

INSTANCES = 1000
PUBLISHED_SIZE = 512
FREQUENCIES = (0, 20)
REACH = 10_000.0  # range of the noise's argument
NOISE_DEVIATION = 0.155  # standard deviation of perlin_1d
FREQUENCY_TRIES = 8
LAMBDA = 0.5
PIXELS_AT_ONCE = {"cpu": 2**17, "cuda": 2**24}


@dataclass(frozen=True)
class Atoms:
    """The parameters of ``b`` images; lengths in pixels of a 512 x 512 image."""

    vertices: Int64[Tensor, " b"]
    rings: Int64[Tensor, " b"]
    noise: Float32[Tensor, " b"]
    growth: Float32[Tensor, " b"]
    frequency_1: Float32[Tensor, " b"]
    frequency_2: Float32[Tensor, " b"]
    semi_axes: Float32[Tensor, "b 2"]
    center: Float32[Tensor, "b 2"]


class VisualAtom(SyntheticSource):
    """VisualAtom: 1,000 instances of each of ``categories`` atoms, gray rings on black.

    An image's category is ``id % categories``, its instance ``id // categories``. A category is a number of vertices and rings, two
    frequencies, and the strength of the noise; an instance is a center, a draw of the noise, and the gray levels of the rings. The formula
    and the ranges, of the best-practice script, are the published ones (Takashima et al., CVPR 2023). Lines are antialiased, unlike the
    published ones, and as thick as in a 512 x 512 image scaled to ``size``.

    Args:
        categories: number of atoms; the published sets have 1,000 and 21,000.
        vertices: range of the number of vertices of a ring.
        rings: range of the number of rings.
        noise: range of the noise's strength; the published range is ``(m, m + 4)`` with m = 0.
        growth: range of the pixels by which each ring is pushed outward; published (0, 0.1), or (0, 0.01) without the script.
        radius: range of the first ring's radius in pixels; published (10, 60), or (0, 50) without the script.
        size: side of the square images in pixels.
        seed: any 64-bit integer; None is 0.
        device: where the images are generated, and where they stay.

    Raises:
        TypeError, ValueError: for arguments outside these.

    Example:
        >>> import torch
        >>> from pseudomotion.images.synthetic import VisualAtom
        >>> source = VisualAtom(categories=10, size=32)
        >>> source.get(torch.arange(4)).shape
        torch.Size([4, 3, 32, 32])

    """

    name = "visual_atom"

    def __init__(
        self,
        categories: int = 1000,
        *,
        vertices: tuple[int, int] = (200, 1000),
        rings: tuple[int, int] = (1, 200),
        noise: tuple[float, float] = (0.0, 4.0),
        growth: tuple[float, float] = (0.0, 0.1),
        radius: tuple[int, int] = (10, 60),
        size: int = 224,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(size=size, seed=seed, device=device)
        self.categories = checks.bounded_int("categories", categories, 1, 1_000_000)
        self.vertices = checks.interval("vertices", vertices, 3, 10_000)
        self.rings = checks.interval("rings", rings, 1, 1000)
        self.noise = checks.interval("noise", noise, 0, 100)
        self.growth = checks.interval("growth", growth, 0, 10)
        self.radius = checks.interval("radius", radius, 0, 512)

    def __len__(self) -> int:
        """1,000 images per category."""
        return self.categories * INSTANCES

    def category(self, ids: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        """The category of every id: its class label."""
        return ids % self.categories

    def atoms(self, ids: Int64[Tensor, " B"]) -> Atoms:
        """The parameters of the images of some ids."""
        draws = Draws(self.seed, self.category(ids))
        q, k, r, noise, growth, ox, oy, n1 = draws.uniform("atom", 8)
        # Redrawn until it differs from the first, as published; after a bounded number of tries they may be equal.
        others = integer_from(*FREQUENCIES, torch.stack(draws.uniform("second frequency", FREQUENCY_TRIES)))
        first = integer_from(*FREQUENCIES, n1)
        differs = others != first
        second = others.gather(0, differs.long().argmax(0, keepdim=True))[0]
        x, y = Draws(self.seed, ids).uniform("center", 2)
        first_radius = integer_from(*self.radius, r)
        place = (PUBLISHED_SIZE + integer_from(-PUBLISHED_SIZE, PUBLISHED_SIZE, torch.stack([x, y], -1))) / 2
        return Atoms(
            integer_from(*self.vertices, q).long(),
            integer_from(*self.rings, k).long(),
            lerp(*self.noise, noise).float(),
            lerp(*self.growth, growth).float(),
            first.float(),
            second.float(),
            torch.stack([first_radius * (1 + ox), first_radius * (1 + oy)], -1).float(),
            place.float(),
        )

    def generate(self, ids: Int64[Tensor, " B"]) -> Images:
        return self._in_parts(self._draw, ids, PIXELS_AT_ONCE, self.size**2)

    def _draw(self, ids: Int64[Tensor, " b"]) -> UInt8[Tensor, "b 3 size size"]:
        atoms = self.atoms(ids)
        # Images with many rings first, so that the unfinished ones are always a prefix, updated in place.
        order = atoms.rings.argsort(descending=True, stable=True)
        ids, atoms = ids[order], Atoms(**{name: getattr(atoms, name)[order] for name in Atoms.__dataclass_fields__})
        growing = [int((atoms.rings > k).sum()) for k in range(int(atoms.rings[0]))]
        gray = torch.floor(256 * uniform(self.seed, ids, "gray", len(growing), self.device)) / 255
        canvas = torch.zeros(len(ids), self.size * self.size, dtype=torch.float32, device=self.device)
        shape = self._shape(atoms)
        ring = self._first_ring(atoms, shape)
        for k, n in enumerate(growing):
            if k:
                ring = self._next_ring(ring[:n], ids[:n], atoms, shape, k)
            coverage = cover(ring, _pieces(atoms, k, n, self.size), self.size)
            canvas[:n] += (gray[:n, k, None] - canvas[:n]) * coverage
        images = torch.empty_like(canvas)
        images[order.to(self.device, non_blocking=True)] = canvas
        return to_uint8(images).view(-1, 1, self.size, self.size).expand(-1, 3, -1, -1)

    def rings_of(self, ids: Int64[Tensor, " B"], k: int) -> Float32[Tensor, "B 2 q"]:
        """The vertices (x, y) of ring ``k`` of images, in pixels of a 512 x 512 image.

        Rings are closed. If an image has fewer vertices than the longest ring here, its vertices repeat.
        """
        atoms = self.atoms(checks.item_indices(ids, len(self)))
        shape = self._shape(atoms)
        ring = self._first_ring(atoms, shape)
        for step in range(1, k + 1):
            ring = self._next_ring(ring, ids, atoms, shape, step)
        return ring

    def _shape(self, atoms: Atoms) -> tuple[Int64[Tensor, "b q"], Float32[Tensor, "b 2 q"], Float32[Tensor, "b q"]]:
        """For each position on a ring: its vertex, direction from the center, and waves. The first vertex closes the ring."""
        vertex = torch.arange(int(atoms.vertices.max()) + 1, device="cpu") % atoms.vertices[:, None]
        angle = 2 * torch.pi * vertex.double() / atoms.vertices[:, None]
        sine, cosine = sincos(angle)
        first, second = (sincos(angle * n.double()[:, None])[0] for n in (atoms.frequency_1, atoms.frequency_2))
        waves = (LAMBDA * (first + second)).float()
        directions = torch.stack([cosine, sine], 1).float()
        return vertex.to(self.device), directions.to(self.device), waves.to(self.device)

    def _first_ring(self, atoms: Atoms, shape: tuple[Tensor, Tensor, Tensor]) -> Float32[Tensor, "b 2 q"]:
        """An ellipse around the center."""
        center, semi_axes = (value.to(self.device, non_blocking=True)[..., None] for value in (atoms.center, atoms.semi_axes))
        return center + semi_axes * shape[1]

    def _next_ring(
        self, ring: Float32[Tensor, "b 2 q"], ids: Int64[Tensor, " b"], atoms: Atoms, shape: tuple[Tensor, Tensor, Tensor], k: int
    ) -> Float32[Tensor, "b 2 q"]:
        """Ring ``k`` from the previous one: each vertex is pushed outward by two waves, noise, and growth, per axis."""
        n, _, positions = ring.shape
        vertex, directions, waves = (part[:n] for part in shape)
        argument = uniform(self.seed, ids, f"noise {k}", 2 * positions, self.device).view(n, positions, 2).mT
        argument = REACH * argument.gather(2, vertex[:, None].expand(-1, 2, -1))
        noise, growth = (value[:n, None, None].to(self.device, non_blocking=True) for value in (atoms.noise, atoms.growth))
        inwards = noise * (perlin_1d(argument) - 1) - waves[:, None]
        return ring - directions * (inwards - growth)


def perlin_1d(x: Float32[Tensor, "*n"]) -> Float32[Tensor, "*n"]:
    """1D gradient noise from -0.5 to 0.5: slopes uniform in [-1, 1] at the integers, Perlin's quintic fade between."""
    cell = x.floor()
    f = x - cell
    index = cell.to(torch.int32)
    left, right = (2.0**-23 * hash_cells(index + k, torch.zeros_like(index), torch.zeros_like(index)).float() - 1 for k in (0, 1))
    fade = f * f * f * (f * (f * 6 - 15) + 10)
    return lerp(left * f, right * (f - 1), fade)


def _pieces(atoms: Atoms, k: int, n: int, size: int) -> Int64[Tensor, " n"]:
    """Number of pieces of at most two pixels that each segment of ring ``k`` is divided into.

    Noise moves neighboring vertices apart by a random walk. Twice its standard deviation is allowed for; the few longer segments become
    dotted.
    """
    radius = atoms.semi_axes[:n].amax(-1) + k * (atoms.noise[:n] + atoms.growth[:n] + 1)
    along = 2 * torch.pi * radius.clamp(max=PUBLISHED_SIZE) / atoms.vertices[:n]
    apart = 2 * NOISE_DEVIATION * atoms.noise[:n] * (2 * k) ** 0.5
    pieces: Tensor = (along + apart) * (size / PUBLISHED_SIZE) / 2
    return pieces.ceil().long().clamp(min=1)


def cover(ring: Float32[Tensor, "b 2 q"], pieces: Int64[Tensor, " b"], size: int) -> Float32[Tensor, "b pixels"]:
    """The fraction of every pixel that the closed line through the vertices covers, in steps of 1/255.

    It is the largest over the line's pieces, each of which covers up to nine pixels around its middle, by their distance to its segment
    with square ends. A maximum of integers does not depend on the order in which a GPU computes it.
    """
    scale = size / PUBLISHED_SIZE
    place = (ring + 0.5) * scale - 0.5
    (ax, ay), (dx, dy) = place[..., :-1].unbind(1), (place[..., 1:] - place[..., :-1]).unbind(1)
    length = radius(dx, dy)
    safe = length.clamp(min=1e-6)
    ax, ay, dx, dy, length, cosine, sine = (part[..., None] for part in (ax, ay, dx, dy, length, dx / safe, dy / safe))
    piece = torch.arange(int(pieces.max()), device="cpu") % pieces[:, None]
    middle = ((piece.float() + 0.5) / pieces[:, None]).to(ring.device, non_blocking=True)[:, None]
    column, row = (ax + dx * middle).round(), (ay + dy * middle).round()
    along, aside = (column - ax) * cosine + (row - ay) * sine, (row - ay) * cosine - (column - ax) * sine
    levels = torch.zeros(len(ring), size * size + 1, dtype=torch.int32, device=ring.device)
    for down in (-1, 0, 1):
        y = row + down
        inside_rows = (y >= 0) & (y < size)
        for right in (-1, 0, 1):
            x = column + right
            place_along = along + (right * cosine + down * sine)
            beyond = torch.maximum(-place_along, place_along - length)
            distance = torch.maximum((aside + (down * cosine - right * sine)).abs(), beyond)
            coverage = (255 * (0.5 + 0.5 * scale - distance)).clamp(0, 255 * min(1.0, scale))
            # What lies outside goes to one more pixel, which is dropped at the end.
            index = torch.where(inside_rows & (x >= 0) & (x < size), y * size + x, size * size).long()
            levels.scatter_reduce_(1, index.flatten(1), coverage.to(torch.int32).flatten(1), "amax")
    return levels[:, :-1].float() / 255
