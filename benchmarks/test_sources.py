"""Images per second of a folder and of a bank, clips per second of videos; each compared with a plain loop over Pillow or PyAV.

``OMP_NUM_THREADS=1 pytest benchmarks/test_sources.py --benchmark-only``; the bank is measured on a GPU too if there is one. The plain
loops do the minimum for the same result: they decode and resize, without checks.
"""

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pseudomotion.images import ImageBank, ImageFolder, batches, builtin_picture
from pseudomotion.video import VideoClips, write_video

IMAGES, VIDEOS, SIZE = 64, 8, 224
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of JPEGs of ImageNet's typical size."""
    folder = tmp_path_factory.mktemp("images")
    picture = builtin_picture(375, 500 + IMAGES).permute(1, 2, 0).numpy()
    for k in range(IMAGES):
        Image.fromarray(picture[:, k : k + 500]).save(folder / f"{k}.jpg", quality=90)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A list of videos of 250 frames of Kinetics' typical size."""
    folder = tmp_path_factory.mktemp("videos")
    picture = builtin_picture(256, 340 + 250).permute(1, 2, 0).numpy()
    for k in range(VIDEOS):
        write_video(folder / f"{k}.mp4", [picture[:, t : t + 340] for t in range(250)], fps=25)
    (folder / "list.csv").write_text("".join(f"{k}.mp4 0\n" for k in range(VIDEOS)))
    return folder / "list.csv"


def measure(benchmark, unit, n, function):
    benchmark.pedantic(function, rounds=3, warmup_rounds=1)
    benchmark.extra_info[f"{unit}_per_second"] = n / benchmark.stats.stats.min


@pytest.mark.parametrize("num_workers", [0, 2])
def test_image_folder(benchmark, folder, num_workers):
    source = ImageFolder(folder, SIZE)
    measure(benchmark, "images", IMAGES, lambda: [images for images, _ in batches(source, 16, num_workers=num_workers)])


def test_images_by_plain_pillow(benchmark, folder):
    paths = sorted(folder.iterdir())

    def read():
        for path in paths:
            with Image.open(path) as image:
                np.asarray(ImageOps.fit(image.convert("RGB"), (SIZE, SIZE), method=Image.Resampling.BICUBIC))

    measure(benchmark, "images", IMAGES, read)


@pytest.mark.parametrize("device", DEVICES)
def test_image_bank(benchmark, folder, device):
    bank = ImageBank(ImageFolder(folder, SIZE), device)
    ids = torch.randint(0, 10**6, (256,))

    def get():
        bank.get(ids)
        if device == "cuda":
            torch.cuda.synchronize()

    measure(benchmark, "images", len(ids), get)


@pytest.mark.parametrize("device", DEVICES)
def test_a_plain_gather(benchmark, device):
    """Lower bound for the bank: gather the same bytes with one index operation."""
    images = torch.zeros(IMAGES, 3, SIZE, SIZE, dtype=torch.uint8, device=device)
    rows = torch.randint(0, IMAGES, (256,), device=device)

    def get():
        images[rows]
        if device == "cuda":
            torch.cuda.synchronize()

    measure(benchmark, "images", len(rows), get)


def test_video_clips(benchmark, videos):
    source = VideoClips(videos, 16, 4, SIZE)
    measure(benchmark, "clips", VIDEOS, lambda: source.get(torch.arange(VIDEOS)))


def test_videos_by_plain_pyav(benchmark, videos):
    """Decode from the start of each video, as a loop without a frame index must; same start frames."""
    source = VideoClips(videos, 16, 4, SIZE)
    latest = 250 - 61

    def read():
        for k, path in enumerate(source.paths):
            start = k * latest // VIDEOS
            with av.open(str(path)) as container:
                for t, frame in enumerate(container.decode(video=0)):
                    if t >= start and (t - start) % 4 == 0:
                        ImageOps.fit(frame.to_image(), (SIZE, SIZE), method=Image.Resampling.BICUBIC)
                    if t >= start + 60:
                        break

    measure(benchmark, "clips", VIDEOS, read)
