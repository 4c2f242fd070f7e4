"""Classifying videos: what ``pmg-finetune`` trains, and how it and ``pmg-evaluate`` measure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy
from tqdm import tqdm
from transformers import VideoMAEForVideoClassification

from pseudomotion.draws import Draws
from pseudomotion.files import whole_folder
from pseudomotion.mix import Blend, Mix, Mixup, VideoMix, mix_targets
from pseudomotion.source import batches
from pseudomotion.train.engine.loop import Task
from pseudomotion.train.engine.optimize import parameter_groups
from pseudomotion.train.sources import normalise
from pseudomotion.train.video.augment import RandomErasing
from pseudomotion.train.video.views import EvaluationViews, LabelledViews, TrainingViews, view_ids
from pseudomotion.train.videomae.classifier import layer_scale

BEST, SCORES = "best", "scores.json"


@dataclass(frozen=True)
class MixupOrCutMix(Mix):
    """Mixup or CutMix, drawn for every clip.

    VideoMAE draws which of them, and the share, once for a batch, and mixes each clip with the one at the mirrored place.

    Args:
        mixup: whole clips.
        cutmix: the same box in all frames.
        switch: probability of CutMix.

    """

    mixup: Mixup = field(default_factory=lambda: Mixup(0.8))
    cutmix: VideoMix = field(default_factory=lambda: VideoMix(1.0))
    switch: float = 0.5

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not 0 <= self.switch <= 1:
            raise ValueError(f"switch must be from 0 to 1, got {self.switch}")

    def make_params(self, draws: Draws) -> dict[str, np.ndarray]:
        """Draw the numbers of every clip."""
        mixup, cutmix = self.mixup.make_params(draws), self.cutmix.make_params(draws)
        (chance,) = draws.numbers("mixup or cutmix", 1)
        named = {f"mixup {name}": value for name, value in mixup.items()} | {f"cutmix {name}": value for name, value in cutmix.items()}
        return {"cutmix": chance < self.switch, **named}

    def make_plan(self, params: dict[str, np.ndarray], num_frames: int, frame_size: tuple[int, int]) -> Blend:
        """The blend of the one or the other."""
        plans = [
            mix.make_plan({key.removeprefix(name): value for key, value in params.items() if key.startswith(name)}, num_frames, frame_size)
            for mix, name in ((self.cutmix, "cutmix "), (self.mixup, "mixup "))
        ]
        chosen = torch.from_numpy(params["cutmix"])
        return Blend(*(torch.where(chosen.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(*plans, strict=True)))


def smooth_labels(labels: Int64[Tensor, " b"], num_classes: int, smoothing: float) -> Float32[Tensor, "b num_classes"]:
    """Class probabilities: ``smoothing`` shared out among all classes, the rest on the label."""
    return F.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes


class LabelledPixels(NamedTuple):
    """Inputs of a classifier, and what it should say."""

    pixels: Tensor  # float32 (B, T, C, H, W), normalised
    targets: Tensor  # float32 (B, classes), class probabilities


class Classification(Task):
    """Fine-tuning: cross-entropy with smoothed labels of mixed clips.

    Args:
        model: as ``classification_model`` makes it.
        source: of clips to train on.
        validation: videos to measure on.
        erasing: of normalised clips.
        mix: of clips and labels; None for none.
        label_smoothing: share of every label that goes to all classes alike.
        layer_decay: of the learning rate, from layer to layer.
        weight_decay: for ``groups``.
        seed: of erasing and mixing.
        evaluate_every: steps from one validation to the next.
        batch_size: clips at a time in validation.
        num_workers: processes that read videos in validation.
        best: top-1 accuracy that a new best model must exceed, from before the run was resumed.

    """

    plotted: Sequence[str] = ("loss", "val_top1")

    def __init__(
        self,
        model: VideoMAEForVideoClassification,
        source: TrainingViews,
        validation: EvaluationViews,
        *,
        erasing: RandomErasing,
        mix: Mix | None,
        label_smoothing: float,
        layer_decay: float,
        weight_decay: float,
        seed: int,
        evaluate_every: int,
        batch_size: int,
        num_workers: int,
        best: float | None = None,
    ) -> None:
        self.model, self.source, self.validation = model, source, validation
        self.erasing, self.mix, self.label_smoothing = erasing, mix, label_smoothing
        self.layer_decay, self.weight_decay, self.seed = layer_decay, weight_decay, seed
        self.evaluate_every, self.batch_size, self.num_workers = evaluate_every, batch_size, num_workers
        self.best = best

    def groups(self) -> list[dict[str, Any]]:
        """Lower learning rates for earlier layers."""
        layers = self.model.config.num_hidden_layers
        return parameter_groups(self.model, self.weight_decay, lambda name: layer_scale(name, layers, self.layer_decay))

    def inputs(self, items: LabelledViews, ids: Tensor, device: torch.device) -> LabelledPixels:
        """All copies of all videos as one batch: normalised, erased, mixed, on the device."""
        copies, num_classes = items.clips.shape[1], self.model.config.num_labels
        each = view_ids(ids, copies)
        pixels = self.erasing(normalise(items.clips.flatten(0, 1).to(device, non_blocking=True)), Draws(self.seed, each))
        targets = smooth_labels(items.labels.repeat_interleave(copies), num_classes, self.label_smoothing)
        if self.mix is not None:
            pixels, info = self.mix(pixels, ids=each, seed=self.seed, data_format="BTCHW")
            targets = mix_targets(targets, info, num_classes)
        return LabelledPixels(pixels, targets.to(device, non_blocking=True))

    def loss(self, model: Any, inputs: LabelledPixels) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(model(pixel_values=inputs.pixels).logits.float(), inputs.targets)

    def evaluate(self, accelerator: Accelerator, out: Path, step: int) -> dict[str, float]:
        """Accuracy on the validation videos, in percent; a model better than all before is kept as ``best/``."""
        probabilities, seen = predict(self.model, self.validation, accelerator, batch_size=self.batch_size, num_workers=self.num_workers)
        scores = {f"val_{name}": value for name, value in top_scores(probabilities[seen], self.validation.labels[seen]).items()}
        if self.best is None or scores["val_top1"] > self.best:
            self.best = scores["val_top1"]
            if accelerator.is_main_process:
                with whole_folder(out / BEST) as folder:
                    self.model.save_pretrained(folder)
                    (folder / SCORES).write_text(json.dumps({"step": step, **scores}, indent=2))
        return scores


def best_score(out: Path) -> float | None:
    """Top-1 accuracy of the best model of a run, in percent; None where there is none yet."""
    path = out / BEST / SCORES
    return float(json.loads(path.read_text())["val_top1"]) if path.is_file() else None


@torch.no_grad()
def predict(
    model: VideoMAEForVideoClassification,
    videos: EvaluationViews,
    accelerator: Accelerator,
    *,
    batch_size: int,
    num_workers: int = 0,
    progress: bool = False,
) -> tuple[Float32[Tensor, "n classes"], Bool[Tensor, " n"]]:
    """Class probabilities of videos: the softmax of every view, averaged over a video's views. All processes share the work.

    Args:
        model: in evaluation mode, on the accelerator's device.
        videos: to classify.
        accelerator: devices and precision.
        batch_size: clips at a time, in each process.
        num_workers: processes that read, per process.
        progress: show a bar.

    Returns:
        Probabilities, on the CPU, in the order of the list; and which videos could be read: those of the others are 0.

    """
    views = videos.clips * videos.crops
    probabilities = torch.zeros(len(videos), model.config.num_labels, device=accelerator.device)
    seen = torch.zeros(len(videos), device=accelerator.device)
    at_once = max(1, batch_size // views)
    rank, world_size = accelerator.process_index, accelerator.num_processes
    reading = batches(videos, at_once, shuffle=False, num_workers=num_workers, rank=rank, world_size=world_size)
    bar = tqdm(total=len(range(rank, len(videos), world_size)), unit="video", disable=not (progress and accelerator.is_main_process))
    with bar:
        for (clips, _, numbers), ids in reading:
            pixels = normalise(clips.flatten(0, 1).to(accelerator.device, non_blocking=True))
            with accelerator.autocast():
                logits = torch.cat([model(pixel_values=part).logits for part in torch.split(pixels, batch_size)])
            own = numbers == ids  # what was read in place of a broken video is none of its own
            probabilities[numbers[own]] = logits.float().softmax(1).reshape(len(ids), views, -1).mean(1)[own]
            seen[numbers[own]] = 1
            bar.update(len(ids))
    return accelerator.reduce(probabilities, "sum").cpu(), accelerator.reduce(seen, "sum").cpu() > 0


def top_scores(probabilities: Float32[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> dict[str, float]:
    """Top-1 and top-5 accuracy over all videos, in percent; with fewer than five classes the latter is 100."""
    num_classes = probabilities.shape[1]
    return {
        f"top{k}": 100 * float(multiclass_accuracy(probabilities, labels, num_classes, top_k=min(k, num_classes), average="micro"))
        for k in (1, 5)
    }


def class_scores(probabilities: Float32[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> dict[int, float]:
    """Top-1 accuracy of every class that has videos, in percent."""
    each = multiclass_accuracy(probabilities, labels, probabilities.shape[1], average=None)
    return {label: 100 * float(each[label]) for label in sorted(set(labels.tolist()))}
