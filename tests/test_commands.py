"""The commands as a shell starts them: what they answer before anything heavy is imported, and how Ctrl-C ends that phase."""

import importlib.util
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pseudomotion
from pseudomotion import __main__, command, names

PROJECT = Path(pseudomotion.__file__).parent.parent
SCRIPTS = dict(re.findall(r'^(pmg-\w+) = "(.+)"$', (PROJECT / "pyproject.toml").read_text(), re.M))
SCRIPTS["python -m pseudomotion"] = "pseudomotion.__main__:main"
SCRIPTS["python -m pseudomotion.video.lists"] = "pseudomotion.video.lists:main"
SCRIPTS["python -m pseudomotion.train.subsets"] = "pseudomotion.train.subsets:main"
# What a command must be given, so that it goes on to its imports.
GIVEN = {
    "pmg-bank": ["out", "--source", "noise"],
    "pmg-convert": ["in", "out"],
    "pmg-export": ["--source", "noise", "--clips", "3", "--out", "out"],
    "pmg-preview": ["out.mp4"],
    "pmg-pretrain": ["--out", "run"],
    "pmg-finetune": ["--train", "t", "--val", "v", "--out", "run"],
    "pmg-evaluate": ["run", "--test", "list"],
    "pmg-validate": ["--out", "folder"],
    "python -m pseudomotion.video.lists": ["ucf101", "in", "out"],
    "python -m pseudomotion.train.subsets": ["list", "out"],
}
HEAVY = "torch numpy PIL av kornia transformers accelerate yaml"
# As an installed script does it, and what was imported until the end.
START = """
import atexit, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
atexit.register(lambda: print("imported:", *({heavy!r}.split() & sys.modules.keys()), file=sys.stderr))
from {module} import {function}
sys.exit({function}())
"""


def start(name, *arguments, path=""):
    module, function = SCRIPTS[name].split(":")
    program = START.format(heavy=HEAVY, module=module, function=function)
    paths = [str(path)] * bool(path) + [str(PROJECT)]
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; {program}", *arguments], capture_output=True, text=True, timeout=120
    )


def test_every_script_is_listed():
    assert set(__main__.COMMANDS) == set(SCRIPTS) - {"python -m pseudomotion"}
    for name in __main__.COMMANDS:
        assert not name.startswith("python") or importlib.util.find_spec(name.removeprefix("python -m ")), name


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_the_version_is_printed_without_heavy_imports(name):
    done = start(name, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name} {pseudomotion.__version__}\n", "imported:\n")


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_help_and_typos_are_answered_without_heavy_imports(name):
    done = start(name, "--help")
    assert done.returncode == 0
    assert f"usage: {name}" in done.stdout
    assert done.stderr == "imported:\n"
    done = start(name, *GIVEN.get(name, []), "--sizze", "3")
    assert done.returncode == 2
    assert done.stderr.startswith(f"{name}: unrecognized arguments: --sizze")
    assert done.stderr.endswith("\nimported:\n")
    assert done.stderr.count("\n") == 2


def test_an_option_that_was_meant_is_named():
    for name, typed, meant in (("pmg-preview", "--sampels", "--samples"), ("pmg-pretrain", "--image-sise", "--image-size")):
        done = start(name, typed, "3")  # although more is missing
        assert done.returncode == 2
        assert done.stderr.startswith(f"{name}: unrecognized arguments: {typed}")
        assert f"; did you mean {meant}?" in done.stderr


def test_recipes_are_listed_without_heavy_imports():
    done = start("pmg-pretrain", "--list-recipes")
    assert done.returncode == 0
    assert re.search(r"^demo  ", done.stdout, re.M)
    assert done.stderr == "imported: yaml\n"


@pytest.mark.parametrize("name", sorted(SCRIPTS.keys() - {"python -m pseudomotion.video.lists"}))  # imports nothing slow
def test_an_interrupt_while_importing_is_one_line(name, tmp_path):
    """Also where a compiled library turns the interrupt into an ImportError, as pybind11 does."""
    interrupted = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    raise ImportError("initialization failed")
"""
    (tmp_path / "torch.py").write_text(interrupted)
    done = start(name, *GIVEN.get(name, []), path=tmp_path)
    assert (done.returncode, done.stderr) == (130, f"{name}: interrupted\n")


def test_a_missing_extra_is_said_with_the_way_to_install_it(tmp_path):
    (tmp_path / "accelerate.py").write_text("raise ImportError('No module named accelerate')")
    done = start("pmg-pretrain", "--out", "run", path=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("pmg-pretrain: No module named accelerate; to install what it needs, run pip install '.[train]'")


def test_signals_are_handled_as_before_once_imports_are_done():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with command.loading("pmg-test"):
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_names_are_those_of_the_library():
    from pseudomotion.labels.overlay import SHOWS
    from pseudomotion.objects import PRESETS
    from pseudomotion.plan import PADDING_MODES
    from pseudomotion.pmg import RESAMPLINGS
    from pseudomotion.preview.clips import SIDES

    assert tuple(PRESETS) == names.OBJECTS
    assert tuple(SHOWS) == names.SHOWS
    assert names.PADDING_MODES == PADDING_MODES
    assert names.RESAMPLINGS == RESAMPLINGS
    assert tuple(SIDES) == names.PREVIEW_SUFFIXES


def test_the_overview(capsys):
    import torch

    from pseudomotion.render import explain

    assert __main__.main([]) == 0
    said = capsys.readouterr().out
    assert f"torch {torch.__version__}" in said
    assert explain() in said
    for name in SCRIPTS.keys() - {"python -m pseudomotion"}:
        assert re.search(rf"^  {name} +\w", said, re.M)
