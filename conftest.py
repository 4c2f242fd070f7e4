"""Before tests are collected: how Triton's kernels run, and what cannot be imported without it. Files for the examples of docstrings."""

import importlib.util
import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is defined, so it must be set before the first import

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["pseudomotion/render/cuda/*"]


@pytest.fixture(scope="session")
def example_files(tmp_path_factory):
    """A folder with what the examples of docstrings read: photos in two classes, tar shards of them, and videos with a list."""
    import tarfile

    from pictures import save

    from pseudomotion.video import write_video

    folder = tmp_path_factory.mktemp("examples")
    for k in range(5):
        save(folder / "photos" / ("cat" if k < 3 else "dog") / f"{k}.jpg", k)
    save(folder / "photo.jpg", 5)
    for number in range(2):
        with tarfile.open(folder / f"shards-00{number}.tar", "w") as tar:
            for path in sorted((folder / "photos").rglob("*.jpg"))[number::2]:
                tar.add(path, path.name)
    for name in ("0.mp4", "1.mp4", "2.mp4", "clip.mp4"):
        write_video(folder / name, torch.rand(3, 12, 32, 32), fps=12)
    (folder / "train.csv").write_text("0.mp4 0\n1.mp4 1\n2.mp4 2\n")
    return folder


@pytest.fixture(autouse=True)
def _in_example_files(request):
    """Examples of docstrings run in that folder."""
    if isinstance(request.node, pytest.DoctestItem):
        request.getfixturevalue("monkeypatch").chdir(request.getfixturevalue("example_files"))
