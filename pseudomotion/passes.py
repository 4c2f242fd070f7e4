"""Grouping of clips for rendering: a *pass* holds clips that are painted with the same operations.

Passes are found on the host when a plan is made. Rendering therefore never reads a value back from the device, and ``torch.compile``
meets no data-dependent branch.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from pseudomotion import color as color_maps
from pseudomotion import geometry, outline
from pseudomotion.motion import Motion


class Pass(NamedTuple):
    """Clips that are painted with the same operations."""

    clips: Int64[Tensor, " n"]
    recursive: bool  # frame t >= 1 reads frame t-1
    steady: bool  # the homography is the same for all frames t >= 1, and nothing is bent
    colored: bool  # some color map is not the identity
    levels: tuple[int, int]  # lowest and highest level of the image pyramid that any frame reads
    bent: bool  # some frame is bent
    shape: int  # of the outlines of a layer; a back is a box


def find_detail(
    homography: Float32[np.ndarray, "*b T 3 3"], recursive: Bool[np.ndarray, "*b"], frame_size: tuple[int, int]
) -> Float64[np.ndarray, "*b T"]:
    """Level of the image pyramid that every frame reads, fractional between two; 0 for frames that read the previous frame.

    Bends are left out: the scale is that of the homography at the frame's center.
    """
    first = homography[..., :1, :, :] if recursive.all() else homography
    with np.errstate(all="ignore"):  # a homography that maps nothing into the frame may be singular
        scale = np.nan_to_num(geometry.source_scale(first.astype(np.float64), frame_size), nan=1.0, posinf=1.0)
    detail = np.zeros(homography.shape[:-2])
    detail[..., : scale.shape[-1]] = geometry.level_of_detail(scale)
    detail[recursive, 1:] = 0
    return detail


def find_passes(
    motion: Motion,
    recursive: Bool[np.ndarray, " n"],
    detail: Float64[np.ndarray, "n T"],
    clips: Int64[np.ndarray, " n"],
    shape: Int64[np.ndarray, " n"] | None = None,
) -> tuple[Pass, ...]:
    """Group n clips by how they are painted.

    Args:
        motion: numpy arrays ``(n, T, ...)``.
        recursive: whether frames after the first read the one before.
        detail: level of the image pyramid that every frame reads.
        clips: positions of the clips in the batch.
        shape: of a layer's outlines; None: boxes.

    """
    homography, bend = motion.homography, motion.bend
    assert bend is not None
    read = np.where(recursive[:, None], detail[:, :1], detail)  # (n, T)
    bent = bend.any((1, 2, 3, 4))
    keys = np.stack(
        [
            recursive,
            (homography[:, 1:] == homography[:, 1:2]).all((1, 2, 3)) & ~bent,
            (motion.color != color_maps.IDENTITY).any((1, 2, 3)),
            np.floor(read.min(1)),
            np.ceil(read.max(1)),
            bent,
            np.full(len(clips), outline.BOX) if shape is None else shape,
        ],
        -1,
    ).astype(np.int64)
    return tuple(
        Pass(
            torch.from_numpy(clips[(keys == key).all(1)]), bool(key[0]), bool(key[1]), bool(key[2]), (key[3], key[4]), bool(key[5]), key[6]
        )
        for key in dict.fromkeys(map(tuple, keys.tolist()))
    )
