"""Image banks: images decoded once, in memory or in one memory-mapped file."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from pseudomotion import checks
from pseudomotion.files import MADE_BY, whole_file
from pseudomotion.images.streamed import Item, Shard
from pseudomotion.source import ImageSource, batches, is_transient, retry

CHUNK = 64  # images read or written at a time
LEFT_FREE = 0.1  # share of the free memory that a bank leaves to others
HEADER = 4096  # bytes of a file's header, padded with spaces, so that it can be written last
VERSION = 1  # in the header's metadata; version 0 had no number, and "skipped" there too


class ImageBank:
    """All images of a source as one uint8 tensor, so that no image is decoded twice: ``get`` is one gather.

    Ids name the same images as in the source. 100,000 images of 256 x 256 take 20 GB. On a GPU, or built in memory, every process has a
    bank of its own; a bank loaded from a file on the CPU is memory-mapped, and all processes of a machine share its pages.

    Args:
        source: the images.
        device: where they are kept.
        num_workers: processes that decode.

    Attributes:
        images: uint8 ``(N, C, H, W)`` on the device, with the source's 3 channels, or 4 of a source with alpha.
        groups: int64 ``(N,)``, the class of every image, where the source draws from all classes alike; else None.
        skipped: the error of every file that could not be read, by image index; another image takes its place, as in the source.
        file: the file that the bank was loaded from, or None.

    Raises:
        ValueError: if the source is empty or none of its images can be read.
        MemoryError: if the images do not fit, with the number that would.

    Example:
        >>> import torch
        >>> from pseudomotion.images import ImageBank, ImageFolder
        >>> bank = ImageBank(ImageFolder("photos", size=32))
        >>> bank.save("bank.safetensors")
        >>> ImageBank.load("bank.safetensors").get(torch.arange(5)).shape
        torch.Size([5, 3, 32, 32])

    """

    def __init__(self, source: ImageSource, device: torch.device | str = "cpu", *, num_workers: int = 0) -> None:
        device, filled = torch.device(device), 0
        for chunk in _chunks(source, num_workers):
            if not filled:
                _check_fits((len(source), *chunk.shape[1:]), device)
                self.images = torch.empty((len(source), *chunk.shape[1:]), dtype=torch.uint8, device=device)
            self.images[filled : filled + len(chunk)] = chunk.to(device)
            filled += len(chunk)
        self.groups: Tensor | None = getattr(source, "groups", None)
        self.skipped: dict[int, str] = dict(getattr(source, "skipped", {}))
        self.file: Path | None = None

    def __len__(self) -> int:
        """Number of images of the source, unreadable ones included."""
        return len(self.images)

    def get(self, ids: Tensor) -> UInt8[Tensor, "B C H W"]:
        """The images of some ids, at least 0, on the bank's device."""
        checks.item_ids(ids)
        return self.images[(ids % len(self)).to(self.images.device, non_blocking=True)]

    def report(self) -> str:
        """What was skipped, one line per file."""
        return "\n".join([f"skipped {len(self.skipped)} of {len(self)} files", *(f"  {text}" for text in self.skipped.values())])

    def save(self, path: str | Path) -> None:
        """Write the bank to a safetensors file, which appears whole or not at all.

        Raises:
            OSError: if the file cannot be written, such as on a full disk.

        """
        with whole_file(Path(path)) as temporary:
            _write(temporary, (chunk.cpu() for chunk in torch.split(self.images, CHUNK)), len(self), self.groups, self.skipped)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "ImageBank":
        """A bank that ``save`` or ``pmg-bank`` wrote.

        On the CPU the file is memory-mapped: loading takes no time and no memory, an image is read when it is first asked for, and pages
        in memory are shared by all processes. On a GPU the images are copied.

        Raises:
            ImportError: if safetensors is not installed (``pip install '.[bank]'`` in the repository).
            OSError: if there is no such file.
            ValueError: if it is not a bank, or of a later version.
            MemoryError: if the images do not fit on the GPU.

        """
        from safetensors import SafetensorError, safe_open

        device, bank = torch.device(device), cls.__new__(cls)
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                metadata, names = file.metadata() or {}, set(file.keys())
                if (version := int(metadata.get("version", 0))) > VERSION:
                    raise ValueError(f"{path} is an image bank of version {version}, this library reads up to version {VERSION}")
                if device.type != "cpu":
                    _check_fits(file.get_slice("images").get_shape(), device)
                bank.images = file.get_tensor("images")
                bank.groups = file.get_tensor("groups").cpu() if "groups" in names else None
                skipped = bytes(file.get_tensor("skipped").tolist()) if version else metadata["skipped"]
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path} is no image bank: {error}") from error
        bank.skipped = {int(index): text for index, text in json.loads(skipped).items()}
        bank.file = Path(path).absolute()
        return bank

    def __getstate__(self) -> dict[str, Any]:
        """A bank of a file is sent to another process by the file's name, to be mapped there."""
        return vars(self) if self.file is None else {"file": self.file, "device": str(self.images.device)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what ``__getstate__`` gave."""
        vars(self).update(state if state["file"] is None else vars(ImageBank.load(state["file"], state["device"])))


def write_bank(source: ImageSource, path: str | Path, *, num_workers: int = 0) -> dict[int, str]:
    """Decode all images of a source once, into a file for ``ImageBank.load``; the images need not fit into memory.

    Args:
        source: the images.
        path: of the file, which appears whole or not at all.
        num_workers: processes that decode.

    Returns:
        The error of every file that could not be read, by image index.

    Raises:
        ValueError: if the source is empty or none of its images can be read.
        OSError: if the disk has not enough room, or the file cannot be written.

    """
    skipped = getattr(source, "skipped", {})  # filled while the images are read
    with whole_file(Path(path)) as temporary:
        _write(temporary, _chunks(source, num_workers), len(source), getattr(source, "groups", None), skipped)
    return dict(skipped)


def write_bank_of_shards(
    shards: Sequence[Shard], path: str | Path, *, limit: int | None = None, num_workers: int = 0
) -> tuple[int, dict[int, str]]:
    """Read shards once, from front to back, into a file for ``ImageBank.load``: so streams become images that have numbers.

    Args:
        shards: to read one after the other, such as those of ``open_shards``.
        path: of the file, which appears whole or not at all.
        limit: number of images, the first of the shards; None for all.
        num_workers: threads that decode; 0 decodes in the caller's.

    Returns:
        The number of images, and the error of every image that could not be read, by its index: the next one that can be read stands in
        its place, as in other sources.

    Raises:
        ValueError: for a damaged shard; if there is no image, or none can be read.
        OSError: for a missing shard; if the disk has not enough room, or the file cannot be written.

    """
    skipped: dict[int, str] = {}
    with whole_file(Path(path)) as temporary:
        n = _write(temporary, _streamed_chunks(shards, limit, skipped, num_workers), limit, None, skipped)
    return n, skipped


def _streamed_chunks(
    shards: Sequence[Shard], limit: int | None, skipped: dict[int, str], num_workers: int
) -> Iterator[UInt8[Tensor, "b C H W"]]:
    """The images of shards in order, with a progress bar; ``skipped`` is filled."""
    items, first, read, due = islice(chain.from_iterable(shard() for shard in shards), limit), None, 0, 0
    with tqdm(total=limit, desc="images", unit="image", delay=2, leave=False) as bar, ThreadPoolExecutor(max(1, num_workers)) as threads:
        while chunk := list(islice(items, CHUNK)):
            for index, image in enumerate((threads.map if num_workers else map)(_load, chunk), start=read):
                due += 1
                if isinstance(image, str):
                    skipped[index] = image
                    continue
                first = image if first is None else first
                yield image.expand(due, -1, -1, -1)
                due = 0
            read += len(chunk)
            bar.update(len(chunk))
    if not read:
        raise ValueError("shards must hold images, none was found")
    if first is None:
        raise ValueError(f"not one of {read} images can be read; the first: {skipped[0]}")
    if due:
        yield first.expand(due, -1, -1, -1)


def _load(item: Item) -> Tensor | str:
    """An image, or the error if it is broken."""
    try:
        return retry(item.load)
    except (OSError, ValueError) as error:
        if is_transient(error):
            raise
        return str(error)


def _chunks(source: ImageSource, num_workers: int) -> Iterator[UInt8[Tensor, "b C H W"]]:
    """All images of a source in order, with a progress bar."""
    if not len(source):
        raise ValueError("source must hold at least one image, got none")
    with tqdm(total=len(source), desc="images", unit="image", delay=2, leave=False) as bar:
        for chunk, _ in batches(source, CHUNK, shuffle=False, num_workers=num_workers):
            yield chunk
            bar.update(len(chunk))


def _write(path: Path, chunks: Iterator[Tensor], n: int | None, groups: Tensor | None, skipped: dict[int, str]) -> int:
    """Write a safetensors file chunk by chunk; ``save_file`` of safetensors wants all of it in memory.

    A file is the length of a JSON header in 8 bytes, the header, and the tensors' bytes. The header comes last, since ``skipped`` and the
    number of images are complete only when all chunks were read. ``groups`` comes before the images, where its eight-byte numbers are
    aligned.

    Args:
        path: of the file.
        chunks: images.
        n: number of images at most, to see whether they fit on the disk; None if it is not known.
        groups: as ``ImageBank.groups``.
        skipped: as ``ImageBank.skipped``.

    Returns:
        The number of images.

    """
    with path.open("wb") as file:
        file.seek(HEADER)
        header: dict[str, Any] = {"__metadata__": {"kind": f"image bank, {MADE_BY}", "version": str(VERSION)}}

        def append(name: str, dtype: str, parts: Iterable[Tensor]) -> int:
            begin, length, shape = file.tell(), 0, torch.Size()
            for part in parts:
                file.write(part.contiguous().numpy().data)
                length, shape = length + len(part), part.shape[1:]
            header[name] = {"dtype": dtype, "shape": [length, *shape], "data_offsets": [begin - HEADER, file.tell() - HEADER]}
            return length

        if groups is not None:
            append("groups", "I64", [groups.cpu()])
        first = next(chunks)
        size, free = (n or 0) * first[0].numel(), shutil.disk_usage(path.parent).free
        if size > free:
            raise OSError(
                f"{path.parent} has {free / 1e9:.3g} GB free, {n} images of {first.shape[-2]} x {first.shape[-1]} take {size / 1e9:.3g}"
            )
        written = append("images", "U8", chain([first], chunks))
        append("skipped", "U8", [torch.frombuffer(bytearray(json.dumps(skipped).encode()), dtype=torch.uint8)])
        file.seek(0)
        encoded = json.dumps(header).encode().ljust(HEADER - 8)
        file.write(len(encoded).to_bytes(8, "little") + encoded)
    return written


def _check_fits(shape: Sequence[int], device: torch.device) -> None:
    n, channels, h, w = shape
    fit = int(_free_bytes(device) * (1 - LEFT_FREE)) // (channels * h * w)
    if n > fit:
        gigabytes = n * channels * h * w / 1e9
        raise MemoryError(
            f"{n} images of {h} x {w} take {gigabytes:.3g} GB, which {device} does not have free; {fit} images would fit. "
            "A file that pmg-bank wrote is memory-mapped and needs no memory of its own"
        )


def _free_bytes(device: torch.device) -> int:
    """Memory that this process can still fill: of the GPU, or of the machine within the limits of the process's control groups."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([*free, *_cgroup_rooms()], default=2**63)  # where the system does not say, let the allocation decide


def _cgroup_rooms(listing: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Bytes left in every control group with a limit that the process is in: of containers, of SLURM jobs, of systemd's slices.

    A group's limit holds for the groups in it too, so all parents count. Pages of files that were not used lately can be reclaimed, and
    count as free. A container may not see the path that its listing names; what it sees at the mount is its own group then.

    Args:
        listing: lines of "number:controllers:path", as in ``/proc/self/cgroup``; version 2 has one line, without controllers.
        mount: where the groups' files are.

    """
    for line in listing.read_text().splitlines() if listing.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage, cache = mount, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, usage, cache = mount / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        own = root / path.lstrip("/")
        for group in (own, *own.parents):
            if (group == root or root in group.parents) and (group / limit).is_file():
                text = (group / limit).read_text().strip()
                if text != "max":
                    statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                    yield int(text) - int((group / usage).read_text()) + int(statistics.get(cache, 0))
