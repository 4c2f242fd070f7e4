"""Reading clips from video files, by PyAV or torchcodec."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion import checks

if TYPE_CHECKING:
    import av

BACKENDS = ("pyav", "torchcodec")
MOST_FRAMES = 4096
Start = int | float | str

Frame = UInt8[np.ndarray, "h w 3"]


def read_clip(
    path: str | Path,
    num_frames: int = 16,
    stride: int = 4,
    start: Start = "center",
    *,
    size: int | tuple[int, int] | None = None,
    backend: str = "pyav",
) -> UInt8[Tensor, "3 T h w"]:
    """Frames of a video file at an even stride.

    Frames are counted as they are shown, whatever their rate. A video shorter than the clip repeats its last frame. Rotation that the file
    asks for is applied; 10-bit video is rounded to 8. Of several video streams the best is read, cover pictures left aside.

    Args:
        path: any format that FFmpeg reads.
        num_frames: T.
        stride: from one frame of the clip to the next, in frames of the video.
        start: the first frame, counted from 0; or its place as a share, a float from 0 (as early as can be) to 1 (as late as all frames
            allow); or "center", or "random", drawn from torch's default generator.
        size: ``(h, w)`` or an int to resize to, antialiased, the middle cut out at its aspect ratio; None for the video's own.
        backend: "pyav", or "torchcodec" where that is installed. Both count and pick the same frames.

    Raises:
        OSError: where there is no such file.
        ValueError: where the file is no video, has no video stream or no frames, or is broken; for arguments outside these.
        ImportError: for "torchcodec", where it is not installed.

    """
    checks.positive_int("num_frames", num_frames, MOST_FRAMES)
    checks.positive_int("stride", stride, MOST_FRAMES)
    share = _start(start)
    return read_frames(path, lambda total: _pick(total, num_frames, stride, share), size=size, backend=backend)


def read_frames(
    path: str | Path,
    pick: Callable[[int], Sequence[int]],
    *,
    size: int | tuple[int, int] | None = None,
    backend: str = "pyav",
) -> UInt8[Tensor, "3 T h w"]:
    """Any frames of a video file; what is said of ``read_clip`` holds here too.

    Args:
        path: any format that FFmpeg reads.
        pick: which frames to take, given how many there are: at least one number from 0 up to that, in any order.
        size: as for ``read_clip``.
        backend: as for ``read_clip``.

    Raises:
        OSError, ValueError, ImportError: as ``read_clip``.

    """
    sides = checks.frame_size(size)
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no video file {path}")
    read = {"pyav": _read_pyav, "torchcodec": _read_torchcodec}[checks.one_of("backend", backend, BACKENDS)]
    return read(Path(path), pick, sides)


def _start(start: Any) -> int | float:
    """The first frame, or its place as a share."""
    if isinstance(start, str):
        if checks.one_of("start", start, ("center", "random")) == "center":
            return 0.5
        return float(torch.rand((), dtype=torch.float64, device="cpu"))
    if isinstance(start, bool) or not isinstance(start, (int, float)):
        raise TypeError(f'start must be an int, a float, "center" or "random", got {start!r}')
    if start < 0 or (isinstance(start, float) and start > 1):
        raise ValueError(f"start must be a frame from 0, or a share from 0.0 to 1.0, got {start!r}")
    return start


def _pick(total: int, num_frames: int, stride: int, start: int | float) -> list[int]:
    """The frames of a clip, among ``total``."""
    if isinstance(start, float):
        latest = max(0, total - ((num_frames - 1) * stride + 1))
        start = min(int(start * (latest + 1)), latest)
    return [min(start + k * stride, total - 1) for k in range(num_frames)]


def _read_pyav(path: Path, pick: Callable[[int], Sequence[int]], size: tuple[int, int] | None) -> Tensor:
    import av

    try:
        with av.open(str(path)) as container:
            stream = _best_stream(container, path)
            index = stream.index  # read now: the stream goes with its container
            shown, whole = _timestamps(container, stream)
            if not shown:
                raise ValueError(f"cannot read {path}: it holds no video frames")
            if not whole:
                raise ValueError(f"cannot read {path}: the file is cut off")
            wanted = pick(len(shown))
            in_order = sorted(set(wanted))
            frames = _from_keyframe(container, stream, shown, in_order, size)
        if not set(wanted) <= set(frames):
            with av.open(str(path)) as container:
                frames = _collect(enumerate(container.decode(container.streams[index])), in_order, size)
    except av.FFmpegError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    if not frames:
        raise ValueError(f"cannot read {path}: none of its frames can be decoded")
    return _clip(frames, wanted)


def _best_stream(container: "av.container.InputContainer", path: Path) -> "av.VideoStream":
    """The largest video stream that is not a cover picture; of equals, the first."""
    import av

    cover = av.stream.Disposition.attached_pic
    videos = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not videos:
        raise ValueError(f"cannot read {path}: it has no video stream")
    known = [stream for stream in videos if stream.codec_context is not None]
    if not known:
        raise ValueError(f"cannot read {path}: its video is of an unknown codec")
    return max(known, key=lambda stream: stream.width * stream.height)


def _timestamps(container: "av.container.InputContainer", stream: "av.VideoStream") -> tuple[Sequence[int | None], bool]:
    """When each frame is shown, in order, read from the packets without decoding; and whether all that the file promises are there."""
    stamps: list[int | None] = []
    packets = 0
    for packet in container.demux(stream):
        if packet.size:
            packets += 1
            if not packet.is_discard:
                stamps.append(packet.pts)
    promised = stream.frames if "mp4" in container.format.name else 0  # others only estimate
    if None not in stamps and len(set(stamps)) == len(stamps):
        stamps.sort(key=lambda stamp: stamp or 0)
    return stamps, packets >= promised


def _from_keyframe(
    container: "av.container.InputContainer",
    stream: "av.VideoStream",
    shown: Sequence[int | None],
    wanted: Sequence[int],
    size: tuple[int, int] | None,
) -> dict[int, Frame]:
    """The wanted frames by their number, decoded from the keyframe before the first; not all of them where that goes wrong."""
    import av

    number = {stamp: k for k, stamp in enumerate(shown)}
    first = shown[wanted[0]]
    if first is None or len(number) < len(shown):
        return {}
    try:
        container.seek(first, stream=stream)
        return _collect(((number.get(frame.pts, -1), frame) for frame in container.decode(stream)), wanted, size)
    except av.FFmpegError:
        return {}


def _collect(decoded: Iterable[tuple[int, Any]], wanted: Sequence[int], size: tuple[int, int] | None) -> dict[int, Frame]:
    """The wanted frames as RGB. Where the decoder gave fewer than were counted, its last frame is kept."""
    frames: dict[int, Frame] = {}
    last, latest = wanted[-1], None
    for k, frame in decoded:
        if k in wanted:
            frames[k] = _to_rgb(frame, size)
        latest = (k, frame)
        if k >= last:
            break
    if latest is not None and 0 <= latest[0] < last:
        frames[latest[0]] = _to_rgb(latest[1], size)
    return frames


def _to_rgb(frame: "av.VideoFrame", size: tuple[int, int] | None) -> Frame:
    """A decoded frame upright, resized by FFmpeg (bicubic, antialiased) so that it covers ``size``, and cut."""
    turns = round(frame.rotation / 90) % 4
    if size is None:
        return np.rot90(frame.to_ndarray(format="rgb24"), turns)
    h, w = size if turns % 2 == 0 else size[::-1]
    scale = max(h / frame.height, w / frame.width)
    height, width = max(h, round(frame.height * scale)), max(w, round(frame.width * scale))
    rgb = frame.reformat(format="rgb24")  # first: resizing in yuv420p shifts the colors by part of a pixel
    picture = rgb.reformat(width=width, height=height, interpolation="BICUBIC").to_ndarray()
    top, left = (height - h) // 2, (width - w) // 2
    return np.rot90(picture[top : top + h, left : left + w], turns)


def _clip(frames: dict[int, Frame], wanted: Sequence[int]) -> Tensor:
    """The wanted frames as a clip; past the last one that there is, that one again."""
    have = sorted(frames)
    picked = [frames[max([k for k in have if k <= want], default=have[0])] for want in wanted]
    return torch.from_numpy(np.ascontiguousarray(np.stack(picked).transpose(3, 0, 1, 2)))


def _read_torchcodec(path: Path, pick: Callable[[int], Sequence[int]], size: tuple[int, int] | None) -> Tensor:
    from torchcodec.decoders import VideoDecoder

    try:
        decoder = VideoDecoder(str(path), seek_mode="exact", dimension_order="NHWC")
        frames = decoder.get_frames_at(list(pick(len(decoder)))).data.numpy()
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if size is not None:
        from PIL import Image, ImageOps

        frames = np.stack([np.asarray(ImageOps.fit(Image.fromarray(f), size[::-1], method=Image.Resampling.BICUBIC)) for f in frames])
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2)))
