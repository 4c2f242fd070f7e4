"""One frame of each video in a list, as an image."""

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.source import FileSource
from pseudomotion.video.list_file import read_list
from pseudomotion.video.read import BACKENDS, read_clip


class VideoFrames(FileSource):
    """A random frame of every video as the image (paper, section 4).

    The frame is drawn from the seed and the video's index in the list, so it is the same in every epoch.

    Args:
        list_file: one line per video, "path label" or a path alone; see ``pseudomotion.video.list_file``.
        size: of the images, an int or ``(h, w)``: resized with antialiasing, center-cropped to its aspect ratio.
        seed: any integer of 64 bits; None is 0.
        strict: raise at the first broken file instead of skipping it.
        backend: as for ``pseudomotion.video.read_clip``.

    Raises:
        OSError: if there is no such list.
        ValueError: if it is empty, or a line cannot be parsed.

    Example:
        >>> import torch
        >>> from pseudomotion.images import VideoFrames
        >>> source = VideoFrames("train.csv", size=32)
        >>> source.get(torch.arange(2)).shape
        torch.Size([2, 3, 32, 32])

    """

    def __init__(
        self,
        list_file: str | Path,
        size: int | tuple[int, int],
        *,
        seed: int | None = None,
        strict: bool = False,
        backend: str = "pyav",
    ) -> None:
        super().__init__(strict=strict)
        self.size = checks.item_size(size)
        self.seed = checks.seed(seed)
        self.backend = checks.one_of("backend", backend, BACKENDS)
        self.paths = [path for path, _ in read_list(list_file)]

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.paths)

    def read(self, index: int, id_: int) -> UInt8[Tensor, "3 h w"]:
        """One frame."""
        share = float(Draws(self.seed, torch.tensor([index], device="cpu")).uniform("video frame", 1)[0])
        return read_clip(self.paths[index], 1, 1, share, size=self.size, backend=self.backend)[:, 0]
