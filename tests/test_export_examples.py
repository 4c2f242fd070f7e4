"""The examples beside the export: over a cluster with Ray, flow training on the fly, and lists as other repositories read them."""

import math
import os
from pathlib import Path

import av
import numpy as np
import pandas
import pytest
import torch
from pictures import save
from PIL import Image
from test_examples import EXAMPLES, example
from test_export import files_of, records_of, videomae_list

import pseudomotion
from pseudomotion import PMG
from pseudomotion.export import Export, Settings, main, prepare, write_list
from pseudomotion.images import ImageFolder, builtin_picture


@pytest.fixture
def folder(tmp_path):
    for k in range(6):
        save(tmp_path / "images" / f"{k}.png", k)
    return tmp_path / "images"


@pytest.mark.filterwarnings("ignore")
def test_ray_writes_what_one_process_writes(folder, tmp_path, monkeypatch):
    """On one local node. A folder that is there is not written again."""
    ray = pytest.importorskip("ray")
    root = str(Path(pseudomotion.__file__).parents[1])
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": root}})
    try:
        module, settings = example("export_ray"), {"size": 16, "num_frames": 4, "shard_size": 4}
        job = Export(ImageFolder(folder, 18), PMG(num_frames=4, size=16), tmp_path / "ray", Settings(clips=14, shard_size=4))
        prepare(job)
        job.write(1)
        before = job.path(1).stat().st_mtime_ns
        module.export(str(folder), str(tmp_path / "ray"), 14, **settings)
        assert job.path(1).stat().st_mtime_ns == before
        module.export(str(folder), str(tmp_path / "ray"), 14, **settings)  # nothing left to do
    finally:
        ray.shutdown()
    assert len(videomae_list(tmp_path / "ray" / "train.csv")) == 14
    assert main(["--images", str(folder), "--image-size", "18", "--out", str(tmp_path / "one"), "--clips", "14", "--folder", "4",
                 "--frames", "4", "--size", "16", "--workers", "1"]) == 0  # fmt: skip
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "one")


@pytest.fixture(scope="module")
def flow_training(tmp_path_factory):
    """What the flow example was trained on, and its errors and those of no motion, by epoch: every epoch has other motions."""
    images, size, epochs = tmp_path_factory.mktemp("images"), 32, 25
    for k in range(16):
        picture = builtin_picture(96, 96).roll((17 * k, 29 * k), (1, 2)).permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(images / f"{k}.png")
    module, seen = example("flow_training"), []

    class Watched(module.PseudoMotionDataset):
        def __getitems__(self, indices):
            items = super().__getitems__(indices)
            seen.extend(items)
            return items

    module.PseudoMotionDataset = Watched
    torch.manual_seed(0)
    errors = module.train(str(images), size=size, epochs=epochs, batch_size=4, num_workers=0)
    assert sorted(item["id"] for item in seen) == list(range(16 * epochs))
    return seen, errors


def test_what_the_flow_network_is_trained_on(flow_training):
    """Each frame, sampled by torch where the flow of the frame before points, is that frame."""
    sums = torch.zeros(2)
    for item in flow_training[0][:32]:
        frames, (u, v), visible = item["video"].float(), item["flow"][0], ~item["occlusion"][0]
        h, w = u.shape
        y, x = torch.meshgrid(torch.arange(float(h)), torch.arange(float(w)), indexing="ij")
        places = torch.stack([(2 * (x + u) + 1) / w - 1, (2 * (y + v) + 1) / h - 1], -1)
        warped = torch.nn.functional.grid_sample(frames[None, :, 1], places[None], align_corners=False, padding_mode="border")[0]
        assert visible.float().mean() > 0.5
        sums += torch.stack([((frames[:, 0] - other).abs().mean(0) * visible).sum() / visible.sum() for other in (warped, frames[:, 1])])
    assert sums[0] < 0.4 * sums[1]


def test_the_flow_network_learns(flow_training):
    """On motions that it has not seen, it errs less than predicting no motion, or the mean motion, at every pixel."""
    seen, errors = flow_training
    error, still = torch.tensor(errors).T
    last = torch.stack([item["flow"][0] for item in seen[-5 * 16 :]])
    mean_motion = torch.linalg.vector_norm(last - last.mean((0, 2, 3), keepdim=True), dim=1).mean()
    assert error[0] > 0.8 * still[0]
    assert error[-5:].mean() < 0.65 * min(still[-5:].mean(), mean_motion)


def vjepa_list(path):
    """As V-JEPA 2 reads its list: pandas, no header, divided at spaces."""
    data = pandas.read_csv(path, header=None, delimiter=" ")
    return list(data.values[:, 0]), list(data.values[:, 1])


def test_v_jepa_reads_the_list_of_videomae(folder, tmp_path):
    job = Export(ImageFolder(folder, 18), PMG(num_frames=4, size=16), tmp_path / "out", Settings(clips=5, shard_size=2))
    prepare(job)
    for shard in job.part(1, 1):
        job.write(shard)
    paths, labels = vjepa_list(write_list(job))
    assert list(zip(paths, labels, strict=True)) == videomae_list(tmp_path / "out" / "train.csv")
    assert all(os.path.isabs(path) and os.path.getsize(path) for path in paths)
    assert labels == [record["label"] for record in records_of(tmp_path / "out")]
    relative, _ = vjepa_list(write_list(job, relative=True))
    assert [str(tmp_path / "out" / path) for path in relative] == paths


def vjepa_frames(path, count, fps):
    """The frames that V-JEPA 2 takes of a video no longer than a clip: its rate, rounded up, sets the step; the last is repeated."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        step, length = math.ceil(stream.average_rate) // fps, stream.frames
    places = np.linspace(0, length, length // step).clip(0, length - 1).astype(int)
    return [*places, *[length - 1] * (count - len(places))]


def test_v_jepa_takes_every_frame_at_the_rate_of_the_files(folder, tmp_path):
    job = Export(ImageFolder(folder, 18), PMG(num_frames=64, size=16), tmp_path / "out", Settings(clips=1, fps=12))
    prepare(job)
    job.write(0)
    paths, _ = vjepa_list(write_list(job))
    assert vjepa_frames(paths[0], 64, 12) == list(range(64))
    assert len(set(vjepa_frames(paths[0], 64, 6))) == 32
    with pytest.raises(ZeroDivisionError):
        vjepa_frames(paths[0], 64, 13)


def test_every_example_is_tested():
    """Here or beside the trainer's."""
    text = "".join((Path(__file__).parent / name).read_text() for name in ("test_examples.py", "test_export_examples.py"))
    missing = [path.stem for path in EXAMPLES.glob("*.py") if f'"{path.stem}"' not in text and path.stem != "training_loop"]
    assert not missing
