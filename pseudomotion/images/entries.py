"""Images by the words of a command line: folders, banks, tar shards, and datasets of Hugging Face."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pseudomotion.images.bank import ImageBank
from pseudomotion.images.concatenated import Concatenated
from pseudomotion.images.folder import ImageFolder
from pseudomotion.images.huggingface import HFImages
from pseudomotion.images.tar import TarImages
from pseudomotion.source import ImageSource


def open_entries(entries: Sequence[str], size: int, *, balanced: bool = False) -> ImageSource:
    """Images of one or more entries, end to end.

    Args:
        entries: each a folder; a bank file; uncompressed tar shards, such as "shards-{000..099}.tar"; a dataset that ``datasets`` saved to
            disk; "hf:name" or "hf:name:split" for one that it loads.
        size: side of the images in pixels; a single bank may have its own.
        balanced: as for ``ImageFolder``.

    Raises:
        OSError: if there is no such file or folder.
        ValueError: for images of different sizes, and as the sources raise it.

    """
    sources = [_open(entry, size, balanced) for entry in entries]
    return sources[0] if len(sources) == 1 else Concatenated(sources, size)


def _open(entry: str, size: int, balanced: bool) -> ImageSource:
    """What one word of --images names."""
    path = Path(entry)
    if entry.startswith("hf:"):
        return HFImages(load_dataset(entry), size)
    if (path / "dataset_info.json").is_file():
        import datasets

        return HFImages(datasets.load_from_disk(entry), size)
    if re.search(r"\.tar\b", path.name):
        return TarImages(entry, size)
    if path.is_file():
        return ImageBank.load(path)  # memory-mapped, and shared by all processes
    return ImageFolder(path, size, balanced=balanced)


def load_dataset(entry: str, *, streaming: bool = False) -> Any:
    """What "hf:name" or "hf:name:split" names, a single split."""
    import datasets

    name, _, split = entry.removeprefix("hf:").partition(":")
    return datasets.load_dataset(name, split=split or "train", streaming=streaming)


def is_stream(entry: str) -> bool:
    """Whether an entry is read from front to back: one that says so by "stream:", or a remote one, such as "https://host/x.tar"."""
    return entry.startswith("stream:") or bool(re.match(r"(?!hf:)[A-Za-z][A-Za-z0-9+.-]+:", entry) and not Path(entry).exists())
