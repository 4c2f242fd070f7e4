"""The fused CPU renderer: kernel arguments, memory, and threads."""

import itertools
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from pseudomotion import outline
from pseudomotion.plan import PADDING_MODES, MotionPlan
from pseudomotion.render.cpu import coverage, kernels, locate, machine, pack, rows, sources, vector
from pseudomotion.render.cpu import table as layout
from pseudomotion.render.output import Output
from pseudomotion.render.reference import cut_out

KINDS = {
    torch.uint8: layout.UINT8,
    torch.float16: layout.FLOAT16,
    torch.bfloat16: layout.BFLOAT16,
    torch.float32: layout.FLOAT32,
}
PIXEL = 16  # bytes, in a working frame
LINE = 64  # bytes in a cache line, and in the kernels' vectors, which are written twice as fast where they are one line
BEFORE = LINE - PIXEL  # bytes before a clip's memory: the pixel behind the border of every row of a working frame begins a cache line
_SOURCES = [Path(str(module.__file__)) for module in (kernels, rows, coverage, locate, sources, pack, vector, layout, outline)]
_pack, _work_on_clip = machine.load([pack.pack, kernels.work_on_clip], _SOURCES)

SPARE = 2**28  # bytes of freed clips that are kept for reuse
PIECES, LEAST = 4, 8  # where threads share a clip: work items of a frame per thread, and the fewest rows of one
SHARED = 2**16  # pixels per clip from which threads share clips
STREAMED = 2**23  # bytes of float32 clips from which they are written past the cache; fewer may still be there when they are read
PAUSE = 5e-5  # seconds that a thread sleeps while no work item is ready

Images = Shaped[Tensor, "N C H W"]
Numbers = Int64[np.ndarray, " _"]


def render(
    images: Images, plan: MotionPlan, output: Output, textures: Shaped[Tensor, "M _ _ _"] | None = None, subframes: int = 1
) -> Shaped[Tensor, "B _ _ h w"]:
    """Clips of a plan, finished: the same bits for any number of threads, which is at most ``torch.get_num_threads()``.

    Args:
        images: on the CPU; uint8, float16, bfloat16 or float32 in [0, 1].
        plan: for as many images of the same size, on the CPU.
        output: what the clips are to be.
        textures: what layers show, in the dtype of the images; None: they show the images.
        subframes: this many frames of the plan become one, their average. Above 1, no frame may read another, and nothing be mixed.

    Raises:
        IndexError: where the plan shows an image, a texture or a partner that is not there.

    """
    _check_indices(plan, len(images), len(images if textures is None else textures))
    num_frames = plan.num_frames // subframes
    order = (images.shape[1], num_frames) if output.data_format == "BCTHW" else (num_frames, images.shape[1])
    clips = _empty((output.count, *order, *plan.frame_size), output.dtype)
    if clips.numel():
        call = _Call()
        _describe_clips(call, _readable(images), None if textures is None else _readable(textures), plan, output, clips, subframes)
        _run(call, _pack_plan(call, plan), output.count)
    return clips


def _check_indices(plan: MotionPlan, images: int, textures: int) -> None:
    """Raise ``IndexError`` for indices out of range: the kernels do not check them."""
    indices = [("back.image", plan.back.image, images), ("layers.texture", plan.layers.texture, textures)]
    indices += [] if plan.blend is None else [("blend.partner", plan.blend.partner, len(plan))]
    for name, index, count in indices:
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < count:
            raise IndexError(f"plan.{name} must be from 0 to {count - 1}, got {int(index.min())} to {int(index.max())}")


_spare: dict[int, np.ndarray] = {}  # memory of freed clips, by address; oldest first


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Shaped[Tensor, "..."]:
    """Uninitialized memory, reused from clips that were freed if one had this size.

    New memory costs a quarter of the time of float32 clips, because Linux clears every page. numpy allocates it, because numpy requests
    huge pages.
    """
    if 0 in shape:
        return torch.empty(shape, dtype=dtype, device="cpu")
    size, memory = math.prod(shape) * dtype.itemsize, None
    for address in [address for address, kept in list(_spare.items()) if kept.nbytes == size]:
        if (memory := _spare.pop(address, None)) is not None:  # another thread may have taken it
            break
    memory = _aligned(size) if memory is None else memory
    lent = memory.view()
    weakref.finalize(lent, _give_back, memory).atexit = False
    return torch.from_numpy(lent).view(dtype).view(shape)


def _aligned(size: int) -> np.ndarray:
    """Uninitialized memory that begins a cache line."""
    memory: np.ndarray = np.empty(size + LINE - 1, np.uint8)
    return memory[-memory.ctypes.data % LINE :][:size]


def _give_back(memory: np.ndarray) -> None:
    """Keep memory for later clips, at most ``SPARE`` bytes. No lock: the garbage collector may call this anywhere; each step is atomic."""
    _spare[memory.ctypes.data] = memory
    while sum(kept.nbytes for kept in list(_spare.values())) > SPARE:
        _spare.pop(next(iter(list(_spare)), 0), None)


def _readable(pixels: Shaped[Tensor, "N C H W"]) -> Shaped[Tensor, "N C H W"]:
    """Images as kernels read them: uint8 or float32, contiguous."""
    return (pixels if pixels.dtype == torch.uint8 else pixels.detach().float()).contiguous()


class _Call:
    """The kernels' arguments. Some are addresses of arrays and tensors, which this object keeps alive."""

    def __init__(self) -> None:
        self.numbers, self._kept = np.zeros(layout.CALL, np.int64), list[object]()

    def put(self, place: int, *numbers: int) -> None:
        """Set numbers from a place on."""
        self.numbers[place : place + len(numbers)] = numbers

    def lend(self, place: int, memory: Tensor | np.ndarray) -> None:
        """Set the address of a tensor or array."""
        if isinstance(memory, Tensor):
            memory = memory.contiguous()
        self.numbers[place] = memory.data_ptr() if isinstance(memory, Tensor) else memory.ctypes.data
        self._kept.append(memory)

    def make(self, place: int, rows: int, size: int, dtype: type = np.float32) -> np.ndarray:
        """Set the address of a new array, and return it."""
        made: np.ndarray = np.empty((rows, size), dtype)
        self.lend(place, made)
        return made


def _describe_clips(
    call: _Call,
    images: Images,
    textures: Shaped[Tensor, "M _ _ _"] | None,
    plan: MotionPlan,
    output: Output,
    clips: Tensor,
    subframes: int,
) -> None:
    """Set the arguments about images, textures and clips."""
    frame_axis, (h, w) = output.data_format.index("T"), plan.frame_size
    strides = [clips.stride(axis) * clips.element_size() for axis in (0, frame_axis, 3 - frame_axis)]
    call.lend(layout.IMAGES, images)
    call.lend(layout.OUT, clips)
    finish = output.scale_and_shift()
    finish[:4] /= subframes  # of their sum
    call.lend(layout.FINISH, finish)
    call.put(layout.SUBFRAMES, subframes)
    previous = np.zeros(layout.SOURCE, np.int32)
    previous[[layout.WIDTH, layout.HEIGHT, layout.PITCH]] = w, h, layout.pitch(w)
    previous.view(np.float32)[layout.PERIOD_U : layout.PERIOD_V + 1] = [max(1, 2 * (side - 1)) for side in (w, h)]
    call.lend(layout.PREVIOUS, previous)
    if textures is not None and plan.texture_size is not None:
        call.lend(layout.TEXTURES, textures)
        call.put(layout.TEXTURE_W, *plan.texture_size[::-1])
        call.put(layout.SEPARATE, 1)
        call.put(layout.ALPHA, cut_out(images, textures))
    call.put(layout.CHANNELS, images.shape[1], w, h, *plan.image_size[::-1])
    call.put(layout.ITEM, images.element_size(), KINDS[output.dtype], PADDING_MODES.index(plan.padding_mode), *strides)
    fills_lines = not any(number % LINE for number in (clips.data_ptr(), w * clips.element_size(), *strides))
    call.put(layout.STREAMED, fills_lines and clips.dtype == torch.float32 and clips.nbytes >= STREAMED)


class _Facts(NamedTuple):
    """The properties of a packed plan that determine the memory per clip."""

    pixels: int  # that the sources of one clip take at most
    recursive: bool  # some clip reads its frames
    mixed: bool  # some clip is mixed with its partner


def _pack_plan(call: _Call, plan: MotionPlan) -> _Facts:
    """Pack a plan into rows for the kernels."""
    back, layers, blend = plan.back, plan.layers, plan.blend
    for place, tensor in (
        (layout.BACK_IMAGE, back.image),
        (layout.BACK_READS_PREVIOUS, back.reads_previous),
        (layout.BACK_HOMOGRAPHY, back.motion.homography),
        (layout.BACK_COLOR, back.motion.color),
        (layout.BACK_BEND, back.motion.bend),
        (layout.BACK_DETAIL, plan.detail),
        (layout.LAYER_TEXTURE, layers.texture),
        (layout.LAYER_BOX, layers.box),
        (layout.LAYER_OUTLINE, layers.outline),
        (layout.LAYER_OPACITY, layers.opacity),
        (layout.LAYER_HOMOGRAPHY, layers.motion.homography),
        (layout.LAYER_COLOR, layers.motion.color),
        (layout.LAYER_BEND, layers.motion.bend),
        (layout.LAYER_DETAIL, plan.layer_detail),
        *((layout.BLEND_PARTNER + k, tensor) for k, tensor in enumerate(vars(blend).values() if blend is not None and plan.mixes else ())),
    ):
        call.lend(place, tensor)
    b, t, surfaces = len(plan), plan.num_frames, 1 + plan.num_layers
    levels = 1 + math.ceil(max([0.0, *(float(detail.max()) for detail in (plan.detail, plan.layer_detail) if detail.numel())]))
    back_grid, layer_grid = (motion.bend.shape[-1] for motion in (back.motion, layers.motion) if motion.bend is not None)
    call.put(layout.BATCH, b, t, plan.num_layers)
    call.put(layout.LEVELS, levels)
    call.put(layout.BACK_GRID, back_grid)
    call.put(layout.LAYER_GRID, layer_grid)
    call.put(layout.OUTLINE_NUMBERS, layers.outline.shape[-1])
    clips = call.make(layout.CLIPS, b, layout.CLIP, np.int32)
    call.make(layout.FRAMES, b * surfaces * t, layout.FRAME)
    call.make(layout.SURFACES, b * surfaces, layout.SURFACE)
    call.make(layout.SOURCE_ROWS, b * surfaces * levels, layout.SOURCE)
    bent = [b * t * bool(back_grid), b * plan.num_layers * t * bool(layer_grid)]
    call.make(layout.CONTROLS, 1, sum(count * layout.controls(grid) for count, grid in zip(bent, (back_grid, layer_grid), strict=True)))
    call.make(layout.SCRATCH, levels, layout.REACH, np.float64)
    weights, places = _weights(plan, levels)
    call.lend(layout.WEIGHTS, weights)
    call.lend(layout.PLACES, places)
    pixels = _pack(call.numbers.ctypes.data)
    return _Facts(pixels, bool(clips[:, layout.RECURSIVE].any()), bool((clips[:, layout.LAST] > 0).any()))


def _weights(plan: MotionPlan, levels: int) -> tuple[Float32[np.ndarray, " w"], Int64[np.ndarray, "2 K 2"]]:
    """The weight of every row and column of an image in the pixels of each pyramid level, and where each list of weights begins.

    A level is the average over 2x2 pixels of the level before; at an odd far edge, over those that are there.
    """
    places = np.zeros((2, levels, 2), np.int64)
    if levels == 1:
        return np.zeros(1, np.float32), places
    lists: list[np.ndarray] = []
    begin = 0
    for textured, size in enumerate((plan.image_size, plan.texture_size or (0, 0))):
        for axis, side in enumerate((size[1], size[0])):
            weight, block = np.ones(side, np.float32), np.arange(side)
            for level in range(1, levels):
                count = -(-side // 2 ** (level - 1))
                weight = weight * np.where((block == count - 1) & (count % 2 == 1), np.float32(1), np.float32(0.5))
                block = block // 2
                places[textured, level, axis] = begin
                lists.append(weight)
                begin += side
    return np.concatenate(lists), places


class _Memory:
    """Memory that begins a cache line."""

    def __init__(self, size: int) -> None:
        self._bytes = _aligned(size)
        self.address = self._bytes.ctypes.data


def _lay_out(call: _Call, facts: _Facts, rows: int) -> tuple[Numbers, int]:
    """The arguments, completed for work items of ``rows`` rows; and the bytes that a clip needs.

    These are two working frames where its frames read each other, and its sources; as much again where it is mixed. Where threads share
    a clip, a third frame lets the next begin before the last is done.
    """
    numbers = call.numbers.copy()
    h, w = int(numbers[layout.H]), int(numbers[layout.W])
    pieces = -(-h // rows)
    frame_bytes = PIXEL * (layout.pitch(w) * (h + 3) + 4)
    buffers = (2 if pieces == 1 else 3) * facts.recursive
    chain_bytes = buffers * frame_bytes + PIXEL * facts.pixels
    row_bytes = (PIXEL * (layout.pitch(w) + 40) + 255) & ~255  # its quarters are aligned
    numbers[layout.BUFFERS : layout.PIECE_ROWS + 1] = buffers, frame_bytes, chain_bytes, row_bytes, pieces, rows
    return numbers, BEFORE + chain_bytes * (1 + facts.mixed)


def _queue(call: Numbers) -> Numbers:
    """An empty queue of a clip's work items: what of every stage is taken, and done, and which items are done."""
    return np.zeros((int(call[layout.NUM_FRAMES]) + 1) * (2 + int(call[layout.PIECES])), np.int64)


def _run(call: _Call, facts: _Facts, count: int) -> None:
    """Render the first ``count`` clips, one thread per clip. The remainder of ``count`` divided by the threads is shared by all threads."""
    h, threads = int(call.numbers[layout.H]), torch.get_num_threads()
    small = int(call.numbers[[layout.NUM_FRAMES, layout.H, layout.W]].prod()) < SHARED
    shared = [] if small else list(range(count - count % threads, count))
    alone = iter(range(count - len(shared)))  # each item is taken by one thread only
    lone_call, lone_bytes = _lay_out(call, facts, h)
    team_call, team_bytes = _lay_out(call, facts, max(LEAST, -(-h // (PIECES * threads))))
    teams = [(clip, _Memory(team_bytes), _queue(team_call)) for clip in shared]
    longest = int(call.numbers[[layout.IMAGE_W, layout.TEXTURE_W]].max())
    stopped = threading.Event()
    turns = itertools.count()

    def work() -> None:
        rows, sums = _Memory(6 * int(team_call[layout.ROW_BYTES])), _Memory(4 * longest)

        def make(call: Numbers, clip: int, arena: _Memory, queue: Numbers, end: int = 0) -> None:
            """Process work items of a clip until none is left."""
            piece = -1
            while not stopped.is_set():
                piece = _work_on_clip(
                    call.ctypes.data, clip, arena.address + BEFORE, rows.address, sums.address, queue.ctypes.data, piece, end
                )
                if piece < 0:
                    break
                time.sleep(PAUSE)

        if count > len(shared):
            arena, queue = _Memory(lone_bytes), _queue(lone_call)
            for clip in alone:
                queue[:] = 0
                make(lone_call, clip, arena, queue)
        first = next(turns)
        for k in range(len(teams)):
            make(team_call, *teams[(first + k) % len(teams)], first % 2)

    _together(work, threads if shared else min(threads, count), stopped)


_pool: ThreadPoolExecutor | None = None
_lock = threading.Lock()


def _forget_pool() -> None:
    """After a fork, because the child process has none of the threads."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _helpers(number: int) -> ThreadPoolExecutor:
    """The thread pool, with at least ``number`` threads."""
    global _pool
    with _lock:
        if _pool is None or _pool._max_workers < number:
            _pool = ThreadPoolExecutor(number, "pseudomotion")
        return _pool


def _together(work: Callable[[], None], threads: int, stopped: threading.Event) -> None:
    """Run a function in this thread and in helper threads. If one fails or is interrupted, all stop."""

    def guarded() -> None:
        try:
            work()
        except BaseException:
            stopped.set()
            raise

    if threads == 1:
        return work()
    pool = _helpers(threads - 1)
    helpers = [pool.submit(guarded) for _ in range(threads - 1)]
    try:
        guarded()
    finally:
        begun = [helper for helper in helpers if not helper.cancel()]  # the others found nothing left to do
        for helper in begun:
            helper.exception()  # when it has ended
    for helper in begun:
        helper.result()
    return None
