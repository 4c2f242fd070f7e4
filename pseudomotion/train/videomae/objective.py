"""Masked video modeling: what ``pmg-pretrain`` trains by default."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from transformers import VideoMAEForPreTraining

from pseudomotion.draws import Draws
from pseudomotion.files import whole_file
from pseudomotion.source import ImageSource
from pseudomotion.train.engine.loop import Task
from pseudomotion.train.engine.optimize import parameter_groups
from pseudomotion.train.videomae.masking import tube_mask
from pseudomotion.train.videomae.model import reconstruct, to_colors

SHOWN_CLIPS, SHOWN_FRAMES, GAP = 4, 8, 4
PICTURE_SIDE = 96  # least side of a frame in the picture


class MaskedClips(NamedTuple):
    """Inputs of a masked autoencoder."""

    pixels: Tensor  # float32 (B, T, C, H, W), normalised
    mask: Tensor  # bool (B, N)


class MaskedModeling(Task):
    """VideoMAE: hide tubes of a clip, and predict the pixels of the hidden patches, each less its mean and over its deviation.

    The loss is transformers' own; pixels stay float32, so that its targets do.

    Args:
        model: as ``pretraining_model`` makes it.
        source: gives, by id, what clips are made of.
        make_clips: items of the source and their ids, on the device, to normalised clips ``(B, T, C, H, W)``.
        mask_ratio: share of the tokens that is hidden.
        weight_decay: for ``groups``.
        seed: of the masks.
        evaluate_every: steps from one picture of reconstructions to the next.

    """

    def __init__(
        self,
        model: VideoMAEForPreTraining,
        source: ImageSource,
        make_clips: Callable[[Tensor, Tensor], Tensor],
        *,
        mask_ratio: float,
        weight_decay: float,
        seed: int,
        evaluate_every: int,
    ) -> None:
        self.model, self.source, self.make_clips = model, source, make_clips
        self.mask_ratio, self.weight_decay, self.seed = mask_ratio, weight_decay, seed
        self.evaluate_every = evaluate_every

    def groups(self) -> list[dict[str, Any]]:
        """All weights at one learning rate."""
        return parameter_groups(self.model, self.weight_decay)

    def inputs(self, items: Tensor, ids: Tensor, device: torch.device) -> MaskedClips:
        """Clips and masks, on the device."""
        pixels = self.make_clips(items.to(device, non_blocking=True), ids)
        config = self.model.config
        mask = tube_mask(
            Draws(self.seed, ids), config.num_frames // config.tubelet_size, (config.image_size // config.patch_size) ** 2, self.mask_ratio
        )
        return MaskedClips(pixels, mask.to(device, non_blocking=True))

    def loss(self, model: Any, inputs: MaskedClips) -> Tensor:
        """Mean squared error of the hidden patches."""
        loss: Tensor = model(pixel_values=inputs.pixels, bool_masked_pos=inputs.mask).loss
        return loss

    def evaluate(self, accelerator: Accelerator, out: Path, step: int) -> dict[str, float]:
        """Paint ``reconstructions.png``: of four clips the input, what the model sees, and what it makes of that."""
        if accelerator.is_main_process:
            ids = torch.arange(SHOWN_CLIPS)
            pixels, mask = self.inputs(self.source.get(ids), ids, accelerator.device)
            with accelerator.autocast():
                seen, filled = reconstruct(self.model, pixels, mask)
            _paint(out / "reconstructions.png", torch.stack([to_colors(pixels).clamp(0, 1), seen, filled], 1))
        return {}


def _paint(path: Path, clips: Tensor) -> None:
    """A picture of clips ``(B, 3, T, C, H, W)`` in [0, 1]: three rows each."""
    step = -(-clips.shape[2] // SHOWN_FRAMES)
    scale = -(-PICTURE_SIDE // clips.shape[-1])
    tiles = (clips[:, :, ::step] * 255).round().to(torch.uint8).cpu().permute(0, 1, 2, 4, 5, 3).numpy()
    tiles = tiles.repeat(scale, 3).repeat(scale, 4)
    framed = np.pad(tiles, ((0, 0), (0, 0), (0, 0), (GAP, 0), (GAP, 0), (0, 0)))
    b, rows, t, h, w, _ = framed.shape
    framed = np.pad(framed.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * h, t * w, 3), ((0, 0), (3 * GAP, 0), (0, GAP), (0, 0)))
    with whole_file(path) as temporary:
        Image.fromarray(framed.reshape(-1, framed.shape[2], 3)).save(temporary)
