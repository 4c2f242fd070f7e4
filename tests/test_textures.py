"""``load_textures``: what objects show, from files of any kind, with and without alpha."""

import pytest
import torch
from pictures import save, save_cutout

from pseudomotion import PMG
from pseudomotion.bank import main as pmg_bank
from pseudomotion.images import ImageBank, ImageFolder, load_textures


@pytest.fixture
def cutouts(tmp_path):
    """Three cut-outs, and a photo without alpha among them."""
    for k in range(3):
        save_cutout(tmp_path / "cutouts" / f"{k}.png", k)
    save(tmp_path / "cutouts" / "photo.jpg", 5)
    return tmp_path / "cutouts"


def test_mixed_files_are_cut_outs_or_laid_on_white(cutouts):
    textures = load_textures(cutouts, 24, alpha=True)
    assert textures.shape == (4, 4, 24, 24)
    assert torch.equal(textures, ImageFolder(cutouts, 24, alpha=True, strict=True).get(torch.arange(4)))
    assert (textures[3, 3] == 255).all()
    assert (textures[:3, 3, 0] == 0).all()  # wider than high: transparent above and below
    assert (textures[:3, 3, 12] == 255).float().mean() > 0.7
    white = load_textures([cutouts], 24)
    assert white.shape == (4, 3, 24, 24)
    assert (white[:3, :, 0, 0] == 255).all()


def test_seed_and_limit_choose(cutouts):
    chosen = [load_textures(cutouts, 16, limit=2, seed=seed, alpha=True) for seed in range(8)]
    every = load_textures(cutouts, 16, alpha=True)
    found = {tuple(k for k in range(4) for texture in textures if torch.equal(texture, every[k])) for textures in chosen}
    assert all(len(pair) == 2 for pair in found)
    assert len(found) > 2
    assert load_textures("noise", 16, limit=5).shape == (5, 3, 16, 16)


def test_what_has_no_alpha_is_refused(cutouts, tmp_path):
    save(tmp_path / "photos" / "a.png", 1)
    for sources in (tmp_path / "photos", "noise"):
        with pytest.raises(ValueError, match=f"textures must be cut-outs, such as PNG files with transparent parts; {sources} has none"):
            load_textures(sources, 16, alpha=True)
    assert load_textures([tmp_path / "photos", cutouts], 16, alpha=True).shape == (5, 4, 16, 16)


def test_a_bank_keeps_alpha(cutouts, tmp_path):
    path, more = tmp_path / "bank.safetensors", ["--image-size", "24", "--num-workers", "0"]
    assert pmg_bank([str(path), "--images", str(cutouts), "--alpha", *more]) == 0
    textures = load_textures(cutouts, 24, alpha=True)
    assert torch.equal(load_textures(path, 8, alpha=True), textures)
    ImageBank(ImageFolder(cutouts, 24, alpha=True)).save(tmp_path / "saved.safetensors")
    assert torch.equal(ImageBank.load(tmp_path / "saved.safetensors").images, textures)
    with pytest.raises(ValueError, match="is a bank of RGBA images; for images, make it by pmg-bank with no --alpha"):
        load_textures(path, 24)
    assert pmg_bank([str(path), "--images", str(cutouts), *more]) == 0
    with pytest.raises(ValueError, match="is a bank of RGB images; for cut-outs, make it by pmg-bank with --alpha"):
        load_textures(path, 24, alpha=True)


def test_a_clip_of_cut_outs_depends_on_its_id_alone(cutouts):
    """And shows them without the green of their transparent pixels."""
    textures, pmg = load_textures(cutouts, 32, alpha=True), PMG(("identity",), 4, 48, objects="cutouts")
    images, ids = torch.full((6, 3, 48, 48), 128, dtype=torch.uint8), torch.arange(6) + 40
    clips = pmg(images, ids=ids, textures=textures)
    assert torch.equal(pmg(images[4:], ids=ids[4:].flip(0), textures=textures).flip(0), clips[4:])
    assert (clips != 128).float().mean() > 0.1
    green = (clips[:, 1] > clips[:, 0].int() + 60) & (clips[:, 1] > clips[:, 2].int() + 60)
    assert green.float().mean() < 0.001
