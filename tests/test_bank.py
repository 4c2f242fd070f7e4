"""Banks of images: what they hold, how they are kept, and what they refuse."""

import pytest
import torch
from pictures import epoch, same, save

from pseudomotion.images import ImageBank, ImageFolder, bank


@pytest.fixture
def folder(tmp_path):
    """Twelve good images, and a broken one in their middle."""
    for k in range(12):
        save(tmp_path / "images" / f"{k:02}.png", k)
    (tmp_path / "images" / "05b.png").write_bytes(b"")
    return tmp_path / "images"


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


@pytest.mark.filterwarnings("ignore:skipped 1")
def test_a_bank_that_does_not_fit_says_how_many_would(folder, tmp_path, monkeypatch):
    kept = ImageBank(ImageFolder(folder, 16))
    kept.save(tmp_path / "bank.safetensors")
    monkeypatch.setattr(bank, "_free_bytes", lambda device: 7 * 3 * 16 * 16 / 0.9 + 9)
    for make in (lambda: ImageBank(ImageFolder(folder, 16)), lambda: ImageBank.load(tmp_path / "bank.safetensors")):
        with pytest.raises(MemoryError, match=r"13 images of 16 x 16 .* 7 images would fit"):
            make()


def test_a_file_that_is_no_bank_is_refused(tmp_path):
    for content in (b"", b"nonsense" * 20):
        (tmp_path / "bank.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="is no image bank"):
            ImageBank.load(tmp_path / "bank.safetensors")


@pytest.mark.filterwarnings("ignore:skipped 1")
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
