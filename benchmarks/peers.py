"""Other libraries on the same workload, each used as its documentation recommends for speed.

The workload is the paper's recursion with a constant affine map per clip: ``I[t+1] = f(I[t])``, T frames from one image, float32 in and
out unless a row says otherwise. Images and maps are made beforehand, as PMG's plan is. Every call allocates its clips, for all libraries.
A peer's note says what it does differently.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.work import MEAN, STD, Work, measured_device
from pseudomotion import geometry


class Unavailable(Exception):
    """A peer cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Job:
    """Input of every peer: images, and the map from each frame to the next."""

    images: Tensor  # (B, 3, S, S), float32
    steps: Tensor  # (B, 3, 3), float64 on the CPU: pixel of a frame to pixel of the next, pixel centers at integers
    num_frames: int
    expected: Tensor  # (B, 3, T, S, S): clips by our reference renderer


@dataclass(frozen=True)
class Peer:
    """How a library does the workload.

    Args:
        make: returns the function to time, given the job.
        note: how it is done, and how it differs from our workload.
        ours: resampling mode of the PMG workload it is compared with.
        tolerance: largest mean difference from our clips; None for libraries that draw their own motions.
        dtype: dtype of PMG's images and clips in the comparison.

    """

    make: Callable[[Job], Callable[[], Any]]
    note: str
    ours: str = "recursive"
    tolerance: float | None = 1e-4
    dtype: str = "float32"


def difference(made: Tensor, job: Job) -> float:
    """Mean absolute difference of a peer's clips from ours, of values in [0, 1]."""
    unit = made / 255 if made.dtype == torch.uint8 else made
    return float((unit - job.expected).abs().mean())


def job_for(work: Work) -> Job:
    """The job that corresponds to a workload, which must be a recursion with constant maps."""
    device = measured_device()
    pmg, images = dataclasses.replace(work, renderer="reference").pmg(), work.images(device)
    plan = pmg.plan(images.shape, ids=torch.arange(work.batch))
    return Job(images, plan.back.motion.homography[:, 1].double(), work.num_frames, pmg.render(images, plan))


def _imported(name: str) -> Any:
    try:
        return __import__(name, fromlist=["_"])
    except Exception as error:
        raise Unavailable(f"{name} cannot be imported ({type(error).__name__}: {error})") from error


def kornia_per_batch(job: Job) -> Callable[[], Tensor]:
    """One warp per step for the whole batch."""
    kornia = _imported("kornia.geometry.transform")
    maps, size = job.steps[:, :2].to(job.images), job.images.shape[2:]

    def run() -> Tensor:
        frames = [job.images]
        for _ in range(job.num_frames - 1):
            frames.append(kornia.warp_affine(frames[-1], maps, size, align_corners=True))
        return torch.stack(frames, 2)

    return run


def _per_sample(images: Iterable[Any], maps: Iterable[Any], num_frames: int, warp: Callable[[Any, Any], Any]) -> list[list[Any]]:
    """The frames of every image: one warp per step and sample, as in a dataset's ``__getitem__``."""
    clips = []
    for image, matrix in zip(images, maps, strict=True):
        frames = [image]
        for _ in range(num_frames - 1):
            frames.append(warp(frames[-1], matrix))
        clips.append(frames)
    return clips


def kornia_per_sample(job: Job) -> Callable[[], Tensor]:
    """One warp per step and sample."""
    kornia = _imported("kornia.geometry.transform")
    maps, size = job.steps[:, :2].to(job.images).split(1), job.images.shape[2:]

    def warp(frame: Tensor, matrix: Tensor) -> Tensor:
        return kornia.warp_affine(frame, matrix, size, align_corners=True)

    return lambda: torch.cat([torch.stack(frames, 2) for frames in _per_sample(job.images.split(1), maps, job.num_frames, warp)])


def kornia_video(job: Job) -> Callable[[], Tensor]:
    """Kornia's augmentation container for clips."""
    augmentation = _imported("kornia.augmentation")
    warp = augmentation.RandomAffine(degrees=2.0, translate=(0.01, 0.01), scale=(0.97, 1.03), p=1.0)
    video = augmentation.VideoSequential(warp, data_format="BCTHW", same_on_frame=True)
    clips = job.images[:, :, None].expand(-1, -1, job.num_frames, -1, -1).contiguous()
    return lambda: video(clips)


def opencv(dtype: torch.dtype) -> Callable[[Job], Callable[[], Tensor]]:
    """One warp per step and sample, channels last as OpenCV needs, written into the final buffer."""

    def make(job: Job) -> Callable[[], Tensor]:
        cv2 = _imported("cv2")
        if job.images.device.type != "cpu":
            raise Unavailable("OpenCV's wheels run on the CPU; measured there")
        cv2.setNumThreads(torch.get_num_threads())
        images = (job.images * 255).round().to(dtype) if dtype == torch.uint8 else job.images
        images, maps = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()), job.steps.numpy()
        size = images.shape[2], images.shape[1]

        def run() -> Tensor:
            clips = np.empty((len(images), job.num_frames, *images.shape[1:]), images.dtype)
            for image, matrix, clip in zip(images, maps, clips, strict=True):
                clip[0] = image
                for t in range(1, job.num_frames):
                    cv2.warpPerspective(clip[t - 1], matrix, size, dst=clip[t], flags=cv2.INTER_LINEAR)
            return torch.from_numpy(clips).permute(0, 4, 1, 2, 3)

        return run

    return make


def torchvision_per_sample(job: Job) -> Callable[[], Tensor]:
    """One warp per step and sample: v2's functionals accept one motion per call."""
    functional = _imported("torchvision.transforms.v2.functional")
    inverse = geometry.about((0.5, 0.5), geometry.inverse(job.steps.numpy()))  # torchvision's pixel centers lie at half-integers
    coefficients = (inverse / inverse[:, 2:, 2:]).reshape(-1, 9)[:, :8].tolist()

    def warp(frame: Tensor, row: list[float]) -> Tensor:
        return functional.perspective(frame, None, None, coefficients=row)

    return lambda: torch.cat([torch.stack(frames, 2) for frames in _per_sample(job.images.split(1), coefficients, job.num_frames, warp)])


def triton_augment(job: Job) -> Callable[[], Tensor]:
    """Its single kernel for affine map, color and normalization."""
    if job.images.device.type != "cuda":
        raise Unavailable("triton-augment runs on CUDA devices only")
    augment = _imported("triton_augment")
    fused = augment.TritonFusedAugment(
        degrees=2.0,
        translate=(0.01, 0.01),
        scale=(0.97, 1.03),
        interpolation=augment.InterpolationMode.BILINEAR,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        mean=MEAN,
        std=STD,
        same_on_frame=True,
    )
    clips = job.images[:, None].expand(-1, job.num_frames, -1, -1, -1).contiguous()
    return lambda: fused(clips)


def fuse_augmentations(job: Job) -> Callable[[], Tensor]:
    """Its fused warp, with parameters drawn from ranges."""
    compose = _imported("fuse_augmentations").Compose
    augment = compose.from_params(rotation=(-2.0, 2.0), scale=(0.97, 1.03), translate_x=(-2.0, 2.0), translate_y=(-2.0, 2.0))
    frames = job.images[:, None].expand(-1, job.num_frames, -1, -1, -1).flatten(0, 1)
    return lambda: augment(frames)


def own_recursion(job: Job) -> Callable[[], Tensor]:
    """PMG itself, frame from frame: what its composed clips are to keep up with."""
    batch, side = job.images.shape[0], job.images.shape[-1]
    return Work(batch, job.num_frames, side, renderer="fused", planned=True).function(job.images.device)


def own_reference(job: Job) -> Callable[[], Tensor]:
    """PMG's definition of a clip in plain torch."""
    batch, side = job.images.shape[0], job.images.shape[-1]
    return Work(batch, job.num_frames, side, planned=True).function(job.images.device)


def kornia_rs(job: Job) -> Callable[[], Tensor]:
    """One warp a step and sample, channels last."""
    rs = _imported("kornia_rs.imgproc")
    if job.images.device.type != "cpu":
        raise Unavailable("kornia-rs runs on the CPU; measured there")
    images = np.ascontiguousarray((job.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    maps = [tuple(matrix.flatten().tolist()) for matrix in job.steps]

    def warp(frame: np.ndarray, matrix: tuple[float, ...]) -> np.ndarray:
        return np.asarray(rs.warp_perspective(frame, matrix, frame.shape[:2], "bilinear"))

    def run() -> Tensor:
        clips = [np.stack(frames) for frames in _per_sample(images, maps, job.num_frames, warp)]
        return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3)

    return run


ONE_WARP = "one warp a frame; its input is the image repeated T times"
PEERS = {
    "PMG, recursive": Peer(own_recursion, "ours, in rounds that alternate with composed clips", "composed"),
    "PMG, reference": Peer(own_reference, "ours, the definition in plain torch"),
    "kornia warp_affine, per batch": Peer(kornia_per_batch, "loop over steps, then stack"),
    "kornia warp_affine, per sample": Peer(kornia_per_sample, "loop over samples and steps, then stack"),
    "kornia VideoSequential": Peer(kornia_video, f"{ONE_WARP}; no motion from frame to frame", "composed", None),
    "OpenCV warpPerspective, float32": Peer(opencv(torch.float32), "loop over samples and steps; clips stay channels-last", tolerance=0.01),
    "OpenCV warpPerspective, uint8": Peer(
        opencv(torch.uint8),
        "the same in 8 bits, rounded at every step; percentages as if it wrote float32; PMG reads and writes 8 bits too",
        tolerance=0.01,
        dtype="uint8",
    ),
    "OpenCV warpPerspective, float32, against composed": Peer(
        opencv(torch.float32), "as above; PMG reads the image in every frame", "composed", tolerance=None
    ),
    "OpenCV warpPerspective, uint8, against composed": Peer(
        opencv(torch.uint8), "as above in 8 bits", "composed", tolerance=None, dtype="uint8"
    ),
    "kornia-rs warp_perspective, uint8": Peer(
        kornia_rs, "loop over samples and steps in 8 bits; clips stay channels-last", tolerance=0.02, dtype="uint8"
    ),
    "torchvision v2 perspective": Peer(torchvision_per_sample, "loop over samples and steps: one motion a call"),
    "triton-augment": Peer(
        triton_augment, f"{ONE_WARP}; no motion from frame to frame, no perspective; also color and normalization", "composed", None
    ),
    "fuse-augmentations": Peer(fuse_augmentations, f"{ONE_WARP}; draws a new motion for every frame", "composed", None),
}
