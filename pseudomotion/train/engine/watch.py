"""What looks after a run while it trains: progress, numbers, signals, and a loss that must be finite."""

import math
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from pseudomotion.train.engine.log import Records
from pseudomotion.train.engine.stream import Steps


class _Step(NamedTuple):
    """What is known of a step before its loss can be read."""

    number: int  # from 0
    noticed: Tensor  # float64 (processes, 2): loss, and number of a signal or 0
    lr: float
    rate: float  # clips per second
    moments: tuple[Any, Any]  # of its begin and end
    making: list[tuple[Any, Any]]  # begins and ends of making clips


class Watch:
    """Looks after a run: progress, numbers, signals, and a loss that must be finite.

    A step's loss is read while the next one runs, so that a GPU never waits for it.

    Args:
        accelerator: of the run.
        steps: the ids of every step.
        out: folder of the run.
        first: where it begins.
        total: number of steps.

    Attributes:
        stopped: number of a signal that a process received, or 0.

    """

    def __init__(self, accelerator: Accelerator, steps: Steps, out: Path, first: int, total: int) -> None:
        self.accelerator, self.steps, self.cuda = accelerator, steps, accelerator.device.type == "cuda"
        self.stopped = 0
        self._signal = 0
        self._pending: _Step | None = None
        self._last = time.perf_counter()
        main = accelerator.is_main_process
        self.records = Records(out, first) if main else None
        self.bar = tqdm(total=total, initial=first, unit="step", disable=not main, mininterval=0.5 if sys.stderr.isatty() else 30)

    def __enter__(self) -> "Watch":
        self._handlers = {number: signal.signal(number, self._notice) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self.bar.close()
        if self.records:
            self.records.close()

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        signal.signal(number, signal.SIG_DFL)  # a second one ends the run at once

    def clock(self) -> Any:
        """A moment, on the GPU where there is one."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _seconds(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end) / 1000 if self.cuda else end - start)

    def step(self, step: int, loss: Tensor, lr: float, began: Any, share: list[tuple[Any, Any]]) -> None:
        """Take note of a step, and read the loss of the one before.

        Args:
            step: from 0.
            loss: of this process.
            lr: learning rate.
            began: when, by ``clock``.
            share: begins and ends of making clips.

        """
        noticed = torch.stack([loss.double(), torch.tensor(float(self._signal), dtype=torch.float64, device=loss.device)])
        noticed = self.accelerator.gather(noticed[None])
        self.settle()
        now = time.perf_counter()
        rate, self._last = self.steps.batch_size / (now - self._last), now
        self._pending = _Step(step, noticed, lr, rate, (began, self.clock()), share)

    def settle(self) -> None:
        """Read the last loss, write its row, and see whether a process was told to stop."""
        if self._pending is None:
            return
        last, self._pending = self._pending, None
        losses, signals = zip(*last.noticed.tolist(), strict=True)
        loss = sum(losses) / len(losses)
        self.stopped = int(max(signals))
        if not math.isfinite(loss):
            ids = self.steps[last.number].tolist()
            raise ValueError(f"loss is {loss} in step {last.number + 1}, so training stops; ids of its clips: {ids}")
        in_clips = sum(self._seconds(*moments) for moments in last.making) / self._seconds(*last.moments)
        done = last.number + 1
        epoch = done * self.steps.batch_size / len(self.steps.source)
        row = {"step": done, "epoch": epoch, "loss": loss, "lr": last.lr, "clips_per_second": last.rate, "pmg_share": in_clips}
        if self.records:
            self.records.write(row)
        text = f"loss {loss:.4f}, {last.rate:.1f} clips/s, lr {last.lr:.2g}, making clips {in_clips:.0%}"
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update()

    def note(self, step: int, numbers: dict[str, float]) -> None:
        """Write down what an evaluation found, and do not count its time."""
        if self.records and numbers:
            self.records.write({"step": step, **numbers})
        self._last = time.perf_counter()
