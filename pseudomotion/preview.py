"""``pmg-preview``: look at the motion that every transform makes of an image."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from pseudomotion.files import whole_file
from pseudomotion.images import builtin_picture, load_image
from pseudomotion.images.synthetic import SOURCES
from pseudomotion.labels.overlay import SHOWS
from pseudomotion.plan import PADDING_MODES
from pseudomotion.pmg import PMG, RESAMPLINGS
from pseudomotion.transforms import TRANSFORMS
from pseudomotion.video import write_video

SUFFIXES = (".mp4", ".gif", ".webp", ".png")
GAP = 6
LABEL = 20
COLUMNS = 4
BACKGROUND, INK = (24, 24, 27), (228, 228, 231)

Picture = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Tile:
    """A clip to show."""

    label: str
    frames: UInt8[np.ndarray, "T h w 3"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        preview(options)
    except KeyboardInterrupt:
        print("pmg-preview: interrupted, nothing written", file=sys.stderr)  # noqa: T201
        return 130
    except (OSError, ValueError) as error:
        print(f"pmg-preview: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pmg-preview",
        description="Show the pseudo-motion clips that each transform makes of an image, as a video or a contact sheet.",
    )
    parser.add_argument("image", nargs="?", help="image file; a built-in picture if not given")
    parser.add_argument("out", help=f"file to write: {', '.join(SUFFIXES)} (.png is a sheet, one row per clip, one column per frame)")
    parser.add_argument("--source", choices=SOURCES, help="make the images, another one for every sample, in place of reading one")
    parser.add_argument("--transforms", default=",".join(TRANSFORMS), help="comma-separated (default: all: %(default)s)")
    parser.add_argument("--samples", type=_at_least_one, default=1, metavar="N", help="clips per transform (default: 1)")
    parser.add_argument("--frames", type=_at_least_one, default=16, metavar="T", help="frames per clip (default: 16)")
    parser.add_argument("--size", type=_at_least_one, default=224, metavar="PX", help="side of a frame in pixels (default: 224)")
    parser.add_argument("--fps", type=_rate, default=12.0, help="frames per second (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other motion (default: 0)")
    parser.add_argument("--resampling", choices=[*RESAMPLINGS, "both"], default="recursive", help="both: side by side (default: recursive)")
    parser.add_argument("--padding-mode", choices=PADDING_MODES, default="zeros", help="what shows outside the image (default: zeros)")
    parser.add_argument("--show", choices=SHOWS, help="draw the exact motion over the clips")
    parser.add_argument("--no-labels", dest="labels", action="store_false", help="leave out the names above the clips")
    return parser


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _rate(text: str) -> float:
    if not 0.1 <= (number := float(text)) <= 240:
        raise argparse.ArgumentTypeError(f"must be from 0.1 to 240, got {text}")
    return number


def preview(options: argparse.Namespace) -> None:
    """Make the clips and write them."""
    out = Path(options.out)
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"cannot write {out}: the name must end in {', '.join(SUFFIXES)}")
    if not out.parent.is_dir():  # found out now, not after the work is done
        raise FileNotFoundError(f"cannot write {out}: there is no folder {out.parent}")
    names = [name.strip() for name in options.transforms.split(",") if name.strip()]
    if not names:
        raise ValueError("--transforms names no transform")
    images = _images(options)
    resamplings = RESAMPLINGS if options.resampling == "both" else (options.resampling,)
    tiles = _make_tiles(images, names, resamplings, options)
    if out.suffix.lower() == ".png":
        _save(out, [_sheet(tiles, labels=options.labels)])
        return
    columns = len(resamplings) * options.samples if options.samples > 1 else min(COLUMNS, len(tiles))
    frames = _loop(tiles, options.frames, columns, labels=options.labels)
    if out.suffix.lower() == ".mp4":
        write_video(out, frames, fps=options.fps)
    else:
        _save(out, frames, fps=options.fps)


def _images(options: argparse.Namespace) -> UInt8[Tensor, "samples 3 H W"]:
    """An image for every sample: the same one, or those of a synthetic source."""
    if options.source:
        if options.image:
            raise ValueError(f"--source makes the images, so there is nothing to do with {options.image}")
        return SOURCES[options.source](size=options.size).get(torch.arange(options.samples))
    image = load_image(options.image) if options.image else builtin_picture()
    return image.expand(options.samples, -1, -1, -1)


def _make_tiles(
    images: UInt8[Tensor, "samples 3 H W"], names: Sequence[str], resamplings: Sequence[str], options: argparse.Namespace
) -> list[Tile]:
    """A clip of every transform, sample and resampling, in the order they are shown."""
    tiles = []
    with tqdm(total=len(names) * options.samples * len(resamplings), desc="clips", unit="clip", delay=2, leave=False) as bar:
        for name in names:
            for sample in range(options.samples):
                for resampling in resamplings:
                    pmg = PMG(
                        (name,),
                        options.frames,
                        options.size,
                        resampling=resampling,
                        padding_mode=options.padding_mode,
                        seed=options.seed,
                    )
                    tiles.append(Tile(_label(name, resampling, sample, options), _clip(pmg, images[sample], sample, options.show)))
                    bar.update()
    return tiles


def _clip(pmg: PMG, image: UInt8[Tensor, "3 H W"], sample: int, show: str | None = None) -> UInt8[np.ndarray, "T h w 3"]:
    """One clip. A transform that needs a partner gets the image mirrored, so that its motion shows."""
    partners = pmg.transforms[0].num_layers > 0
    images = torch.stack([image, image.flip(-1)]) if partners else image[None]
    ids = torch.arange(len(images)) + len(images) * sample
    plan = pmg.plan(images.shape, ids=ids)
    frames = pmg.render(images, plan)[0].permute(1, 2, 3, 0).numpy()
    return SHOWS[show](frames, plan, 0) if show else frames


def _label(name: str, resampling: str, sample: int, options: argparse.Namespace) -> str:
    parts = [name]
    if options.samples > 1:
        parts.append(f"#{sample + 1}")
    if options.resampling == "both":
        parts.append(resampling)
    return " ".join(parts)


def _canvas(height: int, width: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    return canvas, ImageDraw.Draw(canvas)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    """Text in the largest size, up to 14, that fits the width."""
    size = next((s for s in (14, 13, 12, 11, 10, 9) if ImageFont.load_default(s).getlength(text) <= width), 8)
    draw.text(place, text, fill=INK, font=ImageFont.load_default(size))


def _sheet(tiles: Sequence[Tile], *, labels: bool) -> Picture:
    """One row per clip, one column per frame."""
    t, h, w, _ = tiles[0].frames.shape
    strip = LABEL if labels else 0
    canvas, draw = _canvas(len(tiles) * (strip + h + GAP) + GAP, t * (w + GAP) + GAP)
    for row, tile in enumerate(tiles):
        top = GAP + row * (strip + h + GAP)
        if labels:
            _write(draw, (GAP, top), tile.label, canvas.width - 2 * GAP)
        for k, frame in enumerate(tile.frames):
            canvas.paste(Image.fromarray(frame), (GAP + k * (w + GAP), top + strip))
    return np.array(canvas)


def _loop(tiles: Sequence[Tile], num_frames: int, columns: int, *, labels: bool) -> Iterator[Picture]:
    """Pictures of all clips beside each other, T frames forward and then backward, so that the last leads to the first again."""
    _, h, w, _ = tiles[0].frames.shape
    strip = LABEL if labels else 0
    rows = -(-len(tiles) // columns)
    canvas, draw = _canvas(rows * (strip + h + GAP) + GAP, columns * (w + GAP) + GAP)
    places = [(GAP + i % columns * (w + GAP), GAP + i // columns * (strip + h + GAP)) for i in range(len(tiles))]
    if labels:
        for tile, place in zip(tiles, places, strict=True):
            _write(draw, place, tile.label, w)
    for k in tqdm([*range(num_frames), *range(num_frames - 2, 0, -1)], desc="writing", unit="frame", delay=2, leave=False):
        for tile, (left, top) in zip(tiles, places, strict=True):
            canvas.paste(Image.fromarray(tile.frames[k]), (left, top + strip))
        yield np.array(canvas)


def _save(out: Path, frames: Iterable[Picture], *, fps: float | None = None) -> None:
    """Write one picture, or with ``fps`` an endless animation, with Pillow; whole or not at all."""
    first, *rest = map(Image.fromarray, frames)
    with whole_file(out) as temporary:
        if fps is None:
            first.save(temporary)
        else:
            first.save(temporary, save_all=True, append_images=rest, loop=0, duration=1000 / fps)
