"""The workloads that are measured."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pseudomotion import PMG, TRANSFORMS
from pseudomotion.mix import Mixup

DTYPES = {"uint8": torch.uint8, "bfloat16": torch.bfloat16, "float32": torch.float32}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEFAULT = ("zoom", "affine")


@dataclass(frozen=True)
class Work:
    """A workload: a batch of clips to make.

    Args:
        batch: B, number of images and clips.
        num_frames: T.
        side: height and width of images and frames, in pixels.
        dtype_in: dtype of the images, a key of ``DTYPES``.
        dtype_out: dtype of the clips, a key of ``DTYPES``.
        transforms: names of the transforms that PMG draws from.
        resampling: "recursive" or "composed".
        renderer: "reference" or "fused".
        finished: clips are also mixed (mixup) and normalized.
        planned: plans are made beforehand, so only rendering is measured.

    """

    batch: int
    num_frames: int = 16
    side: int = 224
    dtype_in: str = "float32"
    dtype_out: str = "float32"
    transforms: tuple[str, ...] = ("affine",)
    resampling: str = "recursive"
    renderer: str = "reference"
    finished: bool = False
    planned: bool = False

    @property
    def output_bytes(self) -> int:
        """Size of the clips in bytes."""
        return self.batch * self.num_frames * 3 * self.side**2 * DTYPES[self.dtype_out].itemsize

    def pmg(self) -> PMG:
        """The generator for this workload."""
        extra = {"mix": Mixup(), "mean": MEAN, "std": STD} if self.finished else {}
        return PMG(
            self.transforms,
            self.num_frames,
            self.side,
            resampling=self.resampling,
            renderer=self.renderer,
            dtype=DTYPES[self.dtype_out],
            **extra,
        )

    def images(self, device: torch.device) -> Tensor:
        """Uniform noise images ``(batch, 3, side, side)``."""
        pixels = torch.rand(self.batch, 3, self.side, self.side, generator=torch.Generator().manual_seed(0))
        return (pixels * 255).to(device, torch.uint8) if self.dtype_in == "uint8" else pixels.to(device, DTYPES[self.dtype_in])

    def function(self, device: torch.device) -> Callable[[], Tensor]:
        """The function to time: from images on the device to finished clips on it, including synchronization."""
        pmg, images, ids = self.pmg(), self.images(device), torch.arange(self.batch)
        if not self.planned:
            return finishing(lambda: pmg(images, ids=ids), device)
        plan = pmg.plan(images.shape, ids=ids)
        return finishing(lambda: pmg.render(images, plan), device)


def finishing(function: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """Wrap ``function`` so that it returns only when the device is done."""
    if device.type != "cuda":
        return function

    def wait() -> Tensor:
        result = function()
        torch.cuda.synchronize()
        return result

    return wait


def measured_device() -> torch.device:
    """The device in ``PMG_BENCH_DEVICE``, else the GPU if there is one, else the CPU."""
    return torch.device(os.environ.get("PMG_BENCH_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


def main_batch(device: torch.device) -> int:
    """Batch size of the rows that are compared with each other."""
    return 128 if device.type == "cuda" else 8


def plannings() -> list[Work]:
    """Workloads for which only planning is measured; plans are always made on the host."""
    every = itertools.product((DEFAULT, tuple(TRANSFORMS)), ("recursive", "composed"), (1, 8, 128, 512))
    return [Work(batch, transforms=names, resampling=how) for names, how, batch in every]


def cases(device: torch.device, *, quick: bool) -> Iterator[Work]:
    """All workloads for a device, without duplicates."""
    main = main_batch(device)
    renderers = ("fused", "reference")
    small = main if device.type == "cuda" else 2
    seen = set()
    for renderer in renderers:
        for resampling in ("recursive", "composed"):
            for work in _cases(main, small, renderer, resampling, sweeps=not quick, gpu=device.type == "cuda"):
                if work not in seen:
                    seen.add(work)
                    yield work


def _cases(main: int, small: int, renderer: str, resampling: str, *, sweeps: bool, gpu: bool) -> Iterator[Work]:
    how = {"renderer": renderer, "resampling": resampling}
    yield Work(main, **how)
    yield Work(main, **how, planned=True)
    for name in TRANSFORMS:
        yield Work(small, transforms=(name,), **how)
    yield Work(small, transforms=DEFAULT, **how)
    yield Work(small, transforms=DEFAULT, finished=True, dtype_in="uint8", dtype_out="bfloat16", **how)
    # Varied for the plots of ``growth``: one of B, T and side.
    for num_frames in (8, 16, 32):
        yield Work(small, num_frames, **how)
    for side in (112, 224, 336):
        yield Work(small, side=side, **how)
    if gpu:
        for batch in (1, 8, 32, 128, 512):
            for planned in (False, True):
                yield Work(batch, dtype_in="uint8", dtype_out="bfloat16", planned=planned, **how)
    else:
        for batch in (1, 2, 4, 8) if not sweeps else (1, 2, 4, 8, 16, 32):
            yield Work(batch, **how)
    if gpu or sweeps:
        for dtype in DTYPES:
            yield Work(small, dtype_in="uint8", dtype_out=dtype, **how)
