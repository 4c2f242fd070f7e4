"""VideoMAE models of Hugging Face transformers, in the sizes of the VideoMAE paper."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForPreTraining

Model = TypeVar("Model", bound=nn.Module)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Size:
    """Of a vision transformer: encoder, decoder, and the clips it is meant for."""

    width: int
    layers: int
    heads: int
    decoder_width: int
    decoder_layers: int
    decoder_heads: int
    frame_size: int = 224
    num_frames: int = 16
    patch_size: int = 16


# As published for VideoMAE; tiny, mini and micro are ours, for a CPU.
SIZES = {
    "micro": Size(64, 2, 4, 48, 1, 3, frame_size=24, num_frames=6, patch_size=6),
    "mini": Size(96, 3, 4, 64, 1, 2, frame_size=36, num_frames=6, patch_size=6),
    "tiny": Size(192, 4, 4, 96, 2, 2, frame_size=64, num_frames=8, patch_size=8),
    "small": Size(384, 12, 6, 192, 4, 3),
    "base": Size(768, 12, 12, 384, 4, 6),
    "large": Size(1024, 24, 16, 512, 12, 8),
    "huge": Size(1280, 32, 16, 640, 12, 8),
}
TUBELET_SIZE = 2


def model_config(
    size: str, *, frame_size: int | None = None, num_frames: int | None = None, patch_size: int | None = None, **more: object
) -> VideoMAEConfig:
    """Settings of a model.

    Args:
        size: of ``SIZES``.
        frame_size: side of the frames in pixels; None for that of the size, as for the two below.
        num_frames: T.
        patch_size: side of a token in pixels; a token is two frames deep.
        more: further settings of ``VideoMAEConfig``.

    Raises:
        ValueError: where frames do not divide into patches, or clips into pairs of frames.

    """
    if size not in SIZES:
        raise ValueError(f"model must be one of {', '.join(SIZES)}, got {size!r}")
    own = SIZES[size]
    frame_size, num_frames, patch_size = frame_size or own.frame_size, num_frames or own.num_frames, patch_size or own.patch_size
    if frame_size % patch_size:
        raise ValueError(f"frame_size must be a multiple of patch_size = {patch_size}, got {frame_size}")
    if num_frames % TUBELET_SIZE:
        raise ValueError(f"num_frames must be a multiple of {TUBELET_SIZE}, got {num_frames}")
    return VideoMAEConfig(
        image_size=frame_size,
        num_frames=num_frames,
        patch_size=patch_size,
        tubelet_size=TUBELET_SIZE,
        hidden_size=own.width,
        num_hidden_layers=own.layers,
        num_attention_heads=own.heads,
        intermediate_size=4 * own.width,
        decoder_hidden_size=own.decoder_width,
        decoder_num_hidden_layers=own.decoder_layers,
        decoder_num_attention_heads=own.decoder_heads,
        decoder_intermediate_size=4 * own.decoder_width,
        layer_norm_eps=1e-6,  # VideoMAE's; the class has 1e-12
        **more,
    )


def pretraining_model(config: VideoMAEConfig) -> VideoMAEForPreTraining:
    """A new masked autoencoder, its weights drawn from torch's default generator as VideoMAE draws them.

    Unlike the class's own defaults: the encoder ends in a layer norm (``use_mean_pooling=False``), linear layers begin Xavier-uniform
    (query, key and value as the one layer ``(d, 3d)`` that they are in VideoMAE), the patch embedding and the layer between encoder and
    decoder as torch draws them, the mask token normal with a deviation of 0.02. The decoder's norm keeps the class's eps of 1e-5.
    """
    config.use_mean_pooling = False
    model = VideoMAEForPreTraining(config)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d) or name == "encoder_to_decoder":
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            fan_out = (3 if name.endswith((".query", ".key", ".value")) else 1) * module.out_features
            bound = math.sqrt(6 / (module.in_features + fan_out))
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(model.mask_token, std=0.02, a=-0.02, b=0.02)
    return with_position_buffers(model)


def with_position_buffers(model: Model) -> Model:
    """Make a model's position tables buffers, so that they move with it and are not copied from the host in every step; returns it.

    Transformers keeps them as plain tensors. They still are not saved.
    """
    for module in model.modules():
        table = vars(module).pop("position_embeddings", None)
        if table is not None:
            module.register_buffer("position_embeddings", table, persistent=False)
    return model


def training_flops(config: VideoMAEConfig, visible: int | None = None) -> float:
    """Floating-point operations of a training step for one clip: three times those of its forward pass, a multiply-add counted as two.

    Args:
        config: of the model.
        visible: tokens that the encoder sees in masked modeling; None for a classifier.

    """
    patch = config.num_channels * config.tubelet_size * config.patch_size**2
    n = (config.num_frames // config.tubelet_size) * (config.image_size // config.patch_size) ** 2

    def blocks(count: int, tokens: int, width: int, inner: int) -> float:
        return count * tokens * (8.0 * width**2 + 4 * width * inner + 4 * tokens * width)

    d = config.hidden_size
    total = 2.0 * n * patch * d + blocks(config.num_hidden_layers, n if visible is None else visible, d, config.intermediate_size)
    if visible is not None:
        e = config.decoder_hidden_size
        total += 2.0 * visible * d * e + 2.0 * (n - visible) * e * patch
        total += blocks(config.decoder_num_hidden_layers, n, e, config.decoder_intermediate_size)
    return 3 * total


def normalize(clips: UInt8[Tensor, "b c t h w"] | Float[Tensor, "b c t h w"]) -> Float[Tensor, "b t c h w"]:
    """Clips as VideoMAE models take them: float32, less ImageNet's mean, over its deviation, time first."""
    mean, std = (values[:, None] for values in _statistics(clips.device))  # (3, 1, 1, 1)
    unit = clips.float() / 255 if clips.dtype == torch.uint8 else clips.float()
    return ((unit - mean) / std).transpose(1, 2).contiguous()


def to_patches(clips: Float[Tensor, "b t c h w"], config: VideoMAEConfig) -> Float[Tensor, "b n v"]:
    """Clips cut into tokens, in the order of the model's outputs: values run over time, rows, columns, then channels."""
    b, t, c, h, w = clips.shape
    d, p = config.tubelet_size, config.patch_size
    cubes = clips.reshape(b, t // d, d, c, h // p, p, w // p, p)
    return cubes.permute(0, 1, 4, 6, 2, 5, 7, 3).reshape(b, (t // d) * (h // p) * (w // p), d * p * p * c)


def from_patches(patches: Float[Tensor, "b n v"], config: VideoMAEConfig) -> Float[Tensor, "b t c h w"]:
    """The clips that ``to_patches`` cut."""
    b = len(patches)
    d, p, side, t = config.tubelet_size, config.patch_size, config.image_size, config.num_frames
    rows = side // p
    cubes = patches.reshape(b, t // d, rows, rows, d, p, p, -1)
    return cubes.permute(0, 1, 4, 7, 2, 5, 3, 6).reshape(b, t, -1, side, side)


def to_colors(pixels: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
    """Pixels that were normalized by ImageNet's mean and deviation, as colors in [0, 1] again."""
    mean, std = _statistics(pixels.device)
    return pixels * std + mean


@lru_cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and deviation ``(3, 1, 1)``, copied to a device once."""
    mean, std = (torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


@torch.no_grad()
def reconstruct(model: VideoMAEForPreTraining, pixels: Float[Tensor, "b t c h w"], mask: Tensor) -> tuple[Tensor, Tensor]:
    """What a masked autoencoder sees and what it fills in.

    The model predicts each hidden patch less its mean and over its deviation; both are taken from the true patch to show the prediction.

    Args:
        model: in evaluation mode or not; it is not changed.
        pixels: normalized by ImageNet's mean and deviation.
        mask: bool ``(B, N)``, True for hidden tokens.

    Returns:
        Clips in [0, 1] of the shape of ``pixels``: hidden patches gray; hidden patches as predicted.

    """
    values = to_patches(to_colors(pixels), model.config)
    colors = values.reshape(*values.shape[:2], -1, 3)
    predicted = model(pixel_values=pixels, bool_masked_pos=mask).logits.float().reshape(len(pixels), -1, *colors.shape[2:])
    true = colors[mask].reshape(predicted.shape)
    deviation, average = torch.std_mean(true, dim=2, keepdim=True)
    filled, seen = colors.clone(), colors.clone()
    filled[mask] = (predicted * (deviation + 1e-6) + average).flatten(0, 1)
    seen[mask] = 0.5
    clips = (from_patches(part.flatten(2), model.config).clamp(0, 1) for part in (seen, filled))
    return next(clips), next(clips)
