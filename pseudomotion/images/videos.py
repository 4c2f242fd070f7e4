"""One frame of every video of a list."""

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.source import Source
from pseudomotion.video.list_file import read_list
from pseudomotion.video.read import BACKENDS, read_clip


class VideoFrames(Source):
    """A random frame of every video as the image (paper, section 4).

    Which frame is drawn from the seed and the video's number: always the same one. Another seed takes other frames.

    Args:
        list_file: lines of "path label", or of paths alone; ``pseudomotion.video.list_file`` has the details.
        size: of the images, an int or ``(h, w)``: resized with antialiasing, the middle cut out.
        seed: any integer of 64 bits; None is 0.
        strict: raise at the first broken file in place of skipping it.
        backend: as for ``pseudomotion.video.read_clip``.

    Raises:
        OSError: where there is no such list.
        ValueError: where it is empty, or a line cannot be read.

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
