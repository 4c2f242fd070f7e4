"""Video classifiers: transformers' ``VideoMAEForVideoClassification``, with what VideoMAE's fine-tuning adds to it put on from outside.

Stochastic depth, dropout before the head, and a small initial head take the place of modules without weights of their own, so that the
model is saved and loaded as the plain class.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from pseudomotion.train.videomae.model import with_position_buffers

ENCODER = "videomae."
EMBEDDINGS, BLOCK = "videomae.embeddings.", "videomae.encoder.layer."


class StochasticDepth(nn.Module):
    """Leaves out a residual branch for some clips of a batch, and scales it up for the others (Huang et al. 2016, arXiv 1603.09382).

    Args:
        p: probability to leave the branch out, in training; its expected value stays as it is. Nothing is done in evaluation.

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
    """A linear layer with dropout of its input.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        p: probability of dropout.

    """

    def __init__(self, in_features: int, out_features: int, p: float) -> None:
        super().__init__(in_features, out_features)
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        """Output of the layer."""
        return super().forward(F.dropout(input, self.p, self.training))


class ClassifierLoss(nn.Module):
    """Cross-entropy of a classifier, computed in float32.

    Args:
        model: to train.

    """

    def __init__(self, model: VideoMAEForVideoClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of normalized clips ``(B, T, C, H, W)``; targets are labels ``(B,)`` or class probabilities ``(B, classes)``."""
        return F.cross_entropy(self.model(pixel_values=pixels).logits.float(), targets)


def classification_model(
    init: str | Path | VideoMAEConfig,
    num_classes: int,
    *,
    drop_path: float = 0.1,
    head_dropout: float = 0.0,
    head_scale: float = 0.001,
    class_names: Sequence[str] | None = None,
) -> VideoMAEForVideoClassification:
    """A classifier that averages the tokens of a clip: from pre-trained weights, or new.

    As in VideoMAE, the encoder's last layer norm is not taken over from pre-training: the average of the tokens gets a new one,
    ``fc_norm``. A head that the pre-trained model may have is not taken over either. New weights come from torch's default generator.

    Args:
        init: folder that ``save_pretrained`` wrote, of any VideoMAE model, or a run that holds such a folder as ``model``; or the settings
            of a model with all weights new.
        num_classes: at least 2.
        drop_path: probability of stochastic depth in the last block; it grows from 0 in the first one by equal steps.
        head_dropout: probability of dropout before the head.
        head_scale: factor on the head's first weights, which makes all classes about alike at first.
        class_names: to be saved in the model's ``config.json``; None for "LABEL_0" and so on.

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
        model = _pretrained(model_folder(init), num_classes, class_names)
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


def model_folder(path: str | Path) -> Path:
    """The folder of a model: of one that ``save_pretrained`` wrote, or of a run.

    Raises:
        FileNotFoundError: where there is none.

    """
    for folder in (Path(path), Path(path) / "model"):
        if (folder / "config.json").is_file():
            return folder
    raise FileNotFoundError(f"there is no model in {path}: neither config.json nor model/config.json")


def freeze_encoder(model: VideoMAEForVideoClassification) -> None:
    """Leave only the new norm and the head to be trained: a linear probe."""
    model.videomae.requires_grad_(False)


def layer_scale(name: str, num_layers: int, decay: float) -> float:
    """Factor of a weight's learning rate: ``decay ** (num_layers + 1 - i)`` for block i of 1 to ``num_layers``.

    i is 0 for the patch embedding and ``num_layers + 1`` for what comes after the blocks, ``fc_norm`` and the head.

    Args:
        name: of the weight, in a ``VideoMAEForVideoClassification``.
        num_layers: of the model.
        decay: from layer to layer, in (0, 1].

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


def _pretrained(folder: Path, num_classes: int, class_names: Sequence[str] | None) -> VideoMAEForVideoClassification:
    """A classifier with the encoder of a folder; only safetensors are read."""
    settings = json.loads((folder / "config.json").read_text())
    if settings.get("model_type") != "videomae":
        raise ValueError(f"{folder} must hold a VideoMAE model, it is of type {settings.get('model_type')!r}")
    loading: Any = VideoMAEForVideoClassification
    try:
        with _quiet():
            model, info = loading.from_pretrained(
                folder,
                config=_with_classes(VideoMAEConfig.from_dict(settings), num_classes, class_names),
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # of a head with other classes, which is not kept
                output_loading_info=True,
            )
    except SafetensorError as error:
        raise ValueError(f"{folder} holds no model: {error}") from error
    absent = [*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])]
    if lost := sorted(name for name in absent if name.startswith(ENCODER)):
        raise ValueError(f"{folder} does not hold all weights of the encoder: no {', '.join(lost[:3])}")
    classifier: VideoMAEForVideoClassification = model
    return classifier


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar, and no warning of weights that are new or not taken over, which is as it should be."""
    messages: Any = transformers.utils.logging
    verbosity, bar = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity(logging.ERROR)
    messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(verbosity)
        if bar:
            messages.enable_progress_bar()
