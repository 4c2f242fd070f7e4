"""``pmg-finetune``: fine-tune a pre-trained VideoMAE to classify videos, all of them or a few of each class; or train one from scratch.

The defaults are VideoMAE's for UCF101.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, VideoMAEForVideoClassification
from transformers.hf_argparser import HfArg

from pseudomotion.draws import Draws
from pseudomotion.files import whole_folder
from pseudomotion.mix import Mix, Mixup, VideoMix, mix_targets
from pseudomotion.train.engine.loop import Task, make_accelerator, train
from pseudomotion.train.engine.optimize import parameter_groups
from pseudomotion.train.engine.options import FREE, OptimizationOptions, RunOptions, check_groups, parse
from pseudomotion.train.evaluate import predict, top_scores
from pseudomotion.train.video.augment import ClipAugmentation, MixupOrCutMix, RandomErasing, smooth_labels
from pseudomotion.train.video.randaugment import RandAugment
from pseudomotion.train.video.views import EvaluationViews, LabelledViews, Sampling, TrainingViews, low_shot, view_ids
from pseudomotion.train.videomae.classifier import ClassifierLoss, classification_model, freeze_encoder, layer_scale
from pseudomotion.train.videomae.hub import save_for_hub
from pseudomotion.train.videomae.model import SIZES, model_config, normalize, training_flops
from pseudomotion.train.videomae.pretrained import check_init
from pseudomotion.video.list_file import read_lines, read_list

BEST, SCORES = "best", "scores.json"


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What is trained and measured on."""

    _argument_group_name: ClassVar[str] = "data"

    train: str = HfArg(help='list of videos to train on, lines of "path label"')
    val: str = HfArg(help="list of videos to measure on while training")
    classes: str | None = HfArg(default=None, help="file with the names of the classes, one a line, to be saved with the model")
    shots: int | None = HfArg(default=None, help="train on this many videos of each class, drawn by --seed; none for all")
    sampling: Literal["dense", "segments"] = HfArg(
        default="dense",
        help="dense: frames at an even stride from some place of the video; segments: one frame from each of num_frames equal parts",
    )
    stride: int = HfArg(default=4, help="frames of the video from one frame of a dense clip to the next")
    evaluate_every: float = HfArg(default=10.0, help="epochs from one measurement on --val to the next")
    evaluate_batch_size: int = HfArg(default=32, help="clips at a time in a measurement, per process")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What is fine-tuned."""

    _argument_group_name: ClassVar[str] = "model"

    init: str | None = HfArg(
        default=None,
        help="start from a model: a run, a folder that save_pretrained wrote, owner/name on the Hugging Face Hub, or a .pth file of "
        "VideoMAE's code; none: new weights",
    )
    model: str | None = HfArg(default=None, help="size of the model; none for base, or that of --init", metadata={"choices": tuple(SIZES)})
    frame_size: int | None = HfArg(default=None, help="side of the frames in pixels; none for the model's: 224, or 64 for tiny")
    num_frames: int | None = HfArg(default=None, help="frames of a clip; none for the model's: 16, or 8 for tiny")
    patch_size: int | None = HfArg(default=None, help="side of a token in pixels; none for the model's: 16, or 8 for tiny")
    linear_probe: bool = HfArg(
        default=False,
        help="train a linear layer on the frozen encoder: no stochastic depth, dropout, mixing, RandAugment, erasing, label smoothing, "
        "copies or weight decay, unless they are asked for",
    )
    head_scale: float = HfArg(default=0.001, help="factor on the head's first weights")


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions:
    """How clips are augmented, and the model regularized."""

    _argument_group_name: ClassVar[str] = "augmentation"

    copies: int = HfArg(default=2, help="augmentations of each clip that is read (repeated augmentation)")
    crop: list[float] = HfArg(default_factory=lambda: [0.08, 1.0], help="smallest and largest share of the frame that is cut out")
    flip: float = HfArg(default=0.5, help="probability to swap left and right; 0 for Something-Something")
    randaugment: int = HfArg(default=4, help="operations of RandAugment, each done with a probability of 0.5; 0 for none")
    magnitude: float = HfArg(default=7.0, help="mean strength of RandAugment, from 0 to 10")
    magnitude_std: float = HfArg(default=0.5, help="standard deviation of the strength of RandAugment")
    erasing: float = HfArg(default=0.25, help="probability to replace a box of a clip by noise")
    mixup: float = HfArg(default=0.8, help="alpha of mixup; 0 for none")
    cutmix: float = HfArg(default=1.0, help="alpha of CutMix, one box for all frames; 0 for none")
    mix_switch: float = HfArg(default=0.5, help="probability of CutMix instead of mixup")
    drop_path: float = HfArg(default=0.2, help="probability of stochastic depth in the last block")
    head_dropout: float = HfArg(default=0.5, help="probability of dropout before the head")
    label_smoothing: float = HfArg(default=0.1, help="share of every label that goes to all classes alike")


@dataclass(frozen=True, kw_only=True)
class FinetuneRunOptions(RunOptions):
    """The run; an epoch shows every video once, in --copies, and a batch counts videos."""

    epochs: int = HfArg(default=100, help="length of the run; an epoch shows every video once, in --copies; may grow on --resume")
    batch_size: int = HfArg(
        default=128, help="videos per step, over all processes and gradient accumulation steps; --copies multiply the clips"
    )


@dataclass(frozen=True, kw_only=True)
class FinetuneOptimizationOptions(OptimizationOptions):
    """The optimizer."""

    base_lr: float = HfArg(default=5e-4, help="learning rate for 256 videos a step; it grows with --batch-size")
    warmup_epochs: float = HfArg(default=5.0, help="epochs in which the learning rate rises from 0, a tenth of the run at most")
    betas: list[float] = HfArg(default_factory=lambda: [0.9, 0.999], help="of AdamW, two numbers")
    layer_decay: float = HfArg(default=0.7, help="factor of the learning rate from each layer to the one before it")


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(DataOptions, ModelOptions, AugmentationOptions, FinetuneRunOptions, FinetuneOptimizationOptions):
    """Options of ``pmg-finetune``."""

    free: ClassVar[frozenset[str]] = FREE | {"evaluate_batch_size"}
    # As DINO and MAE probe: crops and flips alone, and nothing that regularizes a whole network.
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "linear_probe": dict.fromkeys(("mixup", "cutmix", "erasing", "drop_path", "head_dropout", "label_smoothing", "weight_decay"), 0.0)
        | {"randaugment": 0, "copies": 1, "head_scale": 1.0}
    }

    def __post_init__(self) -> None:
        """Check the numbers that nothing else checks."""
        check_groups(self)
        check_init(self)
        if len(self.crop) != 2:
            raise ValueError(f"crop must be two numbers, got {self.crop}")
        if self.evaluate_every <= 0 or self.evaluate_batch_size < 1:
            raise ValueError(
                f"evaluate_every must be above 0, evaluate_batch_size at least 1, got {self.evaluate_every}, {self.evaluate_batch_size}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be from 0 to less than 1, got {self.label_smoothing}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0, 1 at most, got {self.layer_decay}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parse(FinetuneOptions, "pmg-finetune", "Fine-tune VideoMAE to classify videos.", arguments)
    accelerator = make_accelerator(options)
    task = make_task(options)
    model = train(task, options, "finetune", accelerator)
    best = "" if task.best is None else f"{options.out}/{BEST}: the best on --val, with {task.best:.1f} % top-1; "
    accelerator.print(f"{model}: the model; {best}{options.out}/loss.png: how it went")
    return 0


def make_task(options: FinetuneOptions) -> "Classification":
    """What the options ask to train.

    Raises:
        OSError: for files that are not there.
        ValueError: for lists that do not fit together, or options that something does not take.

    """
    videos, validation = read_list(options.train), read_list(options.val)
    names = None if options.classes is None else read_class_names(options.classes)
    num_classes = len(names) if names else 1 + max(label for _, label in videos)
    for list_file, entries in ((options.train, videos), (options.val, validation)):
        labels = [label for _, label in entries]
        if min(labels) < 0:
            raise ValueError(
                f'{list_file} must have lines of "path label", with a class from 0 for every video; {sum(k < 0 for k in labels)} have none'
            )
        if max(labels) >= num_classes:
            raise ValueError(f"{list_file} must have classes from 0 to {num_classes - 1}, it has {max(labels)}")
    init = (
        model_config(options.model or "base", frame_size=options.frame_size, num_frames=options.num_frames, patch_size=options.patch_size)
        if options.init is None
        else options.init
    )
    model = classification_model(
        init,
        num_classes,
        drop_path=options.drop_path,
        head_dropout=options.head_dropout,
        head_scale=options.head_scale,
        class_names=names,
        frame_size=options.frame_size,
        num_frames=options.num_frames,
    )
    if options.linear_probe:
        freeze_encoder(model)
    sampling = Sampling(model.config.num_frames, options.sampling, options.stride)
    chosen = videos if options.shots is None else low_shot(videos, options.shots, options.seed)
    size = model.config.image_size
    randaugment = RandAugment(options.randaugment, options.magnitude, options.magnitude_std)
    augmentation = ClipAugmentation(size, area=(options.crop[0], options.crop[1]), flip=options.flip, randaugment=randaugment)
    return Classification(
        model,
        TrainingViews(chosen, sampling, augmentation, copies=options.copies, seed=options.seed),
        EvaluationViews(validation, sampling, size),
        erasing=RandomErasing(options.erasing),
        mix=_mix(options),
        label_smoothing=options.label_smoothing,
        layer_decay=options.layer_decay,
        weight_decay=options.weight_decay,
        seed=options.seed,
        evaluate_every=max(1, round(options.evaluate_every * len(chosen) / options.batch_size)),
        batch_size=options.evaluate_batch_size,
        num_workers=options.num_workers,
        best=best_score(Path(options.out)) if options.resume else None,
    )


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
        self.model, self.objective, self.source, self.validation = model, ClassifierLoss(model), source, validation
        self.erasing, self.mix, self.label_smoothing = erasing, mix, label_smoothing
        self.layer_decay, self.weight_decay, self.seed = layer_decay, weight_decay, seed
        self.evaluate_every, self.batch_size, self.num_workers = evaluate_every, batch_size, num_workers
        self.best = best
        self.flops = source.copies * training_flops(model.config)

    def groups(self) -> list[dict[str, Any]]:
        """Lower learning rates for earlier layers."""
        layers = self.model.config.num_hidden_layers
        return parameter_groups(self.model, self.weight_decay, lambda name: layer_scale(name, layers, self.layer_decay))

    def inputs(self, items: LabelledViews, ids: Tensor, device: torch.device) -> LabelledPixels:
        """All copies of all videos as one batch: normalised, erased, mixed, on the device."""
        copies, num_classes = items.clips.shape[1], self.model.config.num_labels
        each = view_ids(ids, copies)
        pixels = self.erasing(normalize(items.clips.flatten(0, 1).to(device, non_blocking=True)), Draws(self.seed, each))
        targets = smooth_labels(items.labels.repeat_interleave(copies), num_classes, self.label_smoothing)
        if self.mix is not None:
            pixels, info = self.mix(pixels, ids=each, seed=self.seed, data_format="BTCHW")
            targets = mix_targets(targets, info, num_classes)
        return LabelledPixels(pixels, targets.to(device, non_blocking=True))

    def save(self, model: PreTrainedModel, folder: Path, out: Path) -> None:
        """Write a model, ready for the Hugging Face Hub."""
        save_for_hub(model, folder, out)

    def evaluate(self, accelerator: Accelerator, out: Path, step: int) -> dict[str, float]:
        """Accuracy on the validation videos, in percent; a model better than all before is kept as ``best/``."""
        probabilities, seen = predict(self.model, self.validation, accelerator, batch_size=self.batch_size, num_workers=self.num_workers)
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


def read_class_names(path: str | Path) -> list[str]:
    """The names of the classes in a text file, one a line; empty lines do not count."""
    return [line.strip() for line in read_lines(Path(path)) if line.strip()]


def _mix(options: FinetuneOptions) -> Mix | None:
    if options.mixup and options.cutmix:
        return MixupOrCutMix(Mixup(options.mixup), VideoMix(options.cutmix), options.mix_switch)
    if options.mixup:
        return Mixup(options.mixup)
    return VideoMix(options.cutmix) if options.cutmix else None
