"""``Shaders``: colorful pictures from random programs over coordinates."""

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from pseudomotion.draws import Draws
from pseudomotion.images.synthetic import shader_program
from pseudomotion.images.synthetic.arithmetic import blend, perlin, smoothstep
from pseudomotion.images.synthetic.base import Generator, Images, batches, count, to_uint8

TRIES = 6  # programs tried for every number; the best of them is taken where none passes
TIMES = (0.1, 10.0)  # seconds, as the published renderer draws them
THUMBNAIL = 64
EXPONENTS = (0.75, 1.9)  # of the amplitude spectrum; see accept()
PIXELS_AT_ONCE = {"cpu": 2**17, "cuda": 2**25}  # what fits the CPU's cache, and what keeps a GPU busy


class Shaders(Generator):
    """Random shader programs, each seen at a random time, and mixtures of them.

    Stands in for Shaders1k, the paper's best synthetic source (its Table 7), whose programs may not be redistributed; the programs are
    our own. A program warps the plane twice, lays three patterns over it (stripes, shapes, cells, noise, ...), combines them and colors
    the result with two palettes and a relief. A program number is tried up to 6 times, until a program passes ``accept``.

    An endless source: any id that is not negative has an image.

    Args:
        programs: how many programs to draw from, at random for every image. Shaders1k has about 1,000.
        mix: largest number of programs in one image. n programs are mixed in proportion to 1 / n: blended, or one laid over the others in
            a box or in blobs. The published best is a mixture of six, always blended; 1 mixes nothing.
        size: side of the square images in pixels.
        seed: any integer of 64 bits; None is 0.
        device: where the images are made.

    Raises:
        TypeError, ValueError: for arguments outside these.

    Example:
        >>> import torch
        >>> from pseudomotion.images.synthetic import Shaders
        >>> Shaders(size=32).get(torch.arange(4)).shape
        torch.Size([4, 3, 32, 32])

    """

    endless = True

    def __init__(
        self, *, programs: int = 4096, mix: int = 6, size: int = 224, seed: int | None = None, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(size=size, seed=seed, device=device)
        self.programs = count("programs", programs, 1, 10_000_000)
        self.mix = count("mix", mix, 1, 64)
        # Which try passed, by program; -1 where nobody has asked yet. Only a memory of what the search would find again.
        self._passed = torch.full((self.programs,), -1, dtype=torch.int64)

    def _make(self, ids: Int64[Tensor, " B"]) -> Images:
        per_batch = max(1, PIXELS_AT_ONCE.get(self.device.type, PIXELS_AT_ONCE["cuda"]) // self.size**2)
        return torch.cat([self._mixture(part) for part in batches(ids, per_batch)])

    def _mixture(self, ids: Int64[Tensor, " b"]) -> UInt8[Tensor, "b 3 size size"]:
        draws = Draws(self.seed, ids)
        amount = draws.choice("amount", [1 / n for n in range(1, self.mix + 1)]) + 1
        numbers = torch.stack(draws.uniform("program", self.mix))
        times = torch.stack(draws.uniform("time", self.mix))
        images = self._paint((numbers[0] * self.programs).long(), times[0])
        for k in range(1, int(amount.max())):
            mixed = (amount > k).nonzero()[:, 0]
            layer = self._paint((numbers[k, mixed] * self.programs).long(), times[k, mixed])
            at = mixed.to(self.device, non_blocking=True)
            weight = _weight(draws.select(mixed), k, self.size, self.device)
            images[at] = blend(images[at], layer, weight[:, None])
        return to_uint8(images)

    def _paint(self, programs: Int64[Tensor, " n"], times: Tensor) -> Float32[Tensor, "n 3 size size"]:
        passed = self._search(programs)
        drawn = shader_program.draw_programs(Draws(self.seed, programs * TRIES + passed))
        return shader_program.paint(drawn, (TIMES[0] + (TIMES[1] - TIMES[0]) * times).float(), self.size, self.device)

    def _search(self, programs: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """The try that each program is: the first that passes, or that passes most."""
        if missing := sorted(set(programs[self._passed[programs] < 0].tolist())):
            unknown = torch.tensor(missing)
            tried = (unknown[:, None] * TRIES + torch.arange(TRIES)).flatten()
            drawn = shader_program.draw_programs(Draws(self.seed, tried))
            middle = torch.full((len(tried),), sum(TIMES) / 2)
            thumbnails = to_uint8(shader_program.paint(drawn, middle, THUMBNAIL, self.device))
            score = accept(thumbnails).long().sum(-1).cpu().view(-1, TRIES) * TRIES
            self._passed[unknown] = (score - torch.arange(TRIES)).argmax(-1)
        return self._passed[programs]


def accept(images: UInt8[Tensor, "n 3 h w"]) -> Bool[Tensor, "n 6"]:
    """Whether images have each of the properties that make patches worth tracking.

    In this order: the spectral exponent is at least 0.75, and at most 1.9 (the best video sets have 1.2 to 1.4); an edge on a tenth of
    the pixels, and on a twentieth in every sixteenth of the image; an entropy of the grey levels of at least 3 bits of 5; colors. The
    limits are not from the paper. Everything is counted in integers, so the answer is the same in any batch and on any device.

    The exponent is that of a spectrum whose amplitude falls with 1 / f ** exponent; the mean square of differences between neighbouring
    squares of side s then grows with s ** (2 * exponent - 2).
    """
    rgb = images.long()
    grey = rgb.sum(1)
    fine, coarse = _difference(grey), _difference(_sum_of_squares(_sum_of_squares(grey)))
    # Squares of side 4 are sums of 16 pixels, and there are 16 times fewer pairs of them: 16 * 16 / 16 in their mean square.
    low, high = (16 * 4 ** (2 * exponent - 2) for exponent in EXPONENTS)
    across, down = (grey[:, :-1, 1:] - grey[:, :-1, :-1]).abs(), (grey[:, 1:, :-1] - grey[:, :-1, :-1]).abs()
    edges = ((across + down) > 60).long()
    side = grey.shape[-1] // 4
    blocks = edges[:, : 4 * side, : 4 * side]
    blocks = torch.nn.functional.pad(blocks, (0, 1, 0, 1)).unfold(1, side, side).unfold(2, side, side).sum((-1, -2)).flatten(1)
    pixels = grey[0].numel()
    levels = torch.zeros(len(grey), 32, dtype=torch.int64, device=grey.device)
    levels.scatter_add_(1, (grey // 24).flatten(1), torch.ones_like(grey).flatten(1))
    chroma = ((rgb[:, 0] - rgb[:, 1]).abs() + (rgb[:, 1] - rgb[:, 2]).abs()).flatten(1).sum(1)
    return torch.stack(
        [
            coarse >= low * fine,
            coarse <= high * fine,
            edges.flatten(1).sum(1) * 10 >= pixels,
            blocks.min(1).values * 20 >= side * side,
            # Rényi's entropy of order 2: the sum of squared shares is at most 2 ** -3.
            (levels * levels).sum(1) * 8 <= pixels * pixels,
            chroma >= 24 * pixels,
        ],
        -1,
    )


def _difference(values: Int64[Tensor, "n h w"]) -> Int64[Tensor, " n"]:
    """Sum of squared differences of neighbours."""
    across, down = values[:, :, 1:] - values[:, :, :-1], values[:, 1:] - values[:, :-1]
    return (across * across).flatten(1).sum(1) + (down * down).flatten(1).sum(1)


def _sum_of_squares(values: Int64[Tensor, "n h w"]) -> Int64[Tensor, "n _ _"]:
    """Sums over squares of 2 x 2."""
    return values[:, ::2, ::2] + values[:, 1::2, ::2] + values[:, ::2, 1::2] + values[:, 1::2, 1::2]


def _weight(draws: Draws, k: int, size: int, device: torch.device) -> Float32[Tensor, "n size size"]:
    """How much of layer ``k`` shows at every pixel: an even blend, a box or blobs with soft edges."""
    numbers = torch.stack(draws.uniform(f"mix {k}", 6)).float().to(device, non_blocking=True)[..., None, None]
    kind = draws.choice(f"kind {k}", [1, 1, 1]).to(device, non_blocking=True)[:, None, None]
    line = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
    x, y = line.expand(len(draws.ids), size, size), line[:, None].expand(len(draws.ids), size, size)
    even = (0.25 + 0.35 * numbers[0]).expand_as(x)
    inside = torch.minimum(0.2 + 0.25 * numbers[2] - (x - numbers[3]).abs(), 0.2 + 0.25 * numbers[4] - (y - numbers[5]).abs())
    box = (inside * size + 0.5).clamp(0, 1)
    salt = (numbers[1] * 2.0**24).to(torch.int32)
    frequency = 2 + 3 * numbers[2]
    blobs = smoothstep(-0.03, 0.03, perlin(frequency * x + 9 * numbers[3], frequency * y + 9 * numbers[4], salt) - 0.15 + 0.3 * numbers[5])
    return torch.where(kind == 0, even, torch.where(kind == 1, box, blobs))
