"""What ``pmg-validate`` learns from: textures to pre-train on, and labelled clips of the motion probe."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from pseudomotion.images.synthetic import DeadLeaves, Mixture, Noise
from pseudomotion.train.probe import MotionProbe, Motions

AT_ONCE = 256
SPARE = 1.5  # side of the images over that of the frames


class Labelled(NamedTuple):
    """Labelled clips."""

    clips: UInt8[Tensor, "N T 3 h w"]
    labels: Int64[Tensor, " N"]


@dataclass(frozen=True)
class Data:
    """What all trials share; no image serves two of the three purposes."""

    images: UInt8[Tensor, "N 3 H W"]
    train: Labelled
    test: Labelled

    def one_frame(self) -> "Data":
        """The same, but all clips stand still at their middle frame."""
        return Data(self.images, *(Labelled(_still(part.clips), part.labels) for part in (self.train, self.test)))


def make_data(*, images: int, train_clips: int, test_clips: int, num_frames: int, size: int, light: float, device: torch.device) -> Data:
    """Images and labelled clips, the same for the same numbers.

    Args:
        images: number to pre-train on; as many others make the clips for training, and half as many those for testing.
        train_clips: number of clips.
        test_clips: number of clips.
        num_frames: T.
        size: side of the frames in pixels.
        light: of the probe's background, see ``Motions``.
        device: where all is made and kept.

    """
    counts = [images, images, max(2, images // 2)]
    parts = torch.split(textures(sum(counts), int(size * SPARE), device), counts)
    train, test = (
        _clips(MotionProbe(part, num_frames, size, seed, motions=Motions(light=light)), count)
        for seed, (part, count) in enumerate(((parts[1], train_clips), (parts[2], test_clips)))
    )
    return Data(parts[0], train, test)


def textures(n: int, side: int, device: torch.device) -> UInt8[Tensor, "n 3 side side"]:
    """Grey textures, smooth ones and some with edges: three independent channels would be three times as much to learn."""
    noise = Noise(size=side, exponent=(1.5, 3.0), device=device)
    leaves = DeadLeaves(200, radius=(0.08, 0.5), size=side, device=device)
    source = Mixture({noise: 0.8, leaves: 0.2}, size=side, device=device)
    made = torch.cat([source.get(ids) for ids in torch.split(torch.arange(n), AT_ONCE)])
    return made[:, :1].repeat(1, 3, 1, 1)


def _clips(probe: MotionProbe, count: int) -> Labelled:
    parts = [probe.get(ids) for ids in torch.split(torch.arange(count), AT_ONCE)]
    return Labelled(torch.cat([clips for clips, _ in parts]), torch.cat([labels for _, labels in parts]))


def _still(clips: Tensor) -> Tensor:
    middle = clips.shape[1] // 2
    return clips[:, middle : middle + 1].expand_as(clips)
