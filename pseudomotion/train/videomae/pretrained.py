"""Models to start from, and to hand on: of a run, a folder, the Hugging Face Hub, or a file of VideoMAE's official key names.

The official names are those that MMAction2, VideoMAEv2 and InternVideo read. The official model computes queries, keys and values by one
linear layer, with a bias for queries and values alone; everything else only has another name. Both directions copy tensors, so a round trip
changes no bit.
"""

import argparse
import json
import logging
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel, VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification
from transformers.utils import logging as transformers_logging

from pseudomotion.files import MADE_BY, check_output, whole_file, whole_folder
from pseudomotion.train.engine.checkpoints import load_model
from pseudomotion.train.videomae.model import SIZES, pretraining_model

Pretrained = TypeVar("Pretrained", bound=PreTrainedModel)

# Parts of transformers' names, and what the official ones have in their place.
_NAMES = (
    (r"^videomae\.embeddings\.patch_embeddings\.projection\.", "ENCODER.patch_embed.proj."),
    (r"^videomae\.encoder\.layer\.", "ENCODER.blocks."),
    (r"^videomae\.layernorm\.", "ENCODER.norm."),
    (r"^decoder\.decoder_layers\.", "decoder.blocks."),
    (r"^classifier\.", "head."),
    (r"\.attention\.attention\.(query|key|value)\.weight$", ".attn.qkv.weight"),
    (r"\.attention\.attention\.([qv])(uery\.|alue\.|_)bias$", r".attn.\1_bias"),  # "q_bias" in transformers before version 5
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)


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
    messages: Any = transformers_logging
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
    """A masked autoencoder with the weights of another model, as for ``load_pretrained``; what the other does not have is new.

    Raises:
        OSError, ValueError: as for ``load_pretrained``; for a model that does not hold a whole encoder.

    """

    def settings(config: VideoMAEConfig) -> VideoMAEConfig:
        config.use_mean_pooling = False
        return config

    other, absent = load_pretrained(VideoMAEForPreTraining, init, settings, frame_size=frame_size, num_frames=num_frames)
    check_encoder(init, absent)
    model = pretraining_model(other.config)
    model.load_state_dict({name: value for name, value in other.state_dict().items() if name not in absent}, strict=False)
    return model


def check_encoder(init: str | Path, absent: list[str]) -> None:
    """Check that the weights that a model does not have are not of its embeddings or blocks."""
    if lost := [name for name in absent if name.startswith(("videomae.embeddings.", "videomae.encoder."))]:
        raise ValueError(f"{init} does not hold all weights of the encoder: no {', '.join(lost[:3])}")


def to_official(model: PreTrainedModel) -> dict[str, Tensor]:
    """Weights of a model by their official names, on the CPU; ``load_state_dict(strict=True)`` of the official class takes them."""
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    return {official: torch.cat([weights[name] for name in own]) for official, own in _names(model).items()}


def from_official(
    weights: Mapping[str, Tensor],
    *,
    frame_size: int = 224,
    num_frames: int = 16,
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
) -> PreTrainedModel:
    """A model with weights of official names: of a pre-trained model with its decoder, or of a fine-tuned one.

    Args:
        weights: by their official names; "module." of distributed training may precede them.
        frame_size: side of the frames in pixels, which the weights do not tell.
        num_frames: T, which they do not tell either.
        num_heads: of the encoder; None for that of VideoMAE's models of this width.
        decoder_num_heads: of the decoder; None for that of VideoMAE's models of this width.

    Raises:
        ValueError: if a weight is missing, is of no VideoMAE model, or has the wrong shape; if the number of heads must be given.

    """
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    pretrained = "encoder_to_decoder.weight" in weights
    encoder = "encoder." if pretrained else ""
    try:
        width, _, tubelet, patch, _ = weights[f"{encoder}patch_embed.proj.weight"].shape
        settings = {
            "hidden_size": width,
            "num_hidden_layers": _blocks(weights, f"{encoder}blocks."),
            "num_attention_heads": num_heads or _heads("num_heads", {size.width: size.heads for size in SIZES.values()}, width),
            "intermediate_size": len(weights[f"{encoder}blocks.0.mlp.fc1.weight"]),
            "qkv_bias": f"{encoder}blocks.0.attn.q_bias" in weights,
        }
        if pretrained:
            width = len(weights["encoder_to_decoder.weight"])
            heads = {size.decoder_width: size.decoder_heads for size in SIZES.values()}
            settings |= {
                "decoder_hidden_size": width,
                "decoder_num_hidden_layers": _blocks(weights, "decoder.blocks."),
                "decoder_num_attention_heads": decoder_num_heads or _heads("decoder_num_heads", heads, width),
                "decoder_intermediate_size": len(weights["decoder.blocks.0.mlp.fc1.weight"]),
            }
        else:
            settings["num_labels"] = len(weights["head.weight"])
    except KeyError as error:
        raise ValueError(
            f"weights must be those of a VideoMAE model, pre-trained with its decoder or fine-tuned; {error} is missing"
        ) from error
    config = VideoMAEConfig(
        image_size=frame_size,
        num_frames=num_frames,
        patch_size=patch,
        tubelet_size=tubelet,
        layer_norm_eps=1e-6,
        use_mean_pooling=not pretrained,
        **settings,
    )
    model: PreTrainedModel = VideoMAEForPreTraining(config) if pretrained else VideoMAEForVideoClassification(config)
    names = _names(model)
    if wrong := sorted(set(names) ^ set(weights)):
        text = f"without {', '.join(sorted(set(names) - set(weights))[:3])}, with {', '.join(sorted(set(weights) - set(names))[:3])}"
        raise ValueError(f"weights must be those of a VideoMAE model; {len(wrong)} names differ: {text}")
    own = {name: part for official, group in names.items() for name, part in zip(group, weights[official].chunk(len(group)), strict=True)}
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"weights do not fit a VideoMAE model: {error}") from error
    return model


def read_official(path: str | Path) -> dict[str, Tensor]:
    """The weights in a ``.pth`` file of VideoMAE's code, by name. Code in the file is not run: only tensors and plain values are read.

    Raises:
        OSError: if there is no such file.
        ValueError: if it holds anything else than tensors and plain values, or no weights.

    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # VideoMAE saves its options beside the weights
            read = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"cannot read {path}: {str(error).splitlines()[0] if str(error) else 'it is cut off'}") from error
    weights = next((read[key] for key in ("model", "module") if isinstance(read, dict) and key in read), read)
    if not isinstance(weights, dict) or not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"cannot read {path}: it holds no weights")
    return dict(weights)


def load(path: str | Path) -> PreTrainedModel:
    """A whole model of transformers' format, with its decoder or its head."""
    folder = model_folder(path)
    kinds = {kind.__name__: kind for kind in (VideoMAEForPreTraining, VideoMAEForVideoClassification)}
    kind = (json.loads((folder / "config.json").read_text()).get("architectures") or ["none"])[0]
    if kind not in kinds:
        raise ValueError(f"{folder} must hold one of {', '.join(kinds)}, it holds {kind}")
    return load_model(kinds[kind], folder)


def _blocks(weights: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)})


def _heads(name: str, known: Mapping[int, int], width: int) -> int:
    if width not in known:
        raise ValueError(f"{name} must be given for a width of {width}; it is known for {', '.join(map(str, sorted(known)))}")
    return known[width]


def _names(model: PreTrainedModel) -> dict[str, list[str]]:
    """For every official name those of transformers: one, or those of queries, keys and values, in this order."""
    encoder = "encoder." if isinstance(model, VideoMAEForPreTraining) else ""
    names: dict[str, list[str]] = {}
    for name in model.state_dict():
        official = name
        for pattern, new in _NAMES:
            official = re.sub(pattern, new.replace("ENCODER.", encoder), official)
        names.setdefault(official, []).append(name)
    for group in names.values():
        group.sort(key=lambda name: ("query" in name, "key" in name, "value" in name), reverse=True)
    return names


def convert(options: argparse.Namespace) -> None:
    """Do what ``pmg-convert`` was told; ``train/cli.py`` parses its command line."""
    transformers_logging.disable_progress_bar()
    if Path(options.model).is_file():
        out = Path(options.out)
        if out.exists() and not (options.force and (out / "config.json").is_file()):
            raise FileExistsError(f"cannot write {out}: it exists; choose another name, or replace a model's folder with --force")
        sizes = {name: getattr(options, name) for name in ("frame_size", "num_frames", "num_heads", "decoder_num_heads")}
        model = from_official(read_official(options.model), **sizes)
        with whole_folder(out) as folder:
            model.save_pretrained(folder)
    else:
        out = check_output(options.out, force=options.force)
        model = load(options.model)
        with whole_file(out) as file:
            torch.save({"made_by": MADE_BY, "model": to_official(model)}, file)
    print(f"{out}: {type(model).__name__} of {model.num_parameters() / 1e6:.3g} million weights")  # noqa: T201
