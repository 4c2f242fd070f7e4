"""What the benchmarks say of the times they took. The times themselves are no test."""

import dataclasses

import pytest
import torch

from benchmarks import peers, report
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
    path = report.write(found)
    table = {line.split(" | ")[0].removeprefix("| "): line for line in report.TABLES.read_text().splitlines() if line.startswith("|")}
    assert path.parent == tmp_path / "results"
    assert "**slower**: 0.50 times as fast" in table["quick"]
    assert "3.00 times as fast" in table["slow"]
    assert "slower" not in table["slow"]
    assert "not measured: not installed" in table["absent"]


def test_pieces_of_work_are_measured_once():
    for device, renderers in (("cpu", {"reference"}), ("cuda", {"reference", "fused"})):
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
        assert (clips - job.expected).abs().mean() < peer.tolerance
        assert (job.images[:, :, None] - job.expected).abs().mean() > 2 * peer.tolerance
