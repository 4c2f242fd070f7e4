"""AdamW with groups of weights, and the schedule of its learning rate."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_cosine_with_min_lr_schedule_with_warmup


def parameter_groups(model: nn.Module, weight_decay: float, scale: Callable[[str], float] = lambda name: 1.0) -> list[dict[str, Any]]:
    """Groups of trainable weights for an optimizer: no weight decay on biases, norms and the mask token, as in VideoMAE.

    ``scale`` gives the factor of a weight's learning rate by its name; it stands as "lr_scale" in its group.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        decay = 0.0 if weight.ndim <= 1 or name.endswith("mask_token") else weight_decay
        key = scale(name), decay
        groups.setdefault(key, {"params": [], "lr_scale": key[0], "weight_decay": decay})["params"].append(weight)
    return list(groups.values())


def make_optimizer(groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW whose groups, as ``parameter_groups`` makes them, start at their share of the peak learning rate."""
    scaled = [{**group, "lr": lr * group["lr_scale"], "initial_lr": lr * group["lr_scale"]} for group in groups]
    return torch.optim.AdamW(scaled, lr=lr, betas=betas, eps=1e-8, fused=True)


def make_schedule(optimizer: torch.optim.Optimizer, *, steps: int, warmup: int, end: float, first: int = 0) -> LRScheduler:
    """Learning rates from step ``first`` on: in a straight line to the peak, then half a cosine to ``end``, as a share of the peak."""
    schedule: LRScheduler = get_cosine_with_min_lr_schedule_with_warmup(optimizer, warmup, steps, min_lr_rate=end, last_epoch=first - 1)
    return schedule
