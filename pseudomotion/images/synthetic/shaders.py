"""``Shaders``: images of random programs over pixel coordinates."""

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.images.synthetic import shader_program
from pseudomotion.images.synthetic.arithmetic import lerp, perlin, smoothstep
from pseudomotion.images.synthetic.base import Images, SyntheticSource, to_uint8

TRIES = 6  # programs tried per program number; the best is taken if none passes
TIMES = (0.1, 10.0)  # seconds; the published renderer's range
THUMBNAIL = 64
EXPONENTS = (0.75, 1.9)  # of the amplitude spectrum; see accept()
PIXELS_AT_ONCE = {"cpu": 2**17, "cuda": 2**25}  # fits a CPU's cache; keeps a GPU busy


class Shaders(SyntheticSource):
    """Random shader programs, each at a random time, and mixtures of them. Endless.

    A substitute for Shaders1k, the paper's best synthetic source (Table 7), whose programs may not be redistributed; these programs are not
    from the paper. A program warps the plane twice, evaluates three patterns over it (stripes, shapes, cells, noise, ...), combines them,
    and colors the result with two palettes and a relief. For each program number up to 6 programs are tried, until one passes ``accept``.

    Args:
        programs: number of programs, from which every image's are drawn. Shaders1k has about 1,000.
        mix: largest number of programs in one image. An image has n programs with a probability proportional to 1 / n; each further one is
            blended, or covers a box or blobs. The published best setting blends six; 1 mixes nothing.
        size: side of the square images in pixels.
        seed: any 64-bit integer; None is 0.
        device: where the images are generated, and where they stay.

    Raises:
        TypeError, ValueError: for arguments outside these.

    Example:
        >>> import torch
        >>> from pseudomotion.images.synthetic import Shaders
        >>> Shaders(size=32).get(torch.arange(4)).shape
        torch.Size([4, 3, 32, 32])

    """

    name = "shaders"
    endless = True

    def __init__(
        self, *, programs: int = 4096, mix: int = 6, size: int = 224, seed: int | None = None, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(size=size, seed=seed, device=device)
        self.programs = checks.bounded_int("programs", programs, 1, 10_000_000)
        self.mix = checks.bounded_int("mix", mix, 1, 64)
        # The try that passed, by program; -1 if not searched yet. A cache: the search would find the same again.
        self._passed = torch.full((self.programs,), -1, dtype=torch.int64, device="cpu")

    def generate(self, ids: Int64[Tensor, " B"]) -> Images:
        return self._in_parts(self._mixture, ids, PIXELS_AT_ONCE, self.size**2)

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
            images[at] = lerp(images[at], layer, weight[:, None])
        return to_uint8(images)

    def _paint(self, programs: Int64[Tensor, " n"], times: Tensor) -> Float32[Tensor, "n 3 size size"]:
        passed = self._search(programs)
        drawn = shader_program.draw_programs(Draws(self.seed, programs * TRIES + passed))
        return shader_program.paint(drawn, lerp(*TIMES, times).float(), self.size, self.device)

    def _search(self, programs: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """The try taken for each program: the one that meets most criteria of ``accept``, the first of equals."""
        if missing := sorted(set(programs[self._passed[programs] < 0].tolist())):
            unknown, tries = torch.tensor(missing, device="cpu"), torch.arange(TRIES, device="cpu")
            tried = (unknown[:, None] * TRIES + tries).flatten()
            drawn = shader_program.draw_programs(Draws(self.seed, tried))
            middle = torch.full((len(tried),), sum(TIMES) / 2, dtype=torch.float32, device="cpu")
            thumbnails = to_uint8(shader_program.paint(drawn, middle, THUMBNAIL, self.device))
            score = accept(thumbnails).long().sum(-1).cpu().view(-1, TRIES) * TRIES
            self._passed[unknown] = (score - tries).argmax(-1)
        return self._passed[programs]


def accept(images: UInt8[Tensor, "n 3 h w"]) -> Bool[Tensor, "n 6"]:
    """Whether images meet each of six criteria that make patches trackable (not from the paper).

    In this order: a spectral exponent of at least 0.75, and of at most 1.9 (the best video datasets have 1.2 to 1.4); edges at a tenth of
    the pixels, and at a twentieth in every sixteenth of the image; an entropy of the gray levels of at least 3 of 5 bits; color. All sums
    are of integers, so the result is the same in any batch and on any device.

    With the amplitude spectrum 1 / f ** exponent, the mean squared difference between neighboring squares of side s grows with
    s ** (2 * exponent - 2).
    """
    rgb = images.long()
    gray = rgb.sum(1)
    fine, coarse = _difference(gray), _difference(_sum_2x2(_sum_2x2(gray)))
    # A square of side 4 is a sum of 16 pixels, and there are 1/16 as many pairs: a factor of 16 * 16 / 16 in their sum of squares.
    low, high = (16 * 4 ** (2 * exponent - 2) for exponent in EXPONENTS)
    across, down = (gray[:, :-1, 1:] - gray[:, :-1, :-1]).abs(), (gray[:, 1:, :-1] - gray[:, :-1, :-1]).abs()
    edges = ((across + down) > 60).long()
    side = gray.shape[-1] // 4
    blocks = edges[:, : 4 * side, : 4 * side]
    blocks = torch.nn.functional.pad(blocks, (0, 1, 0, 1)).unfold(1, side, side).unfold(2, side, side).sum((-1, -2)).flatten(1)
    pixels = gray[0].numel()
    levels = torch.zeros(len(gray), 32, dtype=torch.int64, device=gray.device)
    levels.scatter_add_(1, (gray // 24).flatten(1), torch.ones_like(gray).flatten(1))
    chroma = ((rgb[:, 0] - rgb[:, 1]).abs() + (rgb[:, 1] - rgb[:, 2]).abs()).flatten(1).sum(1)
    return torch.stack(
        [
            coarse >= low * fine.float(),
            coarse <= high * fine.float(),
            edges.flatten(1).sum(1) * 10 >= pixels,
            blocks.min(1).values * 20 >= side * side,
            # Rényi entropy of order 2: the sum of squared probabilities is at most 2 ** -3.
            (levels * levels).sum(1) * 8 <= pixels * pixels,
            chroma >= 24 * pixels,
        ],
        -1,
    )


def _difference(values: Int64[Tensor, "n h w"]) -> Int64[Tensor, " n"]:
    """Sum of squared differences between neighbors."""
    across, down = values[:, :, 1:] - values[:, :, :-1], values[:, 1:] - values[:, :-1]
    return (across * across).flatten(1).sum(1) + (down * down).flatten(1).sum(1)


def _sum_2x2(values: Int64[Tensor, "n h w"]) -> Int64[Tensor, "n _ _"]:
    """Sums over 2 x 2 squares."""
    return values[:, ::2, ::2] + values[:, 1::2, ::2] + values[:, ::2, 1::2] + values[:, 1::2, 1::2]


def _weight(draws: Draws, k: int, size: int, device: torch.device) -> Float32[Tensor, "n size size"]:
    """Weight of layer ``k`` at every pixel: constant, a box, or blobs with soft edges."""
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
