"""Pre-training on MoSI, the paper's comparator: tell the speed of a window that slides over an image (its Table 10)."""

from typing import Any

import torch
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from pseudomotion import checks
from pseudomotion.baselines import MoSI
from pseudomotion.images.streamed import ENDLESS
from pseudomotion.source import ImageSource
from pseudomotion.train.engine.loop import Task
from pseudomotion.train.engine.optimize import parameter_groups
from pseudomotion.train.engine.stream import to_device
from pseudomotion.train.options import PretrainOptions
from pseudomotion.train.videomae.classifier import ClassifierLoss
from pseudomotion.train.videomae.hub import save_for_hub
from pseudomotion.train.videomae.model import normalize, training_flops, with_position_buffers

SQUARE = 320 / 112  # side of the image over that of the window, as published


class MoSIClips:
    """MoSI clips and labels by id.

    An epoch shows every image once, as in masked modeling, so that ``--epochs`` means the same number of steps; over nine epochs in a row
    an image shows all nine speeds. Every epoch draws other windows. (Not from the paper: how MoSI was trained with a ViT is not published.)

    Args:
        images: what the clips are made of.
        num_frames: T.
        size: side of the window in pixels.
        seed: of the windows.

    """

    def __init__(self, images: ImageSource, num_frames: int, size: int, seed: int) -> None:
        self.images, self.num_frames, self.size, self.seed = images, num_frames, size, seed
        self.groups: Tensor | None = getattr(images, "groups", None)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def get(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 clips ``(B, 3, T, size, size)`` and labels ``(B,)``, the number of the speed."""
        checks.item_ids(ids)
        epochs, counts = torch.unique_consecutive(ids // len(self), return_counts=True)
        parts = zip(epochs.tolist(), torch.split(ids % len(self), counts.tolist()), strict=True)
        clips, labels = zip(*(self._epoch(epoch).get(self._items(epoch, images)) for epoch, images in parts), strict=True)
        return torch.cat(clips), torch.cat(labels)

    def _items(self, epoch: int, images: Tensor) -> Tensor:
        """Ids of ``MoSI``, in which image i has the items from 9 i on, one for each speed."""
        return images * MoSI.num_classes + (images + epoch) % MoSI.num_classes

    def _epoch(self, epoch: int) -> MoSI:
        """The clips of one epoch."""
        side = round(self.size * SQUARE)
        return MoSI(self.images, num_frames=self.num_frames, size=self.size, image_size=side, seed=self.seed + epoch)


class SpeedClassification(Task):
    """A classifier of MoSI's nine speeds.

    Args:
        model: with nine classes.
        source: MoSI clips.
        options: of the command.

    """

    def __init__(self, model: VideoMAEForVideoClassification, source: MoSIClips, options: PretrainOptions) -> None:
        self.model, self.objective, self.source = model, ClassifierLoss(model), source
        self.weight_decay = options.weight_decay
        self.flops = training_flops(model.config)

    save = staticmethod(save_for_hub)

    def groups(self) -> list[dict[str, Any]]:
        """All weights at one learning rate."""
        return parameter_groups(self.model, self.weight_decay)

    def inputs(self, items: tuple[Tensor, Tensor], ids: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Normalized clips ``(B, T, C, H, W)`` and labels ``(B,)``, on the device."""
        clips, labels = (to_device(part, device) for part in items)
        return normalize(clips), labels


def make_mosi_task(images: ImageSource, config: VideoMAEConfig, options: PretrainOptions) -> SpeedClassification:
    """Classification of the speeds of MoSI clips of images."""
    if len(images) >= ENDLESS:
        raise ValueError("--clips mosi takes no streams")
    config.num_labels = MoSI.num_classes
    clips = MoSIClips(images, config.num_frames, config.image_size, options.seed)
    return SpeedClassification(with_position_buffers(VideoMAEForVideoClassification(config)), clips, options)
