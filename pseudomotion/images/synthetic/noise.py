"""``Noise``: random images with a power-law spectrum."""

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.images.synthetic.arithmetic import cosine, lerp, sine
from pseudomotion.images.synthetic.base import Images, SyntheticSource, to_uint8, uniform

CONTRAST = 0.22  # standard deviation of a channel
IMAGES_AT_ONCE = {"cpu": 2, "cuda": 128}


class Noise(SyntheticSource):
    """Noise with the amplitude spectrum 1 / f ** exponent and random phases, in three independent channels. Endless.

    The simplest image with a natural spectrum: no edges, no objects. The range of exponents is that of the statistical image model in
    "Learning to See by Looking at Noise" (Baradad et al., NeurIPS 2021).

    Args:
        exponent: range ``(low, high)`` from which each image's exponent is drawn, within [0, 6].
        size: side of the square images in pixels.
        seed: any 64-bit integer; None is 0.
        device: where the images are generated, and where they stay.

    Raises:
        TypeError, ValueError: for arguments outside these.

    Example:
        >>> import torch
        >>> from pseudomotion.images.synthetic import Noise
        >>> Noise(size=32).get(torch.arange(4)).shape
        torch.Size([4, 3, 32, 32])

    """

    name = "noise"
    endless = True

    def __init__(
        self,
        *,
        exponent: tuple[float, float] = (0.5, 3.5),
        size: int = 224,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(size=size, seed=seed, device=device)
        self.exponent = checks.interval("exponent", exponent, 0, 6)

    def generate(self, ids: Int64[Tensor, " B"]) -> Images:
        return self._in_parts(self._noise, ids, IMAGES_AT_ONCE)

    def _noise(self, ids: Int64[Tensor, " b"]) -> UInt8[Tensor, "b 3 size size"]:
        side = 1 << (self.size - 1).bit_length()  # the transform's length is a power of two; the image is cut out
        (number,) = Draws(self.seed, ids).uniform("exponent", 1)
        exponent = lerp(*self.exponent, number)
        amplitude = exp2(-exponent.float()[:, None, None] * _octaves(side)).to(self.device)
        amplitude[:, 0, 0] = 0
        power = (amplitude * amplitude).flatten(1)
        while power.shape[1] > 1:  # a sum in a fixed order
            power = power[:, : power.shape[1] // 2] + power[:, power.shape[1] // 2 :]
        phase = uniform(self.seed, ids, "phase", 2 * side * side, self.device).view(-1, 2, side, side)
        spectrum = amplitude[:, None] * cosine(phase), amplitude[:, None] * sine(phase)
        # Two complex transforms have four real parts, each with half of the power; three of them are the channels.
        real, imaginary = inverse_fft_2d(*spectrum)
        fields = torch.cat([real, imaginary[:, :1]], 1) / (power[..., None, None] * 0.5).sqrt().clamp(min=1e-12)
        return to_uint8(0.5 + CONTRAST * fields[..., : self.size, : self.size])


def _octaves(side: int) -> Float32[Tensor, "side side"]:
    """Base-2 logarithm of every frequency's magnitude, in cycles per image."""
    f = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64, device="cpu")
    square: Tensor = f[:, None] ** 2 + f**2
    return square.clamp(min=1).log2().float() / 2


def exp2(x: Float32[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """2 ** x to a relative error of 2e-4, by arithmetic that rounds alike everywhere."""
    floor = x.clamp(-120, 120).floor()
    f = x - floor
    whole = ((floor.to(torch.int32) + 127) << 23).view(torch.float32)
    fraction: Tensor = 1 + f * (0.6951786 + f * (0.2276443 + f * 0.0771771))
    return whole * fraction


def inverse_fft_2d(
    real: Float32[Tensor, "*b n n"], imaginary: Float32[Tensor, "*b n n"]
) -> tuple[Float32[Tensor, "*b n n"], Float32[Tensor, "*b n n"]]:
    """Inverse 2D discrete Fourier transform, unnormalized; n a power of two.

    Stockham's radix-2 algorithm: a library's transform may round differently for another batch size.
    """
    for _ in range(2):
        real, imaginary = _inverse_fft(real, imaginary)
        real, imaginary = real.mT.contiguous(), imaginary.mT.contiguous()
    return real, imaginary


def _inverse_fft(real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    shape, n, stride = real.shape, real.shape[-1], 1
    while n > 1:
        half = n // 2
        turn = torch.arange(half, dtype=torch.float64, device="cpu") * (2 * torch.pi / n)
        c, s = (t.float()[:, None].to(real.device, non_blocking=True) for t in (turn.cos(), turn.sin()))
        (ar, br), (ai, bi) = (part.reshape(*shape[:-1], 2, half, stride).unbind(-3) for part in (real, imaginary))
        dr, di = ar - br, ai - bi
        real = torch.stack([ar + br, dr * c - di * s], -2)
        imaginary = torch.stack([ai + bi, dr * s + di * c], -2)
        n, stride = half, 2 * stride
    return real.reshape(shape), imaginary.reshape(shape)
