"""The loop that every training command runs: steps, processes, precision, saving and resuming."""

import math
import os
import shutil
import signal
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin, ProjectConfiguration
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from pseudomotion.command import Terminated
from pseudomotion.draws import Draws
from pseudomotion.files import MADE_BY, sweep, whole_file, whole_folder
from pseudomotion.images.streamed import ENDLESS
from pseudomotion.source import ItemSource, read_batches
from pseudomotion.train.engine import checkpoints
from pseudomotion.train.engine.log import METRICS, Log, check_trackers, plot, read_metrics
from pseudomotion.train.engine.optimize import make_optimizer, make_schedule, parameter_groups
from pseudomotion.train.engine.options import CONFIG, interval, to_yaml
from pseudomotion.train.engine.stream import Parts, Steps, read_ahead
from pseudomotion.train.engine.watch import Watch

CHECKPOINTS, MODEL, AVERAGE, CURVES = "checkpoints", "model", "average", "loss.png"
LONGEST_WARMUP = 0.1  # share of the run
CURVES_EVERY = 600.0  # seconds


class Task(ABC):
    """What a command trains, on what, and how it measures.

    Attributes:
        model: what is saved.
        objective: what is trained: a module that holds ``model``, takes what ``inputs`` returns, and returns the mean loss alone.
        source: what to read, by id.
        weight_decay: of all weights but biases, norms and the mask token.
        evaluate_every: steps from one ``evaluate`` to the next; there is one at the end, too.
        plotted: names of the numbers whose curves are drawn into ``loss.png``.
        reads_files: whether worker processes may read the source, and gain by it; not so where its items lie in memory, or on a GPU.
        flops: floating-point operations of a training step for one clip; None where they are not known.

    """

    model: PreTrainedModel
    objective: nn.Module
    source: ItemSource[Any]
    weight_decay: float = 0.0
    evaluate_every: int = sys.maxsize
    plotted: Sequence[str] = ("loss",)
    reads_files: bool = True
    flops: float | None = None

    def groups(self) -> list[dict[str, Any]]:
        """Groups of the model's parameters, each with its "lr_scale" and "weight_decay"; here with one learning rate."""
        return parameter_groups(self.model, self.weight_decay)

    @abstractmethod
    def inputs(self, items: Any, ids: Tensor, device: torch.device) -> Sequence[Tensor]:
        """What the objective takes, made of items of the source, on the device. Its share of the step's time is logged."""

    def evaluate(self, accelerator: Accelerator, out: Path, step: int) -> dict[str, float]:
        """Numbers to write down, and pictures; every process calls it."""
        return {}

    def save(self, model: PreTrainedModel, folder: Path, run: Path) -> None:
        """Write a model of the run in the folder ``run`` to an existing, empty folder, ready to be loaded by ``from_pretrained``."""
        model.save_pretrained(folder)


class Stopped(Terminated):
    """The run was stopped by a signal, and saved."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(number)
        self.args = (f"stopped by {signal.Signals(number).name} and saved after step {step}; go on with --resume",)


def train(task: Task, options: Any, section: str, accelerator: Accelerator) -> Path:
    """Train to the end, or from where an earlier run stopped; returns the folder of the model.

    Args:
        task: what to train.
        options: of the command, with those of ``RunOptions`` and ``OptimizationOptions``; all are saved.
        section: name that they are saved under.
        accelerator: as ``make_accelerator`` makes it.

    Raises:
        ValueError: where the folder holds a run and ``resume`` is not set, or a run on other data; where the loss is not finite.
        OSError: where nothing can be written.
        Stopped: by SIGTERM or SIGINT, after saving.

    """
    out, device, main = Path(options.out), accelerator.device, accelerator.is_main_process
    parts = options.accumulate * accelerator.num_processes
    if options.batch_size % parts:
        raise ValueError(f"batch_size must be a multiple of processes x accumulate = {parts}, got {options.batch_size}")
    check_folder(out, resume=options.resume)
    if main:
        for folder in filter(Path.is_dir, (out, out / CHECKPOINTS)):
            sweep(folder)  # what killed runs left
    steps = Steps(task.source, options.batch_size, options.seed)
    items = len(task.source)
    if items >= ENDLESS and not options.max_steps:
        raise ValueError("streams have no length that is known, so --max-steps must say how long to train")
    total = options.max_steps or max(1, options.epochs * items // options.batch_size)
    scale = options.batch_size / 256
    lr, end = options.base_lr * scale, min(1.0, options.min_lr / options.base_lr)
    warmup = int(min(options.warmup_epochs * items / options.batch_size, LONGEST_WARMUP * total))

    task.objective.to(device)
    if options.gradient_checkpointing:
        name = "activation_checkpointing_enable"  # of transformers 5
        getattr(task.model, name, task.model.gradient_checkpointing_enable)({"use_reentrant": False})
    moving: Any = get_ema_multi_avg_fn
    average = AveragedModel(task.model, multi_avg_fn=moving(options.ema)) if options.ema else None
    optimizer = make_optimizer(task.groups(), lr, (options.betas[0], options.betas[1]))
    state = _resume(task, optimizer, average, out, accelerator) if options.resume else {}
    first = int(state.get("step", 0))
    if first > total:
        raise ValueError(f"{out} has done {first} steps already, more than the {total} that are asked for")
    if accelerator.scaler is not None and "scaler" in state:
        accelerator.scaler.load_state_dict(state["scaler"])
    schedule = make_schedule(optimizer, steps=total, warmup=warmup, end=end, first=first)
    objective = torch.compile(task.objective) if options.compile else task.objective
    objective, wrapped = accelerator.prepare(objective, optimizer)
    weights = [weight for weight in task.model.parameters() if weight.requires_grad]

    every_steps, every_seconds = interval(options.save_every)
    own = Parts(steps, first, total, options.accumulate, accelerator.process_index, accelerator.num_processes)
    reading = read_batches(task.source, own, options.num_workers if task.reads_files else 0, pin=device.type == "cuda")
    if items >= ENDLESS:
        reading = read_ahead(reading)
    if main:
        warn_of_hours(task.flops and task.flops * (total - first) * options.batch_size, device, accelerator.num_processes)

    def take_checkpoint(done: int) -> None:
        watch.settle()
        numbers = {"step": done, "items": items, "row": watch.sums}
        if accelerator.scaler is not None:
            numbers["scaler"] = accelerator.scaler.state_dict()
        writer.write(checkpoints.snapshot(task.model, optimizer, average, numbers))

    sums = tuple(state.get("row", (0, 0.0)))
    open_log = partial(_open_log, out, options, section, accelerator, first)
    watch = Watch(accelerator, steps, first, total, log_every=options.log_every, flops=task.flops, open_log=open_log, sums=sums)
    with checkpoints.Writer(out / CHECKPOINTS, options.keep) as writer, watch:
        saved = drawn = time.monotonic()
        task.objective.train()
        for step in range(first, total):
            torch.manual_seed(_step_seed(options.seed, step, accelerator))
            loss, began, making = torch.zeros((), device=device), watch.clock(), []
            for part in range(options.accumulate):
                with watch.waiting():
                    batch, ids = next(reading)
                started = watch.clock()
                inputs = task.inputs(batch, ids, device)
                making.append((started, watch.clock()))
                with accelerator.no_sync(objective) if part + 1 < options.accumulate else nullcontext():
                    part_loss = objective(*inputs) / options.accumulate
                    accelerator.backward(part_loss)
                loss += part_loss.detach()
            norm = accelerator.clip_grad_norm_(weights, options.clip_grad or float("inf"))
            rate = schedule.get_last_lr()[0] / optimizer.param_groups[0]["lr_scale"]
            wrapped.step()
            schedule.step()
            wrapped.zero_grad()
            if average is not None:
                average.update_parameters(task.model)
            watch.step(step, loss, norm, rate, began, making)
            done, now = step + 1, time.monotonic()
            if main and (now - saved >= every_seconds or done % every_steps == 0 or done == total or watch.stopped):
                take_checkpoint(done)
                saved = now
            if watch.stopped:
                writer.wait()
                accelerator.wait_for_everyone()  # a launcher kills the others when one ends
                raise Stopped(watch.stopped, done)
            if done % task.evaluate_every == 0 or done == total:
                with watch.pause(), torch.no_grad():
                    task.objective.eval()
                    watch.note(done, task.evaluate(accelerator, out, done))
                    task.objective.train()
            if main and (done == total or now - drawn >= CURVES_EVERY):
                watch.settle()
                plot(read_metrics(out), out / CURVES, task.plotted)
                drawn = now
        for _ in reading:  # lets the source say what it skipped
            pass
    if main:
        for name, model in ((MODEL, task.model), (AVERAGE, average and average.module)):
            if model is not None:
                with whole_folder(out / name) as folder:
                    task.save(model, folder, out)
    accelerator.wait_for_everyone()
    return out / MODEL


def warn_of_hours(flops: float | None, device: torch.device, processes: int) -> None:
    """Say before the first step how long training takes at least, if that is hours on CPUs: by the speed of this one's matrix products."""
    if device.type != "cpu" or flops is None:
        return
    square = torch.rand(512, 512, device="cpu")
    seconds = math.inf
    for _ in range(3):
        began = time.perf_counter()
        square @ square
        seconds = min(seconds, time.perf_counter() - began)
    hours = flops / (2 * 512**3 / seconds) / processes / 3600
    if hours > 1:
        print(  # noqa: T201  a command talks to its terminal
            f"this will take at least {hours:.0f} hours on {'a CPU' if processes == 1 else 'these CPUs'}, beside making "
            "the clips; minutes take --recipe demo, or --model tiny and fewer --max-steps",
            file=sys.stderr,
        )


def check_folder(out: Path, *, resume: bool) -> None:
    """Check that a run may write to a folder: a ``ValueError`` where it holds a run that is not resumed, an ``OSError`` for a file."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"out = {out} must be a folder, there is a file of this name")
    if resume or not out.is_dir():
        return
    if held := [name for name in (CONFIG, METRICS, CHECKPOINTS, MODEL, AVERAGE, CURVES, "tensorboard") if (out / name).exists()]:
        raise ValueError(f"out = {out} holds a run already ({', '.join(held)}): go on with --resume, or name another folder")


def make_accelerator(options: Any) -> Accelerator:
    """Processes, devices and precision, as ``accelerate launch`` or ``torchrun`` set them up; seeds torch for new weights.

    The options decide, not the environment: ``ACCELERATE_MIXED_PRECISION``, ``ACCELERATE_DYNAMO_BACKEND`` and
    ``ACCELERATE_GRADIENT_ACCUMULATION_STEPS`` do not count.

    Args:
        options: of a command: ``precision`` and ``cpu``, and of a training command all of ``RunOptions``.

    Raises:
        ValueError: where the environment asks for FSDP, DeepSpeed or Megatron-LM, or the device cannot compute in the precision.

    """
    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() in ("true", "1"):
            raise ValueError(
                f"ACCELERATE_USE_{name} is set, but models are trained whole on every GPU, by DistributedDataParallel; for a large model "
                "use --gradient-checkpointing, --accumulate and --precision bf16"
            )
    check_trackers(getattr(options, "log_with", None) or ())
    transformers_logging.disable_progress_bar()  # one bar is enough
    accelerator = Accelerator(
        mixed_precision=options.precision,
        cpu=options.cpu,
        dynamo_backend="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        log_with=getattr(options, "log_with", None),
        project_config=ProjectConfiguration(logging_dir=str(Path(options.out or "") / "tensorboard")),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )
    if options.precision == "fp16" and accelerator.scaler is None:
        raise ValueError("precision fp16 needs a GPU; bf16 also works on CPUs")
    if accelerator.device.type == "cuda" and getattr(options, "tf32", True):
        torch.set_float32_matmul_precision("high")
    # fp16 skips steps whose gradients overflow; the schedule still is a function of the step.
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
    torch.manual_seed(getattr(options, "seed", 0))
    return accelerator


def _open_log(out: Path, options: Any, section: str, accelerator: Accelerator, first: int) -> Log:
    """Make the folder of a run, its options and its log; where that fails, a new folder is not left behind."""
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with whole_file(out / CONFIG) as file:
            file.write_text(f"# {MADE_BY}\n{to_yaml(options, section)}")
        return Log(out, accelerator, vars(options), first)
    except BaseException:
        if new:
            shutil.rmtree(out, ignore_errors=True)
        raise


def _resume(task: Task, optimizer: Any, average: nn.Module | None, out: Path, accelerator: Accelerator) -> dict[str, Any]:
    """Load the newest good checkpoint; returns its ``state.json``, or nothing where there is no checkpoint."""
    path, wrong = checkpoints.newest(out / CHECKPOINTS)
    for text in wrong:
        accelerator.print(f"{text}; the one before is used", file=sys.stderr)
    if path is None:
        accelerator.print(f"no checkpoint in {out / CHECKPOINTS}: beginning at step 0", file=sys.stderr)
        return {}
    state = checkpoints.read_state(path)
    if state.get("items", len(task.source)) != len(task.source):
        counts = f"was on {state['items']} items, now there are {len(task.source)}"
        raise ValueError(f"the run in {out} {counts}; a run goes on with the data that it began with")
    checkpoints.load(path, task.model, optimizer, average)
    accelerator.print(f"going on from {path}", file=sys.stderr)
    return state


def _step_seed(seed: int, step: int, accelerator: Accelerator) -> int:
    """Of dropout and the like: a function of seed, step and process, so that there is no state to save."""
    number = torch.tensor([step * accelerator.num_processes + accelerator.process_index], device="cpu")
    return int(Draws(seed, number).partner_ids("step")[0])
