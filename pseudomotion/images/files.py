"""Reading image files, whatever their color mode."""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor


def load_image(path: str | Path) -> UInt8[Tensor, "3 H W"]:
    """An image file as RGB.

    EXIF orientation is applied. Grey, palette, CMYK and 16-bit images are converted; transparent ones are laid on white; of an animation
    the first frame is taken.

    Args:
        path: any format that Pillow reads.

    Raises:
        OSError: where there is no such file, or it cannot be opened.
        ValueError: where the file is no image, broken, or so large that it looks like a decompression bomb
            (more than ``PIL.Image.MAX_IMAGE_PIXELS`` pixels).

    """
    path = Path(path)
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                rgb = _to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read {path}: more than {Image.MAX_IMAGE_PIXELS} pixels, refused as a decompression bomb") from error
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # Pillow's decoders raise whatever they stumble over: SyntaxError, struct.error, EOFError, ...
        raise ValueError(f"cannot read {path}: {error}") from error
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
