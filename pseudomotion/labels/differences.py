"""Frame difference as a measure of motion, and halves of a dataset ranked by it, as the paper compares them (Table 13)."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from torch import Tensor
from tqdm import tqdm

from pseudomotion import checks
from pseudomotion.render.output import DATA_FORMATS, to_unit
from pseudomotion.video.list_file import parse_line, read_lines
from pseudomotion.video.read import open_video

__all__ = ["Halves", "frame_difference", "split_by_difference"]

COMMON_SIZE = (112, 112)  # (h, w) to which frames of files are resized


@dataclass(frozen=True)
class Halves:
    """Three overlapping halves of a list of videos, as lines of the list in their original order, and the videos skipped."""

    top: list[str]  # largest frame difference
    middle: list[str]  # 25th to 75th percentile
    bottom: list[str]  # smallest frame difference
    differences: dict[str, float]  # frame difference, for every line whose video could be read
    skipped: dict[str, str]  # reason, for every other line


@overload
def frame_difference(
    clips: Tensor, *, stride: int = ..., data_format: str = ..., size: tuple[int, int] | None = ...
) -> Float64[Tensor, " B"]: ...


@overload
def frame_difference(clips: str | Path, *, stride: int = ..., data_format: str = ..., size: tuple[int, int] | None = ...) -> float: ...


def frame_difference(
    clips: Tensor | str | Path, *, stride: int = 1, data_format: str = "BCTHW", size: tuple[int, int] | None = COMMON_SIZE
) -> Float64[Tensor, " B"] | float:
    """Mean absolute difference of successive frames over pixels, channels and time, of values in [0, 1].

    The paper's Table 13 sorts videos by "frame difference" without defining it; this is the simplest reading. It grows with camera motion,
    and also with cuts, flicker and noise.

    Args:
        clips: ``(B, C, T, h, w)`` or ``(B, T, C, h, w)``, uint8 or float in [0, 1]; or the path of a video file.
        stride: distance between compared frames, in frames.
        data_format: order of the clips' axes, "BCTHW" or "BTCHW".
        size: ``(h, w)`` to which a file's frames are resized, so that files of different sizes are comparable. None: not resized. If a file
            has several video streams, the same one as in ``read_clip`` is used.

    Returns:
        ``(B,)`` for clips, a float for a file.

    Raises:
        TypeError: for clips that are neither uint8 nor float.
        ValueError: for fewer than two frames, and for a file that is broken or not a video.
        OSError: if the file cannot be opened.

    Example:
        >>> import torch
        >>> from pseudomotion.labels import frame_difference
        >>> frame_difference(torch.rand(2, 3, 4, 112, 112)).shape
        torch.Size([2])

    """
    stride = checks.positive_int("stride", stride, checks.LARGEST_SIDE)
    if isinstance(clips, Tensor):
        checks.one_of("data_format", data_format, DATA_FORMATS)
        checks.clips(clips)
        frames = clips.movedim(2 if data_format == "BCTHW" else 1, 0)[::stride]
        if len(frames) < 2:
            raise ValueError(f"clips must have at least two frames at stride {stride}, got {len(frames)}")
        steps = [(to_unit(after) - to_unit(before)).abs().mean((1, 2, 3), dtype=torch.float64) for before, after in pairwise(frames)]
        return torch.stack(steps).mean(0)
    return _difference_of_file(Path(clips), stride, size)


def split_by_difference(
    list_file: str | Path,
    *,
    root: str | Path | None = None,
    stride: int = 1,
    size: tuple[int, int] | None = COMMON_SIZE,
    strict: bool = False,
) -> Halves:
    """Split a list of videos into three overlapping halves: most, medium and least frame difference (paper, Table 13).

    Args:
        list_file: one video per line, ``path label`` or the path alone, as for ``VideoFrames``. Empty lines are ignored.
        root: folder that relative paths start from. None: the folder of the list file.
        stride: as for ``frame_difference``.
        size: as for ``frame_difference``.
        strict: raise an error for a video that cannot be read, instead of skipping it.

    Returns:
        Halves of n // 2 of the n readable videos each, as lines of the file in their original order.

    Raises:
        OSError: if the list file cannot be read or, with ``strict``, a video cannot be opened.
        ValueError: if fewer than two videos can be read or, with ``strict``, a video is broken.

    Warns:
        UserWarning: names the skipped videos and the reasons.

    Example:
        >>> from pseudomotion.labels import split_by_difference
        >>> halves = split_by_difference("train.csv")
        >>> len(halves.top), len(halves.middle), len(halves.bottom)
        (1, 1, 1)

    """
    list_file = Path(list_file)
    folder = Path(root) if root is not None else list_file.parent
    lines = list(dict.fromkeys(line for line in read_lines(list_file) if line.strip()))
    differences: dict[str, float] = {}
    skipped: dict[str, str] = {}
    for line in tqdm(lines, desc="videos", unit="video", delay=2, leave=False):
        try:
            differences[line] = _difference_of_file(folder / parse_line(line)[0], stride, size)
        except (OSError, ValueError) as error:  # noqa: PERF203  one broken file must not end the loop
            if strict:
                raise
            skipped[line] = str(error)
    if len(differences) < 2:
        reasons = "; ".join(skipped.values()) or "nothing was skipped"
        raise ValueError(f"{list_file} must list at least two videos that can be read, got {len(differences)} ({reasons})")
    if skipped:
        warnings.warn(f"skipped {len(skipped)} of {len(lines)} videos: {'; '.join(skipped.values())}", stacklevel=2)
    order = sorted(differences, key=differences.__getitem__)
    half, first = len(order) // 2, (len(order) - len(order) // 2) // 2
    parts = [set(part) for part in (order[len(order) - half :], order[first : first + half], order[:half])]
    top, middle, bottom = ([line for line in differences if line in part] for part in parts)
    return Halves(top, middle, bottom, differences, skipped)


def _difference_of_file(path: Path, stride: int, size: tuple[int, int] | None) -> float:
    total, count, before = 0.0, 0, None
    for number, frame in enumerate(_frames(path, size)):
        if number % stride:
            continue
        if before is not None:
            total += float(np.abs(frame.astype(np.int16) - before).mean()) / 255
            count += 1
        before = frame
    if not count:
        raise ValueError(f"cannot compare frames of {path}: it has fewer than two at stride {stride}")
    return total / count


def _frames(path: Path, size: tuple[int, int] | None) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Decode the frames of a file one at a time, resized to ``size``."""
    with open_video(path) as (container, stream):
        for frame in container.decode(stream):
            h, w = size or (frame.height, frame.width)
            yield frame.reformat(width=w, height=h, format="rgb24", interpolation="AREA").to_ndarray()
