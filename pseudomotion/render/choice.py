"""The choice between two renderers that give the same clips, and images and a plan to formatted clips by either.

``reference`` defines what is right and works anywhere; ``fused`` is made for CUDA devices.
"""

import importlib
import os
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from pseudomotion.plan import MotionPlan
from pseudomotion.render import reference
from pseudomotion.render.finish import finish_clips
from pseudomotion.render.format import to_unit
from pseudomotion.render.proof import agree

RENDERERS = ("auto", "fused", "reference")
FUSED_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)


class Finish(NamedTuple):
    """What clips are to be, beside their plan."""

    padding_mode: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    dtype: torch.dtype
    data_format: str


class Choice(NamedTuple):
    """Which renderer runs, and why."""

    renderer: str
    reason: str


def choose(
    renderer: str, device: torch.device, dtype: torch.dtype | None = None, out_dtype: torch.dtype | None = None, *, needs_grad: bool = False
) -> Choice:
    """The renderer for images of a device and dtype.

    Args:
        renderer: "auto", "fused" or "reference", as the user asked.
        device: of the images.
        dtype: of the images; None for one that both renderers take.
        out_dtype: of the clips; likewise.
        needs_grad: whether gradients are to reach the images.

    Raises:
        ValueError: where "fused" was asked for and these images are not for it.
        RuntimeError: where it was asked for and this machine cannot run it.

    """
    if renderer == "reference":
        return Choice("reference", "asked for")
    unfit = _unfit(dtype, out_dtype, needs_grad)
    if renderer == "fused":
        if unfit:
            raise ValueError(f"renderer='fused' cannot be used: {unfit}")
        if unable := _unable(device):
            raise RuntimeError(f"renderer='fused' cannot be used: {unable}")
        return Choice("fused", "asked for")
    if device.type != "cuda":
        return Choice("reference", f"images are on {device.type}; the fused renderer is for CUDA devices")
    if reason := unfit or _unable(device):
        return Choice("reference", reason)
    return Choice("fused", "images are on a CUDA device and need no gradient; its first clips are compared with the reference's")


def _unfit(dtype: torch.dtype | None, out_dtype: torch.dtype | None, needs_grad: bool) -> str | None:
    """Why the fused renderer is not for these images, if so."""
    allowed = ", ".join(str(allowed).removeprefix("torch.") for allowed in FUSED_DTYPES)
    for name, given in (("images are", dtype), ("clips are to be", out_dtype)):
        if given is not None and given not in FUSED_DTYPES:
            return f"{name} {str(given).removeprefix('torch.')}; the fused renderer knows {allowed}"
    return "images require gradients, which the fused renderer does not compute" if needs_grad else None


def _unable(device: torch.device) -> str | None:
    """Why the fused renderer does not run on a device, if so."""
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"images are on {device.type}, and its kernels run on CUDA devices (elsewhere only in tests, with TRITON_INTERPRET=1)"
    if torch.compiler.is_compiling():
        return "torch.compile traces the call, and the fused renderer's kernels are compiled already; call it outside"
    return _import_error()


@cache
def _import_error() -> str | None:
    """Why Triton's kernels cannot be imported, if so."""
    try:
        importlib.import_module("pseudomotion.render.fused")
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    return None


def explain(renderer: str, out_dtype: torch.dtype | None = None) -> str:
    """For people: which renderer would run on which device, and why."""
    lines = [f"renderer={renderer!r}"]
    for name in ("cpu", "cuda"):
        try:
            chosen, reason = choose(renderer, torch.device(name), out_dtype=out_dtype)
        except (ValueError, RuntimeError) as error:
            chosen, reason = "error", str(error)
        absent = " (no CUDA device is present)" if name == "cuda" and not torch.cuda.is_available() else ""
        lines.append(f"  {name}{absent}: {chosen}: {reason}")
    return "\n".join(lines)


def render(
    images: Shaped[Tensor, "N C H W"],
    plan: MotionPlan,
    count: int,
    *,
    renderer: str = "auto",
    padding_mode: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    dtype: torch.dtype,
    data_format: str,
) -> Shaped[Tensor, "B _ _ h w"]:
    """Clips of a plan, formatted, by one of the renderers.

    Args:
        images: ``(B, C, H, W)``, uint8 or float in [0, 1].
        plan: for as many images of the same size.
        count: B, how many clips are wanted, from the first; those after them are there to be mixed in.
        renderer: "auto", "fused" or "reference".
        padding_mode: "zeros", "border" or "reflection": what shows outside what a frame reads.
        mean: per channel, subtracted; None for none.
        std: per channel, divided by; given with ``mean``.
        dtype: of the clips.
        data_format: "BCTHW" or "BTCHW".

    Raises:
        ValueError, RuntimeError: where "fused" was asked for and cannot be had; it never gives way to the other silently.

    """
    needs_grad = images.requires_grad and torch.is_grad_enabled()
    chosen = choose(renderer, images.device, images.dtype, dtype, needs_grad=needs_grad).renderer
    how = Finish(padding_mode, mean, std, dtype, data_format)
    if chosen == "fused" and (renderer == "fused" or _fused_agrees(images, plan, how)):
        return _fused(images, plan, count, how)
    return _reference(images, plan, count, how)


def _fused_agrees(images: Shaped[Tensor, "N C H W"], plan: MotionPlan, how: Finish) -> bool:
    plan = plan.to("cpu")
    return agree(
        lambda images, plan: _fused(images, plan, len(plan), how),
        lambda images, plan: _reference(images, plan, len(plan), how),
        images,
        plan,
        unit=255.0 if how.dtype == torch.uint8 else 1 / min(how.std or [1.0]),
        key=(images.device, images.dtype, images.shape[1], plan.num_layers, plan.num_frames, plan.frame_size, plan.mixes, how),
    )


def _fused(images: Shaped[Tensor, "N C H W"], plan: MotionPlan, count: int, how: Finish) -> Shaped[Tensor, "B _ _ h w"]:
    from pseudomotion.render import fused  # imports Triton, which not every machine has

    return fused.render(images, plan.to("cpu"), count, **how._asdict())


def _reference(images: Shaped[Tensor, "N C H W"], plan: MotionPlan, count: int, how: Finish) -> Shaped[Tensor, "B _ _ h w"]:
    plan, images = plan.to(images.device), to_unit(images)
    with torch.autocast(images.device.type, enabled=False):  # a model's lower precision is none for coordinates and colors
        clips = reference.render(images, plan, padding_mode=how.padding_mode)
        most = 4 * reference.frames_at_once(images, plan)  # mixing is many short steps; their number tells more than the cache
        return finish_clips(clips, plan, count, most, mean=how.mean, std=how.std, dtype=how.dtype, data_format=how.data_format)
