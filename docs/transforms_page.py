"""Generate images and text of the docs: frames, docstring and calibration of every transform, and the classes of the motion probe.

`python docs/transforms_page.py` writes docs/generated/; the docs build calls it.
"""

from dataclasses import fields
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from pseudomotion import PMG, TRANSFORMS
from pseudomotion.labels import displacement_stats
from pseudomotion.preview import main as pmg_preview
from pseudomotion.train.probe import CLASSES, MotionProbe, textures
from pseudomotion.transforms import ALL_TRANSFORMS

CLIPS, FEWER, PART = 4096, 512, 64  # whose statistics are shown; of transforms that are not the paper's; at a time
PROBE_SIZE, PROBE_FRAMES, NAMES, GAP = 64, 6, 110, 4


def make(folder: Path) -> None:
    """Write an image of every transform, and the page that shows them."""
    folder.mkdir(exist_ok=True)
    sections = [_section(name, folder) for name in ALL_TRANSFORMS]
    (folder / "transforms.md").write_text("\n".join([*sections, _calibration()]))
    _probe().save(folder / "probe.png")


def _section(name: str, folder: Path) -> str:
    options = ["--transforms", name, "--samples", "2", "--frames", "8", "--size", "96", "--no-labels", "--seed", "4", "--force"]
    if pmg_preview([str(folder / f"{name}.png"), *options]):
        raise RuntimeError(f"no picture of {name}")
    cls = ALL_TRANSFORMS[name]
    reads = "the previous frame" if cls.reads_previous else "the image"
    facts = f"Each frame reads {reads}." + (" Needs RGB images." if cls.needs_rgb else "")
    return "\n".join(
        [
            f"## {name}\n",
            f"{facts} Default: `{cls()!r}`\n" if fields(cls) else f"{facts}\n",  # type: ignore[arg-type]
            f"```{{eval-rst}}\n.. autoclass:: {cls.__module__}.{cls.__name__}\n   :noindex:\n```\n",
        ]
    )


def _probe() -> Image.Image:
    """A clip of every class of the motion probe, two classes in a row."""
    probe = MotionProbe(textures(torch.arange(12), PROBE_SIZE * 3 // 2), PROBE_FRAMES, PROBE_SIZE, seed=1)
    clips, labels = probe.get(torch.arange(len(CLASSES)))
    step = PROBE_SIZE + GAP
    width = NAMES + PROBE_FRAMES * step
    sheet = Image.new("RGB", (2 * width, len(CLASSES) // 2 * step + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (clip, label) in enumerate(zip(clips.permute(0, 1, 3, 4, 2).numpy(), labels.tolist(), strict=True)):
        left, top = place % 2 * width + GAP, place // 2 * step + GAP
        pen.text((left, top + PROBE_SIZE // 2 - 6), CLASSES[label], fill="black")
        for t, frame in enumerate(clip):
            sheet.paste(Image.fromarray(frame), (left + NAMES + t * step - GAP, top))
    return sheet


def _calibration() -> str:
    rows = ["## Calibration\n"]
    rows.append(
        f"Statistics of {CLIPS:,} clips ({FEWER} of transforms that are not from the paper) at 224 x 224, T = 16, computed from plans with "
        "`pseudomotion.labels.displacement_stats`. "
        "Displacement is that of the back, in pixels per step, averaged over pixels and steps of a clip. Visible: fraction of the first "
        "frame that is still visible in the last frame, averaged over clips.\n"
    )
    rows += ["| transform | displacement: median | 5 % to 95 % of clips | visible |", "|---|---|---|---|"]
    for name in ALL_TRANSFORMS:
        ids = torch.arange(CLIPS if name in TRANSFORMS else FEWER)
        stats = [displacement_stats(PMG((name,)).plan((PART, 3, 224, 224), ids=part), samples=8) for part in ids.split(PART)]
        mean, visible = (torch.cat([getattr(each, field) for each in stats]) for field in ("mean", "visible"))
        low, median, high = mean.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
        rows.append(f"| `{name}` | {median:.2f} | {low:.2f} to {high:.2f} | {visible.mean():.2f} |")
    rows.append(
        "\n`elastic` moves less than the others, for its bends come near those that could fold (0.40 of at most 0.48 cells): the 95th "
        "percentile of a clip's pixels is 3.4 px per step in the median clip, where that of `zoom` is 7.1. Larger cells move farther: "
        "`Elastic(grid=3)` 1.4 times as far. The moves of `shake` are at most those that TAPNext++ publishes; it turns back, so what it "
        "shows stays visible."
    )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    make(Path(__file__).parent / "generated")
