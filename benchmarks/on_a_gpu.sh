#!/usr/bin/env bash
# Everything that only a GPU can show, in order: is it right, is memory respected, how fast is it, and what do its settings cost.
#
#     benchmarks/on_a_gpu.sh [FOLDER]        # results; default: benchmarks/results/gpu
#
# Needs one NVIDIA GPU, the package with its extras [dev] in .venv (or PYTHON=...), and half an hour. Peers are measured where they are
# installed (kornia, torchvision, triton-augment, fuse-augmentations, kornia-rs), compute-sanitizer is run where it is found. Every step's
# output is kept in FOLDER; a step that fails does not stop the others, and is named at the end.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
FOLDER=${1:-benchmarks/results/gpu}
mkdir -p "$FOLDER"
failed=()

step() { # NAME COMMAND...
    local name=$1
    shift
    echo "== $name: $*"
    if ! "$@" 2>&1 | tee "$FOLDER/$name.log"; then
        failed+=("$name")
    fi
}

"$PYTHON" - "$FOLDER/machine.json" <<'PYTHON' || { echo "no CUDA device" >&2; exit 2; }
import json, platform, sys
import torch, triton
device = torch.cuda.get_device_properties(0)
versions = {"torch": torch.__version__, "triton": triton.__version__, "cuda": torch.version.cuda, "python": platform.python_version()}
about = {"device": device.name, "capability": f"{device.major}.{device.minor}", "processors": device.multi_processor_count, "l2": device.L2_cache_size}
json.dump(about | versions, open(sys.argv[1], "w"), indent=1)
print(about | versions)
PYTHON

step tests "$PYTHON" -m pytest tests/test_gpu.py tests/test_fused.py tests/test_render.py tests/test_train_gpu.py
if command -v compute-sanitizer >/dev/null; then
    step sanitizer compute-sanitizer --tool memcheck --error-exitcode 1 "$PYTHON" -m benchmarks.gpu --one-batch
    step racecheck compute-sanitizer --tool racecheck --error-exitcode 1 "$PYTHON" -m benchmarks.gpu --one-batch
else
    echo "compute-sanitizer is not installed: skipped"
fi
step settings "$PYTHON" -m benchmarks.gpu --settings "$FOLDER/settings.json"
step figures "$PYTHON" -m benchmarks.gpu --figures "$FOLDER/figures.json"
step benchmarks "$PYTHON" -m benchmarks
step validate "${PYTHON%python}pmg-validate" --preset gpu --out "$FOLDER/validate"

if ((${#failed[@]})); then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
echo "results: $FOLDER"
