"""What the page asks for, checked, and what it gets: clips, their plans in words, and the Python that makes them."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from pseudomotion import checks
from pseudomotion.images import builtin_picture
from pseudomotion.images.synthetic import SOURCES
from pseudomotion.labels.overlay import SHOWS
from pseudomotion.mix import Mixup, VideoMix
from pseudomotion.objects import PRESETS
from pseudomotion.plan import PADDING_MODES, MotionPlan
from pseudomotion.pmg import PMG, RESAMPLINGS
from pseudomotion.transforms import ALL_TRANSFORMS, Transform
from pseudomotion.video import write_video

Frames = UInt8[np.ndarray, "T h w 3"]

SIZES = (64, 320)
MOST_FRAMES = 64
EIGHT = 8
FPS = 12
GAP = 4
MIXES = {"none": None, "mixup": Mixup(), "videomix": VideoMix()}
_NIGHT = "builtin_picture(*image.shape[1:], night=True)"


@dataclass(frozen=True)
class Picture:
    """An image that a visitor uploaded, or that the command was started with."""

    pixels: UInt8[Tensor, "3 H W"]
    name: str


@dataclass(frozen=True)
class State:
    """Everything that determines what the page shows. Each field is a key of the JSON that the page sends.

    Args:
        image: "picture" (the built-in one), the name of a synthetic source, or the key of an upload.
        transform: name of a transform.
        ranges: values of its fields, each a pair; what is missing has its default.
        resampling: "recursive", "composed" or "both" (side by side).
        padding: padding mode.
        crop: smallest and largest area of the first view; [1, 1]: no crop.
        mix: a name in ``MIXES``; partners are clips of the built-in picture at night.
        objects: "none" or a name in ``PRESETS``.
        show: "none" or a label to draw.
        frames: number of frames.
        size: side of a frame in pixels.
        seed: of the motion.
        id: of the clip, and of the image of a synthetic source.
        eight: show the clips of eight ids, ``id`` to ``id + 7``.

    """

    image: str = "picture"
    transform: str = "affine"
    ranges: Mapping[str, Sequence[float]] | None = None
    resampling: str = "recursive"
    padding: str = "zeros"
    crop: Sequence[float] = (1.0, 1.0)
    mix: str = "none"
    objects: str = "none"
    show: str = "none"
    frames: int = 16
    size: int = 224
    seed: int = 0
    id: int = 0
    eight: bool = False

    @classmethod
    def parse(cls, values: Any) -> "State":
        """Check what came from a browser.

        Raises:
            TypeError, ValueError: for unknown keys, and for values that are not allowed.

        """
        if not isinstance(values, dict) or not values.keys() <= {field.name for field in fields(cls)}:
            raise ValueError("the page's state is not one of this version; reload the page")
        state = cls(**values)
        checks.one_of("transform", state.transform, tuple(ALL_TRANSFORMS))
        checks.one_of("resampling", state.resampling, (*RESAMPLINGS, "both"))
        checks.one_of("padding", state.padding, PADDING_MODES)
        checks.one_of("mix", state.mix, tuple(MIXES))
        checks.one_of("objects", state.objects, ("none", *PRESETS))
        checks.one_of("show", state.show, ("none", *SHOWS))
        checks.crop(state.crop)
        checks.bounded_int("frames", state.frames, 1, MOST_FRAMES)
        checks.bounded_int("size", state.size, *SIZES)
        checks.bounded_int("seed", state.seed, 0, 2**32 - 1)
        checks.bounded_int("id", state.id, 0, 2**31)
        if state.mix != "none" and state.show != "none":
            raise ValueError("labels are drawn over clips that are not mixed: choose no label, or no mixing")
        state.make_transform()
        return state

    def make_transform(self) -> Transform:
        """The transform, with the ranges that differ from its defaults."""
        cls = ALL_TRANSFORMS[self.transform]
        default = cls()
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        given = {name: tuple(pair) for name, pair in (self.ranges or {}).items() if name in known}
        return cls(**{name: pair for name, pair in given.items() if pair != getattr(default, name)})

    def generators(self) -> list[PMG]:
        """One, or two to be shown side by side."""
        modes = RESAMPLINGS if self.resampling == "both" else (self.resampling,)
        return [
            PMG(
                (self.make_transform(),),
                self.frames,
                self.size,
                resampling=mode,
                padding_mode=self.padding,
                crop=None if tuple(self.crop) == (1, 1) else tuple(self.crop),  # type: ignore[arg-type]
                mix=MIXES[self.mix],
                objects=None if self.objects == "none" else PRESETS[self.objects](),
                seed=self.seed,
            )
            for mode in modes
        ]


@dataclass(frozen=True)
class Shown:
    """Clips, laid out as one, with what explains them."""

    frames: Frames
    plan: str
    code: str


def show(state: State, uploads: Mapping[str, Picture]) -> Shown:
    """Make the clips of a state.

    Raises:
        ValueError: for an upload that the server no longer has.

    """
    ids = range(state.id, state.id + (EIGHT if state.eight else 1))
    generators = state.generators()
    clips, words = [], ""
    for pmg in generators:
        for number in ids:
            image = _image(state.image, number, uploads)
            night = builtin_picture(*image.shape[-2:], night=True)
            partners = state.mix != "none" or state.objects != "none" or any(t.num_layers for t in pmg.transforms)
            plan = pmg.plan((1, *image.shape), ids=torch.tensor([number]), partner_images=partners)
            clip = pmg.render(image[None], plan, partner_images=night[None] if partners else None)[0]
            clips.append(_labeled(clip.permute(1, 2, 3, 0).numpy(), plan, state.show))
            words = words or plan.describe(0)
    return Shown(_side_by_side(clips, len(generators)), words, _code(state, generators[0], uploads))


def encode(frames: Frames, suffix: str) -> bytes:
    """A file of the frames: ".webp" (lossless; it loops), ".mp4" or ".png" (a sheet: the frames in a row)."""
    if suffix == ".mp4":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "clip.mp4")
            write_video(path, frames, fps=FPS)
            return path.read_bytes()
    file = io.BytesIO()
    if suffix == ".png":
        Image.fromarray(np.concatenate(frames, axis=1)).save(file, "PNG")
        return file.getvalue()
    first, *rest = map(Image.fromarray, frames)
    first.save(file, "WEBP", save_all=True, append_images=rest, duration=1000 // FPS, loop=0, lossless=True, quality=0, method=0)
    return file.getvalue()


def controls() -> dict[str, Any]:
    """What the page offers: names, and for every transform its ranges with limits and defaults."""
    ranges = {}
    for name, cls in ALL_TRANSFORMS.items():
        default = cls()
        ranges[name] = [_slider(field.name, field.metadata["allowed"], getattr(default, field.name)) for field in fields(cls)]  # type: ignore[arg-type]
    return {
        "images": ["picture", *SOURCES],
        "transforms": ranges,
        "resampling": [*RESAMPLINGS, "both"],
        "padding": list(PADDING_MODES),
        "mix": list(MIXES),
        "objects": ["none", *PRESETS],
        "show": ["none", *SHOWS],
        "frames": [1, MOST_FRAMES],
        "size": list(SIZES),
        "defaults": {field.name: field.default for field in fields(State)},
    }


def _slider(name: str, allowed: tuple[float, float], default: tuple[float, float]) -> dict[str, Any]:
    """A range whose slider goes as far beyond the default as three times its width, within what is allowed."""
    margin = 3 * (default[1] - default[0])
    return {"name": name, "low": max(allowed[0], default[0] - margin), "high": min(allowed[1], default[1] + margin), "default": default}


def _image(name: str, number: int, uploads: Mapping[str, Picture]) -> UInt8[Tensor, "3 H W"]:
    if name == "picture":
        return builtin_picture()
    if name in SOURCES:
        return SOURCES[name](size=224).get(torch.tensor([number]))[0]
    if name not in uploads:
        raise ValueError("this image is no longer here; choose it again")
    return uploads[name].pixels


def _labeled(frames: Frames, plan: MotionPlan, label: str) -> Frames:
    return frames if label == "none" else SHOWS[label](frames, plan, 0)


def _side_by_side(clips: Sequence[Frames], rows: int) -> Frames:
    """Clips in rows with gaps of white."""
    if len(clips) == 1:
        return clips[0]
    rows = max(rows, len(clips) // 4)
    columns = len(clips) // rows
    t, h, w, _ = clips[0].shape
    frames = np.full((t, rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, 3), 255, np.uint8)
    for k, clip in enumerate(clips):
        top, left = k // columns * (h + GAP), k % columns * (w + GAP)
        frames[:, top : top + h, left : left + w] = clip
    return frames


def _code(state: State, pmg: PMG, uploads: Mapping[str, Picture]) -> str:
    """The Python that makes the first clip, bit by bit."""
    transform = pmg.transforms[0]
    options = [f"({transform!r},)", str(state.frames), str(state.size)]
    default = PMG(("identity",))
    names = [name for name in ("resampling", "padding_mode", "crop", "mix", "seed") if getattr(pmg, name) != getattr(default, name)]
    options += [f"{name}={getattr(pmg, name)!r}" for name in names]
    public = {"PMG"} | ({type(pmg.mix).__name__} if pmg.mix else set())
    if state.objects != "none":
        preset = {"mixed": "Objects()"}.get(state.objects, f"Objects.{state.objects}()")
        options.append(f"objects={preset}")
        public.add("Objects")
    if state.image in SOURCES:
        source = SOURCES[state.image].__name__
        imports, image = [f"from pseudomotion.images.synthetic import {source}"], f"{source}(size=224).get(ids)[0]"
    elif state.image in uploads:
        imports, image = ["from pseudomotion.images import load_image"], f"load_image({uploads[state.image].name!r})"
    else:
        imports, image = ["from pseudomotion.images import builtin_picture"], "builtin_picture()"
    partners = state.mix != "none" or state.objects != "none" or transform.num_layers > 0
    if partners and "builtin_picture" not in imports[0]:
        imports.insert(0, "from pseudomotion.images import builtin_picture")
    lines = ["import torch", f"from pseudomotion import {', '.join(sorted(public))}", *imports]
    lines += [
        f"from pseudomotion.transforms import {type(transform).__name__}",
        "",
        f"ids = torch.tensor([{state.id}])",
        f"image = {image}",
    ]
    lines += [f"pmg = PMG({', '.join(options)})"]
    if partners:
        lines += [f"partner = {_NIGHT}", "clips = pmg(image[None], ids=ids, partner_images=partner[None])"]
    else:
        lines += ["clips = pmg(image[None], ids=ids)"]
    return "\n".join(lines) + "\n"
