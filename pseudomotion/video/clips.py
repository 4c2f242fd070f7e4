"""Clips of the videos in a list file."""

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.source import FileSource
from pseudomotion.video.list_file import read_list
from pseudomotion.video.read import BACKENDS, read_clip

STARTS = ("random", "center")


class VideoClips(FileSource):
    """Real clips, one of each video in a list of VideoMAE's format.

    ``get(ids)`` returns uint8 ``(B, 3, T, h, w)``; ``pseudomotion.images.batches`` reads it in worker processes.

    Args:
        list_file: lines of "path label"; see ``pseudomotion.video.list_file.read_list``.
        num_frames: T.
        stride: from one frame of the clip to the next, in frames of the video.
        size: of the frames, an int or ``(h, w)``: antialiased resize, center crop.
        start: "random": drawn by seed and id, so that every epoch sees another part of the video; or "center".
        seed: any integer of 64 bits; None is 0.
        strict: raise an error for a broken file instead of skipping it.
        backend: as for ``read_clip``.

    Attributes:
        paths: of the videos.
        labels: int64 ``(N,)``; -1 for videos without a label.

    Raises:
        OSError: if there is no such list.
        ValueError: if it is empty, or a line cannot be read; for arguments out of range.

    Example:
        >>> import torch
        >>> from pseudomotion.video import VideoClips
        >>> videos = VideoClips("train.csv", num_frames=4, stride=2, size=32)
        >>> videos.get(torch.arange(2)).shape
        torch.Size([2, 3, 4, 32, 32])

    """

    def __init__(
        self,
        list_file: str | Path,
        num_frames: int = 16,
        stride: int = 4,
        size: int | tuple[int, int] = 224,
        *,
        start: str = "random",
        seed: int | None = None,
        strict: bool = False,
        backend: str = "pyav",
    ) -> None:
        super().__init__(strict=strict)
        self.num_frames = checks.positive_int("num_frames", num_frames, checks.MOST_FRAMES)
        self.stride = checks.positive_int("stride", stride, checks.MOST_FRAMES)
        self.size = checks.item_size(size)
        self.start = checks.one_of("start", start, STARTS)
        self.seed = checks.seed(seed)
        self.backend = checks.one_of("backend", backend, BACKENDS)
        videos = read_list(list_file)
        self.paths = [path for path, _ in videos]
        self.labels = torch.tensor([label for _, label in videos], device="cpu")

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.paths)

    def read(self, index: int, id_: int) -> UInt8[Tensor, "3 T h w"]:
        """One clip."""
        share = float(Draws(self.seed, torch.tensor([id_], device="cpu")).uniform("video start", 1)[0]) if self.start == "random" else 0.5
        return read_clip(self.paths[index], self.num_frames, self.stride, share, size=self.size, backend=self.backend)
