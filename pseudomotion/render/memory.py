"""Memory for clips."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Shaped[Tensor, "..."]:
    """Memory to be written.

    On a CPU it is numpy's, for numpy asks Linux for huge pages: large clips then cost a page fault for every 2 MiB in place of every 4 KiB.
    """
    if device.type != "cpu" or torch.compiler.is_compiling() or 0 in shape:
        return torch.empty(*shape, dtype=dtype, device=device)
    return torch.from_numpy(np.empty(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(*shape)
