"""Decoding image files of any format and color mode."""

import struct
from contextlib import suppress
from io import BufferedReader, BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageFile, ImageOps
from torch import Tensor

MAX_PIXELS = 200_000_000  # the largest sensors of phones; 600 MB in RGB
_NOT_DECODED = {"EPS", "MPEG", "WMF"}  # Pillow identifies these, but needs another program, or Windows, to decode them
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(
    path: str | Path, size: tuple[int, int] | None = None, *, max_pixels: int = MAX_PIXELS, alpha: bool = False
) -> UInt8[Tensor, "C H W"]:
    """An image file as RGB, or as RGBA.

    The EXIF orientation is applied. Gray, palette, CMYK, and 16-bit images are converted; an animation gives its first frame. As RGB,
    transparent images are laid on white.

    Args:
        path: a file of any format that Pillow decodes.
        size: ``(h, w)`` to resize to, antialiased, with a center crop to its aspect ratio; None for the image's own size.
        max_pixels: largest number of pixels to decode; a larger image is refused, as it may be a decompression bomb.
        alpha: give RGBA, with alpha 255 where the file has none; colors are not premultiplied, but they are while they are resized. A
            cut-out, an image with transparent pixels, is not cropped: its transparent margins are removed, and the rest is centered whole
            in ``size``.

    Returns:
        uint8 ``(3, H, W)``, or ``(4, H, W)`` with ``alpha``.

    Raises:
        OSError: if there is no such file, or it cannot be opened.
        ValueError: if the file is not an image, is broken, or has more than ``max_pixels`` pixels; with ``alpha`` and ``size``, if all of
            its pixels are transparent.

    Example:
        >>> from pseudomotion.images import load_image
        >>> load_image("photo.jpg").shape, load_image("photo.jpg", (32, 32)).shape
        (torch.Size([3, 20, 30]), torch.Size([3, 32, 32]))

    """
    with Path(path).open("rb") as file:
        return decode_image(file, str(path), size, max_pixels=max_pixels, alpha=alpha)


def decode_image(
    file: BytesIO | BufferedReader, name: str, size: tuple[int, int] | None = None, *, max_pixels: int = MAX_PIXELS, alpha: bool = False
) -> UInt8[Tensor, "C H W"]:
    """An image in an open file or in memory, as ``load_image``; ``name`` is for error messages."""
    try:
        try:
            image = _decode(file, size, max_pixels, alpha)
        except Exception:
            file.seek(0)
            if (bare := _without_metadata(file.read())) is None:
                raise
            image = _decode(BytesIO(bare), size, max_pixels, alpha)
    except Exception as error:  # Pillow's decoders also raise SyntaxError, struct.error, EOFError, ...
        raise ValueError(f"cannot read {name}: {str(error) or type(error).__name__}") from error
    if size is not None and alpha and (np.asarray(image)[..., 3] < 255).any():
        if (visible := image.getchannel("A").getbbox()) is None:
            raise ValueError(f"cannot read {name}: all of its pixels are transparent")
        image = _centered(image.crop(visible), size)
    elif size is not None:
        image = ImageOps.fit(image, (size[1], size[0]), method=Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()  # (C, H, W)


def image_suffixes() -> frozenset[str]:
    """The lower-case suffixes of image files that can be decoded, such as ".jpg"."""
    extensions = Image.registered_extensions()  # also loads all of Pillow's plugins
    decoded = {
        kind
        for kind, (factory, _) in Image.OPEN.items()
        if kind not in _NOT_DECODED and not (isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile))
    }
    return frozenset(suffix for suffix, kind in extensions.items() if kind in decoded)


def _decode(file: BytesIO | BufferedReader, size: tuple[int, int] | None, max_pixels: int, alpha: bool) -> Image.Image:
    image = _open(file)
    w, h = image.size
    if w * h > max_pixels:
        raise ValueError(
            f"{w} x {h} pixels are more than max_pixels = {max_pixels}: refused as a decompression bomb; raise max_pixels to read it"
        )
    if size is not None:  # a JPEG is decoded at 1/2, 1/4, or 1/8 if that is still large enough
        image.draft(None, (max(size), max(size)))
    image.load()
    try:
        turn = _TURN.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        turn = None  # broken metadata never costs the picture
    return _converted(image if turn is None else image.transpose(turn), alpha)


def _open(file: BytesIO | BufferedReader) -> ImageFile.ImageFile:
    """``Image.open`` without its pixel limit, which is a setting of the whole process and warns through filters of the whole process."""
    prefix = file.read(16)
    for load_plugins in (Image.preinit, Image.init):  # the common ones; all
        load_plugins()
        for kind in Image.ID:
            factory, accept = Image.OPEN[kind]
            with suppress(SyntaxError, IndexError, TypeError, struct.error):
                accepted = accept is None or accept(prefix)
                if accepted and not isinstance(accepted, str):  # a string says why this build of Pillow cannot decode it
                    file.seek(0)
                    return factory(file, "")
    raise ValueError("cannot identify image file")


def _without_metadata(data: bytes) -> bytes | None:
    """A PNG reduced to the chunks that define its pixels; None for other data. Pillow fails if any other chunk is broken."""
    if not data.startswith(_PNG_SIGNATURE):
        return None
    kept, start = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def _converted(image: Image.Image, alpha: bool) -> Image.Image:
    """An image as RGBA, or as RGB, laid on white."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip to 8
        values = np.asarray(image).astype(np.float64) * (255 / 65535)
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("a floating-point image has no defined range")
    if not image.has_transparency_data:
        image = image.convert("RGB")
        return image.convert("RGBA") if alpha else image
    layer = image.convert("RGBA")
    return layer if alpha else Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _centered(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An RGBA image, resized as a whole, between transparent margins. Pillow premultiplies colors while it resizes."""
    h, w = size
    scale = min(h / image.height, w / image.width)
    sides = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    whole = Image.new("RGBA", (w, h))
    whole.paste(image.resize(sides, Image.Resampling.BICUBIC), ((w - sides[0]) // 2, (h - sides[1]) // 2))
    return whole
