"""The trainer on a GPU: the losses of a CPU, within the precision asked for, and going on after a stop."""

import pytest
import torch
from processes import pretraining

from pseudomotion.train.engine.log import read_metrics

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

TINY = (
    *("--source", "noise", "--limit", "6", "--bank", "--model", "tiny", "--frame-size", "16", "--image-size", "20", "--num-frames", "4"),
    *("--batch-size", "4", "--max-steps", "8", "--save-every", "4", "--log-every", "1", "--base-lr", "0.05"),
)


def losses(out, *more):
    child = pretraining([*TINY, "--out", out, *more], out.with_suffix(".log"))
    child.join(300)
    assert child.exitcode == 0, out.with_suffix(".log").read_text()
    return {row["step"]: row["loss"] for row in read_metrics(out)}


@pytest.mark.parametrize(("precision", "tolerance"), [("no", 3e-3), ("bf16", 3e-2), ("fp16", 1e-2)])
def test_losses_are_those_of_a_cpu(tmp_path, precision, tolerance):
    expected = losses(tmp_path / "cpu", "--cpu")
    assert losses(tmp_path / "gpu", "--precision", precision) == pytest.approx(expected, rel=tolerance)
    assert expected[8] < expected[1] - 0.1


def test_a_run_goes_on(tmp_path):
    whole = losses(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-00000008" / "state.json").unlink()
    assert losses(tmp_path / "run", "--resume") == pytest.approx(whole, rel=1e-3)
