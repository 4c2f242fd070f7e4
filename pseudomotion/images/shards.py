"""Images in WebDataset tar shards."""

import glob
import math
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, cycle, groupby
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch.utils.data import get_worker_info

from pseudomotion import checks
from pseudomotion.draws import Draws
from pseudomotion.images.files import MAX_PIXELS, image_suffixes
from pseudomotion.images.stream import Entry, Stream, content_id
from pseudomotion.source import is_transient, retry

PREFERRED = ("jpg", "jpeg", "png", "webp")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # at least two letters: "C:" is a drive
_BRACES = re.compile(r"\{([^{}]*)\}")


class Shards(Stream):
    """A stream of the images in WebDataset tar shards. Shards that are not local files need the library ``webdataset``.

    A sample is a run of files with the same name up to the first dot of the base name; the rest is a file's extension. Each sample gives
    one image. Hidden files are left out.

    Args:
        urls: paths of local shards, globs and braces such as ``train-{000000..000146}.tar`` included, or anything that webdataset opens,
            such as ``https:`` and ``pipe:`` URLs; one or several.
        size: of the images, an int or ``(h, w)``: resized with antialiasing, center-cropped to its aspect ratio.
        extension: which file of a sample is the image, such as "rgb.png"; several in order of preference. None: the first of jpg, jpeg,
            png, webp, any other image format; or else a sample's only image file, whatever its extension.
        shuffle: the order of shards is drawn per epoch, and images are drawn from a buffer of this many; 0 for neither.
        seed: of the order; None is 0.
        rank: of this process among ``world_size``.
        world_size: number of processes that share the stream.
        even: every rank gets the same number of images, as distributed training requires: each goes through all shards and takes one of
            every ``world_size`` images. All ranks need the same number of workers. False deals whole shards to ranks, for shards that are
            costly to read: some ranks then get more batches than others, and a loop over them needs a limit of its own.
        max_pixels: larger images count as broken, as for ``load_image``.
        strict: raise at the first broken image or shard instead of skipping it.

    Raises:
        TypeError, ValueError: for arguments outside these; if there is no shard.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from pseudomotion.images import Shards
        >>> stream = Shards("shards-{000..001}.tar", size=32)
        >>> stream.set_epoch(0)
        >>> [images.shape for images, ids in DataLoader(stream, batch_size=3)]
        [torch.Size([3, 3, 32, 32]), torch.Size([2, 3, 32, 32])]

    """

    def __init__(
        self,
        urls: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        size: int | tuple[int, int],
        *,
        extension: str | Sequence[str] | None = None,
        shuffle: int = 1000,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        even: bool = True,
        max_pixels: int = MAX_PIXELS,
        strict: bool = False,
    ) -> None:
        super().__init__(size, rank=rank, world_size=world_size, even=even, max_pixels=max_pixels, strict=strict)
        self.shuffle, self.seed = checks.bounded_int("shuffle", shuffle, 0, 2**31), checks.seed(seed)
        chosen = [extension] if isinstance(extension, str) else extension
        self.extensions = None if chosen is None else [name.lower().removeprefix(".") for name in chosen]
        given = [urls] if isinstance(urls, (str, os.PathLike)) else list(urls)
        self.urls = [url for entry in given for url in _expanded(os.fspath(entry))]
        if not any(_is_remote(url) or Path(url).exists() for url in self.urls):
            raise ValueError(f"urls must name at least one shard, found none at {urls!r}")
        self._labels = _labels(self.urls)
        self._suffixes = image_suffixes()

    def entries(self) -> Iterator[Entry]:
        """The images of this rank and worker, not decoded yet."""
        worker = get_worker_info()
        part, parts = (worker.id, worker.num_workers) if worker else (0, 1)
        (number,) = Draws(self.seed, torch.arange(len(self.urls), device="cpu") + self.epoch * len(self.urls)).uniform("shards", 1)
        order = number.argsort(stable=True).tolist() if self.shuffle else list(range(len(self.urls)))
        if not self.even:
            order = order[self.rank :: self.world_size]
        turns = cycle([rank == self.rank for rank in range(self.world_size)] if self.even else [True])
        samples = chain.from_iterable(self._samples(k, turns) for k in order[part::parts])
        entries = self.every(samples) if self.even else (entry for entry in samples if entry is not None)
        return self._shuffled(entries) if self.shuffle else entries

    def _samples(self, shard: int, turns: Iterator[bool]) -> Iterator[Entry | None]:
        """The samples of a shard; None where ``turns`` says that the next is another rank's, which spares reading it.

        A shard that is missing or breaks off is noted in ``skipped``, and what came before counts.
        """
        url, label = self.urls[shard], self._labels[shard]
        try:
            with retry(partial(_open, url)) as file:
                seekable = not _is_remote(url) and file.seekable()
                with tarfile.open(fileobj=file, mode="r:*" if seekable else "r|*", tarinfo=_Member) as tar:
                    members = iter(partial(retry, tar.next) if seekable else tar.next, None)
                    images = (member for member in members if member.isfile() and self._preference(member.name) is not None)
                    for sample, files in groupby(images, lambda member: _split(member.name)[0]):
                        own = next(turns)
                        entry = self._chosen(tar, label, sample, files, own=own)
                        yield entry if own else None
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            if self.strict or is_transient(error):
                raise ValueError(f"cannot read {url}: {error}") from error
            self.skipped[url] = f"cannot read {url}: {error}"

    def _chosen(self, tar: tarfile.TarFile, label: str, sample: str, files: Iterator[tarfile.TarInfo], *, own: bool) -> Entry:
        """The image of a sample; read only if it is this rank's."""
        best, name, data, undecided = math.inf, "", b"", 0
        for member in files:
            preference = self._preference(member.name)
            if preference is not None and preference < best:
                best, name, data = preference, f"{label}/{member.name}", _content(tar, member) if own else b""
            undecided += 1
        if undecided == 1 or self.extensions is not None or best <= len(PREFERRED):
            return Entry(name, name, partial(bytes, data))
        name = f"{label}/{sample}"
        message = f"cannot read {name}: {undecided} image files, none of them {sample}.jpg or the like; choose one by extension="
        return Entry(name, name, partial(_fail, message))

    def _preference(self, name: str) -> int | None:
        """Rank of a file among those of its sample, the lowest is the image; None for a file that is no image."""
        extension = _split(name)[1].lower()
        if PurePosixPath(name).name.startswith("."):
            return None
        if self.extensions is not None:
            return self.extensions.index(extension) if extension in self.extensions else None
        if PurePosixPath(name.lower()).suffix not in self._suffixes:
            return None
        return PREFERRED.index(extension) if extension in PREFERRED else len(PREFERRED) + ("." in extension)

    def _shuffled(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """Each image changes places with one in a buffer, at a position drawn by its own name."""
        buffer: list[Entry] = []
        for entry in entries:
            if len(buffer) < self.shuffle:
                buffer.append(entry)
                continue
            id_ = content_id(f"{self.epoch} {entry.name}".encode())
            place = int(float(Draws(self.seed, torch.tensor([id_], device="cpu")).uniform("shuffle", 1)[0]) * self.shuffle)
            yield buffer[place]
            buffer[place] = entry
        (number,) = Draws(self.seed, torch.arange(len(buffer), device="cpu") + self.epoch * self.shuffle).uniform("shuffle", 1)
        for place in number.argsort(stable=True).tolist():
            yield buffer[place]


class _Member(tarfile.TarInfo):
    """A file of a tar archive whose end must be marked; tarfile takes a header that is broken or missing for the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the mark of the end
                raise
            raise tarfile.ReadError(f"the archive breaks off or is damaged at byte {tarfile_.offset}: {error}") from error


def _is_remote(url: str) -> bool:
    return bool(_SCHEME.match(url)) and not Path(url).exists()


def _expanded(entry: str) -> list[str]:
    """The shards that an entry names: itself if there is such a file, else its braces and globs expanded.

    A name that matches nothing is kept, so that it is reported as missing.
    """
    if Path(entry).exists():
        return [entry]
    urls = []
    for url in _braces_expanded(entry):
        found = [] if _is_remote(url) or Path(url).exists() else sorted(glob.glob(url))
        urls += found or [url]
    return urls


def _braces_expanded(text: str) -> list[str]:
    """``{000..012}`` and ``{a,b}`` as in a shell."""
    if not (braces := _BRACES.search(text)):
        return [text]
    if limits := re.fullmatch(r"(\d+)\.\.(\d+)", braces[1]):
        first, last = map(int, limits.groups())
        width = max(map(len, limits.groups())) if any(limit.startswith("0") for limit in limits.groups()) else 0
        options = [f"{number:0{width}d}" for number in range(first, last + 1)]
    elif "," in braces[1]:
        options = braces[1].split(",")
    else:
        return [text]
    return [url for option in options for url in _braces_expanded(text[: braces.start()] + option + text[braces.end() :])]


def _labels(urls: Sequence[str]) -> list[str]:
    """The end of each path that tells it from the others: its base name if that is unique. So labels stay the same if all shards move."""
    paths = {url: PurePosixPath(Path(url).as_posix()).parts for url in urls}
    length = 1
    while len({parts[-length:] for parts in paths.values()}) < len(paths):
        length += 1
    return ["/".join(paths[url][-length:]) for url in urls]


def _split(name: str) -> tuple[str, str]:
    """A file's sample and extension, divided at the first dot of its base name."""
    folder, base = os.path.split(name)
    stem, _, extension = base.partition(".")
    return f"{folder}/{stem}" if folder else stem, extension


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a file; what there is of it if the shard breaks off, which the next header then reports."""

    def read() -> bytes:
        file = tar.extractfile(member)
        assert file is not None
        with file:
            return file.read()

    try:
        return retry(read)
    except (EOFError, tarfile.TarError, zlib.error):
        return b""


def _fail(text: str) -> bytes:
    raise ValueError(text)


def _open(url: str) -> Any:
    """A local file, or with webdataset's help anything else, which can be read but perhaps not sought in."""
    if not _is_remote(url):
        return open(url, "rb")
    from webdataset import gopen

    return gopen(url)
