"""The package as a whole: what it imports, which way its imports point, and whether its documents tell the truth."""

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import pickle
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pseudomotion
from pseudomotion.video import write_video

ROOT = Path(pseudomotion.__file__).parent
PROJECT = ROOT.parent

# Each file imports only from its own rank and lower ones. What is not listed is the edge: it imports inward, and nothing imports it.
RANKS = [
    ["checks", "geometry", "names", "outline", "shared_buffers", "spline", "untraced"],
    ["color", "draws", "versions"],
    ["motion"],
    ["passes", "transforms"],
    ["description"],
    ["plan"],
    ["render"],
    ["mix", "objects", "source"],
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
        if isinstance(node, ast.If) and ast.unparse(node.test).removeprefix("typing.") == "TYPE_CHECKING":
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


HEAVY = {"torch", "numpy", "kornia"}
EDGE = {"av", "PIL", "matplotlib", "triton", "transformers", "datasets", "webdataset", "safetensors"}


@pytest.mark.parametrize(("statement", "loaded"), [("import pseudomotion", set()), ("from pseudomotion import PMG", HEAVY)])
def test_imports_are_light(statement, loaded):
    program = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert (HEAVY | EDGE) & set(modules) == loaded


def test_public_names_are_found_on_first_use():
    program = """
import pseudomotion
assert set(pseudomotion.__all__) < set(dir(pseudomotion)), dir(pseudomotion)
assert pseudomotion.labels.flow and pseudomotion.render.render
from pseudomotion import *
from pseudomotion.pmg import PMG as same
assert PMG is pseudomotion.PMG is same
assert not hasattr(pseudomotion, "PGM")
from pseudomotion import PGM
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1].startswith("ImportError: cannot import name 'PGM' from 'pseudomotion'")


def test_files_can_be_read_in_one_sitting():
    long = {path.name: lines for path in ROOT.rglob("*.py") if (lines := len(path.read_text().splitlines())) > 450}
    assert not long


PACKAGES = [
    "pseudomotion",
    "pseudomotion.baselines",
    "pseudomotion.images",
    "pseudomotion.images.synthetic",
    "pseudomotion.labels",
    "pseudomotion.transforms",
    "pseudomotion.video",
]
ALWAYS_NAMED = {"ids", "seed", "data_format", "partner_images", "partner_clips", "mean", "std", "dtype", "renderer", "strict"}
# Beside a first option, these may be positional too: they are the subject of the call, and their order is that of the data.
POSITIONAL = {
    "PMG": ["transforms", "num_frames", "size"],
    "VideoClips": ["num_frames", "stride", "size"],
    "builtin_picture": ["height", "width"],
    "read_clip": ["num_frames", "stride", "start"],
}


def public(package):
    """What a package offers: names, and the classes and functions among them with their public methods."""
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            members = ((f"{name}.{key}", getattr(value, key)) for key in vars(value) if not key.startswith("_"))
            yield from [(name, value), *((key, member) for key, member in members if inspect.isfunction(member))]
        elif inspect.isfunction(value):
            yield name, value


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_honest(package):
    """It lists what the package takes in or defines, submodules aside, and nothing else."""
    module = importlib.import_module(package)
    assert all(hasattr(module, name) for name in module.__all__)  # imported now, if on first use
    visible = {name for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert visible == set(module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_options_are_keyword_only(package):
    """All but a first one that is not a flag; fields of dataclasses and named tuples may be positional, flags among them not."""
    for name, value in public(package):
        options = [
            p for p in inspect.signature(value).parameters.values() if p.kind == p.POSITIONAL_OR_KEYWORD and p.default is not p.empty
        ]
        flags = [p.name for p in options if isinstance(p.default, bool)]
        assert not flags, f"{name}: {flags} must be keyword-only"
        if dataclasses.is_dataclass(value) or (inspect.isclass(value) and issubclass(value, tuple)):
            continue
        names = [p.name for p in options]
        assert not ALWAYS_NAMED & set(names), f"{name}: {names}"
        assert len(names) <= 1 or names == POSITIONAL.get(name), f"{name}: {names[1:]} must be keyword-only"


@pytest.mark.parametrize("package", PACKAGES)
def test_ids_follow_images_by_name(package):
    """``images, *, ids``: ids are positional only where they are all there is to pass, as in ``get(ids)``."""
    for name, value in public(package):
        parameters = {key: p for key, p in inspect.signature(value).parameters.items() if key != "self"}
        if "ids" in parameters and next(iter(parameters)) != "ids":
            assert parameters["ids"].kind == inspect.Parameter.KEYWORD_ONLY, name


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_have_docstrings(package):
    for name, value in public(package):
        assert inspect.getdoc(value), name


# What functions with an example return, and a protocol.
RESULTS = {"Boxes", "DisplacementStats", "Halves", "MixedLabels", "PatchCorrespondence", "Planned", "WarpedLabels", "ImageSource"}


@pytest.mark.parametrize("package", [*PACKAGES, "pseudomotion.export"])
def test_public_names_have_examples(package):
    """Classes and functions in their docstrings, which --doctest-modules runs; transforms by docs/conf.py, base classes in docs."""
    for name in importlib.import_module(package).__all__:
        value = getattr(importlib.import_module(package), name)
        if not callable(value) or name in RESULTS | {"main", "SyntheticSource"}:
            continue
        if inspect.isclass(value) and issubclass(value, pseudomotion.transforms.Transform):
            continue
        examples = re.findall(r"^ *(?:>>>|\.\.\.) (.*)", inspect.getdoc(value) or "", re.M)
        if package == "pseudomotion.export" and inspect.isfunction(value) and not examples:  # steps of an export
            examples = re.findall(r"^ *>>> (.*)", f"{pseudomotion.export.Export.__doc__}{pseudomotion.export.run.__doc__}", re.M)
        assert any(re.search(rf"\b{name}\b", line) for line in examples), f"{package}.{name}"
        assert not any("doctest: +SKIP" in line for line in examples), f"{package}.{name}"


def test_public_names_are_documented():
    """Each has a page of its own, listed in docs/api.md, or is named in the text of a page."""
    listed, module = set(), ""
    for line in (PROJECT / "docs/api.md").read_text().splitlines():
        if match := re.match(r"\.\. currentmodule:: ([\w.]+)", line):
            module = match[1]
        elif match := re.fullmatch(r"   (\w+)", line):
            assert hasattr(importlib.import_module(module), match[1]), f"{module} has no {match[1]}"
            listed.add(match[1])
    prose = set(re.findall(r"`(?:pseudomotion\.)?(\w+)[`(.]", "".join(path.read_text() for path in PROJECT.glob("docs/*.md"))))
    for package in PACKAGES:
        for name in set(importlib.import_module(package).__all__) - listed:
            assert name in prose, f"{package}.{name}"
            assert not callable(getattr(importlib.import_module(package), name)), f"{package}.{name} has no page of its own"


def public_objects(folder):
    """One of everything public that can be built cheaply; what is made in a training script is sent to its worker processes."""
    import pseudomotion.baselines as baselines
    import pseudomotion.images.synthetic as synthetic
    from pseudomotion import images, labels, video

    images_ = images.ImageFolder(folder, 16)
    sources = [images_, images.ImageBank(images_), images.ShadersFolder(folder, 16), images.Shards(folder / "a.tar", 16)]
    sources += [images.VideoFrames(folder / "list.csv", 16), video.VideoClips(folder / "list.csv", 2, 1, 16)]
    sources += [make(size=16) for make in synthetic.SOURCES.values() if make is not synthetic.Shaders]
    sources += [synthetic.Shaders(programs=2, size=16), synthetic.Mixture({"noise": 1, images_: 1}, size=16)]
    sources += [baselines.MoSI(images_, size=16, image_size=40), baselines.PerlinVideo()]
    if importlib.util.find_spec("datasets"):
        import datasets

        rows = datasets.Dataset.from_dict({"image": [{"path": str(folder / "0.png"), "bytes": None}]})
        rows = rows.cast_column("image", datasets.Image())
        sources += [images.HFImages(rows, 16), images.HFStream(rows.to_iterable_dataset(), 16)]
    pmg = pseudomotion.PMG(num_frames=2, size=16, mix=pseudomotion.Mixup())
    plan = pmg.plan((2, 3, 20, 20), ids=torch.arange(2))
    others = [pmg, plan, pseudomotion.VideoMix(), pseudomotion.PMGAug(pmg, p=0.5), *(make() for make in pseudomotion.TRANSFORMS.values())]
    return (
        sources + others + [getattr(module, name) for module in (images, synthetic, labels, video, pseudomotion) for name in module.__all__]
    )


def test_everything_public_can_be_pickled(tmp_path):
    """Under spawn and forkserver, workers get their data set by pickle. What comes back is of the same length and gives the same."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    Image.fromarray(frames[0]).save(tmp_path / "0.png")
    write_video(tmp_path / "a.mp4", frames, fps=10)
    (tmp_path / "list.csv").write_text("a.mp4 0\n")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "0.png", "0.png")
    for value in public_objects(tmp_path):
        again = pickle.loads(pickle.dumps(value))
        if inspect.isclass(value) or inspect.isfunction(value):
            assert again is value
            continue
        assert type(again) is type(value)
        if hasattr(value, "get") and hasattr(value, "__len__"):
            assert len(again) == len(value)
            torch.testing.assert_close(again.get(torch.tensor([5])), value.get(torch.tensor([5])), rtol=0, atol=0)
        elif isinstance(value, torch.utils.data.IterableDataset):
            torch.testing.assert_close(list(again), list(value), rtol=0, atol=0)


def blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.S)


DOCUMENTS = [path for path in [PROJECT / "README.md", *sorted(PROJECT.glob("docs/*.md"))] if blocks(path)]


def test_documents_have_programs():
    assert "README.md" in {path.name for path in DOCUMENTS}
    assert len(DOCUMENTS) > 5


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_python_in_documents_runs(document, tmp_path):
    """All blocks of a document, one after the other in one program, as a reader would type them."""
    program = "\n".join(blocks(document))
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
