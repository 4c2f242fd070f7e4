"""A run that is told to stop, as clusters and people stop runs: it is saved, says so in one line, and leaves no process behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pictures import save
from processes import ended, in_group, pretraining, ranks

from pseudomotion.train.engine import checkpoints
from pseudomotion.train.engine.log import read_metrics

TINY = (
    *("--model", "micro", "--frame-size", "12", "--image-size", "16", "--num-frames", "4", "--batch-size", "4", "--cpu"),
    *("--max-steps", "100000", "--save-every", "100000", "--log-every", "1", "--log-with", "none"),
)


@pytest.fixture
def images(tmp_path):
    for k in range(8):
        save(tmp_path / "images" / f"{k}.png", k)
    return ("--images", tmp_path / "images", *TINY)


@pytest.fixture
def started():
    """Start runs, none of which outlives the test."""
    children = []

    def start(*arguments, **options):
        children.append(pretraining(*arguments, group=True, **options))
        return children[-1]

    yield start
    for child in children:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def wait_for_steps(children, out, steps):
    deadline = time.monotonic() + 240
    while max((row["step"] for row in read_metrics(Path(out))), default=0) < steps:
        assert all(child.is_alive() for child in children), "a run ended too early"
        assert time.monotonic() < deadline, "a run does not start"
        time.sleep(0.05)


def check_saved(out, logs, number):
    """The last step that was done is saved, every rank said so in one line, and nothing else was said."""
    done = max(row["step"] for row in read_metrics(out))
    (path,) = checkpoints.checkpoints(out / "checkpoints")
    assert int(path.name.removeprefix("step-")) == done
    for log in logs:
        text = log.read_text()
        assert text.count(f"stopped by {number.name} and saved after step {done}; go on with --resume") == 1, text
        assert "Traceback" not in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_whole_group_gets_the_signal(images, tmp_path, started, number):
    """As SLURM and ``timeout`` send SIGTERM, and a terminal Ctrl-C: to workers too, and twice where a launcher hands it on."""
    out, log = tmp_path / "run", tmp_path / "log"
    child = started([*images, "--num-workers", "2", "--out", out], log)
    wait_for_steps([child], out, 2)
    members = in_group(child.pid)
    assert len(members) >= 3  # two workers, at least
    os.killpg(child.pid, number)
    os.kill(child.pid, signal.SIGTERM)
    child.join(60)
    assert child.exitcode in (128 + number, 128 + signal.SIGTERM), log.read_text()
    assert ended(members)
    check_saved(out, [log], number if child.exitcode == 128 + number else signal.SIGTERM)


def test_all_ranks_stop_at_the_same_step(images, tmp_path, started):
    """One of two ranks gets SIGTERM, both have workers."""
    out, logs = tmp_path / "run", [tmp_path / f"log{rank}" for rank in range(2)]
    given = [*images, "--num-workers", "1", "--out", out]
    children = [started(given, log, **place) for log, place in zip(logs, ranks(2), strict=True)]
    wait_for_steps(children, out, 2)
    members = [member for child in children for member in in_group(child.pid)]
    os.killpg(children[1].pid, signal.SIGTERM)
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [143, 143], "".join(log.read_text() for log in logs)
    assert ended(members)
    check_saved(out, logs, signal.SIGTERM)


# A call that Python's own signal handlers wait for the end of, as a backward pass is one: minutes, in which the GIL is free.
LONG_STEP = """
import hashlib
from pseudomotion import command
from pseudomotion.train.engine import signals

signals.IMPATIENT = 0.2

def step():
    with signals.StopSignals(say=True) as stop:
        print("begun", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})
        print("saved", stop.number, flush=True)

raise SystemExit(command.run("pmg-test", step))
"""


@pytest.fixture
def long_step():
    """Start a step of so many rounds; it does not outlive the test."""
    children = []

    def start(rounds):
        command = [sys.executable, "-c", LONG_STEP.format(rounds=rounds)]
        path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=path))
        assert children[-1].stdout.readline() == "begun\n"
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.communicate()


def test_ctrl_c_is_answered_in_the_middle_of_a_step_and_a_second_one_ends_it(long_step):
    child = long_step(10**9)
    child.send_signal(signal.SIGINT)
    assert child.stderr.readline() == "\n"
    assert child.stderr.readline() == "stopping after this step; again to stop now\n"
    child.send_signal(signal.SIGINT)  # at once, as a launcher passes it on: does not count
    time.sleep(0.5)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 130
    assert (child.stdout.read(), child.stderr.read()) == ("", "interrupted\n")


@pytest.mark.parametrize(("number", "again"), [(signal.SIGINT, "; again to stop now"), (signal.SIGTERM, "")])
def test_a_step_that_ends_is_saved(long_step, number, again):
    child = long_step(10**6)
    child.send_signal(number)
    assert child.wait(60) == 0
    assert child.stdout.read() == f"saved {int(number)}\n"
    assert child.stderr.read() == f"\nstopping after this step{again}\n"


def test_between_two_calls_a_second_ctrl_c_ends_in_the_usual_way():
    """What is open is closed, and nothing is half-written."""
    program = LONG_STEP.replace("hashlib.pbkdf2_hmac", "[hashlib.pbkdf2_hmac").replace("{rounds})", "100) for _ in range(10**9)]")
    command = [sys.executable, "-c", program]
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=path) as child:
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.stderr.readline() == "\n"
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 130
        assert child.stderr.read() == "stopping after this step; again to stop now\npmg-test: interrupted\n"
