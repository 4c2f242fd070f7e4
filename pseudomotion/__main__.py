"""``python -m pseudomotion``: the commands, the versions, and what renders on this machine."""

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from pseudomotion import __version__, command

PROG = "python -m pseudomotion"
COMMANDS = {
    "pmg-preview": "show the clips that each transform makes of an image",
    "pmg-play": "look at motion in the browser, and copy the code that makes it",
    "pmg-bank": "decode images once, into a file that training maps into memory",
    "pmg-export": "write clips as files that other tools read, for any trainer",
    "pmg-pretrain": "pre-train VideoMAE on pseudo-motion",
    "pmg-finetune": "fine-tune VideoMAE to classify videos",
    "pmg-evaluate": "test a fine-tuned model on a list of videos",
    "pmg-validate": "check that pre-training learns motion, without any data",
    "pmg-convert": "convert models to and from VideoMAE's official format",
    "python -m pseudomotion.video.lists": "write the video lists of a dataset from its annotation files",
    "python -m pseudomotion.train.subsets": "split a list of videos by frame difference (the paper's Table 13)",
}
PACKAGES = {
    "": ("torch", "kornia", "numpy", "pillow", "av"),
    "cpu": ("llvmlite",),
    "bank": ("safetensors",),
    "huggingface": ("datasets",),
    "webdataset": ("webdataset",),
    "train": ("transformers", "accelerate", "torchmetrics", "tensorboard", "matplotlib"),
    "for a GPU": ("triton",),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command.Parser(prog=PROG, description="Show the commands, the versions, and what renders on this machine.").parse_args(arguments)
    return command.run(PROG, _overview)


def _overview() -> None:
    width = max(map(len, COMMANDS))
    lines = [f"pseudomotion {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}", "", "Commands:"]
    lines += [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    lines += ["", "Packages:"]
    for extra, packages in PACKAGES.items():
        title = extra or "required"
        lines.append(f"  {title + ':':13}{', '.join(f'{name} {_version(name)}' for name in packages)}")
    print("\n".join([*lines, ""]), flush=True)  # noqa: T201  before the slow part
    with command.loading(PROG):
        from pseudomotion.render import explain
    print(f"Rendering on this machine:\n  {explain()}")  # noqa: T201


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
