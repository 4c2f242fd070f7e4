"""``pmg-pretrain``: pre-train VideoMAE on pseudo-motion clips, real clips, or the paper's comparators."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, VideoMAEConfig, VideoMAEForPreTraining
from transformers.hf_argparser import HfArg

from pseudomotion import PMG, Mixup, PMGAug, VideoMix
from pseudomotion.draws import Draws
from pseudomotion.images import ImageFolder
from pseudomotion.images.synthetic import SOURCES
from pseudomotion.mix import Mix
from pseudomotion.plan import PADDING_MODES
from pseudomotion.pmg import RESAMPLINGS
from pseudomotion.source import ImageSource
from pseudomotion.train.comparators import PerlinClips, make_mosi_task
from pseudomotion.train.engine.loop import Task, make_accelerator, train
from pseudomotion.train.engine.optimize import parameter_groups
from pseudomotion.train.engine.options import FREE, OptimizationOptions, RunOptions, check_groups, parse
from pseudomotion.train.sources import MultiScaleClips, Subset, WithPartners, open_images
from pseudomotion.train.videomae.hub import save_for_hub
from pseudomotion.train.videomae.masking import tube_mask, tube_tokens
from pseudomotion.train.videomae.model import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SIZES,
    model_config,
    normalize,
    pretraining_model,
    reconstruct,
    to_colors,
    training_flops,
)
from pseudomotion.train.videomae.objective import MaskedLoss, paint
from pseudomotion.train.videomae.pretrained import check_init, pretrained_autoencoder
from pseudomotion.transforms import TRANSFORMS, Affine, Transform, Zoom

SPARE = 8 / 7  # side of images over that of frames: 256 for 224
SHOWN_CLIPS = 4


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What clips are made of."""

    _argument_group_name: ClassVar[str] = "data"

    clips: Literal["pmg", "videos", "pmg-aug", "perlin", "mosi"] = HfArg(
        default="pmg",
        help="pmg: pseudo-motion of images; videos: real clips of --videos; pmg-aug: real clips, some of them replaced by pseudo-motion; "
        "perlin: video Perlin noise; mosi: classify the speed of MoSI clips of images, instead of masked modeling",
    )
    images: list[str] | None = HfArg(
        default=None,
        help="one or more of: a folder of images; a bank file of pmg-bank; tar shards such as shards-{000..099}.tar; a dataset of Hugging "
        "Face, hf:name or hf:name:split, or the folder of one saved to disk",
    )
    source: str | None = HfArg(
        default=None, help="synthetic images, made as they are needed", metadata={"choices": tuple(SOURCES), "metavar": None}
    )
    videos: str | None = HfArg(default=None, help='list of videos, lines of "path label"; a frame of each is an image, or see --clips')
    stride: int = HfArg(default=4, help="of real clips, from frame to frame, in frames of the video")
    image_size: int | None = HfArg(default=None, help="side of the images in pixels; none for 8/7 of that of the frames")
    limit: int | None = HfArg(
        default=None,
        help="number of images, taken from all classes alike; or of each of --aug-images, or of clips of Perlin noise; none for all",
    )
    classes: int | None = HfArg(default=None, help="take the images from this many classes, drawn by --seed; none for all")
    balanced: bool = HfArg(default=False, help="draw images from all classes alike, also where these differ in size")
    bank: bool = HfArg(default=False, help="read all images once and keep them in memory, on the GPU if there is one")


@dataclass(frozen=True, kw_only=True)
class MotionOptions:
    """How images become clips."""

    _argument_group_name: ClassVar[str] = "motion"

    transforms: list[str] = HfArg(
        default_factory=lambda: ["zoom", "affine"], help=f"transforms that clips are drawn from: {', '.join(TRANSFORMS)}"
    )
    strength: float = HfArg(default=1.0, help="factor on the motion of zoom and affine from frame to frame (not from the paper)")
    resampling: str = HfArg(
        default="recursive", help="recursive: frame from frame; composed: each from the image", metadata={"choices": RESAMPLINGS}
    )
    padding_mode: str = HfArg(default="zeros", help="what shows outside an image", metadata={"choices": PADDING_MODES})
    crop: list[float] = HfArg(default_factory=lambda: [0.44, 1.0], help="smallest and largest share of the image in the first view")
    mix: Literal["none", "mixup", "videomix"] = HfArg(default="mixup", help="how clips are mixed in pairs")
    mix_alpha: float = HfArg(default=1.0, help="of the Beta distribution of mixing weights")
    partners: Literal["source", "batch"] = HfArg(
        default="source",
        help="where images that clips are mixed with come from: the whole source, so that clips do not depend on the number of processes, "
        "or the batch, in half the time",
    )
    aug_p: float = HfArg(default=0.5, help="for pmg-aug: share of real clips that is replaced")
    aug_frames: bool = HfArg(default=True, help="for pmg-aug: make clips of frames of the real clips")
    aug_images: list[str] | None = HfArg(default=None, help="for pmg-aug: make clips of these too: folders or synthetic sources")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What is trained."""

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
    mask_ratio: float = HfArg(default=0.75, help="share of the tokens that is hidden")
    picture_every: int = HfArg(default=1000, help="steps from one picture of reconstructions to the next")


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(DataOptions, MotionOptions, ModelOptions, RunOptions, OptimizationOptions):
    """Options of ``pmg-pretrain``."""

    free: ClassVar[frozenset[str]] = FREE | {"picture_every"}

    def __post_init__(self) -> None:
        """Check what belongs together."""
        check_groups(self)
        if self.picture_every < 1:
            raise ValueError(f"picture_every must be at least 1, got {self.picture_every}")
        if len(self.crop) != 2:
            raise ValueError(f"crop must be two numbers, got {self.crop}")
        if self.clips in ("videos", "pmg-aug") and not self.videos:
            raise ValueError(f"--clips {self.clips} needs --videos")
        check_init(self)
        if self.clips == "mosi" and self.init:
            raise ValueError("--clips mosi takes no --init")
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
    frame_size, num_frames, patch_size = options.frame_size, options.num_frames, options.patch_size
    config = model_config(options.model or "base", frame_size=frame_size, num_frames=num_frames, patch_size=patch_size)
    task: Task
    if options.clips == "mosi":
        task = make_mosi_task(_images(options, config, device), config, options.seed, options.weight_decay, options.picture_every)
    else:
        if options.init is None:
            model = pretraining_model(config)
        else:
            model = pretrained_autoencoder(options.init, frame_size=frame_size, num_frames=num_frames)
        source, make_clips = _clips(options, model.config, device)
        task = MaskedModeling(
            model,
            source,
            make_clips,
            mask_ratio=options.mask_ratio,
            weight_decay=options.weight_decay,
            seed=options.seed,
            evaluate_every=options.picture_every,
        )
    # What lies on a GPU, or is made there, does not cross to a worker process.
    bank_file = options.images is not None and all(name.endswith(".safetensors") for name in options.images)
    in_memory = options.bank and not bank_file  # a bank's file is mapped by every worker
    made_on_gpu = device.type != "cpu" and (options.source is not None or options.clips == "perlin")
    task.reads_files = not (in_memory or made_on_gpu)
    return task


class MaskedClips(NamedTuple):
    """Inputs of ``MaskedLoss``."""

    pixels: Tensor  # float32 (B, T, C, H, W), normalized
    visible: Tensor  # int64 (B, n_visible)
    hidden: Tensor  # int64 (B, n_hidden)


class MaskedModeling(Task):
    """VideoMAE: hide tubes of a clip, and predict the pixels of the hidden patches, each less its mean and over its deviation.

    Pixels stay float32 in every precision, so that the targets do.

    Args:
        model: as ``pretraining_model`` makes it.
        source: what clips are made of, by id.
        make_clips: items of the source and their ids, on the device, to normalized clips ``(B, T, C, H, W)``.
        mask_ratio: share of the tokens that is hidden.
        weight_decay: for ``groups``.
        seed: of the masks.
        evaluate_every: steps from one picture of reconstructions to the next.

    """

    def __init__(
        self,
        model: VideoMAEForPreTraining,
        source: ImageSource,
        make_clips: Callable[[Tensor, Tensor], Tensor],
        *,
        mask_ratio: float,
        weight_decay: float,
        seed: int,
        evaluate_every: int,
    ) -> None:
        self.model, self.objective, self.source, self.make_clips = model, MaskedLoss(model), source, make_clips
        self.mask_ratio, self.weight_decay, self.seed, self.evaluate_every = mask_ratio, weight_decay, seed, evaluate_every
        config = model.config
        self.tokens = config.num_frames // config.tubelet_size, (config.image_size // config.patch_size) ** 2  # slices, patches of each
        visible, _ = tube_tokens(Draws(seed, torch.tensor([0], device="cpu")), *self.tokens, mask_ratio)  # refuses a ratio before reading
        self.flops = training_flops(config, visible.shape[1])

    def groups(self) -> list[dict[str, Any]]:
        """All weights at one learning rate."""
        return parameter_groups(self.model, self.weight_decay)

    def inputs(self, items: Tensor, ids: Tensor, device: torch.device) -> MaskedClips:
        """Clips and masks, on the device."""
        pixels = self.make_clips(items.to(device, non_blocking=True), ids)
        tokens = tube_tokens(Draws(self.seed, ids), *self.tokens, self.mask_ratio)
        return MaskedClips(pixels, *(numbers.to(device, non_blocking=True) for numbers in tokens))

    def save(self, model: PreTrainedModel, folder: Path, out: Path) -> None:
        """Write a model, ready for the Hugging Face Hub."""
        save_for_hub(model, folder, out)

    def evaluate(self, accelerator: Accelerator, out: Path, step: int) -> dict[str, float]:
        """Paint ``reconstructions.png``: of four clips the input, what the model sees, and what it makes of that."""
        if accelerator.is_main_process:
            ids = torch.arange(SHOWN_CLIPS, device="cpu")
            pixels = self.inputs(self.source.get(ids), ids, accelerator.device).pixels
            with accelerator.autocast():
                mask = tube_mask(Draws(self.seed, ids), *self.tokens, self.mask_ratio).to(accelerator.device)
                seen, filled = reconstruct(self.model, pixels, mask)
            paint(out / "reconstructions.png", torch.stack([to_colors(pixels).clamp(0, 1), seen, filled], 1))
        return {}


def _clips(
    options: PretrainOptions, config: VideoMAEConfig, device: torch.device
) -> tuple[ImageSource, Callable[[Tensor, Tensor], Tensor]]:
    """What to read, and how clips are made of it."""
    size, frames, seed = config.image_size, config.num_frames, options.seed
    if options.clips == "perlin":
        return PerlinClips(frames, size, options.limit, seed, device), lambda clips, ids: normalize(clips)
    mix = {"none": None, "mixup": Mixup(options.mix_alpha), "videomix": VideoMix(options.mix_alpha)}[options.mix]
    if options.clips == "pmg":
        pmg = _pmg(options, config, mix, mean=IMAGENET_MEAN, std=IMAGENET_STD, dtype=torch.float32, data_format="BTCHW")
        images = _images(options, config, device)
        if options.partners == "batch" or (mix is None and all(transform.num_layers == 0 for transform in pmg.transforms)):
            return images, lambda items, ids: pmg(items, ids=ids)
        return WithPartners(images, seed), lambda items, ids: pmg(items[:, 0], ids=ids, partner_images=items[:, 1])
    videos = MultiScaleClips(str(options.videos), frames, options.stride, size, seed=seed)
    if options.clips == "videos":
        return videos, lambda clips, ids: normalize(clips)
    aug = PMGAug(_pmg(options, config, mix), options.aug_p, images=_aug_images(options, size, device))
    return videos, lambda clips, ids: normalize(aug(clips, ids=ids)[0])


def _pmg(options: PretrainOptions, config: VideoMAEConfig, mix: Mix | None, **output: Any) -> PMG:
    """The generator that the options describe."""
    return PMG(
        scaled(options.transforms, options.strength),
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


def scaled(names: Sequence[str], strength: float) -> list[str | Transform]:
    """Transforms by name, zoom and affine with that many times the motion per step; their ranges are exact powers and multiples."""

    def times(pair: tuple[float, float]) -> tuple[float, float]:
        return pair[0] * strength, pair[1] * strength

    def power(pair: tuple[float, float]) -> tuple[float, float]:
        return pair[0] ** strength, pair[1] ** strength

    if strength == 1:
        return list(names)
    zoom, affine = Zoom(), Affine()
    stronger = {
        "zoom": Zoom(ratio=power(zoom.ratio)),
        "affine": Affine(times(affine.degrees), times(affine.translate), power(affine.scale), times(affine.shear)),
    }
    return [stronger.get(name, name) for name in names]
