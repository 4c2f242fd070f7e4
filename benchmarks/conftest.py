"""Options, parameters and fixtures of the benchmarks."""

import dataclasses
import os
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.peers import PEERS
from benchmarks.work import Work, cases, finishing, main_batch, measured_device, plannings

os.environ["TRITON_INTERPRET"] = "0"  # the fused renderer on the CPU is LLVM's here


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--quick``: fewer workloads, fewer rounds."""
    parser.addoption("--quick", action="store_true", help="under three minutes on two cores")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize benchmarks by workload and by library."""
    quick = metafunc.config.getoption("--quick")
    if "work" in metafunc.fixturenames:
        metafunc.parametrize("work", list(cases(measured_device(), quick=quick)), ids=repr)
    if "planning" in metafunc.fixturenames:
        metafunc.parametrize("planning", plannings(), ids=repr)
    if "peer" in metafunc.fixturenames:
        metafunc.parametrize("peer", list(PEERS))


@pytest.fixture
def measure(benchmark: Callable, request: pytest.FixtureRequest) -> Callable[[Callable[[], Tensor], Work, str], None]:
    """Time a function, and store its workload with the times."""
    device, quick = measured_device(), request.config.getoption("--quick")
    rounds = 30 if device.type == "cuda" else (15 if quick else 30)

    def run(function: Callable[[], Tensor], work: Work, kind: str, ours: Callable[[], Tensor] | None = None, **notes: str) -> None:
        """If ``ours`` is given, its rounds alternate with those of ``function``, so that other load on the machine affects both."""
        taken = []

        def time_ours() -> None:
            start = time.perf_counter()
            ours()
            taken.append(time.perf_counter() - start)

        warm = 3 if device.type == "cuda" else 1
        benchmark.pedantic(finishing(function, device), setup=time_ours if ours else None, rounds=rounds, warmup_rounds=warm)
        benchmark.extra_info |= dataclasses.asdict(work) | {"output_bytes": work.output_bytes, "kind": kind} | notes
        if taken:
            benchmark.extra_info["ours_seconds"] = min(taken[warm:])

    return run


@pytest.fixture
def main_work() -> Work:
    """The recursive workload on which libraries are compared."""
    return Work(main_batch(measured_device()))


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
