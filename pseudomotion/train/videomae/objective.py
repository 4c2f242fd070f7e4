"""Masked video modeling: the loss as one graph that gathers tokens by index, and a picture of what the model fills in."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from PIL import Image, ImageDraw
from torch import Tensor, nn
from transformers import VideoMAEForPreTraining

from pseudomotion.files import whole_file
from pseudomotion.train.videomae.model import IMAGENET_MEAN, IMAGENET_STD, to_patches

SHOWN_FRAMES, GAP = 8, 4
PICTURE_SIDE = 96  # least side of a frame in the picture
MARGIN = 64  # pixels for labels


class MaskedLoss(nn.Module):
    """The loss of a masked autoencoder, equal to transformers' own, but without boolean masks.

    Boolean masks make shapes depend on data: they break ``torch.compile``'s graph and make the host wait for a GPU four times a step.

    Args:
        model: as ``pretraining_model`` makes it.

    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: VideoMAEForPreTraining) -> None:
        super().__init__()
        self.model = model
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(
        self, pixels: Float[Tensor, "b t 3 h w"], visible: Int64[Tensor, "b n_visible"], hidden: Int64[Tensor, "b n_hidden"]
    ) -> Float[Tensor, ""]:
        """Mean squared error of the hidden patches.

        Args:
            pixels: float32, normalized by ImageNet's mean and deviation.
            visible: numbers of the tokens that the encoder sees, in order.
            hidden: numbers of the other tokens, in order.

        """
        model, b = self.model, len(pixels)
        embeddings = model.videomae.embeddings
        tokens = embeddings.patch_embeddings(pixels)  # (b, n, d)
        tokens = tokens + embeddings.position_embeddings.type_as(tokens)
        encoded = model.videomae.encoder(_take(tokens, visible)).last_hidden_state  # (b, n_visible, d)
        if model.videomae.layernorm is not None:
            encoded = model.videomae.layernorm(encoded)
        encoded = model.encoder_to_decoder(encoded)
        positions = model.position_embeddings.type_as(pixels).expand(b, -1, -1)
        tokens = torch.cat([encoded + _take(positions, visible), model.mask_token + _take(positions, hidden)], dim=1)
        predicted = model.decoder(tokens, hidden.shape[1]).logits  # (b, n_hidden, values of a patch)
        return F.mse_loss(predicted, self.targets(pixels, hidden))

    @torch.no_grad()
    def targets(self, pixels: Float[Tensor, "b t 3 h w"], hidden: Int64[Tensor, "b n_hidden"]) -> Float[Tensor, "b n_hidden v"]:
        """Hidden patches less their mean and over their deviation, per color; values run over time, rows, columns, then colors."""
        patches = _take(to_patches(pixels * self.std + self.mean, self.model.config), hidden)
        colors = patches.view(*patches.shape[:2], -1, 3)  # (b, n_hidden, values of a color, 3)
        mean, variance = colors.mean(2, keepdim=True), colors.var(2, keepdim=True)
        return ((colors - mean) / (variance.sqrt() + 1e-6)).flatten(2)


def _take(tokens: Float[Tensor, "b n d"], chosen: Int64[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
    return tokens.gather(1, chosen[..., None].expand(-1, -1, tokens.shape[2]))


def paint(path: Path, clips: Float[Tensor, "b rows t c h w"], labels: Sequence[str] = ()) -> None:
    """Save a picture of clips in [0, 1], one frame beside the other, the rows of a clip below each other, with ``labels`` on their left."""
    step = -(-clips.shape[2] // SHOWN_FRAMES)
    scale = -(-PICTURE_SIDE // clips.shape[-1])
    tiles = (clips[:, :, ::step] * 255).round().to(torch.uint8).cpu().permute(0, 1, 2, 4, 5, 3).numpy()
    tiles = tiles.repeat(scale, 3).repeat(scale, 4)
    framed = np.pad(tiles, ((0, 0), (0, 0), (0, 0), (GAP, 0), (GAP, 0), (0, 0)))
    b, rows, t, h, w, _ = framed.shape
    left = MARGIN if labels else 0
    framed = np.pad(framed.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * h, t * w, 3), ((0, 0), (3 * GAP, 0), (left, GAP), (0, 0)))
    picture = Image.fromarray(framed.reshape(-1, framed.shape[2], 3))
    for clip in range(b):
        for row, label in enumerate(labels):
            middle = clip * framed.shape[1] + 3 * GAP + row * h + h // 2
            ImageDraw.Draw(picture).text((2 * GAP, middle - 6), label, fill="white")
    with whole_file(path) as temporary:
        picture.save(temporary)
