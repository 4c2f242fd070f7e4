"""Video Perlin noise for masked modeling (paper, Table 10)."""

import torch
from torch import Tensor

from pseudomotion.baselines import PerlinVideo


class PerlinClips:
    """Clips of video Perlin noise without their labels, for ids without end.

    Args:
        num_frames: T.
        size: side of the frames in pixels.
        limit: number of different clips, the first ones, which are from all classes alike; None for all.
        seed: of the noise.
        device: where it is made.

    """

    def __init__(self, num_frames: int, size: int, limit: int | None, seed: int, device: torch.device) -> None:
        self.clips = PerlinVideo(num_frames=num_frames, size=size, seed=seed, device=device)
        if limit is not None and not 0 < limit <= len(self.clips):
            raise ValueError(f"limit must be from 1 to the {len(self.clips)} clips there are, got {limit}")
        self.limit = limit or len(self.clips)

    def __len__(self) -> int:
        """Number of different clips."""
        return self.limit

    def get(self, ids: Tensor) -> Tensor:
        """uint8 clips ``(B, 3, T, size, size)`` of some ids, at least 0."""
        return self.clips.get(ids % self.limit)[0]
