"""Written videos, read back by PyAV's own decoder."""

import re
import resource

import av
import numpy as np
import pytest
import torch

from pseudomotion import PMG
from pseudomotion.video import write_video
from pseudomotion.video.write import encode_video


def ramp(t, h=48, w=64):
    """Colored ramps that move: every color is in there, and every frame differs."""
    y, x = np.mgrid[:h, :w]
    return (
        np.stack([np.stack([(4 * x + 8 * k) % 256, 5 * y % 256, (x + y + 3 * k) % 256], -1) for k in range(t)]).astype(np.uint8) // 2 + 64
    )


def smooth(t, h=48, w=64):
    y, x = np.mgrid[:h, :w]
    return np.stack([np.stack([x * 3 + k, 250 - y * 4, 120 + x + y - k], -1) for k in range(t)]).clip(0, 255).astype(np.uint8)


def test_frames_come_back_in_color(tmp_path):
    """BT.709 both ways: a wrong matrix or range would be off by ten levels and more."""
    frames = smooth(12)
    write_video(tmp_path / "a.mp4", frames, fps=12, crf=1)
    with av.open(tmp_path / "a.mp4") as container:
        decoded = [
            frame.reformat(format="rgb24", src_colorspace="ITU709", dst_color_range="JPEG").to_ndarray()
            for frame in container.decode(video=0)
        ]
    assert len(decoded) == 12
    assert np.abs(np.stack(decoded).astype(int) - frames).mean() < 2


@pytest.mark.parametrize("data_format", ["BCTHW", "BTCHW"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_clip_as_pmg_makes_it(data_format, dtype, channels, tmp_path):
    """It gives the file that its frames give one by one."""
    images = torch.from_numpy(smooth(1)[0]).permute(2, 0, 1)[None, :channels]
    pmg = PMG(num_frames=4, size=(48, 64), data_format=data_format, dtype=dtype)
    clip = pmg(images, ids=torch.tensor([3]))[0]
    write_video(tmp_path / "clip.mp4", clip, fps=12, data_format=data_format)
    frames = clip if data_format == "BTCHW" else clip.transpose(0, 1)
    frames = frames.double().numpy() if dtype == torch.float32 else frames.float().numpy()
    frames = frames if dtype == torch.uint8 else (255 * frames).round()
    frames = np.broadcast_to(np.moveaxis(frames.astype(np.uint8), 1, -1), (4, 48, 64, 3))
    write_video(tmp_path / "frames.mp4", frames, fps=12)
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "frames.mp4").read_bytes()


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        (torch.zeros(2, 3, 4, 8, 8), ValueError, "got a tensor of shape (2, 3, 4, 8, 8); for the first clip of a batch pass clips[0]"),
        (torch.zeros(8, 3, 8, 8), ValueError, 'frames must have 1 or 3 channels in CTHW, got shape (8, 3, 8, 8); pass data_format="BTCHW"'),
        (torch.zeros(4, 5, 8, 8), ValueError, "frames must have 1 or 3 channels in CTHW, got shape (4, 5, 8, 8)"),
        (
            torch.full((3, 2, 8, 8), -1.5),
            ValueError,
            "float frames must lie in [0, 1], got values from -1.5 to -1.5; undo mean and std first",
        ),
        (torch.full((3, 2, 8, 8), torch.nan), ValueError, "float frames must lie in [0, 1], got values from nan to nan"),
        (torch.zeros(3, 2, 8, 8, dtype=torch.int64), TypeError, "frames must be uint8 or float, got torch.int64"),
        (torch.zeros(3, 0, 8, 8), ValueError, "frames must hold at least one frame"),
    ],
    ids=str,
)
def test_wrong_clips(clip, error, message, tmp_path):
    with pytest.raises(error, match=re.escape(message)):
        write_video(tmp_path / "a.mp4", clip, fps=12)
    assert not list(tmp_path.iterdir())


def test_browsers_can_play_it(tmp_path):
    write_video(tmp_path / "a.mp4", ramp(10), fps=12.5)
    with av.open(tmp_path / "a.mp4") as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
        assert float(stream.average_rate) == 12.5
        assert stream.frames == 10
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # the index first


def test_odd_sides_gain_a_pixel(tmp_path):
    write_video(tmp_path / "a.mp4", smooth(3, 33, 45), fps=10)
    with av.open(tmp_path / "a.mp4") as container:
        frame = next(container.decode(video=0))
    assert (frame.height, frame.width) == (34, 46)


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def broken():
        yield from ramp(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, broken(), fps=10)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    write_video(path, ramp(3), fps=10)
    assert path.stat().st_size > 100


def test_wrong_frames(tmp_path):
    with pytest.raises(ValueError, match="frames must hold at least one frame"):
        write_video(tmp_path / "a.mp4", [], fps=10)
    with pytest.raises(ValueError, match=r"frames must be of one size, got \(20, 20\) after \(48, 64\)"):
        write_video(tmp_path / "a.mp4", [*ramp(1), ramp(1, 20, 20)[0]], fps=10)
    with pytest.raises(FileNotFoundError, match=r"cannot write .*a.mp4: there is no folder .*nowhere"):
        write_video(tmp_path / "nowhere" / "a.mp4", ramp(1), fps=10)
    assert not list(tmp_path.iterdir())


def test_what_the_encoder_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="frames must be at most 16384 pixels on a side, got 2 x 16386"):
        write_video(tmp_path / "a.mp4", [np.zeros((2, 16386, 3), np.uint8)], fps=10)
    write_video(tmp_path / "b.mp4", [np.zeros((16, 16384, 3), np.uint8)], fps=10)
    assert [p.name for p in tmp_path.iterdir()] == ["b.mp4"]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    """A limit on the size of files stands in for the disk."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 256, 256, 3), np.uint8)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        with pytest.raises(OSError, match=r"^cannot write .*/a\.mp4: File too large$"):
            write_video(tmp_path / "a.mp4", noise, fps=10, crf=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list(tmp_path.iterdir())


def test_a_comment_and_a_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video("10:30.mp4", ramp(2), fps=10, comment="made here")
    with av.open(str(tmp_path / "10:30.mp4")) as container:
        assert container.metadata["comment"] == "made here"


def test_the_same_frames_give_the_same_bytes():
    """Whatever lay in the encoder's memory before, and however the frames lie in theirs."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (56, 56, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    frames = np.stack([np.roll(picture, 2 * t, 1) for t in range(14)])
    strided = np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    files = set()
    for k in range(16):
        _ = [rng.integers(0, 256, size, dtype=np.uint8) for size in rng.integers(1000, 10**5, 3)]  # other contents of freed memory
        files.add(encode_video(strided if k % 4 == 0 else frames, fps=10))
    assert len(files) == 1
