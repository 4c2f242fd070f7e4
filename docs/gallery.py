"""Make what the page on transforms shows, for every entry of TRANSFORMS: a strip of frames, its docstring, its calibration.

`python docs/gallery.py` writes docs/generated/; the docs build calls it.
"""

from dataclasses import fields
from pathlib import Path

import torch

from pseudomotion import PMG, TRANSFORMS
from pseudomotion.labels import displacement_stats
from pseudomotion.preview import main as pmg_preview

CLIPS = 4096


def make(folder: Path) -> None:
    """Write a picture of every transform, and the page that shows them."""
    folder.mkdir(exist_ok=True)
    sections = [_section(name, folder) for name in TRANSFORMS]
    (folder / "transforms.md").write_text("\n".join([*sections, _calibration()]))


def _section(name: str, folder: Path) -> str:
    options = ["--transforms", name, "--samples", "2", "--frames", "8", "--size", "96", "--no-labels", "--seed", "4"]
    if pmg_preview([str(folder / f"{name}.png"), *options]):
        raise RuntimeError(f"no picture of {name}")
    cls = TRANSFORMS[name]
    reads = "the previous frame" if cls.reads_previous else "the source image"
    facts = f"Each frame reads {reads}." + (" Needs RGB images." if cls.needs_rgb else "")
    return "\n".join(
        [
            f"## {name}\n",
            f"![two clips of {name}](generated/{name}.png)\n",
            f"{facts} Default: `{cls()!r}`\n" if fields(cls) else f"{facts}\n",  # type: ignore[arg-type]
            f"```{{eval-rst}}\n.. autoclass:: {cls.__module__}.{cls.__name__}\n   :noindex:\n```\n",
        ]
    )


def _calibration() -> str:
    rows = ["## Calibration\n"]
    rows.append(
        f"Over {CLIPS:,} clips at 224 x 224, T = 16, from plans alone (`pseudomotion.labels.displacement_stats`). Displacement is that of "
        "the back layer, in pixels per step, averaged over pixels and steps of a clip. In view: share of the first frame still seen in the "
        "last, averaged over clips.\n"
    )
    rows += ["| transform | displacement: median | 5 % to 95 % of clips | in view |", "|---|---|---|---|"]
    for name in TRANSFORMS:
        stats = displacement_stats(PMG((name,)).plan((CLIPS, 3, 224, 224), ids=torch.arange(CLIPS)), samples=8)
        low, median, high = stats.mean.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
        rows.append(f"| `{name}` | {median:.2f} | {low:.2f} to {high:.2f} | {stats.visible.mean():.2f} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    make(Path(__file__).parent / "generated")
