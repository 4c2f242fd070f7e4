"""What the page asks for, checked, and what it gets: clips, their plans in words, and the Python that makes them."""

import dataclasses
import inspect
import io
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from pseudomotion import checks
from pseudomotion.images import builtin_picture
from pseudomotion.images.files import decode_image
from pseudomotion.images.synthetic import SOURCES
from pseudomotion.labels.overlay import SHOWS
from pseudomotion.mix import Mixup, VideoMix
from pseudomotion.objects import PRESETS, Objects
from pseudomotion.plan import PADDING_MODES
from pseudomotion.pmg import PMG, RESAMPLINGS
from pseudomotion.transforms import ALL_TRANSFORMS, Transform
from pseudomotion.video import write_video

Frames = UInt8[np.ndarray, "T h w 3"]

SIZES = (64, 320)
MOST_FRAMES = 64
EIGHT = 8
FPS = 12
GAP = 4
MOST_PIXELS = 50_000_000  # of an upload
LARGEST_SIDE = 1024  # of an upload as it is used: larger ones are reduced, so that a change shows at once
CUTOUT = (256, 256)  # size of a cut-out
MIXES = {"none": None, "mixup": Mixup(), "videomix": VideoMix()}
# The ranges of objects that the page offers, with the ends of their sliders.
OBJECT_SLIDERS = {
    "count": (0, 40),
    "size": (0.05, 2),
    "speed": (0, 0.1),
    "bend": (0, 0.48),
    "feather": (0.5, 20),
    "opacity": (0, 1),
    "presence": (0.05, 1),
}

Ranges = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Picture:
    """An image file that a visitor uploaded, or that the command was started with.

    Args:
        content: the file, which is decoded once to check it.
        name: what the code calls it.

    Raises:
        ValueError: if it is not an image that can be decoded, or has more than ``MOST_PIXELS`` pixels.

    """

    content: bytes = field(repr=False)
    name: str
    reduced: tuple[int, int] | None = field(init=False)  # (h, w) of a picture that is larger than LARGEST_SIDE

    def __post_init__(self) -> None:
        """Decode the file."""
        _, h, w = decode_image(io.BytesIO(self.content), self.name, max_pixels=MOST_PIXELS).shape
        share = LARGEST_SIDE / max(h, w)
        object.__setattr__(self, "reduced", (max(round(h * share), 1), max(round(w * share), 1)) if share < 1 else None)

    def pixels(self, size: tuple[int, int] | None = None) -> UInt8[Tensor, "3 H W"]:
        """The picture in a size, or in its own."""
        return _decoded(self, size or self.reduced)

    def cutout(self) -> UInt8[Tensor, "4 h w"]:
        """The picture with its alpha.

        Raises:
            ValueError: if no pixel is transparent.

        """
        found = _decoded(self, CUTOUT, alpha=True)
        if (found[3] == 255).all():
            raise ValueError(f"cutouts need a second picture with transparent parts; {self.name} has none")
        return found


@lru_cache(maxsize=16)  # of at most 3 MB each
def _decoded(picture: Picture, size: tuple[int, int] | None, *, alpha: bool = False) -> UInt8[Tensor, "C H W"]:
    return decode_image(io.BytesIO(picture.content), picture.name, size, max_pixels=MOST_PIXELS, alpha=alpha)


@dataclass(frozen=True)
class State:
    """Everything that determines what the page shows. Each field is a key of the JSON that the page sends.

    Args:
        image: "picture" (the built-in one), the name of a synthetic source, or the key of an upload.
        partner: the second picture, which mixing, cutmix and objects show: likewise, or "night" (the built-in picture at night).
        transform: name of a transform.
        ranges: values of its fields, each a pair; what is missing has its default.
        resampling: "recursive", "composed" or "both" (side by side).
        padding: padding mode.
        crop: smallest and largest area of the first view; [1, 1]: no crop.
        mix: a name in ``MIXES``.
        exposure: motion blur, as a share of the frame interval; 0: none.
        objects: "none" or a name in ``PRESETS``; "cutouts" are cut out of ``partner`` by its alpha.
        object_ranges: values of ``Objects``' fields in ``OBJECT_SLIDERS``, likewise.
        show: "none" or a label to draw.
        frames: number of frames.
        size: side of a frame in pixels.
        seed: of the motion.
        id: of the clip, and of the image of a synthetic source.
        eight: show the clips of eight ids, ``id`` to ``id + 7``.

    """

    image: str = "picture"
    partner: str = "night"
    transform: str = "affine"
    ranges: Ranges = field(default_factory=dict)
    resampling: str = "recursive"
    padding: str = "zeros"
    crop: Sequence[float] = (1.0, 1.0)
    mix: str = "none"
    exposure: float = 0.0
    objects: str = "none"
    object_ranges: Ranges = field(default_factory=dict)
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
        checks.probability(state.exposure, "exposure")
        checks.bounded_int("frames", state.frames, 1, MOST_FRAMES)
        checks.bounded_int("size", state.size, *SIZES)
        checks.bounded_int("seed", state.seed, 0, 2**32 - 1)
        checks.bounded_int("id", state.id, 0, 2**31)
        if state.mix != "none" and state.show != "none":
            raise ValueError("labels are drawn over clips that are not mixed: choose no label, or no mixing")
        state.make_transform()
        state.make_objects()
        return state

    def make_transform(self) -> Transform:
        """The transform, with the ranges that differ from its defaults."""
        cls = ALL_TRANSFORMS[self.transform]
        return cls(**_changed(self.ranges, cls(), [each.name for each in _ranges(cls)]))

    def make_objects(self) -> Objects | None:
        """The objects, with the ranges that differ from the preset's."""
        if self.objects == "none":
            return None
        preset = PRESETS[self.objects]()
        return dataclasses.replace(preset, **_changed(self.object_ranges, preset, OBJECT_SLIDERS))

    @property
    def has_partner(self) -> bool:
        """Whether the clip shows the second picture, other than as a cut-out."""
        return self.mix != "none" or self.objects not in ("none", "cutouts") or ALL_TRANSFORMS[self.transform].num_layers > 0

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
                exposure=self.exposure,
                objects=self.make_objects(),
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
    textures = _uploaded(state.partner, uploads).cutout()[None] if state.objects == "cutouts" else None
    shape = None if textures is None else textures.shape
    clips, words = [], ""
    for pmg in generators:
        for number in ids:
            image = _image(state.image, number, uploads)
            partner = _partner(state.partner, number, uploads, image)[None] if state.has_partner else None
            plan = pmg.plan((1, *image.shape), ids=torch.tensor([number]), partner_images=partner is not None, textures=shape)
            clip = pmg.render(image[None], plan, partner_images=partner, textures=textures)[0]
            frames = clip.permute(1, 2, 3, 0).numpy()
            clips.append(frames if state.show == "none" else SHOWS[state.show](frames, plan, 0, textures))
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
    """What the page offers: names, and for every transform and preset its ranges with limits, defaults and descriptions."""
    ranges = {}
    for name, cls in ALL_TRANSFORMS.items():
        default = cls()
        limits = {each.name: _ends(each.metadata["allowed"], getattr(default, each.name)) for each in _ranges(cls)}
        ranges[name] = {"about": _about(cls), "ranges": _sliders(default, limits)}
    return {
        "images": ["picture", *SOURCES],
        "partners": ["night", "picture", *SOURCES],
        "transforms": ranges,
        "resampling": [*RESAMPLINGS, "both"],
        "padding": list(PADDING_MODES),
        "mix": list(MIXES),
        "objects": {"none": []} | {name: _sliders(preset(), OBJECT_SLIDERS) for name, preset in PRESETS.items()},
        "show": ["none", *SHOWS],
        "frames": [1, MOST_FRAMES],
        "size": list(SIZES),
        "defaults": dataclasses.asdict(State()),
    }


def _ranges(cls: type[Transform]) -> list["dataclasses.Field[Any]"]:
    """The fields of a transform that are ranges."""
    return [each for each in fields(cls) if "allowed" in each.metadata]  # type: ignore[arg-type]


def _changed(ranges: Any, default: Any, names: Iterable[str]) -> dict[str, Any]:
    """What differs from a default, of fields with these names; others belong to another transform."""
    if not isinstance(ranges, dict) or not all(isinstance(pair, list | tuple) for pair in ranges.values()):
        raise TypeError("ranges must be pairs of numbers by name")
    given = {name: tuple(ranges[name]) for name in names if name in ranges}
    return {name: pair for name, pair in given.items() if pair != getattr(default, name)}


def _ends(allowed: tuple[float, float], default: tuple[float, float]) -> tuple[float, float]:
    """The ends of a slider: as far beyond the default as three times its width, within what is allowed."""
    margin = 3 * (default[1] - default[0])
    return max(allowed[0], default[0] - margin), min(allowed[1], default[1] + margin)


def _sliders(default: Any, limits: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """The ranges of a transform or of objects, described as in the class's docstring."""
    about = dict(re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(type(default)) or "", re.MULTILINE))
    return [
        {
            "name": name,
            "about": _plain(about.get(name, "")),
            "low": low,
            "high": high,
            "whole": name == "count",
            "default": getattr(default, name),
        }
        for name, (low, high) in limits.items()
    ]


def _about(cls: type) -> str:
    return _plain((inspect.getdoc(cls) or "").partition("\n\n")[0])


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "").split())


def _image(name: str, number: int, uploads: Mapping[str, Picture]) -> UInt8[Tensor, "3 H W"]:
    if name == "picture":
        return _builtin(448, 448)
    if name in SOURCES:
        return SOURCES[name](size=224).get(torch.tensor([number]))[0]
    return _uploaded(name, uploads).pixels()


def _partner(name: str, number: int, uploads: Mapping[str, Picture], image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 H W"]:
    """The second picture, in the size of the first one."""
    _, h, w = image.shape
    if name in ("night", "picture"):
        return _builtin(h, w, night=name == "night")
    if name in SOURCES:
        return SOURCES[name](size=max(h, w)).get(torch.tensor([number + 1]))[0, :, :h, :w]
    return _uploaded(name, uploads).pixels((h, w))


@lru_cache(maxsize=4)
def _builtin(height: int, width: int, *, night: bool = False) -> UInt8[Tensor, "3 H W"]:
    return builtin_picture(height, width, night=night)


def _uploaded(name: str, uploads: Mapping[str, Picture]) -> Picture:
    if name in ("night", "picture", *SOURCES):
        raise ValueError("cutouts are cut out of the second picture: choose one with transparent parts, such as a PNG file")
    if name not in uploads:
        raise ValueError("this image is no longer here; choose it again")
    return uploads[name]


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
    default = PMG(("identity",))
    optional = ("resampling", "padding_mode", "crop", "mix", "exposure", "seed")
    names = [name for name in optional if getattr(pmg, name) != getattr(default, name)]
    options = [f"({transform!r},)", str(state.frames), str(state.size), *(f"{name}={getattr(pmg, name)!r}" for name in names)]
    lines = [f"ids = torch.tensor([{state.id}])", f"image = {_image_code(state.image, uploads)}"]
    given = ""
    if state.has_partner:
        lines.append(f"partner = {_partner_code(state.partner, uploads)}")
        given = ", partner_images=partner[None]"
    if state.objects == "cutouts":
        lines.append(f"cutout = load_image({uploads[state.partner].name!r}, {CUTOUT}, alpha=True)")
        given += ", textures=cutout[None]"
    if state.objects != "none":
        preset = {"mixed": "Objects()"}.get(state.objects, f"Objects.{state.objects}()")
        changed = _changed(state.object_ranges, PRESETS[state.objects](), OBJECT_SLIDERS)
        changes = ", ".join(f"{name}={pair!r}" for name, pair in changed.items())
        lines.append(f"objects = dataclasses.replace({preset}, {changes})" if changes else f"objects = {preset}")
        options.append("objects=objects")
    lines += [f"pmg = PMG({', '.join(options)})", f"clips = pmg(image[None], ids=ids{given})"]
    body = "\n".join(lines)
    places = {
        "pseudomotion": ["Mixup", "Objects", "PMG", "VideoMix"],
        "pseudomotion.images": ["builtin_picture", "load_image"],
        "pseudomotion.images.synthetic": sorted(source.__name__ for source in SOURCES.values()),
        "pseudomotion.transforms": [type(transform).__name__],
    }
    imports = ["import dataclasses", ""] if "dataclasses." in body else []
    imports.append("import torch")
    for module, public in places.items():
        if used := [name for name in public if re.search(rf"\b{name}\b", body)]:
            imports.append(f"from {module} import {', '.join(used)}")
    return "\n".join([*imports, "", body, ""])


def _image_code(name: str, uploads: Mapping[str, Picture]) -> str:
    if name in SOURCES:
        return f"{SOURCES[name].__name__}(size=224).get(ids)[0]"
    if name in uploads:
        size = uploads[name].reduced
        return f"load_image({uploads[name].name!r}{f', {size}' if size else ''})"
    return "builtin_picture()"


def _partner_code(name: str, uploads: Mapping[str, Picture]) -> str:
    if name in SOURCES:
        return f"{SOURCES[name].__name__}(size=max(image.shape)).get(ids + 1)[0, :, : image.shape[1], : image.shape[2]]"
    if name in uploads:
        return f"load_image({uploads[name].name!r}, tuple(image.shape[1:]))"
    return f"builtin_picture(*image.shape[1:]{', night=True' if name == 'night' else ''})"
