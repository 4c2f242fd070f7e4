"""Streams with numbers: what is read depends on the seed and the number alone, however it is read."""

import tarfile
from functools import partial
from io import BytesIO

import pytest
import torch
from PIL import Image
from trainer import pretrain as main

from pseudomotion.images import streamed
from pseudomotion.images.streamed import Item, StreamedImages, huggingface_shards, source_shards, tar_shards
from pseudomotion.train.engine.log import read_metrics
from pseudomotion.train.engine.stream import Parts, Steps, read_ahead
from pseudomotion.train.sources import WithPartners


def flat(value):
    return torch.full((3, 2, 2), value, dtype=torch.uint8)


def counted(counts, opened=None):
    """Shards of so many images, each of a shade of its own."""
    firsts = [sum(counts[:k]) for k in range(len(counts))]

    def shard(k):
        if opened is not None:
            opened.append(k)
        return (Item(f"{value}", partial(flat, value)) for value in range(firsts[k], firsts[k] + counts[k]))

    return [partial(shard, k) for k in range(len(counts))]


def shades(images):
    return images[..., 0, 0, 0].tolist()


def stream(counts=(5, 5, 5, 5), seed=3, buffered=8, opened=None, **options):
    return StreamedImages(counted(counts, opened), seed, buffered=buffered, **options)


def test_an_epoch_shows_every_image_once_in_a_drawn_order():
    source = stream()
    epochs = [shades(source.get(torch.arange(20) + 20 * epoch)) for epoch in range(2)]
    assert stream((6,) * 4, buffered=24).lanes == 4
    whole = stream((6,) * 4, buffered=24)  # blocks that divide the epoch
    first, second = (shades(whole.get(torch.arange(24) + 24 * epoch)) for epoch in range(2))
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second != sorted(second)
    assert epochs[0] != shades(stream(seed=4).get(torch.arange(20)))
    together = shades(stream().get(torch.arange(120)))
    assert {together.count(value) for value in range(20)} <= {5, 6, 7}  # blocks cross the ends of epochs


@pytest.mark.parametrize("counts", [(5, 5, 5, 5), (1, 9, 4, 4, 4, 7, 2), (11,)])
def test_an_image_depends_on_its_number_alone(counts):
    """However the numbers are grouped, wherever reading begins, with any number of threads and ranks."""
    expected = shades(stream(counts).get(torch.arange(60)))
    for size in (1, 7):
        source = stream(counts)
        assert [shade for ids in torch.arange(60).split(size) for shade in shades(source.get(ids))] == expected
    assert shades(stream(counts).get(torch.arange(41, 60))) == expected[41:]
    assert shades(stream(counts, threads=3).get(torch.arange(60))) == expected
    late = stream(counts)
    late.get(torch.arange(50, 60))
    assert shades(late.get(torch.arange(60))) == expected, "going back"
    for rank in range(2):
        assert shades(stream(counts).get(torch.arange(rank, 60, 2))) == expected[rank::2]


def test_a_rank_reads_its_own_shards_and_each_once_an_epoch():
    opened = []
    source = stream((4,) * 8, buffered=16, opened=opened)
    for step in range(8):  # two epochs of 16 images, of the lanes 1, 3, 5, 7
        source.get(torch.arange(1, 8, 2) + 8 * step)
    assert sorted(opened) == [1, 1, 3, 3, 5, 5, 7, 7]


def test_partners_are_others_of_the_block_and_depend_on_the_id_alone():
    ids = torch.arange(40)
    pairs = WithPartners(stream(), 7).get(ids)
    own, partners = shades(pairs[:, 0]), shades(pairs[:, 1])
    assert own == shades(stream().get(ids))
    assert shades(stream().partners(ids[13:], 7)) == partners[13:]
    blocks = [set(own[lane::4][first : first + 2]) for lane in range(4) for first in range(0, 10, 2)]
    assert all(any({a, b} == block for block in blocks) or a == b for a, b in zip(own, partners, strict=True))
    assert sum(a != b for a, b in zip(own, partners, strict=True)) > 30  # a block over the end of an epoch may hold an image twice
    assert shades(stream(buffered=40).partners(ids, 7)) != shades(stream(buffered=40).partners(ids, 8))


def test_another_image_stands_for_a_broken_one():
    def broken():
        raise ValueError("cannot read 2: torn")

    def shard():
        return (Item(str(value), broken if value == 2 else partial(flat, value)) for value in range(4))

    source = StreamedImages([shard], 0, buffered=4)
    assert sorted(set(shades(source.get(torch.arange(4))))) == [0, 1, 3]
    assert set(source.skipped.values()) == {"cannot read 2: torn"}
    with pytest.raises(ValueError, match="shards must hold images, none was found in 1 of them"):
        StreamedImages([lambda: iter(())], 0).get(torch.arange(1))


def test_a_failure_that_is_not_the_images_fault_is_raised(monkeypatch):
    monkeypatch.setattr("pseudomotion.source.RETRY_AFTER", (0, 0))

    def shard():
        return iter([Item("a", no_files)])

    def no_files():
        raise OSError(24, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        StreamedImages([shard], 0, buffered=2).get(torch.arange(1))


def png(value):
    file = BytesIO()
    Image.new("RGB", (20, 20), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def tars(tmp_path):
    """Two compressed shards of eight images."""
    for k in range(2):
        with tarfile.open(tmp_path / f"s-{k}.tar.gz", "w:gz") as tar:
            for number in range(8):
                content = png(100 * k + 10 * number)
                member = tarfile.TarInfo(f"{number}.png")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
    return tmp_path / "s-{0..1}.tar.gz"


def test_sources_of_streams(tars):
    datasets = pytest.importorskip("datasets")
    values = {100 * k + 10 * number for k in range(2) for number in range(8)}
    assert set(shades(StreamedImages(tar_shards(str(tars), 20), 0, buffered=16).get(torch.arange(16)))) == values
    rows = datasets.Dataset.from_dict({"image": [{"bytes": png(value), "path": None} for value in range(12)]})
    rows = rows.cast_column("image", datasets.Image()).to_iterable_dataset(num_shards=3)
    shards = huggingface_shards(rows, 20)
    assert len(shards) == 3
    assert sorted(shades(torch.stack([item.load() for shard in shards for item in shard()]))) == list(range(12))

    class Source:
        def __len__(self):
            return 5

        def get(self, ids):
            return torch.stack([flat(50 + int(k)) for k in ids])

    mixed = StreamedImages([*source_shards(Source()), *counted([5])], 0, buffered=10)
    assert set(shades(mixed.get(torch.arange(10)))) == {*range(5), *range(50, 55)}


def test_a_missing_shard_is_an_error(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"cannot read .*a\.tar"):
        StreamedImages(tar_shards(str(tmp_path / "a.tar"), 8), 0).get(torch.arange(1))


TINY = (
    *("--model", "micro", "--frame-size", "12", "--num-frames", "4", "--image-size", "14", "--batch-size", "4"),
    *("--log-every", "1", "--cpu"),
)


def losses(out):
    return [row["loss"] for row in read_metrics(out)]


def test_training_on_streams_resumes_bit_by_bit(tars, tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "BUFFERED", 16)
    given = (*TINY, "--images", f"stream:{tars}", "--seed", "5", "--log-with", "none")
    main([*given, "--max-steps", "6", "--out", str(tmp_path / "whole")])
    main([*given, "--max-steps", "6", "--out", str(tmp_path / "threads"), "--num-workers", "2"])
    assert losses(tmp_path / "threads") == losses(tmp_path / "whole")
    main([*given, "--max-steps", "6", "--out", str(tmp_path / "parts"), "--accumulate", "2"])
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
    main([*given, "--max-steps", "6", "--out", str(tmp_path / "cut"), "--save-every", "3", "--keep", "9"])
    for path in (tmp_path / "cut" / "checkpoints" / "step-00000006").rglob("*.safetensors"):
        path.unlink()
    main(["--out", str(tmp_path / "cut"), "--resume"])
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "cut")) == 6


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "streams have no length that is known, so --max-steps must say how long to train"),
        (("--limit", "3"), "--limit cannot be used with streams"),
        (("--bank", "--balanced"), "--balanced, --bank cannot be used with streams"),
        (("--clips", "mosi"), "--clips mosi takes no streams"),
    ],
)
def test_what_streams_cannot_do_is_refused(tars, tmp_path, monkeypatch, more, message):
    monkeypatch.setattr(streamed, "BUFFERED", 16)
    with pytest.raises(ValueError, match=message):
        main([*TINY, "--images", f"stream:{tars}", "--out", str(tmp_path / "run"), *more])
    assert not (tmp_path / "run").exists()


def test_steps_of_a_stream_go_in_order():
    steps = Steps(stream(), 6, 0)
    assert steps[2].tolist() == list(range(12, 18))
    parts = [[ids.tolist() for ids in Parts(steps, 0, 2, 1, rank, 2)] for rank in range(2)]
    assert parts == [[[0, 2, 4], [6, 8, 10]], [[1, 3, 5], [7, 9, 11]]]


def test_reading_ahead_changes_nothing():
    fetched = []

    def numbers():
        for k in range(5):
            fetched.append(k)
            yield k

    reading = read_ahead(numbers())
    assert next(reading) == 0
    assert list(reading) == [1, 2, 3, 4]

    def fails():
        yield 0
        raise OSError("gone")

    reading = read_ahead(fails())
    assert next(reading) == 0
    with pytest.raises(OSError, match="gone"):
        next(reading)
