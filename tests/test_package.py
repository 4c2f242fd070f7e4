"""The package as a whole: what it imports, which way its imports point, and whether its documents tell the truth."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pseudomotion

ROOT = Path(pseudomotion.__file__).parent
PROJECT = ROOT.parent

# Each file imports only from its own rank and lower ones. What is not listed is the edge: it imports inward, and nothing imports it.
RANKS = [
    ["geometry", "kernels", "untraced"],
    ["color", "draws"],
    ["transforms"],
    ["describe"],
    ["plan"],
    ["render", "checks"],
    ["mix", "source"],
    ["pmg"],
    ["pmg_aug"],
    ["__init__"],
]


def part(module):
    """The top-level part of the package that a file or a dotted name belongs to."""
    return module.split(".")[0]


def imports_of(path):
    """What a file imports when it runs; imports for type checkers alone do not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" if node.module == "pseudomotion" else node.module for alias in node.names]
        yield from (name.removeprefix("pseudomotion.") for name in names if name and name.startswith("pseudomotion."))


def test_imports_point_inward():
    rank = {name: level for level, names in enumerate(RANKS) for name in names}
    seen = 0
    for path in ROOT.rglob("*.py"):
        own = part(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."))
        for imported in map(part, imports_of(path)):
            seen += 1
            if own in rank and imported != own:
                assert imported in rank, f"{path.name} imports the edge: {imported}"
                assert rank[imported] < rank[own], f"{path.name} imports outward: {imported}"
    assert seen > 30


def test_a_bare_import_is_light():
    program = "import sys, pseudomotion; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "kornia", "pseudomotion"} <= set(loaded)
    assert not {"av", "PIL", "matplotlib", "triton", "transformers", "datasets", "webdataset", "safetensors"} & set(loaded)


def test_files_can_be_read_in_one_sitting():
    long = {path.name: lines for path in ROOT.rglob("*.py") if (lines := len(path.read_text().splitlines())) > 320}
    assert not long


def test_public_names_are_listed():
    assert set(pseudomotion.__all__) <= set(vars(pseudomotion))
    assert {"PMG", "MotionPlan", "TRANSFORMS"} <= set(pseudomotion.__all__)


def blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.S)


@pytest.mark.parametrize("document", ["README.md", *(p.relative_to(PROJECT).as_posix() for p in sorted(PROJECT.glob("docs/*.md")))])
def test_python_in_documents_runs(document, tmp_path):
    """All blocks of a document, one after the other in one program, as a reader would type them."""
    program = "\n".join(blocks(PROJECT / document))
    if not program:
        assert document != "README.md"
        return
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
