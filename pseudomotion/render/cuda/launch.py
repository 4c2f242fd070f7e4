"""The fused renderer for CUDA: Triton kernels that turn images into formatted clips without a full-size intermediate.

With ``TRITON_INTERPRET=1`` it runs on the CPU, slowly, for tests. Float32 output is within 1e-4 of ``render.reference`` per resampling and
within 2e-3 after 15, 8-bit output within one level. It is not differentiable.

Everything that is constant per clip is computed on the host in float64, packed into one table (``plans``), and copied to the device
asynchronously. Nothing is read back.

Launches per batch: one that packs the images into words and one for each reduced copy of them, which are needed where frames show more than
1.5 image pixels per pixel; one for all clips that read images in every frame; and T per chunk of clips that read their previous frame
(T + 1 with mixing). A chunk's working frames and finished frames fit in the device's L2 cache together.
"""

from collections.abc import Hashable
from typing import Any, ClassVar

import torch
import triton  # type: ignore[import-untyped]
from jaxtyping import Shaped
from torch import Tensor

from pseudomotion import outline
from pseudomotion.plan import MotionPlan
from pseudomotion.render.cuda import clips as kernels
from pseudomotion.render.cuda import table as layout
from pseudomotion.render.cuda.plans import Packed, Sizes, pack, pitch
from pseudomotion.render.output import Output
from pseudomotion.render.reference import cut_out

ROWS, COLS, VEC = 32, 32, 2  # a band of a strip; neighboring columns of a thread. Not measured yet: see benchmarks/on_a_gpu.sh
WARPS = 4
BLOCK = 1024  # words that a program packs at a time
L2_BYTES, PROCESSORS = 50 * 2**20, 132  # of an H100: assumed where the device cannot be asked, or reports nothing
L2_SHARE = 0.6  # of the cache that a chunk may fill: under least-recently-used replacement, a full cache would miss every time
WAVES = 4  # programs per processor that a launch should have
TAKES_CONSTANTS = tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 3)  # compiled kernels are called with constants


def render(
    images: Shaped[Tensor, "N C H W"],
    plan: MotionPlan,
    output: Output,
    textures: Shaped[Tensor, "M _ _ _"] | None = None,
    *,
    chunk: int | None = None,
) -> Shaped[Tensor, "B _ _ h w"]:
    """Render the clips of a plan in their output format.

    Args:
        images: ``(N, C, H, W)``, uint8, or float16, bfloat16 or float32 in [0, 1], of any strides; must not require gradients.
        plan: for these N images, on the CPU.
        output: format of the clips; its dtype is uint8, float16, bfloat16 or float32. Clips from position ``output.count`` on are rendered
            only where they are mixed into others.
        textures: ``(M, C, _, _)``, like the images, or RGBA over RGB images; None: layers show ``images``.
        chunk: largest number of clips whose working frames are held at a time. None: as many as fit in the L2 cache.

    Returns:
        ``(count, C, T, h, w)`` or ``(count, T, C, h, w)``, on the device of the images.

    """
    most = chunk or chunk_size(images.device, images.shape[1], plan.frame_size, output.dtype)
    return run(images, plan, pack(plan, output, most, bytes=images.dtype == torch.uint8), output, textures)


def chunk_size(device: torch.device | None, channels: int, frame_size: tuple[int, int], dtype: torch.dtype) -> int:
    """How many clips to render in turns, frame by frame: as many as stay in the L2 cache, but enough to fill the device.

    Args:
        device: None: assume an H100.
        channels: of the clips.
        frame_size: ``(h, w)``.
        dtype: of the clips.

    """
    cache, processors = _device(device)
    h, w = frame_size
    frames = 2 * 8 * (h + 3) * pitch(w) + channels * h * w * dtype.itemsize
    fill = -(-WAVES * processors // (-(-h // ROWS) * -(-w // COLS)))
    return max(int(L2_SHARE * cache / frames), fill)


def _device(device: torch.device | None) -> tuple[int, int]:
    """L2 cache in bytes and number of processors."""
    if device is None or device.type != "cuda":
        return L2_BYTES, PROCESSORS
    properties = torch.cuda.get_device_properties(device)
    return properties.L2_cache_size or L2_BYTES, properties.multi_processor_count


def pack_ahead(plan: MotionPlan, channels: int, images_dtype: torch.dtype, output: Output) -> Packed:
    """Pack a plan where there is no GPU to ask how large chunks should be: for an H100's cache, and one of about that size."""
    return pack(plan, output, chunk_size(None, channels, plan.frame_size, output.dtype), bytes=images_dtype == torch.uint8)


def run(
    images: Shaped[Tensor, "N C H W"],
    plan: MotionPlan,
    packed: Packed,
    output: Output,
    textures: Shaped[Tensor, "M _ _ _"] | None = None,
) -> Shaped[Tensor, "B _ _ h w"]:
    """Render a packed plan; as ``render`` otherwise."""
    c, t, (h, w), device = images.shape[1], plan.num_frames, plan.frame_size, images.device
    count, frame_axis = output.count, output.data_format.index("T")
    shape = (count, c, t, h, w) if frame_axis == 2 else (count, t, c, h, w)
    clips = images.new_empty(shape, dtype=output.dtype)
    if not clips.numel():
        return clips
    strides = clips.stride(0), clips.stride(frame_axis), clips.stride(3 - frame_axis)
    surfaces, mixes = 1 + plan.num_layers, plan.blend is not None
    options = {
        "C": c,
        "LAYERED": surfaces > 1,
        "CUT": cut_out(images, textures),
        "SHAPED": plan.layers.outline.shape[-1] > outline.PARAMS,
        "BENDS": any(motion.bend is not None and motion.bend.numel() > 0 for motion in (plan.back.motion, plan.layers.motion)),
        "MIXES": mixes,
        "PADDING": plan.padding_mode,
        "PITCH": packed.images.pitch,
        "ASM": _assembles(device),
        "ROWS": ROWS,
        "COLS": COLS,
        "VEC": VEC,
    }
    processors = _device(device)[1]
    with torch.cuda.device(images.get_device()):
        table = packed.table
        if device.type == "cuda" and not table.is_pinned():
            table = table.pin_memory()  # lets the device copy it asynchronously
        table = table.to(device, non_blocking=True)
        frames = table[layout.HEADER.value + layout.CLIP.value * packed.clip_rows :]
        words = _pack(images, textures, packed, table)
        slots = max((part.clips for part in packed.launches if part.stepped), default=0)
        working_pitch = pitch(w)
        slot_words = (h + 3) * working_pitch
        working = torch.full((2 * slots * slot_words,), layout.BLACK.value, dtype=torch.int64, device=device)
        step = _Kernel(kernels.step_clips, device, WPITCH=working_pitch, **options)
        for first, n, stepped in packed.launches:
            bands, tiles = _tiles(h, w, n if stepped else n * t, processors)
            if stepped:
                before = words, table, frames, clips, first, surfaces, slots
                after = working, *strides, t, h, w, bands, slot_words
                for frame in range(t + mixes):
                    step(n * tiles, *before, frame, *after)
            else:
                plain = packed.bytes and not (mixes or options["LAYERED"] or options["BENDS"])
                paint = _Kernel(kernels.paint_clips, device, BYTES=plain, **options)
                paint(n * t * tiles, words, table, frames, clips, first, surfaces, *strides, t, h, w, bands)
    return clips


class _Kernel:
    """A kernel with its constants, for launches on one device whose arguments Triton compiles alike.

    Triton compares all arguments and all constants of a module at every launch, which takes five times as long as the launch. So the
    kernels that it compiled are kept here and called directly.
    """

    compiled: ClassVar[dict[Hashable, Any]] = {}

    def __init__(self, kernel: Any, device: torch.device, **constants: Any) -> None:
        self.kernel, self.device, self.constants = kernel, device, constants
        self.launch: Any = None

    def __call__(self, programs: int, *args: Any) -> None:
        if self.launch is None:
            key = self._key(args)
            self.launch = self.compiled.get(key)
            if self.launch is None:
                self.launch = self.kernel[(programs,)](*args, **self.constants, num_warps=WARPS)  # None by Triton's interpreter
                self.compiled[key] = self.launch
                return
        self.launch[(programs, 1, 1)](*args, *(self.constants.values() if TAKES_CONSTANTS else ()))

    def _key(self, args: tuple[Any, ...]) -> Hashable:
        """Everything that Triton compiles a kernel for, at least as fine as its own key."""
        free = getattr(self.kernel, "do_not_specialize", ())  # Triton's interpreter compiles nothing

        def kind(name: str, value: Any) -> Hashable:
            if isinstance(value, Tensor):
                return value.dtype, value.data_ptr() % 16
            return value.bit_length() > 31 if name in free else value

        return self.kernel, self.device, *self.constants.values(), *map(kind, self.kernel.arg_names, args)


def _assembles(device: torch.device) -> bool:
    """Whether kernels may use PTX's instructions."""
    return device.type == "cuda" and torch.version.hip is None


def _tiles(h: int, w: int, frames: int, processors: int) -> tuple[int, int]:
    """How many bands a program paints, and programs per frame: long strips, where these are enough programs to fill the device."""
    strips, bands = -(-w // COLS), -(-h // ROWS)
    groups = min(bands, max(1, -(-WAVES * processors // (frames * strips))))
    each = -(-bands // groups)
    return each, strips * -(-bands // each)


def _pack(
    images: Shaped[Tensor, "N C H W"], textures: Shaped[Tensor, "M _ _ _"] | None, packed: Packed, table: Shaped[Tensor, " m"]
) -> Shaped[Tensor, " n"]:
    """The words of images and their reduced copies, then those of textures."""
    parts = [(images, packed.images, False)]
    if textures is not None and packed.textures is not None:
        parts.append((textures, packed.textures, cut_out(images, textures)))
    total = sum(len(part) * sizes.lines * sizes.pitch for part, sizes, _ in parts)
    words = torch.empty(total, dtype=torch.int32 if packed.bytes else torch.int64, device=images.device)
    begin = 0
    for part, sizes, cut in parts:
        _pack_images(part, words[begin:], sizes, table, cut=cut)
        begin += len(part) * sizes.lines * sizes.pitch
    return words


def _pack_images(
    images: Shaped[Tensor, "N C _ _"], words: Shaped[Tensor, " n"], sizes: Sizes, table: Shaped[Tensor, " m"], *, cut: bool
) -> None:
    b, c, height, width = images.shape
    each = sizes.lines * sizes.pitch
    block = min(BLOCK // 4, triton.next_power_of_2(width + 3))
    lines = BLOCK // block
    options = {"C": c, "PITCH": sizes.pitch, "LINES": lines, "BLOCK": block, "ASM": _assembles(images.device)}
    pack = _Kernel(kernels.pack, images.device, CUT=cut, **options)
    pack(b * -(-(height + 3) // lines), images, words, *images.stride(), height, width, each)
    halve = _Kernel(kernels.halve, images.device, **options)
    for (h, w, line), (half_h, _, half_line) in zip(sizes.levels, sizes.levels[1:], strict=False):
        halve(b * -(-(half_h + 3) // lines), words, table, line * sizes.pitch, half_line * sizes.pitch, h, w, each)
