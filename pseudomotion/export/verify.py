"""Checking a written export: every clip is there once, in its place, and can be decoded."""

import json
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from pseudomotion.export.encode import Piece
from pseudomotion.export.job import CLIPS, Export
from pseudomotion.export.plans import load_plans
from pseudomotion.export.shards import file_name, member_name

__all__ = ["verify_names", "verify_shard"]


def verify_names(export: Export) -> list[str]:
    """What is wrong with the set of an export's shards: missing ones, and ones that it does not have."""
    wanted = {export.path(shard) for shard in range(export.settings.num_shards)}
    found = {path for path in (export.out / CLIPS).glob("*") if not path.name.startswith(".")}
    return [f"{path} is missing" for path in sorted(wanted - found)] + [f"{path} is no shard of it" for path in sorted(found - wanted)]


def verify_shard(export: Export, shard: int, *, progress: Callable[[int], object]) -> list[str]:
    """What is wrong with a shard: clips that are missing, repeated, broken or of another size, and ids, plans and files that do not agree.

    Args:
        export: as it was when it was written.
        shard: which is there.
        progress: called with 1 after every clip.

    """
    numbers, path = export.settings.numbers(shard), export.path(shard)
    keys, ids = [f"{number:08d}" for number in numbers], export.ids(numbers).tolist()
    faults = []
    try:
        records = [json.loads(line) for line in export.records_path(shard).read_text().splitlines()]
        if [(record["key"], record["id"]) for record in records] != list(zip(keys, ids, strict=True)):
            faults.append(f"{export.records_path(shard)} must hold clips {keys[0]} to {keys[-1]} in order, with their ids")
        planned = load_plans(export.plans_path(shard))
        if planned.ids[: planned.count].tolist() != ids:
            faults.append(f"{export.plans_path(shard)} must hold the plans of clips {keys[0]} to {keys[-1]}")
    except (OSError, ValueError, KeyError) as error:
        faults.append(f"cannot read the records and plans of {path}: {error}")
    wanted = {(member_name if export.settings.tar else file_name)(key, piece): piece for key in keys for piece in _pieces(export)}
    if export.settings.tar:
        wanted |= {f"{key}.{suffix}": Piece("record", None, suffix, b"") for key in keys for suffix in ("cls", "json")}
    seen: set[str] = set()
    try:
        for name, content in _files(path):
            if name in seen or name not in wanted:
                faults.append(f"{path}/{name} {'comes twice' if name in seen else 'is no file of it'}")
                continue
            seen.add(name)
            if fault := _fault(export, wanted[name], content):
                faults.append(f"{path}/{name} {fault}")
            if wanted[name].kind == "" and wanted[name].frame in (None, 0):
                progress(1)
    except (OSError, tarfile.TarError) as error:
        faults.append(f"cannot read {path}: {error}")
    return faults + [f"{path}/{name} is missing" for name in sorted(wanted.keys() - seen)]


def _pieces(export: Export) -> Iterator[Piece]:
    """The files of every clip, without content."""
    settings, frames = export.settings, export.pmg.num_frames

    def pieces(kind: str, suffix: str, count: int | None) -> Iterator[Piece]:
        yield from (Piece(kind, t, suffix, b"") for t in ([None] if count is None else range(count)))

    yield from pieces("", settings.format, None if settings.format == "mp4" else frames)
    if "flow" in settings.annotations:
        suffix = "png" if settings.flow_format == "kitti" else settings.flow_format
        yield from pieces("flow", suffix, None if suffix == "npz" else frames - 1)
    for name in ("tracks", "boxes"):
        if name in settings.annotations:
            yield from pieces(name, "npz", None)
    if "instances" in settings.annotations:
        yield from pieces("instances", "png", frames)


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """The names and contents of a shard's files."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file.relative_to(path).as_posix(), file.read_bytes()
        return
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            content = tar.extractfile(member)
            yield member.name, b"" if content is None else content.read()


def _fault(export: Export, piece: Piece, content: bytes) -> str:
    """What is wrong with a file; "" if nothing."""
    try:
        if piece.suffix == "mp4":
            return _fault_of_video(export, content)
        if piece.suffix in ("png", "webp"):
            with Image.open(BytesIO(content)) as image:
                image.load()
                return "" if image.size[::-1] == export.pmg.size else f"must be {export.pmg.size}, is {image.size[::-1]}"
        if piece.suffix == "npz":
            with np.load(BytesIO(content)) as arrays:
                return "" if all(len(arrays[name]) for name in arrays.files) else "is empty"
        if piece.suffix == "json":
            json.loads(content)
    except Exception as error:  # of any decoder
        return f"cannot be decoded: {error}"
    return "" if content else "is empty"


def _fault_of_video(export: Export, content: bytes) -> str:
    import av

    with av.open(BytesIO(content)) as container:
        sizes = [(frame.height, frame.width) for frame in container.decode(video=0)]
    wanted = [export.pmg.size] * export.pmg.num_frames
    return "" if sizes == wanted else f"must be {len(wanted)} frames of {wanted[0]}, is {len(sizes)} of {sorted(set(sizes))}"
