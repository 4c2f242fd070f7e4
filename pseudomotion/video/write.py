"""Writing video files."""

import os
from collections.abc import Iterable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion.checks import one_of
from pseudomotion.files import whole_file
from pseudomotion.render import DATA_FORMATS

if TYPE_CHECKING:
    import av

__all__ = ["LARGEST_SIDE", "encode_video", "write_video"]

LARGEST_SIDE = 16384  # of x264's frames

_BT709 = 1  # the code of ITU-R BT.709 for primaries, transfer functions and matrices alike (ITU-T H.273)
_LIMITED_RANGE = 1

Frame = UInt8[np.ndarray, "h w 3"]


def write_video(
    path: str | Path, frames: Tensor | Iterable[Frame], *, fps: float, data_format: str = "BCTHW", crf: int = 18, comment: str = ""
) -> None:
    """Write a clip as H.264 in MP4 that browsers play: yuv420p, tagged as BT.709 in limited range, index first.

    The file appears whole or not at all. A side of odd length is padded by one pixel (edge replication), since yuv420p halves both.

    Args:
        path: of the file, whatever its suffix; an existing file is replaced.
        frames: a clip as ``PMG`` makes it, a tensor ``(C, T, h, w)`` on any device, C = 1 or 3, uint8 or float in [0, 1] (not normalized).
            Or frames one by one: uint8 arrays ``(h, w, 3)``, RGB, all of one size. At least one, at most 16384 pixels on a side.
        fps: frames per second.
        data_format: order of the axes of the batch that a tensor was taken from, as for ``PMG``: with "BTCHW" it is ``(T, C, h, w)``.
        crf: x264's constant rate factor: 0 is lossless, 18 visually lossless, 51 worst.
        comment: text for the file's metadata.

    Raises:
        TypeError, ValueError: for no frames, frames of different sizes or too large ones, and tensors of another shape, dtype or range.
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> from pseudomotion import PMG
        >>> from pseudomotion.images import builtin_picture
        >>> clips = PMG(size=64)(builtin_picture()[None])  # (1, 3, 16, 64, 64)
        >>> write_video(tempfile.mkdtemp() + "/clip.mp4", clips[0], fps=12)

    """
    if isinstance(frames, Tensor):
        frames = _frames_of_clip(frames, data_format)
    import av

    with whole_file(Path(path)) as temporary:
        try:
            # An absolute path: FFmpeg takes what stands before a colon for a protocol.
            _write(os.path.abspath(temporary), frames, fps, {"crf": str(crf)}, "yuv420p", comment)
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from error  # whole_file adds the name


def _frames_of_clip(clip: Tensor, data_format: str) -> UInt8[np.ndarray, "T h w 3"]:
    """The frames of a clip for the encoder, after checks that name what to pass instead."""
    time, channel = one_of("data_format", data_format, DATA_FORMATS).index("T") - 1, data_format.index("C") - 1
    if clip.ndim != 4:
        remedy = "; for the first clip of a batch pass clips[0]" if clip.ndim == 5 else ""
        raise ValueError(f"frames must be a clip of 4 dimensions, got a tensor of shape {tuple(clip.shape)}{remedy}")
    if clip.shape[channel] not in (1, 3):
        other = DATA_FORMATS[1 - DATA_FORMATS.index(data_format)]
        remedy = f'; pass data_format="{other}"' if clip.shape[time] in (1, 3) else ""
        raise ValueError(f"frames must have 1 or 3 channels in {data_format[1:]}, got shape {tuple(clip.shape)}{remedy}")
    if clip.dtype != torch.uint8:
        if not clip.is_floating_point():
            raise TypeError(f"frames must be uint8 or float, got {clip.dtype}")
        low, high = (float(value) for value in clip.detach().aminmax()) if clip.numel() else (0.0, 0.0)
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise ValueError(f"float frames must lie in [0, 1], got values from {low:g} to {high:g}; undo mean and std first")
        clip = (clip.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    clip = clip.movedim((time, channel), (0, 3))  # (T, h, w, C)
    return clip.expand(-1, -1, -1, 3).cpu().numpy()


def encode_video(
    frames: Iterable[Frame], *, fps: float, crf: int = 18, preset: str = "medium", pixel_format: str = "yuv420p", comment: str = ""
) -> bytes:
    """Frames as H.264 in MP4, in memory. Encoded by one thread; the same frames give the same bytes.

    As ``write_video``, but for the index, which comes last.

    Args:
        frames: as for ``write_video``.
        fps: frames per second.
        crf: as for ``write_video``.
        preset: x264's, from "ultrafast" to "veryslow".
        pixel_format: "yuv420p", which every decoder reads, or "yuv444p", which keeps the color of every pixel.
        comment: text for the file's metadata.

    Raises:
        ValueError: as ``write_video``.

    """
    file = BytesIO()
    _write(file, frames, fps, {"crf": str(crf), "preset": preset, "threads": "1"}, pixel_format, comment)
    return file.getvalue()


def _write(file: str | BytesIO, frames: Iterable[Frame], fps: float, options: dict[str, str], pixel_format: str, comment: str) -> None:
    import av

    options_of_mp4 = {"movflags": "+faststart"} if isinstance(file, str) else {}  # it opens the file a second time
    with av.open(file, "w", format="mp4", options=options_of_mp4) as container:
        if comment:
            container.metadata["comment"] = comment
        _encode(container, frames, Fraction(fps).limit_denominator(1001), options, pixel_format)


def _encode(
    container: "av.container.OutputContainer", frames: Iterable[Frame], rate: Fraction, options: dict[str, str], pixel_format: str
) -> None:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        # x264's code for AVX-512 gives some files other bytes (every third one of 14 frames at 224 x 224); all its other code agrees.
        options = options | {"x264-params": "asm=avx2"}
    stream = None
    for frame in frames:
        if pixel_format == "yuv420p":
            frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        h, w = frame.shape[:2]
        if stream is None:
            if max(h, w) > LARGEST_SIDE:
                raise ValueError(f"frames must be at most {LARGEST_SIDE} pixels on a side, got {h} x {w}")
            stream = container.add_stream("libx264", rate=rate, options=options)
            stream.height, stream.width, stream.pix_fmt = h, w, pixel_format
            context = stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = _BT709
            context.color_range = _LIMITED_RANGE
        if (h, w) != (stream.height, stream.width):
            raise ValueError(f"frames must be of one size, got {(h, w)} after {(stream.height, stream.width)}")
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
            format=pixel_format,
            src_colorspace=Colorspace.ITU709,
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )
        container.mux(stream.encode(picture))
    if stream is None:
        raise ValueError("frames must hold at least one frame")
    container.mux(stream.encode())
