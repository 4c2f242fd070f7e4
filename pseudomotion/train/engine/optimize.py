"""Learning rates over time, and which weights they, and weight decay, apply to."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn


def cosine_schedule(step: int, *, steps: int, warmup: int, peak: float, end: float) -> float:
    """Learning rate of a step: from 0 in a straight line to the peak, then half a cosine to the end.

    Args:
        step: from 0.
        steps: of the run in all.
        warmup: steps until the peak.
        peak: learning rate after the warm-up.
        end: learning rate that the last step comes near to.

    """
    if step < warmup:
        return peak * step / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return end + (peak - end) * (1 + math.cos(math.pi * share)) / 2


def parameter_groups(model: nn.Module, weight_decay: float, scale: Callable[[str], float] = lambda name: 1.0) -> list[dict[str, Any]]:
    """Groups for an optimiser: no weight decay on biases, norms and the mask token, as in VideoMAE.

    Args:
        model: whose trainable weights are grouped.
        weight_decay: for all other weights.
        scale: factor of the learning rate, by the name of the weight; stands as "lr_scale" in its group.

    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        decay = 0.0 if weight.ndim <= 1 or name.endswith("mask_token") else weight_decay
        key = scale(name), decay
        groups.setdefault(key, {"params": [], "lr_scale": key[0], "weight_decay": decay})["params"].append(weight)
    return list(groups.values())
