"""The work of ``pmg-preview``: make the clips, lay them out, and write them."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from tqdm import tqdm

from pseudomotion import command
from pseudomotion.dataset import needs_partners
from pseudomotion.files import MADE_BY, check_input, check_output, whole_file
from pseudomotion.images import builtin_picture, load_image, load_textures
from pseudomotion.images.synthetic import SOURCES
from pseudomotion.labels.overlay import SHOWS
from pseudomotion.pmg import PMG, RESAMPLINGS
from pseudomotion.transforms import TRANSFORMS
from pseudomotion.video import write_video
from pseudomotion.video.write import LARGEST_SIDE

__all__ = ["preview"]

GAP = 6
LABEL = 20
COLUMNS = 4
TEXTURES = 64  # at most
BACKGROUND, INK = (24, 24, 27), (228, 228, 231)

# The longest side that a format can hold, and the largest area that Pillow opens again.
SIDES = {".mp4": LARGEST_SIDE, ".gif": 65535, ".webp": 16383, ".png": 2**31 - 1}
MOST_PIXELS = 178_956_970
# Milliseconds: in what steps a format counts the delay of a frame, and the least that browsers respect (they take 100 for anything below).
DELAYS = {".gif": (10, 20), ".webp": (1, 11)}
SOFTWARE = 0x0131  # EXIF tag

Picture = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Tile:
    """A clip to show."""

    label: str
    frames: UInt8[np.ndarray, "T h w 3"]


def preview(options: argparse.Namespace) -> None:
    """Make the clips and write them.

    Raises:
        ValueError: for options that make no picture, or one that is too large for its format.
        OSError: if the image cannot be read, or the output not be written.

    """
    suffix = Path(options.out).suffix.lower()
    if suffix not in SIDES:
        forgotten = options.image is None and Path(options.out).is_file()
        remedy = f"; {_name_the_output(options.out)}" if forgotten else ""
        raise ValueError(f'cannot write "{options.out}": the name must end in {", ".join(SIDES)}{remedy}')
    if options.image is not None:
        check_input(options.image)
        if options.source:
            raise ValueError(f"--source makes the images, so there is nothing to do with {options.image}: leave out one of them")
    out = _check_output(options)
    command.check_textures(options.objects, options.textures)
    names = _transforms(options)
    resamplings = RESAMPLINGS if options.resampling == "both" else (options.resampling,)
    generators = [_generator(name, resampling, options) for name in names for resampling in resamplings]
    count = len(generators) * options.samples
    if suffix == ".png":
        rows, columns = count, options.frames
    else:
        columns = len(resamplings) * options.samples if options.samples > 1 else min(COLUMNS, count)
        rows = -(-count // columns)
    _check_size(out, rows, columns, options)
    textures = None
    if options.textures is not None:
        textures = load_textures(options.textures, options.size, limit=TEXTURES, alpha=options.objects == "cutouts")
    tiles = _make_tiles(_images(options), textures, generators, len(resamplings), options)
    if suffix == ".png":
        _save(out, [_sheet(tiles, labels=options.labels)], pnginfo=_png_info())
        return
    frames = _loop(tiles, options.frames, columns, labels=options.labels)
    if suffix == ".mp4":
        write_video(out, frames, fps=options.fps, comment=MADE_BY)
    else:
        _animate(out, frames, options.fps)


def _transforms(options: argparse.Namespace) -> list[str]:
    """The names of the transforms. Cutmix shows images in layers of its own, so it cannot be beside textures."""
    if options.transforms is None:
        return [name for name in TRANSFORMS if name != "cutmix" or options.textures is None]
    names = [name.strip() for name in options.transforms.split(",") if name.strip()]
    if not names:
        raise ValueError("--transforms names no transform")
    return names


def _check_output(options: argparse.Namespace) -> Path:
    """The file to write, which must not be somebody's picture: a forgotten second argument makes the first the output."""
    try:
        return check_output(options.out, inputs=[options.image] if options.image else [], force=options.force)
    except FileExistsError as error:
        if options.image is not None or options.source:
            raise
        raise FileExistsError(f"{error}; {_name_the_output(options.out)}") from error


def _name_the_output(image: str) -> str:
    return f"to see the motion of {image}, name the output too: pmg-preview {image} out.mp4"


def _check_size(out: Path, rows: int, columns: int, options: argparse.Namespace) -> None:
    h, w = _canvas_size(rows, columns, options.size, options.size, labels=options.labels)
    if out.suffix.lower() == ".png":
        remedy = "--size, --frames, --samples or fewer --transforms"
    else:
        remedy = "--size, --samples or fewer --transforms"
    most = SIDES[out.suffix.lower()]
    if max(h, w) > most or h * w > MOST_PIXELS:
        limit = f"{most} pixels on a side" if max(h, w) > most else f"{MOST_PIXELS // 10**6} million pixels"
        raise ValueError(f"cannot write {out}: it would be {w} x {h} pixels, and {limit} is the most: take a smaller {remedy}")


def _generator(name: str, resampling: str, options: argparse.Namespace) -> PMG:
    return PMG(
        (name,),
        options.frames,
        options.size,
        resampling=resampling,
        padding_mode=options.padding_mode,
        objects=options.objects,
        exposure=options.exposure,
        subframes=8,
        seed=options.seed,
    )


def _images(options: argparse.Namespace) -> UInt8[Tensor, "samples 3 H W"]:
    """An image for every sample: the same one, or those of a synthetic source."""
    if options.source:
        return SOURCES[options.source](size=options.size).get(torch.arange(options.samples))
    image = load_image(options.image) if options.image is not None else builtin_picture()
    return image.expand(options.samples, -1, -1, -1)


def _make_tiles(
    images: UInt8[Tensor, "samples 3 H W"],
    textures: UInt8[Tensor, "M C H W"] | None,
    generators: Sequence[PMG],
    resamplings: int,
    options: argparse.Namespace,
) -> list[Tile]:
    """A clip of every transform, sample and resampling, in the order they are shown; generators of a transform stand beside each other."""
    tiles = []
    with tqdm(total=len(generators) * options.samples, desc="clips", unit="clip", delay=2, leave=False) as bar:
        for first in range(0, len(generators), resamplings):
            for sample in range(options.samples):
                for pmg in generators[first : first + resamplings]:
                    tiles.append(Tile(_label(pmg, sample, options), _clip(pmg, images[sample], sample, options.show, textures)))
                    bar.update()
    return tiles


def _clip(
    pmg: PMG,
    image: UInt8[Tensor, "3 H W"],
    sample: int,
    show: str | None = None,
    textures: UInt8[Tensor, "M C H W"] | None = None,
) -> UInt8[np.ndarray, "T h w 3"]:
    """One clip. What shows a second image shows the built-in picture at night, which is easy to tell from most images."""
    partners = needs_partners(pmg, textures)
    images = torch.stack([image, builtin_picture(*image.shape[-2:], night=True)]) if partners else image[None]
    ids = torch.arange(len(images)) + len(images) * sample
    plan = pmg.plan(images.shape, ids=ids, textures=None if textures is None else textures.shape)
    frames = pmg.render(images, plan, textures=textures)[0].permute(1, 2, 3, 0).numpy()
    return SHOWS[show](frames, plan, 0, textures) if show else frames


def _label(pmg: PMG, sample: int, options: argparse.Namespace) -> str:
    parts = [pmg.transforms[0].name]
    if options.samples > 1:
        parts.append(f"#{sample + 1}")
    if options.resampling == "both":
        parts.append(pmg.resampling)
    return " ".join(parts)


def _canvas_size(rows: int, columns: int, h: int, w: int, *, labels: bool) -> tuple[int, int]:
    """Height and width of a grid of frames."""
    return rows * ((LABEL if labels else 0) + h + GAP) + GAP, columns * (w + GAP) + GAP


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
    canvas, draw = _canvas(*_canvas_size(len(tiles), t, h, w, labels=labels))
    for row, tile in enumerate(tiles):
        top = GAP + row * (strip + h + GAP)
        if labels:
            _write(draw, (GAP, top), tile.label, canvas.width - 2 * GAP)
        for k, frame in enumerate(tile.frames):
            canvas.paste(Image.fromarray(frame), (GAP + k * (w + GAP), top + strip))
    return np.array(canvas)


def _loop(tiles: Sequence[Tile], num_frames: int, columns: int, *, labels: bool) -> Iterator[Picture]:
    """All clips side by side, T frames forward and then backward, so that the animation loops without a jump."""
    _, h, w, _ = tiles[0].frames.shape
    strip = LABEL if labels else 0
    rows = -(-len(tiles) // columns)
    canvas, draw = _canvas(*_canvas_size(rows, columns, h, w, labels=labels))
    places = [(GAP + i % columns * (w + GAP), GAP + i // columns * (strip + h + GAP)) for i in range(len(tiles))]
    if labels:
        for tile, place in zip(tiles, places, strict=True):
            _write(draw, place, tile.label, w)
    for k in tqdm([*range(num_frames), *range(num_frames - 2, 0, -1)], desc="writing", unit="frame", delay=2, leave=False):
        for tile, (left, top) in zip(tiles, places, strict=True):
            canvas.paste(Image.fromarray(tile.frames[k]), (left, top + strip))
        yield np.array(canvas)


def _animate(out: Path, frames: Iterable[Picture], fps: float) -> None:
    """Write an endless animation."""
    pictures = list(frames)
    suffix = out.suffix.lower()
    shown, delays = _delays(len(pictures), fps, *DELAYS[suffix])
    exif = Image.Exif()
    exif[SOFTWARE] = MADE_BY
    mark: dict[str, Any] = {"comment": MADE_BY} if suffix == ".gif" else {"exif": exif}
    _save(out, [pictures[k] for k in shown], save_all=True, duration=delays, loop=0, **mark)


def _delays(count: int, fps: float, step: int, least: int) -> tuple[list[int], list[int]]:
    """Which of ``count`` frames to show, and for how many milliseconds each: multiples of ``step``, at least ``least``, of the right sum.

    Frames are left out, evenly, where all of them would be too fast.
    """
    length = 1000 * count / fps
    number = max(1, min(count, int(length / least)))
    edges = [round(k * length / number / step) * step for k in range(number + 1)]
    return [k * count // number for k in range(number)], [max(least, after - before) for before, after in pairwise(edges)]


def _save(out: Path, pictures: Iterable[Picture], **options: Any) -> None:
    """Write a picture or an animation with Pillow, whole or not at all."""
    first, *rest = map(Image.fromarray, pictures)
    with whole_file(out) as temporary:
        first.save(temporary, append_images=rest, **options)


def _png_info() -> PngInfo:
    info = PngInfo()
    info.add_text("Software", MADE_BY)
    return info
