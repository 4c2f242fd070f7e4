"""``render``: ``(images, plan) -> clips``, by interchangeable renderers, and ``explain``, which says which one runs and why.

``reference`` defines what is right and runs anywhere. The fused renderers compute finished clips from images in compiled kernels: ``cuda``
in Triton, ``cpu`` by LLVM.
"""

import importlib
import importlib.util
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pseudomotion import checks
from pseudomotion.plan import MotionPlan
from pseudomotion.render import reference
from pseudomotion.render.exposure import expose
from pseudomotion.render.output import DATA_FORMATS, Output, finish, to_unit
from pseudomotion.render.prepared import Prepared
from pseudomotion.render.proof import agree

__all__ = ["DATA_FORMATS", "RENDERERS", "Prepared", "choose", "explain", "prepare", "render"]

RENDERERS = ("auto", "fused", "reference")
FUSED_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)


class Choice(NamedTuple):
    """Which renderer runs, and why."""

    renderer: str
    reason: str


def render(
    images: Tensor,
    plan: MotionPlan | Prepared,
    *,
    textures: Tensor | None = None,
    count: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    data_format: str = "BCTHW",
    renderer: str = "auto",
) -> Tensor:
    """Render the clips of a plan. Deterministic.

    Args:
        images: ``(B, C, H, W)``, uint8 or float in [0, 1], C = 1, 3 or 4; B and the size must match the plan.
        plan: from ``PMG.plan``, possibly modified, or from ``prepare``.
        textures: ``(N, C, H, W)``, images that layers show, of size ``plan.texture_size``. None if that is None: layers show ``images``.
            Over RGB images they may be RGBA, cut out by alpha: not premultiplied, 0 where the texture is transparent.
        count: number of clips to return, from the first; later clips only serve as partners. None: all.
        mean: per-channel mean of values in [0, 1], subtracted from the clips. None: clips are not normalized.
        std: per-channel standard deviation, by which the clips are then divided. Must be given together with ``mean``.
        dtype: dtype of the clips: torch.uint8 or a float dtype. None: that of the images, but float32 for uint8 images that are normalized.
        data_format: order of the clips' axes, "BCTHW" or "BTCHW".
        renderer: "reference" (anywhere, differentiable), "fused" (compiled kernels, or an error) or "auto", as for ``PMG``.

    Returns:
        Clips ``(count, C, T, h, w)``, or ``(count, T, C, h, w)`` with ``data_format="BTCHW"``, on the device of the images.

    Raises:
        TypeError, ValueError: for invalid arguments, and if "fused" is requested for images that it does not support.
        RuntimeError: if "fused" is requested and this machine cannot run it.

    Example:
        >>> import torch
        >>> from pseudomotion import PMG
        >>> from pseudomotion.render import render
        >>> images = torch.rand(2, 3, 24, 24)
        >>> render(images, PMG(num_frames=4, size=16).plan(images.shape, ids=torch.arange(2))).shape
        torch.Size([2, 3, 4, 16, 16])

    """
    checks.images(images)
    prepared = plan if isinstance(plan, Prepared) else None
    plan = plan.plan if isinstance(plan, Prepared) else plan
    _check_plan(plan, images, textures)
    checks.one_of("renderer", renderer, RENDERERS)
    output = _output(images.dtype, images.shape[1], len(plan) if count is None else count, mean, std, dtype, data_format)
    needs_grad = torch.is_grad_enabled() and (images.requires_grad or (textures is not None and textures.requires_grad))
    chosen = choose(renderer, images.device, images.dtype, output.dtype, needs_grad=needs_grad).renderer
    if chosen == "reference" and renderer == "auto" and images.device.type == "cpu" and not torch.compiler.is_compiling():
        _hint()

    def render_plan(images: Tensor, plan: MotionPlan, output: Output, textures: Tensor | None, subframes: int = 1) -> Tensor:
        if chosen == "reference":
            return _reference(images, plan, output, textures, subframes)
        if _compiled_by(images.device, renderer) == "llvm":
            return _on_cpu(images, plan, output, textures, subframes)
        if renderer == "fused" or _fused_agrees(images, plan, output, textures):
            return _fused(images, plan, output, textures, prepared, subframes)
        return _reference(images, plan, output, textures, subframes)

    if plan.exposed:
        return expose(images, plan, output, textures, render_plan)
    return render_plan(images, plan, output, textures)


def prepare(
    plan: MotionPlan,
    channels: int,
    *,
    images_dtype: torch.dtype = torch.uint8,
    count: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    data_format: str = "BCTHW",
) -> Prepared:
    """Pack a plan for the CUDA kernels, so that ``render`` only copies a table and launches them. Needs no GPU.

    A plan with an exposure is kept as it is: ``render`` packs its sub-frames.

    Args:
        plan: on the CPU.
        channels: of the images.
        images_dtype: dtype of the images.
        count: as for ``render``, like all that follow.
        mean: as for ``render``.
        std: as for ``render``.
        dtype: as for ``render``.
        data_format: as for ``render``.

    Raises:
        TypeError, ValueError: for invalid arguments.

    """
    output = _output(images_dtype, channels, len(plan) if count is None else count, mean, std, dtype, data_format)
    packed = None
    if _import_error("triton") is None and not plan.exposed:
        from pseudomotion.render import cuda

        packed = cuda.pack_ahead(plan, channels, images_dtype, output)
    return Prepared(plan, images_dtype, output, packed)


def _output(
    images_dtype: torch.dtype,
    channels: int,
    count: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: torch.dtype | None,
    data_format: str,
) -> Output:
    """The format of the clips, checked."""
    checks.one_of("data_format", data_format, DATA_FORMATS)
    mean, std = checks.normalization(mean, std)
    mean, std = (checks.per_channel(name, value, channels) for name, value in (("mean", mean), ("std", std)))
    dtype = checks.output_dtype(dtype, normalized=mean is not None)
    if dtype is None:
        dtype = torch.float32 if mean is not None and images_dtype == torch.uint8 else images_dtype
    return Output(count, mean, std, dtype, data_format)


def choose(
    renderer: str,
    device: torch.device,
    dtype: torch.dtype | None = None,
    out_dtype: torch.dtype | None = None,
    *,
    needs_grad: bool = False,
) -> Choice:
    """Choose the renderer for images on a device.

    Args:
        renderer: "auto", "fused" or "reference", as requested.
        device: device of the images.
        dtype: dtype of the images; None: assume a supported one.
        out_dtype: dtype of the clips; None: assume a supported one.
        needs_grad: whether images or textures require gradients.

    Raises:
        ValueError: if "fused" is requested for images that it does not support.
        RuntimeError: if "fused" is requested and this machine cannot run it.

    """
    if renderer == "reference":
        return Choice("reference", "asked for")
    compiler = _compiled_by(device, renderer)
    unfit = _unfit(dtype, out_dtype, needs_grad)
    if renderer == "fused":
        if unfit:
            raise ValueError(f"renderer='fused' cannot be used: {unfit}")
        if unable := _unable(device, compiler):
            raise RuntimeError(f"renderer='fused' cannot be used: {unable}")
        return Choice("fused", "asked for")
    if reason := unfit or _unable(device, compiler):
        return Choice("reference", reason)
    if compiler == "llvm":
        return Choice("fused", "images are on the CPU and need no gradient; kernels are compiled by LLVM")
    return Choice("fused", "images are on a CUDA device and need no gradient; its first clips are compared with the reference's")


def explain(renderer: str = "auto", out_dtype: torch.dtype | None = None) -> str:
    """Say which renderer would run on which device, and why.

    Args:
        renderer: "auto", "fused" or "reference".
        out_dtype: dtype of the clips; None: assume a supported one.

    """
    lines = [f"renderer={renderer!r}"]
    for name in ("cpu", "cuda"):
        try:
            chosen, reason = choose(renderer, torch.device(name), out_dtype=out_dtype)
        except (ValueError, RuntimeError) as error:
            chosen, reason = "error", str(error)
        absent = " (no CUDA device is present)" if name == "cuda" and not torch.cuda.is_available() else ""
        lines.append(f"  {name}{absent}: {chosen}: {reason}")
    return "\n".join(lines)


def _check_plan(plan: MotionPlan, images: Tensor, textures: Tensor | None) -> None:
    """Raise ``TypeError`` or ``ValueError`` if a plan does not match the images and textures."""
    if not isinstance(plan, MotionPlan):
        raise TypeError(f"plan must be a MotionPlan, got {type(plan).__name__}")
    batch, channels, *size = images.shape
    if len(plan) != batch or plan.image_size != tuple(size):
        (h, w), (plan_h, plan_w) = size, plan.image_size
        raise ValueError(f"plan is for {len(plan)} images of {plan_h} x {plan_w}, got {batch} of {h} x {w}")
    if channels != 3 and any(p.colored for passes in (plan.passes, *plan.layer_passes) for p in passes):
        raise ValueError(f"images must have 3 channels (RGB) for a plan with color maps, got {channels}")
    if (plan.texture_size is None) != (textures is None):
        needed = "None, because its layers show images" if plan.texture_size is None else f"given, of size {plan.texture_size}"
        raise ValueError(f"textures for this plan must be {needed}; got {None if textures is None else tuple(textures.shape)}")
    if textures is not None:
        checks.images(textures)
        own_channels = 4 if reference.cut_out(images, textures) else channels
        if textures.shape[1:] != (own_channels, *(plan.texture_size or ())) or (textures.dtype, textures.device) != (
            images.dtype,
            images.device,
        ):
            raise ValueError(
                f"textures must have the channels, dtype and device of images and the size {plan.texture_size} of the plan, "
                f"got {textures.dtype} of shape {tuple(textures.shape)} on {textures.device}"
            )


def _compiled_by(device: torch.device, renderer: str) -> str | None:
    """What compiles the fused renderer for a device: "triton", "llvm", or None. With Triton's interpreter, tests run it anywhere."""
    if device.type == "cuda" or (renderer == "fused" and os.environ.get("TRITON_INTERPRET") == "1"):
        return "triton"
    return "llvm" if device.type == "cpu" else None


def _unfit(dtype: torch.dtype | None, out_dtype: torch.dtype | None, needs_grad: bool) -> str | None:
    """Why the fused renderer does not support these images; None if it does."""
    for name, given in (("images are", dtype), ("clips are to be", out_dtype)):
        if given is not None and given not in FUSED_DTYPES:
            allowed = ", ".join(str(allowed).removeprefix("torch.") for allowed in FUSED_DTYPES)
            return f"{name} {str(given).removeprefix('torch.')}; the fused renderer supports {allowed}"
    return "images require gradients, which the fused renderer does not compute" if needs_grad else None


def _unable(device: torch.device, compiler: str | None) -> str | None:
    """Why the fused renderer cannot run on this device; None if it can."""
    if compiler is None:
        return f"images are on {device.type}; the fused renderer is for CPUs and CUDA devices"
    if torch.compiler.is_compiling():
        return "torch.compile traces the call, and the fused renderer's kernels are compiled already; call it outside"
    return _import_error(compiler)


@cache
def _import_error(compiler: str) -> str | None:
    """Why the kernels cannot be imported; None if they can. Importing compiles those for CPUs, or loads them from the cache on disk."""
    try:
        importlib.import_module(f"pseudomotion.render.{'cuda' if compiler == 'triton' else 'cpu'}")
    except ImportError as error:
        name, install = ("Triton", "") if compiler == "triton" else ("llvmlite", f"; {INSTALL_HINT}")
        return f"{name} cannot be imported ({error}){install}"
    return None


INSTALL_HINT = "pip install llvmlite makes rendering on the CPU several times as fast"


@cache
def _hint() -> None:
    """Say once what would make rendering faster."""
    if importlib.util.find_spec("llvmlite") is None:
        warnings.warn(f"llvmlite is not installed; {INSTALL_HINT}", stacklevel=4)


def _fused_agrees(images: Shaped[Tensor, "N C H W"], plan: MotionPlan, output: Output, textures: Shaped[Tensor, "M _ _ _"] | None) -> bool:
    plan = plan.to("cpu")
    return agree(
        lambda images, plan: _fused(images, plan, replace(output, count=len(plan)), textures),
        lambda images, plan: _reference(images, plan, replace(output, count=len(plan)), textures),
        images,
        plan,
        unit=255.0 if output.dtype == torch.uint8 else 1 / min(output.std or [1.0]),
        key=(
            *(images.device, images.dtype, images.shape[1], plan.image_size, plan.texture_size, plan.reduces),
            reference.cut_out(images, textures),
            *(plan.num_layers, plan.num_frames, plan.frame_size, plan.padding_mode, plan.blend is not None, plan.shaped),
            replace(output, count=0),
        ),
    )


def _fused(
    images: Shaped[Tensor, "N C H W"],
    plan: MotionPlan,
    output: Output,
    textures: Shaped[Tensor, "M _ _ _"] | None,
    prepared: Prepared | None = None,
    subframes: int = 1,
) -> Shaped[Tensor, "B _ _ h w"]:
    from pseudomotion.render import cuda  # imports Triton, which not every machine has

    if subframes > 1:
        unit = replace(output, mean=None, std=None, dtype=torch.float32, data_format="BCTHW")
        return finish(_average(cuda.render(images, plan.to("cpu"), unit, textures), subframes), None, output)
    if prepared is not None and prepared.packed is not None:
        prepared.check(images.dtype, output)
        return cuda.run(images, plan, prepared.packed, output, textures)
    return cuda.render(images, plan.to("cpu"), output, textures)


def _on_cpu(
    images: Shaped[Tensor, "N C H W"], plan: MotionPlan, output: Output, textures: Shaped[Tensor, "M _ _ _"] | None, subframes: int
) -> Shaped[Tensor, "B _ _ h w"]:
    from pseudomotion.render import cpu  # imports llvmlite, which not every machine has

    return cpu.render(images, plan.to("cpu"), output, textures, subframes)


def _reference(
    images: Shaped[Tensor, "N C H W"], plan: MotionPlan, output: Output, textures: Shaped[Tensor, "M _ _ _"] | None, subframes: int = 1
) -> Shaped[Tensor, "B _ _ h w"]:
    plan = plan.to(images.device)
    with torch.autocast(images.device.type, enabled=False):  # autocast's lower precision would ruin coordinates
        clips = reference.render(to_unit(images), plan, None if textures is None else to_unit(textures))
        return finish(_average(clips, subframes), plan.blend if plan.mixes else None, output)


def _average(clips: Float[Tensor, "N C s h w"], subframes: int) -> Float[Tensor, "N C T h w"]:
    n, c, _, h, w = clips.shape
    return clips if subframes == 1 else clips.view(n, c, -1, subframes, h, w).mean(3)
