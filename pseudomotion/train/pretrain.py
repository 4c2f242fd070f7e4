"""``pmg-pretrain``: pre-train VideoMAE on pseudo-motion clips, on real clips, or on the paper's comparators.

Read from top to bottom: the command, the task that its options ask for, masked modeling, and what clips are made of. The options are in
``train/options.py``, the loop in ``train/engine/loop.py``, the loss in ``train/videomae/objective.py``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from jaxtyping import UInt8
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from pseudomotion import PMG, Mixup, PMGAug, VideoMix
from pseudomotion.draws import Draws
from pseudomotion.images import ImageFolder, VideoFrames
from pseudomotion.images.streamed import ENDLESS
from pseudomotion.images.synthetic import SOURCES
from pseudomotion.mix import Mix
from pseudomotion.source import ImageSource, ItemSource
from pseudomotion.train.comparators import PerlinClips, SpeedClassification
from pseudomotion.train.engine.loop import Task, make_accelerator, train
from pseudomotion.train.engine.stream import to_device
from pseudomotion.train.options import PretrainOptions as PretrainOptions
from pseudomotion.train.sources import MultiScaleClips, Planned, Subset, WithPartners, WithPlans, open_images, open_textures
from pseudomotion.train.videomae.hub import save_for_hub
from pseudomotion.train.videomae.masking import tube_mask, tube_tokens
from pseudomotion.train.videomae.model import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    model_config,
    normalize,
    pretraining_model,
    reconstruct,
    to_colors,
    training_flops,
)
from pseudomotion.train.videomae.objective import MaskedLoss, paint
from pseudomotion.train.videomae.pretrained import pretrained_autoencoder
from pseudomotion.transforms import Affine, Transform, Zoom

SPARE = 8 / 7  # side of images over that of frames: 256 for 224
SHOWN_CLIPS = 4

MakeClips = Callable[[Tensor, Any, Tensor | None], Tensor]


def run(options: PretrainOptions) -> None:
    """Pre-train, and say where the results are."""
    accelerator = make_accelerator(options)
    model = train(make_task(options, accelerator.device), options, "pretrain", accelerator)
    accelerator.print(f"{model}: the model; {options.out}/loss.png, reconstructions.png: how it went")


def make_task(options: PretrainOptions, device: torch.device) -> Task:
    """What the options ask to train.

    Raises:
        ValueError, OSError: for options that contradict each other, or files that are not there.

    """
    sizes = {"frame_size": options.frame_size, "num_frames": options.num_frames}
    config = model_config(options.model or "base", patch_size=options.patch_size, **sizes)
    task: Task
    if options.clips == "mosi":
        task = SpeedClassification(open_images(options, _image_size(options, config), device), config, options)
    else:
        model = pretraining_model(config) if options.init is None else pretrained_autoencoder(options.init, **sizes)
        task = MaskedModeling(model, *_clips(options, model.config, device), options)
    # What lies on a GPU, or is made there, does not cross to a worker process.
    bank_file = options.images is not None and all(name.endswith(".safetensors") for name in options.images)
    in_memory = options.bank and not bank_file  # a bank's file is mapped by every worker
    made_on_gpu = device.type != "cpu" and (options.source is not None or options.clips == "perlin")
    task.reads_files = not (in_memory or made_on_gpu or len(task.source) >= ENDLESS)  # streams have threads of their own
    return task


class MaskedClips(NamedTuple):
    """Inputs of ``MaskedLoss``."""

    pixels: Tensor  # float32 (B, T, C, H, W), normalized
    visible: Tensor  # int64 (B, n_visible)
    hidden: Tensor  # int64 (B, n_hidden)


class MaskedModeling(Task):
    """VideoMAE: hide tubes of a clip, and predict the pixels of the hidden patches, each normalized by its own mean and deviation.

    Pixels stay float32 in every precision, so that the targets do.

    Args:
        model: as ``pretraining_model`` makes it.
        source: what clips are made of, by id.
        make_clips: items of the source, on the device, their ids, and ``textures``, to normalized clips ``(B, T, C, H, W)``. Where the
            source gives ``Planned`` batches, their images and plan instead of items and ids.
        textures: what objects show, on the device, or None.
        options: ``mask_ratio``, ``weight_decay``, ``seed`` and ``picture_every`` count.

    """

    def __init__(
        self,
        model: VideoMAEForPreTraining,
        source: ItemSource[Any],
        make_clips: MakeClips,
        textures: Tensor | None,
        options: PretrainOptions,
    ) -> None:
        self.model, self.objective, self.source, self.make_clips, self.textures = model, MaskedLoss(model), source, make_clips, textures
        self.options, self.evaluate_every, self.weight_decay = options, options.picture_every, options.weight_decay
        self._shown = torch.arange(SHOWN_CLIPS, device="cpu")
        # Read before training, for a stream would be read from its beginning again later.
        self._shown_items = source.get(self._shown) if len(source) >= ENDLESS else None
        config = model.config
        self.tokens = config.num_frames // config.tubelet_size, (config.image_size // config.patch_size) ** 2  # slices, patches of each
        visible, _ = self._masks(torch.tensor([0], device="cpu"))  # refuses a ratio before reading
        self.flops = training_flops(config, visible.shape[1])

    save = staticmethod(save_for_hub)

    def inputs(self, items: Tensor | Planned, ids: Tensor, device: torch.device) -> MaskedClips:
        """Clips and masks, on the device."""
        images, motion = items if isinstance(items, Planned) else (items, ids)
        pixels = self.make_clips(to_device(images, device), motion, self.textures)
        return MaskedClips(pixels, *(to_device(tokens, device) for tokens in self._masks(ids)))

    def _masks(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return tube_tokens(Draws(self.options.seed, ids), *self.tokens, self.options.mask_ratio)

    def evaluate(self, accelerator: Accelerator, out: Path, step: int) -> dict[str, float]:
        """Paint ``reconstructions.png``: of four clips the input, what the model sees, and what it makes of that."""
        if accelerator.is_main_process:
            ids = self._shown
            items = self.source.get(ids) if self._shown_items is None else self._shown_items
            pixels = self.inputs(items, ids, accelerator.device).pixels
            with accelerator.autocast():
                mask = tube_mask(Draws(self.options.seed, ids), *self.tokens, self.options.mask_ratio).to(accelerator.device)
                seen, filled = reconstruct(self.model, pixels, mask)
            clips = torch.stack([to_colors(pixels).clamp(0, 1), seen, filled], 1)
            paint(out / "reconstructions.png", clips, ("input", "seen", "filled in"))
        return {}


def _clips(
    options: PretrainOptions, config: VideoMAEConfig, device: torch.device
) -> tuple[ItemSource[Any], MakeClips, UInt8[Tensor, "N C H W"] | None]:
    """What to read, how clips are made of it, and what objects show in them."""
    size, frames, seed = config.image_size, config.num_frames, options.seed
    if options.clips == "perlin":
        return PerlinClips(frames, size, options.limit, seed, device), lambda clips, ids, textures: normalize(clips), None
    mix = {"none": None, "mixup": Mixup(options.mix_alpha), "videomix": VideoMix(options.mix_alpha)}[options.mix]
    if options.clips == "pmg":
        pmg = _pmg(options, config, mix, mean=IMAGENET_MEAN, std=IMAGENET_STD, dtype=torch.float32, data_format="BTCHW")
        image_size = _image_size(options, config)
        images = open_images(options, image_size, device)
        textures = open_textures(options, images, image_size, device)
        if options.partners == "batch" or (mix is None and all(transform.num_layers == 0 for transform in pmg.transforms)):
            planned = WithPlans(images, pmg, device, textures)
            return planned, lambda items, plan, textures: pmg.render(items, plan, textures=textures), textures
        planned = WithPlans(WithPartners(images, seed), pmg, device, textures)
        return planned, lambda items, plan, textures: pmg.render(items[:, 0], plan, partner_images=items[:, 1], textures=textures), textures
    videos = MultiScaleClips(str(options.videos), frames, options.stride, size, seed=seed)
    if options.clips == "videos":
        return videos, lambda clips, ids, textures: normalize(clips), None
    textures = open_textures(options, VideoFrames(str(options.videos), size, seed=seed), size, device)
    aug = PMGAug(_pmg(options, config, mix), options.aug_p, images=_aug_images(options, size, device))
    return videos, lambda clips, ids, textures: normalize(aug(clips, ids=ids, textures=textures)[0]), textures


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
        objects=options.objects,
        seed=options.seed,
        **output,
    )


def _image_size(options: PretrainOptions, config: VideoMAEConfig) -> int:
    return options.image_size or round(config.image_size * SPARE)


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
