"""``pmg-play``: look at the motion of an image in the browser, and copy the code that makes it.

This module only parses the command line; ``server`` does the work and imports what it takes.
"""

import argparse
from collections.abc import Sequence

from pseudomotion import command

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = command.Parser(
        prog="pmg-play",
        usage="%(prog)s [IMAGE] [options]",
        description="Open a page in the browser that shows the clips of an image while you change their options, and the code that makes "
        "them. It needs no network. Ctrl-C ends it.",
    )
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="image file to begin with (default: a built-in picture)")
    parser.add_argument("--port", type=command.number(int, at_least=0, at_most=65535), default=8224, help="0: any (default: 8224)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; any other than the default lets other machines in, without a password (default: 127.0.0.1)",
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    options = parser.parse_args(arguments)
    return command.run("pmg-play", lambda: _play(options))


def _play(options: argparse.Namespace) -> None:
    with command.loading("pmg-play"):
        from pseudomotion.play.server import serve
    serve(options.image, host=options.host, port=options.port, browser=not options.no_browser)
