"""Reading image files of every kind, and refusing what is none; files are made here."""

import re
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from pictures import save_cutout
from PIL import Image

from pseudomotion.images import ImageFolder, builtin_picture, load_image
from pseudomotion.images.files import image_suffixes

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


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "CMYK", "I;16"])
def test_alpha_is_that_of_the_file_and_255_without(tmp_path, mode):
    alpha = np.where(np.arange(30) < 10, 0, 255).astype(np.uint8)[None].repeat(20, 0)
    if mode == "P":
        image = Image.fromarray(np.dstack([RGB // 128 * 255, alpha])).quantize(9)
    elif mode == "I;16":
        image = Image.fromarray(RGB[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(np.dstack([RGB, alpha])).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    loaded = load_image(path, alpha=True)
    assert loaded.shape == (4, 20, 30)
    assert np.array_equal(loaded[3].numpy(), alpha if mode in ("RGBA", "LA", "P") else np.full((20, 30), 255))
    assert torch.equal(loaded[:3, :, 10:], load_image(path)[:, :, 10:])


def bicubic(values, n):
    """The first axis resized to n in float64: Keys' cubic with a = -0.5, stretched to the scale where it shrinks."""
    scale = len(values) / n
    x = np.abs(np.arange(len(values)) + 0.5 - (np.arange(n)[:, None] + 0.5) * scale) / max(scale, 1)
    weights = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))
    return np.tensordot(weights / weights.sum(1, keepdims=True), values, 1)


@pytest.mark.parametrize("size", [(40, 60), (64, 50), (300, 301)])
def test_cut_outs_are_resized_without_a_halo(tmp_path, size):
    """Over any background they look as colors that were multiplied by alpha, resized in float64, and laid over it."""
    save_cutout(tmp_path / "a.png", 3, (120, 200))
    rgba = np.array(Image.open(tmp_path / "a.png")).astype(np.float64) / 255
    rows, columns = (np.flatnonzero(rgba[..., 3].any(axis)) for axis in (1, 0))
    rgba = rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # without transparent margins
    scale = min(size[0] / rgba.shape[0], size[1] / rgba.shape[1])
    h, w = (round(side * scale) for side in rgba.shape[:2])
    assert (h, w) != size
    premultiplied = np.dstack([rgba[..., :3] * rgba[..., 3:], rgba[..., 3]])
    resized = bicubic(bicubic(premultiplied.swapaxes(0, 1), w).clip(0, 1).swapaxes(0, 1), h).clip(0, 1)
    wanted = np.zeros((*size, 4))
    top, left = (size[0] - h) // 2, (size[1] - w) // 2
    wanted[top : top + h, left : left + w] = np.minimum(resized, resized[..., 3:])  # no color is beyond white
    found = load_image(tmp_path / "a.png", size, alpha=True).permute(1, 2, 0).numpy() / 255
    for background in ((0, 0, 0), (1, 1, 1), (0, 1, 0), (1, 0, 1)):
        shown = found[..., :3] * found[..., 3:] + background * (1 - found[..., 3:])
        assert np.abs(shown - wanted[..., :3] - background * (1 - wanted[..., 3:])).max() < 3 / 255


def test_opaque_images_are_cropped_and_empty_ones_refused(tmp_path):
    Image.fromarray(np.dstack([RGB, np.full((20, 30), 255, np.uint8)])).save(tmp_path / "a.png")
    Image.fromarray(RGB).save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        loaded = load_image(tmp_path / name, (10, 10), alpha=True)
        assert torch.equal(loaded[:3], load_image(tmp_path / name, (10, 10)))
        assert (loaded[3] == 255).all()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"cannot read .*none.png: all of its pixels are transparent"):
        load_image(tmp_path / "none.png", (4, 4), alpha=True)
    Image.new("RGBA", (1, 900), (255, 0, 0, 9)).save(tmp_path / "thin.png")
    assert load_image(tmp_path / "thin.png", (8, 8), alpha=True)[3].sum() == 8 * 9


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


def chunk(kind, data, checksum=0):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ checksum)


@pytest.mark.parametrize(
    "broken",
    [
        chunk(b"eXIf", b"no TIFF header at all"),
        chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12"),  # cut off within the orientation
        chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0", checksum=1),
        chunk(b"iCCP", b"name"),
        chunk(b"zTXt", b"key\0\0not compressed"),
        chunk(b"tEXt", b"key\0value", checksum=1),
    ],
)
def test_broken_metadata_does_not_cost_the_picture(tmp_path, broken):
    """Of a PNG; the file is as large as before, so a broken picture is still refused."""
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:33] + broken + data[33:])  # after the signature and IHDR
    assert np.array_equal(load(path), RGB)
    path.write_bytes(data[:33] + broken + data[33:-40])
    with pytest.raises(ValueError, match=r"cannot read .*a\.png"):
        load_image(path)


def test_large_images_need_leave(tmp_path, monkeypatch):
    """The limit is an option, and Pillow's own, which is a setting of the whole process, has no say."""
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert np.array_equal(load(path), RGB)
    message = r"cannot read .*a\.png: 30 x 20 pixels are more than max_pixels = 599: .*; raise max_pixels to read it"
    for read in (
        lambda limit: load_image(path, max_pixels=limit),
        lambda limit: ImageFolder(tmp_path, 16, max_pixels=limit, strict=True).get(torch.tensor([0])),
    ):
        read(600)
        with pytest.raises(ValueError, match=message):
            read(599)
    with pytest.raises(ValueError, match="max_pixels must be from 1"):
        ImageFolder(tmp_path, 16, max_pixels=0)


def test_threads_leave_warning_filters_alone(tmp_path):
    Image.fromarray(RGB).resize((400, 300)).save(tmp_path / "a.png")
    before = list(warnings.filters)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: load_image(tmp_path / "a.png", (8, 8)), range(100)))
    finally:
        sys.setswitchinterval(interval)
    assert list(warnings.filters) == before


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # Pillow, of formats that nobody uses any more
def test_every_format_that_counts_as_an_image_is_decoded(tmp_path):
    """Of those that Pillow can write, at least ten. Formats that need another program, or have no decoder, do not count."""
    suffixes, seen = image_suffixes(), set()
    for suffix, kind in Image.registered_extensions().items():
        if suffix not in suffixes or kind not in Image.SAVE:
            continue
        path = tmp_path / f"a{suffix}"
        for mode in ("RGB", "L", "1"):
            try:
                Image.fromarray(RGB).resize((32, 32)).convert(mode).save(path, kind)
                break
            except (OSError, KeyError, ValueError):  # no such mode in this format, or no encoder in this build
                path.unlink(missing_ok=True)
        if path.exists():
            assert load_image(path, (32, 32)).float().std() > 10, suffix
            seen.add(kind)
    assert len(seen) > 10
    assert {".jpg", ".png", ".webp", ".tiff", ".bmp", ".gif"} <= suffixes
    assert not {".h5", ".hdf", ".mpg", ".mpeg", ".eps", ".ps", ".pdf", ".grib", ".bufr", ".wmf", ".emf", ".mp4"} & suffixes


def test_builtin_picture():
    picture = builtin_picture(60, 90)
    assert picture.shape == (3, 60, 90)
    assert picture.dtype == torch.uint8
    assert torch.equal(picture, builtin_picture(60, 90))
    assert not torch.equal(picture, builtin_picture(60, 90, night=True))


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3)])
def test_builtin_picture_of_any_size(size):
    assert builtin_picture(*size).shape == (3, *size)


def test_things_in_the_builtin_picture_are_large_and_distinct():
    """At 112 pixels much of the picture, but not all, is within two pixels of a clear edge, and few parts are without one."""
    gray = cv2.cvtColor(builtin_picture(112, 112).permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)
    near = cv2.dilate(cv2.Canny(gray, 40, 80), np.ones((5, 5), np.uint8)) > 0
    assert 1 / 6 < near.mean() < 2 / 3
    assert near.reshape(4, 28, 4, 28).any((1, 3)).sum() >= 14  # of 16 parts; sky is plain
