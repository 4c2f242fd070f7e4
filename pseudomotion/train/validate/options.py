"""What ``pmg-validate`` compares, one line per way to pre-train, and its options."""

import re
import shlex
from dataclasses import dataclass
from typing import ClassVar

from pseudomotion.names import SOURCES
from pseudomotion.train.engine.options import Options, option
from pseudomotion.train.options import MODELS

STAGES = ("fine-tuning", "low-shot", "linear")  # probes that are trained for a number of steps
PROBES = (*STAGES, "direction")
DEFAULT_STEPS = (1200, 600, 300, 600)
# Options that may change when a command is repeated: finished trials stay what they are.
CHANGEABLE = ("out", "arms", "seeds", "probe", "budget", "steps")

# Options of pmg-pretrain on top of those that all arms share (no mixing, zoom and affine); None: no pre-training.
# Images are frames of the training videos, or textures where there are none; "--source NAME" takes synthetic ones instead.
# An arm of your own needs no line here: --arms "NAME: OPTIONS".
ARMS: dict[str, str | None] = {
    "scratch": None,
    "one-frame": None,  # labeled clips stand still, too: what appearance alone is worth
    "identity": "--transforms identity",
    "zoom-affine": "",
    "zoom-affine-mixup": "--mix mixup",
    "perspective": "--transforms perspective",
    "elastic": "--transforms elastic",
    "shake": "--transforms shake",
    "objects": "--objects mixed",
    "yu2024": "--objects yu2024",
    "smile2025": "--objects smile2025",
    "cutmix": "--transforms cutmix",
    "all": "--transforms sliding_window zoom fade affine perspective color_jitter cutmix",
    "half": "--strength 0.5",
    "double": "--strength 2",
    "composed": "--resampling composed",
    "border": "--padding-mode border",
    "reflection": "--padding-mode reflection",
    "10-images": "--limit 10",
    "100-images": "--limit 100",
    **{f"identity-{name}": f"--source {name} --transforms identity" for name in SOURCES},
    **{f"zoom-affine-{name}": f"--source {name}" for name in SOURCES},
    "videos": "--clips videos",
    "pmg-aug": "--clips pmg-aug",
}


def words_of(arm: str) -> list[str] | None:
    """The options of ``pmg-pretrain`` that make an arm; None for no pre-training."""
    options = ARMS[arm] if arm in ARMS else arm.partition(":")[2]
    return None if options is None else shlex.split(options)


def name_of(arm: str) -> str:
    """The name of an arm, without the options of one that is not listed here."""
    return arm.partition(":")[0].strip()


@dataclass(frozen=True, kw_only=True)
class ValidateOptions(Options):
    """Options of ``pmg-validate``."""

    group: ClassVar[str] = "comparison"
    has_recipes: ClassVar[bool] = False

    out: str = option(help="folder to write to; a repeated command runs what is missing there", metavar="FOLDER")
    arms: list[str] = option(
        ["scratch", "identity", "zoom-affine", "zoom-affine-mixup"],
        help=f'ways to pre-train, compared with the first: {", ".join(ARMS)}; or your own, as "NAME: options of pmg-pretrain"',
        metavar="ARM",
    )
    seeds: int = option(2, help="trials of every arm; images, labeled clips, weights and order vary with the seed", least=1)
    probe: list[str] = option(
        list(STAGES),
        help="what encoders are measured by: fine-tuning, on all labeled clips; low-shot, on --shots of each class; linear, a linear probe "
        "of the classes; direction, linear probes of how real videos move (needs OpenCV)",
        metavar="NAME",
    )
    train: str | None = option(None, help='real videos, lines of "path label"; none for the built-in motion probe', metavar="LIST")
    test: str | None = option(None, help="list of real videos to test on", metavar="LIST")
    film: str | None = option(
        None, help="regular expression: what tells a video's film in its name; none: each video is one", metavar="REGEX"
    )
    stride: int = option(2, help="of real videos: frames from one frame of a clip to the next", least=1)
    gray: bool = option(False, help="make all clips gray, which small models learn faster")
    model: str = option("micro", help=f"size of the model: {', '.join(MODELS)}", choices=MODELS, metavar="SIZE")
    images: int = option(600, help="images to pre-train on; of videos, a frame of each", least=2)
    train_clips: int = option(2400, help="clips of the motion probe to train on", least=12)
    test_clips: int = option(600, help="clips of the motion probe to test on", least=12)
    shots: int = option(20, help="clips per class in low-shot training", least=1)
    batch_size: int = option(32, help="clips of a step", least=2)
    steps: list[int] = option(list(DEFAULT_STEPS), help=f"of pre-training, and of the probes {', '.join(STAGES)}", length=4, least=1)
    budget: str | None = option(None, help="time for all trials, such as 8m, to which --steps are scaled", metavar="TIME")
    base_lr: float = option(0.016, help="peak learning rate of all stages, for 256 clips a step", metavar="RATE")
    cpu: bool = option(False, help="train on the CPU even if there is a GPU")

    def __post_init__(self) -> None:
        super().__post_init__()
        if bad := [arm for arm in self.arms if arm not in ARMS and ":" not in arm]:
            raise ValueError(f'arms must be of {", ".join(ARMS)}, or "NAME: options", got {", ".join(bad)}')
        if len(set(map(name_of, self.arms))) < len(self.arms):
            raise ValueError(f"arms must have different names, got {', '.join(map(name_of, self.arms))}")
        if not self.probe or set(self.probe) - set(PROBES):
            raise ValueError(f"probe must be of {', '.join(PROBES)}, got {', '.join(self.probe)}")
        if (self.train is None) != (self.test is None):
            raise ValueError("train and test must be given together")
        if self.budget is not None and not re.fullmatch(r"\d+(\.\d+)?[smh]", self.budget):
            raise ValueError(f"budget must be a number and s, m or h, got {self.budget!r}")
        if self.train is None and (real := [name_of(arm) for arm in self.arms if "--clips" in (words_of(arm) or [])]):
            raise ValueError(f"arms {', '.join(real)} need lists of real videos: --train and --test")
        if self.train is None and "direction" in self.probe:
            raise ValueError("probe direction needs lists of real videos: --train and --test")
