"""Labels of mixed clips: the labels of both clips, and their weights at every pixel."""

import dataclasses
from typing import NamedTuple

import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from pseudomotion import checks
from pseudomotion.plan import MotionPlan


class MixedLabels(NamedTuple):
    """The labels of B clips and of their partners, with their weights."""

    own: Shaped[Tensor, "B ..."]
    partner: Shaped[Tensor, "B ..."]
    lam: Float32[Tensor, "B T h w"]  # weight of the clip's own pixel, in [0, 1]; the partner's is 1 - lam
    share: Float32[Tensor, " B"]  # mean of lam over the clip: the weight of the clip's own label, such as a class


def unmixed(plan: MotionPlan) -> MotionPlan:
    """The plan without its blend: the clips before partners are mixed in.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG, Mixup
        >>> from pseudomotion.labels import flow, unmixed
        >>> plan = PMG(num_frames=4, size=32, mix=Mixup()).plan((2, 3, 48, 48), ids=torch.arange(2))
        >>> flow(unmixed(plan)).shape
        torch.Size([2, 3, 2, 32, 32])

    """
    return dataclasses.replace(plan, blend=None)


def mix_labels(plan: MotionPlan, labels: Tensor, size: int | tuple[int, int] | None = None) -> MixedLabels:
    """Labels of the two clips that make up each mixed clip, with their weights.

    With mixup both labels apply, each by its weight. With VideoMix all weights are 0 or 1, so ``torch.where(lam > 0.5, own, partner)`` is
    the label of the visible clip; ``flow`` and ``tracks`` of a mixed plan return that already. Not from the paper.

    Args:
        plan: the plan of B clips. Without a blend, all weights are 1.
        labels: ``(B, ...)``, one entry per clip before mixing, such as classes or ``flow(unmixed(plan))``.
        size: frame size of ``lam``: an int, ``(h, w)``, or None for the plan's own.

    Returns:
        Both labels, the weight at every pixel and its mean.

    Raises:
        ValueError: if ``labels`` does not have one entry per clip.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> plan = PMG(num_frames=4, size=32).plan((2, 3, 48, 48), ids=torch.arange(2))
        >>> mix_labels(plan, torch.tensor([7, 3])).share
        tensor([1., 1.])

    """
    if len(labels) != len(plan):
        raise ValueError(f"labels must have one entry for each of {len(plan)} clips, got {len(labels)}")
    h, w = checks.frame_size(size) or plan.frame_size
    blend = plan.blend
    if blend is None:
        lam = torch.ones(len(plan), plan.num_frames, h, w, dtype=torch.float32, device=plan.device)
        return MixedLabels(labels, labels, lam, lam.mean((1, 2, 3)))
    scale = blend.box.new_tensor([w / plan.frame_size[1], h / plan.frame_size[0]] * 2)
    x = torch.arange(w, device=plan.device)
    y = torch.arange(h, device=plan.device)[:, None]
    x0, y0, x1, y1 = ((blend.box + 0.5) * scale - 0.5)[:, None, None].unbind(-1)
    t = torch.arange(plan.num_frames, device=plan.device)
    first, last = blend.frames[:, None].unbind(-1)
    inside = ((x >= x0) & (x < x1) & (y >= y0) & (y < y1))[:, None] & ((t >= first) & (t < last))[:, :, None, None]
    lam = 1 - blend.weight[:, None, None, None] * inside
    return MixedLabels(labels, labels[blend.partner.to(labels.device)], lam, lam.mean((1, 2, 3)))
