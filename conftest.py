"""Before any test is collected: how Triton's kernels run, and which modules cannot be imported without it."""

import importlib.util
import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is defined, so it must be set before the first import

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["pseudomotion/render/cuda/*"]
