"""Time of labels, compared with rendering the same clips: ``pytest benchmarks/test_labels.py``.

The flow of a batch must take less time than rendering it in composed mode. Times are the minimum of several rounds, which is least
affected by other load on the machine.
"""

import pytest
import torch

from pseudomotion import PMG, TRANSFORMS
from pseudomotion.labels import flow, occlusion, patch_correspondence, tracks

MIXES = {"zoom+affine": ("zoom", "affine"), "all eight": tuple(TRANSFORMS), "cutmix": ("cutmix",)}
BATCH, FRAMES, SIZE = 8, 16, 224


def _batch(mix):
    images = torch.rand(BATCH, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    pmg = PMG(MIXES[mix], FRAMES, SIZE, resampling="composed")
    return pmg, images, pmg.plan(images.shape, ids=torch.arange(BATCH))


_least: dict[tuple[str, str], float] = {}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("job", ["render", "flow", "occlusion", "tracks", "patch_correspondence"])
def test_labels(benchmark, job, mix):
    pmg, images, plan = _batch(mix)
    jobs = {
        "render": lambda: pmg.render(images, plan),
        "flow": lambda: flow(plan),
        "occlusion": lambda: occlusion(plan),
        "tracks": lambda: tracks(plan),
        "patch_correspondence": lambda: patch_correspondence(plan),
    }
    benchmark.group = mix
    benchmark.pedantic(jobs[job], rounds=5, warmup_rounds=1)
    _least[job, mix] = benchmark.stats.stats.min
    if job == "flow" and ("render", mix) in _least:
        assert _least["flow", mix] < _least["render", mix]
