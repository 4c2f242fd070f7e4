"""``python -m benchmarks``: run the correctness tests, then the measurements, then write the tables and plots.

Nothing is measured if a test fails: a speed counts only for correct clips.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.work import measured_device

TESTS = ["tests/test_render.py", "tests/test_cpu.py", "tests/test_fused.py", "tests/test_gpu.py"]
FEW = "exact or fifteen or mixing or many_chunks or (mixed_batches and zeros) or test_gpu"
PLAIN = ["-o", "addopts=", "-o", "filterwarnings=", "-p", "no:cacheprovider", "-q"]  # plain pytest: no run-time type checks while timing


class Skipped:
    """Pytest plugin that collects what was not measured, and why."""

    def __init__(self) -> None:
        """Start without reasons."""
        self.reasons: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Pytest hook: note the reason of a skipped measurement."""
        if report.skipped and isinstance(report.longrepr, tuple):
            name = report.nodeid.partition("[")[2].removesuffix("]")
            self.reasons[name] = report.longrepr[2].removeprefix("Skipped: ").splitlines()[0]


def main() -> int:
    """Run the tests, the measurements and the report; return the exit status of the first that failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure a few rows only; under three minutes on two cores")
    parser.add_argument("--redraw", action="store_true", help="measure nothing; write tables and plots again from the existing results")
    options = parser.parse_args()
    if options.redraw:
        report.redraw()
        return 0
    quick = options.quick
    root = Path(__file__).parents[1]
    select = ["-k", FEW] if quick else []
    gate = subprocess.run([sys.executable, "-m", "pytest", *(str(root / test) for test in TESTS), *select], cwd=root)
    if gate.returncode:
        print("The tests failed, so nothing was measured.", file=sys.stderr)
        return gate.returncode
    skipped = Skipped()
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times.json"
        arguments = [*PLAIN, f"--rootdir={root}", f"--benchmark-json={times}", *(["--quick"] if quick else [])]
        status = pytest.main([str(root / "benchmarks" / "bench_clips.py"), *arguments], plugins=[skipped])
        if status:
            return int(status)
        measurements = json.loads(times.read_text())["benchmarks"]
    device = measured_device()
    extra = {}
    if device.type == "cuda":
        from benchmarks import gpu

        extra["on_gpu"] = gpu.figures(quick=quick)
    elif find_spec("llvmlite") is not None:
        from benchmarks import cpu

        extra["on_cpu"] = cpu.figures(quick=quick)
    command = "python -m benchmarks" + (" --quick" if quick else "")
    path = report.write(report.results(measurements, skipped.reasons, device, command, extra))
    print(f"Wrote {path.relative_to(root)}, {report.TABLES.relative_to(root)} and the plots in {report.PLOTS.relative_to(root)}.")
    if find_spec("matplotlib") is None:
        print("No plots: matplotlib is not installed. Install it and run python -m benchmarks --redraw.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
