"""The fused renderer on CPUs: what its kernels are told, their memory, and the threads that run them."""

import itertools
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from pseudomotion.plan import PADDING_MODES, MotionPlan
from pseudomotion.render import table as layout
from pseudomotion.render.cpu.kernels import work_on_clip
from pseudomotion.render.output import Output

KINDS = {
    torch.uint8: layout.UINT8,
    torch.float16: layout.FLOAT16,
    torch.bfloat16: layout.BFLOAT16,
    torch.float32: layout.FLOAT32,
}
PIXEL = 16  # bytes, in a working frame
PIECE = 16  # rows of a frame that a thread makes at a time where threads share a clip
SHARED = 2**16  # pixels of a clip from which on they do
PAUSE = 5e-5  # seconds that a thread sleeps when it has waited for others in vain

Images = Shaped[Tensor, "N C H W"]
Numbers = Int64[np.ndarray, " _"]


def render(
    images: Images, plan: MotionPlan, output: Output, textures: Shaped[Tensor, "M C _ _"] | None = None
) -> Shaped[Tensor, "B _ _ h w"]:
    """Clips of a plan, finished: the same bits for any number of threads, which is at most ``torch.get_num_threads()``.

    Args:
        images: on the CPU; uint8, float16, bfloat16 or float32 in [0, 1].
        plan: for as many images of the same size, on the CPU.
        output: what the clips are to be.
        textures: what layers show, in the dtype of the images; None: they show the images.

    Raises:
        IndexError: where the plan shows an image, a texture or a partner that is not there.

    """
    _check_indices(plan, len(images), len(images if textures is None else textures))
    order = (images.shape[1], plan.num_frames) if output.data_format == "BCTHW" else (plan.num_frames, images.shape[1])
    clips = _empty((output.count, *order, *plan.frame_size), output.dtype)
    if clips.numel():
        call, kept = _make_call(_readable(images), None if textures is None else _readable(textures), plan, output, clips)
        _run(call, layout.pack(plan), output.count)
        del kept  # their addresses were in use until here
    return clips


def _check_indices(plan: MotionPlan, images: int, textures: int) -> None:
    """The kernels read whatever memory they are told to."""
    indices = [("back.image", plan.back.image, images), ("layers.texture", plan.layers.texture, textures)]
    indices += [] if plan.blend is None else [("blend.partner", plan.blend.partner, len(plan))]
    for name, index, count in indices:
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < count:
            raise IndexError(f"plan.{name} must be from 0 to {count - 1}, got {int(index.min())} to {int(index.max())}")


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Shaped[Tensor, "..."]:
    """Memory to be written. It is numpy's, for numpy asks Linux for huge pages: a page fault for every 2 MiB instead of every 4 KiB."""
    if 0 in shape:
        return torch.empty(shape, dtype=dtype, device="cpu")
    return torch.from_numpy(np.empty(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)


def _readable(pixels: Shaped[Tensor, "N C H W"]) -> Shaped[Tensor, "N C H W"]:
    """Images as kernels read them: bytes or float32, without gaps."""
    return (pixels if pixels.dtype == torch.uint8 else pixels.detach().float()).contiguous()


def _make_call(
    images: Images, textures: Shaped[Tensor, "M C _ _"] | None, plan: MotionPlan, output: Output, clips: Tensor
) -> tuple[Numbers, list[object]]:
    """What all clips have in common, and what must be kept alive as long as that is used."""
    finish = output.scale_and_shift()
    frame_axis = output.data_format.index("T")
    strides = [clips.stride(axis) * clips.element_size() for axis in (0, frame_axis, 3 - frame_axis)]
    call = np.zeros(layout.CALL, np.int64)
    call[layout.IMAGES], call[layout.OUT], call[layout.FINISH] = images.data_ptr(), clips.data_ptr(), finish.ctypes.data
    call[layout.IMAGE_H], call[layout.IMAGE_W] = plan.image_size
    if textures is not None and plan.texture_size is not None:
        call[layout.TEXTURES] = textures.data_ptr()
        call[layout.TEXTURE_H], call[layout.TEXTURE_W] = plan.texture_size
    call[layout.NUM_FRAMES], call[layout.NUM_LAYERS], call[layout.CHANNELS] = plan.num_frames, plan.num_layers, images.shape[1]
    call[layout.H], call[layout.W] = plan.frame_size
    call[layout.ITEM], call[layout.KIND] = images.element_size(), KINDS[output.dtype]
    call[layout.PADDING] = PADDING_MODES.index(plan.padding_mode)
    call[layout.CLIP_STRIDE], call[layout.FRAME_STRIDE], call[layout.CHANNEL_STRIDE] = strides
    return call, [images, textures, finish]


class _Memory:
    """Bytes that begin at a multiple of 64."""

    def __init__(self, size: int) -> None:
        self._bytes = np.empty(size + 63, np.uint8)
        self.address = (self._bytes.ctypes.data + 63) & ~63


def _lay_out(call: Numbers, table: layout.Table, rows: int) -> tuple[Numbers, int]:
    """Complete what all clips have in common for pieces of so many rows; and the bytes that a clip needs.

    These are two working frames where its frames read each other, and its sources; as much again where it is mixed. Where threads share
    a clip, a third frame lets the next begin before the last is done.
    """
    h, w = int(call[layout.H]), int(call[layout.W])
    pieces = -(-h // rows)
    frame_bytes = PIXEL * (layout.pitch(w) * (h + 3) + 4)
    buffers = (2 if pieces == 1 else 3) * bool(table.clips[:, layout.RECURSIVE].any())
    chain_bytes = buffers * frame_bytes + PIXEL * table.most_pixels
    call = call.copy()
    call[layout.PIECES], call[layout.PIECE_ROWS], call[layout.BUFFERS] = pieces, rows, buffers
    call[layout.FRAME_BYTES], call[layout.CHAIN_BYTES], call[layout.ROW_BYTES] = frame_bytes, chain_bytes, PIXEL * (layout.pitch(w) + 8)
    call[layout.PITCHES] = layout.pitch(w)
    return call, chain_bytes * (1 + bool((table.clips[:, layout.LAST] > 0).any()))


def _run(call: Numbers, table: layout.Table, count: int) -> None:
    """Make the first clips of a plan, each by one thread; those left over when every thread had as many as the others, by several."""
    h, num_frames = int(call[layout.H]), int(call[layout.NUM_FRAMES])
    threads = torch.get_num_threads()
    small = int(call[[layout.NUM_FRAMES, layout.H, layout.W]].prod()) < SHARED
    shared = [] if small else list(range(count - count % threads, count))
    alone = iter(range(count - len(shared)))  # its next is taken by one thread only
    lone_call, lone_bytes = _lay_out(call, table, h)
    team_call, team_bytes = _lay_out(call, table, PIECE)
    pieces = (num_frames + 1) * int(team_call[layout.PIECES])
    teams = [(clip, _Memory(team_bytes), np.zeros(2 + num_frames + pieces, np.int64)) for clip in shared]
    level = table.sources[:, layout.LEVEL]
    longest = int((table.sources[:, layout.WIDTH].astype(np.int64) << level).max(initial=1, where=level > 0))
    stopped = threading.Event()
    turns = itertools.count()
    tables = [part.ctypes.data for part in (table.clips, table.frames, table.sources, table.weights)]

    def work() -> None:
        rows, sums = _Memory(5 * int(team_call[layout.ROW_BYTES])), _Memory(4 * longest)

        def make(call: Numbers, clip: int, arena: _Memory, queue: Numbers) -> None:
            """Work on a clip until there is nothing left to do."""
            piece = -1
            while not stopped.is_set():
                piece = work_on_clip(call.ctypes.data, *tables, clip, arena.address, rows.address, sums.address, queue.ctypes.data, piece)
                if piece < 0:
                    break
                time.sleep(PAUSE)

        if count > len(shared):
            arena, queue = _Memory(lone_bytes), np.empty(2 + 2 * num_frames + 1, np.int64)
            for clip in alone:
                queue[:] = 0
                make(lone_call, clip, arena, queue)
        first = next(turns)
        for k in range(len(teams)):
            make(team_call, *teams[(first + k) % len(teams)])

    _together(work, threads if shared else min(threads, count), stopped)


_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _forget_pool() -> None:
    """In a forked process, which has none of the threads."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _helpers(number: int) -> ThreadPoolExecutor:
    """Threads that are kept; at least as many as that."""
    global _pool
    with _pool_lock:
        if _pool is None or _pool._max_workers < number:
            _pool = ThreadPoolExecutor(number, "pseudomotion")
        return _pool


def _together(work: Callable[[], None], threads: int, stopped: threading.Event) -> None:
    """Run a function in this thread and others; if one of them fails, or is interrupted, all stop."""

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
        wait(begun)
    for helper in begun:
        helper.result()
    return None
