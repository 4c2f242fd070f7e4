"""``PerlinVideo``: moving noise, labeled with its frequencies."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.images.synthetic.arithmetic import cosine, hash_cells, lerp, second_half, sine
from pseudomotion.images.synthetic.arithmetic import first_half as lower_half
from pseudomotion.images.synthetic.base import to_uint8

Frequencies = tuple[int, int, int]

_DIVISORS = (1, 2, 3, 5, 6, 8, 10, 12, 16, 20, 30, 40, 60, 80, 120, 240)
_LAYER = 0x2545F491  # odd constant that separates the lattice's layers in time
CLIPS_AT_ONCE = {"cpu": 1, "cuda": 64}

PRESETS: Mapping[str, tuple[Frequencies, ...]] = {
    "vpn-24x24": tuple((x, y, 1) for x, y in product(range(1, 25), repeat=2)),
    "vpn-256": tuple((x, y, 1) for x, y in product(_DIVISORS, repeat=2)),
}


class PerlinVideo:
    """Video Perlin noise (VPN; Kataoka et al., "Spatiotemporal Initialization for 3D CNNs", WACV 2022).

    Gray gradient noise of one octave in x, y and time; the class is its frequencies. Class ``id % num_classes``, instance
    ``id // num_classes``. No generator was published: all settings here are inferred, from the names of the samples on the project's page
    and from an independent implementation.

    - "vpn-24x24" (inferred, unconfirmed): frequencies 1 to 24 along x and y, 576 classes; with 50 instances each about the 28,000 clips
      of the paper's Table 10.
    - "vpn-256" (the independent implementation's): 16 frequencies from 1 to 240 along each axis.

    Args:
        frequencies: a preset's name, or tuples ``(x, y, t)``: lattice cells along the width, the height and the clip, each from 1 to 512.
        instances: clips per class (inferred).
        num_frames: T.
        size: side of the square frames in pixels.
        seed: any integer of 64 bits; None is 0.
        device: on which the clips are made.

    Raises:
        TypeError, ValueError: for arguments of another type or out of range.

    Example:
        >>> import torch
        >>> from pseudomotion.baselines import PerlinVideo
        >>> clips, labels = PerlinVideo("vpn-256", num_frames=4, size=16).get(torch.tensor([3, 259]))
        >>> clips.shape, labels
        (torch.Size([2, 3, 4, 16, 16]), tensor([3, 3]))

    """

    def __init__(
        self,
        frequencies: str | Iterable[Sequence[int]] = "vpn-24x24",
        *,
        instances: int = 50,
        num_frames: int = 16,
        size: int = 224,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.frequencies = _frequencies(frequencies)
        self.instances = checks.bounded_int("instances", instances, 1, 10_000_000)
        self.num_frames = checks.bounded_int("num_frames", num_frames, 1, 4096)
        self.size = checks.bounded_int("size", size, 2, 4096)
        self.seed = checks.seed(seed)
        self.device = torch.device(device)

    @property
    def num_classes(self) -> int:
        """Number of frequency tuples."""
        return len(self.frequencies)

    def __len__(self) -> int:
        """Number of clips."""
        return self.num_classes * self.instances

    def get(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The clips and labels of ids.

        Args:
            ids: int64 ``(B,)``, from 0 to ``len() - 1``.

        Returns:
            uint8 ``(B, 3, T, size, size)``, gray (three equal channels), and int64 ``(B,)``: the index of the frequencies.

        Raises:
            TypeError, ValueError: for other ids.

        """
        ids = checks.item_indices(ids, len(self))
        checks.not_forked(self.device)
        per_batch = CLIPS_AT_ONCE.get(self.device.type, CLIPS_AT_ONCE["cuda"])
        clips = [self._clips(part) for part in torch.split(ids, per_batch)]
        return torch.cat(clips)[:, None].expand(-1, 3, -1, -1, -1), ids % self.num_classes

    def _clips(self, ids: Int64[Tensor, " b"]) -> UInt8[Tensor, "b T h w"]:
        frequency = torch.tensor(self.frequencies)[ids % self.num_classes]
        (salt,) = Draws(self.seed, ids).uniform("lattice", 1)
        table = gradients(tuple(frequency.amax(0).tolist()), (salt * 2**31).long().to(self.device))
        x, y = (self._coordinates(frequency[:, k], self.size) for k in (0, 1))
        t = self._coordinates(frequency[:, 2], self.num_frames)
        noise = perlin_3d(table, x[:, None, None], y[:, None, :, None], t[:, :, None, None])
        return to_uint8((noise + 1) / 2)

    def _coordinates(self, frequency: Int64[Tensor, " b"], n: int) -> Float32[Tensor, "b n"]:
        """Pixel coordinates along an axis, in lattice cells from 0 to the frequency."""
        return ((torch.arange(n) * frequency[:, None]).double() / n).float().to(self.device, non_blocking=True)


def _frequencies(value: str | Iterable[Sequence[int]]) -> tuple[Frequencies, ...]:
    if isinstance(value, str):
        return PRESETS[checks.one_of("frequencies", value, tuple(PRESETS))]
    tuples = tuple(tuple(entry) for entry in value)
    if not tuples:
        raise ValueError("frequencies must have at least one tuple (x, y, t)")
    for entry in tuples:
        if len(entry) != 3 or not all(isinstance(f, int) and 1 <= f <= 512 for f in entry):
            raise ValueError(f"frequencies must be tuples (x, y, t) of integers from 1 to 512, got {entry!r}")
    return tuple((x, y, t) for x, y, t in tuples)


def gradients(cells: tuple[int, ...], salt: Int64[Tensor, " b"]) -> Float32[Tensor, "b nt ny nx 3"]:
    """Unit vectors (x, y, t) at the lattice points: a random azimuth, and a random angle to the time axis."""
    nx, ny, nt = (torch.arange(n + 2, dtype=torch.int32, device=salt.device) for n in cells)
    layer = (salt.to(torch.int32)[:, None] + nt * _LAYER)[..., None, None]
    bits = hash_cells(nx.expand(*layer.shape[:2], len(ny), -1), ny[:, None].expand(*layer.shape[:2], -1, len(nx)), layer)
    longitude, polar = lower_half(bits), 0.5 * second_half(bits)
    across = sine(polar)
    return torch.stack([across * cosine(longitude), across * sine(longitude), cosine(polar)], -1)


def perlin_3d(
    table: Float32[Tensor, "b nt ny nx 3"], x: Float32[Tensor, "b 1 1 w"], y: Float32[Tensor, "b 1 h 1"], t: Float32[Tensor, "b T 1 1"]
) -> Float32[Tensor, "b T h w"]:
    """Gradient noise in [-1, 1] on the grid of all x, y and t, with Perlin's quintic fade."""
    b, _, ny, nx, _ = table.shape
    rows = table.flatten(0, 3)
    cells = [axis.floor() for axis in (x, y, t)]
    fx, fy, ft = (axis - cell for axis, cell in zip((x, y, t), cells, strict=True))
    ix, iy, it = (cell.long() for cell in cells)
    image = torch.arange(b, device=table.device).view(-1, 1, 1, 1) * table[0, ..., 0].numel()

    def corner(dx: int, dy: int, dt: int) -> Tensor:
        gx, gy, gt = rows[image + ((it + dt) * ny + iy + dy) * nx + ix + dx].unbind(-1)
        return gx * (fx - dx) + gy * (fy - dy) + gt * (ft - dt)

    u, v, w = (f * f * f * (f * (f * 6 - 15) + 10) for f in (fx, fy, ft))
    first, second = (lerp(lerp(corner(0, 0, k), corner(1, 0, k), u), lerp(corner(0, 1, k), corner(1, 1, k), u), v) for k in (0, 1))
    return lerp(first, second, w)
