"""``pmg-preview``: look at the clips that each transform makes of an image.

This module only parses the command line; ``clips`` does the work and imports what it takes.
"""

import argparse
from collections.abc import Sequence

from pseudomotion import command, names

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    return command.run("pmg-preview", lambda: _preview(options))


def _preview(options: argparse.Namespace) -> None:
    with command.loading("pmg-preview"):
        from pseudomotion.preview.clips import preview
    preview(options)


def _parser() -> command.Parser:
    parser = command.Parser(
        prog="pmg-preview",
        usage="%(prog)s [IMAGE] OUT [options]",
        description="Show the pseudo-motion clips that each transform makes of an image, as a video or a contact sheet. "
        "Videos and animations play forward, then backward, so that they loop without a jump.",
    )
    count = command.number(int, at_least=1)
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="image file (default: a built-in picture)")
    parser.add_argument(
        "out",
        metavar="OUT",
        help=f"file to write: {', '.join(names.PREVIEW_SUFFIXES)} (.png: a contact sheet, one row per clip, one column per frame)",
    )
    parser.add_argument(
        "--source",
        choices=names.SOURCES,
        metavar="NAME",
        help=f"generate the images, a different one per sample, instead of reading one: {', '.join(names.SOURCES)}",
    )
    parser.add_argument(
        "--transforms",
        metavar="NAMES",
        help=f"comma-separated; not from the paper: {', '.join(names.EXTRA_TRANSFORMS)} (default: the paper's: "
        f"{','.join(names.TRANSFORMS)}; with --textures without cutmix)",
    )
    parser.add_argument(
        "--objects",
        nargs="?",
        const="mixed",
        choices=names.OBJECTS,
        help="objects that move over the clips: mixed outlines, those of a published generator, or cutouts of --textures (not from the "
        "paper)",
    )
    parser.add_argument(
        "--textures",
        nargs="+",
        metavar="SOURCE",
        help="what objects show: a folder of images, a bank of pmg-bank, or a synthetic source; cutouts need images with alpha, such as "
        "PNG files (default: the built-in picture at night)",
    )
    parser.add_argument(
        "--exposure",
        type=command.number(float, at_least=0, at_most=1),
        default=0.0,
        metavar="SHARE",
        help="motion blur: the share of the time between two frames that each frame is exposed, 0 to 1 (not from the paper; default: 0)",
    )
    parser.add_argument("--samples", type=count, default=1, metavar="N", help="clips per transform (default: 1)")
    parser.add_argument("--frames", type=count, default=16, metavar="T", help="frames per clip (default: 16)")
    parser.add_argument("--size", type=count, default=224, metavar="PX", help="side of a frame in pixels (default: 224)")
    parser.add_argument(
        "--fps",
        type=command.number(float, at_least=0.1, at_most=240),
        default=12.0,
        metavar="RATE",
        help="frames per second (default: 12); a .gif shows at most 50, a .webp 90",
    )
    parser.add_argument("--seed", type=command.number(int), default=0, metavar="N", help="seed of the motion (default: 0)")
    parser.add_argument(
        "--resampling",
        choices=[*names.RESAMPLINGS, "both"],
        default="recursive",
        help="recursive: affine and perspective warp the previous frame, as in the paper; composed: every frame is sampled from the "
        "image, sharp; both: side by side (default: recursive)",
    )
    parser.add_argument(
        "--padding-mode", choices=names.PADDING_MODES, default="zeros", help="what shows outside the image (default: zeros, black)"
    )
    parser.add_argument("--show", choices=names.SHOWS, help="draw the exact motion over the clips")
    parser.add_argument("--no-labels", dest="labels", action="store_false", help="leave out the names above the clips")
    parser.add_argument("--force", action="store_true", help="replace an existing file that pmg-preview did not make")
    return parser
