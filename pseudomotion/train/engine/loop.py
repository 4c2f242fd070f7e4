"""The loop that every training command runs: steps, processes, precision, saving, resuming, and what is written down."""

import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from pseudomotion.draws import Draws
from pseudomotion.files import whole_file, whole_folder
from pseudomotion.source import Numbered, read_batches
from pseudomotion.train.engine import checkpoints
from pseudomotion.train.engine.log import plot, read_metrics
from pseudomotion.train.engine.optimize import cosine_schedule
from pseudomotion.train.engine.options import CONFIG, option, to_yaml
from pseudomotion.train.engine.stream import Parts, Steps
from pseudomotion.train.engine.watch import Watch

CHECKPOINTS, MODEL = "checkpoints", "model"
RUN, OPTIMISATION = "run", "optimisation"
LONGEST_WARMUP = 0.1  # share of the run


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options that all training commands share."""

    out: str = option(MISSING, "folder of the run", group=RUN, free=True)
    resume: bool = option(
        False, "go on from the newest good checkpoint in --out, with its options; begin where there is none", group=RUN, free=True
    )
    epochs: int = option(2000, "length of the run; an epoch shows every item once", group=RUN)
    max_steps: int | None = option(None, "length of the run in steps, in place of --epochs", group=RUN)
    batch_size: int = option(192, "clips per step, over all processes and accumulated parts", group=RUN)
    accumulate: int = option(1, "parts that a step is worked through in, to save memory", group=RUN, free=True)
    seed: int = option(0, "of weights, order, motion, masks and dropout", group=RUN)
    num_workers: int = option(0, "processes that read files, per training process", group=RUN, free=True)
    precision: str = option("no", "no: float32; bf16: autocast", group=RUN, choices=("no", "bf16"))
    compile: bool = option(False, "compile the model with torch.compile", group=RUN, free=True)
    cpu: bool = option(False, "train on the CPU though there is a GPU", group=RUN, free=True)
    save_every: int = option(1000, "steps from checkpoint to checkpoint", group=RUN, free=True)
    keep: int = option(2, "checkpoints that are kept", group=RUN, free=True)
    base_lr: float = option(1.5e-4, "learning rate for 256 clips a step; it grows with --batch-size", group=OPTIMISATION)
    min_lr: float = option(1e-5, "what the learning rate falls to, for 256 clips a step", group=OPTIMISATION)
    warmup_epochs: float = option(40.0, "epochs in which the learning rate rises from 0, a tenth of the run at most", group=OPTIMISATION)
    weight_decay: float = option(0.05, "of all weights but biases, norms and the mask token", group=OPTIMISATION)
    betas: tuple[float, ...] = option((0.9, 0.95), "of AdamW, two numbers", group=OPTIMISATION)
    clip_grad: float | None = option(None, "largest norm of the gradient; None for any", group=OPTIMISATION)

    def __post_init__(self) -> None:
        """Check the numbers."""
        least = {"batch_size": 1, "accumulate": 1, "epochs": 1, "save_every": 1, "keep": 1, "num_workers": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers from 0 to less than 1, got {self.betas}")


class Task(ABC):
    """What a command trains, on what, and by which loss.

    Attributes:
        model: to train, on the CPU.
        source: what to read, by number.
        evaluate_every: steps from one ``evaluate`` to the next; it comes at the end too.
        plotted: names of the numbers whose curves are drawn into ``loss.png``.
        reads_files: whether worker processes may read the source, and gain by it; not so where its items lie in memory, or on a GPU.

    """

    model: PreTrainedModel
    source: Numbered[Any]
    evaluate_every: int
    plotted: Sequence[str] = ("loss",)
    reads_files: bool = True

    @abstractmethod
    def groups(self) -> list[dict[str, Any]]:
        """Groups of the model's parameters, each with its "lr_scale" and "weight_decay"."""

    @abstractmethod
    def inputs(self, items: Any, ids: Tensor, device: torch.device) -> Any:
        """What the loss needs, made of items of the source, on the device. Its share of the step's time is reported."""

    @abstractmethod
    def loss(self, model: Any, inputs: Any) -> Tensor:
        """Mean loss of a part; ``model`` may be a wrapper of ``self.model``."""

    @abstractmethod
    def evaluate(self, accelerator: Accelerator, out: Path, step: int) -> dict[str, float]:
        """Numbers to write down, and pictures; every process calls it."""


class Stopped(Exception):
    """The run was stopped by a signal, and saved."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} and saved after step {step}; go on with --resume")
        self.number = number


def train(task: Task, options: RunOptions, section: str, accelerator: Accelerator) -> Path:
    """Train to the end, or from where an earlier run stopped; returns the folder of the model.

    Args:
        task: what to train.
        options: of the command, all of which are saved.
        section: name that they are saved under.
        accelerator: as ``make_accelerator`` gives it.

    Raises:
        ValueError: where the folder holds a run and ``resume`` is not set; where the loss is not finite.
        OSError: where nothing can be written.
        Stopped: by SIGTERM or SIGINT, after saving.

    """
    out, device = Path(options.out), accelerator.device
    parts = options.accumulate * accelerator.num_processes
    if options.batch_size % parts:
        raise ValueError(f"batch_size must be a multiple of processes x accumulate = {parts}, got {options.batch_size}")
    if not options.resume and checkpoints.checkpoints(out / CHECKPOINTS):
        raise ValueError(f"out = {out} holds a run already: go on with --resume, or name another folder")
    steps = Steps(task.source, options.batch_size, options.seed)
    total = options.max_steps or max(1, options.epochs * len(task.source) // options.batch_size)
    task.model.to(device)
    optimizer = torch.optim.AdamW(task.groups(), lr=0.0, betas=(options.betas[0], options.betas[1]), eps=1e-8)
    first = _resume(task, optimizer, out, accelerator) if options.resume else 0
    model = torch.compile(task.model) if options.compile else task.model
    model, optimizer = accelerator.prepare(model, optimizer)
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        with whole_file(out / CONFIG) as file:
            file.write_text(to_yaml(options, section))
    own = Parts(steps, first, total, options.accumulate, accelerator.process_index, accelerator.num_processes)
    reading = read_batches(task.source, own, options.num_workers if task.reads_files else 0)
    with Watch(accelerator, steps, out, first, total) as watch:
        task.model.train()
        for step in range(first, total):
            lr = _set_learning_rate(optimizer, options, step, total, len(task.source))
            torch.manual_seed(_step_seed(options.seed, step, accelerator))
            loss, began = torch.zeros((), device=device), watch.clock()
            share = []
            for part in range(options.accumulate):
                items, ids = next(reading)
                started = watch.clock()
                inputs = task.inputs(items, ids, device)
                share.append((started, watch.clock()))
                last_part = part + 1 == options.accumulate
                with nullcontext() if last_part else accelerator.no_sync(model):
                    part_loss = task.loss(model, inputs) / options.accumulate
                    accelerator.backward(part_loss)
                loss += part_loss.detach()
            if options.clip_grad is not None:
                accelerator.clip_grad_norm_(model.parameters(), options.clip_grad)
            optimizer.step()
            optimizer.zero_grad()
            watch.step(step, loss, lr, began, share)
            done = step + 1
            if done % options.save_every == 0 or done == total or watch.stopped:
                watch.settle()
                _save(task, optimizer, out, done, options.keep, accelerator)
            if watch.stopped:
                raise Stopped(watch.stopped, done)
            if done % task.evaluate_every == 0 or done == total:
                _evaluate(task, watch, out, done, accelerator)
        for _ in reading:  # lets the source say what it skipped
            pass
    if accelerator.is_main_process:
        with whole_folder(out / MODEL) as folder:
            task.model.save_pretrained(folder)
    accelerator.wait_for_everyone()
    return out / MODEL


def make_accelerator(options: RunOptions) -> Accelerator:
    """Processes, devices and precision, as ``accelerate launch`` or ``torchrun`` set them up; seeds torch for new weights."""
    transformers_logging.disable_progress_bar()  # one bar is enough
    accelerator = Accelerator(mixed_precision=options.precision, cpu=options.cpu)
    torch.manual_seed(options.seed)
    return accelerator


def _resume(task: Task, optimizer: torch.optim.Optimizer, out: Path, accelerator: Accelerator) -> int:
    path, wrong = checkpoints.newest(out / CHECKPOINTS)
    for text in wrong:
        accelerator.print(f"{text}; the one before is used", file=sys.stderr)
    if path is None:
        accelerator.print(f"no checkpoint in {out / CHECKPOINTS}: beginning at step 0", file=sys.stderr)
        return 0
    step = checkpoints.load(path, task.model, optimizer)
    accelerator.print(f"going on from {path}", file=sys.stderr)
    return step


def _save(task: Task, optimizer: Any, out: Path, step: int, keep: int, accelerator: Accelerator) -> None:
    if accelerator.is_main_process:
        checkpoints.save(out / CHECKPOINTS, step, task.model, optimizer.optimizer, keep=keep)
        plot(read_metrics(out), out / "loss.png", task.plotted)
    accelerator.wait_for_everyone()


def _set_learning_rate(optimizer: Any, options: RunOptions, step: int, total: int, items: int) -> float:
    scale = options.batch_size / 256
    warmup = min(options.warmup_epochs * items / options.batch_size, LONGEST_WARMUP * total)
    lr = cosine_schedule(
        step, steps=total, warmup=int(warmup), peak=options.base_lr * scale, end=min(options.min_lr, options.base_lr) * scale
    )
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    return lr


def _step_seed(seed: int, step: int, accelerator: Accelerator) -> int:
    """Of dropout and the like: a function of seed, step and process, so that there is no state to save."""
    number = torch.tensor([step * accelerator.num_processes + accelerator.process_index])
    return int(Draws(seed, number).partner_ids("step")[0])


def _evaluate(task: Task, watch: Watch, out: Path, step: int, accelerator: Accelerator) -> None:
    watch.settle()
    task.model.eval()
    with torch.no_grad():
        numbers = task.evaluate(accelerator, out, step)
    task.model.train()
    watch.note(step, numbers)
    if accelerator.is_main_process:
        plot(read_metrics(out), out / "loss.png", task.plotted)
