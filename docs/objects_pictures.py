"""Make the animations of the page about objects, bends and the camera: `python docs/objects_pictures.py` writes docs/images/."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pseudomotion import PMG, Objects
from pseudomotion.images import builtin_picture, load_image
from pseudomotion.images.synthetic import DeadLeaves, Shaders

SIDE, FRAMES, GAP = 112, 16, 4
FOLDER = Path(__file__).parent / "images"


def make() -> None:
    """Write the animations."""
    images = torch.stack([builtin_picture(256, 256), load_image(FOLDER / "chelsea.jpg"), *Shaders(size=256).get(torch.tensor([3, 8]))])
    textures = torch.cat([Shaders(size=160).get(torch.arange(20, 32)), DeadLeaves(size=160).get(torch.arange(4))])
    mixed = Objects(count=(4, 6), bend=(0.0, 0.3), feather=(1.0, 4.0))
    ids = torch.arange(4)

    def clips(pmg: PMG) -> list[np.ndarray]:
        shape = None if pmg.objects is None else textures.shape
        plan = pmg.plan(images.shape, ids=ids, textures=shape)
        found = pmg.render(images, plan, textures=None if shape is None else textures)
        return [clip.permute(1, 2, 3, 0).numpy() for clip in found]

    def pmg(transforms: tuple[str, ...] = ("zoom", "affine"), objects: Objects | None = None, exposure: float = 0.0) -> PMG:
        return PMG(
            transforms, FRAMES, SIDE, padding_mode="reflection", objects=objects, exposure=exposure, subframes=8, renderer="reference"
        )

    _save("objects", [clips(pmg(objects=mixed))])
    _save("objects-presets", [clips(pmg(objects=objects)) for objects in (None, Objects.yu2024(), Objects.smile2025())])
    fast = Objects(count=(3, 4), size=(0.25, 0.4), speed=(0.04, 0.08), feather=(1.0, 4.0))
    _save("exposure", [clips(pmg(("shake", "affine"), fast, exposure)) for exposure in (0.0, 0.5, 1.0)])
    _save("elastic-shake", [clips(pmg((name,))) for name in ("elastic", "shake")])


def _save(name: str, rows: list[list[np.ndarray]]) -> None:
    """Write rows of clips as an endless animation, forward and backward."""
    line = SIDE + GAP
    frames = np.full((FRAMES, len(rows) * line - GAP, len(rows[0]) * line - GAP, 3), 255, dtype=np.uint8)
    for r, row in enumerate(rows):
        for c, clip in enumerate(row):
            frames[:, r * line : r * line + SIDE, c * line : c * line + SIDE] = clip
    first, *rest = (Image.fromarray(frame) for frame in [*frames, *frames[-2:0:-1]])
    first.save(FOLDER / f"{name}.webp", save_all=True, append_images=rest, duration=83, loop=0, quality=55, method=4)


if __name__ == "__main__":
    make()
