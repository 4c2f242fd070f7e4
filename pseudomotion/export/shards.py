"""How the files of a shard's clips are laid out: in a folder, or in a WebDataset tar file."""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pseudomotion.export.encode import Piece
from pseudomotion.files import whole_file, whole_folder

__all__ = ["FolderShard", "TarShard", "on_disk"]

BLOCK = 4096  # bytes; what most file systems round the size of a file up to
TAR_BLOCK = tarfile.BLOCKSIZE


class FolderShard:
    """A folder: ``KEY.mp4``, or ``KEY/img_00001.png`` and so on; annotations in ``flow/KEY.npz`` or ``flow/KEY/00000.flo``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.size = folder, 0

    @classmethod
    @contextmanager
    def create(cls, path: Path) -> Iterator["FolderShard"]:
        """A new shard, which appears at ``path`` whole or not at all."""
        with whole_folder(path) as temporary:
            yield cls(temporary)

    def add(self, record: dict[str, Any], pieces: Sequence[Piece]) -> None:
        """Write the files of a clip."""
        for piece in pieces:
            path = self.folder / file_name(record["key"], piece)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(piece.content)
            self.size += on_disk(len(piece.content))

    @staticmethod
    def room(record: dict[str, Any], pieces: Sequence[Piece]) -> int:
        """Bytes that a clip takes on the disk."""
        return sum(on_disk(len(piece.content)) for piece in pieces)


class TarShard:
    """A tar file of WebDataset samples.

    Members: ``KEY.mp4`` or ``KEY.00000.png``, ``KEY.flow.npz`` or ``KEY.00000.flow.flo``, ``KEY.cls``, ``KEY.json``.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.tar, self.size = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT), 0

    @classmethod
    @contextmanager
    def create(cls, path: Path) -> Iterator["TarShard"]:
        """A new shard, which appears at ``path`` whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            with open(temporary, "wb") as file:
                shard = cls(file)
                yield shard
                shard.tar.close()
            shard.size = os.path.getsize(temporary)

    def add(self, record: dict[str, Any], pieces: Sequence[Piece]) -> None:
        """Append a sample. Its members carry no time and no owner, so that the same clips make the same file."""
        for name, content in _members(record, pieces):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            self.tar.addfile(member, BytesIO(content))

    @staticmethod
    def room(record: dict[str, Any], pieces: Sequence[Piece]) -> int:
        """Bytes that a clip takes in the file."""
        return sum(TAR_BLOCK + -(-len(content) // TAR_BLOCK) * TAR_BLOCK for _, content in _members(record, pieces))


def file_name(key: str, piece: Piece) -> str:
    """Where a file of a clip lies in a folder shard."""
    if piece.frame is None:
        return f"{piece.kind}/{key}.{piece.suffix}".lstrip("/")
    if not piece.kind:
        return f"{key}/img_{piece.frame + 1:05d}.{piece.suffix}"  # numbered as VideoMAE and MMAction2 expect frames
    return f"{piece.kind}/{key}/{piece.frame:05d}.{piece.suffix}"


def member_name(key: str, piece: Piece) -> str:
    """The name of a file of a clip in a tar shard."""
    parts = [key, None if piece.frame is None else f"{piece.frame:05d}", piece.kind, piece.suffix]
    return ".".join(filter(None, parts))


def _members(record: dict[str, Any], pieces: Sequence[Piece]) -> Iterator[tuple[str, bytes]]:
    """The names and contents of a sample; a name up to its first dot is the sample's key."""
    for piece in pieces:
        yield member_name(record["key"], piece), piece.content
    yield f"{record['key']}.cls", str(record["label"]).encode()
    yield f"{record['key']}.json", json.dumps(record).encode()


def on_disk(size: int) -> int:
    """Bytes that a file takes on the disk."""
    return -(-size // BLOCK) * BLOCK
