"""Clips and their annotations as the bytes of files."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from io import BytesIO
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8, UInt16
from PIL import Image

from pseudomotion.export.settings import Settings
from pseudomotion.files import MADE_BY
from pseudomotion.video.write import encode_video

__all__ = ["Piece", "encode_clip", "encode_flow", "encode_instances", "encode_tracks", "kitti_flow", "middlebury_flow", "npz"]

Frames = UInt8[np.ndarray, "T h w 3"]


class Piece(NamedTuple):
    """A file of a clip.

    Args:
        kind: "" for the clip itself, or the name of an annotation.
        frame: index of the frame that the file is for; None for the whole clip.
        suffix: without the dot.
        content: the file's bytes.

    """

    kind: str
    frame: int | None
    suffix: str
    content: bytes


def encode_clip(frames: Frames, settings: Settings) -> Iterator[Piece]:
    """The video, or an image of every frame."""
    if settings.format == "mp4":
        options: dict[str, Any] = {"crf": settings.crf, "preset": settings.preset, "pixel_format": settings.pixel_format}
        yield Piece("", None, "mp4", encode_video(frames, fps=settings.fps, comment=MADE_BY, **options))
        return
    # Not one animated WebP per clip: its encoder drops frames that equal their predecessor.
    lossless = settings.quality == 100
    options = {"quality": settings.quality, "lossless": lossless, "method": 2} if settings.format == "webp" else {"compress_level": 3}
    for t, frame in enumerate(frames):
        file = BytesIO()
        Image.fromarray(frame).save(file, settings.format, **options)
        yield Piece("", t, settings.format, file.getvalue())


def encode_flow(vectors: Float32[np.ndarray, "K 2 h w"], occluded: Bool[np.ndarray, "K h w"], form: str) -> Iterator[Piece]:
    """Flow from each frame to the next.

    Args:
        vectors: (u, v) in pixels.
        occluded: where the target is not visible; only npz has room for it.
        form: of ``FLOW_FORMATS``.

    """
    if form == "npz":
        yield Piece("flow", None, "npz", npz(flow=vectors.astype(np.float16), occluded=occluded))
        return
    for t, uv in enumerate(vectors):
        yield Piece("flow", t, "png", kitti_flow(uv)) if form == "kitti" else Piece("flow", t, "flo", middlebury_flow(uv))


def middlebury_flow(uv: Float32[np.ndarray, "2 h w"]) -> bytes:
    """A ``.flo`` file: "PIEH", width and height as int32, then (u, v) of every pixel as float32, all little-endian.

    Source: Baker et al., "A database and evaluation methodology for optical flow", IJCV 2011.
    """
    h, w = uv.shape[1:]
    return b"PIEH" + np.array([w, h], "<i4").tobytes() + uv.transpose(1, 2, 0).astype("<f4").tobytes()


def kitti_flow(uv: Float32[np.ndarray, "2 h w"]) -> bytes:
    """A PNG of 16 bits per channel: red and green are 64 u + 32768 and 64 v + 32768, blue is 1 where the flow is valid.

    Flow beyond -512 to 511.98 pixels does not fit, and is marked as not valid. Source: the development kit of KITTI 2015's flow benchmark.
    """
    scaled = np.rint(uv.astype(np.float64) * 64 + 2**15)
    valid = ((scaled >= 0) & (scaled < 2**16)).all(0)
    return _png_16(np.dstack([*np.where(valid, scaled, 0), valid]).astype(np.uint16))


def _png_16(image: UInt16[np.ndarray, "h w 3"]) -> bytes:
    """Lossless; Pillow has no RGB of 16 bits per channel."""
    import av

    codec: Any = av.CodecContext.create("png", "w")
    codec.height, codec.width = image.shape[:2]
    codec.pix_fmt, codec.time_base = "rgb48be", Fraction(1)
    frame = av.VideoFrame(image.shape[1], image.shape[0], "rgb48be")
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    rows[:, : 6 * image.shape[1]] = image.astype(">u2").reshape(len(image), -1).view(np.uint8)  # (h, 6 w)
    frame.pts = 0
    return b"".join(bytes(packet) for part in (frame, None) for packet in codec.encode(part))


def encode_tracks(frames: Frames, points: Float32[np.ndarray, "T N 2"], visible: Bool[np.ndarray, "T N"]) -> Piece:
    """Point tracks with the names and axes of TAP-Vid's dictionaries.

    "video" ``(T, h, w, 3)`` uint8; "points" ``(N, T, 2)`` float32, (x, y) from 0 at the left or upper edge of the frame to 1 at the right
    or lower edge; "occluded" ``(N, T)`` bool. A point outside the frame counts as occluded.

    Args:
        frames: of the clip.
        points: (x, y) in pixels, with pixel centers at integers.
        visible: whether each point can be seen.

    """
    h, w = frames.shape[1:3]
    scaled = (points.astype(np.float64) + 0.5) / (w, h)
    return Piece("tracks", None, "npz", npz(video=frames, points=scaled.transpose(1, 0, 2).astype(np.float32), occluded=~visible.T))


def encode_instances(surfaces: Int64[np.ndarray, "T h w"]) -> Iterator[Piece]:
    """A gray PNG of every frame: 0 for the back, 1 + k for layer k, as ``pseudomotion.labels.instances`` numbers them."""
    for t, surface in enumerate(surfaces):
        file = BytesIO()
        Image.fromarray(surface.astype(np.uint8)).save(file, "png")  # a clip has at most 2 (1 + 64) surfaces, and a few of its transform
        yield Piece("instances", t, "png", file.getvalue())


def npz(**arrays: np.ndarray) -> bytes:
    """A compressed ``.npz`` file; the same arrays give the same bytes."""
    file, write = BytesIO(), cast(Callable[..., None], np.savez_compressed)  # its stub takes arrays for its flag
    write(file, **arrays)
    return file.getvalue()
