"""Short trainings in memory, for ``pmg-validate``: pre-train a small VideoMAE, then see what its encoder is good for.

Straight loops without checkpoints: a trial takes seconds to minutes. Batches are a function of seed and step alone, so arms that share a
seed begin with the same weights and see the same images and clips in the same order.
"""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel

from pseudomotion import PMG
from pseudomotion.draws import Draws
from pseudomotion.train.arms import Arm
from pseudomotion.train.engine.optimize import parameter_groups
from pseudomotion.train.labelled import Data, Labelled
from pseudomotion.train.presets import Setting
from pseudomotion.train.probe import CLASSES
from pseudomotion.train.videomae.masking import tube_mask
from pseudomotion.train.videomae.model import TUBELET_SIZE, normalize, pretraining_model

WARMUP = 0.1  # share of the steps
WEIGHT_DECAY = 0.05
GRADIENT_NORM = 1.0  # gradients are clipped to it; a few hundred steps at a high learning rate leave no time to recover
TEST_BATCH = 256
MADE_TOGETHER = 256  # clips: of small ones, many at once cost little more than a few
CURVE = 60  # points of a loss curve that are kept


class Classifier(nn.Module):
    """A classifier of clips on an encoder.

    Args:
        encoder: with its final norm; it is frozen for good.
        classes: number of classes.
        pool: "mean" of the tokens, or "attentive": a weighted mean, the weights found by one learnt query.

    """

    def __init__(self, encoder: VideoMAEModel, classes: int, pool: str) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        width = encoder.config.hidden_size
        heads = encoder.config.num_attention_heads
        self.attention = None
        if pool == "attentive":
            self.query = nn.Parameter(torch.zeros(1, 1, width))
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.BatchNorm1d(width, affine=False)  # features of different encoders differ in scale
        self.head = nn.Linear(width, classes)

    def train(self, mode: bool = True) -> "Classifier":
        """The encoder stays as it is."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, pixel_values: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b k"]:
        """Logits."""
        with torch.no_grad():
            tokens = self.encoder(pixel_values).last_hidden_state
        if self.attention is None:
            features = tokens.mean(1)
        else:
            features = self.attention(self.query.expand(len(tokens), -1, -1), tokens, tokens, need_weights=False)[0][:, 0]
        logits: Tensor = self.head(self.norm(features.float()))
        return logits


class FineTuned(nn.Module):
    """Transformers' classifier, all weights trained, begun with the weights of an encoder; its final norm is new, as in VideoMAE.

    Args:
        encoder: to begin with.
        classes: number of classes.

    """

    def __init__(self, encoder: VideoMAEModel, classes: int) -> None:
        super().__init__()
        config = copy.deepcopy(encoder.config)
        config.use_mean_pooling, config.num_labels = True, classes
        self.model = VideoMAEForVideoClassification(config)
        weights = {name: value for name, value in encoder.state_dict().items() if not name.startswith("layernorm.")}
        self.model.videomae.load_state_dict(weights)

    def forward(self, pixel_values: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b k"]:
        """Logits."""
        logits: Tensor = self.model(pixel_values).logits.float()
        return logits


def run_trial(
    arm: Arm, seed: int, steps: dict[str, int], pool: str, setting: Setting, data: Data, tell: Callable[[str, float], None]
) -> dict[str, Any]:
    """Pre-train, then fine-tune, train on few clips, and probe the frozen encoder.

    Args:
        arm: how to pre-train.
        seed: of weights and order.
        steps: of every stage.
        pool: as for ``Classifier``.
        setting: the sizes.
        data: what to learn from.
        tell: called with the stage and the loss of every step.

    Returns:
        Accuracies, loss curves and seconds.

    """
    begin, device = time.perf_counter(), data.images.device
    model, row = new_model(setting, seed, device), dict[str, Any]()
    if arm.one_frame:
        data = data.one_frame()

    def follow(stage: str, losses: Iterator[float]) -> None:
        kept = []
        for loss in losses:
            kept.append(loss)
            tell(stage, loss)
        row[f"{stage}_loss"] = thin(kept)

    if arm.transforms:
        pmg = arm.pmg(setting.num_frames, setting.frame_size, seed)
        follow("pretrain", pretrain(model, data.images, pmg, setting, steps["pretrain"], seed))
    few = Labelled(*(part[: setting.shots * len(CLASSES)] for part in data.train))
    for stage, labelled in (("fine_tune", data.train), ("low_shot", few)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tuned = FineTuned(model.videomae, len(CLASSES)).to(device)
        follow(stage, classify(tuned, labelled, setting, steps[stage], setting.classify_lr, seed))
        row[stage] = accuracy(tuned, data.test)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = Classifier(model.videomae, len(CLASSES), pool).to(device)
    follow("probe", classify(probe, data.train, setting, steps["probe"], setting.probe_lr, seed))
    row["probe"] = accuracy(probe, data.test)
    return row | {"seconds": round(time.perf_counter() - begin, 1)}


def thin(losses: Sequence[float]) -> list[tuple[float, float]]:
    """A curve of few points ``(step, loss)``, each the mean of the losses around it."""
    width = max(1, -(-len(losses) // CURVE))
    parts = [losses[start : start + width] for start in range(0, len(losses), width)]
    return [(number * width + (len(part) - 1) / 2, round(sum(part) / len(part), 5)) for number, part in enumerate(parts)]


def new_model(setting: Setting, seed: int, device: torch.device) -> VideoMAEForPreTraining:
    """A masked autoencoder with fresh weights, a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return pretraining_model(setting.config()).to(device)


def made_together(setting: Setting) -> int:
    """Number of steps whose clips ``pretrain`` makes at once."""
    return max(1, MADE_TOGETHER // setting.batch_size)


def pretrain(
    model: VideoMAEForPreTraining, images: UInt8[Tensor, "N 3 H W"], pmg: PMG, setting: Setting, steps: int, seed: int
) -> Iterator[float]:
    """Masked modeling on clips that ``pmg`` makes of images; yields the loss of every step."""
    device, n, together = images.device, setting.batch_size, made_together(setting)
    made: list[tuple[Tensor, Tensor]] = []

    def loss(step: int) -> Tensor:
        if step % together == 0:
            draws = Draws(seed, torch.arange(step * n, min(step + together, steps) * n))
            (number,) = draws.uniform("validate images", 1)
            pixels = pmg(images[(number * len(images)).long().to(device)], ids=draws.ids)
            patches = (setting.frame_size // setting.patch_size) ** 2
            mask = tube_mask(draws, setting.num_frames // TUBELET_SIZE, patches, setting.mask_ratio).to(device)
            made[:] = zip(torch.split(pixels, n), torch.split(mask, n), strict=True)
        clips, hidden = made[step % together]
        with _precision(device):
            result: Tensor = model(pixel_values=clips, bool_masked_pos=hidden).loss
        return result

    yield from _descend(model, loss, steps, setting.pretrain_lr, betas=(0.9, 0.95))


def classify(model: nn.Module, data: Labelled, setting: Setting, steps: int, lr: float, seed: int) -> Iterator[float]:
    """Train a classifier on labelled clips; yields the loss of every step."""
    device, n = data.clips.device, setting.batch_size

    def loss(step: int) -> Tensor:
        (number,) = Draws(seed, torch.arange(step * n, (step + 1) * n)).uniform("validate clips", 1)
        chosen = (number * len(data.labels)).long().to(device)
        with _precision(device):
            logits = model(_pixels(data.clips[chosen]))
        return F.cross_entropy(logits.float(), data.labels[chosen])

    yield from _descend(model, loss, steps, lr, betas=(0.9, 0.999))


@torch.no_grad()
def accuracy(model: nn.Module, data: Labelled) -> float:
    """Share of labelled clips that a classifier gets right."""
    was_training = model.training
    model.eval()
    with _precision(data.clips.device):
        right = [
            (model(_pixels(clips)).argmax(1) == labels).sum()
            for clips, labels in zip(torch.split(data.clips, TEST_BATCH), torch.split(data.labels, TEST_BATCH), strict=True)
        ]
    model.train(was_training)
    return int(torch.stack(right).sum()) / len(data.labels)


def _descend(model: nn.Module, loss: Callable[[int], Tensor], steps: int, lr: float, betas: tuple[float, float]) -> Iterator[float]:
    """AdamW with a warm-up and a cosine; a step's loss is read while the next one runs, so that a GPU need not wait."""
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, WEIGHT_DECAY), lr=lr, betas=betas)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    pending: Tensor | None = None
    for step in range(steps):
        rate = cosine_schedule(step + 1, steps=steps + 1, warmup=max(1, round(WARMUP * steps)), peak=lr, end=0.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        now = loss(step)
        optimizer.zero_grad()
        torch.autograd.backward(now)
        nn.utils.clip_grad_norm_(weights, GRADIENT_NORM)
        optimizer.step()
        if pending is not None:
            yield _finite(pending)
        pending = now.detach()
    if pending is not None:
        yield _finite(pending)


def _pixels(clips: UInt8[Tensor, "b t 3 h w"]) -> Float[Tensor, "b t 3 h w"]:
    """Clips as VideoMAE models take them."""
    return normalize(clips.transpose(1, 2))


def _finite(loss: Tensor) -> float:
    value = float(loss)
    if not math.isfinite(value):
        raise ValueError(f"the loss became {value}; its learning rate in pseudomotion.train.presets is too high for these sizes")
    return value


def _precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 on a GPU, float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()


def cosine_schedule(step: int, *, steps: int, warmup: int, peak: float, end: float) -> float:
    """Learning rate of a step: from 0 in a straight line to the peak, then half a cosine to the end.

    Args:
        step: from 0.
        steps: of the run in all.
        warmup: steps until the peak.
        peak: learning rate after the warm-up.
        end: learning rate that the last step comes near to.

    """
    if step < warmup:
        return peak * step / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return end + (peak - end) * (1 + math.cos(math.pi * share)) / 2
