"""``Settings``: everything that decides which bytes an export writes. Imports nothing heavy, for the command line."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

__all__ = ["ANNOTATIONS", "FLOW_FORMATS", "FORMATS", "LABELS", "LARGEST_SHARD", "PIXEL_FORMATS", "PRESETS", "Settings"]

FORMATS = ("mp4", "webp", "png")
LABELS = ("transform", "class", "none")
ANNOTATIONS = ("flow", "tracks", "instances", "boxes")
FLOW_FORMATS = ("npz", "flo", "kitti")
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
PIXEL_FORMATS = ("yuv420p", "yuv444p")
LARGEST_SHARD = 1000
LARGEST_NUMBER = 10**8  # clips are named by eight digits


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an export writes. Together with the images, the ``PMG`` and the version of the libraries, it decides every byte.

    Args:
        clips: number of clips.
        first: number of the first clip. Clips are numbered over all exports of the same images and seed: 0 to 99,999 and, with
            ``first=100_000``, 100,000 to 109,999 are a training and a validation set without a common clip.
        format: "mp4": one H.264 video per clip. "webp" or "png": one image per frame.
        tar: write WebDataset tar shards instead of folders.
        shard_size: clips per folder, at most 1,000, or per tar shard. The unit that is written whole or not at all.
        fps: frames per second that videos claim.
        crf: x264's constant rate factor, 0 (lossless but for the conversion to YUV) to 51.
        preset: x264's.
        pixel_format: "yuv420p", which every decoder reads, or "yuv444p", which keeps the color of every pixel.
        quality: of WebP, 0 to 100; 100 is lossless.
        label: of each clip: "transform", the position of its transform in ``ALL_TRANSFORMS``, which the manifest lists; "class", that of
            its image; "none", always 0.
        annotations: exact motion to write beside the clips, of ``ANNOTATIONS``.
        flow_format: "npz": one file per clip, float16. "flo": Middlebury's format, one file per pair of frames. "kitti": 16-bit PNG.

    Raises:
        TypeError, ValueError: for values outside these.

    Example:
        >>> from pseudomotion.export import Settings
        >>> Settings(clips=2500, format="png", annotations=("flow",)).num_shards
        3

    """

    clips: int
    first: int = 0
    format: str = "mp4"
    tar: bool = False
    shard_size: int = LARGEST_SHARD
    fps: float = 12.0
    crf: int = 18
    preset: str = "veryfast"
    pixel_format: str = "yuv420p"
    quality: int = 90
    label: str = "transform"
    annotations: tuple[str, ...] = ()
    flow_format: str = "npz"

    def __post_init__(self) -> None:
        """Check the values."""
        limits = {
            "clips": (1, LARGEST_NUMBER),
            "first": (0, LARGEST_NUMBER - 1),
            "shard_size": (1, LARGEST_NUMBER if self.tar else LARGEST_SHARD),
            "crf": (0, 51),
            "quality": (0, 100),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, got {value!r}")
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {value}")
        if self.first + self.clips > LARGEST_NUMBER:
            raise ValueError(f"first + clips must be at most {LARGEST_NUMBER}, got {self.first + self.clips}")
        if not math.isfinite(self.fps) or not 0.1 <= self.fps <= 240:
            raise ValueError(f"fps must be from 0.1 to 240, got {self.fps}")
        choices = {"format": FORMATS, "preset": PRESETS, "pixel_format": PIXEL_FORMATS, "label": LABELS, "flow_format": FLOW_FORMATS}
        for name, options in choices.items():
            if getattr(self, name) not in options:
                raise ValueError(f"{name} must be one of {', '.join(options)}, got {getattr(self, name)!r}")
        if unknown := sorted(set(self.annotations) - set(ANNOTATIONS)):
            raise ValueError(f"annotations must be some of {', '.join(ANNOTATIONS)}, got {', '.join(unknown)}")
        object.__setattr__(self, "annotations", tuple(name for name in ANNOTATIONS if name in self.annotations))

    @property
    def num_shards(self) -> int:
        """Number of folders or tar files."""
        return -(-self.clips // self.shard_size)

    def numbers(self, shard: int) -> range:
        """The numbers of a shard's clips."""
        start = self.first + shard * self.shard_size
        return range(start, min(start + self.shard_size, self.first + self.clips))

    def state(self) -> dict[str, Any]:
        """The values as JSON holds them."""
        return dataclasses.asdict(self) | {"annotations": list(self.annotations)}
