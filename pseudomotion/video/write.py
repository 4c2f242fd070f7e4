"""Writing video files."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pseudomotion.files import whole_file

Frame = UInt8[np.ndarray, "h w 3"]

BT709 = 1  # the number of ITU-R BT.709 among primaries, transfer functions and matrices alike (ITU-T H.273)
LIMITED_RANGE = 1


def write_video(path: str | Path, frames: Iterable[Frame], *, fps: float, crf: int = 18) -> None:
    """Write frames as H.264 in MP4 that browsers play: yuv420p, tagged BT.709 in limited range, index first.

    The file appears whole or not at all. A side of odd length is repeated by one pixel, since yuv420p halves both.

    Args:
        path: ends in ``.mp4``.
        frames: at least one, RGB, all of one size.
        fps: frames per second.
        crf: x264's constant rate factor; 0 is best, 18 hardly visible, 51 worst.

    Raises:
        ValueError: for no frames, or frames of different sizes.
        OSError: where the file cannot be written.

    """
    import av
    from av.video.reformatter import ColorRange, Colorspace

    with whole_file(Path(path)) as temporary, av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = None
        for frame in frames:
            frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": str(crf)})
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                context = stream.codec_context
                context.color_primaries = context.color_trc = context.colorspace = BT709
                context.color_range = LIMITED_RANGE
            if frame.shape[:2] != (stream.height, stream.width):
                raise ValueError(f"frames must be of one size, got {frame.shape[:2]} after {(stream.height, stream.width)}")
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format="yuv420p",
                src_colorspace=Colorspace.ITU709,
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            container.mux(stream.encode(picture))
        if stream is None:
            raise ValueError("frames must hold at least one frame")
        container.mux(stream.encode())
