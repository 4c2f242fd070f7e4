"""Models to start from: of a run, a folder, the Hugging Face Hub, or VideoMAE's official code."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import PreTrainedModel, VideoMAEConfig, VideoMAEForPreTraining

from pseudomotion.train.videomae.convert import from_official, read_official
from pseudomotion.train.videomae.model import pretraining_model

Pretrained = TypeVar("Pretrained", bound=PreTrainedModel)


def model_folder(model: str | Path) -> Path:
    """The folder of a model: one that ``save_pretrained`` wrote, ``model`` in a run, or the cached copy of one on the Hugging Face Hub.

    Args:
        model: a folder, or "owner/name" on the Hub, which is downloaded if it is not cached; safetensors and JSON files alone.

    Raises:
        FileNotFoundError: where there is none.

    """
    for folder in (Path(model), Path(model) / "model"):
        if (folder / "config.json").is_file():
            return folder
    absent = f"there is no model in {model}: neither config.json nor model/config.json"
    if Path(model).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(model)):
        raise FileNotFoundError(absent)
    files = ["*.json", "*.safetensors"]
    try:
        try:
            return Path(snapshot_download(str(model), allow_patterns=files, local_files_only=True))
        except LocalEntryNotFoundError:
            return Path(snapshot_download(str(model), allow_patterns=files))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise FileNotFoundError(f"{absent}, and the Hugging Face Hub gave none: {str(error).splitlines()[0]}") from error


def load_pretrained(
    kind: type[Pretrained],
    init: str | Path,
    settings: Callable[[VideoMAEConfig], VideoMAEConfig] = lambda config: config,
    *,
    frame_size: int | None = None,
    num_frames: int | None = None,
) -> tuple[Pretrained, list[str]]:
    """A model with the weights of another one, as far as their names fit; from safetensors, or tensors alone, never a pickle that runs.

    Args:
        kind: class of the model.
        init: as for ``model_folder``; or a ``.pth`` file of VideoMAE's official code.
        settings: of the new model, made of those of the other.
        frame_size: side of the frames in pixels that the other model must have; None for any. A ``.pth`` file does not tell: 224 if None.
        num_frames: T, likewise; 16 if None.

    Returns:
        The model, and the names of its weights that the other one does not have, which are new.

    Raises:
        OSError: where there is no such model.
        ValueError: where it is no VideoMAE model, or its clips have another size.

    """
    if Path(init).is_file():
        source = from_official(read_official(init), frame_size=frame_size or 224, num_frames=num_frames or 16)
        model = kind(settings(source.config))
        own = model.state_dict()
        fitting = {name: value for name, value in source.state_dict().items() if name in own and own[name].shape == value.shape}
        return model, list(model.load_state_dict(fitting, strict=False).missing_keys)
    folder = model_folder(init)
    values = json.loads((folder / "config.json").read_text())
    if values.get("model_type") != "videomae":
        raise ValueError(f"{folder} must hold a VideoMAE model, it is of type {values.get('model_type')!r}")
    config = VideoMAEConfig.from_dict(values)
    for name, asked, found in (("frame_size", frame_size, config.image_size), ("num_frames", num_frames, config.num_frames)):
        if asked not in (None, found):
            raise ValueError(f"{name} is {found} in the model of {init}, got {asked}; leave it out")
    messages: Any = transformers.utils.logging
    verbosity = messages.get_verbosity()
    messages.set_verbosity(logging.ERROR)  # that weights are new, or not taken over, is as it should be
    messages.disable_progress_bar()
    try:
        model, report = kind.from_pretrained(
            folder,
            config=settings(config),
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # of a head with other classes, which is not kept
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise ValueError(f"{folder} holds no model: {error}") from error
    finally:
        messages.set_verbosity(verbosity)
    return model, sorted([*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])])


def pretrained_autoencoder(init: str | Path, *, frame_size: int | None = None, num_frames: int | None = None) -> VideoMAEForPreTraining:
    """A masked autoencoder with the weights of another model; a decoder or a last norm that the other does not have is new.

    Args:
        init: as for ``load_pretrained``, pre-trained or fine-tuned.
        frame_size: as for ``load_pretrained``.
        num_frames: as for ``load_pretrained``.

    Raises:
        OSError, ValueError: as for ``load_pretrained``; for a model that does not hold a whole encoder.

    """
    other, absent = load_pretrained(VideoMAEForPreTraining, init, _for_pretraining, frame_size=frame_size, num_frames=num_frames)
    check_encoder(init, absent)
    model = pretraining_model(other.config)
    model.load_state_dict({name: value for name, value in other.state_dict().items() if name not in absent}, strict=False)
    return model


def check_encoder(init: str | Path, absent: list[str]) -> None:
    """Check that the weights that a model does not have are not of its embeddings or blocks."""
    if lost := [name for name in absent if name.startswith(("videomae.embeddings.", "videomae.encoder."))]:
        raise ValueError(f"{init} does not hold all weights of the encoder: no {', '.join(lost[:3])}")


def _for_pretraining(config: VideoMAEConfig) -> VideoMAEConfig:
    config.use_mean_pooling = False
    return config
