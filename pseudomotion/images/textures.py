"""Textures: what objects show, as one tensor."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.images.bank import ImageBank
from pseudomotion.images.entries import open_entries
from pseudomotion.images.subset import Subset
from pseudomotion.images.synthetic import SOURCES


def load_textures(
    sources: str | Path | Sequence[str | Path],
    size: int,
    *,
    limit: int = 256,
    seed: int = 0,
    alpha: bool = False,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> UInt8[Tensor, "M C size size"]:
    """Images as ``textures`` for ``PMG``: what objects show, the same for all clips, so that a clip does not depend on its batch.

    Args:
        sources: one or more of: a folder of images; a bank file; uncompressed tar shards, such as "shards-{000..099}.tar"; a dataset that
            ``datasets`` saved to disk; "hf:name" or "hf:name:split" for one that it loads. Or the name of one synthetic source.
        size: side of the textures in pixels; a single bank may have its own.
        limit: largest number of textures, drawn by ``seed``, from all classes alike.
        seed: of the choice.
        alpha: read cut-outs: RGBA, as ``load_image(alpha=True)`` does. Images without alpha are opaque among them.
        device: where the textures are kept.
        num_workers: processes that decode.

    Returns:
        uint8 ``(M, 3, size, size)``, or ``(M, 4, size, size)`` with ``alpha``.

    Raises:
        OSError: if there is no such file or folder.
        ValueError: if no image can be read; with ``alpha``, if no image has a transparent pixel; for images of different sizes.

    Warns:
        UserWarning: files that cannot be read; other images take their places.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> from pseudomotion.images import load_textures
        >>> textures = load_textures("photos", 48)
        >>> clips = PMG(num_frames=4, size=32, objects="mixed")(torch.rand(2, 3, 48, 64), textures=textures / 255)
        >>> textures.shape, clips.shape
        (torch.Size([5, 3, 48, 48]), torch.Size([2, 3, 4, 32, 32]))

    """
    checks.positive_int("limit", limit, 2**31)
    names = [str(source) for source in ([sources] if isinstance(sources, (str, Path)) else sources)]
    synthetic = SOURCES.get(names[0]) if len(names) == 1 else None
    source = open_entries(names, size, alpha=alpha) if synthetic is None else synthetic(size=size, device=device)
    chosen = Subset(source, min(limit, len(source)), seed)
    textures = ImageBank(chosen, device, num_workers=num_workers).images
    if alpha and (textures.shape[1] != 4 or bool((textures[:, 3] == 255).all())):
        raise ValueError(f"textures must be cut-outs, such as PNG files with transparent parts; {', '.join(names)} has none")
    return textures
