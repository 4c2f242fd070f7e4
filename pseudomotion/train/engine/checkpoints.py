"""Checkpoints of a run: folders ``step-00001234`` that appear whole, are checked when read, and hold no pickle.

In each: ``model/`` as transformers' ``save_pretrained`` writes it, ``optimizer.safetensors``, and ``state.json`` with the step and the
checksums of the other files. Nothing else is needed to go on: order, motion, masks and dropout are functions of seed and step.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer
from transformers import PreTrainedModel

from pseudomotion.files import whole_folder

Model = TypeVar("Model", bound=PreTrainedModel)

FORMAT = 1
MODEL, OPTIMIZER, STATE = "model", "optimizer.safetensors", "state.json"


def save(folder: Path, step: int, model: PreTrainedModel, optimizer: Optimizer, *, keep: int) -> Path:
    """Write a checkpoint, and delete all but the last ones, and those of later steps: the run went on from before them.

    Args:
        folder: of the run's checkpoints.
        step: number of steps done.
        model: without wrappers.
        optimizer: whose state is kept.
        keep: how many checkpoints stay.

    Raises:
        OSError: where it cannot be written, such as on a full disk; those before stay.

    """
    path = folder / f"step-{step:08d}"
    try:
        with whole_folder(path) as new:
            model.save_pretrained(new / MODEL)
            save_file(_optimizer_tensors(optimizer), new / OPTIMIZER)
            state = {"format": FORMAT, "step": step, "sums": {name: _sum(new / name) for name in _names(new)}}
            (new / STATE).write_text(json.dumps(state, indent=2))
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(f"cannot write {path}: {error}") from error
    upto = [each for each in checkpoints(folder) if each.name <= path.name]
    for each in set(checkpoints(folder)) - set(upto[-keep:]):
        shutil.rmtree(each)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first, good or not."""
    return sorted(folder.glob("step-*"), key=lambda path: path.name)


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The last checkpoint that is whole, and what is wrong with those after it."""
    wrong: list[str] = []
    for path in reversed(checkpoints(folder)):
        fault = _fault(path)
        if fault is None:
            return path, wrong
        wrong.append(f"{path} is damaged ({fault})")
    return None, wrong


def load(path: Path, model: PreTrainedModel, optimizer: Optimizer) -> int:
    """Put a checkpoint's weights and optimiser state in place; returns the number of steps done.

    Raises:
        ValueError: where it is of another model.

    """
    try:
        model.load_state_dict(load_model(type(model), path / MODEL).state_dict())
        _put_optimizer_tensors(optimizer, load_file(path / OPTIMIZER))
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"{path} does not fit the model: {error}") from error
    return int(_state(path)["step"])


def load_model(kind: type[Model], folder: Path) -> Model:
    """A model that ``save_pretrained`` wrote: from this folder alone, and from safetensors alone.

    Raises:
        ValueError: where there is none, or not all of its weights.

    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no model: there is no config.json")
    try:
        model, report = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
    except SafetensorError as error:
        raise ValueError(f"{folder} holds no model: {error}") from error
    if absent := sorted(report["missing_keys"]):
        raise ValueError(f"{folder} holds no whole {kind.__name__}: {', '.join(absent)} missing")
    loaded: Model = model
    return loaded


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value.contiguous() for number, values in state.items() for name, value in values.items()}


def _put_optimizer_tensors(optimizer: Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _names(folder: Path) -> Iterator[str]:
    return (str(file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file())


def _sum(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as content:
        while part := content.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((path / STATE).read_text())
    return state


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint."""
    try:
        state = _state(path)
        if state["format"] != FORMAT:
            return f"its format is {state['format']}, this version reads {FORMAT}"
        changed = [name for name, value in state["sums"].items() if _sum(path / name) != value]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return f"{', '.join(changed)} changed since it was written" if changed else None
