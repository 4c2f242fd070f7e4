"""Output files: what may be replaced, and what a failed, stopped or killed run leaves."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pseudomotion import command
from pseudomotion.files import MADE_BY, check_output, sweep, whole_file, whole_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from pseudomotion.files import whole_file, whole_folder
with {context}(Path(sys.argv[1])) as temporary:
    (temporary / "part" if temporary.is_dir() else temporary).write_text("half of it")
    {end}
"""


def run(context, path, end="os.kill(os.getpid(), signal.SIGKILL)"):
    return subprocess.run([sys.executable, "-c", KILLED.format(context=context, end=end), str(path)], capture_output=True, text=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_only_what_a_command_made_is_replaced(tmp_path):
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    ours.write_bytes(b"x" * 200_000 + MADE_BY.encode() + b"x" * 1000)
    theirs.write_text("{}")
    assert check_output(ours) == ours
    assert check_output(tmp_path / "new.json") == tmp_path / "new.json"
    with pytest.raises(FileExistsError, match=r"theirs.json: it exists, and no pmg command made it; .* --force"):
        check_output(theirs)
    assert check_output(theirs, force=True) == theirs


def test_an_input_is_never_an_output(tmp_path):
    photo = tmp_path / "photo.png"
    photo.write_text(MADE_BY)
    (tmp_path / "link.png").symlink_to(photo)
    for other in (photo, os.path.relpath(photo), tmp_path / "link.png"):
        with pytest.raises(ValueError, match="it is the input"):
            check_output(other, inputs=[photo, tmp_path / "gone.png"], force=True)


def test_what_cannot_be_written_is_found_before(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path, message in {
        "": 'the output must be a file name, got ""',
        tmp_path / "no" / "out.png": "there is no folder .*no",
        tmp_path / "file" / "out.png": "file is not a folder",
        tmp_path / "folder": "it is a folder",
        "/dev/null": "not a regular file",
    }.items():
        with pytest.raises((OSError, ValueError), match=message):
            check_output(path)
    assert check_output(tmp_path / "a" / "b" / "out.csv", make_parents=True).name == "out.csv"
    with pytest.raises(OSError, match="file is not a folder"):
        check_output(tmp_path / "file" / "b" / "out.csv", make_parents=True)
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="no permission to write to the folder"):
            check_output(tmp_path / "out.png")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("context", [whole_file, whole_folder])
def test_a_failure_leaves_what_was_there_and_names_the_file(tmp_path, context):
    path = tmp_path / "out.bin"
    with context(path) as temporary:
        (temporary / "a" if temporary.is_dir() else temporary).write_text("old")
    for number, kind in ((errno.ENOSPC, OSError), (errno.EACCES, PermissionError)):
        with (
            pytest.raises(kind, match=f"^cannot write {re.escape(str(path))}: {os.strerror(number)}$") as caught,
            context(path) as temporary,
        ):
            raise OSError(number, os.strerror(number), str(temporary))
        assert caught.value.errno == number
    with pytest.raises(OSError, match=r"^cannot write .*out\.bin: encoder error -2$"), context(path):
        raise OSError("encoder error -2")
    with pytest.raises(FileNotFoundError, match=r"other\.txt"), context(path):
        open("other.txt").close()
    assert names(tmp_path) == ["out.bin"]
    assert (path / "a" if path.is_dir() else path).read_text() == "old"


@pytest.mark.parametrize("context", ["whole_file", "whole_folder"])
def test_what_a_killed_run_left_is_swept_by_the_next(tmp_path, context):
    assert run(context, tmp_path / "x.mp4").returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1
    others = [".x.mp4.1234", ".x.1234.mp4", ".vimrc", "x.pmg-a-1-1.new", f".x.pmg-elsewhere-{2**22 + 1}-0.new.mp4"]
    for name in others:
        (tmp_path / name).write_text("")
    with whole_file(tmp_path / "y.json") as temporary:
        temporary.write_text("")
        sweep(tmp_path)  # another thread's: what is being written here stays
    assert names(tmp_path) == sorted([*others, "y.json"])
    os.utime(tmp_path / others[-1], (0, time.time() - 2 * 24 * 3600))  # of another machine, untouched for two days
    sweep(tmp_path)
    assert names(tmp_path) == sorted([*others[:-1], "y.json"])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells")
def test_a_killed_process_that_nobody_collected_has_ended(tmp_path):
    """As in a container whose first process collects no others."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        with whole_file(tmp_path / "x") as ours:
            ours.write_text("")
        (tmp_path / ours.name.replace(f"-{os.getpid()}-", f"-{process.pid}-")).write_text("")
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "Z":
            pass
        sweep(tmp_path)
        assert names(tmp_path) == ["x"]


def test_what_a_living_run_writes_is_not_swept(tmp_path):
    with whole_folder(tmp_path / "x") as temporary:
        done = run("whole_file", tmp_path / "y", end="")
        assert done.returncode == 0, done.stderr
        assert temporary.is_dir()
    assert names(tmp_path) == ["x", "y"]


def test_a_folder_killed_between_two_renames_comes_back(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("good")
    end = "Path.rename = lambda old, new, rename=Path.rename: os.kill(os.getpid(), 9) if '.new' in old.name else rename(old, new)"
    assert run("whole_folder", tmp_path / "model", end=end).returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    sweep(tmp_path)
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "good"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stopped_command_says_so_and_leaves_nothing(tmp_path, number):
    """The command sends itself the signal, and its own handlers are as before when it has ended."""
    inherited = signal.signal(number, signal.default_int_handler)  # background jobs and nohup ignore some
    before = signal.getsignal(number)

    def work():
        with whole_file(tmp_path / "out.txt") as temporary:
            temporary.write_text("half of it")
            signal.raise_signal(number)

    try:
        assert command.run("pmg-test", work) == 128 + number
        assert signal.getsignal(number) == before
    finally:
        signal.signal(number, inherited)
    assert not names(tmp_path)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.png"), "pmg-test: a.png: No such file or directory\n"),
        (ValueError("size must be\nat least 1"), "pmg-test: size must be at least 1\n"),
        (MemoryError(), "pmg-test: out of memory\n"),
    ],
)
def test_one_line_and_exit_code_2(error, line, capsys):
    def work():
        raise error

    assert command.run("pmg-test", work) == 2
    assert capsys.readouterr().err == line


def test_ignored_signals_stay_ignored():
    """As ``nohup`` leaves them."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert command.run("pmg-test", lambda: signal.raise_signal(signal.SIGHUP)) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
