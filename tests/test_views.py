"""Labelled views of lossless videos, every pixel of which says where it is and when."""

import av
import numpy as np
import pytest
import torch
from PIL import Image

from pseudomotion.draws import Draws
from pseudomotion.source import batches
from pseudomotion.train.video.augment import ClipAugmentation
from pseudomotion.train.video.randaugment import RandAugment
from pseudomotion.train.video.views import EvaluationViews, Sampling, TrainingViews, even_crops, low_shot, view_ids
from pseudomotion.video import read_frames
from pseudomotion.video.list_file import write_list

FRAMES = 50


def write(path, n=FRAMES, h=24, w=40, video=0):
    """Frame k: red is 5 x column, green is 5 x row + video, blue is 5 x k."""
    y, x = np.mgrid[:h, :w]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = h, w, "bgr0"
        for k in range(n):
            frame = np.stack([5 * x, 5 * y + video, np.full((h, w), 5 * k)], -1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    shapes = [(24, 40), (40, 24), (24, 24), (24, 40)]
    return [(write(folder / f"{k}.mkv", h=h, w=w, video=k), k % 2) for k, (h, w) in enumerate(shapes)]


def times(clip):
    """Which frames a clip holds."""
    return (clip[2].float().mean((1, 2)) / 5).round().int().tolist()


def one(*ids, seed=0):
    return Draws(seed, torch.tensor(ids))


def test_any_frames_can_be_read(videos):
    frames = [30, 2, 2, 49, 7]
    clip = read_frames(videos[0][0], lambda total: frames if total == FRAMES else [])
    assert times(clip) == frames
    assert clip[:, 0, 3, 17].tolist() == [85, 15, 150]


@pytest.mark.parametrize(
    ("clips", "number", "expected"),
    [(1, 0, [20, 23, 26, 29]), (2, 0, [0, 3, 6, 9]), (2, 1, [40, 43, 46, 49]), (5, 1, [10, 13, 16, 19]), (5, 2, [20, 23, 26, 29])],
)
def test_dense_clips_are_evenly_placed(clips, number, expected):
    """Of 50 frames, a window of 4 x 3 can start at 0 to 40."""
    pick = Sampling(4, "dense", 3).placed(number, clips)
    assert pick(50) == expected


def test_segments():
    """50 frames in five parts of ten."""
    sampling = Sampling(5, "segments")
    assert sampling.placed(0, 1)(50) == [5, 15, 25, 35, 45]
    assert sampling.placed(0, 2)(50) == [2, 12, 22, 32, 42]
    assert sampling.placed(1, 2)(50) == [7, 17, 27, 37, 47]
    assert sampling.placed(0, 1)(3) == [0, 0, 1, 2, 2]
    drawn = np.array([sampling.drawn(one(k))(50) for k in range(400)])
    assert (drawn // 10 == np.arange(5)).all()
    assert all(len(np.unique(column)) == 10 for column in drawn.T)
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.2  # every part has its own


def test_dense_starts_are_drawn_from_all_that_there_are():
    sampling = Sampling(4, "dense", 3)
    drawn = np.array([sampling.drawn(one(k))(50) for k in range(1000)])
    assert (drawn - drawn[:, :1] == [0, 4, 8, 11]).all()  # 12 frames, both ends included
    assert set(drawn[:, 0]) == set(range(38))
    assert sampling.drawn(one(3))(50) == sampling.drawn(one(3))(50)
    assert sampling.drawn(one(3))(5) == [0, 4, 4, 4]  # a short video repeats its last frame
    assert sampling.drawn(one(3))(11) == [0, 5, 10, 10]
    assert sampling.drawn(one(3))(1) == [0, 0, 0, 0]


@pytest.mark.parametrize(("total", "start"), [(64, 0), (65, 0), (300, 100), (40, None)])
def test_dense_training_clips_are_spread_as_videomae_spreads_them(total, start):
    """16 frames from a window of 64: the numbers k * 64 / 15, cut off, the last one 63; a shorter video as far as frames of stride 4 go."""
    short = [min(k * 40 // 9, 39) for k in range(10)] + [39] * 6
    expected = short if start is None else [start + min(k * 64 // 15, 63) for k in range(16)]
    found = (Sampling(16, "dense", 4).drawn(one(k))(total) for k in range(3000))
    assert any(frames == expected for frames in found)


def test_crops_run_along_the_long_side(videos):
    """Short side kept at 24: columns 0, 8 and 16 of 40, or these rows."""
    views = EvaluationViews(videos, Sampling(2, "dense", 3), 24, clips=5, crops=3)
    clips, labels, numbers = views.get(torch.tensor([0, 1, 2, 7]))
    assert clips.shape == (4, 15, 3, 2, 24, 24)
    assert clips.dtype == torch.uint8
    assert labels.tolist() == [0, 1, 0, 1]
    assert numbers.tolist() == [0, 1, 2, 3]
    for clip in range(5):
        for crop in range(3):
            view = clips[:, 3 * clip + crop]
            assert view[0, 0, 0, 0].tolist() == [5 * (8 * crop + x) for x in range(24)]
            assert view[1, 1, 0, :, 0].tolist() == [5 * (8 * crop + y) + 1 for y in range(24)]
            assert torch.equal(view[2, 0, 0], view[0, 0, 0] - 40 * crop)  # a square frame has no room: three times the same
            start = [0, 11, 23, 35, 46][clip]
            assert times(view[0]) == [start, start + 3]


def test_a_video_is_read_once_for_all_of_its_views(videos, monkeypatch):
    calls = []

    def counted(*arguments, **options):
        calls.append(arguments)
        return read_frames(*arguments, **options)

    monkeypatch.setattr("pseudomotion.train.video.views.read_frames", counted)
    EvaluationViews(videos, Sampling(2, "dense", 3), 24, clips=5, crops=3).get(torch.tensor([0, 1]))
    assert len(calls) == 2


def test_one_crop_is_the_middle(videos):
    clips, _, _ = EvaluationViews(videos, Sampling(1), 24).get(torch.tensor([0]))
    assert clips[0, 0, 0, 0, 0].tolist() == [5 * (8 + x) for x in range(24)]


def test_the_short_side_is_resized():
    y, x = np.mgrid[:60, :90]
    frame = np.stack([2 * x, 3 * y, x + y], -1).astype(np.uint8)
    clip = torch.from_numpy(frame).permute(2, 0, 1)[:, None]
    resized = np.asarray(Image.fromarray(frame).resize((48, 32), Image.Resampling.BILINEAR)).astype(int)
    crops = even_crops(clip, 32, 3)
    assert crops.shape == (3, 3, 1, 32, 32)
    for crop, left in zip(crops, (0, 8, 16), strict=True):
        assert np.abs(crop[:, 0].permute(1, 2, 0).numpy() - resized[:, left : left + 32]).max() <= 1
    tall = even_crops(clip.transpose(2, 3), 32, 3)
    assert torch.equal(tall, crops.transpose(3, 4))


def test_training_copies_share_their_frames(videos):
    plain = ClipAugmentation(24, area=(0.3, 1), flip=0.5, randaugment=RandAugment(operations=0))
    views = TrainingViews(videos, Sampling(2, "dense", 3), plain, copies=3, seed=7)
    clips, labels, _ = views.get(torch.tensor([0, 3]))
    assert clips.shape == (2, 3, 3, 2, 24, 24)
    assert labels.tolist() == [0, 1]
    for video, id_ in ((0, 0), (1, 3)):
        frames = read_frames(videos[id_][0], Sampling(2, "dense", 3).drawn(one(id_, seed=7)))
        for copy in range(3):
            assert times(clips[video, copy]) == times(frames)
            assert torch.equal(clips[video, copy], plain(frames, one(3 * id_ + copy, seed=7)))
        assert not torch.equal(clips[video, 0], clips[video, 1])
    assert view_ids(torch.tensor([0, 3]), 3).tolist() == [0, 1, 2, 9, 10, 11]


def test_views_depend_on_seed_and_id_alone(videos):
    views = TrainingViews(videos, Sampling(2, "segments"), ClipAugmentation(16), seed=1)
    ids = torch.tensor([3, 5, 10])
    together, alone = views.get(ids), views.get(ids[1:2])
    assert torch.equal(together.clips[1:2], alone.clips)
    other = TrainingViews(videos, Sampling(2, "segments"), ClipAugmentation(16), seed=2).get(ids)
    assert not torch.equal(together.clips, other.clips)
    assert not torch.equal(views.get(torch.tensor([1])).clips, views.get(torch.tensor([5])).clips)  # the next epoch


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_videos_are_skipped_and_labels_follow(videos, tmp_path, num_workers):
    (tmp_path / "bad.mkv").write_bytes(b"no video")
    listed = [videos[0], (tmp_path / "bad.mkv", 0), videos[1], (tmp_path / "gone.mkv", 1), videos[2]]
    views = EvaluationViews(listed, Sampling(1), 24)
    with pytest.warns(UserWarning, match="skipped 2 broken files"):
        parts = list(batches(views, 2, shuffle=False, num_workers=num_workers))
    read = []
    for batch, ids in parts:
        read += zip(ids.tolist(), batch.videos.tolist(), batch.labels.tolist(), batch.clips[:, 0, 1, 0, 0, 0].tolist(), strict=True)
    # A broken file's id stands for the next video; green tells which one it is.
    assert [(i, v, c) for i, v, c, _ in read] == [(0, 0, 0), (1, 2, 1), (2, 2, 1), (3, 4, 0), (4, 4, 0)]
    assert [green % 5 for *_, green in read] == [0, 1, 1, 2, 2]
    assert sorted(views.skipped) == [1, 3]


def test_lists(videos, tmp_path):
    write_list(tmp_path / "train.csv", videos)
    views = EvaluationViews(tmp_path / "train.csv", Sampling(2), 24)
    assert len(views) == 4
    assert views.labels.tolist() == [0, 1, 0, 1]
    (tmp_path / "bare.csv").write_text(f"{videos[0][0]} 1\n{videos[1][0]}\n")
    with pytest.raises(ValueError, match=r"videos must all have a class from 0, 1 have none, such as .*1\.mkv"):
        EvaluationViews(tmp_path / "bare.csv", Sampling(2), 24)


def test_low_shot(tmp_path):
    listed = [(tmp_path / str(k), (0, 2, 2, 5)[k % 4]) for k in range(80)]
    few = {shots: low_shot(listed, shots, seed=3) for shots in (1, 5, 20)}
    for shots, chosen in few.items():
        labels = [label for _, label in chosen]
        assert {label: labels.count(label) for label in set(labels)} == dict.fromkeys((0, 2, 5), shots)
        assert chosen == [entry for entry in listed if entry in chosen]  # in order
    assert set(few[1]) < set(few[5]) < set(few[20])
    assert few[5] == low_shot(listed, 5, seed=3)
    assert few[5] != low_shot(listed, 5, seed=4)
    with pytest.raises(ValueError, match="shots must be at most 20, as many as class 0 has videos, got 21"):
        low_shot(listed, 21)


def test_wrong_arguments(videos):
    with pytest.raises(ValueError, match="kind must be one of 'dense', 'segments', got 'sparse'"):
        Sampling(4, "sparse")
    with pytest.raises(ValueError, match="crops must be from 1"):
        EvaluationViews(videos, Sampling(2), 24, crops=0)
    with pytest.raises(ValueError, match="copies must be from 1"):
        TrainingViews(videos, Sampling(2), ClipAugmentation(16), copies=0)
    with pytest.raises(ValueError, match="videos must hold at least one"):
        EvaluationViews([], Sampling(2), 24)
    with pytest.raises(ValueError, match="ids must name at least one item"):
        EvaluationViews(videos, Sampling(2), 24).get(torch.tensor([], dtype=torch.int64))
