"""The CUDA kernels in machine code, without a GPU: that they compile, how often, and what a pixel costs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the fused renderer needs Triton, which is not installed")


@pytest.fixture(scope="module")
def made():
    """Compile the kernels for several GPU generations: Triton's interpreter accepts code that the compiler rejects."""
    program = Path(__file__).with_name("kernels_compile.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, env=os.environ | {"TRITON_INTERPRET": "0"})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_batches_do_not_need_kernels_of_their_own(made):
    """Whatever is drawn, and however large a batch is: at most two variants of a kernel for one size of images.

    One reads bytes, the other reduced images. Triton checks the arguments of a variant's first launch only.
    """
    counted = made["counted"]
    assert 0 < counted.pop("reduced") < counted["pack"]["launches"]
    for name, counts in counted.items():
        assert 1 <= counts["compiled"] <= 2, name
        assert counts["checked"] == counts["compiled"] < counts["launches"], name
    assert counted["paint_clips"]["compiled"] == counted["step_clips"]["compiled"] == 2


@pytest.mark.parametrize(("kernel", "longest"), [("paint_clips", 105), ("step_clips", 120)])
def test_kernels_keep_to_their_budgets(kernel, longest, made):
    """Instructions, loads and conversions per pixel for an H100: a loss of speed shows without a GPU.

    The shortest way through ``paint_clips`` is that of ``zoom``, the longest that of perspective with colors.
    """
    found = made["budgets"][kernel]
    if kernel == "paint_clips":
        assert found["shortest"]["length"] <= 58, found
    assert found["longest"]["length"] <= longest, found
    assert found["longest"]["LDG"] <= 7
    assert sum(found["longest"].get(name, 0) for name in ("I2F", "F2I", "FRND", "MUFU", "FCHK")) <= 3
    assert found["registers"] <= 128
    assert found["stack"] == 0
