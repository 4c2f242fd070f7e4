"""Images in a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from pseudomotion import checks
from pseudomotion.images.files import load_image
from pseudomotion.source import Source


class ImageFolder(Source):
    """All image files of a folder and of those in it, in the order of their paths.

    Args:
        root: the folder. Links to folders are followed.
        size: of the images, an int or ``(h, w)``: resized with antialiasing, the middle cut out.
        limit: at most so many images of each class: the first of each. The class is the folder directly in ``root``.
        balanced: ``batches`` draws from all classes alike (paper, section 4), in place of every image once.
        strict: raise at the first broken file in place of skipping it.

    Attributes:
        paths: of the images.
        classes: names of the classes, sorted; "" for images directly in ``root``.
        labels: int64, position in ``classes`` of every image.

    Raises:
        OSError: where there is no such folder.
        ValueError: where it holds no image file.

    Example:
        >>> source = ImageFolder("imagenet/train", size=224, limit=10, balanced=True)  # doctest: +SKIP
        >>> for images, ids in batches(source, 64, num_workers=8):  # doctest: +SKIP
        ...     clips = pmg(images.cuda(), ids=ids)

    """

    def __init__(
        self, root: str | Path, size: int | tuple[int, int], *, limit: int | None = None, balanced: bool = False, strict: bool = False
    ) -> None:
        self.size = checks.item_size(size)
        self.root = Path(root)
        if not self.root.is_dir():
            raise NotADirectoryError(f"root must be a folder, got {self.root}")
        if limit is not None:
            checks.positive_int("limit", limit, 2**31)
        self.paths: list[Path] = []
        names: list[str] = []
        kept: dict[str, int] = {}
        for path in sorted(_image_files(self.root)):
            parts = path.relative_to(self.root).parts
            name = parts[0] if len(parts) > 1 else ""
            kept[name] = kept.get(name, 0) + 1
            if limit is None or kept[name] <= limit:
                self.paths.append(path)
                names.append(name)
        if not self.paths:
            raise ValueError(f"root must hold image files, found none in {self.root}")
        self.classes = sorted(kept)
        number = {name: k for k, name in enumerate(self.classes)}
        self.labels = torch.tensor([number[name] for name in names], device="cpu")
        super().__init__(strict=strict, groups=self.labels if balanced else None)

    def __len__(self) -> int:
        """Number of image files."""
        return len(self.paths)

    def read(self, index: int, id_: int) -> UInt8[Tensor, "3 h w"]:
        """One image."""
        return load_image(self.paths[index], self.size)


class ShadersFolder(ImageFolder):
    """Renders of Shaders1k or Shaders21k that you have: one folder for each shader program, drawn from all alike (paper, section 3.3).

    Neither the programs nor their renders may be redistributed. ``synthetic.Shaders`` makes images of the same kind from nothing.
    The arguments are those of ``ImageFolder``.
    """

    def __init__(self, root: str | Path, size: int | tuple[int, int] = 224, *, limit: int | None = None, strict: bool = False) -> None:
        super().__init__(root, size, limit=limit, balanced=True, strict=strict)


def _image_files(root: Path) -> Iterator[Path]:
    """Files whose suffix Pillow knows, hidden ones left out."""
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up would never end
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(folder, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in suffixes)
