"""What looks after a run while it trains: signals, a loss that must be finite, and the numbers that are logged."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from pseudomotion.train.engine.log import Log
from pseudomotion.train.engine.signals import StopSignals
from pseudomotion.train.engine.stream import Steps

# Dense TFLOP/s in bfloat16 (float16 for V100 and T4) that vendors state, by part of the device's name; the first that fits counts.
PEAKS = {"B200": 2250, "H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L40": 181, "L4": 121, "A10": 125, "4090": 165}
PEAKS |= {"V100": 125, "T4": 65}


class _Step(NamedTuple):
    """What is known of a step before its loss can be read."""

    number: int  # from 0
    noticed: Tensor  # float64 (processes, 3): loss, gradient norm, and number of a signal or 0
    lr: float
    ended: float  # on the host's clock
    moments: tuple[Any, Any]  # of its begin and end
    making: list[tuple[Any, Any]]  # begins and ends of making clips


class Watch:
    """Looks after a run: ``steps`` are the ids of every step, ``open_log`` makes the run's folder and log once a step has succeeded.

    A step's loss is read while the next one runs, so that a GPU never waits for the host. Rows of the log hold means over the steps since
    the row before.

    Attributes:
        stopped: number of a signal that a process received, or 0.
        sums: number of steps and sum of losses since the last row; those of before a resumed run may be given.

    """

    def __init__(
        self,
        accelerator: Accelerator,
        steps: Steps,
        first: int,
        total: int,
        *,
        log_every: int,
        flops: float | None,
        open_log: Callable[[], Log],
        sums: tuple[int, float] = (0, 0.0),
    ) -> None:
        self.accelerator, self.steps, self.total, self.log_every, self.flops = accelerator, steps, total, log_every, flops
        self.cuda = accelerator.device.type == "cuda"
        self.stopped, self.sums = 0, sums
        self.log: Log | None = None
        self._open_log = open_log
        self._signals = StopSignals(say=accelerator.is_main_process)
        self._pending: _Step | None = None
        self._since = time.perf_counter()
        self._rows_steps, self._waited, self._shares = 0, 0.0, [0.0, 0.0]  # of making clips, of steps
        main = accelerator.is_main_process
        self.bar = tqdm(total=total, initial=first, unit="step", disable=not main, mininterval=0.5 if sys.stderr.isatty() else 30)

    def __enter__(self) -> "Watch":
        self._signals.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._signals.__exit__()
        self.bar.close()
        if self.log:
            self.log.close()

    def clock(self) -> Any:
        """A moment, on the GPU where there is one."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _seconds(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end) / 1000 if self.cuda else end - start)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of a block as waiting for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def step(self, step: int, loss: Tensor, norm: Tensor, lr: float, began: Any, making: list[tuple[Any, Any]]) -> None:
        """Take note of a step, from 0, and read the loss of the one before. Moments are those of ``clock``."""
        if self.log is None and self.accelerator.is_main_process:
            self.log = self._open_log()
        noticed = torch.stack([loss.double(), norm.double(), torch.full_like(loss, self._signals.number, dtype=torch.float64)])
        noticed = self.accelerator.gather(noticed[None])
        self.settle()
        self._pending = _Step(step, noticed, lr, time.perf_counter(), (began, self.clock()), making)

    def settle(self) -> None:
        """Read the last loss, write a row if one is due, and see whether a process was told to stop."""
        if self._pending is None:
            return
        last, self._pending = self._pending, None
        losses, norms, signals = zip(*last.noticed.tolist(), strict=True)
        loss, done = sum(losses) / len(losses), last.number + 1
        self.stopped = int(max(signals))
        if not math.isfinite(loss):
            ids = self.steps[last.number].tolist()
            raise ValueError(f"loss is {loss} in step {done}, so training stops; ids of its clips: {ids}")
        self.sums = self.sums[0] + 1, self.sums[1] + loss
        self._rows_steps += 1
        self._shares[0] += sum(self._seconds(*moments) for moments in last.making)
        self._shares[1] += self._seconds(*last.moments)
        if done % self.log_every == 0 or done == self.total:
            self._write_row(last, norms[0])
        self.bar.update()

    def _write_row(self, last: _Step, norm: float) -> None:
        done, seconds = last.number + 1, max(last.ended - self._since, 1e-9)
        rate = self._rows_steps * self.steps.batch_size / seconds
        row = {
            "step": done,
            "epoch": done * self.steps.batch_size / len(self.steps.source),
            "loss": self.sums[1] / self.sums[0],
            "lr": last.lr,
            "grad_norm": norm,
            "clips_per_second": rate,
            "waiting_share": min(1.0, self._waited / seconds),
            "pmg_share": self._shares[0] / self._shares[1],
            "seconds_left": (self.total - done) * seconds / self._rows_steps,
        }
        if self.flops:
            row["tflops"] = tflops = self.flops * rate / 1e12 / self.accelerator.num_processes
            peak = next((peak for part, peak in PEAKS.items() if self.cuda and part in torch.cuda.get_device_name()), None)
            if peak:
                row["mfu"] = tflops / peak
        if self.cuda:
            row["gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
        if self.log:
            self.log.write(row)
        text = f"loss {row['loss']:.4f}, {rate:.1f} clips/s, lr {last.lr:.2g}, waiting {row['waiting_share']:.0%}"
        self.bar.set_postfix_str(f"{text}, making clips {row['pmg_share']:.0%}", refresh=False)
        self.sums, self._shares = (0, 0.0), [0.0, 0.0]
        self._since, self._rows_steps, self._waited = last.ended, 0, 0.0

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Keep the time of a block, such as an evaluation, out of the rates."""
        self.settle()
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def note(self, step: int, numbers: dict[str, float]) -> None:
        """Write down what an evaluation found."""
        if self.log and numbers:
            self.log.write({"step": step, **numbers})
