"""pmg-export: which clips it writes, that none is missing or repeated however it is stopped, and that other readers read them."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import torch
from pictures import save, save_cutout
from PIL import Image
from processes import ended, in_group

import pseudomotion
from pseudomotion import PMG, TRANSFORMS, VideoMix
from pseudomotion.export import main, runner
from pseudomotion.export.plans import load_plans, resize_plan, select_clips
from pseudomotion.images import ImageFolder, ImageSource, load_textures
from pseudomotion.images.bank import write_bank
from pseudomotion.images.entries import open_entries
from pseudomotion.labels import flow, instances, occlusion, tracks
from pseudomotion.render import render

SMALL = ["--frames", "4", "--size", "16", "--workers", "1", "--image-size", "24"]


@pytest.fixture
def folder(tmp_path):
    """Six images of two classes."""
    for k in range(6):
        save(tmp_path / "images" / "ab"[k % 2] / f"{k}.png", k)
    return tmp_path / "images"


def run(folder, out, *more, clips=10, code=0):
    assert main(["--images", str(folder), "--out", str(out), "--clips", str(clips), *SMALL, *map(str, more)]) == code


def files_of(out):
    """What an export wrote, but for the manifest, which has the time and the command, and lists, which have paths."""
    kinds = ("clips", "plans", "records")
    return {path.relative_to(out).as_posix(): path.read_bytes() for kind in kinds for path in (out / kind).rglob("*") if path.is_file()}


def records_of(out):
    return [json.loads(line) for path in sorted((out / "records").iterdir()) for line in path.read_text().splitlines()]


def videomae_list(path):
    """As the official repository reads its list: split at single spaces, path as it is, label an integer."""
    rows = [line.split(" ") for line in Path(path).read_text().splitlines()]
    return [(row[0], int(row[1])) for row in rows]


def decoded_by_pyav(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def decoded_by_opencv(path):
    video, frames = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        frames.append(read[1][..., ::-1])
    return np.stack(frames)


def expected(folder, records, **options):
    """The clips (n, T, h, w, 3) of records, made by the public interface."""
    ids = torch.tensor([record["id"] for record in records])
    pmg = PMG(**{"num_frames": 4, "size": 16} | options)
    return pmg(ImageFolder(folder, 24).get(ids), ids=ids).permute(0, 2, 3, 4, 1).numpy()


def test_videos_are_decoded_by_pyav_and_opencv_and_the_list_by_videomaes_convention(folder, tmp_path, capsys):
    run(folder, tmp_path / "out", "--folder", "4", "--crf", "4")
    listed, records = videomae_list(tmp_path / "out" / "train.csv"), records_of(tmp_path / "out")
    assert [len(list((tmp_path / "out" / "clips" / f"{k:05d}").iterdir())) for k in range(3)] == [4, 4, 2]
    assert [Path(path).stem for path, _ in listed] == [f"{k:08d}" for k in range(10)]
    assert [label for _, label in listed] == [list(TRANSFORMS).index(record["transform"]) for record in records]
    assert len({label for _, label in listed}) == 2
    assert len({record["id"] for record in records}) == 10
    assert Counter(record["image"] for record in records).most_common()[-1][1] == 1  # every image once before one comes again
    for (path, _), clip in zip(listed, expected(folder, records), strict=True):
        frames = decoded_by_pyav(path)
        assert frames.shape == (4, 16, 16, 3)
        assert np.abs(frames.mean((1, 2)) - clip.mean((1, 2))).max() < 3
        luma = [array.astype(float) @ (0.2126, 0.7152, 0.0722) for array in (frames, clip)]
        assert np.abs(luma[0] - luma[1]).mean() < 4
        assert np.abs(decoded_by_opencv(path).astype(int) - frames).mean() < 4
    said = capsys.readouterr().out
    assert "10 clips to write: about " in said
    assert "clips/s" in said
    assert said.endswith("train.csv: all 10 clips are there\n")


@pytest.mark.parametrize(
    ("options", "most"),
    [
        (["--format", "png"], 0),
        (["--format", "webp", "--quality", "100"], 0),
        (["--crf", "0", "--pixel-format", "yuv444p"], 3),
    ],
)
def test_lossless_forms_hold_the_pixels(folder, tmp_path, options, most):
    run(folder, tmp_path / "out", *options, clips=4)
    out, records = tmp_path / "out", records_of(tmp_path / "out")
    for record, clip in zip(records, expected(folder, records), strict=True):
        path = out / "clips" / "00000" / record["key"]
        if most:
            frames = decoded_by_pyav(path.with_suffix(".mp4"))
        else:
            images = sorted(path.iterdir())
            assert [image.stem for image in images] == [f"img_{t:05d}" for t in range(1, 5)]
            frames = np.stack([np.array(Image.open(image)) for image in images])
            line = (out / "train.csv").read_text().splitlines()[int(record["key"])]
            assert line == f"{path} 4 {record['label']}"
        assert np.abs(frames.astype(int) - clip).max() <= most


def test_parts_are_disjoint_and_together_the_whole(folder, tmp_path, capsys):
    run(folder, tmp_path / "whole", "--folder", "3", "--annotations", "flow")
    whole = files_of(tmp_path / "whole")
    seen = {}
    for part in (3, 1, 2, 4, 5):
        assert not (tmp_path / "parts" / "train.csv").exists() or part == 5
        capsys.readouterr()
        run(folder, tmp_path / "parts", "--folder", "3", "--annotations", "flow", "--part", f"{part}/5")
        now = files_of(tmp_path / "parts")
        assert all(now[name] == content for name, content in seen.items())
        seen = now
    assert "part 5 of 5 is empty" in capsys.readouterr().out
    assert seen == whole
    names = [[Path(path).name for path, _ in videomae_list(tmp_path / out / "train.csv")] for out in ("whole", "parts")]
    assert names[0] == names[1]


def test_killed_at_any_moment_it_goes_on_without_a_missing_or_a_repeated_clip(folder, tmp_path):
    """Two workers; the main process is killed as no program can prepare for, and its workers end by themselves."""
    options = ["--images", str(folder), "--clips", "240", "--folder", "20", *SMALL, "--preset", "ultrafast"]
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pseudomotion.export", "--out", str(out), *options, "--workers", "2"]
    environment = os.environ | {"PYTHONPATH": str(Path(pseudomotion.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True)
    while len(list((out / "clips").glob("[0-9]*"))) < 3 and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None
    workers = [pid for pid in in_group(process.pid) if pid != process.pid]
    assert len(workers) >= 2
    process.kill()
    process.wait()
    assert ended(workers)
    before = {path: path.stat().st_mtime_ns for path in (out / "clips").glob("[0-9]*")}
    assert 3 <= len(before) < 12
    assert main(["--out", str(out), *options]) == 0
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in before.items())
    assert len(videomae_list(out / "train.csv")) == 240
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]
    assert main(["--out", str(tmp_path / "whole"), *options]) == 0
    assert files_of(out) == files_of(tmp_path / "whole")


def test_interrupted_it_says_so_in_one_line_and_leaves_no_half_folder(folder, tmp_path):
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's background jobs ignore it
    program = f"{listen}; import sys; from pseudomotion.export import main; sys.exit(main())"
    script = tmp_path / "script.py"
    script.write_text(f"if __name__ == '__main__':\n    {program}\n")
    options = ["--images", str(folder), "--clips", "4000", "--folder", "500", *SMALL, "--out", str(tmp_path / "out"), "--workers", "2"]
    environment = os.environ | {"PYTHONPATH": str(Path(pseudomotion.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, script, *options], stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    while not list((tmp_path / "out").glob("clips/.*/*.mp4")) and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers get it too
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "pmg-export: interrupted\n" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "out" / "clips").glob(".*"))


@pytest.mark.parametrize("exposure", [0, 0.5])
def test_the_plans_make_any_clip_again_bit_by_bit(folder, tmp_path, exposure):
    run(
        folder,
        tmp_path / "out",
        "--format",
        "png",
        "--folder",
        "6",
        "--transforms",
        "zoom,affine,cutmix",
        "--mix",
        "videomix",
        "--objects",
        "smile2025",
        "--exposure",
        exposure,
        "--subframes",
        2,
    )
    source = ImageFolder(folder, 24)
    for shard, count in ((0, 6), (1, 4)):
        planned = load_plans(tmp_path / "out" / "plans" / f"{shard:05d}.safetensors")
        assert planned.count == count
        assert planned.plan.exposure == exposure
        for i in range(count):
            part = planned.select(torch.tensor([i]))
            assert len(part.plan) == 2  # the clip and its partner
            folder_of_frames = tmp_path / "out" / "clips" / f"{shard:05d}" / f"{6 * shard + i:08d}"
            frames = np.stack([np.array(Image.open(image)) for image in sorted(folder_of_frames.iterdir())])
            again = render(source.get(part.ids), part.plan, count=part.count)[0].permute(1, 2, 3, 0).numpy()
            assert np.array_equal(again, frames)
    assert len({record["transform"] for record in records_of(tmp_path / "out")}) == 3


def test_cut_outs_are_the_same_for_any_workers_and_batch_and_their_labels_have_alpha(folder, tmp_path, capsys):
    for k in range(4):
        save_cutout(tmp_path / "cutouts" / f"{k}.png", k)
    options = ["--objects", "cutouts", "--textures", tmp_path / "cutouts", "--num-textures", 3, "--format", "png", "--folder", 4]
    labels = ["--annotations", "flow,instances,boxes,tracks"]
    run(folder, tmp_path / "out", *options, *labels, clips=8)
    run(folder, tmp_path / "again", *options, *labels, "--workers", 2, "--batch-size", 3, clips=8)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "again")
    source, textures = ImageFolder(folder, 24), load_textures(tmp_path / "cutouts", 24, limit=3, alpha=True)
    planned = load_plans(tmp_path / "out" / "plans" / "00001.safetensors")
    assert len(planned.ids) == 4  # without partners, of which nothing would show
    clips = render(source.get(planned.ids), planned.plan, textures=textures)
    where, outlines = instances(planned.plan, textures=textures), instances(planned.plan)
    assert (where != outlines).float().mean() > 0.02
    for i in range(4):
        frames, maps = (
            np.stack([np.array(Image.open(path)) for path in sorted((tmp_path / "out" / "clips" / "00001" / kind).glob(f"{4 + i:08d}/*"))])
            for kind in ("", "instances")
        )
        assert np.array_equal(frames, clips[i].permute(1, 2, 3, 0).numpy())
        assert np.array_equal(maps, where[i].numpy())
    save_cutout(tmp_path / "cutouts" / "3.png", 40)
    capsys.readouterr()
    run(folder, tmp_path / "out", *options, *labels, "--num-textures", 4, clips=8, code=2)
    assert "holds another export: textures was" in capsys.readouterr().err


@pytest.mark.parametrize("resampling", ["recursive", "composed"])
@pytest.mark.parametrize("size", [40, 8])
def test_a_plan_for_frames_of_another_size_is_that_of_a_pmg_of_that_size(size, resampling):
    """For transforms that do not move by whole pixels."""
    plan, wanted = (
        PMG(("affine", "fade"), num_frames=5, size=side, resampling=resampling).plan((20, 3, 48, 60), ids=torch.arange(20))
        for side in (16, size)
    )
    resized = resize_plan(plan, size)
    assert resized.frame_size == wanted.frame_size
    torch.testing.assert_close(resized.back.motion.homography, wanted.back.motion.homography, rtol=1e-5, atol=1e-5)
    assert resize_plan(plan, 16) is plan


def test_in_frames_of_another_shape_everything_stays_at_its_share_of_the_frame():
    """Layers and blends too: flow, a function of all of it, is that of the small frames, stretched."""
    plan = PMG(("cutmix", "affine", "zoom", "perspective"), num_frames=3, size=16, mix=VideoMix()).plan((8, 3, 20, 20), ids=torch.arange(8))
    stretched = flow(resize_plan(plan, (32, 48)))
    torch.testing.assert_close(stretched, flow(plan, (32, 48)), rtol=1e-4, atol=1e-3)


def test_clips_are_chosen_with_what_they_show():
    plan = PMG(("cutmix",), num_frames=2, size=8).plan((4, 3, 8, 8), ids=torch.arange(4))
    with pytest.raises(ValueError, match="must be chosen together with the clips whose images they show"):
        select_clips(plan, torch.tensor([0]))
    everything = select_clips(plan, torch.tensor([2, 0, 3, 1]))
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    same = render(images[[2, 0, 3, 1]], everything)
    assert torch.equal(same, render(images, plan)[[2, 0, 3, 1]])


def test_flow_is_read_by_independent_readers(folder, tmp_path):
    for form in ("npz", "flo", "kitti"):
        run(folder, tmp_path / form, "--annotations", "flow", "--flow-format", form, "--transforms", "affine,sliding_window", clips=5)
        assert main(["--images", str(folder), "--out", str(tmp_path / form), "--clips", "5", *SMALL, "--verify",
                     "--annotations", "flow", "--flow-format", form, "--transforms", "affine,sliding_window"]) == 0  # fmt: skip
    planned = load_plans(tmp_path / "npz" / "plans" / "00000.safetensors")
    wanted, lost = flow(planned.plan).numpy(), occlusion(planned.plan).numpy()
    assert np.abs(wanted).max() > 0.3
    for i in range(5):
        with np.load(tmp_path / "npz" / "clips" / "00000" / "flow" / f"{i:08d}.npz") as arrays:
            np.testing.assert_allclose(arrays["flow"], wanted[i], rtol=1e-3, atol=1e-6)
            assert arrays["flow"].dtype == np.float16
            assert np.array_equal(arrays["occluded"], lost[i])
        for t in range(3):
            pair = f"{i:08d}/{t:05d}"
            read = cv2.readOpticalFlow(str(tmp_path / "flo" / "clips" / "00000" / "flow" / f"{pair}.flo"))
            assert np.array_equal(read, wanted[i, t].transpose(1, 2, 0))
            blue_green_red = cv2.imread(str(tmp_path / "kitti" / "clips" / "00000" / "flow" / f"{pair}.png"), cv2.IMREAD_UNCHANGED)
            assert blue_green_red.dtype == np.uint16
            assert (blue_green_red[..., 0] == 1).all()
            read = (blue_green_red[..., :0:-1].astype(np.float64) - 2**15) / 64  # (u, v)
            assert np.abs(read - wanted[i, t].transpose(1, 2, 0)).max() <= 1 / 128 + 1e-6


def test_flow_that_kittis_form_cannot_hold_is_not_valid():
    from pseudomotion.export.encode import kitti_flow

    uv = np.zeros((2, 3, 5), np.float32)
    uv[0, 0], uv[1, 1], uv[0, 2, 0] = 511.995, -512.01, -512
    read = cv2.imdecode(np.frombuffer(kitti_flow(uv), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read[..., 0], [[0] * 5, [0] * 5, [1] * 5])
    assert read[2, 0, 2] == 0
    assert read[2, 1, 2] == 2**15


def test_instances_and_boxes_are_those_of_the_pixels(folder, tmp_path):
    """cutmix paints one layer: where the mask is 1 the clip shows the partner, and the box spans the mask."""
    run(folder, tmp_path / "out", "--annotations", "instances,boxes", "--transforms", "cutmix", "--format", "png", clips=6)
    out, source = tmp_path / "out" / "clips" / "00000", ImageFolder(folder, 24)
    planned, seen = load_plans(tmp_path / "out" / "plans" / "00000.safetensors"), 0
    for i in range(6):
        part = planned.select(torch.tensor([i]))
        swapped = source.get(part.ids)
        other = swapped.clone()
        other[1] = 255 - other[1]  # another partner changes the pixels of the layer, and no others
        clips = [render(images, part.plan, count=1)[0].permute(1, 2, 3, 0).numpy().astype(int) for images in (swapped, other)]
        with np.load(out / "boxes" / f"{i:08d}.npz") as arrays:
            boxes, share = arrays["visible"], arrays["share"]
        assert boxes.shape == (4, 1, 4)
        for t in range(4):
            mask = np.array(Image.open(out / "instances" / f"{i:08d}" / f"{t:05d}.png"))
            assert mask.dtype == np.uint8
            assert set(np.unique(mask)) <= {0, 1}
            differs = np.abs(clips[0][t] - clips[1][t]).max(-1) > 8
            edge = cv2.dilate(mask, np.ones((3, 3))) - cv2.erode(mask, np.ones((3, 3)))
            assert not (differs & (mask == 0) & (edge == 0)).any()
            if mask.any():
                seen += 1
                rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
                edges = [columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5]
                np.testing.assert_allclose(boxes[t, 0], edges)
                assert share[t, 0] == 1
                assert differs[mask == 1].mean() > 0.5
    assert seen > 10
    run(folder, tmp_path / "out", "--annotations", "instances,boxes", "--transforms", "cutmix", "--format", "png", "--verify", clips=6)


def test_tracks_have_the_fields_of_tap_vid(folder, tmp_path):
    """Checked as TAP-Vid's documents define them: raster coordinates from 0 to 1, point, time, x and y; and against the pixels."""
    run(folder, tmp_path / "out", "--annotations", "tracks", "--transforms", "sliding_window", "--frames", "6", "--size", "32x48", clips=6)
    planned = load_plans(tmp_path / "out" / "plans" / "00000.safetensors")
    _, visible = tracks(planned.plan)
    for i in range(6):
        with np.load(tmp_path / "out" / "clips" / "00000" / "tracks" / f"{i:08d}.npz") as example:
            video, points, occluded = example["video"], example["points"], example["occluded"]
        assert (video.dtype, points.dtype, occluded.dtype) == (np.uint8, np.float32, bool)
        assert video.shape == (6, 32, 48, 3)
        assert points.shape == (6, 6, 2)
        assert occluded.shape == (6, 6)
        np.testing.assert_allclose(points[:, 0], [[(8 + 16 * x) / 48, (8 + 16 * y) / 32] for y in range(2) for x in range(3)], atol=1e-6)
        assert (points[~occluded] >= 0).all()
        assert (points[~occluded] <= 1).all()
        assert np.array_equal(occluded, ~visible[i].numpy().T)
        for n in range(6):
            for t in range(6):
                if not occluded[n, t]:
                    column, row = np.floor(points[n, t] * (48, 32) - 1e-4).astype(int)
                    around = video[t, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].reshape(-1, 3).astype(int)
                    column, row = np.floor(points[n, 0] * (48, 32) - 1e-4).astype(int)
                    assert np.abs(around - video[0, row, column]).max(1).min() < 25


@pytest.mark.filterwarnings("ignore:.*unclosed file|Exception ignored")  # webdataset leaves its files to the garbage collector
def test_tar_shards_are_read_by_webdataset_datasets_and_ours(folder, tmp_path):
    datasets, webdataset = pytest.importorskip("datasets"), pytest.importorskip("webdataset")
    from pseudomotion.images import Shards

    out = tmp_path / "out"
    run(folder, out, "--shards", "4", "--annotations", "tracks,flow")
    records = records_of(out)
    urls = (out / "shards.txt").read_text().split()
    assert [Path(url).name for url in urls] == ["00000.tar", "00001.tar", "00002.tar"]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [record["key"] for record in records]
    for sample, record, clip in zip(samples, records, expected(folder, records), strict=True):
        assert (sample["cls"], sample["json"]) == (record["label"], record)
        (tmp_path / "clip.mp4").write_bytes(sample["mp4"])
        assert np.abs(decoded_by_pyav(tmp_path / "clip.mp4").mean((1, 2)) - clip.mean((1, 2))).max() < 4
        assert sample["flow.npz"]["flow"].shape == (3, 2, 16, 16)
        assert np.array_equal(sample["tracks.npz"]["video"], clip)
    rows = datasets.load_dataset("webdataset", data_files=urls, split="train", cache_dir=str(tmp_path / "cache"))
    rows = rows.cast_column("mp4", datasets.Video(decode=False)) if "Video" in str(rows.features["mp4"]) else rows
    assert [row["__key__"] for row in rows] == [record["key"] for record in records]
    content = rows[3]["mp4"]
    assert (content["bytes"] if isinstance(content, dict) else content) == samples[3]["mp4"]
    run(folder, tmp_path / "frames", "--shards", "4", "--format", "png")
    frames = list(Shards(str(tmp_path / "frames" / "clips" / "*.tar"), 16, extension="00002.png", shuffle=0))
    assert np.array_equal(np.stack([image.permute(1, 2, 0) for image, _ in frames]), expected(folder, records)[:, 2])


@pytest.mark.filterwarnings("ignore:.*unclosed file")
@pytest.mark.parametrize(("form", "column"), [("mp4", "video"), ("png", "frames")])
def test_a_folder_is_loaded_by_datasets(folder, tmp_path, monkeypatch, form, column):
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "out"
    run(folder, out, "--huggingface", "--format", form, "--folder", "4")
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    records = records_of(out)
    assert len(rows) == 10
    plain = {name: rows[name] for name in ("key", "id", "image", "transform", "label")}
    assert [dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True)] == records
    if form == "mp4":
        rows = rows.cast_column("video", datasets.Video(decode=False))
        assert all(Path(row["video"]["path"]).stem == record["key"] for row, record in zip(rows, records, strict=True))
    else:
        clip = expected(folder, records)[7]
        assert np.array_equal(np.stack([np.array(frame) for frame in rows[7][column]]), clip)
    assert "made by pseudomotion" in (out / "README.md").read_text()


@pytest.mark.parametrize("kind", ["bank", "tar", "datasets"])
def test_images_of_every_kind_give_the_same_clips(kind, folder, tmp_path, capsys):
    paths, given = ImageFolder(folder, 24).paths, tmp_path / f"images.{kind}"
    if kind == "bank":
        write_bank(ImageFolder(folder, 24), given)
    elif kind == "tar":
        with tarfile.open(given, "w") as tar:
            for path in paths:
                tar.add(path, path.name)
        assert main(["--images", f"stream:{given}", "--out", str(tmp_path / "out"), "--clips", "9", *SMALL]) == 2
        assert f"pmg-bank bank.safetensors --images stream:{given} --image-size 24 --limit" in capsys.readouterr().err
    else:
        datasets = pytest.importorskip("datasets")
        rows = datasets.Dataset.from_dict({"image": [{"bytes": path.read_bytes(), "path": None} for path in paths]})
        rows.cast_column("image", datasets.Image()).save_to_disk(given)
    run(folder, tmp_path / "wanted", "--annotations", "flow", clips=9)
    run(given, tmp_path / "out", "--annotations", "flow", clips=9)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "wanted")
    assert isinstance(pickle.loads(pickle.dumps(open_entries([str(given)], 24))), ImageSource)  # as workers get it


def test_classes_are_those_of_the_images_that_are_shown(folder, tmp_path):
    (folder / "a" / "2.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"skipped 1 broken files; the next image took the place of each:\n  cannot read .*a/2.png"):
        run(folder, tmp_path / "out", "--label", "class", "--format", "png", clips=12)
    records, source = records_of(tmp_path / "out"), ImageFolder(folder, 24)
    labels = [label for *_, label in (line.split(" ") for line in (tmp_path / "out" / "train.csv").read_text().splitlines())]
    assert [int(label) for label in labels] == [int(source.labels[record["image"]]) for record in records]
    assert Counter(record["image"] for record in records) == {0: 2, 2: 4, 3: 2, 4: 2, 5: 2}


def test_another_first_number_is_another_set(folder, tmp_path):
    run(folder, tmp_path / "all", "--folder", "5", clips=20)
    run(folder, tmp_path / "end", "--folder", "5", "--first", "10", clips=10)
    every, end = records_of(tmp_path / "all"), records_of(tmp_path / "end")
    assert every[10:] == end
    assert (tmp_path / "all/clips/00003/00000019.mp4").read_bytes() == (tmp_path / "end/clips/00001/00000019.mp4").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "photos"], "cannot write to photos: it is not empty, and no pmg-export made it"),
        (["--out", "photos/a.txt"], "cannot write to photos/a.txt: it is not a folder"),
        (["--out", "foreign"], "foreign/manifest.json is no manifest of pmg-export"),
        (["--images", "nothing"], "cannot read nothing: there is no such file or folder"),
        (["--transforms", "spin"], "unknown transform 'spin'"),
        (["--transforms", ","], "--transforms names no transform"),
        (["--size", "15"], "size must be even for yuv420p"),
        (["--size", "16", "--frames", "1", "--annotations", "flow"], "annotations need clips of at least two frames"),
        (["--source", "noise", "--label", "class"], "images of Noise have no classes"),
        (["--crop", "0.5", "0.2"], "crop must satisfy"),
        (["--device", "cuda"], "torch finds no CUDA device"),
        (["--verify"], "cannot read out: there is no such folder"),
        (["--objects", "cutouts"], "--objects cutouts need --textures, images with alpha"),
        (["--textures", "noise"], "--textures are what objects show; they need --objects"),
        (["--objects", "cutouts", "--textures", "noise"], "textures must be cut-outs, such as PNG files with transparent parts"),
        (["--objects", "mixed", "--textures", "noise", "--transforms", "cutmix"], "textures cannot be given beside cutmix"),
    ],
)
def test_one_line_and_exit_code_2(options, message, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(PMG, "render", None)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.json").write_text("{}")
    images = [] if {"--images", "--source"} & set(options) else ["--images", str(folder)]
    assert main(["--clips", "4", "--out", "out", *SMALL, *images, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pmg-export: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "photos" / "a.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "options",
    [
        ["--part", "0/4"],
        ["--part", "5/4"],
        ["--part", "x"],
        ["--size", "0x3"],
        ["--annotations", "depth"],
        ["--crf", "60"],
        ["--folder", "1001"],
    ],
)
def test_wrong_options(options, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--source", "noise", "--clips", "4", "--out", "out", *options])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"pmg-export: argument {options[0]}: must be")


def test_a_folder_is_not_gone_on_with_by_another_command_or_on_other_images(folder, tmp_path, capsys):
    run(folder, tmp_path / "out")
    before = files_of(tmp_path / "out")
    for options, named in (
        (["--crf", "30"], "crf was 18 and is now 30"),
        (["--seed", "1"], "seed was 0 and is now 1"),
        (["--size", "20"], "pmg was"),
    ):
        run(folder, tmp_path / "out", *options, code=2)
        error = capsys.readouterr().err
        assert "holds another export: " in error
        assert named in error
    save(folder / "a" / "0.png", 9)
    run(folder, tmp_path / "out", code=2)
    assert "sample was" in capsys.readouterr().err
    assert files_of(tmp_path / "out") == before


def test_what_does_not_fit_is_refused_before_a_clip_is_written(folder, tmp_path, monkeypatch, capsys):
    """The estimate comes from real clips: it is near what the whole then takes."""
    monkeypatch.setattr(runner.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    run(folder, tmp_path / "out", clips=1_000_000, code=2)
    assert "cannot write to " in (error := capsys.readouterr().err)
    assert "1000000 clips take about" in error
    assert not list((tmp_path / "out").glob("clips/*"))
    monkeypatch.undo()
    for more in ([], ["--shards", "20", "--annotations", "flow"]):
        shutil.rmtree(tmp_path / "out")
        run(folder, tmp_path / "out", *more, clips=40)
        said = capsys.readouterr().out
        about, wrote = (float(line.split("KB")[0].split()[-1]) for line in said.splitlines()[:2])
        assert about == pytest.approx(wrote, rel=0.2)


def test_verify_finds_what_is_wrong(folder, tmp_path, capsys):
    run(folder, tmp_path / "out", "--folder", "4")
    run(folder, tmp_path / "out", "--folder", "4", "--verify")
    assert "all 10 clips are there, once each, and can be decoded" in capsys.readouterr().out
    clips = tmp_path / "out" / "clips"
    for broken, message in (
        (lambda: (clips / "00000" / "00000001.mp4").unlink(), "00000001.mp4 is missing"),
        (lambda: shutil.copy(clips / "00000/00000002.mp4", clips / "00000/00000009.mp4"), "00000009.mp4 is no file of it"),
        (lambda: (clips / "00000" / "00000003.mp4").write_bytes(b"no video"), "00000003.mp4 cannot be decoded"),
        (lambda: shutil.rmtree(clips / "00001"), "clips/00001 is missing"),
        (lambda: (tmp_path / "out/records/00002.jsonl").write_text(""), "must hold clips 00000008 to 00000009"),
        (lambda: (tmp_path / "out/plans/00002.safetensors").unlink(), "cannot read the records and plans"),
    ):
        broken()
        run(folder, tmp_path / "out", "--folder", "4", "--verify", code=2)
        assert message in capsys.readouterr().err
