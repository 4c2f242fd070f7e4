"""Benchmarks of PMG, of memory bandwidth as its floor, and of other libraries; run by ``python -m benchmarks``."""

import dataclasses

import pytest
import torch

from benchmarks.peers import PEERS, Unavailable, difference, job_for
from benchmarks.work import DTYPES, measured_device


@pytest.mark.parametrize("kind", ["fill", "copy"])
def test_floor(kind, measure, main_work):
    """Write the clips once, or read and write them once: the lower bounds of any renderer's time."""
    shape = (main_work.batch, 3, main_work.num_frames, main_work.side, main_work.side)
    clips = torch.empty(shape, dtype=DTYPES[main_work.dtype_out], device=measured_device())
    source = torch.rand_like(clips)
    measure((lambda: clips.fill_(0.5)) if kind == "fill" else (lambda: clips.copy_(source)), main_work, kind)


def test_pmg(work, measure):
    """From images to clips: make the plan, copy it to the device, render and format."""
    measure(work.function(measured_device()), work, "pmg")


def test_plan(planning, measure):
    """Make plans without rendering."""
    pmg, ids = planning.pmg(), torch.arange(planning.batch)
    shape = (planning.batch, 3, planning.side, planning.side)
    measure(lambda: pmg.plan(shape, ids=ids), planning, "plan")


def test_peer(peer, measure, main_work):
    """The same clips by another library, checked against ours before timing."""
    entry = PEERS[peer]
    job = job_for(main_work)
    try:
        function = entry.make(job)
        made = function()
    except Unavailable as reason:
        pytest.skip(str(reason))
    except Exception as error:
        pytest.skip(f"failed with {type(error).__name__}: {error}")
    if entry.tolerance is not None:
        off = difference(made, job)
        assert off < entry.tolerance, f"{peer} makes other clips than the reference: mean difference {off:.2g}"
    ours = dataclasses.replace(
        main_work, resampling=entry.ours, renderer="fused", dtype_in=entry.dtype, dtype_out=entry.dtype, planned=True
    )
    measure(function, main_work, "peer", ours.function(measured_device()), peer=peer, note=entry.note, like=entry.ours)
