"""Image sources from command-line arguments: folders, banks, tar shards, and Hugging Face datasets."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pseudomotion.images.bank import ImageBank
from pseudomotion.images.concatenated import Concatenated
from pseudomotion.images.folder import ImageFolder
from pseudomotion.images.huggingface import HFImages
from pseudomotion.images.streamed import Shard, huggingface_shards, source_shards, tar_shards
from pseudomotion.images.synthetic import SOURCES
from pseudomotion.images.tar import TarImages
from pseudomotion.images.videos import VideoFrames
from pseudomotion.source import ImageSource


def open_source(
    images: Sequence[str] | None,
    source: str | None,
    videos: str | None,
    size: int,
    *,
    seed: int = 0,
    balanced: bool = False,
    alpha: bool = False,
    device: torch.device | str = "cpu",
) -> ImageSource:
    """The image source that ``--images``, ``--source`` or ``--videos`` selects.

    Args:
        images: as for ``open_entries``.
        source: a name in ``SOURCES``. Its images have the source's default seed, so they are the same in every run.
        videos: a list of videos; one frame of each is an image.
        size: side of the images in pixels; a single bank may have its own.
        seed: of the frames of videos.
        balanced: as for ``ImageFolder``.
        alpha: as for ``open_entries``.
        device: where synthetic images are made.

    Raises:
        OSError: if there is no such file or folder.
        ValueError: unless exactly one is given; for images of different sizes; with ``alpha``, for sources that have none.

    """
    given = {"--images": images, "--source": source, "--videos": videos}
    if sum(value is not None for value in given.values()) != 1:
        raise ValueError(f"exactly one of {', '.join(given)} must say where images come from")
    if alpha and images is None:
        raise ValueError("--alpha needs --images: synthetic images and frames of videos have no transparent parts")
    if source is not None:
        made: ImageSource = SOURCES[source](size=size, device=device)
        return made
    if videos is not None:
        return VideoFrames(videos, size, seed=seed)
    return open_entries(images or (), size, balanced=balanced, alpha=alpha)


def open_entries(entries: Sequence[str], size: int, *, balanced: bool = False, alpha: bool = False) -> ImageSource:
    """The image source of one entry, or of several concatenated.

    Args:
        entries: each a folder; a bank file; uncompressed tar shards, such as "shards-{000..099}.tar"; a dataset that ``datasets`` saved to
            disk; "hf:name" or "hf:name:split" for one that it loads.
        size: side of the images in pixels; a single bank may have its own.
        balanced: as for ``ImageFolder``.
        alpha: read RGBA, as ``load_image`` does.

    Raises:
        OSError: if there is no such file or folder.
        ValueError: for images of different sizes; for a bank that holds RGBA where ``alpha`` is False, or RGB where it is True; and as the
            sources raise it.

    """
    sources = [_open(entry, size, balanced, alpha) for entry in entries]
    return sources[0] if len(sources) == 1 else Concatenated(sources, size)


def _open(entry: str, size: int, balanced: bool, alpha: bool) -> ImageSource:
    """The image source of one entry."""
    path = Path(entry)
    if entry.startswith("hf:"):
        return HFImages(load_dataset(entry), size, alpha=alpha)
    if (path / "dataset_info.json").is_file():
        import datasets

        return HFImages(datasets.load_from_disk(entry), size, alpha=alpha)
    if re.search(r"\.tar\b", path.name):
        return TarImages(entry, size, alpha=alpha)
    if path.is_file():
        bank = ImageBank.load(path)  # memory-mapped, and shared by all processes
        if bank.images.shape[1] != (4 if alpha else 3):
            kinds = ("RGB", "cut-outs", "--alpha") if alpha else ("RGBA", "images", "no --alpha")
            raise ValueError("{} is a bank of {} images; for {}, make it by pmg-bank with {}".format(entry, *kinds))
        return bank
    if not path.is_dir():
        raise FileNotFoundError(f"cannot read {entry}: there is no such file or folder")
    return ImageFolder(path, size, balanced=balanced, alpha=alpha)


def load_dataset(entry: str, *, streaming: bool = False) -> Any:
    """Load the split that "hf:name" or "hf:name:split" names; the default split is "train"."""
    import datasets

    name, _, split = entry.removeprefix("hf:").partition(":")
    return datasets.load_dataset(name, split=split or "train", streaming=streaming)


def is_stream(entry: str) -> bool:
    """Whether an entry is read sequentially: if it starts with "stream:", or is remote, such as "https://host/x.tar"."""
    return entry.startswith("stream:") or bool(re.match(r"(?!hf:)[A-Za-z][A-Za-z0-9+.-]+:", entry) and not Path(entry).exists())


def open_shards(entries: Sequence[str], size: int) -> list[Shard]:
    """Streams, and whatever stands beside them, all as shards to be read from front to back.

    Args:
        entries: each a stream, as ``is_stream`` tells, or one that ``open_entries`` takes.
        size: side of the images in pixels.

    Raises:
        OSError, ValueError: as ``open_entries``.

    """
    shards: list[Shard] = []
    for entry in entries:
        if not is_stream(entry):
            shards += source_shards(open_entries([entry], size))
        elif (path := entry.removeprefix("stream:")).startswith("hf:"):
            shards += huggingface_shards(load_dataset(path, streaming=True), size)
        else:
            shards += tar_shards(path, size)
    return shards
