"""Iterated function systems (IFS): drawing them, the chaos game for many at once, and the search for those that fill the image.

Source: Kataoka et al., "Pre-training without Natural Images", ACCV 2020, and the settings of its published search.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32, Int64
from torch import Tensor
from tqdm import tqdm

from pseudomotion.draws import Draws
from pseudomotion.images.synthetic.arithmetic import integer_from
from pseudomotion.images.synthetic.base import uniform

MAPS = (2, 7)
SEARCH_POINTS, SEARCH_SIZE, PADDING = 100_000, 512, 6
FILLING_RATE = 0.2
ORBITS, SETTLE = 1000, 50  # parallel orbits, and steps discarded while they approach the attractor
# Cheap tests before the full one: number of points, and the least ratio of distinct pixels to points. Of 1,280 random systems, the 31 that
# passed the full test had ratios of at least 0.96 and 0.88.
LOOKS = ((4_000, 0.92), (16_000, 0.81))
LIVELY = 0.7  # the least such ratio for a perturbation to be used
FARTHEST = 1e4  # an orbit that gets here diverges
VARIANTS = 25
FACTORS = (1 - 2 * 0.4, 1 - 0.4, 1 + 0.4, 1 + 2 * 0.4)
_CHAOS = 100  # seed of the chaos game's random sequence, the same for all fractals, as published


@dataclass(frozen=True)
class IFS:
    """``n`` systems of up to 7 affine maps ``(x, y) -> (a x + b y + e, c x + d y + f)``.

    Args:
        maps: ``(n, 7, 6)``, the coefficients a, b, c, d, e, f; zeros beyond a system's number of maps.
        steps: ``(n, 6)``, the cumulative probabilities of all maps but the last, proportional to ``|ad - bc|``.
        variants: ``(n, 25)``, whether each perturbation of a system has an attractor.

    """

    maps: Float32[Tensor, "n 7 6"]
    steps: Float32[Tensor, "n 6"]
    variants: Bool[Tensor, "n 25"]

    def __len__(self) -> int:
        """Number of systems."""
        return len(self.maps)

    def select(self, at: Tensor) -> "IFS":
        """Some of the systems, by index."""
        return IFS(self.maps[at], self.steps[at], self.variants[at])

    def save(self, path: str | Path) -> None:
        """Write the systems to a ``.npz`` file, without pickle."""
        with Path(path).open("wb") as file:
            np.savez_compressed(file, maps=self.maps.numpy(), steps=self.steps.numpy(), variants=np.packbits(self.variants.numpy(), 1))

    @classmethod
    def load(cls, path: str | Path) -> "IFS":
        """Systems that ``save`` wrote.

        Raises:
            OSError: if there is no such file.
            ValueError: if it holds something else.

        """
        try:
            with np.load(Path(path), allow_pickle=False) as file:
                maps, steps, bits = (torch.from_numpy(file[name]) for name in ("maps", "steps", "variants"))
        except OSError:
            raise
        except Exception as error:  # zipfile and numpy raise many types for a broken archive
            raise ValueError(f"cannot read {path}: {error}") from error
        n = len(maps)
        expected = {"maps": ((n, 7, 6), torch.float32), "steps": ((n, 6), torch.float32), "variants": ((n, 4), torch.uint8)}
        for (name, (shape, dtype)), tensor in zip(expected.items(), (maps, steps, bits), strict=True):
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                raise ValueError(f"{path}: {name} must be {dtype} of shape {shape}, got {tensor.dtype} of shape {tuple(tensor.shape)}")
        return cls(maps, steps, torch.from_numpy(np.unpackbits(bits.numpy(), axis=1, count=VARIANTS)).bool())


def draw_ifs(draws: Draws) -> IFS:
    """One random system per id: 2 to 7 maps, coefficients uniform in [-1, 1]."""
    (number,) = draws.uniform("maps", 1)
    amount = integer_from(*MAPS, number).long()
    maps = (torch.stack(draws.uniform("coefficients", MAPS[1] * 6), 1).view(-1, MAPS[1], 6) * 2 - 1).float()
    maps = maps * (torch.arange(MAPS[1], device="cpu") < amount[:, None])[..., None]
    a, b, c, d = maps[..., :4].double().unbind(-1)
    area = (a * d - b * c).abs()
    steps = [area[:, 0]]
    for k in range(1, MAPS[1]):
        steps.append(steps[-1] + area[:, k])
    return IFS(
        maps, (torch.stack(steps[:-1], 1) / steps[-1][:, None]).float(), torch.ones(len(maps), VARIANTS, dtype=torch.bool, device="cpu")
    )


def perturb(ifs: IFS, variant: Int64[Tensor, " n"]) -> IFS:
    """The published instances: variant 0 is the system itself; the others multiply one of the six coefficients, in all maps.

    Variants 1 to 4 multiply a by 0.2, 0.6, 1.4 and 1.8, 5 to 8 multiply b, and so on. A variant without an attractor gives the system
    itself.
    """
    variant = torch.where(ifs.variants.gather(1, variant[:, None])[:, 0], variant, 0)
    which = torch.arange(6, device="cpu") == ((variant - 1) // 4)[:, None]
    factor = torch.tensor(FACTORS, dtype=torch.float32, device="cpu")[(variant - 1) % 4]
    factor = torch.where(which & (variant > 0)[:, None], factor[:, None], 1.0)
    return IFS(ifs.maps * factor[:, None], ifs.steps, ifs.variants)


def play(ifs: IFS, points: int, device: torch.device, orbits: int = ORBITS) -> tuple[Float32[Tensor, "n p"], Float32[Tensor, "n p"]]:
    """The chaos game: at least ``points`` points of every system's orbits, in the order of time.

    Published as a single orbit. Here many orbits run in parallel, each from the origin; after 50 discarded steps they are on the attractor,
    so the points have the same invariant measure. All systems share one random sequence, as published. Diverged values stay as they are.
    """
    rounds = -(-points // orbits)
    maps, steps = ifs.maps.to(device, non_blocking=True), ifs.steps.to(device, non_blocking=True)
    coefficients = maps.flatten(0, 1).t().contiguous()  # (6, n * 7)
    first = torch.arange(len(ifs), device=device)[:, None] * MAPS[1]
    x = torch.zeros(len(ifs), orbits, dtype=torch.float32, device=device)
    y = torch.zeros_like(x)
    xs, ys = (torch.empty(len(ifs), rounds, orbits, dtype=torch.float32, device=device) for _ in range(2))
    numbers = uniform(_CHAOS, torch.arange(SETTLE + rounds, device="cpu"), "chaos game", orbits, device)
    which = torch.zeros(len(numbers), *x.shape, dtype=torch.uint8, device=device)  # the map that every orbit takes in every step
    for k in range(MAPS[1] - 1):  # faster than torch.searchsorted, for so few
        which += numbers[:, None] >= steps[:, k : k + 1]
    for step in range(SETTLE + rounds):
        a, b, c, d, e, f = coefficients.index_select(1, (first + which[step]).flatten()).view(6, *x.shape)
        x, y = a * x + b * y + e, c * x + d * y + f
        if step >= SETTLE:
            xs[:, step - SETTLE], ys[:, step - SETTLE] = x, y
    return xs.flatten(1), ys.flatten(1)


def pixels(x: Float32[Tensor, "n p"], y: Float32[Tensor, "n p"], size: int) -> tuple[Int32[Tensor, "n p"], Int32[Tensor, "n p"]]:
    """Pixel columns and rows of points, each axis scaled to fill the image without its padding.

    Diverged points fall on the edge of the padding; an axis without extent is centered.
    """
    return _axis(x, size), _axis(y, size)


def _axis(x: Float32[Tensor, "n p"], size: int) -> Int32[Tensor, "n p"]:
    x = x.nan_to_num(FARTHEST).clamp(-FARTHEST, FARTHEST)
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    extent = high - low
    place = torch.where(extent > 0, (x - low) / extent.clamp(min=1e-30), 0.5)
    return (place * (size - 1 - 2 * PADDING) + PADDING).to(torch.int32)


def filled(ifs: IFS, points: int, device: torch.device) -> Int64[Tensor, " n"]:
    """Number of pixels of 512 x 512 that the points fill; 0 if an orbit diverges."""
    x, y = play(ifs, points, device, orbits=min(ORBITS, points // 20))
    stays = torch.ones(len(ifs), dtype=torch.bool, device=device)
    for low, high in (x.aminmax(dim=1), y.aminmax(dim=1)):
        stays &= (low > -FARTHEST) & (high < FARTHEST)
    column, row = pixels(x, y, SEARCH_SIZE)
    place = row * SEARCH_SIZE + column
    # On a CPU, numpy sorts these about twenty times as fast as torch.
    place = torch.from_numpy(np.sort(place.numpy(), 1)) if device.type == "cpu" else place.sort(1).values
    distinct = (place[:, 1:] != place[:, :-1]).sum(1) + 1
    return torch.where(stays, distinct, 0)


def search(categories: int, seed: int, max_tries: int, device: torch.device | str = "cpu") -> IFS:
    """The first ``categories`` random systems that fill at least a fifth of the image, as published: 100,000 points on 512 x 512 pixels.

    Two tests with fewer points spare most systems the full test: if 100,000 points fill 52,429 pixels, few of the first 4,000 share one.

    Args:
        categories: number of systems to find.
        seed: any 64-bit integer.
        max_tries: number of random systems to test before giving up.
        device: where to run the chaos game.

    Raises:
        RuntimeError: if ``max_tries`` systems are not enough.

    """
    device = torch.device(device)
    found: list[IFS] = []
    amount = 0
    with tqdm(total=categories, desc="searching fractals", unit="fractal", delay=2, leave=False, disable=None) as bar:
        for start in range(0, max_tries, 256):
            batch = draw_ifs(Draws(seed, torch.arange(start, min(start + 256, max_tries), device="cpu")))
            for points, share in (*LOOKS, (SEARCH_POINTS, FILLING_RATE * SEARCH_SIZE**2 / SEARCH_POINTS)):
                parts = torch.split(torch.arange(len(batch), device="cpu"), max(1, 2_000_000 // points))
                enough = [filled(batch.select(part), points, device).cpu() >= share * points for part in parts]
                batch = batch.select(torch.cat(enough))
            found.append(_with_variants(batch, device))
            amount += len(batch)
            bar.update(min(len(batch), categories - bar.n))
            if amount >= categories:
                together = IFS(*(torch.cat(parts) for parts in zip(*((f.maps, f.steps, f.variants) for f in found), strict=True)))
                return together.select(torch.arange(categories, device="cpu"))
    raise RuntimeError(f"found {amount} of {categories} categories in max_tries = {max_tries} random systems; raise max_tries")


def _with_variants(ifs: IFS, device: torch.device) -> IFS:
    """The systems, with those perturbations whose first points spread over the image, not on a line or a spot."""
    if not len(ifs):
        return ifs
    every = ifs.select(torch.arange(len(ifs), device="cpu").repeat_interleave(VARIANTS))
    points, variants = LOOKS[0][0], torch.arange(VARIANTS, device="cpu").repeat(len(ifs))
    lively = filled(perturb(every, variants), points, device) >= LIVELY * points
    lively = lively.cpu().view(-1, VARIANTS)
    lively[:, 0] = True
    return IFS(ifs.maps, ifs.steps, lively)
