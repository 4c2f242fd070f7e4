"""``pmg-bank``: decode images once, into a file that training maps into memory."""

import argparse
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pseudomotion import command, names
from pseudomotion.files import check_output

if TYPE_CHECKING:
    from pseudomotion.images import ImageSource


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parse(arguments)
    warnings.formatwarning = lambda message, *_, **__: f"pmg-bank: {message}\n"  # without the line of code that warned
    return command.run("pmg-bank", lambda: _make(options))


def _make(options: argparse.Namespace) -> None:
    with command.loading("pmg-bank"):
        from pseudomotion.images.bank import write_bank, write_bank_of_shards
        from pseudomotion.images.entries import is_stream, open_shards
    path = check_output(options.out, inputs=[options.videos] if options.videos else [], force=options.force)
    if any(map(is_stream, options.images or ())):
        if options.balanced or options.classes is not None:
            raise ValueError("--balanced and --classes cannot be used with streams, which are read from front to back")
        if options.alpha:
            raise ValueError("--alpha cannot be used with streams")
        shards = open_shards(options.images, options.image_size)
        count, skipped = write_bank_of_shards(shards, path, limit=options.limit, num_workers=options.num_workers)
        if skipped:
            warnings.warn("\n".join([f"skipped {len(skipped)} broken images:", *(f"  {text}" for text in skipped.values())]), stacklevel=2)
    else:
        source = _open(options)
        count, skipped = len(source), write_bank(source, path, num_workers=options.num_workers)
    print(f"{path}: {count} images, {path.stat().st_size / 1e9:.3g} GB, {len(skipped)} files skipped")  # noqa: T201


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options. OUT may also be the last word after ``--images``, which takes all words that it gets."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.out is None:
        if options.images is None or len(options.images) < 2:
            parser.error("the following arguments are required: OUT")
        options.out = options.images.pop()
    return options


def _parser() -> command.Parser:
    parser = command.Parser(
        prog="pmg-bank",
        usage="%(prog)s OUT (--images SOURCE ... | --videos LIST | --source NAME) [options]",
        description="Decode images once, into a file that training maps into memory: pmg-pretrain --images FILE.",
    )
    count = command.number(int, at_least=1)
    parser.add_argument("out", nargs="?", metavar="OUT", help="file to write, such as bank.safetensors")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument(
        "--images",
        action="extend",
        nargs="+",
        metavar="SOURCE",
        help="one or more of: a folder, whose folders are classes; uncompressed tar shards such as shards-{000..099}.tar; a dataset of "
        "Hugging Face, hf:name or hf:name:split, or the folder of one saved to disk; or a stream: remote shards, stream: and compressed "
        "shards, stream:hf:name",
    )
    given.add_argument("--videos", metavar="LIST", help='a random frame of every video of a list, lines of "path label"')
    given.add_argument("--source", choices=names.SOURCES, metavar="NAME", help=f"synthetic images: {', '.join(names.SOURCES)}")
    parser.add_argument("--image-size", type=count, default=256, metavar="PX", help="side of the images in pixels (default: 256)")
    parser.add_argument("--alpha", action="store_true", help="keep alpha: cut-outs, for --textures of --objects cutouts")
    parser.add_argument("--balanced", action="store_true", help="in training, draw images from all classes equally (paper, section 4)")
    parser.add_argument(
        "--seed", type=command.number(int), default=0, metavar="N", help="seed for frames of videos, --limit and --classes (default: 0)"
    )
    parser.add_argument(
        "--limit",
        type=count,
        metavar="N",
        help="number of images, drawn by --seed from all classes equally; of streams, the first (default: all)",
    )
    parser.add_argument("--classes", type=count, metavar="N", help="number of classes, drawn by --seed (default: all)")
    parser.add_argument(
        "--num-workers",
        type=command.number(int, at_least=0),
        default=os.cpu_count(),
        metavar="N",
        help="processes that decode, for streams threads (default: the cores)",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT even if it is no bank")
    return parser


def _open(options: argparse.Namespace) -> "ImageSource":
    from pseudomotion.images.entries import open_source
    from pseudomotion.images.subset import Subset

    how = {"seed": options.seed, "balanced": options.balanced, "alpha": options.alpha}
    source = open_source(options.images, options.source, options.videos, options.image_size, **how)
    if options.limit is None and options.classes is None:
        return source
    return Subset(source, options.limit, options.seed, classes=options.classes)
