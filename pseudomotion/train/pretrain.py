"""``pmg-pretrain``: pre-train VideoMAE on pseudo-motion clips, real clips, or the paper's comparators."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from pseudomotion import PMG, Mixup, PMGAug, VideoMix
from pseudomotion.baselines import MoSI, PerlinVideo
from pseudomotion.images import ImageFolder
from pseudomotion.images.synthetic import SOURCES
from pseudomotion.mix import Mix
from pseudomotion.plan import PADDING_MODES
from pseudomotion.pmg import RESAMPLINGS
from pseudomotion.source import ImageSource
from pseudomotion.train.data import MultiScaleClips, Subset, WithPartners, normalise, open_images
from pseudomotion.train.loop import RunOptions, Task, make_accelerator, train
from pseudomotion.train.masked import MaskedModeling
from pseudomotion.train.models import IMAGENET_MEAN, IMAGENET_STD, SIZES, model_config, pretraining_model
from pseudomotion.train.mosi import MoSIClips, SpeedClassification
from pseudomotion.train.options import option, parse
from pseudomotion.transforms import TRANSFORMS

CLIPS = ("pmg", "videos", "pmg-aug", "perlin", "mosi")
MIXES = ("none", "mixup", "videomix")
DATA, MOTION, MODEL = "data", "motion", "model"
SPARE = 8 / 7  # side of images over that of frames: 256 for 224


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(RunOptions):
    """Options of ``pmg-pretrain``."""

    clips: str = option(
        "pmg",
        "pmg: pseudo-motion of images; videos: real clips of --videos; pmg-aug: real clips, a share of them replaced by pseudo-motion; "
        "perlin: video Perlin noise; mosi: classify the speed of MoSI clips of images, in place of masked modeling",
        group=DATA,
        choices=CLIPS,
    )
    images: str | None = option(None, "folder of images, or a file written by ImageBank.save", group=DATA)
    source: str | None = option(None, "synthetic images, made as they are needed", group=DATA, choices=tuple(SOURCES))
    videos: str | None = option(None, 'list of videos, lines of "path label"; of each a frame is an image, or see --clips', group=DATA)
    stride: int = option(4, "of real clips, from frame to frame, in frames of the video", group=DATA)
    image_size: int | None = option(None, "side of the images in pixels; None for 8/7 of that of the frames", group=DATA)
    limit: int | None = option(
        None,
        "so many images, from all classes alike; or so many of each of --aug-images, or clips of Perlin noise; None for all",
        group=DATA,
    )
    classes: int | None = option(None, "take the images from so many classes, drawn by --seed; None for all", group=DATA)
    balanced: bool = option(False, "draw images from all classes alike, also where these differ in size", group=DATA)
    bank: bool = option(False, "read all images once and keep them in memory, on the GPU if there is one", group=DATA)

    transforms: tuple[str, ...] = option(("zoom", "affine"), f"what to draw motion from: {', '.join(TRANSFORMS)}", group=MOTION)
    resampling: str = option("recursive", "recursive: frame from frame; composed: each from the image", group=MOTION, choices=RESAMPLINGS)
    padding_mode: str = option("zeros", "what shows outside an image", group=MOTION, choices=PADDING_MODES)
    crop: tuple[float, ...] = option((0.44, 1.0), "area of the first view, a share of the image, between two numbers", group=MOTION)
    mix: str = option("mixup", "how clips are mixed in pairs", group=MOTION, choices=MIXES)
    mix_alpha: float = option(1.0, "of the Beta distribution of mixing weights", group=MOTION)
    partners: str = option(
        "source",
        "where images that clips are mixed with come from: the whole source, so that clips do not depend on the number of processes, "
        "or the batch, in half the time",
        group=MOTION,
        choices=("source", "batch"),
    )
    aug_p: float = option(0.5, "for pmg-aug: share of real clips that is replaced", group=MOTION)
    aug_frames: bool = option(True, "for pmg-aug: make clips of frames of the real clips", group=MOTION)
    aug_images: tuple[str, ...] | None = option(None, "for pmg-aug: make clips of these too: folders or synthetic sources", group=MOTION)

    model: str = option("base", "size of the model", group=MODEL, choices=tuple(SIZES))
    frame_size: int | None = option(None, "side of the frames in pixels; None for the model's: 224, or 64 for tiny", group=MODEL)
    num_frames: int | None = option(None, "frames of a clip; None for the model's: 16, or 8 for tiny", group=MODEL)
    patch_size: int | None = option(None, "side of a token in pixels; None for the model's: 16, or 8 for tiny", group=MODEL)
    mask_ratio: float = option(0.75, "share of the tokens that is hidden", group=MODEL)
    picture_every: int = option(1000, "steps from one picture of reconstructions to the next", group=MODEL, free=True)

    def __post_init__(self) -> None:
        """Check what belongs together."""
        super().__post_init__()
        if self.picture_every < 1:
            raise ValueError(f"picture_every must be at least 1, got {self.picture_every}")
        if len(self.crop) != 2:
            raise ValueError(f"crop must be two numbers, got {self.crop}")
        if self.clips in ("videos", "pmg-aug") and not self.videos:
            raise ValueError(f"--clips {self.clips} needs --videos")
        if self.clips == "pmg-aug" and not (self.aug_frames or self.aug_images):
            raise ValueError("--clips pmg-aug needs --aug-frames or --aug-images to make clips of")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parse(PretrainOptions, "pmg-pretrain", "Pre-train VideoMAE with masked modeling, with no video data at all.", arguments)
    accelerator = make_accelerator(options)
    model = train(make_task(options, accelerator.device), options, "pretrain", accelerator)
    accelerator.print(f"{model}: the model; {options.out}/loss.png, reconstructions.png: how it went")
    return 0


def make_task(options: PretrainOptions, device: torch.device) -> Task:
    """What the options ask to train.

    Raises:
        ValueError, OSError: for options that contradict each other, or files that are not there.

    """
    config = model_config(options.model, frame_size=options.frame_size, num_frames=options.num_frames, patch_size=options.patch_size)
    if options.clips == "mosi":
        clips = MoSIClips(_images(options, config, device), config.num_frames, config.image_size, options.seed)
        config.num_labels = MoSI.num_classes
        classifier = VideoMAEForVideoClassification(config)
        task: Task = SpeedClassification(classifier, clips, weight_decay=options.weight_decay, evaluate_every=options.picture_every)
    else:
        source, make_clips = _clips(options, config, device)
        task = MaskedModeling(
            pretraining_model(config),
            source,
            make_clips,
            mask_ratio=options.mask_ratio,
            weight_decay=options.weight_decay,
            seed=options.seed,
            evaluate_every=options.picture_every,
        )
    task.reads_files = _reads_files(options, device)
    return task


def _reads_files(options: PretrainOptions, device: torch.device) -> bool:
    """Whether workers may read the source: what lies on a GPU, or is made there, does not cross to another process."""
    in_memory = options.bank or (options.images is not None and Path(options.images).is_file())
    made_on_gpu = device.type != "cpu" and (options.source is not None or options.clips == "perlin")
    return not (in_memory or made_on_gpu)


def _clips(
    options: PretrainOptions, config: VideoMAEConfig, device: torch.device
) -> tuple[ImageSource, Callable[[Tensor, Tensor], Tensor]]:
    """What to read, and how clips are made of it."""
    size, frames, seed = config.image_size, config.num_frames, options.seed
    if options.clips == "perlin":
        noise = PerlinVideo(num_frames=frames, size=size, seed=seed, device=device)
        return _Looped(noise, options.limit), lambda clips, ids: normalise(clips)
    mix = {"none": None, "mixup": Mixup(options.mix_alpha), "videomix": VideoMix(options.mix_alpha)}[options.mix]
    if options.clips == "pmg":
        pmg = _pmg(options, config, mix, mean=IMAGENET_MEAN, std=IMAGENET_STD, dtype=torch.float32, data_format="BTCHW")
        images = _images(options, config, device)
        if options.partners == "batch" or (mix is None and all(transform.num_layers == 0 for transform in pmg.transforms)):
            return images, lambda items, ids: pmg(items, ids=ids)
        return WithPartners(images, seed), lambda items, ids: pmg(items[:, 0], ids=ids, partner_images=items[:, 1])
    videos = MultiScaleClips(str(options.videos), frames, options.stride, size, seed=seed)
    if options.clips == "videos":
        return videos, lambda clips, ids: normalise(clips)
    aug = PMGAug(_pmg(options, config, mix), options.aug_p, images=_aug_images(options, size, device))
    return videos, lambda clips, ids: normalise(aug(clips, ids=ids)[0])


def _pmg(options: PretrainOptions, config: VideoMAEConfig, mix: Mix | None, **output: Any) -> PMG:
    """The generator that the options describe."""
    return PMG(
        options.transforms,
        config.num_frames,
        config.image_size,
        resampling=options.resampling,
        padding_mode=options.padding_mode,
        crop=(options.crop[0], options.crop[1]),
        mix=mix,
        seed=options.seed,
        **output,
    )


def _images(options: PretrainOptions, config: VideoMAEConfig, device: torch.device) -> ImageSource:
    return open_images(
        images=options.images,
        source=options.source,
        videos=options.videos,
        size=options.image_size or round(config.image_size * SPARE),
        limit=options.limit,
        classes=options.classes,
        balanced=options.balanced,
        bank=options.bank,
        seed=options.seed,
        device=device,
        num_workers=options.num_workers,
    )


def _aug_images(options: PretrainOptions, size: int, device: torch.device) -> dict[ImageSource | str, float]:
    """What pseudo-motion among real clips is made of, each kind as often as the others."""
    kinds: dict[ImageSource | str, float] = {"frames": 1.0} if options.aug_frames else {}
    for entry in options.aug_images or ():
        images: ImageSource = SOURCES[entry](size=size, device=device) if entry in SOURCES else ImageFolder(entry, size)
        kinds[images if options.limit is None else Subset(images, options.limit, options.seed)] = 1.0
    return kinds


class _Looped:
    """Labelled clips without the labels, whose ids go on for ever: the first ones, which are of all classes alike."""

    def __init__(self, clips: PerlinVideo, limit: int | None) -> None:
        if limit is not None and not 0 < limit <= len(clips):
            raise ValueError(f"limit must be from 1 to the {len(clips)} clips there are, got {limit}")
        self.clips, self.limit = clips, limit or len(clips)

    def __len__(self) -> int:
        return self.limit

    def get(self, ids: Tensor) -> Tensor:
        return self.clips.get(ids % self.limit)[0]
