"""Generate the gallery: animations of transforms, objects, sources and labels, each with its code.

`python docs/gallery.py` writes docs/generated/; the docs build calls it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pseudomotion import PMG, Mixup, Objects, VideoMix
from pseudomotion.images import builtin_picture, load_image
from pseudomotion.images.synthetic import SOURCES, DeadLeaves, FractalDB, Shaders
from pseudomotion.labels.overlay import SHOWS
from pseudomotion.objects import SHAPES
from pseudomotion.transforms import ALL_TRANSFORMS

SIDE, FRAMES, FPS, GAP = 112, 16, 12, 4
SOURCE_SIDE = 256
PHOTO = Path(__file__).parent / "images/chelsea.jpg"
LARGEST = 6 * 2**20  # bytes of all animations

# Options that make weak and strong motion of what is not named here are the defaults.
STRENGTHS: dict[str, tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]]] = {
    "sliding_window": ({"speed": (0.005, 0.01)}, {"speed": (0.04, 0.08)}),
    "zoom": ({"ratio": (1.005, 1.015)}, {"ratio": (1.06, 1.1)}),
    "fade": ({"depth": (0.2, 0.4)}, {"depth": (1.0, 1.0)}),
    "affine": (
        {"degrees": (-1, 1), "translate": (-0.005, 0.005), "scale": (0.995, 1.005), "shear": (-0.3, 0.3)},
        {"degrees": (-8, 8), "translate": (-0.04, 0.04), "scale": (0.95, 1.05), "shear": (-3, 3)},
    ),
    "perspective": ({"distortion_scale": (0.01, 0.03)}, {"distortion_scale": (0.1, 0.15)}),
    "color_jitter": ({"hue": (-0.01, 0.01), "saturation": (0.98, 1.02)}, {"hue": (-0.08, 0.08), "saturation": (0.9, 1.1)}),
    "cutmix": ({"size": (0.2, 0.3), "speed": (0.005, 0.01)}, {"size": (0.5, 0.7), "speed": (0.04, 0.08)}),
    "elastic": ({"amplitude": (0.05, 0.15)}, {"amplitude": (0.44, 0.48), "cycles": (1.5, 2.5)}),
    "shake": ({"slow": (0.005, 0.015), "fast": (0, 0.004)}, {"slow": (0.06, 0.12), "fast": (0.02, 0.05)}),
}


FOUR = {"count": (4, 4), "size": (0.3, 0.5)}  # objects that can be told apart at 112 pixels


def make(folder: Path) -> None:
    """Write the animations and the page that shows them."""
    folder.mkdir(exist_ok=True)
    images = torch.stack(
        [builtin_picture(SOURCE_SIDE, SOURCE_SIDE), load_image(PHOTO), Shaders(size=SOURCE_SIDE).get(torch.tensor([3]))[0]]
    )
    night = builtin_picture(SOURCE_SIDE, SOURCE_SIDE, night=True)
    textures = Shaders(size=160).get(torch.arange(20, 32))
    page = [
        *_transforms(images, night, folder),
        *_objects(images, textures, folder),
        *_options(images, folder),
        *_labels(images, night, textures, folder),
        *_sources(folder),
    ]
    (folder / "gallery.md").write_text("\n".join(page))
    size = sum(path.stat().st_size for path in folder.glob("gallery-*.webp"))
    if size > LARGEST:
        raise RuntimeError(f"the gallery has {size / 2**20:.1f} MiB, and {LARGEST >> 20} are allowed")


def _transforms(images: Tensor, night: Tensor, folder: Path) -> list[str]:
    page = ["## Transforms", "", "Rows: a drawing, a photo, a synthetic image. Columns: weak motion, the default, strong motion.", ""]
    partners = night.expand_as(images)
    for name, cls in ALL_TRANSFORMS.items():
        weak, strong = STRENGTHS.get(name, ({}, {}))
        transforms = [cls(**weak), cls(), cls(**strong)] if weak else [cls()]
        clips = [_clip(PMG((each,), FRAMES, SIDE), images, partners=partners) for each in transforms]
        code = [f"PMG(({each!r},))" for each in transforms]
        page += [f"### {name}", "", *_animation(folder, name, torch.stack(clips, 1)), *_code(code)]
    return page


def _flowers(textures: Tensor) -> Tensor:
    """Textures cut out by alpha, to flowers of 3 and more petals: RGBA."""
    n, side = len(textures), textures.shape[-1]
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, side),) * 2, indexing="ij")
    petals = 3 + torch.arange(n)[:, None, None] % 5
    edge = 0.62 + 0.3 * torch.cos(petals * torch.atan2(y, x))
    alpha = ((edge - torch.hypot(x, y)) * side / 2 + 0.5).clamp(0, 1)
    return torch.cat([textures, (255 * alpha).round().to(torch.uint8)[:, None]], 1)


def _objects(images: Tensor, textures: Tensor, folder: Path) -> list[str]:
    page = ["## Objects", "", "Things that move on their own over any clip: [Objects](objects.md).", ""]
    image, photo = images[:1], images[1:2]

    def clips(objects: Objects, shown: Tensor = textures, *, on: Tensor = image, transform: str = "zoom", start: int = 72) -> Tensor:
        pmg = PMG((transform,), FRAMES, SIDE, objects=objects)
        return pmg(on, ids=torch.arange(len(on)) + start, textures=shown)  # 72: four objects that hardly hide each other

    def code(options: Sequence[dict[str, object]]) -> list[str]:
        return [f"PMG(objects=Objects({', '.join(f'{name}={value!r}' for name, value in each.items())}))" for each in options]

    one = {"count": (1, 1), "size": (0.6, 0.7), "speed": (0.0, 0.02), "transforms": ("identity",)}

    def middle(**options: object) -> Tensor:
        return clips(Objects(**one, **options), photo, transform="identity", start=104)[0]  # 104: in the middle

    closed = [name for name in SHAPES if name != "cutout"]
    outlines = [middle(shapes=(name,)) for name in closed]
    flowers = _flowers(textures)
    leaves, fractals = (source(size=160).get(torch.arange(8)) for source in (DeadLeaves, FractalDB))
    bends = [{"bend": (0.0, 0.0)}, {"bend": (0.15, 0.25)}, {"bend": (0.4, 0.48)}]
    cut: list[dict[str, object]] = [{"shapes": ("cutout",)}, {"shapes": ("cutout",), "bend": (0.3, 0.4)}, {"shapes": ("box",)}]
    edges = [{"feather": (6.0, 8.0)}, {"soft": 1.0}, {"opacity": (0.4, 0.6)}, {"presence": (0.3, 0.5)}]
    presets = {"Objects()": Objects(), "Objects.yu2024()": Objects.yu2024(), "Objects.smile2025()": Objects.smile2025()}
    for title, text, rows, lines in [
        (
            "Presets",
            "Rows: a drawing, a photo. Columns: the default, and the generators of two published works.",
            torch.stack([clips(objects, on=images[:2]) for objects in presets.values()], 1),
            [f"PMG(objects={name})" for name in presets],
        ),
        (
            "Outlines",
            f"In the order of reading: {', '.join(closed)}. All have closed forms, so labels are exact.",
            [outlines[k : k + 5] for k in range(0, len(outlines), 5)],
            code([{"shapes": ("blob", "ring")}, {"shapes": {"box": 0.9, "triangle": 0.1}}]),
        ),
        (
            "Textures",
            "Objects show parts of any images: synthetic ones of three kinds, and a photo.",
            [[clips(Objects(**FOUR), shown)[0] for shown in (textures, leaves, fractals, photo)]],
            ["pmg = PMG(objects=Objects())", "clips = pmg(images, ids=ids, textures=Shaders(size=160).get(torch.arange(20, 32)))"],
        ),
        (
            "Cut-outs",
            "RGBA textures, transparent where alpha is 0: whole ones, rigid and bent, and parts of them.",
            [[clips(Objects(**each, **FOUR), flowers)[0] for each in cut]],
            ["pmg = PMG(objects=Objects(shapes=('cutout',)))", "clips = pmg(images, ids=ids, textures=rgba)"],
        ),
        (
            "Bends",
            "Rigid, soft, and as far as an image bends without folding. The transform elastic bends the whole image; shake is the camera.",
            [[middle(shapes=("box",), **each) for each in bends]],
            code(bends),
        ),
        (
            "Edges and opacity",
            "Edges a few pixels wide, edges that fade towards the middle, transparent objects, objects that come and go.",
            [[clips(Objects(**each, **FOUR))[0] for each in edges]],
            code(edges),
        ),
    ]:
        page += [f"### {title}", "", text, "", *_animation(folder, f"objects-{title.partition(' ')[0].lower()}", rows), *_code(lines)]
    return page


def _options(images: Tensor, folder: Path) -> list[str]:
    page = ["## Options", ""]
    for title, options, text in [
        (
            "Resampling",
            [{"resampling": "recursive"}, {"resampling": "composed"}],
            "Left blurs, frame by frame, as in the paper; right stays sharp.",
        ),
        ("Padding", [{"padding_mode": mode} for mode in ("zeros", "border", "reflection")], "What shows beyond the edge of the image."),
        ("Crop", [{}, {"crop": (0.2, 0.3)}], "Right begins with a random window of 20 to 30 % of the area."),
    ]:
        clips = [_clip(PMG(("affine",), FRAMES, SIDE, seed=3, **each), images[:1]) for each in options]
        code = ["PMG(" + ", ".join(['("affine",)', *(f"{name}={value!r}" for name, value in each.items())]) + ")" for each in options]
        page += [f"### {title}", "", text, "", *_animation(folder, title.lower(), torch.stack(clips, 1)), *_code(code)]
    mixes = [Mixup(), VideoMix(), VideoMix(mode="temporal")]
    clips = [_clip(PMG(("zoom", "affine"), FRAMES, SIDE, mix=mix), images[:2], partners=images[[1, 0]]) for mix in mixes]
    text = "Two clips become one: blended, a box of one in the other, or some frames of one in the other."
    page += ["### Mixing", "", text, "", *_animation(folder, "mixing", torch.stack(clips, 1))]
    return [*page, *_code([f'PMG(("zoom", "affine"), mix={mix!r})' for mix in mixes])]


def _labels(images: Tensor, night: Tensor, textures: Tensor, folder: Path) -> list[str]:
    page = ["## Labels", "", "Exact labels of every clip, from its plan: [Exact motion labels](labels.md).", ""]
    pictures = torch.stack([images[0], night])
    for name, show in SHOWS.items():
        clips = []
        for transform, objects in (("affine", None), ("perspective", None), ("cutmix", None), ("zoom", Objects(count=(4, 4)))):
            pmg = PMG((transform,), FRAMES, SIDE, seed=4, objects=objects)
            plan = pmg.plan(pictures.shape, ids=torch.arange(2), textures=textures.shape if objects else None)
            frames = pmg.render(pictures, plan, textures=textures if objects else None)[0].permute(1, 2, 3, 0).numpy()
            clips.append(torch.from_numpy(show(frames, plan, 0)).permute(3, 0, 1, 2))
        code = [f"pmg-preview {name}.mp4 --show {name} --transforms affine,perspective,cutmix"]
        code.append(f"pmg-preview {name}-objects.mp4 --show {name} --transforms zoom --objects mixed")
        page += [f"### {name}", "", *_animation(folder, f"label-{name}", [clips]), *_code(code, "console")]
    return page


def _sources(folder: Path) -> list[str]:
    page = ["## Synthetic images", "", "Clips without any image file: [Synthetic images](synthetic.md).", ""]
    pmg, ids = PMG(("zoom", "affine"), FRAMES, SIDE), torch.arange(4)
    for name, source in SOURCES.items():
        clips = pmg(source(size=SIDE).get(ids), ids=ids)
        code = ["ids = torch.arange(4)", f'clips = PMG(("zoom", "affine"))({source.__name__}().get(ids), ids=ids)']
        page += [f"### {name}", "", *_animation(folder, f"source-{name}", clips[None]), *_code(code)]
    return page


def _clip(pmg: PMG, images: Tensor, *, partners: Tensor | None = None) -> Tensor:
    """Clips of images, each with an id of its own and, where a clip shows a second image, a partner."""
    needs = pmg.mix is not None or any(transform.num_layers for transform in pmg.transforms)
    return pmg(images, ids=torch.arange(len(images)), partner_images=partners if needs else None)


def _animation(folder: Path, name: str, rows: Sequence[Sequence[Tensor]] | Tensor) -> list[str]:
    """Write rows of clips ``(3, T, h, w)`` as one animation; returns the lines that show it."""
    step = SIDE + GAP
    frames = np.full((FRAMES, len(rows) * step - GAP, len(rows[0]) * step - GAP, 3), 255, np.uint8)
    for row, clips in enumerate(rows):
        for column, clip in enumerate(clips):
            top, left = row * step, column * step
            frames[:, top : top + SIDE, left : left + SIDE] = clip.permute(1, 2, 3, 0).numpy()
    pictures = [Image.fromarray(frames[t]) for t in (*range(FRAMES), *range(FRAMES - 2, 0, -1))]
    path = folder / f"gallery-{name}.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=1000 // FPS, loop=0, quality=38, method=4)
    return [f"```{{image}} generated/{path.name}", f":alt: {sum(map(len, rows))} clips: {name}", ":loading: lazy", "```", ""]


def _code(lines: Sequence[str], language: str = "python") -> list[str]:
    return [f"```{language}", *lines, "```", ""]


if __name__ == "__main__":
    make(Path(__file__).parent / "generated")
