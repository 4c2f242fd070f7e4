"""``FractalDB``: attractors of random iterated function systems."""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int32, Int64, UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.images.synthetic import ifs as systems
from pseudomotion.images.synthetic.base import Images, SyntheticSource
from pseudomotion.images.synthetic.ifs import IFS, VARIANTS

PATCHES, FLIPS = 10, 4
INSTANCES = VARIANTS * PATCHES * FLIPS
PUBLISHED_POINTS, PUBLISHED_SIZE = 200_000, 362
GRAY = 127
HUES, SATURATION, INTENSITY = 128, 0.75, 0.75
POINTS_AT_ONCE = {"cpu": 2**20, "cuda": 2**26}
PACKAGED = Path(__file__).with_name("fractaldb.npz")
PACKAGED_SEED = 1


class FractalDB(SyntheticSource):
    """FractalDB: 1,000 instances of each of ``categories`` fractals, in gray on black.

    An image's category is ``id % categories``, its instance ``id // categories``. An instance is one of 25 perturbations of the fractal's
    maps, 10 draws of the patches that its points are stamped with, and 4 flips, as published (Kataoka et al., ACCV 2020). Three things
    differ: many orbits of the chaos game run in parallel instead of one (``ifs.play``); a perturbation without an attractor shows the
    fractal itself, while the published renderer shows next to nothing; the density of points per pixel is the published one, so a smaller
    image has fewer points.

    The first 1,000 categories of seed 1 come with the library; others are searched for on construction, among 10 to 50 random systems for
    each. For 1,000 categories this takes about a minute on a CPU core, with a progress bar; ``save`` keeps what was found.

    Args:
        categories: number of fractals.
        patch: "patch" stamps a random 3 x 3 pattern at every point, the last on top, as published; "point" sets single pixels.
        color: the hue cycles with the index of the point, in 128 steps. Otherwise gray (127), as published.
        points: per image; None: the published density, 200,000 at 362 x 362.
        parameters: of the fractals: a file written by ``save``, or an ``IFS``; None: those that the search finds for ``seed``.
        max_tries: number of random systems to test before the search gives up. None: 400 per category.
        size: side of the square images in pixels, at least 16.
        seed: any 64-bit integer; None is 1, the published search's.
        device: where the images are generated, and where they stay.

    Raises:
        TypeError, ValueError: for arguments outside these, or a file that holds no parameters.
        OSError: if the file cannot be opened.
        RuntimeError: if ``max_tries`` is not enough.

    Example:
        >>> import torch
        >>> from pseudomotion.images.synthetic import FractalDB
        >>> source = FractalDB(categories=10, points=1000, size=32)
        >>> source.get(torch.arange(4)).shape
        torch.Size([4, 3, 32, 32])

    """

    name = "fractaldb"

    def __init__(
        self,
        categories: int = 1000,
        *,
        patch: Literal["patch", "point"] = "patch",
        color: bool = False,
        points: int | None = None,
        parameters: str | Path | IFS | None = None,
        max_tries: int | None = None,
        size: int = 224,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(size=checks.bounded_int("size", size, 16, 4096), seed=PACKAGED_SEED if seed is None else seed, device=device)
        self.categories = checks.bounded_int("categories", categories, 1, 1_000_000)
        self.patch = checks.one_of("patch", patch, ("patch", "point"))
        self.color = color
        default = max(1000, round(PUBLISHED_POINTS * (size / PUBLISHED_SIZE) ** 2))
        self.points = default if points is None else checks.bounded_int("points", points, 1000, 10_000_000)
        tries = 400 * categories if max_tries is None else checks.bounded_int("max_tries", max_tries, 1, 2**40)
        self.parameters = self._find(parameters, tries)

    def _find(self, parameters: str | Path | IFS | None, max_tries: int) -> IFS:
        if parameters is None and self.seed == PACKAGED_SEED:
            parameters = IFS.load(PACKAGED)
            if len(parameters) < self.categories:
                parameters = None
        if parameters is None:
            return systems.search(self.categories, self.seed, max_tries, self.device)
        known = parameters if isinstance(parameters, IFS) else IFS.load(parameters)
        if len(known) < self.categories:
            raise ValueError(f"parameters must hold at least {self.categories} categories, got {len(known)}")
        return known.select(torch.arange(self.categories, device="cpu"))

    def __len__(self) -> int:
        """1,000 images per category."""
        return self.categories * INSTANCES

    def category(self, ids: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        """The category of every id: its class label."""
        return ids % self.categories

    def save(self, path: str | Path) -> None:
        """Write the parameters to a ``.npz`` file, for ``FractalDB(parameters=path)``."""
        self.parameters.save(path)

    def generate(self, ids: Int64[Tensor, " B"]) -> Images:
        return self._in_parts(self._render, ids, POINTS_AT_ONCE, self.points)

    def _render(self, ids: Int64[Tensor, " b"]) -> UInt8[Tensor, "b 3 size size"]:
        instance = ids // self.categories
        variant, draw, flip = instance // (PATCHES * FLIPS), instance // FLIPS % PATCHES, instance % FLIPS
        x, y = systems.play(systems.perturb(self.parameters.select(self.category(ids)), variant), self.points, self.device)
        last = last_point(*systems.pixels(x, y, self.size), self.size)
        if self.patch == "patch":
            last = stamp(last, draw.to(self.device, non_blocking=True))
        return _flip(self._tint(last), flip.to(self.device, non_blocking=True))

    def _tint(self, last: Int32[Tensor, "b h w"]) -> UInt8[Tensor, "b 3 h w"]:
        if not self.color:
            return ((last >= 0).to(torch.uint8) * GRAY)[:, None].expand(-1, 3, -1, -1)
        palette = torch.cat([_hues(), torch.zeros(1, 3, dtype=torch.uint8, device="cpu")]).to(last.device, non_blocking=True)
        return palette[torch.where(last >= 0, last % HUES, HUES).long()].permute(0, 3, 1, 2)


def last_point(column: Int32[Tensor, "b p"], row: Int32[Tensor, "b p"], size: int) -> Int32[Tensor, "b size size"]:
    """Index of the last point on every pixel, -1 where there is none."""
    place = row.long() * size + column
    number = torch.arange(place.shape[1], dtype=torch.int32, device=place.device).expand_as(place)
    empty = torch.full((len(place), size * size), -1, dtype=torch.int32, device=place.device)
    return empty.scatter_reduce_(1, place, number, "amax").view(-1, size, size)


def stamp(last: Int32[Tensor, "b h w"], draw: Int64[Tensor, " b"]) -> Int32[Tensor, "b h w"]:
    """Index of the point whose stamp is visible at every pixel, -1 where it is black.

    Every point stamps a random 3 x 3 mask, one of the 511 non-empty ones, over the image; zeros erase. A pixel is decided by the last point
    within one pixel of it, which is the last point on one of nine pixels.
    """
    h, w = last.shape[1:]
    padded = torch.nn.functional.pad(last, (1, 1, 1, 1), value=-1)
    winner = torch.full_like(last, -1)
    corner = torch.zeros_like(last)
    for k in range(9):
        other = padded[:, k // 3 : k // 3 + h, k % 3 : k % 3 + w]
        corner = torch.where(other > winner, k, corner)
        winner = torch.maximum(winner, other)
    mask = 1 + _hash(winner.long(), draw[:, None, None]) % 511
    return torch.where((mask >> corner) & 1 > 0, winner, -1)


def _hash(number: Int64[Tensor, "b h w"], salt: Int64[Tensor, "b 1 1"]) -> Int64[Tensor, "b h w"]:
    """31 pseudo-random bits of a point under a patch draw."""
    bits = (number * 0x9E3779B1 + salt * 0x85EBCA6B + 0x27D4EB2F) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 12)) * 0x297A2D39) & 0xFFFFFFFF
    return (bits ^ (bits >> 15)) & 0x7FFFFFFF


def _flip(images: UInt8[Tensor, "b 3 h w"], flip: Int64[Tensor, " b"]) -> UInt8[Tensor, "b 3 h w"]:
    """Flip by code: 0 not at all, 1 left to right, 2 top to bottom, 3 both."""
    flip = flip[:, None, None, None]
    images = torch.where(flip % 2 > 0, images.flip(-1), images)
    return torch.where(flip // 2 > 0, images.flip(-2), images)


def _hues() -> UInt8[Tensor, "128 3"]:
    """One turn of the color wheel at the published saturation and intensity (HSI)."""
    turn = torch.arange(HUES, dtype=torch.float64, device="cpu") / HUES * 3
    part = turn - turn.floor()
    # In each third of the wheel one channel is low, and the other two share the rest.
    ratio = SATURATION * torch.cos(2 * torch.pi / 3 * part) / torch.cos(torch.pi / 3 - 2 * torch.pi / 3 * part)
    strong, low = INTENSITY * (1 + ratio), torch.full_like(turn, INTENSITY * (1 - SATURATION))
    weak = 3 * INTENSITY - strong - low
    thirds = [torch.stack(order, -1) for order in ((strong, weak, low), (low, strong, weak), (weak, low, strong))]
    colors = torch.stack(thirds)[turn.floor().long(), torch.arange(HUES, device="cpu")]
    return (colors.clamp(0, 1) * 255).round().to(torch.uint8)
