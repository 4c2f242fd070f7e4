"""Reading clips from video files, with PyAV or torchcodec."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.files import check_input

if TYPE_CHECKING:
    import av

__all__ = ["BACKENDS", "open_video", "read_clip", "read_frames"]

BACKENDS = ("pyav", "torchcodec")

# Failures of the system, not of the file.
_OF_SYSTEM = {errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT, errno.EINTR, errno.EAGAIN}
# FFmpeg reports both for broken files too, so that the file is tried again before it is called broken.
_AMBIGUOUS = {errno.EIO, errno.ENOMEM}
# FFmpeg makes up time stamps for formats that store none; where such codecs reorder frames, it gets their order wrong.
_WITHOUT_TIMES = {"avi", "h264", "hevc", "vvc"}
_REORDERED = {"h264", "hevc", "vvc"}
_WIDEST = 4  # pixel aspect ratios beyond 1:4 and 4:1 are taken for errors of the file

Frame = UInt8[np.ndarray, "h w 3"]
Start = int | float | str


def read_clip(
    path: str | Path,
    num_frames: int = 16,
    stride: int = 4,
    start: Start = "center",
    *,
    size: int | tuple[int, int] | None = None,
    backend: str = "pyav",
) -> UInt8[Tensor, "3 T h w"]:
    """Frames of a video file at a constant stride.

    Frames are those that FFmpeg shows, counted in the order in which they are shown, whatever their rate; frame k is the same whatever else
    is read. A video shorter than the clip repeats its last frame. Rotation stored in the file is applied, non-square pixels are scaled to
    square ones (the height stays), and 10-bit video is rounded to 8. Of several video streams the largest is read, except cover pictures.

    Args:
        path: of any format that FFmpeg reads.
        num_frames: T.
        stride: from one frame of the clip to the next, in frames of the video.
        start: the first frame, counted from 0; or a float from 0 (the beginning) to 1 (the last place from which all frames exist); or
            "center"; or "random", drawn from torch's default generator.
        size: ``(h, w)`` or an int: antialiased resize that covers it, then center crop. None: the video's own.
        backend: "pyav", or "torchcodec" if it is installed. Both count and pick the same frames.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if the system does not let it be opened, such as for too many open files.
        ValueError: if the file is no video, has no video stream or no frames, or is broken; for arguments out of range.
        ImportError: for "torchcodec", if it is not installed.

    Example:
        >>> from pseudomotion.video import read_clip
        >>> read_clip("clip.mp4", num_frames=4, stride=2, size=32).shape
        torch.Size([3, 4, 32, 32])

    """
    checks.positive_int("num_frames", num_frames, checks.MOST_FRAMES)
    checks.positive_int("stride", stride, checks.MOST_FRAMES)
    share = _start(start)
    return read_frames(path, lambda total: strided(total, num_frames, stride, share), size=size, backend=backend)


def read_frames(
    path: str | Path,
    pick: Callable[[int], Sequence[int]],
    *,
    size: int | tuple[int, int] | None = None,
    backend: str = "pyav",
) -> UInt8[Tensor, "3 T h w"]:
    """Any frames of a video file; counting, rotation and pixel aspect as in ``read_clip``.

    Args:
        path: of any format that FFmpeg reads.
        pick: given the number of frames, returns which to read: at least one number from 0 to that, exclusive, in any order.
        size: as for ``read_clip``.
        backend: as for ``read_clip``.

    Raises:
        OSError, ValueError, ImportError: as ``read_clip``.

    Example:
        >>> from pseudomotion.video import read_frames
        >>> read_frames("clip.mp4", lambda n: [0, n // 2, n - 1]).shape
        torch.Size([3, 3, 32, 32])

    """
    sides = checks.frame_size(size)
    read = {"pyav": _read_pyav, "torchcodec": _read_torchcodec}[checks.one_of("backend", backend, BACKENDS)]
    try:
        return read(Path(path), pick, sides)
    except ValueError as error:
        if getattr(error.__cause__, "errno", None) not in _AMBIGUOUS:
            raise
    return read(Path(path), pick, sides)


@contextmanager
def open_video(path: Path, **options: str) -> Iterator[tuple["av.container.InputContainer", "av.VideoStream"]]:
    """Open a video file; gives its container and the stream to read: the largest that is not a cover picture, of equals the first.

    Every error of PyAV inside the block becomes one that names the file. Metadata may be in any encoding.

    Args:
        path: of the file.
        options: of FFmpeg's demuxer.

    Raises:
        OSError, ValueError: as ``read_clip``.

    """
    import av

    check_input(path)
    try:
        # An absolute path: FFmpeg takes what stands before a colon for a protocol.
        with av.open(os.path.abspath(path), metadata_errors="replace", options=options) as container:
            yield container, _best_stream(container, path)
    except av.FFmpegError as error:
        if error.errno in _OF_SYSTEM:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RuntimeError) as error:  # PyAV's own, for what it does not know
        if str(path) in str(error):
            raise
        raise ValueError(f"cannot read {path}: {error}") from error


def _start(start: Any) -> int | float:
    """The first frame, or its position as a fraction."""
    if isinstance(start, str):
        if checks.one_of("start", start, ("center", "random")) == "center":
            return 0.5
        return float(torch.rand((), dtype=torch.float64, device="cpu"))
    if isinstance(start, bool) or not isinstance(start, (int, float)):
        raise TypeError(f'start must be an int, a float, "center" or "random", got {start!r}')
    if start < 0 or (isinstance(start, float) and start > 1):
        raise ValueError(f"start must be a frame from 0, or a share from 0.0 to 1.0, got {start!r}")
    return start


def strided(total: int, num_frames: int, stride: int, start: int | float) -> list[int]:
    """The frames of a clip, among ``total``; ``start`` as for ``read_clip``, a number."""
    if isinstance(start, float):
        latest = max(0, total - ((num_frames - 1) * stride + 1))
        start = min(int(start * (latest + 1)), latest)
    return [min(start + k * stride, total - 1) for k in range(num_frames)]


def _read_pyav(path: Path, pick: Callable[[int], Sequence[int]], size: tuple[int, int] | None) -> Tensor:
    with open_video(path) as (container, stream):
        times = _times_of_packets(container, stream, path)
        if times is None:
            times = _times_of_frames(path)
        if not times:
            raise ValueError(f"cannot read {path}: it holds no video frames")
        wanted = pick(len(times))
        in_order = sorted(set(wanted))
        frames = _from_keyframe(container, stream, times, in_order, size)
    if not set(wanted) <= set(frames):
        with open_video(path) as (container, stream):
            frames = _collect(_numbered(container.decode(stream), times), in_order, size, stream.sample_aspect_ratio)
    if not frames:
        raise ValueError(f"cannot read {path}: none of its frames can be decoded")
    return _clip(frames, wanted)


def _best_stream(container: "av.container.InputContainer", path: Path) -> "av.VideoStream":
    import av

    cover = av.stream.Disposition.attached_pic
    videos = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not videos:
        raise ValueError(f"cannot read {path}: it has no video stream")
    known = [stream for stream in videos if stream.codec_context is not None]
    if not known:
        raise ValueError(f"cannot read {path}: its video is of an unknown codec")
    return max(known, key=lambda stream: stream.width * stream.height)


def _times_of_packets(container: "av.container.InputContainer", stream: "av.VideoStream", path: Path) -> Sequence[int | None] | None:
    """When each frame is shown, in order, read from the packets without decoding; None if only decoding tells.

    Raises:
        ValueError: if the file is cut off.

    """
    packets, shown = 0, []
    for packet in container.demux(stream):
        packets += packet.size > 0
        if packet.size and not packet.is_discard:
            shown.append((packet.pts, packet.is_keyframe))
    promised = stream.frames if "mp4" in container.format.name else 0  # others only estimate
    if packets < promised:
        # What an edit list hides is not read either, so it is counted without one.
        with open_video(path, ignore_editlist="1") as (every, same):
            if sum(1 for packet in every.demux(same) if packet.size) < promised:
                raise ValueError(f"cannot read {path}: the file is cut off")
    if container.format.name in _WITHOUT_TIMES and stream.codec_context.name in _REORDERED:
        return None
    times = [time for time, _ in shown if time is not None]
    if len(set(times)) < len(shown):
        return None
    # Frames before the first keyframe may or may not be shown.
    starts_at_keyframe = not shown or shown[0] == (min(times), True)
    return sorted(times) if starts_at_keyframe else None


def _times_of_frames(path: Path) -> Sequence[int | None]:
    """When each frame is shown, by decoding them all."""
    with open_video(path) as (container, stream):
        return [frame.pts for frame in container.decode(stream)]


def _from_keyframe(
    container: "av.container.InputContainer",
    stream: "av.VideoStream",
    times: Sequence[int | None],
    wanted: Sequence[int],
    size: tuple[int, int] | None,
) -> dict[int, Frame]:
    """The wanted frames by their number, decoded from the keyframe before the first; not all of them if that goes wrong."""
    import av

    first = times[wanted[0]]
    if first is None or not _is_increasing(times):
        return {}
    try:
        container.seek(first, stream=stream)
        return _collect(_numbered(container.decode(stream), times), wanted, size, stream.sample_aspect_ratio)
    except av.FFmpegError:
        return {}


def _numbered(decoded: Iterable["av.VideoFrame"], times: Sequence[int | None]) -> Iterator[tuple[int, "av.VideoFrame"]]:
    """Decoded frames with their numbers: by time stamp; if those are not in order, by counting, which must begin at the first frame."""
    if not _is_increasing(times):
        return enumerate(decoded)
    number = {time: k for k, time in enumerate(times)}
    return ((number.get(frame.pts, -1), frame) for frame in decoded)


def _is_increasing(times: Sequence[int | None]) -> bool:
    return None not in times and all(a < b for a, b in pairwise(times))  # type: ignore[operator]


def _collect(
    decoded: Iterable[tuple[int, "av.VideoFrame"]], wanted: Sequence[int], size: tuple[int, int] | None, aspect: Fraction | None
) -> dict[int, Frame]:
    """The wanted frames as RGB. If the decoder gave fewer than were counted, its last frame is kept."""
    frames: dict[int, Frame] = {}
    last, latest = wanted[-1], None
    for k, frame in decoded:
        if k in wanted:
            frames[k] = _to_rgb(frame, size, aspect)
        latest = (k, frame)
        if k >= last:
            break
    if latest is not None and 0 <= latest[0] < last:
        frames[latest[0]] = _to_rgb(latest[1], size, aspect)
    return frames


def _to_rgb(frame: "av.VideoFrame", size: tuple[int, int] | None, aspect: Fraction | None) -> Frame:
    """A decoded frame upright and with square pixels; with ``size``, resized by FFmpeg (bicubic, antialiased) to cover it, and cropped."""
    turns = round(frame.rotation / 90) % 4
    rgb = frame.reformat(format="rgb24")  # first: resizing in yuv420p shifts the colors by part of a pixel
    h, w = frame.height, _square_width(frame.width, aspect)
    if size is not None:
        height, width = size if turns % 2 == 0 else size[::-1]
        scale = max(height / h, width / w)
        h, w = max(height, round(h * scale)), max(width, round(w * scale))
    picture = rgb.reformat(width=w, height=h, interpolation="BICUBIC").to_ndarray()
    if size is not None:
        top, left = (h - height) // 2, (w - width) // 2
        picture = picture[top : top + height, left : left + width]
    return np.rot90(picture, turns)


def _square_width(width: int, aspect: Fraction | None) -> int:
    """The width that makes pixels square."""
    if not aspect or not 1 / _WIDEST <= aspect <= _WIDEST:
        return width
    return max(1, round(width * aspect))


def _clip(frames: dict[int, Frame], wanted: Sequence[int]) -> Tensor:
    """The wanted frames as a clip; instead of one that is missing, the last one before it."""
    picked = [frames[max((k for k in frames if k <= want), default=min(frames))] for want in wanted]
    return torch.from_numpy(np.ascontiguousarray(np.stack(picked).transpose(3, 0, 1, 2)))  # (3, T, h, w)


def _read_torchcodec(path: Path, pick: Callable[[int], Sequence[int]], size: tuple[int, int] | None) -> Tensor:
    from PIL import Image, ImageOps
    from torchcodec.decoders import VideoDecoder

    with open_video(path) as (_, stream):
        index, aspect, coded = stream.index, stream.sample_aspect_ratio, (stream.height, stream.width)
    try:
        decoder = VideoDecoder(os.path.abspath(path), stream_index=index, seek_mode="exact", dimension_order="NHWC")
        frames = decoder.get_frames_at(list(pick(len(decoder)))).data.numpy()  # (T, h, w, 3), upright
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    h, w = frames.shape[1:3]
    square = (h, _square_width(w, aspect)) if (h, w) == coded else (_square_width(h, aspect), w)  # else it was turned by 90 degrees
    if size is not None or square != (h, w):
        pictures = [
            Image.fromarray(f).resize(square[::-1], Image.Resampling.BICUBIC) if square != (h, w) else Image.fromarray(f) for f in frames
        ]
        frames = np.stack([np.asarray(p if size is None else ImageOps.fit(p, size[::-1], Image.Resampling.BICUBIC)) for p in pictures])
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2)))  # (3, T, h, w)
