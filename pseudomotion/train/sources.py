"""What pre-training reads: images or real clips by number, and how clips for the model are made of them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion import PMG, MotionPlan
from pseudomotion.draws import Draws
from pseudomotion.images import ImageBank, load_textures
from pseudomotion.images.entries import is_stream, open_shards, open_source
from pseudomotion.images.streamed import StreamedImages
from pseudomotion.images.subset import Subset as Subset
from pseudomotion.render import Prepared
from pseudomotion.source import ImageSource, ItemSource
from pseudomotion.train.engine.options import flag
from pseudomotion.train.options import PretrainOptions
from pseudomotion.video import VideoClips
from pseudomotion.video.read import read_frames, strided

CROP_SCALES = (1.0, 0.875, 0.75, 0.66)  # of VideoMAE's multi-scale crop
CROP_PLACES = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))  # in quarters


def open_images(options: PretrainOptions, size: int, device: torch.device) -> ImageSource:
    """The images that clips are made of: files, made up, or a frame of every video.

    All are read by number, so that a run can be resumed at any step and shared out over processes and workers. Streams get numbers by
    ``StreamedImages``. Of several ``images``, an epoch shows every image of all of them once; the ``seed`` chooses the images of ``limit``
    and ``classes``, and the frames of ``videos``, but does not change made-up images. A single bank may have a size of its own.

    Raises:
        OSError: if there is no such file or folder.
        ValueError: unless exactly one of images, source and videos is given; for images of different sizes.

    """
    if any(map(is_stream, options.images or ())) and options.source is None and options.videos is None:
        return _open_streams(options, size)
    opened = open_source(options.images, options.source, options.videos, size, seed=options.seed, balanced=options.balanced, device=device)
    if options.limit is not None or options.classes is not None:
        opened = Subset(opened, options.limit, options.seed, classes=options.classes)
    if options.bank and not isinstance(opened, ImageBank):
        return ImageBank(opened, device, num_workers=options.num_workers)
    return opened


def _open_streams(options: PretrainOptions, size: int) -> StreamedImages:
    """Streams, and whatever stands beside them."""
    refused = {"limit": None, "classes": None, "balanced": False, "bank": False}
    if names := [flag(name) for name, allowed in refused.items() if getattr(options, name) != allowed]:
        raise ValueError(f"{', '.join(names)} cannot be used with streams, which are read from front to back")
    return StreamedImages(open_shards(options.images or (), size), options.seed, threads=options.num_workers)


def open_textures(options: PretrainOptions, images: ImageSource, size: int, device: torch.device) -> UInt8[Tensor, "N C H W"] | None:
    """What objects show, on the device: ``num_textures`` images, chosen by the seed, the same for all clips of a run; None without objects.

    They are ``textures``, of ``size`` pixels, or else some of ``images``, of streams the first ones. Errors are those of ``open_images``.
    """
    if options.objects is None:
        return None
    if options.textures is not None:
        return load_textures(
            options.textures,
            size,
            limit=options.num_textures,
            seed=options.seed,
            alpha=options.objects == "cutouts",
            device=device,
            num_workers=options.num_workers,
        )
    if isinstance(images, StreamedImages):  # one lane, so that only its shards are read
        return images.get(torch.arange(options.num_textures) * images.lanes).to(device)
    chosen = Subset(images, min(options.num_textures, len(images)), options.seed)
    return ImageBank(chosen, device, num_workers=options.num_workers).images


class WithPartners:
    """Images, each with the one that its clip is mixed with: from anywhere in the source, so that a clip is a function of its id alone.

    Of a stream, the partner is from the same block. ``seed`` is that of the ``PMG`` which makes clips of them.
    """

    def __init__(self, source: ImageSource, seed: int) -> None:
        self.source, self.seed = source, seed
        self.groups: Tensor | None = getattr(source, "groups", None)
        self.skipped: dict[int, str] = getattr(source, "skipped", {})

    def __len__(self) -> int:
        return len(self.source)

    def get(self, ids: Tensor) -> UInt8[Tensor, "B 2 3 H W"]:
        """Images and their partners."""
        partners = Draws(self.seed, ids).partner_ids("partner images")
        if isinstance(self.source, StreamedImages):  # an image that is at hand
            return torch.stack([self.source.get(ids), self.source.partners(ids, self.seed)], 1)
        both: Tensor = self.source.get(torch.cat([ids, partners]))
        return both.reshape(2, len(ids), *both.shape[1:]).transpose(0, 1)


class Planned(NamedTuple):
    """A batch of images, and the plan of their clips."""

    images: Tensor  # uint8 (B, 3, H, W), or (B, 2, 3, H, W) with partners
    plan: MotionPlan | Prepared


class WithPlans:
    """Images, each batch with the plan of its clips: processes that read also plan, and the training process only renders.

    Args:
        images: may come with partners.
        pmg: makes the plans.
        device: where ``pmg`` will render. For a CUDA device the plans are packed for its kernels, too.
        textures: what objects will show, or None; only their shape counts.

    """

    def __init__(self, images: ItemSource[Tensor], pmg: PMG, device: torch.device, textures: Tensor | None = None) -> None:
        self.images, self.partners = images, isinstance(images, WithPartners)
        self.textures = None if textures is None else textures.shape
        self.plan: Callable[..., MotionPlan | Prepared] = pmg.prepare if device.type == "cuda" else pmg.plan
        self.groups: Tensor | None = getattr(images, "groups", None)
        self.skipped: dict[int, str] = getattr(images, "skipped", {})

    def __len__(self) -> int:
        return len(self.images)

    def get(self, ids: Tensor) -> Planned:
        """Images and the plan of their clips."""
        images = self.images.get(ids)
        shape = len(images), *images.shape[-3:]
        return Planned(images, self.plan(shape, ids=ids, partner_images=self.partners, textures=self.textures))


class MultiScaleClips(VideoClips):
    """Real clips, cropped as VideoMAE crops them in pre-training: a window of a side drawn from four, at one of 13 places, resized.

    ``get(ids)`` gives uint8 ``(B, 3, T, h, w)``. Width and height of the window are 1, 0.875, 0.75 or 0.66 of the short side each, and at
    most one step apart. No flip, no color jitter (facts of VideoMAE's released code).
    """

    def read(self, index: int, id_: int) -> UInt8[Tensor, "3 T h w"]:
        """One clip."""
        draws = Draws(self.seed, torch.tensor([id_], device="cpu"))
        start = float(draws.uniform("video start", 1)[0])
        frames = self.frames(index, lambda total: strided(total, self.num_frames, self.stride, start))
        scale, place = (float(number) for number in draws.uniform("multi-scale crop", 2))
        return multi_scale_crop(frames, self.size, scale, place)

    def frames(self, index: int, pick: Callable[[int], list[int]]) -> UInt8[Tensor, "3 T H W"]:
        """Frames of a video at its own size."""
        return read_frames(self.paths[index], pick)


def multi_scale_crop(frames: UInt8[Tensor, "3 T H W"], size: tuple[int, int], scale: float, place: float) -> UInt8[Tensor, "3 T h w"]:
    """A window of frames, resized with antialiasing; numbers in (0, 1) choose its width and height, and its place."""
    h, w = frames.shape[-2:]
    pairs = [(a, b) for i, a in enumerate(CROP_SCALES) for j, b in enumerate(CROP_SCALES) if abs(i - j) <= 1]
    pair = pairs[int(scale * len(pairs))]
    ch, cw = (max(1, round(min(h, w) * share)) for share in pair)
    x, y = CROP_PLACES[int(place * len(CROP_PLACES))]
    top, left = (h - ch) * y // 4, (w - cw) * x // 4
    window = frames[..., top : top + ch, left : left + cw].transpose(0, 1).float()
    resized = F.interpolate(window, size=size, mode="bilinear", antialias=True, align_corners=False)
    return resized.round().clamp(0, 255).to(torch.uint8).transpose(0, 1)
