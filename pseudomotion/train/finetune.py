"""``pmg-finetune``: fine-tune a pre-trained VideoMAE to classify videos, all of them or a few of each class; or train one from scratch.

The defaults are VideoMAE's for UCF101.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import VideoMAEForVideoClassification

from pseudomotion.draws import Draws
from pseudomotion.files import whole_folder
from pseudomotion.mix import Mix, Mixup, VideoMix, mix_targets
from pseudomotion.train.engine.loop import Task, make_accelerator, train
from pseudomotion.train.engine.optimize import parameter_groups
from pseudomotion.train.engine.stream import to_device
from pseudomotion.train.evaluate import predict, top_scores
from pseudomotion.train.options import FinetuneOptions as FinetuneOptions
from pseudomotion.train.video.augment import ClipAugmentation, MixupOrCutMix, RandomErasing, smooth_labels
from pseudomotion.train.video.randaugment import RandAugment
from pseudomotion.train.video.views import EvaluationViews, LabelledViews, Sampling, TrainingViews, low_shot, view_ids
from pseudomotion.train.videomae.classifier import ClassifierLoss, classification_model, freeze_encoder, layer_scale
from pseudomotion.train.videomae.hub import save_for_hub
from pseudomotion.train.videomae.model import model_config, normalize, training_flops
from pseudomotion.video.list_file import read_lines, read_list

BEST, SCORES = "best", "scores.json"


def run(options: FinetuneOptions) -> None:
    """Fine-tune, and say where the results are."""
    accelerator = make_accelerator(options)
    task = make_task(options)
    model = train(task, options, "finetune", accelerator)
    best = "" if task.best is None else f"{options.out}/{BEST}: the best on --val, with {task.best:.1f} % top-1; "
    accelerator.print(f"{model}: the model; {best}{options.out}/loss.png: how it went")


def make_task(options: FinetuneOptions) -> "Classification":
    """What the options ask to train; an error for files that are not there, and for lists or options that do not fit together."""
    videos, validation = read_list(options.train), read_list(options.val)
    names = options.classes and [line.strip() for line in read_lines(Path(options.classes)) if line.strip()]
    num_classes = len(names) if names else 1 + max(label for _, label in videos)
    for list_file, entries in ((options.train, videos), (options.val, validation)):
        labels = [label for _, label in entries]
        if min(labels) < 0:
            raise ValueError(
                f'{list_file} must have lines of "path label", with a class from 0 for every video; {sum(k < 0 for k in labels)} have none'
            )
        if max(labels) >= num_classes:
            raise ValueError(f"{list_file} must have classes from 0 to {num_classes - 1}, it has {max(labels)}")
    sizes = {"frame_size": options.frame_size, "num_frames": options.num_frames}
    model = classification_model(
        options.init or model_config(options.model or "base", patch_size=options.patch_size, **sizes),
        num_classes,
        drop_path=options.drop_path,
        head_dropout=options.head_dropout,
        head_scale=options.head_scale,
        class_names=names,
        **sizes,
    )
    if options.linear_probe:
        freeze_encoder(model)
    sampling = Sampling(model.config.num_frames, options.sampling, options.stride)
    chosen = videos if options.shots is None else low_shot(videos, options.shots, options.seed)
    size = model.config.image_size
    randaugment = RandAugment(options.randaugment, options.magnitude, options.magnitude_std)
    augmentation = ClipAugmentation(size, area=(options.crop[0], options.crop[1]), flip=options.flip, randaugment=randaugment)
    views = TrainingViews(chosen, sampling, augmentation, copies=options.copies, seed=options.seed)
    return Classification(model, views, EvaluationViews(validation, sampling, size), options)


class LabelledPixels(NamedTuple):
    """Inputs of a classifier, and what it should say."""

    pixels: Tensor  # float32 (B, T, C, H, W), normalized
    targets: Tensor  # float32 (B, classes), class probabilities


class Classification(Task):
    """Fine-tuning: cross-entropy with smoothed labels of mixed clips.

    Attributes:
        best: top-1 accuracy of the best model so far, in percent, also of before the run was resumed; None before the first measurement.

    """

    plotted: Sequence[str] = ("loss", "val_top1")

    def __init__(
        self, model: VideoMAEForVideoClassification, source: TrainingViews, validation: EvaluationViews, options: FinetuneOptions
    ) -> None:
        self.model, self.objective, self.source, self.validation = model, ClassifierLoss(model), source, validation
        self.options, self.erasing, self.mix = options, RandomErasing(options.erasing), _mix(options)
        self.evaluate_every = max(1, round(options.evaluate_every * len(source) / options.batch_size))
        self.best = best_score(Path(options.out)) if options.resume else None
        self.flops = source.copies * training_flops(model.config)

    save = staticmethod(save_for_hub)

    def groups(self) -> list[dict[str, Any]]:
        """Lower learning rates for earlier layers."""
        layers, decay = self.model.config.num_hidden_layers, self.options.layer_decay
        return parameter_groups(self.model, self.options.weight_decay, lambda name: layer_scale(name, layers, decay))

    def inputs(self, items: LabelledViews, ids: Tensor, device: torch.device) -> LabelledPixels:
        """All copies of all videos as one batch: normalized, erased, mixed, on the device."""
        copies, num_classes, seed = items.clips.shape[1], self.model.config.num_labels, self.options.seed
        each = view_ids(ids, copies)
        pixels = self.erasing(normalize(to_device(items.clips.flatten(0, 1), device)), Draws(seed, each))
        targets = smooth_labels(items.labels.repeat_interleave(copies), num_classes, self.options.label_smoothing)
        if self.mix is not None:
            pixels, info = self.mix(pixels, ids=each, seed=seed, data_format="BTCHW")
            targets = mix_targets(targets, info, num_classes)
        return LabelledPixels(pixels, to_device(targets, device))

    def evaluate(self, accelerator: Accelerator, out: Path, step: int) -> dict[str, float]:
        """Accuracy on the validation videos, in percent; a model better than all before is kept as ``best/``."""
        probabilities, seen = predict(
            self.model,
            self.validation,
            accelerator,
            batch_size=self.options.evaluate_batch_size,
            num_workers=self.options.num_workers,
        )
        scores = {f"val_{name}": value for name, value in top_scores(probabilities[seen], self.validation.labels[seen]).items()}
        if self.best is None or scores["val_top1"] > self.best:
            self.best = scores["val_top1"]
            if accelerator.is_main_process:
                with whole_folder(out / BEST) as folder:
                    self.save(self.model, folder, out)
                    (folder / SCORES).write_text(json.dumps({"step": step, **scores}, indent=2))
        return scores


def best_score(out: Path) -> float | None:
    """Top-1 accuracy of the best model of a run, in percent; None where there is none yet."""
    path = out / BEST / SCORES
    return float(json.loads(path.read_text())["val_top1"]) if path.is_file() else None


def _mix(options: FinetuneOptions) -> Mix | None:
    if options.mixup and options.cutmix:
        return MixupOrCutMix(Mixup(options.mixup), VideoMix(options.cutmix), options.mix_switch)
    if options.mixup:
        return Mixup(options.mixup)
    return VideoMix(options.cutmix) if options.cutmix else None
