"""Image banks: what they hold, how files of them are written and mapped, what is refused, and the command that makes them."""

import json
import os
import pickle
import signal
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
import torch
from pictures import epoch, same, save
from PIL import Image
from safetensors.torch import load_file, save_file

from pseudomotion.bank import main
from pseudomotion.images import ImageBank, ImageFolder, bank
from pseudomotion.images.streamed import Item
from pseudomotion.images.subset import Subset


@pytest.fixture
def folder(tmp_path):
    """Twelve good images in two classes, and a broken one among them."""
    for k in range(12):
        save(tmp_path / "images" / "ab"[k % 2] / f"{k:02}.png", k)
    (tmp_path / "images" / "a" / "05b.png").write_bytes(b"")
    return tmp_path / "images"


@pytest.fixture
def saved(folder, tmp_path):
    """A source and the file of its bank."""
    source, path = ImageFolder(folder, 16, balanced=True), tmp_path / "bank.safetensors"
    with pytest.warns(UserWarning, match="skipped 1"):
        bank.write_bank(source, path)
    return source, path


def test_a_bank_holds_what_its_source_gives(folder, tmp_path):
    source = ImageFolder(folder, 16)
    with pytest.warns(UserWarning, match="skipped 1"):
        kept = ImageBank(source, num_workers=1)
    ids = torch.tensor([3, 0, 6, 13, 29, 3])
    assert torch.equal(kept.get(ids), source.get(ids))
    assert kept.skipped == source.skipped
    kept.save(tmp_path / "bank.safetensors")
    again = ImageBank.load(tmp_path / "bank.safetensors")
    assert torch.equal(again.get(ids), kept.get(ids))
    assert again.skipped == kept.skipped
    assert len(again) == len(source)
    assert same(epoch(again, 4, epoch=1), epoch(source, 4, epoch=1))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_file_written_image_by_image_is_that_of_a_bank_in_memory(saved, tmp_path, monkeypatch):
    """And a plain safetensors file, as its own library reads it."""
    source, path = saved
    monkeypatch.setattr(bank, "CHUNK", 5)
    in_memory = ImageBank(source)
    in_memory.save(tmp_path / "other.safetensors")
    assert path.read_bytes() == (tmp_path / "other.safetensors").read_bytes()
    tensors = load_file(path)
    assert torch.equal(tensors["images"], source.get(torch.arange(13)))
    assert torch.equal(tensors["groups"], source.labels)
    assert "05b.png" in json.loads(bytes(tensors["skipped"].tolist()))[str(source.paths.index(next(iter(source.root.glob("a/05b.png")))))]
    assert path.stat().st_size == 4096 + 13 * (8 + 3 * 16 * 16) + len(tensors["skipped"])


def test_banks_of_earlier_versions_load(saved, tmp_path):
    """The file as ``safetensors`` wrote it before there was a version."""
    source, path = saved
    images = source.get(torch.arange(13))
    save_file({"images": images, "groups": source.labels}, tmp_path / "old.safetensors", metadata={"skipped": json.dumps(source.skipped)})
    old, new = (ImageBank.load(tmp_path / name) for name in ("old.safetensors", path))
    assert old.skipped == new.skipped == source.skipped
    for one in (old, new):
        assert torch.equal(one.images, images)
        assert torch.equal(one.groups, source.labels)


def test_files_that_are_no_banks_are_refused(tmp_path):
    path = tmp_path / "bank.safetensors"
    for content in (b"", b"nonsense" * 20):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no image bank"):
            ImageBank.load(path)
    save_file({"weights": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="is no image bank"):
        ImageBank.load(path)
    save_file({"images": torch.zeros(1, 3, 2, 2, dtype=torch.uint8)}, path, metadata={"version": "2"})
    with pytest.raises(ValueError, match="version 2, this library reads up to version 1"):
        ImageBank.load(path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_loaded_bank_is_mapped_and_goes_to_other_processes_by_name(saved):
    source, path = saved
    loaded = ImageBank.load(path)
    assert str(path) in Path("/proc/self/maps").read_text()
    sent = pickle.dumps(loaded)
    assert len(sent) < 1000 < loaded.images.numel()
    assert torch.equal(pickle.loads(sent).images, loaded.images)
    in_memory = ImageBank(source)
    assert torch.equal(pickle.loads(pickle.dumps(in_memory)).images, loaded.images)


@pytest.mark.filterwarnings("ignore:skipped 1")
def test_a_bank_that_does_not_fit_says_how_many_would(folder, saved, monkeypatch):
    _, path = saved
    monkeypatch.setattr(bank, "_free_bytes", lambda device: 7 * 3 * 16 * 16 / 0.9 + 9)
    with pytest.raises(MemoryError, match=r"13 images of 16 x 16 .* 7 images would fit"):
        ImageBank(ImageFolder(folder, 16))
    assert len(ImageBank.load(path)) == 13  # it is mapped, so it need not fit


@pytest.mark.filterwarnings("ignore:skipped 1")
def test_a_file_that_the_disk_has_no_room_for_is_refused_at_once(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bank.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 13 * 3 * 16 * 16 - 1}))
    with pytest.raises(OSError, match=r"13 images of 16 x 16"):
        bank.write_bank(ImageFolder(folder, 16), tmp_path / "bank.safetensors")
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups_count(version, tmp_path, monkeypatch):
    """Trees as the kernel's documentation describes them: the tightest limit among a group and its parents holds."""
    mount, names = tmp_path / "mount", ("limit_in_bytes", "usage_in_bytes", "total_inactive_file")
    listing = {1: "4:cpu:/\n3:memory:/jobs/one\n", 2: "0::/jobs/one\n"}[version]
    if version == 2:
        names = ("max", "current", "inactive_file")
    root = mount / "memory" if version == 1 else mount
    unlimited = "9223372036854771712" if version == 1 else "max"
    for group, limit, usage in ((root, unlimited, 0), (root / "jobs", "5000", 1500), (root / "jobs" / "one", "9000", 400)):
        group.mkdir(parents=True, exist_ok=True)
        (group / f"memory.{names[0]}").write_text(f"{limit}\n")
        (group / f"memory.{names[1]}").write_text(f"{usage}\n")
        (group / "memory.stat").write_text(f"anon 100\n{names[2]} 250\n")
    (tmp_path / "listing").write_text(listing)
    assert min(bank._cgroup_rooms(tmp_path / "listing", mount)) == 5000 - 1500 + 250
    (tmp_path / "listing").write_text(listing.replace("jobs", "unseen"))  # of a container, which sees its own group at the mount
    (root / f"memory.{names[0]}").write_text("700")
    assert min(bank._cgroup_rooms(tmp_path / "listing", mount)) == 700 + 250
    assert list(bank._cgroup_rooms(tmp_path / "none", mount)) == []
    monkeypatch.setattr(bank, "_cgroup_rooms", lambda: iter([12345]))
    assert bank._free_bytes(torch.device("cpu")) == 12345


@pytest.mark.filterwarnings("ignore:skipped 1")
def test_an_interrupted_write_leaves_the_old_file(folder, tmp_path, monkeypatch):
    path = tmp_path / "bank.safetensors"
    kept = ImageBank(ImageFolder(folder, 16))
    kept.save(path)
    before = path.read_bytes()
    kept.skipped = {0: object()}  # which is found out when all images are written
    with pytest.raises(TypeError, match="object"):
        kept.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["bank.safetensors"]


@pytest.mark.filterwarnings("ignore:skipped 1")
def test_the_command_writes_what_the_trainer_reads(folder, tmp_path, capsys):
    out = tmp_path / "bank.safetensors"
    assert main([str(out), "--images", str(folder), "--image-size", "16", "--balanced", "--num-workers", "0"]) == 0
    assert "13 images" in capsys.readouterr().out
    source = ImageFolder(folder, 16, balanced=True)
    assert same(epoch(ImageBank.load(out), 4, epoch=1), epoch(source, 4, epoch=1))
    few = ["--images", str(folder), "--image-size", "16", "--limit", "4", "--classes", "1", "--seed", "3", "--num-workers", "0"]
    assert main([str(out), *few]) == 0  # a bank is replaced by another one
    chosen = Subset(ImageFolder(folder, 16), 4, 3, classes=1)
    assert torch.equal(ImageBank.load(out).images, chosen.get(torch.arange(4)))
    assert torch.equal(Subset(ImageBank.load(out), 4, 3).get(torch.arange(4)), chosen.get(torch.arange(4)))


@pytest.mark.filterwarnings("ignore:skipped 1")
def test_the_command_ends_with_one_line(folder, tmp_path, capsys, monkeypatch):
    out = str(tmp_path / "bank.safetensors")
    (tmp_path / "notes").write_text("mine")
    for arguments, message in (
        ([out, "--images", str(tmp_path / "none")], "none: there is no such file or folder"),
        ([str(tmp_path / "no" / "bank"), "--images", str(folder)], "there is no folder"),
        ([str(tmp_path / "notes"), "--images", str(folder)], "no pmg command made it"),
        ([out, "--images", str(folder), "--limit", "14"], "limit must be from 1 to the 13 images there are"),
        ([out, "--images", f"stream:{folder}/s.tar", "--balanced"], "--balanced and --classes cannot be used with streams"),
        ([out, "--images", f"stream:{folder}/s.tar", "--alpha"], "--alpha cannot be used with streams"),
        ([out, "--source", "noise", "--alpha"], "--alpha needs --images"),
        ([out, "--images", f"stream:{folder}/s.tar"], "urls must name at least one shard, found none at"),
        ([out, "--videos", str(tmp_path / "none.csv")], "none.csv"),
    ):
        assert main(["--num-workers", "0", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("pmg-bank: ")
        assert error.count("\n") == 1
    for number in (signal.SIGTERM, signal.SIGINT):
        inherited = signal.signal(number, signal.default_int_handler)  # background jobs ignore SIGINT
        monkeypatch.setattr(ImageFolder, "read", lambda *_, number=number: os.kill(os.getpid(), number))
        try:
            assert main([out, "--images", str(folder), "--num-workers", "0"]) == 128 + number
        finally:
            signal.signal(number, inherited)
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "notes"]
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_bank_of_shards_and_a_folder(folder, tmp_path):
    with tarfile.open(tmp_path / "s-0.tar", "w") as tar:
        for k in range(3):
            Image.new("RGB", (9, 9), (40 * k, 250, 0)).save(tmp_path / "one.png")
            tar.add(tmp_path / "one.png", f"{k}.png")
    given = ["--images", str(tmp_path / "s-{0..0}.tar"), "--images", str(folder), "--image-size", "8", "--num-workers", "0"]
    assert main([*given, str(tmp_path / "bank.safetensors")]) == 0
    bank = ImageBank.load(tmp_path / "bank.safetensors")
    assert len(bank) == 3 + 13
    assert [tuple(image[:, 4, 4].tolist()) for image in bank.images[:3]] == [(0, 250, 0), (40, 250, 0), (80, 250, 0)]
    shards, more = str(tmp_path / "s-{0..0}.tar"), ["--image-size", "8", "--num-workers", "0"]
    for words in (["--images", shards, str(folder)], ["--images", shards, "--images", str(folder)]):
        for order in ([*words, *more, "{}"], [*words, "{}"], ["{}", *words], [*more, "{}", *words]):  # OUT may be anywhere
            out = tmp_path / "other.safetensors"
            assert main([word if word != "{}" else str(out) for word in order] + [word for word in more if word not in order]) == 0
            assert out.read_bytes() == (tmp_path / "bank.safetensors").read_bytes()
            out.unlink()


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("workers", [0, 3])
def test_a_bank_of_streams_holds_their_images_in_order(tmp_path, capsys, monkeypatch, workers):
    """As banks of the same shards read by number; images that are broken, the first and the last among them, are replaced likewise."""
    monkeypatch.setattr(bank, "CHUNK", 4)
    contents = []
    for k in range(11):
        Image.new("RGB", (9, 9), (20 * k, 250, 0)).save(tmp_path / "one.png")
        contents.append(b"broken" if k in (0, 5, 6, 10) else (tmp_path / "one.png").read_bytes())
    for name, mode in (("plain-{}.tar", "w"), ("packed-{}.tar.gz", "w:gz")):
        for k, part in enumerate((contents[:7], contents[7:])):
            with tarfile.open(tmp_path / name.format(k), mode) as tar:
                for number, content in enumerate(part):
                    member = tarfile.TarInfo(f"{number:02}.png")
                    member.size = len(content)
                    tar.addfile(member, BytesIO(content))
    out, more = tmp_path / "bank.safetensors", ["--image-size", "8", "--num-workers", str(workers)]

    def made(images):
        assert main([str(out), "--images", str(tmp_path / images), "--image-size", "8", "--num-workers", "0"]) == 0
        return ImageBank.load(out)

    wanted = made("plain-{0..1}.tar")
    assert [int(image[0, 4, 4]) for image in wanted.images] == [20, 20, 40, 60, 80, 140, 140, 140, 160, 180, 20]
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=r"skipped 4 broken images:\n.*\n  cannot read packed-0.tar.gz/05.png"):
        assert main([str(out), "--images", "stream:packed-{0..1}.tar.gz", *more]) == 0
    assert "bank.safetensors: 11 images" in capsys.readouterr().out
    found = ImageBank.load(out)
    assert torch.equal(found.images, wanted.images)
    assert sorted(found.skipped) == sorted(wanted.skipped) == [0, 5, 6, 10]
    assert main([str(out), "--images", "stream:packed-{0..1}.tar.gz", *more, "--limit", "8"]) == 0
    assert torch.equal(ImageBank.load(out).images, wanted.images[:8])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_stream_without_a_readable_image_makes_no_bank(tmp_path):
    def shard():
        return iter([Item("a", lambda: int("x"))] * 3)

    with pytest.raises(ValueError, match="not one of 3 images can be read; the first: invalid literal"):
        bank.write_bank_of_shards([shard, shard], tmp_path / "bank.safetensors", limit=3)
    with pytest.raises(ValueError, match="none was found"):
        bank.write_bank_of_shards([lambda: iter([])], tmp_path / "bank.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [["--images", "photos"], ["--source", "noise"]])
def test_a_missing_output_is_named(options, capsys):
    with pytest.raises(SystemExit) as stop:
        main(options)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("pmg-bank: the following arguments are required: OUT")


@pytest.mark.parametrize("options", [["--image-size", "0"], ["--num-workers", "-1"], ["--limit", "0"]])
def test_numbers_out_of_range_are_refused(options, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bank.safetensors", "--source", "noise", *options])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"pmg-bank: argument {options[0]}: must be an integer of at least")
