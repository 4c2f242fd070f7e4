"""What pre-training reads: images or real clips by number, and how clips for the model are made of them."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion.draws import Draws
from pseudomotion.images import HFImages, ImageBank, ImageFolder, VideoFrames
from pseudomotion.images.concatenated import Concatenated
from pseudomotion.images.subset import Subset as Subset
from pseudomotion.images.synthetic import SOURCES
from pseudomotion.images.tar import TarImages
from pseudomotion.source import FileSource, ImageSource
from pseudomotion.video import VideoClips, read_clip

CROP_SCALES = (1.0, 0.875, 0.75, 0.66)  # of VideoMAE's multi-scale crop
CROP_PLACES = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))  # in quarters


def open_images(
    *,
    images: Sequence[str] | None,
    source: str | None,
    videos: str | None,
    size: int,
    limit: int | None,
    classes: int | None,
    balanced: bool,
    bank: bool,
    seed: int,
    device: torch.device,
    num_workers: int,
) -> ImageSource:
    """The images that clips are made of: files, made up, or a frame of every video.

    All are read by number, so that a run can be resumed at any step and shared out over processes and workers.

    Args:
        images: any number of these; an epoch shows every image of all of them once. A folder; a bank file of ``pmg-bank``; uncompressed
            tar shards, such as "shards-{000..099}.tar"; a dataset that ``datasets`` saved to disk; "hf:name" or "hf:name:split" for one
            that it loads.
        source: a name of ``SOURCES``.
        videos: a list of videos.
        size: side of the images in pixels; a single bank may have its own.
        limit: number of images in all, chosen by the seed, from all classes alike; None for all.
        classes: number of classes to take them from, chosen by the seed; None for all.
        balanced: draw from all classes alike, also where they differ in size.
        bank: read all once and keep them in memory, on the device.
        seed: of the choices, not of made-up images.
        device: where made-up images are made, and a bank is kept.
        num_workers: processes that read a bank's images.

    Raises:
        OSError: where there is no such file or folder.
        ValueError: unless exactly one of images, source and videos is given; for images of different sizes.

    """
    given = {"--images": images, "--source": source, "--videos": videos}
    if sum(value is not None for value in given.values()) != 1:
        raise ValueError(f"exactly one of {', '.join(given)} must say where images come from")
    opened: ImageSource
    if source:
        opened = SOURCES[source](size=size, device=device)  # of its own seed, as files are the same for every run; FractalDB would search
    elif videos:
        opened = VideoFrames(videos, size, seed=seed)
    elif images is not None and len(images) == 1:
        opened = _open(images[0], size, balanced)
    else:
        opened = Concatenated([_open(entry, size, balanced) for entry in images or ()], size)
    if limit is not None or classes is not None:
        opened = Subset(opened, limit, seed, classes=classes)
    return ImageBank(opened, device, num_workers=num_workers) if bank and not isinstance(opened, ImageBank) else opened


def _open(entry: str, size: int, balanced: bool) -> ImageSource:
    """What one word of --images names."""
    path = Path(entry)
    if entry.startswith("hf:") or (path / "dataset_info.json").is_file():
        import datasets

        name, _, split = entry.removeprefix("hf:").partition(":")
        saved = not entry.startswith("hf:")
        return HFImages(datasets.load_from_disk(entry) if saved else datasets.load_dataset(name, split=split or "train"), size)
    if re.search(r"\.tar\b", path.name):
        return TarImages(entry, size)
    if path.is_file():
        return ImageBank.load(path)  # memory-mapped, and shared by all processes
    return ImageFolder(path, size, balanced=balanced)


class WithPartners:
    """Images, each with the one that its clip is mixed with: from anywhere in the source, so that a clip is a function of its id alone.

    Args:
        source: of images.
        seed: that of the ``PMG`` which makes clips of them.

    """

    def __init__(self, source: ImageSource, seed: int) -> None:
        self.source, self.seed = source, seed
        self.groups: Tensor | None = getattr(source, "groups", None)
        self.skipped: dict[int, str] = getattr(source, "skipped", {})

    def __len__(self) -> int:
        """Number of images."""
        return len(self.source)

    def get(self, ids: Tensor) -> UInt8[Tensor, "B 2 3 H W"]:
        """Images and their partners."""
        partners = Draws(self.seed, ids).partner_ids("partner images")
        both: Tensor = self.source.get(torch.cat([ids, partners]))
        return both.reshape(2, len(ids), *both.shape[1:]).transpose(0, 1)


class MultiScaleClips(FileSource):
    """Real clips, cropped as VideoMAE crops them in pre-training: a window of a side drawn from four, at one of 13 places, resized.

    ``get(ids)`` gives uint8 ``(B, 3, T, h, w)``. Width and height of the window are 1, 0.875, 0.75 or 0.66 of the short side each, and at
    most one step apart. No flip, no color jitter (facts of VideoMAE's released code).

    Args:
        list_file: as for ``VideoClips``.
        num_frames: T.
        stride: from one frame of the clip to the next, in frames of the video.
        size: side of the frames in pixels.
        seed: of start and window.

    """

    def __init__(self, list_file: str, num_frames: int, stride: int, size: int, *, seed: int) -> None:
        super().__init__()
        self.videos = VideoClips(list_file, num_frames, stride, size, seed=seed)

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.videos)

    def read(self, index: int, id_: int) -> UInt8[Tensor, "3 T h w"]:
        """One clip."""
        videos = self.videos
        draws = Draws(videos.seed, torch.tensor([id_]))
        start = float(draws.uniform("video start", 1)[0])
        frames = read_clip(videos.paths[index], videos.num_frames, videos.stride, start)
        scale, place = (float(number) for number in draws.uniform("multi-scale crop", 2))
        return multi_scale_crop(frames, videos.size, scale, place)


def multi_scale_crop(frames: UInt8[Tensor, "3 T H W"], size: tuple[int, int], scale: float, place: float) -> UInt8[Tensor, "3 T h w"]:
    """A window of frames, resized with antialiasing.

    Args:
        frames: of any size.
        size: ``(h, w)`` of the result.
        scale: number in (0, 1) that chooses width and height.
        place: number in (0, 1) that chooses the place.

    """
    h, w = frames.shape[-2:]
    pairs = [(a, b) for i, a in enumerate(CROP_SCALES) for j, b in enumerate(CROP_SCALES) if abs(i - j) <= 1]
    pair = pairs[int(scale * len(pairs))]
    ch, cw = (max(1, round(min(h, w) * share)) for share in pair)
    x, y = CROP_PLACES[int(place * len(CROP_PLACES))]
    top, left = (h - ch) * y // 4, (w - cw) * x // 4
    window = frames[..., top : top + ch, left : left + cw].transpose(0, 1).float()
    resized = F.interpolate(window, size=size, mode="bilinear", antialias=True, align_corners=False)
    return resized.round().clamp(0, 255).to(torch.uint8).transpose(0, 1)
