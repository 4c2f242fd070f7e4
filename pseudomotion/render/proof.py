"""Proof by example: "auto" takes the fused renderer only where that has made the reference's clips on the device at hand.

Kernels are compiled for each device by whichever Triton is installed there, which no test elsewhere can vouch for. So the first clip of
every transform is rendered by both, and compared: once for each kind of call, which waits for the device then and never again.
"""

import dataclasses
import warnings
from collections.abc import Callable, Hashable

import torch
from jaxtyping import Shaped
from torch import Tensor

from pseudomotion.motion import map_fields
from pseudomotion.plan import MotionPlan
from pseudomotion.transforms import ALL_TRANSFORMS

TOLERANCE = 4e-3  # mean difference, of values in [0, 1]: one level of 8 bits, and a few times what float32 and bfloat16 come to

Images = Shaped[Tensor, "B C H W"]
Render = Callable[[Images, MotionPlan], Tensor]

_found: dict[tuple[Hashable, int], bool] = {}  # of kinds of calls and transforms: whether the renderers agree


def agree(fused: Render, reference: Render, images: Images, plan: MotionPlan, *, unit: float, key: Hashable) -> bool:
    """Whether two renderers make the same clips of all transforms in a plan.

    Args:
        fused: the renderer in doubt; where it is wrong, or raises an exception, there is a warning.
        reference: the one that is right.
        images: of the plan.
        plan: on the CPU.
        unit: what white differs from black by in finished clips.
        key: what else the kernels depend on; whatever was found out for it is not tried again.

    """
    transforms = plan.transform.tolist()
    new = [transform for transform in dict.fromkeys(transforms) if (key, transform) not in _found]
    if new:
        agreed = _compare(fused, reference, images, *_excerpt(plan, [transforms.index(transform) for transform in new]), unit * TOLERANCE)
        _found.update({(key, transform): agreed for transform in new})
    return all(_found[key, transform] for transform in set(transforms))


def _excerpt(plan: MotionPlan, clips: list[int]) -> tuple[MotionPlan, Tensor]:
    """A plan of some clips and of those that they show, or are mixed with, and where these stand in the whole plan."""
    shown = [*clips, *plan.back.image[clips].tolist(), *plan.layers.texture[clips].flatten().tolist()]
    shown += [] if plan.blend is None else plan.blend.partner[clips].tolist()
    members = torch.tensor(list(dict.fromkeys(shown)), device="cpu")
    place = torch.zeros(len(plan), dtype=torch.int64, device="cpu")
    place[members] = torch.arange(len(members), device="cpu")

    def pick(tensor: Tensor) -> Tensor:
        return tensor[members]

    back, layers, blend = map_fields(plan.back, pick), map_fields(plan.layers, pick), plan.blend and map_fields(plan.blend, pick)
    some = dataclasses.replace(
        plan,
        back=dataclasses.replace(back, image=place[back.image]),
        layers=dataclasses.replace(layers, texture=place[layers.texture]),
        blend=blend and dataclasses.replace(blend, partner=place[blend.partner]),
        transform=plan.transform[members],
    )
    return some, members


def _compare(fused: Render, reference: Render, images: Images, plan: MotionPlan, members: Tensor, tolerance: float) -> bool:
    shown = images[members.to(images.device)]
    try:
        made, expected = fused(shown, plan), reference(shown, plan)
    except Exception as error:  # whatever a compiler, a driver or a device may raise
        return _distrust(images, f"failed with {type(error).__name__}: {error}")
    off = (made.double() - expected.double()).abs().flatten(1).mean(1).tolist()
    wrong = {int(transform) for transform, difference in zip(plan.transform, off, strict=True) if not difference <= tolerance}
    if wrong:
        names = ", ".join(sorted(list(ALL_TRANSFORMS)[transform] if transform >= 0 else "a custom transform" for transform in wrong))
        return _distrust(images, f"made other clips than the reference (of {names}; mean difference up to {max(off):.2g})")
    return True


def _distrust(images: Images, what: str) -> bool:
    warnings.warn(f"the fused renderer {what} on {images.device}, so the reference renders these, slower. Please report it.", stacklevel=2)
    return False
