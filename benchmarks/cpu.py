"""Figures of the fused CPU renderer that are no row of the tables: compilation, one clip, other load, objects and bends."""

import dataclasses
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks.peers import PEERS, job_for
from benchmarks.work import Work
from pseudomotion import PMG
from pseudomotion.motion import Layers, Motion
from pseudomotion.plan import MotionPlan
from pseudomotion.render import render

LOAD = "import time, pseudomotion.render; t = time.perf_counter(); import pseudomotion.render.cpu; print(time.perf_counter() - t)"
BATCH, FRAMES, SIDE = 8, 16, 224


def figures(*, quick: bool) -> dict[str, str]:
    """Measure all of them; rounds of what is compared alternate."""
    rounds = 5 if quick else 15
    first, second = _loading()
    found = {"compile all kernels, once per machine": f"{first:.1f} s", "load them in a later process": f"{second:.2f} s"}
    threads = torch.get_num_threads()
    for batch in (1, 2):
        one, two = _fastest(rounds, _with_threads(1, _planned(batch)), _with_threads(threads, _planned(batch)))
        found[f"B = {batch}, {threads} threads against one"] = f"{one / two:.2f} times as fast ({1000 * two:.1f} ms)"
    work = Work(BATCH, dtype_in="uint8", dtype_out="uint8")
    ours, opencv = dataclasses.replace(work, renderer="fused", planned=True), PEERS["OpenCV warpPerspective, uint8"].make(job_for(work))
    with _busy(threads):
        mine, theirs, single = _fastest(
            rounds, _with_threads(threads, ours.function(torch.device("cpu"))), opencv, _with_threads(1, ours.function(torch.device("cpu")))
        )
    found[f"beside {threads} busy processes, against OpenCV, uint8"] = f"{theirs / mine:.2f} times as fast"
    found[f"beside {threads} busy processes, against one thread of our own"] = f"{single / mine:.2f} times as fast"
    images = (torch.rand(BATCH, 3, SIDE, SIDE) * 255).to(torch.uint8)
    plans = {
        "affine": _plan("affine"),
        "8 boxes of a fifth of the side": _with_boxes(_plan("affine"), 8),
        "a back bent by 6 x 6 control points": _bent(_plan("identity")),
        "perspective": _plan("perspective"),
    }
    times = dict(
        zip(plans, _fastest(rounds, *(lambda plan=plan: render(images, plan, renderer="fused") for plan in plans.values())), strict=True)
    )
    found |= {
        f"{name}, against affine alone": f"{taken / times['affine']:.2f} times as long" for name, taken in times.items() if name != "affine"
    }
    return found


def _loading() -> tuple[float, float]:
    """Seconds to compile the kernels, and to load them in another process."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PSEUDOMOTION_CACHE": folder}
        first, second = (
            float(subprocess.run([sys.executable, "-c", LOAD], env=environment, capture_output=True, check=True).stdout) for _ in range(2)
        )
    return first, second


def _planned(batch: int) -> Callable[[], Tensor]:
    return Work(batch, dtype_in="uint8", dtype_out="uint8", renderer="fused", planned=True).function(torch.device("cpu"))


def _with_threads(number: int, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(number)
        try:
            return function()
        finally:
            torch.set_num_threads(before)

    return run


def _fastest(rounds: int, *functions: Callable[[], Tensor]) -> list[float]:
    """Seconds of each function's fastest round."""
    taken = [math.inf] * len(functions)
    for _ in range(1 + rounds):
        for k, function in enumerate(functions):
            start = time.perf_counter()
            function()
            taken[k] = min(taken[k], time.perf_counter() - start)
    return taken


@contextmanager
def _busy(number: int) -> Iterator[None]:
    """Other processes that compute all the time."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _plan(name: str) -> MotionPlan:
    return PMG((name,), FRAMES, SIDE).plan((BATCH, 3, SIDE, SIDE), ids=torch.arange(BATCH))


def _with_boxes(plan: MotionPlan, count: int) -> MotionPlan:
    """A plan with boxes of other images that cross the frame at angles of their own."""
    random = torch.Generator().manual_seed(0)
    number = lambda *shape: torch.rand(BATCH, count, *shape, generator=random)  # noqa: E731
    angle, center = 6 * (number(1) - 0.5) + 0.02 * torch.arange(FRAMES), (0.3 + 0.4 * number(2)) * SIDE
    place = (0.15 + 0.7 * number(1, 2)) * SIDE + 4 * (number(1, 2) - 0.5) * torch.arange(FRAMES)[:, None]
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).unflatten(-1, (2, 2))  # (B, L, T, 2, 2)
    homography = torch.eye(3).repeat(BATCH, count, FRAMES, 1, 1)
    homography[..., :2, :2], homography[..., :2, 2] = turn, place - (turn @ center[:, :, None, :, None])[..., 0]
    layers = Layers(
        texture=torch.randint(BATCH, (BATCH, count), generator=random),
        box=torch.cat([center - SIDE / 10, center + SIDE / 10], -1),
        outline=torch.tensor([0.0, 1.0]).repeat(BATCH, count, 1),
        motion=Motion(homography, torch.eye(3, 4).repeat(BATCH, count, FRAMES, 1, 1)),
        opacity=torch.ones(BATCH, count, FRAMES),
    )
    return dataclasses.replace(plan, layers=layers)


def _bent(plan: MotionPlan) -> MotionPlan:
    bend = 0.4 * (torch.rand(BATCH, FRAMES, 2, 6, 6, generator=torch.Generator().manual_seed(0)) - 0.5)
    return dataclasses.replace(plan, back=dataclasses.replace(plan.back, motion=dataclasses.replace(plan.back.motion, bend=bend)))
