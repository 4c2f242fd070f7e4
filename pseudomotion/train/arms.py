"""What ``pmg-validate`` compares: ways to pre-train, by name. Not from the paper, but for the three that the paper has too."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pseudomotion import PMG, Mixup
from pseudomotion.train.videomae.model import IMAGENET_MEAN, IMAGENET_STD
from pseudomotion.transforms import TRANSFORMS, Affine, Transform, Zoom

PAPER_FRAMES = 16
CROP = (0.44, 1.0)


@dataclass(frozen=True)
class Arm:
    """A way to pre-train.

    Args:
        title: for tables.
        transforms: of the clips that are pre-trained on; none for no pre-training at all.
        mixup: mix the clips in pairs.
        padding_mode: as for ``PMG``.
        resampling: as for ``PMG``.
        strength: of zoom and affine, 1 for as much motion in a clip as the defaults of ``PMG`` make in 16 frames.
        one_frame: train and test on clips that stand still at a single frame, which must not do better than chance.

    """

    title: str
    transforms: tuple[str, ...] = ()
    mixup: bool = False
    padding_mode: str = "zeros"
    resampling: str = "recursive"
    strength: float = 1.0
    one_frame: bool = False

    def pmg(self, num_frames: int, size: int, seed: int) -> PMG:
        """The generator of its clips, ready for a VideoMAE model."""
        return PMG(
            transforms(self.transforms, self.strength, num_frames),
            num_frames,
            size,
            resampling=self.resampling,
            padding_mode=self.padding_mode,
            crop=CROP,
            mix=Mixup() if self.mixup else None,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            dtype=torch.float32,
            data_format="BTCHW",
            seed=seed,
        )


BEST = ("zoom", "affine")  # the paper's best set (Table 3)

ARMS: Mapping[str, Arm] = {
    "scratch": Arm("from scratch"),
    "identity": Arm("identity", ("identity",)),
    "zoom-affine": Arm("zoom + affine", BEST),
    "zoom-affine-mixup": Arm("zoom + affine + mixup", BEST, mixup=True),
    "border": Arm("zoom + affine, border padding", BEST, padding_mode="border"),
    "reflection": Arm("zoom + affine, reflection padding", BEST, padding_mode="reflection"),
    "composed": Arm("zoom + affine, composed", BEST, resampling="composed"),
    "gentle": Arm("zoom + affine, half the strength", BEST, strength=0.5),
    "strong": Arm("zoom + affine, double the strength", BEST, strength=2.0),
    "cutmix": Arm("cutmix", ("cutmix",)),
    "all": Arm("all transforms", tuple(TRANSFORMS)),
    "one-frame": Arm("from scratch, one frame only", one_frame=True),
}
DEFAULT_ARMS = ("scratch", "identity", "zoom-affine", "zoom-affine-mixup")


def transforms(names: tuple[str, ...], strength: float, num_frames: int) -> tuple[str | Transform, ...]:
    """Transforms by name; zoom and affine with steps as much larger as a clip has fewer of them than the paper's 16 frames.

    Ranges are per step, made for fifteen steps. In a clip of six frames they would move a picture by a third of that, which is less than
    a token where frames are small.
    """
    k = strength * (PAPER_FRAMES - 1) / (num_frames - 1)
    low, high = Zoom().ratio
    affine = Affine()
    scaled: dict[str, Transform] = {
        "zoom": Zoom(ratio=(low**k, high**k)),
        "affine": Affine(
            degrees=(affine.degrees[0] * k, affine.degrees[1] * k),
            translate=(affine.translate[0] * k, affine.translate[1] * k),
            scale=(affine.scale[0] ** k, affine.scale[1] ** k),
            shear=(affine.shear[0] * k, affine.shear[1] * k),
        ),
    }
    return tuple(scaled.get(name, name) for name in names)
