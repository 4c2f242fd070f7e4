"""What the benchmarks say of the times they took. The times themselves are no test."""

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks import growth, peers, report
from benchmarks.work import Work, cases


def measurement(kind, seconds, work, **notes):
    info = dataclasses.asdict(work) | {"output_bytes": work.output_bytes, "kind": kind} | notes
    return {"extra_info": info, "stats": {"min": seconds, "median": 2 * seconds, "iqr": 0.0, "rounds": 3}}


@pytest.fixture
def found():
    """A device that fills the clips in 1 ms and copies them in 4; PMG takes 10 ms; one peer takes 5 and one 30."""
    work = Work(8)
    notes = {"note": "a loop", "like": "recursive", "ours_seconds": 0.010}
    measurements = [
        measurement("fill", 0.001, work),
        measurement("copy", 0.004, work),
        measurement("pmg", 0.010, work),
        measurement("peer", 0.005, work, peer="quick", **notes),
        measurement("peer", 0.030, work, peer="slow", **notes),
    ]
    return report.results(measurements, {"absent": "not installed"}, torch.device("cpu"), "python -m benchmarks", {})


def test_shares_of_the_floor(found):
    row = found["rows"][0]
    assert row["clips_per_second"] == pytest.approx(800)
    assert row["share_of_write_floor"] == pytest.approx(0.1)
    assert row["share_of_copy_rate"] == pytest.approx(0.4)
    assert found["fill_bytes_per_second"] == pytest.approx(8 * 16 * 3 * 224**2 * 4 / 0.001)


def test_the_table_shows_who_wins_and_who_is_missing(found, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "TABLES", tmp_path / "table.md")
    monkeypatch.setattr(report, "PLOTS", tmp_path / "images")
    path = report.write(found)
    table = {line.split(" | ")[0].removeprefix("| "): line for line in report.TABLES.read_text().splitlines() if line.startswith("|")}
    assert path.parent == tmp_path / "results"
    assert "**slower**: 0.50 times as fast" in table["quick"]
    assert "3.00 times as fast" in table["slow"]
    assert "slower" not in table["slow"]
    assert "not measured: not installed" in table["absent"]


def test_pieces_of_work_are_measured_once():
    for device, renderers in (("cpu", {"reference", "fused"}), ("cuda", {"reference", "fused"})):
        for quick in (True, False):
            works = list(cases(torch.device(device), quick=quick))
            assert len(set(works)) == len(works)
            assert {work.renderer for work in works} == renderers


@pytest.mark.parametrize("name", list(peers.PEERS))
def test_peers_make_the_clips_that_ours_are_compared_with(name):
    job = peers.job_for(Work(2, 3, 32))
    peer = peers.PEERS[name]
    try:
        clips = peer.make(job)()
    except peers.Unavailable as reason:
        pytest.skip(str(reason))
    if peer.tolerance is not None:
        assert peers.difference(clips, job) < peer.tolerance
        assert (job.images[:, :, None] - job.expected).abs().mean() > 2 * peer.tolerance


def grown(variable, values, costs):
    """Rows of PMG that differ in one variable, at a cost in nanoseconds per byte of clips."""
    works = [dataclasses.replace(Work(2), **{variable: value}) for value in values]
    rows = [measurement("pmg", 1e-9 * cost * work.output_bytes, work) for work, cost in zip(works, costs, strict=True)]
    return report.results(
        [measurement("fill", 0.001, Work(2)), measurement("copy", 0.001, Work(2)), *rows], {}, torch.device("cpu"), "", {}
    )


@pytest.mark.parametrize(
    ("costs", "level_from", "verdict"),
    [
        ((1.0, 1.1, 1.19, 1.0), 8, "throughout"),
        ((3.0, 1.5, 1.0, 1.1), 32, "from 32 on"),
        ((3.0, 1.0, 1.0, 1.3), None, "not level"),
    ],
)
def test_growth_is_level_or_not(costs, level_from, verdict):
    (line,) = growth.lines(grown("num_frames", (8, 16, 32, 64), costs)["rows"])
    assert line.variable == "num_frames"
    assert line.values == (8, 16, 32, 64)
    assert line.costs == pytest.approx(costs)
    assert line.level_from == level_from
    assert verdict in line.verdict()


def test_the_plot_of_growth_shows_the_costs(tmp_path):
    from PIL import Image

    level, steep = (grown("side", (112, 224, 336), costs) for costs in ((1, 1, 1), (1, 2, 4)))
    pictures = []
    for name, results in (("level", level), ("steep", steep)):
        assert growth.draw(results, tmp_path / f"{name}.png")
        pictures.append(np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"), int))
    assert min(picture.shape[1] for picture in pictures) > 600
    assert (pictures[0] != pictures[1]).any()
    assert not growth.draw(grown("side", (112, 224), (1, 1)), tmp_path / "none.png")


def test_every_run_measures_what_the_plot_needs():
    for device in ("cpu", "cuda"):
        for quick in (True, False):
            works = list(cases(torch.device(device), quick=quick))
            rows = [dataclasses.asdict(w) | {"kind": "pmg", "seconds": 1.0, "output_bytes": w.output_bytes} for w in works]
            assert {line.variable for line in growth.lines(rows)} == set(growth.VARIABLES)
