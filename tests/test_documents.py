"""The shell lines of README and docs: each is accepted by its command, those of the README run as a new user would paste them."""

import contextlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import save

import pseudomotion
from pseudomotion import command
from pseudomotion.images import ImageFolder
from pseudomotion.video import lists, write_video

PROJECT = Path(pseudomotion.__file__).parent.parent
README = PROJECT / "README.md"
DOCUMENTS = [README, PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
SCRIPTS = dict(re.findall(r'^(pmg-\w+) = "(.+)"$', (PROJECT / "pyproject.toml").read_text(), re.M))
COMMAND = re.compile(r"(?:^|(?<=[\s'$]))(pmg-[a-z]+|python -m pseudomotion[\w.]*)(?= |$)", re.M)


def entry(name):
    """The function that a command starts."""
    module, function = SCRIPTS.get(name, f"{name.removeprefix('python -m ')}:main").split(":")
    return getattr(importlib.import_module(module), function)


def shell_blocks(path):
    """The fenced and the indented blocks of commands in a document."""
    text = path.read_text()
    yield from re.findall(r"^```(?:console|bash)\n(.*?)^```", text, re.S | re.M)
    for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M):
        if COMMAND.search(block):
            yield re.sub("^    ", "", block, flags=re.M)


def calls(block):
    """The calls of our commands in a block of shell: loops unrolled, what starts them (torchrun, srun, ...) left out."""
    block = re.sub(r"(?:^|(?<=\s))#.*", "", re.sub(r"\\\n\s*", "", block))
    block = re.sub(
        r"^for (\w+) in ([^;]+); do.*?\n(.*?)^done",
        lambda loop: "\n".join(loop[3].replace(f"${loop[1]}", word) for word in loop[2].split()),
        block,
        flags=re.S | re.M,
    )
    for line in block.splitlines():
        if found := COMMAND.search(line):
            rest = line[found.end() :].replace("$SLURM_ARRAY_TASK_ID", "7")
            if line[: found.start()].count("'") % 2:  # within the quotes of another command
                rest = rest.rpartition("'")[0]
            yield found[1], shlex.split(rest)


CALLS = {path.stem: [call for block in shell_blocks(path) if "complete -" not in block for call in calls(block)] for path in DOCUMENTS}


def test_lines_are_found():
    """No line that starts one of our commands is overlooked by the expressions above."""
    for path in DOCUMENTS:
        lines = re.findall(r"^(?:    |\$ )[^#\n]*?pmg-(?!aug )[a-z]+ ", path.read_text(), re.M)
        assert len(CALLS[path.stem]) >= len(lines), path.name
    assert {"README", "training", "distributed", "reproduce", "export", "validation"} <= {name for name, found in CALLS.items() if found}
    assert [words[-2:] for _, words in CALLS["export"] if "--part" in words] == [["--part", "7/64"]]
    assert sum("--recipe" in words for _, words in CALLS["distributed"]) == 4
    assert {words[0] for name, words in CALLS["reproduce"] if name.endswith("lists")} == set(lists.DATASETS)


class Parsed(BaseException):
    """A command has read its words, and would begin to work."""


@pytest.mark.parametrize("document", [name for name, found in CALLS.items() if found])
def test_commands_take_what_the_documents_tell_them(document, monkeypatch, capsys):
    """Every option and value, a recipe and what it needs included."""

    @contextlib.contextmanager
    def loading(name):
        raise Parsed
        yield

    def make_lists(*_, **__):
        raise Parsed

    monkeypatch.setattr(command, "loading", loading)
    monkeypatch.setattr(lists, "make_lists", make_lists)
    for name, words in CALLS[document]:
        monkeypatch.setattr(sys, "argv", [name, *words])
        try:
            code = entry(name)()
        except Parsed:
            continue
        except SystemExit as end:
            code = end.code
        assert code == 0, f"{name} {shlex.join(words)}: {capsys.readouterr().err}"


def test_options_named_in_the_text_exist(monkeypatch, capsys):
    """Of inline code that begins with a command."""
    helps = {}
    monkeypatch.setenv("COLUMNS", "200")
    for path in DOCUMENTS:
        for name, rest in re.findall(r"`(pmg-[a-z]+)( [^`]*)`", path.read_text()):
            if name not in helps:
                monkeypatch.setattr(sys, "argv", [name, "--help"])
                with contextlib.suppress(SystemExit):
                    entry(name)()
                helps[name] = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
            assert set(re.findall(r"--[a-z-]+", rest)) <= helps[name], f"{path.name}: {name}{rest}"


def test_extras_named_in_the_text_exist():
    text = (PROJECT / "pyproject.toml").read_text()
    known = set(re.findall(r"^(\w+) = \[", text[text.index("[project.optional-dependencies]") :], re.M))
    sources = [*DOCUMENTS, *(PROJECT / "pseudomotion").rglob("*.py"), *(PROJECT / "docs").rglob("*.py")]
    named = {path: re.findall(r"""["'](?:pseudomotion|\.)\[([\w,]+)\]["']""", path.read_text()) for path in sources}
    assert sum(map(len, named.values())) > 8
    for path, extras in named.items():
        assert {extra for group in extras for extra in group.split(",")} <= known, path.name


TINY = "--model tiny --frame-size 16 --image-size 20 --num-frames 4 --limit 4 --batch-size 2 --cpu --log-with none"
SMALLER = {  # what is added to the README's lines, so that they end in seconds
    "pmg-preview": "--size 16 --frames 3",
    "pmg-pretrain": f"{TINY} --max-steps 2",
    "pmg-finetune": "--epochs 1 --batch-size 2 --num-workers 0 --cpu --log-with none",
    "pmg-export": "--clips 3 --size 16 --frames 4 --workers 1",
    "pmg-evaluate": "--batch-size 2 --num-workers 0 --cpu",
}
NOT_RUN = {"pmg-play", "pmg-validate"}  # a server; minutes, whatever is added


@pytest.mark.filterwarnings("ignore")
def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    """One after the other in a new folder, as a new user would paste them, with a photo, photos and videos of their own."""
    monkeypatch.chdir(tmp_path)
    for k in range(4):
        save(tmp_path / "photos" / f"{k}.png", k)
        frames = np.random.default_rng(k).integers(0, 256, (12, 32, 32, 3), np.uint8)
        (tmp_path / "videos" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "videos" / "ab"[k % 2] / f"{k}.mp4", frames, fps=12)
    exec(next(block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "train.csv" in block), {})
    for split in ("val", "test"):
        shutil.copy("train.csv", f"{split}.csv")
    os.link(tmp_path / "photos" / "0.png", "photo.jpg")
    assert len(ImageFolder("photos", 8)) == 4
    ran = []
    for name, words in CALLS["README"]:
        if name in NOT_RUN:
            continue
        words = [*words, *SMALLER.get(name, "").split()]
        monkeypatch.setattr(sys, "argv", [name, *words])
        assert entry(name)() == 0, f"{name} {shlex.join(words)}: {capsys.readouterr().err}"
        ran.append(name)
    assert ran.count("pmg-preview") == 2
    assert ran.count("pmg-pretrain") == 3
    assert {"pmg-finetune", "pmg-evaluate"} < set(ran)
    for made in ("preview.mp4", "clips/train.csv", "runs/demo/loss.png", "runs/shaders/model", "runs/ucf101/test.json"):
        assert (tmp_path / made).exists(), made


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_options_are_completed_in_bash(tmp_path):
    """By the lines of docs/faq.md, for every command; what is no option is left to bash."""
    (block,) = (block for block in shell_blocks(PROJECT / "docs" / "faq.md") if "complete -" in block)
    assert set(re.findall(r"pmg-\w+", block)) == set(SCRIPTS)
    module, function = SCRIPTS["pmg-export"].split(":")
    program = tmp_path / "pmg-export"
    start = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); from {module} import {function}; {function}()"
    program.write_text(f"#!{sys.executable}\n{start}\n")
    program.chmod(0o755)
    ask = f'COMPREPLY=(); _pmg {program} %s pmg-export; echo "${{COMPREPLY[@]}}"'
    script = "\n".join([block, ask % "--pre", ask % "pre"])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("--preset\n\n", "")
