"""What the paper compares pseudo-motion with (its Table 10): MoSI, which tells the speed of a sliding window, and video Perlin noise."""

import torch
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from pseudomotion import checks
from pseudomotion.baselines import MoSI, PerlinVideo
from pseudomotion.images.streamed import ENDLESS
from pseudomotion.source import ImageSource
from pseudomotion.train.engine.loop import Task
from pseudomotion.train.engine.stream import to_device
from pseudomotion.train.options import PretrainOptions
from pseudomotion.train.videomae.classifier import ClassifierLoss
from pseudomotion.train.videomae.hub import save_for_hub
from pseudomotion.train.videomae.model import normalize, training_flops, with_position_buffers

SQUARE = 320 / 112  # side of the image over that of the window, as published


class MoSIClips:
    """MoSI clips and labels by id: uint8 ``(B, 3, T, size, size)`` and the number of the speed ``(B,)``.

    An epoch shows every image once, as in masked modeling, so that ``--epochs`` means the same number of steps; over nine epochs in a row
    an image shows all nine speeds. Every epoch draws other windows. (Not from the paper: how MoSI was trained with a ViT is not published.)
    """

    def __init__(self, images: ImageSource, num_frames: int, size: int, seed: int) -> None:
        self.images, self.num_frames, self.size, self.seed = images, num_frames, size, seed
        self.groups: Tensor | None = getattr(images, "groups", None)
        self.skipped: dict[int, str] = getattr(images, "skipped", {})

    def __len__(self) -> int:
        return len(self.images)

    def get(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Clips and labels of some ids."""
        checks.item_ids(ids)
        epochs, counts = torch.unique_consecutive(ids // len(self), return_counts=True)
        parts = zip(epochs.tolist(), torch.split(ids % len(self), counts.tolist()), strict=True)
        clips, labels = zip(*(self._of_epoch(epoch, images) for epoch, images in parts), strict=True)
        return torch.cat(clips), torch.cat(labels)

    def _of_epoch(self, epoch: int, images: Tensor) -> tuple[Tensor, Tensor]:
        side = round(self.size * SQUARE)
        mosi = MoSI(self.images, num_frames=self.num_frames, size=self.size, image_size=side, seed=self.seed + epoch)
        return mosi.get(
            images * MoSI.num_classes + (images + epoch) % MoSI.num_classes
        )  # image i has MoSI's items from 9 i on, a speed each


class SpeedClassification(Task):
    """A classifier of MoSI's nine speeds."""

    def __init__(self, images: ImageSource, config: VideoMAEConfig, options: PretrainOptions) -> None:
        if len(images) >= ENDLESS:
            raise ValueError("--clips mosi takes no streams")
        config.num_labels = MoSI.num_classes
        self.model = with_position_buffers(VideoMAEForVideoClassification(config))
        self.objective = ClassifierLoss(self.model)
        self.source = MoSIClips(images, config.num_frames, config.image_size, options.seed)
        self.weight_decay, self.flops = options.weight_decay, training_flops(config)

    save = staticmethod(save_for_hub)

    def inputs(self, items: tuple[Tensor, Tensor], ids: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Normalized clips ``(B, T, C, H, W)`` and labels ``(B,)``, on the device."""
        clips, labels = (to_device(part, device) for part in items)
        return normalize(clips), labels


class PerlinClips:
    """Clips of video Perlin noise without their labels; ``limit``: the first ones, which are from all classes alike; None for all."""

    def __init__(self, num_frames: int, size: int, limit: int | None, seed: int, device: torch.device) -> None:
        self.clips = PerlinVideo(num_frames=num_frames, size=size, seed=seed, device=device)
        if limit is not None and not 0 < limit <= len(self.clips):
            raise ValueError(f"limit must be from 1 to the {len(self.clips)} clips there are, got {limit}")
        self.limit = limit or len(self.clips)

    def __len__(self) -> int:
        return self.limit

    def get(self, ids: Tensor) -> Tensor:
        """uint8 clips ``(B, 3, T, size, size)`` of some ids, at least 0."""
        return self.clips.get(ids % self.limit)[0]
