"""Streams of images, tar shards and Hugging Face datasets: nothing twice, nothing lost, nothing broken."""

import io
import tarfile

import numpy as np
import pytest
import torch
from pictures import picture, same
from PIL import Image

from pseudomotion.images import HFImages, HFStream, Shards


@pytest.fixture
def shards(tmp_path):
    """Five tar shards of four images; one image in the third is broken."""
    for k in range(5):
        with tarfile.open(tmp_path / f"part-{k}.tar", "w") as tar:
            for j in range(4):
                data = io.BytesIO()
                Image.fromarray(picture(4 * k + j)).save(data, "png")
                content = b"broken" if (k, j) == (2, 1) else data.getvalue()
                for suffix, payload in (("png", content), ("cls", b"3")):
                    info = tarfile.TarInfo(f"{k}{j}.{suffix}")
                    info.size = len(payload)
                    tar.addfile(info, io.BytesIO(payload))
    return str(tmp_path / "part-*.tar")


@pytest.mark.filterwarnings("ignore:skipped 1 broken files")
def test_shards_are_shared_out_without_overlap_or_loss(shards):
    expected = {id_: image for image, id_ in Shards(shards, (20, 30), shuffle=0)}
    assert len(expected) == 19
    assert {bytes(image.numpy().tobytes()) for image in expected.values()} == {
        picture(k).transpose(2, 0, 1).tobytes() for k in range(20) if k != 9
    }
    for world_size, num_workers in ((1, 0), (2, 2), (1, 2), (6, 0)):
        seen = []
        for rank in range(world_size):
            stream = Shards(shards, (20, 30), rank=rank, world_size=world_size, shuffle=10)
            loader = torch.utils.data.DataLoader(stream, batch_size=3, num_workers=num_workers)
            seen += [(int(i), image) for images, ids in loader for image, i in zip(images, ids, strict=True)]
        assert len(seen) == 19
        assert same(dict(seen), expected)


def test_broken_images_of_shards_are_named_or_raise(shards):
    stream = Shards(shards, 16)
    with pytest.warns(UserWarning, match=r"skipped 1 broken files:\n  cannot read part-2.tar/21"):
        assert len(list(stream)) == 19
    assert list(stream.skipped) == ["part-2.tar/21.png"]
    with pytest.raises(ValueError, match=r"cannot read part-2\.tar/21"):
        list(Shards(shards, 16, strict=True))
    with pytest.raises(ValueError, match="urls must name at least one shard"):
        Shards(shards.replace("part", "nothing"), 16)


@pytest.mark.filterwarnings("ignore:skipped 1 broken files")
def test_shards_come_in_another_order_every_epoch(shards):
    stream = Shards(shards, 16)
    orders = []
    for number in (0, 1, 0):
        stream.set_epoch(number)
        orders.append([id_ for _, id_ in stream])
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


@pytest.fixture
def rows(tmp_path):
    """Rows of a Hugging Face dataset; the third is broken."""
    rows = []
    for k in range(6):
        data = io.BytesIO()
        Image.fromarray(picture(k)).save(data, "png")
        rows.append({"image": {"bytes": b"broken" if k == 2 else data.getvalue(), "path": f"{k}.png"}, "label": k})
    return rows


def hf_dataset(rows):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    return datasets.Dataset.from_list(rows, features=features)


def test_hugging_face_datasets(rows):
    source = HFImages(hf_dataset(rows), (20, 30))
    images = source.get(torch.arange(6))
    for k in range(6):
        assert np.array_equal(images[k].permute(1, 2, 0), picture(3 if k == 2 else k))
    assert list(source.skipped) == [2]
    with pytest.raises(ValueError, match=r"column must be one of 'image', 'label', got 'picture'"):
        HFImages(hf_dataset(rows), 16, column="picture")


@pytest.mark.filterwarnings("ignore:skipped 1 broken files")
def test_hugging_face_streams(rows):
    stream = hf_dataset(rows).to_iterable_dataset(num_shards=3)
    with pytest.raises(TypeError, match="HFStream takes a streaming one"):
        HFImages(stream, 16)
    whole = {id_: image for image, id_ in HFStream(stream, (20, 30))}
    assert len(whole) == 5
    parts = [(id_, image) for rank in range(2) for image, id_ in HFStream(stream, (20, 30), rank=rank, world_size=2)]
    assert len(parts) == 5
    assert same(dict(parts), whole)
