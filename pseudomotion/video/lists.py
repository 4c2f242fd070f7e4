"""Lists of common video datasets from their official annotation files: ``python -m pseudomotion.video.lists ucf101 ROOT OUT``.

ROOT holds the annotation files and the videos, in any subfolders. Videos are found by name and never opened. OUT gets a list in VideoMAE's
format for each split: ``train.csv`` and ``val.csv``, or ``train_1.csv`` and so on if there are several.
"""

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pseudomotion import command
from pseudomotion.files import check_input, check_output
from pseudomotion.video.list_file import SUFFIXES, read_lines, write_lists

__all__ = ["DATASETS", "main", "make_lists"]

PERSONS_OF_IKEAFA_VAL = {9, 11, 13}
CLASSES_OF_IKEAFA = [f"{verb}_leg_{k}" for verb in ("attach", "detach") for k in (1, 2, 3, 4)] + [
    "flip_over",
    "pick_leg",
    "spin_in",
    "spin_out",
]
# The subjects to test on in UAV-Human's cross-subject protocol, version 1: those of 0 to 118 that its authors do not list for training.
SUBJECTS_OF_UAV_VAL = {1, 3, 4, 9, 22, 23, 24, 31, 41, 54, 58, 60, 66, 72, 74, 75, *range(91, 98), 99, 101, 104, 107, 108, 109, 113}

Rows = list[tuple[str, int]]


class Dataset(NamedTuple):
    """A dataset: the function that reads its annotation files, and the published number of videos of each split."""

    convert: Callable[["Root"], dict[str, Rows]]
    published: dict[str, int]
    note: str = ""


class Root:
    """The files below a folder, by name."""

    def __init__(self, folder: Path, classes: Path | None = None) -> None:
        if not folder.is_dir():
            raise NotADirectoryError(f"ROOT must be a folder, got {folder}")
        self.folder = folder
        self.classes = classes
        self.files = [Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in sorted(names)]
        self.videos = sorted(path for path in self.files if path.suffix.lower() in SUFFIXES)
        self._by_name = {path.name: path for path in reversed(self.videos)}
        self._by_folder = {f"{path.parent.name}/{path.name}": path for path in reversed(self.videos)}

    def annotation(self, *names: str) -> Path:
        """The first file that has one of these names."""
        for name in names:
            if found := sorted(path for path in self.files if path.name == name):
                return found[0]
        raise FileNotFoundError(f"there is no {' or '.join(names)} in {self.folder}")

    def find(self, name: str) -> Path | None:
        """A video by "folder/name", or by its name alone if no such folder holds it."""
        return self._by_folder.get(name) or self._by_name.get(name.rpartition("/")[2])


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_lines(path) if line.strip()]


def _ucf101(root: Root) -> dict[str, Rows]:
    """Labels are those of classInd.txt less 1."""
    number = {name: int(id_) - 1 for id_, name in (line.split() for line in _lines(root.annotation("classInd.txt")))}
    splits: dict[str, Rows] = {}
    for k in (1, 2, 3):
        for split, file in (("train", f"trainlist0{k}.txt"), ("val", f"testlist0{k}.txt")):
            names = [line.split()[0] for line in _lines(root.annotation(file))]
            splits[f"{split}_{k}"] = [(name, number[name.partition("/")[0]]) for name in names]
    return splits


def _hmdb51(root: Root) -> dict[str, Rows]:
    """Labels are the positions of the class names in alphabetical order."""
    splits: dict[str, Rows] = {f"{split}_{k}": [] for k in (1, 2, 3) for split in ("train", "val")}
    pattern = re.compile(r"(.+)_test_split([123])\.txt")
    files = [(match[1], match[2], path) for path in root.files if (match := pattern.fullmatch(path.name))]
    if not files:
        raise FileNotFoundError(f"there is no <class>_test_split1.txt in {root.folder}")
    classes = sorted({name for name, _, _ in files})
    for name, k, path in sorted(files):
        for line in _lines(path):
            video, flag = line.rsplit(maxsplit=1)
            if flag in "12":
                splits[f"{'train' if flag == '1' else 'val'}_{k}"].append((f"{name}/{video}", classes.index(name)))
    return splits


def _kinetics400(root: Root) -> dict[str, Rows]:
    """Labels are the positions of the class names in alphabetical order."""
    tables = {"train": root.annotation("train.csv", "kinetics_train.csv")}
    tables["val"] = root.annotation("validate.csv", "val.csv", "kinetics_val.csv")
    rows = {split: list(csv.DictReader(_lines(path))) for split, path in tables.items()}
    number = {name: k for k, name in enumerate(sorted({row["label"] for table in rows.values() for row in table}))}
    name = "{youtube_id}_{:06d}_{:06d}.mp4".format
    return {
        split: [(name(int(row["time_start"]), int(row["time_end"]), youtube_id=row["youtube_id"]), number[row["label"]]) for row in table]
        for split, table in rows.items()
    }


def _template(text: str) -> str:
    return text.replace("[", "").replace("]", "")


def _ssv2(root: Root) -> dict[str, Rows]:
    """Labels are those of labels.json."""
    number = {name: int(k) for name, k in _json(root.annotation("labels.json", "something-something-v2-labels.json")).items()}
    return _ssv2_splits(root, number)


def _mini_ssv2(root: Root) -> dict[str, Rows]:
    """Labels are the line numbers of the file of classes, from 0."""
    if root.classes is None:
        raise ValueError(
            "mini-ssv2 needs --classes: a file with one template per line, such as mini_ssv2.txt of IBM/action-recognition-pytorch"
        )
    return _ssv2_splits(root, {_template(line): k for k, line in enumerate(_lines(root.classes))})


def _ssv2_splits(root: Root, number: dict[str, int]) -> dict[str, Rows]:
    files = {"train": ("train.json", "something-something-v2-train.json")}
    files["val"] = ("validation.json", "something-something-v2-validation.json")
    splits = {}
    for split, names in files.items():
        entries = [(f"{entry['id']}.webm", _template(entry["template"])) for entry in _json(root.annotation(*names))]
        splits[split] = [(name, number[template]) for name, template in entries if template in number]
    return splits


def _json(path: Path) -> Any:
    try:
        return json.loads("\n".join(read_lines(path)))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _diving48(root: Root) -> dict[str, Rows]:
    """Labels are those of the files, 0 to 47; 30 has no video."""
    files = {"train": "Diving48_V2_train.json", "val": "Diving48_V2_test.json"}
    return {split: [(f"{e['vid_name']}.mp4", int(e["label"])) for e in _json(root.annotation(name))] for split, name in files.items()}


def _ikeafa(root: Root) -> dict[str, Rows]:
    """Everything is in the names: ``<class>/GOPRnnnn_start_end_person.MP4``; persons 9, 11 and 13 are for validation."""
    splits: dict[str, Rows] = {"train": [], "val": []}
    for path in root.videos:
        match = re.fullmatch(r"GOPR\d+_\d+_\d+_(\d+)", path.stem)
        if match and path.parent.name in CLASSES_OF_IKEAFA:
            split = "val" if int(match[1]) in PERSONS_OF_IKEAFA_VAL else "train"
            splits[split].append((f"{path.parent.name}/{path.name}", CLASSES_OF_IKEAFA.index(path.parent.name)))
    return splits


def _uav_human(root: Root) -> dict[str, Rows]:
    """Everything is in the names: ``P<person>S..A<class>R...avi``; split by person, cross-subject protocol version 1."""
    splits: dict[str, Rows] = {"train": [], "val": []}
    for path in root.videos:
        if match := re.fullmatch(r"P(\d{3})S\d+G\d+B\d+H\d+UC\d+LC\d+A(\d{3})R\d+_\d+", path.stem):
            splits["val" if int(match[1]) in SUBJECTS_OF_UAV_VAL else "train"].append((f"{path.parent.name}/{path.name}", int(match[2])))
    return splits


DATASETS = {
    "ucf101": Dataset(_ucf101, {"train_1": 9537, "val_1": 3783, "train_2": 9586, "val_2": 3734, "train_3": 9624, "val_3": 3696}),
    "hmdb51": Dataset(_hmdb51, {f"{split}_{k}": n for k in (1, 2, 3) for split, n in (("train", 3570), ("val", 1530))}),
    "kinetics400": Dataset(
        _kinetics400, {"train": 240436, "val": 19796}, "Copies of Kinetics differ, since videos vanish; these are the counts of MMAction's."
    ),
    "ssv2": Dataset(_ssv2, {"train": 168913, "val": 24777}),
    "mini-ssv2": Dataset(_mini_ssv2, {"train": 81663, "val": 11799}),
    "diving48": Dataset(
        _diving48, {"train": 15027, "val": 1970}, "These are the counts of version 2; the labels of version 1 are unreliable."
    ),
    "ikeafa": Dataset(_ikeafa, {"train": 1781, "val": 163}),
    "uav-human": Dataset(_uav_human, {"train": 16285, "val": 6191}),
}


def make_lists(name: str, root: Path, out: Path, *, classes: Path | None = None, force: bool = False) -> list[str]:
    """Write the lists of a dataset.

    Args:
        name: of the dataset, one of ``DATASETS``.
        root: folder of the annotation files and the videos.
        out: folder of the lists; it is made if missing.
        classes: for mini-ssv2, a file with its templates, one per line.
        force: replace lists that exist and are different.

    Returns:
        Lines of a report: counts, and where they differ from the published ones.

    Raises:
        OSError: if a folder or an annotation file is missing, or a list exists and is different.
        ValueError: if an annotation file cannot be understood, or not one video is found.

    """
    dataset = DATASETS[name]
    for split in dataset.published:  # before the long search for files; what exists is compared later
        check_output(out / f"{split}.csv", force=True, make_parents=True)
    if classes is not None:
        check_input(classes)
    files = Root(root, classes)
    try:
        splits = dataset.convert(files)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"the annotation files of {name} in {root} are not in the official format: {error!r}") from error
    found = {split: [(files.find(video), label) for video, label in rows] for split, rows in splits.items()}
    if not any(path for rows in found.values() for path, _ in rows):
        raise ValueError(f"not one of the {sum(map(len, splits.values()))} videos of {name} is in {root}")
    lists = {f"{split}.csv": [(path.absolute(), label) for path, label in rows if path] for split, rows in found.items()}
    write_lists(out, lists, inputs=[path for path in files.files if path.name in lists], force=force)
    messages = []
    for split, rows in found.items():
        missing = [video for (video, _), (path, _) in zip(splits[split], rows, strict=True) if not path]
        messages.append(_count(split, len(rows) - len(missing), missing))
        if len(rows) != (expected := dataset.published[split]):
            messages.append(f"  note: the annotation files name {len(rows)}, published are {expected}. {dataset.note}".rstrip())
    return messages


def _count(split: str, n: int, missing: Sequence[str]) -> str:
    if not missing:
        return f"{split}.csv: {n} videos"
    names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    return f"{split}.csv: {n} videos; {len(missing)} more have no file: {names}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = command.Parser(prog="python -m pseudomotion.video.lists", description="Write the video lists of a dataset.")
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("root", type=command.path, metavar="ROOT", help="folder with the official annotation files and the videos")
    parser.add_argument("out", type=command.path, metavar="OUT", help="folder to write train.csv and val.csv to")
    parser.add_argument("--classes", type=command.path, metavar="FILE", help="for mini-ssv2: file with its 87 templates, one per line")
    parser.add_argument("--force", action="store_true", help="replace lists in OUT that are different")
    options = parser.parse_args(arguments)

    def run() -> None:
        lines = make_lists(options.dataset, options.root, options.out, classes=options.classes, force=options.force)
        print("\n".join(lines))  # noqa: T201

    return command.run("python -m pseudomotion.video.lists", run)


if __name__ == "__main__":
    sys.exit(main())
