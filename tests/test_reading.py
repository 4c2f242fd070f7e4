"""Reading videos, good ones and broken ones made here, and lists of them; PyAV's plain decoding is what the reader is compared with."""

import errno
import os
import resource
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pseudomotion.images import VideoFrames, batches
from pseudomotion.video import VideoClips, read_clip, write_video
from pseudomotion.video.list_file import read_list, write_list


def frame(k, h=48, w=64):
    """Frame k: bars that move by 3 pixels, and a gray level that tells the number."""
    y, x = np.mgrid[:h, :w]
    return np.stack([128 + 100 * np.sin((x - 3 * k) / 7), np.full((h, w), 6.0 * k + 3), 128 + 100 * np.sin(y / 9)], -1).astype(np.uint8)


def encode(path, n=30, *, codec="libx264", pix_fmt="yuv420p", size=(48, 64), pts=None, gop=8, options=None):
    """A video of n frames with a keyframe every ``gop``."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.bit_rate = 4_000_000
        stream.codec_context.gop_size = gop
        for k in range(n):
            picture = av.VideoFrame.from_ndarray(frame(k, *size), format="rgb24")
            if pts:
                picture.pts, picture.time_base = pts[k], Fraction(1, 100)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def decode(path, stream=0):
    """Every frame, by a plain loop."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=stream)])


def numbers(clip):
    """Which frames a clip holds, by their gray level."""
    return (clip[1].float().mean((1, 2)) / 6 - 0.5).round().int().tolist()


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("video") / "plain.mp4", 40, options={"bf": "3"})


def test_frames_are_those_of_a_plain_loop_wherever_the_clip_starts(video):
    """From every keyframe interval, with frames that are stored out of order."""
    plain = decode(video)
    for start in range(0, 40, 3):
        clip = read_clip(video, 4, 3, start)
        expected = plain[[min(start + 3 * k, 39) for k in range(4)]]
        assert np.array_equal(clip.permute(1, 2, 3, 0), expected), start
    assert (clip.dtype, clip.shape) == (torch.uint8, (3, 4, 48, 64))


def test_starts(video):
    assert numbers(read_clip(video, 4, 4)) == [14, 18, 22, 26]
    assert numbers(read_clip(video, 4, 4, 0.0)) == [0, 4, 8, 12]
    assert numbers(read_clip(video, 4, 4, 1.0)) == [27, 31, 35, 39]
    assert len({numbers(read_clip(video, 4, 4, "random"))[0] for _ in range(20)}) > 8
    torch.manual_seed(3)
    first = read_clip(video, 4, 4, "random")
    torch.manual_seed(3)
    assert torch.equal(first, read_clip(video, 4, 4, "random"))


def test_short_videos_repeat_the_last_frame(tmp_path):
    assert numbers(read_clip(encode(tmp_path / "short.mp4", 5), 6, 2, "center")) == [0, 2, 4, 4, 4, 4]
    assert numbers(read_clip(encode(tmp_path / "one.mp4", 1), 3, 4, "random")) == [0, 0, 0]
    assert numbers(read_clip(tmp_path / "short.mp4", 3, 1, 100)) == [4, 4, 4]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("odd.mkv", {"codec": "ffv1", "pix_fmt": "bgr0", "size": (47, 63)}),
        ("ten.mp4", {"pix_fmt": "yuv420p10le"}),
        ("wide.mp4", {"pix_fmt": "yuv444p"}),
        ("old.avi", {"codec": "mpeg4"}),
        ("web.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
        ("jpeg.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("stream.ts", {"codec": "mpeg2video"}),
        ("variable.mp4", {"pts": [k * k + 3 * k for k in range(30)]}),
    ],
)
def test_formats(tmp_path, name, options):
    path = encode(tmp_path / name, 30, **options)
    h, w = options.get("size", (48, 64))
    for start in (0, 17):
        clip = read_clip(path, 3, 5, start)
        assert clip.shape == (3, 3, h, w)
        assert numbers(clip) == [start, start + 5, start + 10 if start < 10 else 27]
        expected = np.stack([frame(k, h, w) for k in numbers(clip)]).astype(int)
        assert np.abs(clip.permute(1, 2, 3, 0).numpy().astype(int) - expected).mean() < 8


def trim(path, begin, end):
    """Let an MP4's edit list show the seconds from begin to end, as a phone's trimming does; all samples stay in the file."""
    data = bytearray(path.read_bytes())
    scale = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    at = data.index(b"elst") + 8
    first = struct.unpack_from(">i", data, at + 8)[0]  # what B-frames delay
    struct.pack_into(">Ii", data, at + 4, round(1000 * (end - begin)), first + round(scale * begin))
    path.with_stem("trimmed").write_bytes(data)
    return path.with_stem("trimmed")


@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3"}])
@pytest.mark.parametrize(("begin", "end"), [(0, 1), (0.32, 1.2), (0.52, 1.6)])
def test_a_trimmed_video_has_the_frames_that_ffmpeg_shows(tmp_path, begin, end, options):
    """Also one that begins in between keyframes."""
    path = trim(encode(tmp_path / "whole.mp4", 40, options=options), begin, end)
    plain = decode(path)
    assert 20 <= len(plain) < 30
    assert np.array_equal(read_clip(path, len(plain), 1, 0).permute(1, 2, 3, 0), plain)
    for k in range(0, len(plain), 7):
        assert np.array_equal(read_clip(path, 1, 1, k)[:, 0].permute(1, 2, 0), plain[k])


def test_a_trimmed_video_that_is_cut_off_is_refused(tmp_path):
    write_video(tmp_path / "front.mp4", [frame(k) for k in range(50)], fps=25)  # its index is in front
    path = trim(tmp_path / "front.mp4", 0, 1)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ValueError, match=r"trimmed\.mp4: the file is cut off"):
        read_clip(path, 2, 1)


def from_the_middle(path):
    """A transport stream that begins within a GOP, as a recording does."""
    data = path.read_bytes()
    tables, first = 3 * 188, (len(data) // 188 // 12 + 3) * 188
    path.write_bytes(data[:tables] + data[first:])
    return path


@pytest.mark.parametrize(
    ("name", "options", "change"),
    [
        ("h264.avi", {"options": {"bf": "3"}}, None),
        ("h264.avi", {"options": {"bf": "0"}}, None),
        ("mpeg4.avi", {"codec": "mpeg4", "options": {"bf": "2"}}, None),
        ("h264.ts", {"options": {"bf": "0"}}, from_the_middle),
        ("h264.ts", {"options": {"bf": "3"}}, from_the_middle),
        ("open.ts", {"options": {"bf": "3", "x264-params": "open-gop=1:keyint=8"}}, from_the_middle),
        ("mpeg2.ts", {"codec": "mpeg2video", "options": {"bf": "2"}}, from_the_middle),
    ],
)
def test_a_frame_is_the_same_whatever_else_is_read(tmp_path, name, options, change):
    """Namely the one that a plain loop gives at its place, alone, first, and last."""
    path = encode(tmp_path / name, 40, **options)
    path = change(path) if change else path
    plain = decode(path)
    assert len(plain) > 25
    assert np.array_equal(read_clip(path, len(plain), 1, 0).permute(1, 2, 3, 0), plain)
    for k in range(1, len(plain) - 1, 3):
        for start, number in ((k, 1), (k, 2), (k - 1, 2)):
            assert np.array_equal(read_clip(path, number, 1, start).permute(1, 2, 3, 0), plain[start : start + number]), (k, start, number)


@pytest.mark.parametrize("name", ["latin.avi", "latin.mp4"])
def test_metadata_does_not_matter(tmp_path, name):
    with av.open(str(tmp_path / name), "w") as container:
        container.metadata["title"] = "a title"
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.bit_rate = 4_000_000
        for k in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(k), format="rgb24")))
        container.mux(stream.encode())
    data = (tmp_path / name).read_bytes()
    assert b"a title" in data
    (tmp_path / name).write_bytes(data.replace(b"a title", b"\xe9 title"))
    assert numbers(read_clip(tmp_path / name, 4, 1, 0)) == [0, 1, 2, 3]


def test_names_with_a_colon(tmp_path, monkeypatch):
    """FFmpeg takes what stands before it for a protocol, in a relative path."""
    monkeypatch.chdir(tmp_path)
    name = "2026-01-01T10:30:00.mp4"
    write_video(name, [frame(k) for k in range(4)], fps=25)
    assert numbers(read_clip(name, 4, 1, 0)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("aspect", "width"), [("2/1", 128), ("1/2", 32), ("16/15", 68), ("1/1", 64), ("1/50", 64)])
def test_pixels_become_square(tmp_path, aspect, width):
    """The height stays; a ratio that no video has counts as an error of the file."""
    path = encode(tmp_path / "a.mp4", 4, options={"x264-params": f"sar={aspect}"})
    clip = read_clip(path, 2, 1, 0)
    assert clip.shape == (3, 2, 48, width)
    assert numbers(clip) == [0, 1]
    assert clip[0, 0].float().diff(dim=-1).abs().mean() > 1  # bars, not a stretched edge
    small = read_clip(path, 2, 1, 0, size=(24, 24))
    whole = torch.nn.functional.interpolate(clip.float(), size=(24, width // 2), mode="bilinear", antialias=True)
    if width >= 48:
        middle = whole[..., (width // 2 - 24) // 2 :][..., :24]
        assert (small.float() - middle).abs().mean() < 6


def test_too_many_open_files_are_not_the_files_fault(video):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    read_clip(video, 1, 1)  # imports what it needs
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
    try:
        with pytest.raises(OSError, match=r"plain\.mp4") as caught:
            read_clip(video, 1, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert caught.value.errno == errno.EMFILE


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM])
def test_a_failure_that_passes_is_tried_again(video, monkeypatch, number):
    """FFmpeg reports it for broken files too, so that it is the file's fault where it comes twice."""
    failures, real = [1], av.open

    def flaky(*args, **options):
        if failures and failures.pop():
            raise av.error.FFmpegError(number, os.strerror(number))
        return real(*args, **options)

    monkeypatch.setattr(av, "open", flaky)
    assert numbers(read_clip(video, 2, 1, 3)) == [3, 4]
    failures[:] = [1, 1]
    with pytest.raises(ValueError, match=r"cannot read .*plain\.mp4: "):
        read_clip(video, 2, 1, 3)


def turn(path, degrees):
    """Write a display matrix into an MP4's track header, as phones do."""
    data = bytearray(path.read_bytes())
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = b"".join((value & 0xFFFFFFFF).to_bytes(4, "big") for value in matrix)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2), (270, 1)])
def test_rotation_is_applied(tmp_path, degrees, turns):
    """A matrix that turns by 90 degrees turns clockwise on the screen."""
    path = encode(tmp_path / "turned.mp4", 4)
    plain = read_clip(path, 2, 1, 0)
    turned = read_clip(turn(path, degrees), 2, 1, 0)
    assert torch.equal(turned, torch.rot90(plain, turns, (2, 3)))
    small = read_clip(path, 2, 1, 0, size=(24, 16))
    assert small.shape == (3, 2, 24, 16)


def test_the_largest_of_several_streams_is_read_and_audio_is_none(tmp_path):
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        small, large = (container.add_stream("libx264", rate=25) for _ in range(2))
        sound = container.add_stream("aac", rate=8000)
        for stream, size in ((small, (32, 32)), (large, (48, 64))):
            (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
        for k in range(6):
            for stream in (small, large):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(k, stream.height, stream.width), format="rgb24")))
        for stream in (small, large, sound):
            container.mux(stream.encode(None))
    plain = decode(tmp_path / "two.mkv", 1)
    assert np.array_equal(read_clip(tmp_path / "two.mkv", 2, 3, 1).permute(1, 2, 3, 0), plain[[1, 4]])


def test_size_covers_and_cuts_the_middle(video):
    import cv2

    clip = read_clip(video, 2, 1, 0, size=24)
    expected = cv2.resize(frame(0)[:, 8:56], (24, 24), interpolation=cv2.INTER_AREA).astype(int)
    assert clip.shape == (3, 2, 24, 24)
    assert np.abs(clip[:, 0].permute(1, 2, 0).numpy().astype(int) - expected).mean() < 3


def test_what_was_written_is_read_again(tmp_path):
    """Colors too: both sides agree on BT.709 and its range."""
    frames = np.zeros((6, 32, 32, 3), np.uint8)
    for k, color in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]):
        frames[k] = color
    write_video(tmp_path / "colors.mp4", frames, fps=10, crf=1)
    clip = read_clip(tmp_path / "colors.mp4", 6, 1, 0)
    assert np.abs(clip.permute(1, 2, 3, 0).numpy().astype(int) - frames).max() <= 4


def sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))


def no_frames(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.start_encoding()


@pytest.fixture
def mess(tmp_path):
    """Good videos and bad ones, and a list of them."""
    for k in (0, 3, 9):
        encode(tmp_path / f"{k}_good.mp4", 20 + k)
    write_video(tmp_path / "whole.mp4", [frame(k) for k in range(30)], fps=25)
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "whole.mp4").unlink()
    (tmp_path / "1_cut.mp4").write_bytes(data[: len(data) * 2 // 3])  # its index is in front and whole
    (tmp_path / "2_cut.mp4").write_bytes((tmp_path / "0_good.mp4").read_bytes()[:3000])  # its index is gone
    (tmp_path / "4_empty.mp4").write_bytes(b"")
    (tmp_path / "5_text.avi").write_text("no video at all")
    sound(tmp_path / "6_sound.m4a")
    no_frames(tmp_path / "7_none.mkv")
    names = sorted(["8_missing.mp4", *(path.name for path in tmp_path.iterdir())])
    (tmp_path / "list.csv").write_text("".join(f"{name} {k}\n" for k, name in enumerate(names)))
    return tmp_path / "list.csv"


BAD = ["1_cut.mp4", "2_cut.mp4", "4_empty.mp4", "5_text.avi", "6_sound.m4a", "7_none.mkv", "8_missing.mp4"]


@pytest.mark.parametrize("name", BAD)
def test_a_broken_video_is_a_named_error(mess, name):
    with pytest.raises((ValueError, OSError), match=name):
        read_clip(mess.parent / name, 2, 1)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", ["clips", "frames"])
def test_broken_videos_are_skipped_and_reported_once(mess, kind, num_workers):
    def make():
        return VideoClips(mess, 3, 2, 32) if kind == "clips" else VideoFrames(mess, 32)

    source = make()
    with pytest.warns(UserWarning, match="skipped 7 broken files") as caught:
        items = {int(i): item for got, ids in batches(source, 3, num_workers=num_workers) for i, item in zip(ids, got, strict=True)}
    assert sorted(items) == list(range(10))
    assert len(caught) == 1
    for name in BAD:
        assert str(caught[0].message).count(f"/{name}") == 1
    for i, item in items.items():
        assert torch.equal(make().get(torch.tensor([i]))[0], item)
    with pytest.raises((ValueError, OSError)):
        VideoClips(mess, 3, 2, 32, strict=True).get(torch.arange(10))


def test_video_clips_draw_their_start_by_id(video, tmp_path):
    (tmp_path / "list.csv").write_text(f"{video} 7\n")
    source = VideoClips(tmp_path / "list.csv", 4, 2, (32, 40))
    ids = torch.arange(30)
    clips = source.get(ids)
    assert clips.shape == (30, 3, 4, 32, 40)
    assert len({numbers(clip)[0] for clip in clips}) > 10
    assert torch.equal(source.get(ids.flip(0)), clips.flip(0))
    assert source.labels.tolist() == [7]
    center = VideoClips(tmp_path / "list.csv", 4, 2, 32, start="center").get(ids[:2])
    assert [numbers(clip) for clip in center] == [[17, 19, 21, 23]] * 2


def test_torchcodec_reads_the_same(video):
    pytest.importorskip("torchcodec", reason="torchcodec is not installed")
    clip, expected = (read_clip(video, 4, 3, 10, backend=backend).float() for backend in ("torchcodec", "pyav"))
    assert (clip - expected).abs().mean() < 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 0}, "num_frames must be from 1"),
        ({"stride": 0}, "stride must be from 1"),
        ({"start": -1}, "start must be a frame from 0"),
        ({"start": 1.5}, "start must be a frame from 0"),
        ({"start": "end"}, "start must be one of 'center', 'random'"),
        ({"backend": "decord"}, "backend must be one of 'pyav', 'torchcodec'"),
    ],
)
def test_arguments_are_checked(video, options, message):
    with pytest.raises(ValueError, match=message):
        read_clip(video, **options)


def test_list_formats(tmp_path):
    path = tmp_path / "list.csv"
    lines = ["a.mp4 3", "b c.mp4 4", "d.mp4,5", '"e, ""f"" g.mp4",6', "h.mp4;7\r", '"i j.mp4" 8', "k.mp4", "", "/l/m.mp4\t9", "n.mp4 -1"]
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    expected = [("a.mp4", 3), ("b c.mp4", 4), ("d.mp4", 5), ('e, "f" g.mp4', 6), ("h.mp4", 7), ("i j.mp4", 8), ("k.mp4", -1)]
    expected = [(tmp_path / name, label) for name, label in expected] + [(Path("/l/m.mp4"), 9), (tmp_path / "n.mp4", -1)]
    assert read_list(path) == expected
    path.write_text('good.mp4 1\n"open.mp4 2\n')
    with pytest.raises(ValueError, match=r'list.csv, line 2: must be "path label"'):
        read_list(path)
    path.write_text("\n\n")
    with pytest.raises(ValueError, match="must list at least one video"):
        read_list(path)
    path.write_text("a.mp4 3", encoding="utf-16")
    with pytest.raises(ValueError, match=r"cannot read .*list\.csv: it must be text in UTF-8"):
        read_list(path)


@pytest.mark.parametrize("line", ["a.mp4 jump", "a.MP4,long jump", "b c.avi;12th", '"a b.xyz" jump', '"a, b.mp4" 3.0'])
def test_names_for_classes_are_refused(tmp_path, line):
    (tmp_path / "list.csv").write_text(f"first.mp4 0\n{line}\n")
    with pytest.raises(ValueError, match=r"list\.csv, line 2: must be .path label. with a number for the label, .* got label"):
        read_list(tmp_path / "list.csv")


@pytest.mark.parametrize("name", ["two\nlines.mp4", b"latin \xe9.mp4".decode(errors="surrogateescape")])
def test_a_path_that_no_list_can_hold(tmp_path, name):
    with pytest.raises(ValueError, match="a list file cannot hold the path"):
        write_list(tmp_path / "list.csv", [(Path("good.mp4"), 0), (Path(name), 1)])
    assert not list(tmp_path.iterdir())


names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), include_characters=" ,;\"'0"), min_size=1, max_size=20)


@given(
    st.lists(st.tuples(names.filter(lambda name: name == name.strip() and "/" not in name), st.integers(0, 999)), min_size=1, max_size=5)
)
def test_lists_are_read_as_they_were_written(tmp_path_factory, videos):
    path = tmp_path_factory.getbasetemp() / "written.csv"
    expected = [(path.parent / name, label) for name, label in videos]
    write_list(path, expected)
    assert read_list(path) == expected
