"""``pmg-finetune``: fine-tune a pre-trained VideoMAE to classify videos, all of them or a few of each class; or train one from scratch.

The defaults are VideoMAE's for UCF101.
"""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from pseudomotion.mix import Mix, Mixup, VideoMix
from pseudomotion.train.engine.loop import OPTIMISATION, RUN, RunOptions, make_accelerator, train
from pseudomotion.train.engine.options import option, parse
from pseudomotion.train.video.augment import ClipAugmentation, RandomErasing
from pseudomotion.train.video.randaugment import RandAugment
from pseudomotion.train.video.views import SAMPLINGS, EvaluationViews, Sampling, TrainingViews, low_shot
from pseudomotion.train.videomae.classification import BEST, Classification, MixupOrCutMix, best_score
from pseudomotion.train.videomae.classifier import classification_model, freeze_encoder
from pseudomotion.train.videomae.model import SIZES, model_config
from pseudomotion.video.list_file import read_list

DATA, MODEL, AUGMENTATION, REGULARISATION = "data", "model", "augmentation", "regularisation"
NONE = "none"


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(RunOptions):
    """Options of ``pmg-finetune``."""

    train: str = option(MISSING, 'list of videos to train on, lines of "path label"', group=DATA)
    val: str = option(MISSING, "list of videos to measure on while training", group=DATA)
    classes: str | None = option(None, "file with the names of the classes, one a line, to be saved with the model", group=DATA)
    shots: int | None = option(None, "train on so many videos of each class, drawn by --seed; None for all", group=DATA)
    sampling: str = option(
        "dense",
        "dense: frames at an even stride from some place of the video; segments: a frame from each of as many equal parts of the video",
        group=DATA,
        choices=SAMPLINGS,
    )
    stride: int = option(4, "frames of the video from one frame of a dense clip to the next", group=DATA)
    evaluate_every: float = option(10.0, "epochs from one measurement on --val to the next", group=DATA)
    evaluate_batch_size: int = option(32, "clips at a time in a measurement, per process", group=DATA, free=True)

    init: str = option(NONE, "pre-trained model: a run, or a folder of transformers' save_pretrained; none: from scratch", group=MODEL)
    model: str = option("base", "size of the model; this and the next three count from scratch only", group=MODEL, choices=tuple(SIZES))
    frame_size: int | None = option(None, "side of the frames in pixels; None for the model's: 224, or 64 for tiny", group=MODEL)
    num_frames: int | None = option(None, "frames of a clip; None for the model's: 16, or 8 for tiny", group=MODEL)
    patch_size: int | None = option(None, "side of a token in pixels; None for the model's: 16, or 8 for tiny", group=MODEL)
    linear_probe: bool = option(False, "train the norm and the head after the encoder only", group=MODEL)
    head_scale: float = option(0.001, "factor on the head's first weights", group=MODEL)

    copies: int = option(2, "augmentations of each clip that is read (repeated augmentation)", group=AUGMENTATION)
    crop: tuple[float, ...] = option((0.08, 1.0), "smallest and largest share of the frame that is cut out", group=AUGMENTATION)
    flip: float = option(0.5, "probability to swap left and right; 0 for Something-Something", group=AUGMENTATION)
    randaugment: int = option(4, "operations of RandAugment, each done with a probability of 0.5; 0 for none", group=AUGMENTATION)
    magnitude: float = option(7.0, "mean strength of RandAugment, from 0 to 10", group=AUGMENTATION)
    magnitude_std: float = option(0.5, "standard deviation of the strength of RandAugment", group=AUGMENTATION)
    erasing: float = option(0.25, "probability to replace a box of a clip by noise", group=AUGMENTATION)
    mixup: float = option(0.8, "alpha of mixup; 0 for none", group=AUGMENTATION)
    cutmix: float = option(1.0, "alpha of CutMix, one box for all frames; 0 for none", group=AUGMENTATION)
    mix_switch: float = option(0.5, "probability of CutMix in place of mixup", group=AUGMENTATION)

    drop_path: float = option(0.2, "probability of stochastic depth in the last block", group=REGULARISATION)
    head_dropout: float = option(0.5, "probability of dropout before the head", group=REGULARISATION)
    label_smoothing: float = option(0.1, "share of every label that goes to all classes alike", group=REGULARISATION)

    epochs: int = option(100, "length of the run; an epoch shows every video once, in --copies", group=RUN)
    batch_size: int = option(128, "videos per step, over all processes and accumulated parts; --copies come on top", group=RUN)
    base_lr: float = option(5e-4, "learning rate for 256 videos a step; it grows with --batch-size", group=OPTIMISATION)
    warmup_epochs: float = option(5.0, "epochs in which the learning rate rises from 0, a tenth of the run at most", group=OPTIMISATION)
    betas: tuple[float, ...] = option((0.9, 0.999), "of AdamW, two numbers", group=OPTIMISATION)
    layer_decay: float = option(0.7, "factor of the learning rate from each layer to the one before it", group=OPTIMISATION)

    def __post_init__(self) -> None:
        """Check the numbers that nothing else checks."""
        super().__post_init__()
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


def make_task(options: FinetuneOptions) -> Classification:
    """What the options ask to train.

    Raises:
        OSError: for files that are not there.
        ValueError: for lists that do not fit together, or options that something does not take.

    """
    videos, validation = read_list(options.train), read_list(options.val)
    names = _class_names(options.classes)
    num_classes = len(names) if names else 1 + max(label for _, label in videos)
    for list_file, entries in ((options.train, videos), (options.val, validation)):
        if (largest := max(label for _, label in entries)) >= num_classes:
            raise ValueError(f"{list_file} must have classes from 0 to {num_classes - 1}, it has {largest}")
    init = (
        model_config(options.model, frame_size=options.frame_size, num_frames=options.num_frames, patch_size=options.patch_size)
        if options.init == NONE
        else options.init
    )
    model = classification_model(
        init,
        num_classes,
        drop_path=options.drop_path,
        head_dropout=options.head_dropout,
        head_scale=options.head_scale,
        class_names=names,
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


def _class_names(path: str | None) -> list[str] | None:
    return None if path is None else [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def _mix(options: FinetuneOptions) -> Mix | None:
    if options.mixup and options.cutmix:
        return MixupOrCutMix(Mixup(options.mixup), VideoMix(options.cutmix), options.mix_switch)
    if options.mixup:
        return Mixup(options.mixup)
    return VideoMix(options.cutmix) if options.cutmix else None
