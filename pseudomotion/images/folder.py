"""Images in a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.images.files import MAX_PIXELS, image_suffixes, load_image
from pseudomotion.source import FileSource


class ImageFolder(FileSource):
    """All image files in a folder and its subfolders, sorted by path.

    A file is an image if Pillow decodes its format, by its suffix. Hidden files and folders are left out.

    Args:
        root: the folder. Links to folders are followed; a link back to a folder above it is not.
        size: of the images, an int or ``(h, w)``: resized with antialiasing, center-cropped to its aspect ratio.
        limit: at most this many images per class: the first of each. The class is the name of the folder directly in ``root``.
        balanced: ``batches`` draws from all classes equally (paper, section 4), instead of taking every image once.
        max_pixels: larger images count as broken, as for ``load_image``.
        alpha: read RGBA, as ``load_image`` does: cut-outs for ``PMG``'s ``textures``.
        strict: raise at the first broken file instead of skipping it.

    Attributes:
        paths: of the images.
        classes: names of the classes, sorted; "" for images directly in ``root``.
        labels: int64 ``(n,)``, every image's index into ``classes``.

    Raises:
        OSError: if there is no such folder, or one of its folders cannot be listed.
        ValueError: if it holds no image file.

    Example:
        >>> from pseudomotion import PMG
        >>> from pseudomotion.images import ImageFolder, batches
        >>> source, pmg = ImageFolder("photos", size=48, limit=2, balanced=True), PMG(num_frames=4, size=32)
        >>> source.classes
        ['cat', 'dog']
        >>> for images, ids in batches(source, 3):  # num_workers=8
        ...     clips = pmg(images, ids=ids)  # images.cuda() to make them there
        ...

    """

    def __init__(
        self,
        root: str | Path,
        size: int | tuple[int, int],
        *,
        limit: int | None = None,
        balanced: bool = False,
        max_pixels: int = MAX_PIXELS,
        alpha: bool = False,
        strict: bool = False,
    ) -> None:
        self.size = checks.item_size(size)
        self.max_pixels = checks.bounded_int("max_pixels", max_pixels, 1, 2**62)
        self.alpha = alpha
        self.root = Path(root)
        if not self.root.is_dir():
            raise NotADirectoryError(f"root must be a folder, got {self.root}")
        if limit is not None:
            checks.positive_int("limit", limit, 2**31)
        self.paths: list[Path] = []
        names: list[str] = []
        kept: dict[str, int] = {}
        for path in sorted(_image_files(self.root, image_suffixes())):
            parts = path.relative_to(self.root).parts
            name = parts[0] if len(parts) > 1 else ""
            kept[name] = kept.get(name, 0) + 1
            if limit is None or kept[name] <= limit:
                self.paths.append(path)
                names.append(name)
        if not self.paths:
            raise ValueError(f"{self.root} must hold image files, found none")
        self.classes = sorted(kept)
        number = {name: k for k, name in enumerate(self.classes)}
        self.labels = torch.tensor([number[name] for name in names], device="cpu")
        super().__init__(strict=strict, groups=self.labels if balanced else None)

    def __len__(self) -> int:
        """Number of image files."""
        return len(self.paths)

    def read(self, index: int, id_: int) -> UInt8[Tensor, "C h w"]:
        """One image."""
        return load_image(self.paths[index], self.size, max_pixels=self.max_pixels, alpha=self.alpha)


class ShadersFolder(ImageFolder):
    """Renders of Shaders1k or Shaders21k on your disk: one folder per shader program, all programs drawn equally (paper, section 3.3).

    Neither the programs nor their renders may be redistributed. ``synthetic.Shaders`` generates images of the same kind.
    The arguments are those of ``ImageFolder``.

    Example:
        >>> import torch
        >>> from pseudomotion.images import ShadersFolder
        >>> source = ShadersFolder("photos", size=32)
        >>> source.classes, source.get(torch.arange(3)).shape
        (['cat', 'dog'], torch.Size([3, 3, 32, 32]))

    """

    def __init__(
        self,
        root: str | Path,
        size: int | tuple[int, int] = 224,
        *,
        limit: int | None = None,
        max_pixels: int = MAX_PIXELS,
        strict: bool = False,
    ) -> None:
        super().__init__(root, size, limit=limit, balanced=True, max_pixels=max_pixels, strict=strict)


def _image_files(folder: Path, suffixes: frozenset[str], above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Image files in a folder and its subfolders; ``above``: the real paths of the folders that lead here."""
    here = os.path.realpath(folder)
    if here in above:  # a link back up would never end
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _image_files(Path(entry.path), suffixes, (*above, here))
            elif Path(entry.name).suffix.lower() in suffixes:
                yield Path(entry.path)
