"""The options of ``pmg-pretrain``, ``pmg-finetune`` and ``pmg-evaluate``, in groups that the commands share.

This module imports nothing heavy: the commands answer ``--help`` and mistakes from it, before torch is imported. Options that mean nothing
alone, or contradict each other, are refused here; what needs a file or a model to judge is refused where these are read.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pseudomotion import command, names
from pseudomotion.train.engine.options import Options, interval, option

MODELS = ("micro", "mini", "tiny", "small", "base", "large", "huge")  # sizes; a test compares them with those of the models

# Options that may change when a run is resumed, since they do not touch what is computed, or only prolong it.
_ANY_TIME = "out resume epochs max_steps accumulate gradient_checkpointing num_workers compile cpu save_every keep log_every log_with"
FREE = frozenset(_ANY_TIME.split())


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(Options):
    """How a command computes."""

    group: ClassVar[str] = "computing"

    batch_size: int = option(32, help="clips at a time, per process", least=1)
    num_workers: int = option(0, help="processes that read files, per training process", least=0)
    precision: Literal["no", "bf16", "fp16"] = option("no", help="no: float32; bf16, fp16: autocast")
    cpu: bool = option(False, help="compute on the CPU even if there is a GPU")


@dataclass(frozen=True, kw_only=True)
class RunOptions(ComputeOptions):
    """A training run: its length, its log, its checkpoints."""

    group: ClassVar[str] = "run"

    out: str = option(help="folder of the run", metavar="FOLDER")
    resume: bool = option(False, help="go on from the newest good checkpoint in --out, with its options; begin where there is none")
    epochs: int = option(2000, help="length of the run; an epoch shows every item once; may grow on --resume", least=1)
    max_steps: int | None = option(None, help="length of the run in steps, instead of --epochs; may grow on --resume", least=1)
    batch_size: int = option(192, help="clips per step, over all processes and gradient accumulation steps", least=1)
    accumulate: int = option(1, help="gradient accumulation steps, to save memory", least=1)
    gradient_checkpointing: bool = option(False, help="recompute activations in the backward pass, to save memory")
    seed: int = option(0, help="of weights, order, motion, masks and dropout")
    tf32: bool = option(True, help="TF32 for float32 matrix products on GPUs that have it")
    compile: bool = option(False, help="compile the model with torch.compile")
    save_every: str = option("1000", help="steps from checkpoint to checkpoint, or minutes, such as 15m", metavar="N")
    keep: int = option(2, help="checkpoints that are kept", least=1)
    log_every: int = option(10, help="steps from one row of the log to the next", least=1)
    log_with: list[str] | None = option(["tensorboard"], help="trackers of accelerate, such as wandb; none: metrics.jsonl", metavar="NAME")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.out:
            raise ValueError('out must be a folder, got ""')
        interval(self.save_every)


@dataclass(frozen=True, kw_only=True)
class OptimizationOptions(Options):
    """The optimizer, AdamW, and the schedule of its learning rate."""

    group: ClassVar[str] = "optimization"

    base_lr: float = option(1.5e-4, help="learning rate for 256 clips a step; it grows with --batch-size", metavar="RATE", above=0)
    min_lr: float = option(1e-5, help="what the learning rate falls to, for 256 clips a step", metavar="RATE")
    warmup_epochs: float = option(40.0, help="epochs in which the learning rate rises from 0, a tenth of the run at most", metavar="N")
    weight_decay: float = option(0.05, help="of all weights but biases, norms and the mask token")
    betas: list[float] = option([0.9, 0.95], help="of AdamW, two numbers", length=2, least=0, below=1)
    clip_grad: float | None = option(None, help="largest norm of the gradient; none for any", metavar="NORM", above=0)
    ema: float | None = option(None, help="decay of a moving average of the weights, kept as average/", above=0, below=1)


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """The model, and the size of its clips."""

    group: ClassVar[str] = "model"

    init: str | None = option(
        None,
        help="start from a model: a run, a folder of save_pretrained, owner/name on the Hugging Face Hub, or VideoMAE's .pth file",
        metavar="MODEL",
    )
    model: str | None = option(None, help=f"{', '.join(MODELS)}; none for base, or that of --init", choices=MODELS, metavar="SIZE")
    frame_size: int | None = option(None, help="side of the frames; none for the model's: 224, or 64 for tiny", metavar="PX", least=1)
    num_frames: int | None = option(None, help="frames of a clip; none for the model's: 16, or 8 for tiny", metavar="T", least=1)
    patch_size: int | None = option(None, help="side of a token in pixels; none for the model's: 16, or 8 for tiny", metavar="PX", least=1)

    def __post_init__(self) -> None:
        """Refuse sizes of a new model beside ``init``, where they would have no effect."""
        super().__post_init__()
        for name in ("model", "patch_size"):
            if self.init is not None and (value := getattr(self, name)) is not None:
                raise ValueError(f"{name} must be left out with init, whose model has its own, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class ClipOptions(Options):
    """What clips are made of."""

    group: ClassVar[str] = "data"

    clips: Literal["pmg", "videos", "pmg-aug", "perlin", "mosi"] = option(
        "pmg",
        help="pmg: pseudo-motion of images; videos: real clips of --videos; pmg-aug: real clips, some of them replaced by pseudo-motion; "
        "perlin: video Perlin noise; mosi: classify the speed of MoSI clips of images, instead of masked modeling",
        metavar="KIND",
    )
    images: list[str] | None = option(
        None,
        help="one or more of: a folder of images; a bank file of pmg-bank; tar shards such as shards-{000..099}.tar; a dataset of Hugging "
        "Face, hf:name or hf:name:split, or the folder of one saved to disk",
        metavar="SOURCE",
    )
    source: str | None = option(None, help=f"synthetic images: {', '.join(names.SOURCES)}", choices=names.SOURCES, metavar="NAME")
    videos: str | None = option(None, help='lines of "path label"; a frame of each video is an image, or see --clips', metavar="LIST")
    stride: int = option(4, help="of real clips, from frame to frame, in frames of the video", least=1)
    image_size: int | None = option(None, help="side of the images in pixels; none for 8/7 of that of the frames", metavar="PX", least=1)
    limit: int | None = option(None, help="images, from all classes alike; or of each of --aug-images; or noise clips", least=1)
    classes: int | None = option(None, help="take the images from this many classes, drawn by --seed; none for all", least=1)
    balanced: bool = option(False, help="draw images from all classes alike, also where these differ in size")
    bank: bool = option(False, help="read all images once and keep them in memory, on the GPU if there is one")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clips in ("videos", "pmg-aug") and not self.videos:
            raise ValueError(f"--clips {self.clips} needs --videos")
        if self.clips == "videos" and (unused := [name for name in ("limit", "classes", "balanced") if getattr(self, name)]):
            raise ValueError(f"--{unused[0]} chooses images; --clips videos takes whole videos")


@dataclass(frozen=True, kw_only=True)
class MotionOptions(Options):
    """How images become clips."""

    group: ClassVar[str] = "motion"

    transforms: list[str] = option(["zoom", "affine"], help=f"drawn from for each clip: {', '.join(names.TRANSFORMS)}", metavar="NAME")
    strength: float = option(1.0, help="factor on the motion of zoom and affine from frame to frame (not from the paper)")
    resampling: str = option("recursive", help="recursive: frame from frame; composed: each from the image", choices=names.RESAMPLINGS)
    padding_mode: str = option("zeros", help="what shows outside an image", choices=names.PADDING_MODES)
    crop: list[float] = option([0.44, 1.0], help="smallest and largest share of the image in the first view", length=2)
    mix: Literal["none", "mixup", "videomix"] = option("mixup", help="how clips are mixed in pairs")
    mix_alpha: float = option(1.0, help="of the Beta distribution of mixing weights")
    partners: Literal["source", "batch"] = option(
        "source", help="of mixed clips: from the source, whatever the number of processes; or from the batch, in half the time"
    )
    objects: str | None = option(
        None,
        help=f"that move over the clips: {', '.join(names.OBJECTS)} (not from the paper); none for no objects",
        choices=names.OBJECTS,
        metavar="NAME",
    )
    textures: list[str] | None = option(
        None,
        help="what objects show: as --images, but no streams, or a synthetic source; cutouts need images with alpha, such as PNG files; "
        "none for the images themselves",
        metavar="SOURCE",
    )
    num_textures: int = option(256, help="images that objects show parts of, chosen by --seed, at most", least=1)
    aug_p: float = option(0.5, help="for pmg-aug: share of real clips that is replaced", metavar="P")
    aug_frames: bool = option(True, help="for pmg-aug: make clips of frames of the real clips")
    aug_images: list[str] | None = option(None, help="for pmg-aug: make clips of these too: folders or synthetic sources", metavar="SOURCE")

    def __post_init__(self) -> None:
        super().__post_init__()
        command.check_textures(self.objects, self.textures)
        if self.objects is not None and "cutmix" in self.transforms:
            raise ValueError("--objects cannot be combined with --transforms cutmix, which paints objects of its own")


@dataclass(frozen=True, kw_only=True)
class MaskedModelOptions(ModelOptions):
    """The masked autoencoder."""

    mask_ratio: float = option(0.75, help="share of the tokens that is hidden")
    picture_every: int = option(1000, help="steps from one picture of reconstructions to the next", least=1)


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(ClipOptions, MotionOptions, MaskedModelOptions, RunOptions, OptimizationOptions):
    """Options of ``pmg-pretrain``."""

    free: ClassVar[frozenset[str]] = FREE | {"picture_every"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objects is not None and self.clips not in ("pmg", "pmg-aug"):
            raise ValueError(f"--objects move over pseudo-motion, which --clips {self.clips} does not make")
        if self.clips == "mosi" and self.init:
            raise ValueError("--clips mosi takes no --init")
        if self.clips == "pmg-aug" and not (self.aug_frames or self.aug_images):
            raise ValueError("--clips pmg-aug needs --aug-frames or --aug-images to make clips of")


@dataclass(frozen=True, kw_only=True)
class VideoOptions(Options):
    """The videos that are trained and measured on."""

    group: ClassVar[str] = "data"

    train: str = option(help='list of videos to train on, lines of "path label"', metavar="LIST")
    val: str = option(help="list of videos to measure on while training", metavar="LIST")
    classes: str | None = option(None, help="file with the names of the classes, one a line, to be saved with the model", metavar="FILE")
    shots: int | None = option(None, help="train on this many videos of each class, drawn by --seed; none for all")
    sampling: Literal["dense", "segments"] = option(
        "dense", help="dense: frames at an even stride from some place; segments: one from each of num_frames equal parts"
    )
    stride: int = option(4, help="frames of the video from one frame of a dense clip to the next")
    evaluate_every: float = option(10.0, help="epochs from one measurement on --val to the next", metavar="N", above=0)
    evaluate_batch_size: int = option(32, help="clips at a time in a measurement, per process", least=1)


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(ModelOptions):
    """The classifier."""

    linear_probe: bool = option(
        False,
        help="train a linear layer on the frozen encoder: no stochastic depth, dropout, mixing, RandAugment, erasing, label smoothing, "
        "copies or weight decay, unless they are asked for",
    )
    head_scale: float = option(0.001, help="factor on the head's first weights")
    layer_decay: float = option(0.7, help="factor of the learning rate from each layer to the one before it", above=0, most=1)


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions(Options):
    """How clips are augmented, and the model regularized."""

    group: ClassVar[str] = "augmentation"

    copies: int = option(2, help="augmentations of each clip that is read (repeated augmentation)")
    crop: list[float] = option([0.08, 1.0], help="least and greatest share of the frame", length=2, above=0, most=1)
    flip: float = option(0.5, help="probability to swap left and right; 0 for Something-Something", metavar="P", least=0, most=1)
    randaugment: int = option(4, help="operations of RandAugment, each done with a probability of 0.5; 0 for none", least=0)
    magnitude: float = option(7.0, help="mean strength of RandAugment, from 0 to 10", least=0, most=10)
    magnitude_std: float = option(0.5, help="standard deviation of the strength of RandAugment", least=0, most=10)
    erasing: float = option(0.25, help="probability to replace a box of a clip by noise", metavar="P", least=0, most=1)
    mixup: float = option(0.8, help="alpha of mixup; 0 for none")
    cutmix: float = option(1.0, help="alpha of CutMix, one box for all frames; 0 for none")
    mix_switch: float = option(0.5, help="probability of CutMix instead of mixup", metavar="P", least=0, most=1)
    drop_path: float = option(0.2, help="probability of stochastic depth in the last block", metavar="P")
    head_dropout: float = option(0.5, help="probability of dropout before the head", metavar="P")
    label_smoothing: float = option(0.1, help="share of every label that goes to all classes alike", least=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop[0] > self.crop[1]:
            raise ValueError(f"crop must be the smallest share and the largest, got {self.crop}")


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(VideoOptions, ClassifierOptions, AugmentationOptions, RunOptions, OptimizationOptions):
    """Options of ``pmg-finetune``; the defaults are VideoMAE's for UCF101."""

    epochs: int = option(100, help="length of the run; an epoch shows every video once, in --copies", least=1)
    batch_size: int = option(128, help="videos per step, over all processes; --copies multiply the clips", least=1)
    base_lr: float = option(5e-4, help="learning rate for 256 videos a step; it grows with --batch-size", metavar="RATE", above=0)
    warmup_epochs: float = option(5.0, help="epochs in which the learning rate rises from 0, a tenth of the run at most", metavar="N")
    betas: list[float] = option([0.9, 0.999], help="of AdamW, two numbers", length=2, least=0, below=1)

    free: ClassVar[frozenset[str]] = FREE | {"evaluate_batch_size"}
    # As DINO and MAE probe: crops and flips alone, and nothing that regularizes a whole network.
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "linear_probe": dict.fromkeys(("mixup", "cutmix", "erasing", "drop_path", "head_dropout", "label_smoothing", "weight_decay"), 0.0)
        | {"randaugment": 0, "copies": 1, "head_scale": 1.0}
    }


@dataclass(frozen=True, kw_only=True)
class TestOptions(Options):
    """What is tested."""

    group: ClassVar[str] = "test"

    run: str = option(help="folder of a run of pmg-finetune, or of a classifier that transformers saved", metavar="RUN")
    test: str = option(help='list of videos, lines of "path label"', metavar="LIST")
    clips: int = option(5, help="clips of every video, evenly placed in time")
    crops: int = option(3, help="crops of every clip, evenly placed along the long side of the frame")
    weights: Literal["model", "best", "average"] = option(
        "model", help="of a run: model, after the last step; best, of the best measurement on --val; average, of --ema"
    )
    sampling: Literal["dense", "segments"] | None = option(None, help="as in pmg-finetune; none for that of the run, else dense")
    stride: int | None = option(None, help="frames from one of a dense clip to the next; none for that of the run, else 4")
    out: str | None = option(None, help="JSON file for the result; none for test.json in the run's folder", metavar="FILE")
    force: bool = option(False, help="replace an existing --out that no pmg command made")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(TestOptions, ComputeOptions):
    """Options of ``pmg-evaluate``."""

    positional: ClassVar[str] = "run"
