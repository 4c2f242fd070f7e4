"""Checkpoints of a run: folders ``step-00001234`` that appear whole, are checked when read, and hold no pickle.

In each: ``model/``, which ``from_pretrained`` reads; ``optimizer.safetensors``; ``average.safetensors`` if there is an average of the
weights; and ``state.json`` with the step and whatever else the loop needs to go on. Order, motion, masks and dropout are functions of seed
and step.
"""

import json
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from pseudomotion.files import whole_folder

Model = TypeVar("Model", bound=PreTrainedModel)

FORMATS = (1, 2)  # 1 had checksums and no numbers of the loop
MODEL, OPTIMIZER, AVERAGE, STATE = "model", "optimizer.safetensors", "average.safetensors", "state.json"


class Snapshot(NamedTuple):
    """What a checkpoint holds, copied to the CPU, so that training can go on while it is written."""

    model: PreTrainedModel  # of which only the settings are written
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    average: dict[str, Tensor]
    state: dict[str, Any]


def snapshot(model: PreTrainedModel, optimizer: Optimizer, average: nn.Module | None, state: dict[str, Any]) -> Snapshot:
    """Copy what a checkpoint holds: of the optimizer its state alone; of ``state``, "step" is the number of steps done."""
    values = optimizer.state_dict()["state"]
    slots = {f"{number}.{name}": value for number, slot in values.items() for name, value in slot.items()}
    weights, averaged = model.state_dict(), {} if average is None else average.state_dict()
    return Snapshot(model, _copied(weights), _copied(slots), _copied(averaged), state)


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}


def save(folder: Path, taken: Snapshot, *, keep: int) -> Path:
    """Write a checkpoint; delete all but the last ones, and those of later steps: the run went on from before them.

    Raises ``OSError`` where it cannot be written, such as on a full disk; those before stay.
    """
    path = folder / f"step-{taken.state['step']:08d}"
    try:
        with whole_folder(path) as new:
            taken.model.save_pretrained(new / MODEL, state_dict=taken.weights)  # by the names that every version of transformers reads
            save_file(taken.optimizer, new / OPTIMIZER)
            if taken.average:
                save_file(taken.average, new / AVERAGE)
            (new / STATE).write_text(json.dumps({"format": FORMATS[-1], **taken.state}, indent=2))
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(f"cannot write {path}: {error}") from error
    upto = [each for each in checkpoints(folder) if each.name <= path.name]
    for each in set(checkpoints(folder)) - set(upto[-keep:]):
        shutil.rmtree(each)
    return path


class Writer:
    """Writes checkpoints into a folder in a thread, while training goes on; as many as ``keep`` stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future[Path] | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self._pool.shutdown()

    def write(self, taken: Snapshot) -> None:
        """Begin to write a checkpoint, once the one before is written. Raises what went wrong with that one."""
        self.wait()
        self._writing = self._pool.submit(save, self.folder, taken, keep=self.keep)

    def wait(self) -> None:
        """Wait for the checkpoint that is being written; an ``OSError`` where it could not be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first, good or not."""
    return sorted(folder.glob("step-*"), key=lambda path: path.name)


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The last checkpoint that is whole, and what is wrong with those after it."""
    wrong: list[str] = []
    for path in reversed(checkpoints(folder)):
        if (fault := _fault(path)) is None:
            return path, wrong
        wrong.append(f"{path} is damaged ({fault})")
    return None, wrong


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint."""
    try:
        read_state(path)
        for name in (f"{MODEL}/model.safetensors", OPTIMIZER):
            with safe_open(path / name, framework="pt"):  # compares the file's length with what its header says
                pass
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def read_state(path: Path) -> dict[str, Any]:
    """What ``state.json`` of a checkpoint says; an error where it is absent, damaged, or of an unknown format."""
    state: dict[str, Any] = json.loads((path / STATE).read_text())
    if state["format"] not in FORMATS:
        raise ValueError(f"its format is {state['format']}, this version reads {', '.join(map(str, FORMATS))}")
    int(state["step"])
    return state


def load(path: Path, model: PreTrainedModel, optimizer: Optimizer, average: nn.Module | None = None) -> None:
    """Load a checkpoint; a ``ValueError`` where it is of another model, or the average is missing."""
    try:
        model.load_state_dict(load_model(type(model), path / MODEL).state_dict())
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in load_file(path / OPTIMIZER).items():
            number, name = key.split(".", 1)
            slots.setdefault(int(number), {})[name] = value
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
        if average is not None:
            average.load_state_dict(load_file(path / AVERAGE))
    except (RuntimeError, KeyError, OSError) as error:
        raise ValueError(f"{path} does not fit the model: {error}") from error


def load_model(kind: type[Model], folder: Path) -> Model:
    """A whole model that ``save_pretrained`` wrote: from this folder alone, and from safetensors alone; else a ``ValueError``."""
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
