"""Images decoded once and kept in memory, on the GPU if that is where clips are made."""

import json
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from pseudomotion import checks
from pseudomotion.files import whole_file
from pseudomotion.source import ImageSource, batches

READ_AT_ONCE = 64
LEFT_FREE = 0.1  # share of the free memory that is not filled


class ImageBank:
    """All images of a source as one uint8 tensor, so that training never waits for a loader: ``get`` is one gather.

    100,000 images of 224 x 224 take 15 GB. Ids mean the same images as in the source.

    Args:
        source: where the images come from.
        device: where they are kept.
        num_workers: processes that decode.

    Attributes:
        images: uint8 ``(N, 3, H, W)`` on the device.
        skipped: what is wrong with the files that could not be read, by the number of their image.

    Raises:
        ValueError: for an empty source, or one not an image of which can be read.
        MemoryError: where the images do not fit; it says how many would.

    """

    def __init__(self, source: ImageSource, device: torch.device | str = "cpu", *, num_workers: int = 0) -> None:
        if not len(source):
            raise ValueError("source must hold at least one image, got none")
        self.images, self.skipped = _fill(source, torch.device(device), num_workers)
        self.groups: Tensor | None = getattr(source, "groups", None)

    def __len__(self) -> int:
        """Number of images of the source, broken ones included."""
        return len(self.images)

    def get(self, ids: Tensor) -> UInt8[Tensor, "B 3 H W"]:
        """The images of some ids, at least 0, on the bank's device."""
        checks.item_ids(ids)
        return self.images[(ids % len(self)).to(self.images.device, non_blocking=True)]

    def report(self) -> str:
        """What was skipped: a line for each file."""
        return "\n".join([f"skipped {len(self.skipped)} of {len(self)} files", *(f"  {text}" for text in self.skipped.values())])

    def save(self, path: str | Path) -> None:
        """Write the bank to a safetensors file, which appears whole or not at all.

        Raises:
            ImportError: where safetensors is not installed.

        """
        from safetensors.torch import save_file

        tensors = {"images": self.images} | ({} if self.groups is None else {"groups": self.groups})
        with whole_file(Path(path)) as temporary:
            save_file(tensors, temporary, metadata={"skipped": json.dumps(self.skipped)})

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "ImageBank":
        """The bank that ``save`` wrote.

        Raises:
            OSError: where there is no such file.
            ValueError: where it is not a bank.
            MemoryError: where the images do not fit.

        """
        from safetensors import SafetensorError, safe_open

        device, bank = torch.device(device), cls.__new__(cls)
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                n, *shape = file.get_slice("images").get_shape()
                _check_fits(n, shape[-2], shape[-1], device)
                bank.images = file.get_tensor("images")
                bank.groups = file.get_tensor("groups").cpu() if "groups" in file.keys() else None  # noqa: SIM118
                bank.skipped = {int(index): text for index, text in json.loads((file.metadata() or {})["skipped"]).items()}
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path} is no image bank: {error}") from error
        return bank


def _fill(source: ImageSource, device: torch.device, num_workers: int) -> tuple[Tensor, dict[int, str]]:
    """Read every image once; a broken one's place is taken by another, as in the source."""
    images, filled = None, 0
    with tqdm(total=len(source), desc="images", unit="image", delay=2, leave=False) as bar:
        for batch, ids in batches(source, READ_AT_ONCE, shuffle=False, num_workers=num_workers):
            if images is None:
                _check_fits(len(source), batch.shape[-2], batch.shape[-1], device)
                images = torch.empty((len(source), *batch.shape[1:]), dtype=torch.uint8, device=device)
            images[filled : filled + len(ids)] = batch.to(device)
            filled += len(ids)
            bar.update(len(ids))
    if images is None:
        raise ValueError("source must hold at least one image, got none")
    return images, dict(getattr(source, "skipped", {}))


def _check_fits(n: int, h: int, w: int, device: torch.device) -> None:
    fit = int(_free_bytes(device) * (1 - LEFT_FREE)) // (3 * h * w)
    if n > fit:
        gigabytes = n * 3 * h * w / 1e9
        raise MemoryError(f"{n} images of {h} x {w} take {gigabytes:.3g} GB, which {device} does not have free; {fit} images would fit")


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return free[0] if free else 2**63  # where the system does not say, let the allocation decide
