"""``MoSI``: clips of a window that slides over an image, labeled with its speed."""

import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.source import ImageSource

# Speed (x, y) of each class, in the published order.
SPEEDS = ((-2, 0), (-1, 0), (1, 0), (2, 0), (0, -2), (0, -1), (0, 1), (0, 2), (0, 0))
FASTEST = 2


class MoSI:
    """MoSI: nine clips per image, one for each speed (Huang et al., "Self-supervised Motion Learning from Static Images", CVPR 2021).

    Image ``id // 9``, class ``id % 9``: x at speed -2, -1, 1, 2; y at -2, -1, 1, 2; static. The image is resized to a short side of 320,
    and a random square crop is taken; over the clip, a window of 112 moves by 104 pixels at speed 1 and by 208 at speed 2, uniformly, at
    positions truncated to whole pixels. Its start is uniform over all that keep the path inside the square. Settings as published; the
    color jitter of the published training is left to the training.

    Args:
        images: image source of uint8 images.
        num_frames: T, at least 2.
        size: side of the window in pixels.
        image_size: side of the square over which it moves, larger than ``size``.
        static_mask: only a rectangle at a random place moves; outside it every frame shows the same, randomly drawn frame of the clip.
        mask_ratio: range of the rectangle's sides, as fractions of ``size``.
        flip: mirror half of the clips left to right and keep their labels, as both published code bases do. Left and right are then
            exchanged in half of the clips: for strict reproduction only.
        seed: any integer of 64 bits; None is 0.

    Raises:
        TypeError, ValueError: for arguments of another type or out of range.

    Example:
        >>> import torch
        >>> from pseudomotion.baselines import MoSI
        >>> from pseudomotion.images.synthetic import Noise
        >>> clips, labels = MoSI(Noise(size=40), num_frames=4, size=16, image_size=40).get(torch.arange(9))
        >>> clips.shape, labels
        (torch.Size([9, 3, 4, 16, 16]), tensor([0, 1, 2, 3, 4, 5, 6, 7, 8]))

    """

    num_classes = len(SPEEDS)

    def __init__(
        self,
        images: ImageSource,
        *,
        num_frames: int = 16,
        size: int = 112,
        image_size: int = 320,
        static_mask: bool = True,
        mask_ratio: tuple[float, float] = (0.3, 0.5),
        flip: bool = False,
        seed: int | None = None,
    ) -> None:
        if not isinstance(images, ImageSource):
            raise TypeError(f"images must be an image source with get(ids) and a length, got {type(images).__name__}")
        self.images = images
        self.num_frames = checks.bounded_int("num_frames", num_frames, 2, 4096)
        self.size = checks.bounded_int("size", size, 2, 4096)
        self.image_size = checks.bounded_int("image_size", image_size, self.size + 1, 8192)
        self.static_mask = static_mask
        self.mask_ratio = checks.interval("mask_ratio", mask_ratio, 0, 1)
        self.flip = flip
        self.seed = checks.seed(seed)

    def __len__(self) -> int:
        """Nine clips for every image."""
        return len(self.images) * self.num_classes

    def positions(self, ids: Int64[Tensor, " B"]) -> Int64[Tensor, "B T 2"]:
        """Top left corner (x, y) of the window in the square, per frame."""
        travel = (self.image_size - self.size) * torch.tensor(SPEEDS, dtype=torch.float64)[ids % self.num_classes] / FASTEST
        start = torch.stack(Draws(self.seed, ids).uniform("start", 2), -1) * (self.image_size - self.size - travel.abs()) - travel.clamp(
            max=0
        )
        pace = torch.arange(self.num_frames, dtype=torch.float64) / (self.num_frames - 1)
        # A product that should be an integer may round to slightly less, which would be truncated to one less.
        return (start[:, None] + travel[:, None] * pace[:, None] + 1e-9).long()

    def get(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The clips and labels of ids.

        Args:
            ids: int64 ``(B,)``, from 0 to ``len() - 1``.

        Returns:
            uint8 ``(B, 3, T, size, size)`` on the device of the images, and int64 ``(B,)``: the class of the speed, 0 to 8.

        Raises:
            TypeError, ValueError: for other ids.

        """
        ids = checks.item_indices(ids, len(self))
        squares, corner = self._squares(ids)
        clips = _windows(squares, self.positions(ids) + corner[:, None], self.size)
        if self.static_mask:
            clips = self._still_outside(clips, ids)
        if self.flip:
            mirrored = (Draws(self.seed, ids).uniform("flip", 1)[0] < 0.5).to(clips.device)
            clips = torch.where(mirrored[:, None, None, None, None], clips.flip(-1), clips)
        return clips, ids % self.num_classes

    def _squares(self, ids: Int64[Tensor, " B"]) -> tuple[UInt8[Tensor, "B 3 H W"], Int64[Tensor, "B 2"]]:
        """Images with a short side of ``image_size``, and the top left corner (x, y) of the square in them."""
        images = self.images.get(ids // self.num_classes)
        h, w = images.shape[-2:]
        scale = self.image_size / min(h, w)
        sides = max(self.image_size, round(h * scale)), max(self.image_size, round(w * scale))
        if sides != (h, w):
            resized = F.interpolate(images.float(), size=sides, mode="bilinear", antialias=True, align_corners=False)
            images = resized.round().clamp(0, 255).to(torch.uint8)
        spare = torch.tensor([sides[1] - self.image_size, sides[0] - self.image_size])
        return images, (torch.stack(Draws(self.seed, ids).uniform("square", 2), -1) * (spare + 1)).long()

    def _still_outside(self, clips: UInt8[Tensor, "B 3 T h w"], ids: Int64[Tensor, " B"]) -> UInt8[Tensor, "B 3 T h w"]:
        """The clips with a static frame outside the moving rectangle."""
        wide, tall, x, y, frame = (n.float().to(clips.device) for n in Draws(self.seed, ids).uniform("static mask", 5))
        low, high = self.mask_ratio
        width, height = (((low + (high - low) * n) * self.size).round() for n in (wide, tall))
        left, top = (x * (self.size - width + 1)).floor(), (y * (self.size - height + 1)).floor()
        at = torch.arange(self.size, device=clips.device)
        columns = (at >= left[:, None]) & (at < (left + width)[:, None])
        rows = (at >= top[:, None]) & (at < (top + height)[:, None])
        inside = (rows[:, :, None] & columns[:, None])[:, None, None]  # (B, 1, 1, h, w)
        shown = (frame * self.num_frames).long()
        still = clips[torch.arange(len(ids), device=clips.device), :, shown][:, :, None]
        return torch.where(inside, clips, still)


def _windows(images: UInt8[Tensor, "B 3 H W"], corners: Int64[Tensor, "B T 2"], size: int) -> UInt8[Tensor, "B 3 T size size"]:
    """The windows with these top left corners (x, y)."""
    inside = torch.arange(size)
    columns, rows = ((corners[..., k, None] + inside).to(images.device, non_blocking=True) for k in (0, 1))
    batch = torch.arange(len(images), device=images.device)[:, None, None, None]
    cut = images.permute(0, 2, 3, 1)[batch, rows[..., None], columns[:, :, None]]
    return cut.permute(0, 4, 1, 2, 3).contiguous()  # (B, 3, T, size, size)
