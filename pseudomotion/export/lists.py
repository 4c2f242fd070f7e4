"""What is written once all shards of an export are there: the list of its clips, and what the Hugging Face Hub asks for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pseudomotion.export.encode import Piece
from pseudomotion.export.job import CLIPS, Export
from pseudomotion.export.shards import file_name
from pseudomotion.files import MADE_BY, whole_file
from pseudomotion.transforms import ALL_TRANSFORMS
from pseudomotion.video.list_file import format_list

__all__ = ["read_records", "write_card", "write_list"]

TRAIN_LIST, SHARD_LIST, METADATA, CARD = "train.csv", "shards.txt", "metadata.parquet", "README.md"
CARD_TEXT = """---
task_categories:
- video-classification
tags:
- webdataset
- synthetic
size_categories:
- {size}
configs:
- config_name: default
  data_files:
  - split: train
    path: {files}
---
<!-- {made_by} -->

# {name}

{clips} clips of {frames} frames of {height} x {width} pixels, generated from still images by [pseudomotion](https://arxiv.org/abs/2409.06665)
pseudo-motion. `manifest.json` has the command, the versions and every setting that made them; `plans/` has the exact motion of each clip.

- motion: `{motion}`
- images: {images}
- label: {label}
"""


def read_records(export: Export) -> Iterator[tuple[int, dict[str, Any]]]:
    """The shard and the record of every clip, in order."""
    for shard in range(export.settings.num_shards):
        for line in export.records_path(shard).read_text().splitlines():
            yield shard, json.loads(line)


def write_list(export: Export, *, relative: bool = False) -> Path:
    """The list of an export's clips: ``train.csv`` in VideoMAE's form, or ``shards.txt`` for tar shards. It appears whole or not at all.

    A line of ``train.csv`` is "path label" for videos, and "folder frames label" for images of frames.

    Args:
        export: of which no shard is missing.
        relative: paths start from the folder of the list, so that it can be moved; most readers want absolute ones.

    Returns:
        The path of the list.

    """
    folder = Path() if relative else export.out.absolute()
    if export.settings.tar:
        paths = [str(folder / export.path(shard).relative_to(export.out)) for shard in range(export.settings.num_shards)]
        return _write(export.out / SHARD_LIST, "".join(path + "\n" for path in paths))
    middle = "" if export.settings.format == "mp4" else f" {export.pmg.num_frames}"
    lines = []
    for shard, record in read_records(export):
        line = format_list([(folder / CLIPS / f"{shard:05d}" / clip_name(export, record["key"]), record["label"])])
        path, _, label = line.rpartition(" ")
        lines.append(f"{path}{middle} {label}")
    return _write(export.out / TRAIN_LIST, "".join(lines))


def clip_name(export: Export, key: str) -> str:
    """The file, or the folder of frames, of a clip in its shard."""
    return file_name(key, Piece("", None, "mp4", b"")) if export.settings.format == "mp4" else key


def write_card(export: Export) -> None:
    """A dataset card and, unless clips are in tar shards, a parquet file of all records: what ``datasets.load_dataset(folder)`` reads.

    Raises:
        ImportError: if pyarrow, which comes with the library ``datasets``, is not installed.

    """
    settings, (h, w) = export.settings, export.pmg.size or (0, 0)
    if settings.tar:
        files = f"{CLIPS}/*.tar"
    else:
        files = f"[{CLIPS}/**/*.{settings.format}, {METADATA}]"
        _write_metadata(export)
    limits = {10**k: name for k, name in enumerate(("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M"), 3)}
    label = {
        "transform": f"the transform, a position in {', '.join(ALL_TRANSFORMS)}",
        "class": "the class of the image",
        "none": "always 0",
    }
    text = CARD_TEXT.format(
        size=next(name for limit, name in limits.items() if settings.clips < limit or limit == 10**8),
        files=files,
        made_by=MADE_BY,
        name=export.out.absolute().name,
        clips=settings.clips,
        frames=export.pmg.num_frames,
        height=h,
        width=w,
        motion=export.pmg.extra_repr(),
        images=f"{len(export.source)} of {type(export.source).__name__}",
        label=label[settings.label],
    )
    _write(export.out / CARD, text)


def _write_metadata(export: Export) -> None:
    import pyarrow
    import pyarrow.parquet

    rows: list[dict[str, Any]] = []
    for shard, record in read_records(export):
        clip = f"{CLIPS}/{shard:05d}/{clip_name(export, record['key'])}"
        if export.settings.format == "mp4":
            rows.append({"file_name": clip, **record})
        else:
            frames = [f"{clip}/img_{t + 1:05d}.{export.settings.format}" for t in range(export.pmg.num_frames)]
            rows.append({"frames_file_names": frames, **record})
    with whole_file(export.out / METADATA) as temporary:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows).replace_schema_metadata({"kind": MADE_BY}), temporary)


def _write(path: Path, text: str) -> Path:
    with whole_file(path) as temporary:
        temporary.write_bytes(text.encode())
    return path
