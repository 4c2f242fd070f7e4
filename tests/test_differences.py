"""Frame differences and the halves of a list of videos."""

import av
import numpy as np
import pytest
import torch

from pseudomotion.labels import frame_difference, split_by_difference
from pseudomotion.video import write_video


def video(path, step, frames=5, size=(48, 64)):
    """A gray video that grows brighter by ``step`` levels a frame."""
    levels = [np.full((*size, 3), 40 + step * t, dtype=np.uint8) for t in range(frames)]
    write_video(path, levels, fps=8, crf=1)
    return path


def test_difference_of_clips_is_numpys():
    clips = torch.rand(3, 3, 6, 7, 8, dtype=torch.float64)
    array = clips.numpy()
    expected = np.abs(np.diff(array, axis=2)).mean((1, 2, 3, 4))
    np.testing.assert_allclose(frame_difference(clips), expected, atol=1e-12)
    np.testing.assert_allclose(frame_difference(clips.transpose(1, 2), data_format="BTCHW"), expected, atol=1e-12)
    np.testing.assert_allclose(frame_difference(clips, stride=2), np.abs(np.diff(array[:, :, ::2], axis=2)).mean((1, 2, 3, 4)), atol=1e-12)


def test_difference_of_bytes_does_not_wrap():
    clips = torch.tensor([250, 10, 250], dtype=torch.uint8)[None, None, :, None, None].expand(1, 3, 3, 4, 4)
    assert float(frame_difference(clips)) == pytest.approx(240 / 255)


@pytest.mark.parametrize("step", [0, 4, 12])
def test_difference_of_a_file(tmp_path, step):
    """Through H.264 and limited range, a level may be lost."""
    path = video(tmp_path / "a.mp4", step)
    assert frame_difference(path) * 255 == pytest.approx(step, abs=0.8)
    assert frame_difference(str(path), stride=2, size=None) * 255 == pytest.approx(2 * step, abs=0.8)


def test_the_stream_is_the_one_that_is_read(tmp_path):
    """Of a small one that flickers and a large one that does not, the large one."""
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        small, large = (container.add_stream("ffv1", rate=25) for _ in range(2))
        for stream, size in ((small, (32, 32)), (large, (48, 64))):
            (stream.height, stream.width), stream.pix_fmt = size, "bgr0"
        for k in range(4):
            for stream, level in ((small, 255 * (k % 2)), (large, 40)):
                picture = np.full((stream.height, stream.width, 3), level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in (small, large):
            container.mux(stream.encode(None))
    assert frame_difference(tmp_path / "two.mkv") == 0


def test_names_with_a_colon_and_lists_of_another_encoding(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video("2026-01-01T10:30:00.mp4", 4)
    assert frame_difference("2026-01-01T10:30:00.mp4") * 255 == pytest.approx(4, abs=0.8)
    (tmp_path / "list.csv").write_text("a.mp4 0\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"cannot read list\.csv: it must be text in UTF-8"):
        split_by_difference("list.csv")


@pytest.mark.parametrize("count", [2, 5, 8])
def test_halves(tmp_path, count):
    steps = [3 * ((7 * k) % count) for k in range(count)]
    lines = [f"{video(tmp_path / f'clip {k}.mp4', step).name} {k}" for k, step in enumerate(steps)]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n\n")
    halves = split_by_difference(tmp_path / "train.csv")
    ranked = [lines[k] for k in np.argsort(steps, kind="stable")]
    half = count // 2
    assert set(halves.bottom) == set(ranked[:half])
    assert set(halves.top) == set(ranked[-half:])
    assert set(halves.middle) == set(ranked[(count - half) // 2 : (count - half) // 2 + half])
    assert halves.top == [line for line in lines if line in halves.top]
    assert halves.skipped == {}
    assert list(halves.differences) == lines


def test_broken_videos_are_named_and_left_out(tmp_path):
    for k in range(3):
        video(tmp_path / f"{k}.mp4", k)
    (tmp_path / "text.mp4").write_text("no video")
    video(tmp_path / "short.mp4", 0, frames=1)
    lines = ["0.mp4 0", "1.mp4 1", "2.mp4", "text.mp4 0", "short.mp4 0", "gone.mp4 0"]
    listing = tmp_path / "train.csv"
    listing.write_text("\n".join(lines))
    with pytest.warns(UserWarning, match=r"skipped 3 of 6 videos: cannot read .*text\.mp4: .*; cannot compare frames of .*short\.mp4"):
        halves = split_by_difference(listing)
    assert list(halves.skipped) == lines[3:]
    assert list(halves.differences) == lines[:3]
    with pytest.raises(ValueError, match=r"cannot read .*text\.mp4"):
        split_by_difference(listing, strict=True)
    listing.write_text("0.mp4 0\ngone.mp4 1")
    with pytest.raises(ValueError, match=r"must list at least two videos that can be read, got 1 \(cannot read .*gone\.mp4: there is no"):
        split_by_difference(listing)


def test_errors():
    with pytest.raises(ValueError, match="clips must have at least two frames at stride 1, got 1"):
        frame_difference(torch.rand(1, 3, 1, 4, 4))
    with pytest.raises(ValueError, match=r"clips must have shape .*, got \(3, 4, 4, 4\)"):
        frame_difference(torch.rand(3, 4, 4, 4))
    with pytest.raises(TypeError, match=r"clips must be uint8 or float, got torch\.int64"):
        frame_difference(torch.zeros(1, 3, 4, 4, 4).long())
    with pytest.raises(ValueError, match="stride must be from 1 to 32768, got 0"):
        frame_difference(torch.rand(1, 3, 4, 4, 4), stride=0)
