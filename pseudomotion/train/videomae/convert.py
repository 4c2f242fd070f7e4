"""``pmg-convert``: models to and from the key names of VideoMAE's official repository, which MMAction2, VideoMAEv2 and InternVideo read.

The official model computes queries, keys and values by one linear layer, with a bias for queries and values alone. Everything else only
has another name. Both directions copy tensors, so a round trip changes no bit.
"""

import argparse
import json
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification
from transformers.utils import logging as transformers_logging

from pseudomotion.command import run
from pseudomotion.files import MADE_BY, check_output, whole_file, whole_folder
from pseudomotion.train.engine.checkpoints import load_model
from pseudomotion.train.videomae.model import SIZES

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
    """A model of transformers' format, with its decoder or its head, from its folder or from a run that holds it.

    Raises:
        OSError: if there is none.
        ValueError: if it is of another kind, or not all of its weights are there.

    """
    from pseudomotion.train.videomae.pretrained import model_folder  # which reads official files itself

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="pmg-convert",
        description="Convert a model to a .pth file of VideoMAE's official key names, or such a file to a folder of transformers.",
    )
    parser.add_argument("model", metavar="MODEL", help="a run or a model's folder; or a .pth file of VideoMAE's code")
    parser.add_argument("out", metavar="OUT", help="a .pth file; or a folder, if MODEL is a file")
    parser.add_argument("--frame-size", type=int, default=224, metavar="PX", help="of MODEL, if it is a file (default: 224)")
    parser.add_argument("--num-frames", type=int, default=16, metavar="T", help="of MODEL, if it is a file (default: 16)")
    parser.add_argument("--num-heads", type=int, metavar="N", help="of a file's encoder (default: as in VideoMAE's models of its width)")
    parser.add_argument("--decoder-num-heads", type=int, metavar="N", help="of a file's decoder (default: likewise)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    options = parser.parse_args(arguments)
    transformers_logging.disable_progress_bar()
    return run("pmg-convert", lambda: _convert(options))


def _convert(options: argparse.Namespace) -> None:
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
