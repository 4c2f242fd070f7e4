"""Reading image files, whatever their color mode."""

import warnings
from io import BufferedReader, BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor


def load_image(path: str | Path, size: tuple[int, int] | None = None) -> UInt8[Tensor, "3 H W"]:
    """An image file as RGB.

    EXIF orientation is applied. Grey, palette, CMYK and 16-bit images are converted; transparent ones are laid on white; of an animation
    the first frame is taken.

    Args:
        path: any format that Pillow reads.
        size: ``(h, w)`` to resize to, antialiased, the middle cut out at its aspect ratio; None for the image's own.

    Raises:
        OSError: where there is no such file, or it cannot be opened.
        ValueError: where the file is no image, broken, or so large that it looks like a decompression bomb
            (more than ``PIL.Image.MAX_IMAGE_PIXELS`` pixels).

    """
    with Path(path).open("rb") as file:
        return decode_image(file, str(path), size)


def decode_image(file: BytesIO | BufferedReader, name: str, size: tuple[int, int] | None = None) -> UInt8[Tensor, "3 H W"]:
    """An image in an open file or in memory, as ``load_image``; ``name`` is for error messages."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if size is not None:  # a JPEG is decoded at a half, a quarter or an eighth where that is still large enough
                    image.draft(None, (max(size), max(size)))
                rgb = _to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read {name}: more than {Image.MAX_IMAGE_PIXELS} pixels, refused as a decompression bomb") from error
    except UnidentifiedImageError as error:  # its message has the name again
        raise ValueError(f"cannot read {name}: cannot identify image file") from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over: SyntaxError, struct.error, EOFError, ...
        raise ValueError(f"cannot read {name}: {error}") from error
    if size is not None:
        rgb = ImageOps.fit(rgb, (size[1], size[0]), method=Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip to 8
        values = np.asarray(image).astype(np.float64) * (255 / 65535)
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("a floating-point image has no defined range")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
