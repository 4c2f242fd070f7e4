"""Pre-training on MoSI, the paper's comparator: tell the speed of a window that slides over an image (its Table 10)."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from transformers import VideoMAEForVideoClassification

from pseudomotion import checks
from pseudomotion.baselines import MoSI
from pseudomotion.source import ImageSource
from pseudomotion.train.engine.loop import Task
from pseudomotion.train.engine.optimize import parameter_groups
from pseudomotion.train.sources import normalise

SQUARE = 320 / 112  # side of the image over that of the window, as published


class LabelledClips(NamedTuple):
    """Inputs of a classifier."""

    pixels: Tensor  # float32 (B, T, C, H, W), normalised
    labels: Tensor  # int64 (B,)


class MoSIClips:
    """MoSI clips and labels by id; every epoch draws other windows.

    Args:
        images: of which clips are made.
        num_frames: T.
        size: side of the window in pixels.
        seed: of the windows.

    """

    def __init__(self, images: ImageSource, num_frames: int, size: int, seed: int) -> None:
        self.images, self.num_frames, self.size, self.seed = images, num_frames, size, seed

    def __len__(self) -> int:
        """Nine clips for every image."""
        return len(self.images) * MoSI.num_classes

    def get(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 clips ``(B, 3, T, size, size)`` and labels ``(B,)``."""
        checks.item_ids(ids)
        epochs, counts = torch.unique_consecutive(ids // len(self), return_counts=True)
        parts = zip(epochs.tolist(), torch.split(ids % len(self), counts.tolist()), strict=True)
        clips, labels = zip(*(self._epoch(epoch).get(part) for epoch, part in parts), strict=True)
        return torch.cat(clips), torch.cat(labels)

    def _epoch(self, epoch: int) -> MoSI:
        """The clips of one epoch."""
        side = round(self.size * SQUARE)
        return MoSI(self.images, num_frames=self.num_frames, size=self.size, image_size=side, seed=self.seed + epoch)


class SpeedClassification(Task):
    """A classifier of MoSI's nine speeds.

    Args:
        model: with nine classes.
        source: MoSI clips.
        weight_decay: for ``groups``.
        evaluate_every: no more than the end of the run, since there is nothing to evaluate.

    """

    def __init__(self, model: VideoMAEForVideoClassification, source: MoSIClips, *, weight_decay: float, evaluate_every: int) -> None:
        self.model, self.source, self.weight_decay, self.evaluate_every = model, source, weight_decay, evaluate_every

    def groups(self) -> list[dict[str, Any]]:
        """All weights at one learning rate."""
        return parameter_groups(self.model, self.weight_decay)

    def inputs(self, items: tuple[Tensor, Tensor], ids: Tensor, device: torch.device) -> LabelledClips:
        """Clips and labels, on the device."""
        clips, labels = items
        return LabelledClips(normalise(clips.to(device, non_blocking=True)), labels.to(device))

    def loss(self, model: Any, inputs: LabelledClips) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(model(pixel_values=inputs.pixels).logits.float(), inputs.labels)

    def evaluate(self, accelerator: Accelerator, out: Path, step: int) -> dict[str, float]:
        """Nothing: the loss tells."""
        return {}
