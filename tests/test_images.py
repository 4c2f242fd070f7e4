"""Reading image files of every kind, and refusing what is none; files are made here."""

import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from pseudomotion.images import builtin_picture, load_image

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def load(path):
    return load_image(path).permute(1, 2, 0).numpy()


def test_rgb_is_what_was_written(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert np.array_equal(load(tmp_path / "a.png"), RGB)
    assert load_image(str(tmp_path / "a.png")).dtype == torch.uint8


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load(tmp_path / "a.png"), np.rot90(RGB, -1))


def test_grey_palette_and_cmyk(tmp_path):
    grey = RGB[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(load(tmp_path / "grey.png"), grey[..., None].repeat(3, 2))
    flat = (RGB // 128 * 255).astype(np.uint8)  # eight colors
    Image.fromarray(flat).quantize(8).save(tmp_path / "palette.png")
    assert np.array_equal(load(tmp_path / "palette.png"), flat)
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red.save(tmp_path / "cmyk.jpg")
    assert np.abs(load(tmp_path / "cmyk.jpg").astype(int) - (255, 0, 0)).max() < 12


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = np.round(values / 257).astype(int)
    assert np.abs(load(tmp_path / "a.png")[..., 1].astype(int) - expected).max() <= 1


def test_transparency_is_laid_on_white(tmp_path):
    alpha = np.zeros((20, 30), np.uint8)
    alpha[:, 10:] = 255
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "a.png")
    loaded = load(tmp_path / "a.png")
    assert (loaded[:, :10] == 255).all()
    assert np.array_equal(loaded[:, 10:], RGB[:, 10:])


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **({"lossless": True} if name.endswith("webp") else {}))
        assert (load(tmp_path / name) == (255, 0, 0)).all()


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "cannot identify image file"),
        ("text.jpg", b"not an image", "cannot identify image file"),
        ("bomb.png", png_header(15_000, 15_000), "refused as a decompression bomb"),
        ("huge.png", png_header(60_000, 60_000), "refused as a decompression bomb"),
    ],
)
def test_what_is_no_image_is_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"cannot read .*{re.escape(name)}: .*{message}"):
        load_image(tmp_path / name)


def test_truncated_files_are_refused(tmp_path):
    for name in ("a.png", "a.jpg", "a.webp", "a.gif"):
        Image.fromarray(RGB).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=f"cannot read .*{name}"):
            load_image(tmp_path / name)


def test_floating_point_images_have_no_range(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="floating-point image has no defined range"):
        load_image(tmp_path / "a.tiff")


def test_missing_files_stay_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        load_image(tmp_path)


def test_builtin_picture():
    picture = builtin_picture(60, 90)
    assert picture.shape == (3, 60, 90)
    assert torch.equal(picture, builtin_picture(60, 90))
    patches = picture.float().unfold(1, 15, 15).unfold(2, 15, 15).flatten(3).std(-1)
    assert patches.mean(0).min() > 5  # texture everywhere
