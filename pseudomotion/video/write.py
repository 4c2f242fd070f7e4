"""Writing video files."""

import os
from collections.abc import Iterable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from pseudomotion.files import whole_file

if TYPE_CHECKING:
    import av

__all__ = ["LARGEST_SIDE", "PIXEL_FORMATS", "encode_video", "write_video"]

LARGEST_SIDE = 16384  # of x264's frames

PIXEL_FORMATS = ("yuv420p", "yuv444p")

_BT709 = 1  # the code of ITU-R BT.709 for primaries, transfer functions and matrices alike (ITU-T H.273)
_LIMITED_RANGE = 1

Frame = UInt8[np.ndarray, "h w 3"]


def write_video(path: str | Path, frames: Iterable[Frame], *, fps: float, crf: int = 18, comment: str = "") -> None:
    """Write frames as H.264 in MP4 that browsers play: yuv420p, tagged as BT.709 in limited range, index first.

    The file appears whole or not at all. A side of odd length is padded by one pixel (edge replication), since yuv420p halves both.

    Args:
        path: of the file, whatever its suffix; an existing file is replaced.
        frames: at least one, RGB, all of one size, at most 16384 pixels on a side.
        fps: frames per second.
        crf: x264's constant rate factor: 0 is lossless, 18 visually lossless, 51 worst.
        comment: text for the file's metadata.

    Raises:
        ValueError: for no frames, frames of different sizes, or frames that are too large.
        OSError: if the file cannot be written.

    """
    import av

    with whole_file(Path(path)) as temporary:
        try:
            # An absolute path: FFmpeg takes what stands before a colon for a protocol.
            _write(os.path.abspath(temporary), frames, fps, {"crf": str(crf)}, "yuv420p", comment)
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from error  # whole_file adds the name


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
