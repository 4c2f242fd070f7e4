"""Images per second of every generator, and of a plain numpy chaos game with as many points as FractalDB.

``OMP_NUM_THREADS=2 pytest benchmarks/test_synthetic.py --benchmark-only``; measured on a GPU too if there is one.
"""

import numpy as np
import pytest
import torch

from pseudomotion.images.synthetic import SOURCES, FractalDB

BATCH = {"cpu": 4, "cuda": 256}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SOURCES)
def test_images(benchmark, name, device):
    source = SOURCES[name](device=device)
    ids = torch.arange(BATCH[device])
    source.get(ids)  # warm-up: some sources search for programs on the first call

    def make():
        source.get(ids)
        if device == "cuda":
            torch.cuda.synchronize()

    benchmark.pedantic(make, rounds=3)
    benchmark.extra_info["images_per_second"] = len(ids) / benchmark.stats.stats.min


def test_fractal_by_a_plain_loop(benchmark):
    """Iterate one orbit point by point, with as many points as FractalDB; nothing is drawn."""
    source = FractalDB(1)
    maps, steps = source.parameters.maps[0].double().numpy(), source.parameters.steps[0].double().numpy()
    which = np.searchsorted(steps, np.random.default_rng(0).random(source.points), side="right")

    def play():
        x = y = 0.0
        orbit = np.empty((source.points, 2))
        for k in range(source.points):
            a, b, c, d, e, f = maps[which[k]]
            x, y = a * x + b * y + e, c * x + d * y + f
            orbit[k] = x, y

    benchmark.pedantic(play, rounds=2)
    benchmark.extra_info["images_per_second"] = 1 / benchmark.stats.stats.min
