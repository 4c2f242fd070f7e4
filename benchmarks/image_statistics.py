"""Contact sheets and statistics of synthetic images and of photos: ``python -m benchmarks.image_statistics``.

Writes ``synthetic_<source>.jpg`` to a folder and prints the tables in ``docs/synthetic.md``. None of the measures is from the paper.
"""

import argparse
import math
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from pseudomotion import PMG
from pseudomotion.images import load_image
from pseudomotion.images.synthetic import SOURCES
from pseudomotion.trackability import trackability

Images = UInt8[Tensor, "B 3 h w"]
FRAMES = (2, 8, 16)


def filling_rate(images: Images) -> float:
    """Fraction of pixels that are not black."""
    return float((images.amax(1) > 0).float().mean())


def spectral_exponent(images: Images) -> float:
    """Exponent a of an amplitude spectrum that falls as 1 / f**a, from a log-log fit to radial means of the power.

    Frequencies range from 4 to n / 3 cycles per image, for images of n x n pixels.
    """
    gray = images.double().mean(1) / 255
    n = gray.shape[-1]
    window = torch.hann_window(n, periodic=False, dtype=torch.float64)
    spectrum = torch.fft.fft2((gray - gray.mean((1, 2), keepdim=True)) * window * window[:, None]).abs().square()
    cycles = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    ring = torch.hypot(cycles[:, None], cycles).round().long().flatten()
    counts = ring.bincount()
    power = torch.zeros(len(gray), len(counts), dtype=torch.float64).index_add_(1, ring, spectrum.flatten(1)) / counts
    f = torch.arange(4, n // 3)
    x = f.double().log() - f.double().log().mean()
    y = power[:, f].clamp(min=1e-12).log() / 2
    return float(-(x * (y - y.mean(1, keepdim=True))).sum(1).div(x.square().sum()).mean())


def edge_density(images: Images) -> float:
    """Fraction of pixels where the gray gradient exceeds 0.05 of the range per pixel (central differences)."""
    gray = images.float().mean(1) / 255
    across, down = (gray[:, 1:-1, 2:] - gray[:, 1:-1, :-2]) / 2, (gray[:, 2:, 1:-1] - gray[:, :-2, 1:-1]) / 2
    return float((torch.hypot(across, down) > 0.05).float().mean())


def color_spread(images: Images) -> float:
    """Standard deviation of the opponent colors red-green and yellow-blue combined, in levels, mean over images."""
    r, g, b = images.float().flatten(2).unbind(1)
    return float(((r - g).var(1) + ((r + g) / 2 - b).var(1)).sqrt().mean())


def entropy(images: Images) -> float:
    """Entropy of the histogram of 256 gray levels, in bits per pixel, mean over images."""
    gray = images.float().mean(1).round().long().flatten(1)
    share = F.one_hot(gray, 256).double().mean(1)
    return float(-(share * share.clamp(min=1e-12).log2()).sum(1).mean())


def tracked(images: Images, clips: int) -> list[float]:
    """Mean trackability in frames 2, 8 and 16 of PMG's default clips, with the same motion for all sources."""
    pmg = PMG()
    repeated = images[torch.arange(clips) % len(images)]
    plan = pmg.plan(repeated.shape, ids=torch.arange(clips))
    return trackability(pmg.render(repeated, plan), plan, frames=FRAMES).nanmean(0).tolist()


def photo(path: Path, size: int) -> UInt8[Tensor, "1 3 size size"]:
    """The largest centered square of a photo, resized to ``size``."""
    image = load_image(path)[None].float()
    side = min(image.shape[-2:])
    top, left = ((full - side) // 2 for full in image.shape[-2:])
    square = F.interpolate(image[..., top : top + side, left : left + side], (size, size), mode="bilinear", antialias=True)
    return square.round().clamp(0, 255).to(torch.uint8)


def sheet(images: Images, side: int) -> Image.Image:
    """A contact sheet of the images, eight per row."""
    small = F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
    rows = small.reshape(-1, 8, 3, side, side).permute(0, 3, 1, 4, 2).reshape(-1, 8 * side, 3)  # (B / 8 * side, 8 * side, 3)
    return Image.fromarray(rows.numpy())


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Write the contact sheets and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder for the contact sheets (default: %(default)s)")
    parser.add_argument("--photos", type=Path, help="folder of photos to measure too")
    parser.add_argument("--clips", type=int, default=32, help="number of clips for trackability (default: %(default)s)")
    parser.add_argument("--sources", default=",".join(SOURCES), help="comma-separated sources to measure (default: %(default)s)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    sets = {}
    for name in options.sources.split(","):
        source = SOURCES[name]()
        ids = torch.arange(64)
        # The extra ``+ ids`` changes the instance as well as the category from image to image.
        sets[name] = source.get(ids if source.endless else ids * (len(source) // 64) + ids)
        sheet(sets[name], 112).save(options.out / f"synthetic_{name}.jpg", quality=80, optimize=True)
    if options.photos:
        paths = sorted(p for p in options.photos.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
        sets["photos"] = torch.cat([photo(path, 224) for path in paths])
        sets |= {f"- {path.stem}": photo(path, 224) for path in paths}

    measures = (filling_rate, spectral_exponent, edge_density, color_spread, entropy)
    header = ["images", "filling rate", "spectral exponent", "edge density", "color spread", "entropy, bits"]
    print(table(header, ([name, *(f"{measure(images):.2f}" for measure in measures)] for name, images in sets.items())))
    print()
    rows = []
    for name, images in sets.items():
        if not name.startswith("- "):
            shares = tracked(images, options.clips)
            rows.append([name, *("-" if math.isnan(share) else f"{share:.2f}" for share in shares)])
    print(table(["images", *(f"frame {frame}" for frame in FRAMES)], rows))


if __name__ == "__main__":
    main()
