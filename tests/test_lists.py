"""Lists from the official annotation files: small ones in the official formats, made here."""

import json
import resource
import subprocess
import sys

import pytest

from pseudomotion.video.list_file import read_list
from pseudomotion.video.lists import DATASETS, SUBJECTS_OF_UAV_VAL, main, make_lists


def make(root, files):
    """Files with their contents; videos are empty, for they are never opened."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


SSV2 = {
    "labels/labels.json": json.dumps({"Holding something": "10", "Stacking number of something": "11", "Opening something": "3"}),
    "labels/train.json": json.dumps(
        [
            {"id": "7", "label": "holding a cup", "template": "Holding [something]", "placeholders": ["a cup"]},
            {"id": "8", "label": "stacking two cups", "template": "Stacking [number of] [something]", "placeholders": ["two", "cups"]},
        ]
    ),
    "labels/validation.json": json.dumps([{"id": "9", "label": "opening a box", "template": "Opening [something]", "placeholders": []}]),
    **{f"videos/{k}.webm": "" for k in (7, 8, 9)},
}
UAV = "P{:03}S00G10B00H10UC102000LC092000A{:03}R0_09131758.avi".format
UCF = {f"ucfTrainTestlist/trainlist0{k}.txt": "" for k in (1, 2, 3)} | {f"ucfTrainTestlist/testlist0{k}.txt": "" for k in (2, 3)}
HMDB = {f"splits/{name}_test_split{k}.txt": "" for name in ("wave", "climb_stairs") for k in (1, 2, 3)}

CASES = {
    "ucf101": (
        UCF
        | {
            "ucfTrainTestlist/classInd.txt": "1 ApplyEyeMakeup\r\n37 HandstandPushups\r\n",
            "ucfTrainTestlist/trainlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\n",
            "ucfTrainTestlist/testlist01.txt": "HandstandPushups/v_HandStandPushups_g01_c01.avi\n",
            "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": "",
            "UCF-101/HandStandPushups/v_HandStandPushups_g01_c01.avi": "",  # the folder is spelt another way
        },
        {"train_1": [("v_ApplyEyeMakeup_g08_c01.avi", 0)], "val_1": [("v_HandStandPushups_g01_c01.avi", 36)]},
    ),
    "hmdb51": (
        HMDB
        | {
            "splits/wave_test_split1.txt": "a b(1)_wave_x.avi 1 \nc_wave.avi 2 \nunused_wave.avi 0 \n",
            "splits/climb_stairs_test_split1.txt": "d_climb.avi 1 \n",
            "splits/wave_test_split3.txt": "c_wave.avi 1 \n",
            "videos/wave/a b(1)_wave_x.avi": "",
            "videos/wave/c_wave.avi": "",
            "videos/climb_stairs/d_climb.avi": "",
        },
        {"train_1": [("d_climb.avi", 0), ("a b(1)_wave_x.avi", 1)], "val_1": [("c_wave.avi", 1)], "train_3": [("c_wave.avi", 1)]},
    ),
    "kinetics400": (
        {
            "train.csv": 'label,youtube_id,time_start,time_end,split\nzumba,-x_9,7,17,train\n"shaking hands",abc,120,130,train\n',
            "validate.csv": "label,youtube_id,time_start,time_end,split\nabseiling,q,0,10,validate\n",
            "all/-x_9_000007_000017.mp4": "",
            "all/abc_000120_000130.mp4": "",
            "all/q_000000_000010.mp4": "",
        },
        {"train": [("-x_9_000007_000017.mp4", 2), ("abc_000120_000130.mp4", 1)], "val": [("q_000000_000010.mp4", 0)]},
    ),
    "ssv2": (SSV2, {"train": [("7.webm", 10), ("8.webm", 11)], "val": [("9.webm", 3)]}),
    "mini-ssv2": (
        SSV2 | {"mini.txt": "\nOpening something\nStacking number of something\n"},
        {"train": [("8.webm", 1)], "val": [("9.webm", 0)]},
    ),
    "diving48": (
        {
            "Diving48_V2_train.json": json.dumps([{"vid_name": "a_00001", "label": 47, "start_frame": 0, "end_frame": 90}]),
            "Diving48_V2_test.json": json.dumps([{"vid_name": "b_00002", "label": 0, "start_frame": 0, "end_frame": 80}]),
            "rgb/a_00001.mp4": "",
            "rgb/b_00002.mp4": "",
        },
        {"train": [("a_00001.mp4", 47)], "val": [("b_00002.mp4", 0)]},
    ),
    "ikeafa": (
        {f"videos/{name}": "" for name in ("spin_out/GOPR0001_10_20_09.MP4", "attach_leg_2/GOPR0002_1_9_12.MP4", "flip_over/other.MP4")},
        {"train": [("GOPR0002_1_9_12.MP4", 1)], "val": [("GOPR0001_10_20_09.MP4", 11)]},
    ),
    "uav-human": (
        {f"videos/{UAV(person, label)}": "" for person, label in ((0, 154), (1, 0), (118, 31), (113, 7))},
        {"train": [(UAV(0, 154), 154), (UAV(118, 31), 31)], "val": [(UAV(1, 0), 0), (UAV(113, 7), 7)]},
    ),
}


def test_every_dataset_has_a_case():
    assert CASES.keys() == DATASETS.keys()


@pytest.mark.parametrize("name", CASES)
def test_lists_of(name, tmp_path):
    files, expected = CASES[name]
    root = make(tmp_path / "root", files)
    classes = root / "mini.txt" if name == "mini-ssv2" else None
    messages = make_lists(name, root, tmp_path / "out", classes=classes)
    for split, published in DATASETS[name].published.items():
        path = tmp_path / "out" / f"{split}.csv"
        if split in expected:
            videos = read_list(path)
            assert [(video.name, label) for video, label in videos] == expected[split]
            assert all(video.is_absolute() and video.is_file() for video, _ in videos)
        else:
            assert path.read_text() == ""
        count = len(expected.get(split, []))
        assert f"{split}.csv: {count} videos" in messages
        assert any(f"name {count}, published are {published}" in message for message in messages)


def test_subjects_of_uav_human():
    assert len(SUBJECTS_OF_UAV_VAL) == 30
    assert set(range(119)) >= SUBJECTS_OF_UAV_VAL


def test_missing_videos_are_named_and_left_out(tmp_path):
    files, _ = CASES["ssv2"]
    root = make(tmp_path, {name: content for name, content in files.items() if not name.endswith("8.webm")})
    messages = make_lists("ssv2", root, tmp_path / "out")
    assert messages[0] == "train.csv: 1 videos; 1 more have no file: 8.webm"
    assert [video.name for video, _ in read_list(tmp_path / "out" / "train.csv")] == ["7.webm"]


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("ucf101", {}, "there is no classInd.txt in"),
        ("hmdb51", {"a.avi": ""}, "there is no <class>_test_split1.txt"),
        ("ssv2", {"labels.json": "{"}, "labels.json is not JSON"),
        ("ssv2", {name: text for name, text in SSV2.items() if "webm" not in name}, "not one of the 3 videos of ssv2 is in"),
        ("mini-ssv2", SSV2, "mini-ssv2 needs --classes"),
        ("diving48", {"Diving48_V2_train.json": "[{}]", "Diving48_V2_test.json": "[]"}, "not in the official format"),
        ("uav-human", {"x.avi": ""}, "not one of the 0 videos"),
    ],
)
def test_what_is_wrong_is_said(name, files, message, tmp_path, capsys):
    make(tmp_path / "root", files or {"empty": ""})
    assert main([name, str(tmp_path / "root"), str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_lists_that_exist_are_replaced_only_by_force(tmp_path, capsys):
    """The same again is fine; else none is written unless all may be. The files that are read are no output at all."""
    files, expected = CASES["ssv2"]
    arguments = ["ssv2", str(make(tmp_path / "root", files)), str(tmp_path / "out")]
    assert main(arguments) == 0
    assert main(arguments) == 0
    (tmp_path / "out" / "train.csv").unlink()
    (tmp_path / "out" / "val.csv").write_text("mine 3\n")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m pseudomotion.video.lists: cannot write ")
    assert "out/val.csv: it exists, and no pmg command made it; choose another name, or replace it with --force" in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["val.csv"]
    assert (tmp_path / "out" / "val.csv").read_text() == "mine 3\n"
    assert main([*arguments, "--force"]) == 0
    assert len(read_list(tmp_path / "out" / "val.csv")) == len(expected["val"])

    files, _ = CASES["kinetics400"]
    root = make(tmp_path / "kinetics", {name.rpartition("/")[2] if name.endswith("csv") else name: text for name, text in files.items()})
    (root / "validate.csv").rename(root / "val.csv")
    before = (root / "train.csv").read_text()
    assert main(["kinetics400", str(root), str(root), "--force"]) == 2
    assert "train.csv: it is the input" in capsys.readouterr().err
    assert (root / "train.csv").read_text() == before


@pytest.mark.parametrize(
    ("out", "message"),
    [("", 'argument OUT: must be a path, got ""'), ("file", "file is not a folder"), ("file/sub", "file is not a folder")],
)
def test_an_output_that_cannot_be_written_is_found_first(tmp_path, monkeypatch, capsys, out, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pseudomotion.video.lists.Root", None)
    (tmp_path / "file").write_text("")
    try:
        code = main(["ssv2", ".", out])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_files_of_another_encoding_are_named(tmp_path, capsys):
    root = make(tmp_path / "root", SSV2)
    path = root / "labels" / "labels.json"
    path.write_text(path.read_text(), encoding="utf-16")
    assert main(["ssv2", str(root), str(tmp_path / "out")]) == 2
    assert f"cannot read {path}: it must be text in UTF-8" in capsys.readouterr().err


def test_a_failure_leaves_no_folder(tmp_path, monkeypatch, capsys):
    root = make(tmp_path / "root", CASES["ssv2"][0])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
    try:
        assert main(["ssv2", str(root), str(tmp_path / "new" / "out")]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "new/out/train.csv: File too large" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_as_a_command(tmp_path):
    files, expected = CASES["uav-human"]
    root = make(tmp_path / "root", files)
    command = [sys.executable, "-W", "error", "-m", "pseudomotion.video.lists", "uav-human", root, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "train.csv: 2 videos\n  note: the annotation files name 2, published are 16285." in done.stdout
    assert len(read_list(tmp_path / "out" / "val.csv")) == len(expected["val"])
