"""Augmentation of labelled clips for fine-tuning: a random crop, a flip and RandAugment on 8-bit frames, and random erasing at the end.

Every number is drawn from the seed and the clip's id, once for all frames. The settings are VideoMAE's for fine-tuning; the order is that
of image training, where the crop comes first, since the operations cost less on small frames (VideoMAE does RandAugment before the crop).
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from PIL import Image
from torch import Tensor

from pseudomotion.draws import Draws
from pseudomotion.mix import Mix, Mixup, VideoMix
from pseudomotion.plan import Blend
from pseudomotion.train.video.randaugment import RandAugment, apply_operations

TRIES = 10


class Box(NamedTuple):
    """Whole pixels of a frame: rows ``top`` to ``top + height``, columns ``left`` to ``left + width``."""

    top: int
    left: int
    height: int
    width: int


class View(NamedTuple):
    """What is done to a clip: the box that is cut out, whether it is flipped, the operations of RandAugment with their arguments."""

    box: Box
    flipped: bool
    operations: list[tuple[str, float]]


@dataclass(frozen=True)
class ClipAugmentation:
    """Random resized crop, horizontal flip and RandAugment, in this order, alike on all frames.

    Args:
        size: side of the square frames, in pixels.
        area: smallest and largest share of the frame that is cut out, drawn uniformly.
        aspect: smallest and largest width per height of what is cut out, drawn uniformly in its logarithm.
        flip: probability to swap left and right.
        randaugment: of the cut-out frames.

    """

    size: int = 224
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    randaugment: RandAugment = field(default_factory=RandAugment)

    def make_plan(self, draws: Draws, frame_size: tuple[int, int]) -> View:
        """What to do to the clip whose only id is in ``draws``, of frames ``(h, w)``."""
        (flipped,) = draws.uniform("flip", 1)
        box = crop_box(draws, frame_size, self.area, self.aspect)
        return View(box, float(flipped) < self.flip, self.randaugment.make_plan(draws))

    def __call__(self, clip: UInt8[Tensor, "3 T H W"], draws: Draws) -> UInt8[Tensor, "3 T {self.size} {self.size}"]:
        """One clip, of any frame size, augmented by the numbers of the only id in ``draws``."""
        return augment(clip, self.make_plan(draws, (clip.shape[2], clip.shape[3])), self.size)


def augment(clip: UInt8[Tensor, "3 T H W"], view: View, size: int) -> UInt8[Tensor, "3 T {size} {size}"]:
    """Do to a clip what a plan says."""
    top, left, height, width = view.box
    frames = resize(clip[:, :, top : top + height, left : left + width], (size, size))
    if view.flipped:
        frames = frames.flip(3)
    if view.operations:
        pictures = [apply_operations(Image.fromarray(frame), view.operations) for frame in frames.permute(1, 2, 3, 0).numpy()]
        frames = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(3, 0, 1, 2)
    return frames.contiguous()


def resize(clip: UInt8[Tensor, "3 T H W"], size: tuple[int, int]) -> UInt8[Tensor, "3 T h w"]:
    """A clip with frames of another size ``(h, w)``: bilinear with antialiasing, within a level of Pillow's."""
    frames = clip.transpose(0, 1)
    if frames.shape[2:] == size:
        return clip
    return F.interpolate(frames, size, mode="bilinear", antialias=True).transpose(0, 1)


def crop_box(draws: Draws, frame_size: tuple[int, int], area: tuple[float, float], aspect: tuple[float, float]) -> Box:
    """The box to cut out of frames ``(h, w)``: the first of ten draws that fits; else the largest of an allowed aspect, in the middle."""
    if box := _drawn_box(draws, "crop", frame_size, area, aspect):
        return box
    h, w = frame_size
    width, height = min(w, round(h * aspect[1])), min(h, round(w / aspect[0]))
    return Box((h - height) // 2, (w - width) // 2, height, width)


@dataclass(frozen=True)
class RandomErasing:
    """Random erasing (Zhong et al. 2017, arXiv 1708.04896): a box of the clip, the same in all frames, becomes noise.

    Works on clips that are normalized already; the noise is drawn from a standard normal distribution for every pixel and channel. ``p`` is
    the probability per clip, ``area`` and ``aspect`` are as in ``ClipAugmentation``.
    """

    p: float = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)

    def make_plan(self, draws: Draws, frame_size: tuple[int, int]) -> list[Box | None]:
        """The box of every clip; None for clips left alone, also where none of ten draws leaves room beside the box."""
        (chance,) = draws.uniform("erasing", 1)
        return [
            _drawn_box(draws.select(torch.tensor([k], device="cpu")), "erasing box", frame_size, self.area, self.aspect, beside=1)
            if number < self.p
            else None
            for k, number in enumerate(chance.tolist())
        ]

    def __call__(self, clips: Float32[Tensor, "B T C h w"], draws: Draws) -> Float32[Tensor, "B T C h w"]:
        """The clips with boxes of noise, a new tensor (``clips`` itself where there is none)."""
        plan = self.make_plan(draws, (clips.shape[3], clips.shape[4]))
        if not any(plan):
            return clips
        erased = clips.clone()
        high, low = (torch.stack(draws.uniform("erasing noise", 2)) * 2**31).long().tolist()
        for k, box in enumerate(plan):
            if box:
                top, left, height, width = box
                generator = torch.Generator("cpu").manual_seed(high[k] << 31 | low[k])
                noise = torch.randn(clips.shape[1], clips.shape[2], height, width, generator=generator, device="cpu")
                erased[k, :, :, top : top + height, left : left + width] = noise.to(clips)
        return erased


def _drawn_box(
    draws: Draws, purpose: str, frame_size: tuple[int, int], area: tuple[float, float], aspect: tuple[float, float], *, beside: int = 0
) -> Box | None:
    """The first of ten boxes of drawn area and aspect that leaves ``beside`` rows and columns of frames ``(h, w)``, anywhere in them."""
    h, w = frame_size
    numbers = [float(number) for number in draws.uniform(purpose, 4 * TRIES)]
    for k in range(0, len(numbers), 4):
        share, shape, y, x = numbers[k : k + 4]
        pixels = h * w * (area[0] + (area[1] - area[0]) * share)
        ratio = math.exp(math.log(aspect[0]) + math.log(aspect[1] / aspect[0]) * shape)
        height, width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < height <= h - beside and 0 < width <= w - beside:
            return Box(int(y * (h - height + 1)), int(x * (w - width + 1)), height, width)
    return None


@dataclass(frozen=True)
class MixupOrCutMix(Mix):
    """Mixup of whole clips or, with the probability ``switch``, CutMix of the same box in all frames; drawn for every clip.

    VideoMAE draws which of them, and the share, once for a batch, and mixes each clip with the one at the mirrored place.
    """

    mixup: Mixup = field(default_factory=lambda: Mixup(0.8))
    cutmix: VideoMix = field(default_factory=lambda: VideoMix(1.0))
    switch: float = 0.5

    def make_params(self, draws: Draws) -> dict[str, Any]:
        """Draw the numbers of every clip, for both ways."""
        (chance,) = draws.numbers("mixup or cutmix", 1)
        return {"switched": chance < self.switch, "mixup": self.mixup.make_params(draws), "cutmix": self.cutmix.make_params(draws)}

    def make_plan(self, params: dict[str, Any], partner: Int64[Tensor, " b"], num_frames: int, frame_size: tuple[int, int]) -> Blend:
        """The blend of the one or the other."""
        mixup = self.mixup.make_plan(params["mixup"], partner, num_frames, frame_size)
        cutmix = self.cutmix.make_plan(params["cutmix"], partner, num_frames, frame_size)
        chosen = torch.from_numpy(params["switched"])
        return Blend(
            partner,
            torch.where(chosen, cutmix.weight, mixup.weight),
            torch.where(chosen[:, None], cutmix.box, mixup.box),
            torch.where(chosen[:, None], cutmix.frames, mixup.frames),
        )


def smooth_labels(labels: Int64[Tensor, " b"], num_classes: int, smoothing: float) -> Float32[Tensor, "b num_classes"]:
    """Class probabilities: ``smoothing`` shared out among all classes, the rest on the label."""
    return F.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes
