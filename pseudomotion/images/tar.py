"""Images in local tar files, read by index."""

import tarfile
from io import BytesIO
from pathlib import PurePosixPath

from jaxtyping import UInt8
from torch import Tensor

from pseudomotion.images.files import decode_image, image_suffixes
from pseudomotion.images.shards import _expanded as expand_shards
from pseudomotion.source import FileSource


class TarImages(FileSource):
    """Images in uncompressed tar files, found once and then read at their places in any order.

    Args:
        shards: a file, or a pattern of braces and wildcards, as for ``Shards``.
        size: side of the images in pixels.
        alpha: read RGBA, as ``load_image`` does.

    Raises:
        OSError: where there is no such file.
        ValueError: for a compressed or broken file, or where there are no images.

    """

    def __init__(self, shards: str, size: int, *, alpha: bool = False) -> None:
        super().__init__()
        self.size, self.alpha = (size, size), alpha
        self.shards = expand_shards(shards)
        self.places: list[tuple[int, int, int, str]] = []  # shard, first byte, length, name
        for k, shard in enumerate(self.shards):
            self.places += [(k, member.offset_data, member.size, member.name) for member in _members(shard)]
        if not self.places:
            raise ValueError(f"{shards} must hold at least one image, it holds none")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)

    def read(self, index: int, id_: int) -> UInt8[Tensor, "C h w"]:
        """One image."""
        shard, first, length, name = self.places[index]
        with open(self.shards[shard], "rb") as file:
            file.seek(first)
            return decode_image(BytesIO(file.read(length)), f"{self.shards[shard]}/{name}", self.size, alpha=self.alpha)


def _members(shard: str) -> list[tarfile.TarInfo]:
    """The images of a shard; only its headers are read."""
    try:
        with tarfile.open(shard, mode="r:") as tar:
            return [member for member in tar if member.isfile() and _is_image(member.name)]
    except tarfile.TarError as error:
        raise ValueError(
            f'cannot read {shard}: {error}; shards must be uncompressed to be read by index; write "stream:" before their name to '
            "read them sequentially"
        ) from error


def _is_image(name: str) -> bool:
    """Whether a member of a shard is its sample's image: ``x.jpg``, not ``x.seg.png`` or ``.x.jpg``."""
    name = PurePosixPath(name).name
    return name.count(".") == 1 and not name.startswith(".") and PurePosixPath(name.lower()).suffix in image_suffixes()
