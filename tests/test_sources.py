"""Image sources on good files and broken ones; that ids, batches, workers and ranks make no difference; banks and streams."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from pseudomotion import PMG
from pseudomotion.images import HFImages, HFStream, ImageBank, ImageFolder, Shards, bank, batches, load_image


def picture(k, size=(20, 30)):
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([x * 4 + k, y * 5 + k, x + y + 9 * k], -1).astype(np.uint8)


def save(path, k=0, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(k)).convert(mode).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Twelve good images in classes of 2, 4 and 6."""
    for name, n in (("ant", 2), ("bee", 4), ("cat", 6)):
        for k in range(n):
            save(tmp_path / "images" / name / f"{k}.png", 10 * n + k)
    return tmp_path / "images"


def huge_header():
    """A PNG that says it is 60,000 x 60,000."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.fixture
def mess(tmp_path):
    """Every odd kind of file that is an image all the same, and every kind that is none. Returns the folder and the bad names."""
    root = tmp_path / "mess"
    save(root / "00_plain.jpg", 1)
    save(root / "01_grey.png", 2, "L")
    save(root / "02_palette.png", 3, "P")
    save(root / "03_cmyk.jpg", 4, "CMYK")
    save(root / "04_alpha.png", 5, "RGBA")
    save(root / "05_bits.png", 6, "1")
    Image.fromarray(picture(7)[..., 0].astype(np.uint16) * 257).save(root / "06_deep.png")
    Image.fromarray(picture(8)).save(root / "07_moving.gif", save_all=True, append_images=[Image.fromarray(picture(9))])
    Image.fromarray(picture(8)).save(root / "08_moving.webp", save_all=True, append_images=[Image.fromarray(picture(9))])
    save(root / "09_truly_a_png.png")
    (root / "09_truly_a_png.png").rename(root / "09_truly_a_png.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    save(root / "10_turned.jpg", 1, exif=turned)
    data = io.BytesIO()
    Image.fromarray(picture(3, (200, 300))).save(data, "jpeg")
    (root / "20_truncated.jpg").write_bytes(data.getvalue()[: len(data.getvalue()) // 2])
    (root / "21_empty.png").write_bytes(b"")
    (root / "22_text.jpg").write_text("no image at all")
    (root / "23_huge.png").write_bytes(huge_header())
    (root / "notes.txt").write_text("not even a name of an image")
    (root / ".hidden.png").write_bytes(b"")
    return root, ["20_truncated.jpg", "21_empty.png", "22_text.jpg", "23_huge.png"]


def epoch(source, batch_size, **options):
    """Items by id."""
    return {int(i): item for items, ids in batches(source, batch_size, **options) for i, item in zip(ids, items, strict=True)}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[i], b[i]) for i in a)


def test_files_come_in_order_and_are_resized_as_load_image_does(folder):
    source = ImageFolder(folder, (16, 12))
    assert len(source) == 12
    assert source.classes == ["ant", "bee", "cat"]
    assert source.labels.tolist() == [0] * 2 + [1] * 4 + [2] * 6
    images = source.get(torch.arange(24))
    assert (images.shape, images.dtype) == ((24, 3, 16, 12), torch.uint8)
    for i in range(24):
        assert torch.equal(images[i], load_image(source.paths[i % 12], (16, 12)))


def test_resizing_is_antialiased_and_cuts_the_middle(tmp_path):
    """Against OpenCV's mean over blocks; a chequerboard turns grey, whichever decoder shrinks it."""
    import cv2

    board = ((np.mgrid[:240, :400].sum(0) % 2) * 255).astype(np.uint8)
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8), (400, 240), interpolation=cv2.INTER_CUBIC)
    for name, pixels, options in (("board.png", board, {}), ("smooth.png", smooth, {}), ("smooth.jpg", smooth, {"quality": 98})):
        Image.fromarray(pixels).save(tmp_path / name, **options)
    grey = load_image(tmp_path / "board.png", (48, 48))
    assert (grey.float() - 127.5).abs().max() < 4
    expected = cv2.resize(smooth[:, 80:320], (48, 48), interpolation=cv2.INTER_AREA)
    for name in ("smooth.png", "smooth.jpg"):
        difference = np.abs(load_image(tmp_path / name, (48, 48)).permute(1, 2, 0).numpy().astype(int) - expected)
        assert difference.mean() < 3, name


def test_every_odd_image_is_read_and_every_bad_file_reported_once(mess):
    root, bad = mess
    source = ImageFolder(root, 16)
    with pytest.warns(UserWarning, match="skipped 4 broken files") as caught:
        images = epoch(source, 4)
    assert len(caught) == 1
    assert sorted(images) == list(range(len(source)))
    text = str(caught[0].message)
    for name in bad:
        assert text.count(name) == 1
        assert source.report().count(name) == 1
    assert {source.paths[i].name for i in source.skipped} == set(bad)
    for i, path in enumerate(source.paths):
        expected = load_image(path, (16, 16)) if i not in source.skipped else load_image(source.paths[0], (16, 16))
        assert torch.equal(images[i], expected), path
    assert same(epoch(source, 4), images)  # and says nothing the second time


def test_colors_survive(mess):
    """What a mode can hold comes back as it was; transparency is laid on white."""
    root, _ = mess
    source = ImageFolder(root, (20, 30))
    images = {path.name: source.get(torch.tensor([i]))[0].permute(1, 2, 0).numpy().astype(int) for i, path in enumerate(source.paths[:10])}
    assert np.abs(images["00_plain.jpg"] - picture(1)).mean() < 6
    assert np.abs(images["03_cmyk.jpg"] - picture(4)).mean() < 6
    assert np.array_equal(images["04_alpha.png"], picture(5))
    assert np.array_equal(images["06_deep.png"], picture(7)[..., :1].repeat(3, -1))
    assert np.abs(images["08_moving.webp"] - picture(8)).mean() < 10


def test_strict_raises_at_the_first(mess):
    root, bad = mess
    source = ImageFolder(root, 16, strict=True)
    with pytest.raises(ValueError, match=bad[0]):
        epoch(source, 4, shuffle=False)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_deliver_the_same_and_their_findings(mess, num_workers):
    root, bad = mess
    alone, shared = ImageFolder(root, 16), ImageFolder(root, 16)
    with pytest.warns(UserWarning, match="skipped 4"):
        expected = epoch(alone, 3, epoch=2)
    state = torch.get_rng_state()
    with pytest.warns(UserWarning, match="skipped 4") as caught:
        assert same(epoch(shared, 5, epoch=2, num_workers=num_workers), expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert shared.skipped == alone.skipped
    assert all(str(caught[0].message).count(name) == 1 for name in bad)


def test_clips_do_not_depend_on_batches_or_workers(folder):
    source, pmg = ImageFolder(folder, 24), PMG(num_frames=3, size=16)

    def clips(batch_size, num_workers):
        loader = batches(source, batch_size, epoch=1, num_workers=num_workers)
        return {int(i): clip for images, ids in loader for i, clip in zip(ids, pmg(images, ids=ids), strict=True)}

    expected = clips(12, 0)
    assert sorted(expected) == list(range(12, 24))
    for batch_size, num_workers in ((1, 0), (5, 1), (4, 2)):
        assert same(clips(batch_size, num_workers), expected)


def test_ranks_share_an_epoch_without_overlap_or_loss(folder):
    source = ImageFolder(folder, 16)
    whole = epoch(source, 4, epoch=3)
    for world_size in (2, 5, 13):
        parts = [epoch(source, 4, epoch=3, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert sum(map(len, parts)) == 12
        assert same({i: item for part in parts for i, item in part.items()}, whole)


def rank_program(rank, folder, queue):
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/../meeting", rank=rank, world_size=2)
    source, pmg = ImageFolder(folder, 24), PMG(num_frames=2, size=16)
    loader = batches(source, 2, epoch=1, rank=dist.get_rank(), world_size=dist.get_world_size())
    queue.put({int(i): clip.numpy() for images, ids in loader for i, clip in zip(ids, pmg(images, ids=ids), strict=True)})
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_make_the_same_clips_as_one(folder):
    context = torch.multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    processes = [context.Process(target=rank_program, args=(rank, str(folder), queue)) for rank in range(2)]
    for process in processes:
        process.start()
    parts = [queue.get() for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert [len(part) for part in parts] == [6, 6]
    pmg = PMG(num_frames=2, size=16)
    for images, ids in batches(ImageFolder(folder, 24), 12, epoch=1):
        for i, clip in zip(ids.tolist(), pmg(images, ids=ids), strict=True):
            assert np.array_equal((parts[0] | parts[1])[i], clip)


def test_order_changes_with_epoch_and_seed_and_covers_everything(folder):
    source = ImageFolder(folder, 16)
    orders = [torch.cat([ids % 12 for _, ids in batches(source, 5, epoch=e, seed=s)]).tolist() for e, s in ((0, 0), (1, 0), (0, 1), (0, 0))]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert orders[0] == orders[3]
    assert orders[0] != orders[1] != orders[2]
    assert [ids.tolist() for _, ids in batches(source, 8, shuffle=False, epoch=1)] == [list(range(12, 20)), list(range(20, 24))]


def test_balanced_draws_take_all_classes_alike(folder):
    source = ImageFolder(folder, 16, balanced=True)
    ids = torch.cat([ids for e in range(150) for _, ids in batches(ImageBank(source), 64, epoch=e)])
    assert len(ids.unique()) == len(ids) == 150 * 12
    share = source.labels[ids % 12].bincount() / len(ids)
    torch.testing.assert_close(share, torch.full((3,), 1 / 3), atol=0.04, rtol=0)
    within = (ids % 12)[source.labels[ids % 12] == 2].bincount()[6:] / (len(ids) / 3)
    torch.testing.assert_close(within, torch.full((6,), 1 / 6), atol=0.04, rtol=0)


def test_limit_per_class(folder):
    source = ImageFolder(folder, 16, limit=3)
    assert source.labels.bincount().tolist() == [2, 3, 3]
    assert [path.name for path in source.paths[2:5]] == ["0.png", "1.png", "2.png"]


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    (tmp_path / "linked").mkdir()
    os.symlink(folder, tmp_path / "linked" / "all")
    os.symlink(tmp_path / "linked", folder / "back")
    assert len(ImageFolder(tmp_path / "linked", 16)) == 12


def test_an_empty_source_is_an_error(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="root must hold image files"):
        ImageFolder(tmp_path / "empty", 16)
    with pytest.raises(NotADirectoryError, match="root must be a folder"):
        ImageFolder(tmp_path / "nowhere", 16)
    for path in sorted(folder.rglob("*.png")):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="not one of 12 files can be read"):
        ImageFolder(folder, 16).get(torch.tensor([0]))


@pytest.mark.parametrize(
    ("ids", "error"), [(torch.tensor([0.5]), TypeError), (torch.tensor([-1]), ValueError), (torch.tensor(3), TypeError)]
)
def test_ids_are_checked(folder, ids, error):
    for source in (ImageFolder(folder, 16), ImageBank(ImageFolder(folder, 16))):
        with pytest.raises(error, match="ids must be"):
            source.get(ids)


def test_a_bank_holds_what_its_source_gives(mess, tmp_path):
    root, _ = mess
    source = ImageFolder(root, 16)
    with pytest.warns(UserWarning, match="skipped 4"):
        kept = ImageBank(source, num_workers=1)
    ids = torch.tensor([3, 0, 13, 29, 3])
    assert torch.equal(kept.get(ids), source.get(ids))
    assert kept.skipped == source.skipped
    kept.save(tmp_path / "bank.safetensors")
    again = ImageBank.load(tmp_path / "bank.safetensors")
    assert torch.equal(again.get(ids), kept.get(ids))
    assert again.skipped == kept.skipped
    assert len(again) == len(source)
    assert same(epoch(again, 4, epoch=1), epoch(source, 4, epoch=1))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_bank_that_does_not_fit_says_how_many_would(folder, tmp_path, monkeypatch):
    kept = ImageBank(ImageFolder(folder, 16))
    kept.save(tmp_path / "bank.safetensors")
    monkeypatch.setattr(bank, "_free_bytes", lambda device: 7 * 3 * 16 * 16 / 0.9 + 9)
    for make in (lambda: ImageBank(ImageFolder(folder, 16)), lambda: ImageBank.load(tmp_path / "bank.safetensors")):
        with pytest.raises(MemoryError, match=r"12 images of 16 x 16 .* 7 images would fit"):
            make()


def test_a_file_that_is_no_bank_is_refused(tmp_path):
    for content in (b"", b"nonsense" * 20):
        (tmp_path / "bank.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="is no image bank"):
            ImageBank.load(tmp_path / "bank.safetensors")


def test_an_interrupted_save_leaves_the_old_file(folder, tmp_path, monkeypatch):
    import safetensors.torch

    path = tmp_path / "bank.safetensors"
    kept = ImageBank(ImageFolder(folder, 16))
    kept.save(path)
    before = path.read_bytes()

    def fail(tensors, temporary, metadata):
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        kept.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["bank.safetensors"]


@pytest.fixture
def shards(tmp_path):
    """Five tar shards of four images; one image in the third is broken."""
    import tarfile

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
