"""Running an export: its folder and manifest, the room on the disk, worker processes, and progress."""

import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import platform
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pseudomotion import __version__
from pseudomotion.export.job import CLIPS, PLANS, RECORDS, Export
from pseudomotion.files import MADE_BY, sweep, whole_file
from pseudomotion.source import STOP_SIGNALS, signals_held
from pseudomotion.transforms import ALL_TRANSFORMS

__all__ = ["Report", "check_room", "over", "prepare", "readable_size", "run"]

MANIFEST = "manifest.json"
SAMPLED = 8  # clips that the estimate of the size is measured on
LEFT_FREE = 0.02  # share of the free disk that an export does not count on
POLL = 0.2  # seconds
Result = TypeVar("Result")


class Report(NamedTuple):
    """What a run did.

    Args:
        clips: written by it.
        size: bytes of what it wrote.
        seconds: of its work, by kind, over all workers; "elapsed" is the clock's.
        skipped: errors of images that could not be read, by index.
    """

    clips: int
    size: int
    seconds: dict[str, float]
    skipped: dict[int, str]


def prepare(export: Export, command: Sequence[str] = ()) -> None:
    """Make the folder of an export and its manifest, or check that the export in it is the same.

    Raises:
        FileExistsError: if the folder holds something else.
        ValueError: if it holds an export of other clips; the message says what differs.
        OSError: if it cannot be written.

    """
    manifest, made = _manifest(export, command), export.out / MANIFEST
    if export.out.exists() and not export.out.is_dir():
        raise FileExistsError(f"cannot write to {export.out}: it is not a folder")
    if not made.exists():
        if export.out.exists() and any(not path.name.startswith(".") for path in export.out.iterdir()):
            raise FileExistsError(f"cannot write to {export.out}: it is not empty, and no pmg-export made it; choose another folder")
        export.out.mkdir(parents=True, exist_ok=True)
        with whole_file(made) as temporary:
            temporary.write_text(json.dumps(manifest, indent=2) + "\n")
        return
    before = _read_manifest(made)
    for part in ("settings", "motion", "images"):
        old, new = before.get(part, {}), manifest[part]
        if changed := [name for name in {**old, **new} if old.get(name) != new.get(name)]:
            what = ", ".join(f"{name} was {old.get(name)!r} and is now {new.get(name)!r}" for name in changed)
            raise ValueError(f"{export.out} holds another export: {what}; choose another folder, or delete this one")


def _manifest(export: Export, command: Sequence[str]) -> dict[str, Any]:
    import av
    import PIL

    shown = {} if export.textures is None else {"textures": _hash(export.textures)}
    versions = {"pseudomotion": __version__, "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    libraries = {name: ".".join(map(str, av.library_versions[name])) for name in ("libavcodec", "libavformat", "libswscale")}
    return {
        "kind": f"export of clips, {MADE_BY}",
        "versions": versions | {"av": av.__version__, "pillow": PIL.__version__} | libraries,
        "command": list(command),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "settings": export.settings.state(),
        "motion": {"pmg": str(export.pmg), "seed": export.pmg.seed},
        "images": {"source": type(export.source).__name__, "count": len(export.source), "sample": _fingerprint(export)} | shown,
        "transforms": list(ALL_TRANSFORMS),
    }


def _fingerprint(export: Export) -> str:
    """A hash of three images, which tells other images, sizes and seeds of sources."""
    n = len(export.source)
    return _hash(export.source.get(torch.tensor([0, n // 3, 2 * n // 3], device="cpu")))


def _hash(images: Tensor) -> str:
    return hashlib.blake2b(images.cpu().numpy().tobytes() + str(tuple(images.shape)).encode(), digest_size=8).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        if MADE_BY not in manifest["kind"]:
            raise ValueError("something else made it")
    except (ValueError, KeyError, TypeError) as error:
        raise FileExistsError(
            f"cannot write to {path.parent}: {path} is no manifest of pmg-export ({error}); choose another folder"
        ) from error
    return manifest


def check_room(export: Export, shards: Sequence[int]) -> tuple[float, int]:
    """Estimate what some shards take, from a few clips of the first.

    Returns:
        Bytes of the shards, and bytes that are free.

    Raises:
        OSError: if they do not fit.

    """
    clips = sum(len(export.settings.numbers(shard)) for shard in shards)
    needed = export.sample(shards[0], SAMPLED) * clips
    free = shutil.disk_usage(export.out).free
    if needed > free * (1 - LEFT_FREE):
        raise OSError(
            f"cannot write to {export.out}: {clips} clips take about {readable_size(needed)}, and {readable_size(free)} are free; "
            "write fewer or smaller clips, raise --crf, or split them by --part over several disks"
        )
    return needed, free


def run(export: Export, shards: Sequence[int], *, workers: int = 1) -> Report:
    """Write shards.

    Args:
        export: what to write; ``prepare`` has made its folder.
        shards: to write; they replace older ones.
        workers: processes; 1 works in this one.

    Raises:
        OSError, ValueError: as ``Export.write``; OSError too if a worker process was killed.

    Example:
        >>> from pseudomotion import PMG
        >>> from pseudomotion.export import Export, Settings, prepare, run, write_card, write_list
        >>> from pseudomotion.images import ImageFolder
        >>> settings = Settings(clips=8, shard_size=4, tar=True)
        >>> export = Export(ImageFolder("photos", 48), PMG(num_frames=4, size=32), "shards", settings)
        >>> prepare(export)
        >>> run(export, export.missing(export.part(1, 1)), workers=1).clips
        8
        >>> write_card(export)
        >>> write_list(export).name
        'shards.txt'

    """
    begin, seconds, size, clips = time.perf_counter(), Counter[str](), 0, 0
    skipped: dict[int, str] = {}
    _sweep(export)  # of killed runs
    total = sum(len(export.settings.numbers(shard)) for shard in shards)
    try:
        with tqdm(total=total, desc="clips", unit="clip", delay=1, smoothing=0.05) as bar:
            for written in over(export, Export.write, shards, workers, bar):
                clips, size = clips + written.clips, size + written.size
                seconds.update(written.seconds)
                skipped |= written.skipped
    except BaseException:
        _sweep(export)  # of killed workers
        raise
    return Report(clips, size, dict(seconds) | {"elapsed": time.perf_counter() - begin}, skipped)


def _sweep(export: Export) -> None:
    """Delete temporary files of processes that have ended."""
    for folder in (CLIPS, PLANS, RECORDS):
        if (export.out / folder).is_dir():
            sweep(export.out / folder)


def over(export: Export, work: Callable[..., Result], shards: Sequence[int], workers: int, bar: "tqdm[Any]") -> Iterator[Result]:
    """``work(export, shard, progress=...)`` for shards, in worker processes; results in the order in which they come."""
    if workers == 1 or len(shards) < 2:
        for shard in shards:
            yield work(export, shard, progress=bar.update)
        return
    context = multiprocessing.get_context("spawn")
    workers = min(workers, len(shards))
    count = context.Value("q", 0)
    threads = max(1, torch.get_num_threads() // workers)
    seen = 0
    pool = ProcessPoolExecutor(workers, context, _start, (export, count, threads))
    before = set(multiprocessing.active_children())
    try:
        with signals_held():
            waiting: set[Future[Result]] = {pool.submit(_do, work, shard) for shard in shards}
        while waiting:
            done, waiting = wait(waiting, POLL, FIRST_COMPLETED)
            if (now := count.value) > seen:
                bar.update(now - seen)
                seen = now
            yield from (future.result() for future in done)
    except BrokenProcessPool:
        raise OSError("a worker process was killed, possibly because memory ran out; start again with fewer --workers") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
            child.join()


_export: Export | None = None
_count: Any = None


def _start(export: Export, count: Any, threads: int) -> None:
    """In a new worker process."""
    global _export, _count
    for number in STOP_SIGNALS:  # both reach all processes of a group; the main process decides what they mean
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_follow_main, daemon=True).start()
    torch.set_num_threads(threads)
    _export, _count = export, count


def _follow_main() -> None:
    """End with the main process, however it ends. Files being written keep their temporary names."""
    main = multiprocessing.parent_process()
    assert main is not None
    multiprocessing.connection.wait([main.sentinel])
    os._exit(1)


def _do(work: Callable[..., Result], shard: int) -> Result:
    assert _export is not None

    def progress(clips: int) -> None:
        with _count.get_lock():
            _count.value += clips

    return work(_export, shard, progress=progress)


def readable_size(number: float) -> str:
    """Bytes with a unit and three digits."""
    for unit in ("bytes", "KB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB" if number < 1000 else f"{number / 1000:.3g} TB"
