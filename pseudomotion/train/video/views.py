"""Labeled videos for fine-tuning and testing: by id, some views of a video, and its class.

A view is a clip of whole frames of the video, brought to the model's size: augmented at random for training, evenly placed for testing.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.source import FileReader
from pseudomotion.train.video.augment import ClipAugmentation, resize
from pseudomotion.video.list_file import read_list
from pseudomotion.video.read import read_frames

SAMPLINGS = ("dense", "segments")


class LabelledViews(NamedTuple):
    """Some views of every video of a batch.

    Args:
        clips: of every video the same number V of views.
        labels: classes of the videos.
        videos: their numbers in the list: of a broken file's ids, the number of the video that was read in its place.

    """

    clips: UInt8[Tensor, "B V 3 T h w"]
    labels: Int64[Tensor, " B"]
    videos: Int64[Tensor, " B"]


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video make a clip.

    Args:
        num_frames: T.
        kind: "dense": frames at even distances, as VideoMAE samples Kinetics, UCF101 and HMDB51. In training they are spread over a window
            of ``num_frames * stride`` frames, both ends included (4.27 frames apart for 16 and 4); in testing they are ``stride`` apart.
            "segments": the whole video in ``num_frames`` equal parts, a frame of each, as it samples Something-Something (Wang et al. 2016,
            arXiv 1608.00859).
        stride: of "dense", in frames of the video.

    Raises:
        TypeError, ValueError: for arguments outside these.

    """

    num_frames: int = 16
    kind: str = "dense"
    stride: int = 4

    def __post_init__(self) -> None:
        checks.positive_int("num_frames", self.num_frames, checks.MOST_FRAMES)
        checks.one_of("kind", self.kind, SAMPLINGS)
        checks.positive_int("stride", self.stride, checks.MOST_FRAMES)

    def drawn(self, draws: Draws) -> Callable[[int], list[int]]:
        """The frames of a clip anywhere in a video, given how many it has; drawn by the only id in ``draws``."""
        numbers = [float(number) for number in draws.uniform("frames", self.num_frames)]
        if self.kind == "segments":
            return self._frames(numbers)
        window = self.num_frames * self.stride

        def pick(total: int) -> list[int]:
            if total <= window:  # as many frames as fit, then the last one again
                count = min(max(1, total // self.stride), self.num_frames)
                spread = np.linspace(0, total, count)
                return [*np.minimum(spread, total - 1).astype(int).tolist(), *[total - 1] * (self.num_frames - count)]
            start = min(int(numbers[0] * (total - window)), total - window - 1)
            return np.minimum(np.linspace(start, start + window, self.num_frames), start + window - 1).astype(int).tolist()

        return pick

    def placed(self, number: int, count: int) -> Callable[[int], list[int]]:
        """The frames of clip ``number`` of ``count`` that are evenly placed.

        Of dense clips the first starts as early as can be, the last as late; a single one stands in the middle. Of segments, each is cut
        in ``count`` parts, and a clip takes the frames in the middle of its parts.
        """
        if self.kind == "segments":
            return self._frames([(number + 0.5) / count] * self.num_frames)
        return self._frames([number / (count - 1) if count > 1 else 0.5] * self.num_frames)

    def _frames(self, places: Sequence[float]) -> Callable[[int], list[int]]:
        """Frames by the share of the window's way (dense), or of the way through every segment."""
        last = self.num_frames - 1

        def pick(total: int) -> list[int]:
            if self.kind == "segments":
                return [min(int((k + place) * total / self.num_frames), total - 1) for k, place in enumerate(places)]
            latest = max(0, total - (last * self.stride + 1))
            start = min(int(places[0] * (latest + 1)), latest)
            return [min(start + k * self.stride, total - 1) for k in range(self.num_frames)]

        return pick


class LabelledVideos(FileReader):
    """The videos of a list, or of paths and classes; ``get(ids)`` gives ``LabelledViews``.

    Raises:
        OSError: where there is no such list.
        ValueError: where it is empty, a line cannot be read, or a video has no class.

    """

    def __init__(self, videos: str | Path | Sequence[tuple[Path, int]], sampling: Sampling, size: int) -> None:
        super().__init__()
        self.sampling = sampling
        self.size = checks.positive_int("size", size, checks.LARGEST_SIDE)
        listed = read_list(videos) if isinstance(videos, (str, Path)) else videos
        if not listed:
            raise ValueError("videos must hold at least one")
        if without := [path for path, label in listed if label < 0]:
            raise ValueError(f"videos must all have a class from 0, {len(without)} have none, such as {without[0]}")
        self.paths = [path for path, _ in listed]
        self.labels = torch.tensor([label for _, label in listed], device="cpu")

    def __len__(self) -> int:
        return len(self.paths)

    @abstractmethod
    def read(self, index: int, id_: int) -> UInt8[Tensor, "V 3 T h w"]:
        """The views of a video."""

    def get(self, ids: Tensor) -> LabelledViews:
        """Views of some videos, by id: ``id % len`` names the video, broken ones passed over."""
        numbers = checks.item_ids(ids)
        if not numbers:
            raise ValueError("ids must name at least one item, got none")
        videos, clips = zip(*(self.readable(number) for number in numbers), strict=True)
        index = torch.tensor(videos, device="cpu")
        return LabelledViews(torch.stack(clips), self.labels[index], index)

    def frames(self, index: int, pick: Callable[[int], list[int]]) -> UInt8[Tensor, "3 T H W"]:
        """Frames of a video at its own size."""
        return read_frames(self.paths[index], pick)


class TrainingViews(LabelledVideos):
    """Clips for training: frames drawn by seed and id, augmented by seed, id and copy.

    With ``copies`` above 1 a video is read once and its frames are augmented several times (repeated augmentation, Hoffer et al. 2019,
    arXiv 1901.09335); copy c of id i is augmented by the numbers of id ``i * copies + c``.
    """

    def __init__(
        self,
        videos: str | Path | Sequence[tuple[Path, int]],
        sampling: Sampling,
        augmentation: ClipAugmentation,
        *,
        copies: int = 1,
        seed: int | None = None,
    ) -> None:
        super().__init__(videos, sampling, augmentation.size)
        self.augmentation = augmentation
        self.copies = checks.positive_int("copies", copies, 64)
        self.seed = checks.seed(seed)

    def read(self, index: int, id_: int) -> UInt8[Tensor, "V 3 T h w"]:
        """The copies of one clip."""
        frames = self.frames(index, self.sampling.drawn(Draws(self.seed, torch.tensor([id_], device="cpu"))))
        ids = view_ids(torch.tensor([id_], device="cpu"), self.copies)
        return torch.stack([self.augmentation(frames, Draws(self.seed, ids[k : k + 1])) for k in range(self.copies)])


def view_ids(ids: Int64[Tensor, " B"], views: int) -> Int64[Tensor, " n"]:
    """An id for each of the views of some ids, view after view of one id after the other."""
    return (ids[:, None] * views + torch.arange(views, device="cpu")).flatten()


class EvaluationViews(LabelledVideos):
    """Clips for testing: ``clips`` at even places in time, ``crops`` of each at even places along the long side of the frame.

    Frames are resized so that their short side is ``size``, with antialiasing. One clip and one crop are the middle of the video; crops of
    one clip come one after the other.
    """

    def __init__(
        self, videos: str | Path | Sequence[tuple[Path, int]], sampling: Sampling, size: int, *, clips: int = 1, crops: int = 1
    ) -> None:
        super().__init__(videos, sampling, size)
        self.clips = checks.positive_int("clips", clips, 1024)
        self.crops = checks.positive_int("crops", crops, 1024)

    def read(self, index: int, id_: int) -> UInt8[Tensor, "V 3 T h w"]:
        """The views of one video, which is decoded once."""
        picks = [self.sampling.placed(k, self.clips) for k in range(self.clips)]
        frames = self.frames(index, lambda total: [frame for pick in picks for frame in pick(total)])  # (3, clips * T, H, W)
        return torch.cat([even_crops(clip, self.size, self.crops) for clip in frames.chunk(self.clips, 1)])


def even_crops(clip: UInt8[Tensor, "3 T H W"], size: int, crops: int) -> UInt8[Tensor, "crops 3 T size size"]:
    """Square crops of frames whose short side is resized to ``size``: from one end of the long side to the other, or one in the middle."""
    h, w = clip.shape[2:]
    scale = size / min(h, w)
    frames = resize(clip, (max(size, round(h * scale)), max(size, round(w * scale))))
    room = max(frames.shape[2:]) - size
    starts = [round(k * room / (crops - 1)) for k in range(crops)] if crops > 1 else [room // 2]
    dimension = 2 if frames.shape[2] > size else 3
    return torch.stack([frames.narrow(dimension, start, size) for start in starts])


def low_shot(videos: Sequence[tuple[Path, int]], shots: int, seed: int = 0) -> list[tuple[Path, int]]:
    """As many videos of every class as ``shots``, in the order of the list; those of fewer shots are among those of more."""
    checks.positive_int("shots", shots, 2**31)
    labels = torch.tensor([label for _, label in videos], device="cpu")
    counts = labels.bincount()
    classes = counts.nonzero()[:, 0]
    if (fewest := int(counts[classes].min())) < shots:
        raise ValueError(
            f"shots must be at most {fewest}, as many as class {(counts == fewest).nonzero()[0].item()} has videos, got {shots}"
        )
    (number,) = Draws(checks.seed(seed), torch.arange(len(videos), device="cpu")).uniform("low shot", 1)
    order = number.argsort(stable=True)
    chosen = torch.cat([order[labels[order] == label][:shots] for label in classes])
    return [videos[k] for k in sorted(chosen.tolist())]
