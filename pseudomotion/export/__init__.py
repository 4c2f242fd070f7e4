"""``pmg-export``: write clips as files that other people's tools read.

This module only parses the command line; ``work`` does what it asks for. In Python: ``Export`` and ``Settings`` say what to write,
``prepare`` makes the folder, ``Export.write`` or ``run`` writes it shard by shard, and ``write_list`` the list of all clips.
"""

import argparse
import importlib
import os
import re
import typing
from collections.abc import Sequence

from pseudomotion import command, names
from pseudomotion.export import settings
from pseudomotion.export.settings import Settings

if typing.TYPE_CHECKING:
    from pseudomotion.export.job import Export
    from pseudomotion.export.lists import write_card, write_list
    from pseudomotion.export.plans import Planned, load_plans, resize_plan, select_clips
    from pseudomotion.export.runner import prepare, run

__all__ = [
    "Export",
    "Planned",
    "Settings",
    "load_plans",
    "main",
    "prepare",
    "resize_plan",
    "run",
    "select_clips",
    "write_card",
    "write_list",
]

_HOMES = {
    "job": ("Export",),
    "lists": ("write_card", "write_list"),
    "plans": ("Planned", "load_plans", "resize_plan", "select_clips"),
    "runner": ("prepare", "run"),
}

if not typing.TYPE_CHECKING:

    def __getattr__(name):
        """Import a public name on first use (PEP 562), so that the command answers ``--help`` without waiting for torch."""
        for home, public in _HOMES.items():
            if name in public:
                return getattr(importlib.import_module(f"{__name__}.{home}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    return command.run("pmg-export", lambda: _export(options, arguments))


def _export(options: argparse.Namespace, arguments: Sequence[str] | None) -> None:
    with command.loading("pmg-export"):
        from pseudomotion.export.work import export
    export(options, arguments)


def _parser() -> command.Parser:
    parser = command.Parser(
        prog="pmg-export",
        usage="%(prog)s (--images PATH ... | --videos LIST | --source NAME) --clips N --out FOLDER [options]",
        description="Write pseudo-motion clips as files: videos with a list of them, or WebDataset tar shards, and their exact motion. "
        "The same command resumes where it was stopped.",
    )
    count = command.number(int, at_least=1)

    given = parser.add_argument_group("images").add_mutually_exclusive_group(required=True)
    given.add_argument(
        "--images",
        nargs="+",
        metavar="PATH",
        help="image files; or folders, banks of pmg-bank, uncompressed tar shards, data sets that datasets saved, hf:NAME or hf:NAME:SPLIT",
    )
    given.add_argument("--videos", metavar="LIST", help='a random frame of every video of a list, lines of "path label"')
    given.add_argument("--source", choices=names.SOURCES, metavar="NAME", help=f"generate them: {', '.join(names.SOURCES)}")
    images = parser.add_argument_group()
    images.add_argument("--image-size", type=count, metavar="PX", help="side of the images (default: 8/7 of the frame's longer side)")
    images.add_argument("--balanced", action="store_true", help="draw images from all classes equally")

    motion = parser.add_argument_group("motion")
    motion.add_argument("--transforms", default="zoom,affine", metavar="NAMES", help="comma-separated (default: %(default)s, the paper's)")
    motion.add_argument("--frames", type=count, default=16, metavar="T", help="frames per clip (default: 16)")
    motion.add_argument("--size", type=_size, default=(224, 224), metavar="PX", help="frame size: side, or HEIGHTxWIDTH (default: 224)")
    motion.add_argument("--seed", type=command.number(int), default=0, metavar="N", help="seed of motion and order (default: 0)")
    motion.add_argument(
        "--resampling",
        choices=names.RESAMPLINGS,
        default="recursive",
        help="recursive: affine and perspective warp the previous frame, as in the paper; composed: every frame is sampled from the image, "
        "sharp (default: recursive)",
    )
    motion.add_argument("--padding-mode", choices=names.PADDING_MODES, default="zeros", help="outside the image (default: zeros, black)")
    motion.add_argument(
        "--crop",
        type=command.number(float, at_least=0, at_most=1),
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="start from a random window of this share of the image's area (default: the largest window)",
    )
    motion.add_argument("--mix", choices=["mixup", "videomix"], help="mix every clip with that of another image")
    motion.add_argument(
        "--objects",
        choices=names.OBJECTS,
        help="objects that move over every clip: mixed outlines, those of a published generator, or cutouts of --textures (default: none)",
    )
    motion.add_argument(
        "--textures",
        nargs="+",
        metavar="SOURCE",
        help="what objects show: as --images but single files, or a synthetic source; cutouts need images with alpha, such as PNG files "
        "(default: parts of other images)",
    )
    motion.add_argument("--num-textures", type=count, default=256, metavar="N", help="textures, drawn by --seed, at most (default: 256)")
    motion.add_argument(
        "--exposure",
        type=command.number(float, at_least=0, at_most=1),
        default=0.0,
        metavar="SHARE",
        help="motion blur: average every frame over this share of the frame interval (default: 0, none)",
    )
    motion.add_argument(
        "--subframes",
        type=command.number(int, at_least=1, at_most=64),
        default=4,
        metavar="N",
        help="instants that --exposure averages; the cost of rendering grows with it (default: 4)",
    )

    what = parser.add_argument_group("clips")
    what.add_argument("--clips", type=count, required=True, metavar="N", help="number of clips")
    what.add_argument("--first", type=command.number(int, at_least=0), default=0, metavar="N", help="number of the first (default: 0)")
    what.add_argument("--format", choices=settings.FORMATS, default="mp4", help="H.264 video, or an image per frame (default: mp4)")
    what.add_argument("--fps", type=command.number(float, at_least=0.1, at_most=240), default=12.0, metavar="RATE", help="(default: 12)")
    what.add_argument(
        "--crf", type=command.number(int, at_least=0, at_most=51), default=18, metavar="N", help="H.264: 0 best, 51 worst (default: 18)"
    )
    what.add_argument("--preset", choices=settings.PRESETS, default="veryfast", metavar="NAME", help="of x264 (default: veryfast)")
    what.add_argument(
        "--pixel-format",
        choices=settings.PIXEL_FORMATS,
        default="yuv420p",
        help="yuv444p keeps the color of every pixel; fewer decoders read it (default: yuv420p)",
    )
    what.add_argument(
        "--quality", type=command.number(int, at_least=0, at_most=100), default=90, metavar="N", help="WebP: 100 is lossless (default: 90)"
    )
    what.add_argument(
        "--label", choices=settings.LABELS, default="transform", help="transform, the image's class, or 0 (default: transform)"
    )
    what.add_argument(
        "--annotations", type=_names, default=(), metavar="NAMES", help=f"exact motion, comma-separated: {', '.join(settings.ANNOTATIONS)}"
    )
    what.add_argument(
        "--flow-format", choices=settings.FLOW_FORMATS, default="npz", help="float16, Middlebury's .flo, or KITTI's PNG (default: npz)"
    )

    where = parser.add_argument_group("files")
    where.add_argument("--out", type=command.path, required=True, metavar="FOLDER", help="new, empty, or that of an export to resume")
    where.add_argument("--shards", type=count, metavar="N", help="WebDataset tar files of N clips each, instead of folders")
    where.add_argument(
        "--folder", type=command.number(int, at_least=1, at_most=1000), default=1000, metavar="N", help="clips per folder (default: 1000)"
    )
    where.add_argument("--relative", action="store_true", help="paths in train.csv start from its folder (default: absolute)")
    where.add_argument("--huggingface", action="store_true", help="also write a dataset card and a parquet index")
    where.add_argument("--verify", action="store_true", help="write nothing; check that the whole export is there and can be decoded")

    work = parser.add_argument_group("work")
    work.add_argument("--part", type=_part, default=(1, 1), metavar="I/N", help="write only part I of N, from 1/N to N/N, for several jobs")
    work.add_argument("--workers", type=count, default=_cores(), metavar="N", help="processes (default: the cores, %(default)s)")
    work.add_argument("--device", default="cpu", help="where clips are rendered, such as cuda (default: cpu)")
    work.add_argument("--batch-size", type=count, default=32, metavar="N", help="clips rendered at a time (default: 32)")
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match or not int(match[1]) or (match[2] and not int(match[2])):
        raise argparse.ArgumentTypeError(f"must be a side in pixels, such as 224, or HEIGHTxWIDTH, such as 240x320, got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"must be I/N, from 1/N to N/N, such as 3/64, got {text!r}")
    return int(match[1]), int(match[2])


def _names(text: str) -> tuple[str, ...]:
    chosen = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := [name for name in chosen if name not in settings.ANNOTATIONS]:
        raise argparse.ArgumentTypeError(f"must be some of {', '.join(settings.ANNOTATIONS)}, got {', '.join(unknown)}")
    return chosen


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
