"""Runtime check of the fused renderer: "auto" uses it only after its clips have matched the reference's on the current device.

The installed Triton compiles the kernels for each device, and tests on other machines cannot cover that. So the first clip of every
transform is rendered by both renderers and compared, once per kind of call. Only these first calls synchronize with the device.

This covers kernels that do not compile and kernels that compute wrong pixels. It does not cover kernels that access memory outside their
tensors: after such a fault no CUDA call works in the process, so the reference cannot run either.
"""

import dataclasses
import warnings
from collections.abc import Callable, Hashable

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from pseudomotion.motion import map_fields
from pseudomotion.plan import MotionPlan
from pseudomotion.transforms import ALL_TRANSFORMS

TOLERANCE = 4e-3  # mean difference of values in [0, 1]: one 8-bit level, a few times the rounding of float32 and bfloat16

Images = Shaped[Tensor, "B C H W"]
Render = Callable[[Images, MotionPlan], Tensor]

_found: dict[tuple[Hashable, int], bool] = {}  # (kind of call, transform): whether the renderers agree


def agree(fused: Render, reference: Render, images: Images, plan: MotionPlan, *, unit: float, key: Hashable) -> bool:
    """Whether two renderers make the same clips for all transforms in a plan.

    Args:
        fused: the renderer to check. If its clips differ, or it raises an exception, there is a warning.
        reference: the renderer that defines what is right.
        images: ``(B, C, H, W)``, for the plan.
        plan: on the CPU.
        unit: difference between white and black in the output format.
        key: everything else that the kernels depend on; results are cached per key and transform.

    """
    transforms = plan.transform.tolist()
    different = dict.fromkeys(transforms)
    new = [transform for transform in different if (key, transform) not in _found]
    if new:
        # The clip that reads the most reduced image, too: it decides how images are packed, and so which kernels run.
        clips = [*(transforms.index(transform) for transform in new), int(_reduction(plan).argmax())]
        agreed = _compare(fused, reference, images, *_excerpt(plan, clips), unit * TOLERANCE)
        _found.update({(key, transform): agreed for transform in new})
    return all(_found[key, transform] for transform in different)


def _reduction(plan: MotionPlan) -> Float64[Tensor, " B"]:
    """The highest level of the image pyramid that each clip reads."""
    seen = plan.layer_detail * (plan.layers.opacity > 0)
    return torch.cat([plan.detail, seen.flatten(1)], 1).amax(1)


def _excerpt(plan: MotionPlan, clips: list[int]) -> tuple[MotionPlan, Tensor]:
    """A plan of some clips, including the clips they show or are mixed with, and the positions of all these in the full plan."""
    shown = [*clips, *plan.back.image[clips].tolist()]
    shown += plan.layers.texture[clips].flatten().tolist() if plan.texture_size is None else []
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
        layers=dataclasses.replace(layers, texture=place[layers.texture] if plan.texture_size is None else layers.texture),
        blend=blend and dataclasses.replace(blend, partner=place[blend.partner]),
        transform=plan.transform[members],
    )
    return some, members


def _compare(fused: Render, reference: Render, images: Images, plan: MotionPlan, members: Tensor, tolerance: float) -> bool:
    shown = images[members.to(images.device)]
    expected = reference(shown, plan)  # outside the ``try``: what fails here is no fault of the fused renderer
    try:
        off = (
            (fused(shown, plan).double() - expected.double()).abs().flatten(1).mean(1).tolist()
        )  # waits, so errors of the device show here
    except Exception as error:  # a compiler, driver or device may raise anything
        return _distrust(images, f"failed with {type(error).__name__}: {error}")
    wrong = {int(transform) for transform, difference in zip(plan.transform, off, strict=True) if not difference <= tolerance}
    if wrong:
        names = ", ".join(sorted(list(ALL_TRANSFORMS)[transform] if transform >= 0 else "a custom transform" for transform in wrong))
        return _distrust(images, f"differs from the reference (transforms: {names}; mean difference up to {max(off):.2g})")
    return True


def _distrust(images: Images, what: str) -> bool:
    warnings.warn(f"the fused renderer {what} on {images.device}, so the slower reference is used. Please report this.", stacklevel=2)
    return False
