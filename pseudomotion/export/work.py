"""The work of ``pmg-export``: make an ``Export`` from its options, run it, and report."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from pseudomotion import command
from pseudomotion.export.job import Export
from pseudomotion.export.lists import write_card, write_list
from pseudomotion.export.runner import check_room, over, prepare, readable_size, run
from pseudomotion.export.settings import Settings
from pseudomotion.export.verify import verify_names, verify_shard
from pseudomotion.images import load_textures
from pseudomotion.images.entries import is_stream, open_source
from pseudomotion.images.files import image_suffixes, load_image
from pseudomotion.mix import Mixup, VideoMix
from pseudomotion.pmg import PMG
from pseudomotion.source import FileSource, ImageSource

__all__ = ["export"]

MOST_FAULTS = 20  # lines of a report
say = partial(print, flush=True)  # a command talks to its terminal


def export(options: argparse.Namespace, arguments: Sequence[str] | None) -> None:
    """Write the clips that the options ask for, or check them.

    Raises:
        ValueError: for options that contradict each other, and where ``--verify`` finds a fault.
        OSError: for images that cannot be read, and an output that cannot be written or does not fit.

    """
    warnings.formatwarning = lambda message, *_, **__: f"pmg-export: {message}\n"  # without the line of code that warned
    job = _job(options)
    if options.verify:
        _verify(job, options.workers)
        return
    own = job.part(*options.part)
    prepare(job, [Path(sys.argv[0]).name, *(sys.argv[1:] if arguments is None else arguments)])
    if todo := job.missing(own):
        _write(job, todo, own, options)
    elif not own:
        say(f"part {options.part[0]} of {options.part[1]} is empty: there are {job.settings.num_shards} folders or tar files")
    if missing := job.missing(list(range(job.settings.num_shards))):
        say(f"{len(missing)} of {job.settings.num_shards} folders or tar files are still to be written by the other parts")
        return
    path = write_list(job, relative=options.relative)
    if options.huggingface:
        write_card(job)
    if not job.settings.tar and any(" " in str(part) for part in [job.out.absolute()] if not options.relative):
        warnings.warn(f"{path} holds paths with spaces, in double quotes, which not every reader understands: see --relative", stacklevel=2)
    say(f"{path}: all {job.settings.clips} clips are there")


def _write(job: Export, todo: list[int], own: list[int], options: argparse.Namespace) -> None:
    clips = sum(len(job.settings.numbers(shard)) for shard in todo)
    needed, free = check_room(job, todo)
    done = f" ({len(own) - len(todo)} of {len(own)} folders or tar files are there)" if len(todo) < len(own) else ""
    say(f"{clips} clips to write{done}: about {readable_size(needed)}, {readable_size(free)} are free")
    report = run(job, todo, workers=options.workers)
    elapsed, work = report.seconds.pop("elapsed"), sum(report.seconds.values())
    shares = ", ".join(f"{name} {spent / work:.0%}" for name, spent in report.seconds.items())
    rate = report.clips / elapsed
    say(f"{report.clips} clips, {readable_size(report.size)}, in {elapsed:.0f} s: {rate:.3g} clips/s; of the work: {shares}")
    if report.skipped:
        lines = [f"skipped {len(report.skipped)} broken files; the next image took the place of each:"]
        warnings.warn("\n".join([*lines, *(f"  {text}" for _, text in sorted(report.skipped.items()))]), stacklevel=2)


def _verify(job: Export, workers: int) -> None:
    if not job.out.is_dir():
        raise FileNotFoundError(f"cannot read {job.out}: there is no such folder")
    prepare(job)
    faults = verify_names(job)
    shards = [shard for shard in range(job.settings.num_shards) if job.path(shard).exists()]
    with tqdm(total=sum(len(job.settings.numbers(shard)) for shard in shards), desc="checking", unit="clip", delay=1) as bar:
        faults += chain.from_iterable(over(job, verify_shard, shards, workers, bar))
    if faults:
        more = f"; and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise ValueError(f"{job.out} has {len(faults)} faults: {'; '.join(faults[:MOST_FAULTS])}{more}")
    say(f"{job.out}: all {job.settings.clips} clips are there, once each, and can be decoded")


def _job(options: argparse.Namespace) -> Export:
    settings = Settings(
        clips=options.clips,
        first=options.first,
        format=options.format,
        tar=options.shards is not None,
        shard_size=options.shards or options.folder,
        fps=options.fps,
        crf=options.crf,
        preset=options.preset,
        pixel_format=options.pixel_format,
        quality=options.quality,
        label=options.label,
        annotations=options.annotations,
        flow_format=options.flow_format,
    )
    names = [name.strip() for name in options.transforms.split(",") if name.strip()]
    if not names:
        raise ValueError("--transforms names no transform")
    mix = {None: None, "mixup": Mixup(), "videomix": VideoMix()}[options.mix]
    pmg = PMG(
        names,
        options.frames,
        options.size,
        resampling=options.resampling,
        padding_mode=options.padding_mode,
        crop=options.crop,
        mix=mix,
        objects=options.objects,
        exposure=options.exposure,
        subframes=options.subframes,
        seed=options.seed,
    )
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {options.device}: torch finds no CUDA device")
    size = options.image_size or round(max(options.size) * 8 / 7)
    command.check_textures(options.objects, options.textures)
    chosen = {"limit": options.num_textures, "seed": options.seed, "alpha": options.objects == "cutouts"}
    textures = None if options.textures is None else load_textures(options.textures, size, **chosen)
    return Export(_open(options, size), pmg, options.out, settings, textures=textures, device=device, batch_size=options.batch_size)


def _open(options: argparse.Namespace, size: int) -> ImageSource:
    if options.images and all(Path(path).suffix.lower() in image_suffixes() for path in options.images):
        return ImageFiles(options.images, size)
    if streams := [entry for entry in options.images or () if is_stream(entry)]:
        raise ValueError(
            f"--images {streams[0]} is a stream, and an export reads images by number: make a bank of it first, such as by pmg-bank "
            f"bank.safetensors --images {streams[0]} --image-size {size} --limit 100000, and say --images bank.safetensors"
        )
    return open_source(options.images, options.source, options.videos, size, seed=options.seed, balanced=options.balanced)


class ImageFiles(FileSource):
    """Image files, one by one.

    Args:
        paths: of the files; the first broken one raises.
        size: side of the images in pixels.

    """

    def __init__(self, paths: Sequence[str | Path], size: int) -> None:
        super().__init__(strict=True)
        self.paths, self.size = [Path(path) for path in paths], (size, size)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def read(self, index: int, id_: int) -> UInt8[Tensor, "3 h w"]:
        """One image."""
        return load_image(self.paths[index], self.size)
