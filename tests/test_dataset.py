"""PseudoMotionDataset in a DataLoader and as a dataset of Hugging Face."""

import pytest
import torch
from pictures import save, save_cutout
from torch.utils.data import DataLoader

from pseudomotion import PMG, TRANSFORMS, Mixup, PseudoMotionDataset
from pseudomotion.images import ImageFolder, load_textures
from pseudomotion.images.concatenated import Concatenated
from pseudomotion.images.subset import Subset
from pseudomotion.labels import flow, instances, tracks


@pytest.fixture
def source(tmp_path):
    for k in range(7):
        save(tmp_path / "ab"[k % 2] / f"{k}.png", k)
    return ImageFolder(tmp_path, 24)


SMALL = {"num_frames": 4, "size": 16}


def test_items_are_the_clips_of_their_ids_with_their_motion(source):
    pmg = PMG(**SMALL)
    dataset = PseudoMotionDataset(source, pmg, labels=["flow", "tracks"])
    for epoch in (0, 3):
        dataset.set_epoch(epoch)
        ids = torch.tensor([2, 5]) + 7 * epoch
        plan = pmg.plan((2, 3, 24, 24), ids=ids)
        clips, (points, visible) = pmg.render(source.get(ids), plan), tracks(plan)
        for i, item in enumerate((dataset[2], dataset[5])):
            assert item["id"] == int(ids[i])
            assert item["label"] == int(plan.transform[i])
            for name, wanted in (("video", clips), ("flow", flow(plan)), ("tracks", points), ("visible", visible)):
                assert torch.equal(item[name], wanted[i]), name
    assert torch.equal(dataset[-2]["video"], dataset[5]["video"])
    assert len(list(dataset)) == 7
    for index in (7, -8):
        with pytest.raises(IndexError, match="index must be from 0 to 6"):
            dataset[index]


@pytest.mark.parametrize(
    "options",
    [{"transforms": ("cutmix", "zoom")}, {"mix": Mixup()}, {"data_format": "BTCHW", "dtype": torch.float32}, {"objects": "cutouts"}],
)
def test_an_item_is_the_same_in_any_batch_worker_and_order(source, options, tmp_path):
    """Also where clips show each other: the partner comes by id, not from the batch."""
    textures = None
    if "objects" in options:
        save_cutout(tmp_path / "cutouts" / "0.png", 3)
        textures = load_textures(tmp_path / "cutouts", 24, alpha=True)
    dataset = PseudoMotionDataset(source, PMG(**SMALL, **options), textures=textures)
    alone = [dataset[k]["video"] for k in range(7)]
    for workers, batch_size in ((0, 3), (2, 4)):
        loader = DataLoader(dataset, batch_size, sampler=[6, 1, 0, 2, 5, 3, 4], num_workers=workers)
        for batch in loader:
            for id_, video in zip(batch["id"].tolist(), batch["video"], strict=True):
                assert torch.equal(video, alone[id_])


def test_cut_outs_cut_labels_out_too(source, tmp_path):
    save_cutout(tmp_path / "cutouts" / "0.png", 3)
    textures, pmg = load_textures(tmp_path / "cutouts", 24, alpha=True), PMG(**SMALL, objects="cutouts")
    item = PseudoMotionDataset(source, pmg, labels=["instances", "tracks"], textures=textures)[4]
    plan = pmg.plan((1, 3, 24, 24), ids=torch.tensor([4]), textures=textures.shape)
    assert torch.equal(item["instances"], instances(plan, textures=textures)[0])
    assert not torch.equal(item["instances"], instances(plan)[0])
    assert torch.equal(item["visible"], tracks(plan, textures=textures)[1][0])
    with pytest.raises(ValueError, match="textures must be RGBA, over RGB images, for cut-outs"):
        PseudoMotionDataset(source, pmg)[0]


def test_persistent_workers_see_the_epoch(source):
    dataset = PseudoMotionDataset(source, PMG(**SMALL))
    loader, seen = DataLoader(dataset, 7, num_workers=1, persistent_workers=True), []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        seen += [batch["id"].tolist() for batch in loader]
    assert seen == [list(range(7)), list(range(7, 14))]


@pytest.mark.parametrize("workers", [0, 2])
def test_hugging_face_reads_the_same_items(source, workers):
    datasets = pytest.importorskip("datasets")
    dataset = PseudoMotionDataset(source, PMG(**SMALL), labels=["occlusion"])
    rows = dataset.to_iterable_dataset(num_shards=3, batch_size=2)
    assert isinstance(rows, datasets.IterableDataset)
    assert rows.num_shards == 3
    loader = DataLoader(rows, batch_size=None, num_workers=workers)
    found = {int(row["id"]): row for row in loader}
    assert sorted(found) == list(range(7))
    for k, row in found.items():
        assert torch.equal(row["video"], dataset[k]["video"])
        assert torch.equal(row["occlusion"], dataset[k]["occlusion"])


def test_classes_are_those_of_the_images_that_are_shown(source, tmp_path):
    """Through a subset and several sources, past a broken file."""
    (tmp_path / "a" / "2.png").write_bytes(b"broken")
    pmg = PMG(**SMALL)
    items = [*PseudoMotionDataset(source, pmg, label="class")]
    assert [item["label"] for item in items] == [int(source.labels[k]) for k in (0, 2, 2, 3, 4, 5, 6)]
    subset = Subset(source, 4, 0)
    assert [item["label"] for item in PseudoMotionDataset(subset, pmg, label="class")] == [
        int(source.labels[2 if k == 1 else k]) for k in subset.chosen.tolist()
    ]
    both = Concatenated([source, ImageFolder(tmp_path / "b", 24)], 24)
    assert [item["label"] for item in PseudoMotionDataset(both, pmg, label="class")] == [0] * 4 + [1] * 3 + [2] * 3
    assert {item["label"] for item in PseudoMotionDataset(source, pmg)} <= set(range(len(TRANSFORMS)))
    assert [item["label"] for item in PseudoMotionDataset(source, pmg, label="none")] == [0] * 7


def test_arguments_are_checked(source):
    from pseudomotion.images.synthetic import Noise

    for arguments, error, message in (
        ({"pmg": "zoom"}, TypeError, "pmg must be a PMG"),
        ({"labels": "flow"}, TypeError, r"labels must be a sequence of names, got 'flow'; write \['flow'\]"),
        ({"labels": ["depth"]}, ValueError, "labels must be some of flow, .*tracks, got 'depth'"),
        ({"label": "name"}, ValueError, "label must be one of"),
        ({"source": [torch.zeros(3, 24, 24)]}, TypeError, "source must be a map-style source of images, .* got list"),
        ({"source": Noise(size=24), "label": "class"}, ValueError, "images of Noise have no classes"),
    ):
        with pytest.raises(error, match=message):
            PseudoMotionDataset(**{"source": source, "pmg": PMG(**SMALL)} | arguments)
