"""Streams of images, tar shards and Hugging Face datasets: nothing twice, nothing lost, nothing broken."""

import builtins
import errno
import io
import re
import sys
import tarfile
import types
from pathlib import Path

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
            stream = Shards(shards, (20, 30), rank=rank, world_size=world_size, shuffle=10, even=False)
            loader = torch.utils.data.DataLoader(stream, batch_size=3, num_workers=num_workers)
            seen += [(int(i), image) for images, ids in loader for image, i in zip(images, ids, strict=True)]
        assert len(seen) == 19
        assert same(dict(seen), expected)


def make_shard(path, members, first=0):
    """A tar of a small picture per name."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for k, name in enumerate(members, first):
            data = io.BytesIO()
            Image.fromarray(picture(k)).save(data, "png")
            info = tarfile.TarInfo(name)
            info.size = data.tell()
            tar.addfile(info, io.BytesIO(data.getvalue()))
    return path


def pictures(stream):
    """Which pictures come out of a stream, in order."""
    known = {picture(k).tobytes(): k for k in range(40)}
    return [known[image.permute(1, 2, 0).numpy().tobytes()] for image, _ in stream]


@pytest.mark.filterwarnings("ignore:skipped", "ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("counts", [(8, 8, 8), (9, 7, 11), (1, 1)])
def test_every_rank_gets_as_many_images(tmp_path, counts, num_workers):
    """Whatever shards hold, and also where an image is broken; nothing comes twice but in the place of a broken one."""
    for k, count in enumerate(counts):
        make_shard(tmp_path / f"{k}.tar", [f"{j}.png" for j in range(count)], first=10 * k)
    first = (tmp_path / "0.tar").read_bytes()
    for broken in (False, True):
        if broken and len(counts) == 3:
            (tmp_path / "0.tar").write_bytes(first.replace(b"IDAT", b"XXXX", 1))
        for world_size in (2, 3):
            ranks = []
            for rank in range(world_size):
                stream = Shards(str(tmp_path / "*.tar"), (20, 30), rank=rank, world_size=world_size, shuffle=3)
                stream.set_epoch(1)
                loader = torch.utils.data.DataLoader(stream, batch_size=2, num_workers=num_workers)
                ranks.append([int(i) for _, ids in loader for i in ids])
            assert len(set(map(len, ranks))) == 1
            seen = [id_ for rank in ranks for id_ in rank]
            assert len(seen) == len(set(seen))
            if not num_workers:
                assert len(seen) == sum(counts) - sum(counts) % world_size


def test_an_even_split_needs_a_readable_image(tmp_path):
    path = make_shard(tmp_path / "a.tar", ["0.png", "1.png"])
    path.write_bytes(path.read_bytes().replace(b"IDAT", b"XXXX"))
    with pytest.raises(ValueError, match=r"not one of 1 images can be read; the first: cannot read a\.tar/0\.png"):
        list(Shards(path, 16, world_size=2))


@pytest.mark.filterwarnings("ignore:skipped 1 broken files")
def test_names_of_shards(tmp_path, monkeypatch):
    """Braces, globs, paths, and names that look like a pattern or an address but are there."""
    monkeypatch.chdir(tmp_path)
    for k in range(12):
        make_shard(Path(f"s-{k:06d}.tar"), ["0.png"], first=k)
    for k, name in enumerate(("c[1].tar", "10:30.tar", "pipe:x.tar", "{a,b}.tar", "z.tar.gz"), 20):
        make_shard(Path(name), ["0.png"], first=k)
    for urls, expected in (
        ("s-{000008..000011}.tar", [8, 9, 10, 11]),
        ("s-{000000..000000}{1,2}.tar", None),
        ("s-00000{1,3}.tar", [1, 3]),
        ("s-00000[2-4].tar", [2, 3, 4]),
        ("c[1].tar", [20]),
        ("10:30.tar", [21]),
        ("pipe:x.tar", [22]),
        ("{a,b}.tar", [23]),
        (Path("z.tar.gz"), [24]),
        ([Path("s-000000.tar"), "s-00001{0..1}.tar"], [0, 10, 11]),
    ):
        if expected is None:
            with pytest.raises(ValueError, match="urls must name at least one shard"):
                Shards(urls, 16)
        else:
            assert pictures(Shards(urls, (20, 30), shuffle=0)) == expected, urls
    for missing in ("none.tar", "none-*.tar"):
        stream = Shards(["s-000000.tar", missing], (20, 30))
        assert pictures(stream) == [0]
        assert list(stream.skipped) == [missing]
        assert "No such file" in stream.skipped[missing]
        with pytest.raises(ValueError, match=f"cannot read {re.escape(missing)}"):
            list(Shards(["s-000000.tar", missing], 16, strict=True))


def test_one_image_of_every_sample(tmp_path):
    members = [
        ".hidden.png",
        "d/._0.png",
        "d/0.seg.png",
        "d/0.png",
        "d/0.depth.png",
        "e/0.png",
        "e/0.jpg",
        "x.rgb.png",
        "y.1.png",
        "y.2.png",
    ]
    path = make_shard(tmp_path / "a.tar", members)
    stream = Shards(path, (20, 30), shuffle=0)
    with pytest.warns(UserWarning, match=r"cannot read a.tar/y: 2 image files, none of them y.jpg or the like; choose one by extension="):
        assert pictures(stream) == [3, 6, 7]
    assert list(stream.skipped) == ["a.tar/y"]
    assert pictures(Shards(path, (20, 30), shuffle=0, extension="seg.png")) == [2]
    assert pictures(Shards(path, (20, 30), shuffle=0, extension=("jpg", "2.png"))) == [6, 9]


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("cut", [0, 300, 700])  # between two files; within a header; within a file
def test_a_shard_that_breaks_off_gives_what_came_before(tmp_path, suffix, cut):
    path = make_shard(tmp_path / f"a{suffix}", [f"{k}.png" for k in range(20)])
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        middle = tar.getmembers()[10].offset
    path.write_bytes(whole[: middle + cut] if suffix == ".tar" else whole[: len(whole) * (cut + 1100) // 2400])
    stream = Shards(path, (20, 30), shuffle=0)
    seen = pictures(stream)
    assert 3 < len(seen) < 20
    assert seen == list(range(len(seen)))
    assert str(path) in stream.skipped
    with pytest.raises(ValueError, match="cannot read"):
        list(Shards(path, 16, strict=True))


class Pipe:
    """What webdataset gives for an address: it can be read, once."""

    def __init__(self, data):
        self.read = io.BytesIO(data).read

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.filterwarnings("ignore:skipped")
def test_remote_shards_are_read_by_webdataset(tmp_path, monkeypatch):
    """Also in an even split, and where one breaks off."""
    remote = {f"https://host/{k}.tar": make_shard(tmp_path / f"{k}.tar", ["0.png", "1.png", "2.png"], 3 * k).read_bytes() for k in (0, 1)}
    asked = []

    def gopen(url):
        asked.append(url)
        return Pipe(remote[url])

    monkeypatch.setitem(sys.modules, "webdataset", types.SimpleNamespace(gopen=gopen))
    assert sorted(pictures(Shards("https://host/{0..1}.tar", (20, 30)))) == [0, 1, 2, 3, 4, 5]
    assert sorted(asked) == sorted(remote)
    ranks = [pictures(Shards("https://host/{0..1}.tar", (20, 30), rank=rank, world_size=2, shuffle=0)) for rank in range(2)]
    assert ranks == [[0, 2, 4], [1, 3, 5]]
    remote["https://host/0.tar"] = remote["https://host/0.tar"][:1000]
    stream = Shards("https://host/0.tar", (20, 30))
    assert not pictures(stream)
    assert "https://host/0.tar" in stream.skipped


def test_same_names_in_two_data_sets_have_different_ids(tmp_path):
    shards = [make_shard(tmp_path / name / "0.tar", ["0.png", "1.png"], first=2 * k) for k, name in enumerate("ab")]
    together = [id_ for _, id_ in Shards(shards, 16)]
    assert len(set(together)) == 4
    apart = [id_ for shard in shards for _, id_ in Shards(shard, 16)]
    assert len(set(apart)) == 4
    moved = make_shard(tmp_path / "elsewhere" / "0.tar", ["0.png", "1.png"])
    assert [id_ for _, id_ in Shards(moved, 16)] == apart[:2]  # where a data set lies makes no difference


def test_a_failure_that_passes_is_not_the_shards_fault(shards, monkeypatch):
    monkeypatch.setattr("pseudomotion.source.RETRY_AFTER", (0, 0))
    open_, left = builtins.open, [2]

    def failing(*args, **options):
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return open_(*args, **options)

    stream = Shards(shards.replace("*", "0"), 16)
    monkeypatch.setattr("builtins.open", failing)
    assert len(list(stream)) == 4
    left[0] = 3
    with pytest.raises(ValueError, match=r"cannot read .*part-0.tar: .*Too many open files"):
        list(stream)
    assert not stream.skipped


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
@pytest.mark.parametrize("workers", [{}, {"num_workers": 1, "persistent_workers": True}])
@pytest.mark.parametrize("kind", ["shards", "huggingface"])
def test_every_epoch_has_another_order_and_other_ids(kind, workers, request):
    """Also in workers that live on; an epoch that is set again is the same again."""
    if kind == "shards":
        stream = Shards(request.getfixturevalue("shards"), (20, 30))
    else:
        rows = hf_dataset(request.getfixturevalue("rows")).to_iterable_dataset(num_shards=3)
        stream = HFStream(rows.shuffle(seed=0, buffer_size=6), (20, 30))
    loader = torch.utils.data.DataLoader(stream, batch_size=None, **workers)
    epochs = []
    for number in (0, 1, 0):
        stream.set_epoch(number)
        assert stream.epoch == number
        epochs.append([(image.numpy().tobytes(), int(id_)) for image, id_ in loader])
    assert epochs[0] == epochs[2]
    order = [[image for image, _ in one] for one in epochs]
    assert order[0] != order[1]
    assert sorted(order[0]) == sorted(order[1])
    assert not {id_ for _, id_ in epochs[0]} & {id_ for _, id_ in epochs[1]}
    with pytest.raises(ValueError, match="epoch must be from 0"):
        stream.set_epoch(-1)


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
    for even, counts in ((False, (3, 2)), (True, (3, 3))):  # evenly, another image takes the broken one's place
        parts = [list(HFStream(stream, (20, 30), rank=rank, world_size=2, even=even)) for rank in range(2)]
        assert sorted(map(len, parts)) == sorted(counts)
        images = {id_: image for part in parts for image, id_ in part}
        assert same({id_: image for id_, image in images.items() if id_ in whole}, whole)


@pytest.mark.filterwarnings("ignore:skipped 1 broken files")
def test_hugging_face_rows_without_an_image_are_named(rows):
    rows[1]["image"] = None
    del rows[2]
    stream = HFStream(hf_dataset(rows).to_iterable_dataset(), (20, 30))
    assert pictures(stream) == [0, 3, 4, 5]
    assert stream.skipped == {"row 1": "cannot read row 1: there is no image"}
    with pytest.raises(ValueError, match="cannot read row 1: there is no image"):
        list(HFStream(hf_dataset(rows).to_iterable_dataset(), 16, strict=True))
    source = HFImages(hf_dataset(rows), (20, 30))
    source.get(torch.arange(5))
    assert source.skipped == {1: "cannot read row 1: there is no image"}


def test_the_wrong_hugging_face_dataset_says_what_to_pass(rows):
    datasets = pytest.importorskip("datasets")
    with pytest.raises(TypeError, match="HFImages takes a map-style one"):
        HFStream(hf_dataset(rows), 16)
    splits = datasets.DatasetDict({"train": hf_dataset(rows), "test": hf_dataset(rows)})
    for make in (HFImages, HFStream):
        with pytest.raises(TypeError, match="dataset must be one split, got a DatasetDict; choose one of 'train', 'test'"):
            make(splits, 16)
