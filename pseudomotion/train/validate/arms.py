"""What ``pmg-validate`` compares: one line per way to pre-train."""

import shlex

from pseudomotion.names import SOURCES

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
