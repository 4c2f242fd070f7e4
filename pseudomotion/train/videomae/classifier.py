"""Video classifiers: transformers' ``VideoMAEForVideoClassification``, with what VideoMAE's fine-tuning adds to it put on from outside.

Stochastic depth, dropout before the head, and a small initial head take the place of modules without weights of their own, so that the
model is saved and loaded as the plain class.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from pseudomotion.train.videomae.model import with_position_buffers
from pseudomotion.train.videomae.pretrained import check_encoder, load_pretrained

EMBEDDINGS, BLOCK = "videomae.embeddings.", "videomae.encoder.layer."


class StochasticDepth(nn.Module):
    """Leaves out a residual branch for some clips of a batch, and scales it up for the others (Huang et al. 2016, arXiv 1603.09382).

    ``p`` is the probability to leave it out, in training; the expected value stays as it is. Nothing is done in evaluation.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, branch: Tensor) -> Tensor:
        """A branch ``(B, ...)``, kept or left out for each clip."""
        if not self.training or self.p == 0:
            return branch
        kept = torch.rand(len(branch), *[1] * (branch.ndim - 1), device=branch.device) >= self.p
        return branch * (kept / (1 - self.p)).to(branch.dtype)


class DropoutLinear(nn.Linear):
    """A linear layer with dropout of its input, of probability ``p``."""

    def __init__(self, in_features: int, out_features: int, p: float) -> None:
        super().__init__(in_features, out_features)
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.dropout(input, self.p, self.training))


class ClassifierLoss(nn.Module):
    """Cross-entropy of a classifier, computed in float32."""

    def __init__(self, model: VideoMAEForVideoClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of normalized clips ``(B, T, C, H, W)``; targets are labels ``(B,)`` or class probabilities ``(B, classes)``."""
        return F.cross_entropy(self.model(pixel_values=pixels).logits.float(), targets)

    def train(self, mode: bool = True) -> "ClassifierLoss":
        """Training mode, but for a frozen encoder, which stays in evaluation mode: no dropout, no stochastic depth."""
        super().train(mode)
        if not any(weight.requires_grad for weight in self.model.videomae.parameters()):
            self.model.videomae.eval()
        return self


def classification_model(
    init: str | Path | VideoMAEConfig,
    num_classes: int,
    *,
    drop_path: float = 0.1,
    head_dropout: float = 0.0,
    head_scale: float = 0.001,
    class_names: Sequence[str] | None = None,
    frame_size: int | None = None,
    num_frames: int | None = None,
) -> VideoMAEForVideoClassification:
    """A classifier that averages the tokens of a clip: from pre-trained weights, or new.

    As in VideoMAE, the encoder's last layer norm is not taken over from pre-training: the average of the tokens gets a new one,
    ``fc_norm``. A head that the pre-trained model may have is not taken over either. New weights come from torch's default generator.

    Args:
        init: any VideoMAE model, as for ``load_pretrained``; or the settings of a model with all weights new.
        num_classes: at least 2.
        drop_path: probability of stochastic depth in the last block; it grows from 0 in the first one by equal steps.
        head_dropout: probability of dropout before the head.
        head_scale: factor on the head's first weights, which makes all classes about alike at first.
        class_names: to be saved in the model's ``config.json``; None for "LABEL_0" and so on.
        frame_size: as for ``load_pretrained``.
        num_frames: as for ``load_pretrained``.

    Raises:
        OSError: where there is no such folder.
        ValueError: where the folder holds no VideoMAE weights, or arguments are outside these.

    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    for name, value in (("drop_path", drop_path), ("head_dropout", head_dropout)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be from 0 to less than 1, got {value}")
    if class_names is not None and len(class_names) != num_classes:
        raise ValueError(f"class_names must be {num_classes}, one for each class, got {len(class_names)}")
    if isinstance(init, VideoMAEConfig):
        model = VideoMAEForVideoClassification(_with_classes(init, num_classes, class_names))
        model.videomae.embeddings.patch_embeddings.projection.reset_parameters()  # as VideoMAE leaves it; transformers draws it smaller
    else:
        model, absent = load_pretrained(
            VideoMAEForVideoClassification,
            init,
            lambda config: _with_classes(config, num_classes, class_names),
            frame_size=frame_size,
            num_frames=num_frames,
        )
        check_encoder(init, absent)
    width = model.config.hidden_size
    model.fc_norm = nn.LayerNorm(width)
    model.classifier = DropoutLinear(width, num_classes, head_dropout)
    nn.init.trunc_normal_(model.classifier.weight, std=0.02)
    nn.init.zeros_(model.classifier.bias)
    with torch.no_grad():
        model.classifier.weight.mul_(head_scale)
    layers: Any = model.videomae.encoder.layer
    for k, layer in enumerate(layers):
        p = drop_path * k / max(1, len(layers) - 1)
        # Both branches of a block end in a dropout, which is 0 in VideoMAE.
        layer.attention.output.dropout = StochasticDepth(p)
        layer.output.dropout = StochasticDepth(p)
    return with_position_buffers(model)


def freeze_encoder(model: VideoMAEForVideoClassification) -> None:
    """Leave only the head to be trained: a linear probe. The new norm before it keeps a weight of 1 and a bias of 0."""
    model.videomae.requires_grad_(False)
    model.fc_norm.requires_grad_(False)


def layer_scale(name: str, num_layers: int, decay: float) -> float:
    """Factor of a weight's learning rate: ``decay ** (num_layers + 1 - i)`` for block i of 1 to ``num_layers``.

    i is 0 for the patch embedding and ``num_layers + 1`` for what comes after the blocks, ``fc_norm`` and the head.
    """
    if name.startswith(EMBEDDINGS):
        return float(decay ** (num_layers + 1))
    if name.startswith(BLOCK):
        return float(decay ** (num_layers - int(name.removeprefix(BLOCK).partition(".")[0])))
    return 1.0


def _with_classes(config: VideoMAEConfig, num_classes: int, class_names: Sequence[str] | None) -> VideoMAEConfig:
    """Settings of a classifier; ``config`` stays as it is."""
    if config.hidden_dropout_prob:
        raise ValueError(f"hidden_dropout_prob must be 0, as in VideoMAE, got {config.hidden_dropout_prob}")
    settings = VideoMAEConfig.from_dict(config.to_dict())
    settings.use_mean_pooling = True
    settings.num_labels = num_classes
    if class_names is not None:
        settings.id2label = dict(enumerate(class_names))
        settings.label2id = {name: k for k, name in enumerate(class_names)}
    return settings
