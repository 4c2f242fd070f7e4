"""``pmg-bank``: decode images once, into a file that training maps into memory."""

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from pseudomotion.images import ImageFolder, ImageSource, VideoFrames
from pseudomotion.images.bank import write_bank
from pseudomotion.images.synthetic import SOURCES


def main(arguments: Sequence[str] | None = None) -> int:
    """``pmg-bank``; returns its exit code."""
    options = _parser().parse_args(arguments)
    warnings.formatwarning = lambda message, *_, **__: f"pmg-bank: {message}\n"  # without the line of code that warned
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        path = Path(options.out)
        source = _open(options)
        skipped = write_bank(source, path, num_workers=options.num_workers)
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        return _end("interrupted, nothing written", 128 + number)
    except (OSError, ValueError, ImportError) as error:
        return _end(str(error), 2)
    finally:
        signal.signal(signal.SIGTERM, previous)
    print(f"{path}: {len(source)} images, {path.stat().st_size / 1e9:.3g} GB, {len(skipped)} files skipped")  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pmg-bank",
        description="Decode images once, into a file that training maps into memory: pmg-pretrain --images FILE.",
    )
    parser.add_argument("out", metavar="OUT", help="file to write, such as bank.safetensors")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--images", metavar="FOLDER", help="all images of a folder; the folders in it are their classes")
    given.add_argument("--videos", metavar="LIST", help='a random frame of every video of a list, lines of "path label"')
    given.add_argument("--source", choices=tuple(SOURCES), help="synthetic images")
    parser.add_argument("--image-size", type=int, default=256, metavar="PX", help="side of the images in pixels (default: 256)")
    parser.add_argument("--balanced", action="store_true", help="draw images from all classes alike in training (paper, section 4)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="selects the frames of videos (default: 0)")
    parser.add_argument(
        "--num-workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes that decode (default: all cores)"
    )
    return parser


def _open(options: argparse.Namespace) -> ImageSource:
    if options.num_workers < 0:
        raise ValueError(f"--num-workers must be at least 0, got {options.num_workers}")
    if options.source:
        return SOURCES[options.source](size=options.image_size)
    if options.videos:
        return VideoFrames(options.videos, options.image_size, seed=options.seed)
    return ImageFolder(options.images, options.image_size, balanced=options.balanced)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


def _end(message: str, code: int) -> int:
    print(f"pmg-bank: {message}", file=sys.stderr)  # noqa: T201
    return code
