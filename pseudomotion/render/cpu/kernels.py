"""The renderer for CPUs: sources to working frames, working frames to each other, and their rows to finished clips."""

# mypy: ignore-errors
# LLVM compiles these functions; their annotations are its types.

import math

from pseudomotion.geometry import HORIZON
from pseudomotion.render.cpu import table as T
from pseudomotion.render.cpu import vector as V
from pseudomotion.render.cpu.compiler import LANES, Bit, Double, Floats, Int, apart, compiled, inlined
from pseudomotion.render.cpu.locate import along_row, locate, locate_layer
from pseudomotion.render.cpu.rows import copy_row, gather, gather_over, gather_twice, mix_row, paint_cut, recolor_row, sample_row
from pseudomotion.render.cpu.sources import clear_border, close_row, prepare
from pseudomotion.render.cpu.vector import PIXEL

ROUNDING = 1 / 16  # pixels by which the ends of a layer, where nearly nothing of it is seen, may be off
PATIENCE = 20_000  # looks at what another thread has still to do, before the caller is asked to wait


@inlined
def _source(call, m, k) -> Int:
    """Row of the table of the first or second source that a frame reads."""
    return V.long(call, T.SOURCE_ROWS) + V.whole(m, T.READS + k) * (4 * T.SOURCE)


@compiled
def _show_back(call, target, y, m, base, spare, spots, scratch):
    """Row y of what a back shows of its sources, recolored."""
    w, share = V.long(call, T.W), V.real(m, T.SHARE)
    for k in range(2 if share > 0 else 1):
        source = _source(call, m, k)
        sample_row(call, spare if k else target, 0, w, y, m, source, base + V.whole(source, T.PLACE) * PIXEL, spots, scratch)
    if share > 0:
        mix_row(target, spare, w, share)
    if V.whole(m, T.FLAGS) & T.COLORED:
        recolor_row(target, w, m, 0)


@compiled
def _paint_layer(call, target, x0, x1, y, m, surface, base, spare, second, spots, scratch):
    """Paint pixels x0 to x1 of row y of a layer over those at ``target``."""
    share, colored, source = V.real(m, T.SHARE), V.whole(m, T.FLAGS) & T.COLORED, _source(call, m, 0)
    cut, plane = V.long(call, T.ALPHA), V.long(call, T.ROW_BYTES) // 4
    locate_layer(call, x0, x1, y, m, source, surface, spots, scratch)
    target += x0 * PIXEL
    if share == 0 and not colored and not cut:
        gather_over(target, x1 - x0, spots, plane, base + V.whole(source, T.PLACE) * PIXEL, V.whole(source, T.PITCH))
        return
    gather(spare, x1 - x0, spots, plane, base + V.whole(source, T.PLACE) * PIXEL, V.whole(source, T.PITCH))
    if share > 0:
        source = _source(call, m, 1)
        locate_layer(call, x0, x1, y, m, source, surface, spots, scratch)
        gather(second, x1 - x0, spots, plane, base + V.whole(source, T.PLACE) * PIXEL, V.whole(source, T.PITCH))
        mix_row(spare, second, x1 - x0, share)
    if colored:
        if cut:
            recolor_row(spare, x1 - x0, m, 1)
        else:
            recolor_row(spare, x1 - x0, m, 0)
    if cut:
        paint_cut(target, x1 - x0, spots + 3 * plane, spare)
        return
    for x in range(0, x1 - x0, 4):
        place, covered = target + x * PIXEL, V.load_spread(spots + 3 * plane + 4 * x)
        V.store(V.lerp(V.load(place), V.load(spare + x * PIXEL), covered), place)


@inlined
def _cut(slope: Double, start: Double, x0: Double, x1: Double) -> (Double, Double):
    """The part of the interval x0 to x1 in which slope * x + start is not negative."""
    if slope > 0:
        return max(x0, -start / slope), x1
    if slope < 0:
        return x0, min(x1, -start / slope)
    if start >= 0:
        return x0, x1
    return x1 + 1, x1


@compiled
def _span(m, surface, y, w) -> (Int, Int):
    """The pixels, from the first up to the second, of row y in which a layer may be seen."""
    x0, x1 = 0.0, w - 1.0
    if V.whole(m, T.FLAGS) & T.AFFINE:
        for axis in range(2):
            c, inverse = along_row(m, axis, y), V.real(m, T.STEEP + axis)
            first, last = (V.real(surface, T.LIMITS + axis) - c) * inverse, (V.real(surface, T.LIMITS + 2 + axis) - c) * inverse
            x0, x1 = max(x0, min(first, last)), min(x1, max(first, last))
        if not x0 <= x1 + 1:
            return 0, 0
        return max(0, Int(V.ceil(x0 - ROUNDING))), min(w, Int(V.floor(x1 + ROUNDING)) + 1)
    g, h = Double(V.real(m, T.MATRIX + 6)), along_row(m, 2, y)
    if h < HORIZON or h + g * (w - 1) < HORIZON:
        return 0, w
    for axis in range(2):
        a, c = Double(V.real(m, T.MATRIX + 3 * axis)), along_row(m, axis, y)
        low, high = V.real(surface, T.LIMITS + axis), V.real(surface, T.LIMITS + 2 + axis)
        x0, x1 = _cut(a - low * g, c - low * h, x0, x1)
        x0, x1 = _cut(high * g - a, high * h - c, x0, x1)
    if not x0 <= x1 + 1:
        return 0, 0
    return max(0, Int(V.ceil(x0 - ROUNDING))), min(w, Int(V.floor(x1 + ROUNDING)) + 1)


@compiled
def _paint_layers(call, target, clip, y, t, base, spare, second, spots, scratch):
    """Paint the layers of a clip over row y of frame t."""
    w, num_frames = V.long(call, T.W), V.long(call, T.NUM_FRAMES)
    first = clip * (1 + V.long(call, T.NUM_LAYERS))
    for s in range(first + 1, first + 1 + V.long(call, T.NUM_LAYERS)):
        m = V.long(call, T.FRAMES) + (s * num_frames + t) * (4 * T.FRAME)
        if V.whole(m, T.ROWS) <= y < V.whole(m, T.ROWS + 1):
            surface = V.long(call, T.SURFACES) + s * (4 * T.SURFACE)
            x0, x1 = _span(m, surface, y, w)
            if x0 < x1:
                _paint_layer(call, target, x0, x1, y, m, surface, base, spare, second, spots, scratch)


@inlined
def _frame(call, clip, t) -> Int:
    """The row of frame t of a clip's back."""
    return V.long(call, T.FRAMES) + (clip * (1 + V.long(call, T.NUM_LAYERS)) * V.long(call, T.NUM_FRAMES) + t) * (4 * T.FRAME)


@compiled
def _paint_row(call, clip, y, t, chain, own, spare, second, spots, scratch) -> Int:
    """Paint row y of frame t of a clip before it is mixed, and return the address of its first pixel.

    ``chain`` is memory with the clip's working frames and behind them its sources. ``own`` is a row for clips that need no working frame or
    paint layers over it; ``spare``, ``second``, ``spots`` and ``scratch`` are memory for as much.
    """
    w, frame_bytes = V.long(call, T.W), V.long(call, T.FRAME_BYTES)
    buffers, pitch = V.long(call, T.BUFFERS), V.whole(V.long(call, T.PREVIOUS), T.PITCH)
    row = V.long(call, T.CLIPS) + clip * (4 * T.CLIP)
    recursive, layered = V.whole(row, T.RECURSIVE), V.whole(row, T.LAYERED)
    m, base = _frame(call, clip, t), chain + buffers * frame_bytes
    target = own
    if recursive:
        target = chain + (t % buffers) * frame_bytes + ((y + 1) * pitch + 1) * PIXEL
    copied = 0
    if recursive and t > 0:
        before, previous, flags = chain + ((t - 1) % buffers) * frame_bytes, V.long(call, T.PREVIOUS), V.whole(m, T.FLAGS)
        if layered and not flags & (T.COPY + T.COLORED):
            copied = 1
            locate(call, 0, w, y, m, previous, spots, scratch)
            gather_twice(target, own, w, spots, V.long(call, T.ROW_BYTES) // 4, before, V.whole(previous, T.PITCH))
        else:
            sample_row(call, target, 0, w, y, m, previous, before, spots, scratch)
            if flags & T.COLORED:
                recolor_row(target, w, m, 0)
    else:
        _show_back(call, target, y, m, base, spare, spots, scratch)
    if recursive:
        close_row(target, w)
    if layered:
        if recursive:
            if not copied:
                copy_row(own, target, w)
            target = own
        _paint_layers(call, target, clip, y, t, base, spare, second, spots, scratch)
    return target


@compiled
def _add_rows(call, clip, y, t, total, arena, own, spare, second, spots, scratch):
    """The sum, at ``total``, of row y of the sub-frames of frame t."""
    subframes = V.long(call, T.SUBFRAMES)
    for k in range(subframes):
        row = _paint_row(call, clip, y, t * subframes + k, arena, own, spare, second, spots, scratch)
        for x in range(0, V.long(call, T.W), 4):
            before = V.load(total + x * PIXEL) if k else Floats(0.0)
            V.store(before + V.load(row + x * PIXEL), total + x * PIXEL)


@inlined
def _write_pixels(target, source, count, plane, channels, finish, kind, item, streamed):
    """Some pixels, a multiple of sixteen, to their places in planes that are ``plane`` bytes apart: scaled, shifted, cast.

    The type ``kind`` is a constant, and so is whether cache lines are written past the cache, in which working frames should stay.
    """
    scale, shift = V.load_repeated(finish), V.load_repeated(finish + 4 * 4)
    for _ in range(0, count, LANES):
        pixels = ()
        for k in V.FOUR:
            pixels = (*pixels, V.fma(V.load(source + 4 * k * PIXEL), scale, shift))
        for c in V.FOUR:
            if c == 0 or c < channels:
                if kind == T.UINT8:
                    V.write_bytes(target + c * plane, c, *pixels)
                elif kind == T.BFLOAT16:
                    V.write_bfloat16(target + c * plane, c, *pixels)
                elif kind == T.FLOAT16:
                    V.write_float16(target + c * plane, c, *pixels)
                elif streamed:
                    V.stream_floats(target + c * plane, c, *pixels)
                else:
                    V.write_floats(target + c * plane, c, *pixels)
        source += LANES * PIXEL
        target += LANES * item


@inlined
def _write_some(call, target, source, count, plane):
    """As ``_write_pixels``, of the type that is asked for."""
    channels, kind, finish = V.long(call, T.CHANNELS), V.long(call, T.KIND), V.long(call, T.FINISH)
    if kind == T.UINT8:
        _write_pixels(target, source, count, plane, channels, finish, T.UINT8, 1, 0)
    elif kind == T.BFLOAT16:
        _write_pixels(target, source, count, plane, channels, finish, T.BFLOAT16, 2, 0)
    elif kind == T.FLOAT16:
        _write_pixels(target, source, count, plane, channels, finish, T.FLOAT16, 2, 0)
    elif V.long(call, T.STREAMED):
        _write_pixels(target, source, count, plane, channels, finish, T.FLOAT32, 4, 1)
    else:
        _write_pixels(target, source, count, plane, channels, finish, T.FLOAT32, 4, 0)


@apart
def _write_row(call, clip, y, t, source, spare):
    """A finished row to its places in the clips, converted."""
    w, plane = V.long(call, T.W), V.long(call, T.CHANNEL_STRIDE)
    item = 4 if V.long(call, T.KIND) == T.FLOAT32 else 1 if V.long(call, T.KIND) == T.UINT8 else 2
    target = V.long(call, T.OUT) + clip * V.long(call, T.CLIP_STRIDE) + t * V.long(call, T.FRAME_STRIDE) + y * w * item
    full = w // LANES * LANES
    _write_some(call, target, source, full, plane)
    if full == w:
        return
    if full > 0:  # the last sixteen pixels, some of them again
        _write_some(call, target + (w - LANES) * item, source + (w - LANES) * PIXEL, LANES, plane)
        return
    _write_some(call, spare, source, LANES, 4 * LANES)  # what follows them may be finished
    for c in range(V.long(call, T.CHANNELS)):
        for k in range(w * item):
            V.copy_byte(target + c * plane + k, spare + c * (4 * LANES) + k)


@compiled
def _finish_row(call, clip, y, t, arena, rows):
    """Row y of frame t of a clip, mixed with its partner's, to its place; ``rows`` is memory for six rows."""
    size, clips = V.long(call, T.ROW_BYTES), V.long(call, T.CLIPS)
    row = clips + clip * (4 * T.CLIP)
    own, other, spare, second, spots = rows, rows + size, rows + 2 * size, rows + 3 * size, rows + 4 * size
    source, result, chain, shown = own, own, arena, clip
    mixed = V.whole(row, T.FIRST) <= t < V.whole(row, T.LAST) and V.whole(row, T.MIX_TOP) <= y < V.whole(row, T.MIX_BOTTOM)
    needed = mixed or (t < V.whole(row, T.LAST) and V.whole(clips + V.whole(row, T.PARTNER) * (4 * T.CLIP), T.RECURSIVE))
    if V.long(call, T.SUBFRAMES) > 1:
        _add_rows(call, clip, y, t, other, arena, own, spare, second, spots, rows + 5 * size)
        _write_row(call, clip, y, t, other, second)
        return
    for k in range(2 if needed else 1):
        if k:
            source, own, chain, shown = result, other, arena + V.long(call, T.CHAIN_BYTES), V.whole(row, T.PARTNER)
        result = _paint_row(call, shown, y, t, chain, own, spare, second, spots, rows + 5 * size)
    if needed:
        result, partner = source, result
        if mixed:
            left, right = V.whole(row, T.MIX_LEFT), V.whole(row, T.MIX_RIGHT)
            for x in range(0, V.long(call, T.W), 4):
                xs = V.ramp_of_pixels() + x
                share = V.choose(left <= xs < right, V.real(row, T.WEIGHT), 0.0)
                V.store(V.lerp(V.load(result + x * PIXEL), V.load(partner + x * PIXEL), share), spare + x * PIXEL)
            result = spare
    _write_row(call, clip, y, t, result, second)


# Whole clips -----------------------------------------------------------------------------------------------------------------------------


@compiled
def _rows_read(m, y0, y1, w, h) -> (Int, Int):
    """The rows of the frame before, from the first up to the second, that rows y0 to y1 of a frame read."""
    low, high = math.inf, -math.inf
    for corner in range(4):
        x, y = (w - 1) * (corner & 1), (y1 - 1) if corner & 2 else y0
        depth = Double(V.real(m, T.MATRIX + 6)) * x + along_row(m, 2, y)
        if depth < HORIZON:
            return 0, h
        v = (Double(V.real(m, T.MATRIX + 3)) * x + along_row(m, 1, y)) / depth
        low, high = min(low, v), max(high, v)
    low, high = low - V.real(m, T.REACHED), high + V.real(m, T.REACHED)
    low, high = min(max(low, 0.0), h - 1.0), min(max(high, 0.0), h - 1.0)
    return max(0, Int(low) - 1), min(h, Int(high) + 3)


@compiled
def _ready(call, clip, stage, y0, y1, queue) -> Bit:
    """Whether all has been made that rows y0 to y1 of a stage need."""
    pieces, t, rows = V.long(call, T.PIECES), stage - 1, V.long(call, T.PIECE_ROWS)
    counts = queue + 8 * (V.long(call, T.NUM_FRAMES) + 1)
    if V.get_shared(counts + 8 * max(0, stage - 2)) < pieces:  # also nothing reads any more what will be written over
        return False
    if t == 0:
        return V.get_shared(counts) == pieces
    done = counts + 8 * (V.long(call, T.NUM_FRAMES) + 1) + 8 * pieces * t
    clips = V.long(call, T.CLIPS)
    row = clips + clip * (4 * T.CLIP)
    for k in range(2 if t < V.whole(row, T.LAST) else 1):
        shown = V.whole(row, T.PARTNER) if k else clip
        if V.whole(clips + shown * (4 * T.CLIP), T.RECURSIVE):
            low, high = _rows_read(_frame(call, shown, t), y0, y1, V.long(call, T.W), V.long(call, T.H))
            if V.long(call, T.PADDING) == T.REFLECTION:
                low, high = 0, V.long(call, T.H)
            for piece in range(low // rows, (high - 1) // rows + 1):
                if V.get_shared(done + 8 * piece) == 0:
                    return False
    return True


@compiled
def work_on_clip(call, clip, arena, rows, sums, queue, piece, end) -> Int:
    """Do pieces of work on a clip, which threads share among them, until none is left.

    Stage 0 prepares the sources, stage t + 1 makes frame t, of its sub-frames where there are some; a stage is cut into pieces. Half of the
    threads take them from the top and half from the bottom, so that a thread mostly reads what it wrote itself. Whatever is not a number
    is passed as an address.

    Args:
        call: sizes and addresses, as ``table`` lays them out.
        clip: position in the batch.
        arena: the clip's memory, shared by the threads.
        rows: this thread's memory for rows of frames.
        sums: this thread's memory for a row of an image.
        queue: how many pieces of every stage are taken (from the bottom in the upper 32 bits) and how many done, and which; zeros at first.
        piece: to begin with; -1: take the next.
        end: 0: take pieces from the top; 1: from the bottom.

    Returns:
        -1 where no piece is left; else a piece that must wait for other threads, to be passed again.

    """
    pieces, height, h = V.long(call, T.PIECES), V.long(call, T.PIECE_ROWS), V.long(call, T.H)
    counts = queue + 8 * (V.long(call, T.NUM_FRAMES) + 1)
    done = counts + 8 * (V.long(call, T.NUM_FRAMES) + 1)
    clips = V.long(call, T.CLIPS)
    row = clips + clip * (4 * T.CLIP)
    stage = max(piece, 0) // pieces
    while stage <= V.long(call, T.NUM_FRAMES) // V.long(call, T.SUBFRAMES):
        if piece < 0:
            taken = V.add_shared(queue + 8 * stage, (1 << 32) if end else 1)
            above, below = taken & ((1 << 32) - 1), taken >> 32
            if above + below >= pieces:
                stage += 1
                continue
            piece = stage * pieces + (pieces - 1 - below if end else above)
        part = piece % pieces
        if stage == 0:
            for chain in range(2 if V.whole(row, T.LAST) > 0 else 1):
                shown = clips + V.whole(row, T.PARTNER) * (4 * T.CLIP) if chain else row
                base = arena + chain * V.long(call, T.CHAIN_BYTES)
                for k in range(V.long(call, T.BUFFERS)):
                    if k % pieces == part:
                        clear_border(
                            base + k * V.long(call, T.FRAME_BYTES), V.whole(V.long(call, T.PREVIOUS), T.PITCH), V.long(call, T.W), h
                        )
                base += V.long(call, T.BUFFERS) * V.long(call, T.FRAME_BYTES)
                prepare(call, V.whole(shown, T.SOURCES), V.whole(shown, T.SOURCES + 1), base, part, pieces, sums)
        else:
            y0, y1 = part * height, min(h, (part + 1) * height)
            looks = 0
            while not _ready(call, clip, stage, y0, y1, queue):
                looks += 1
                if looks > PATIENCE:
                    return piece
            for y in range(y0, y1):
                _finish_row(call, clip, y, stage - 1, arena, rows)
        V.add_shared(done + 8 * piece, 1)
        V.add_shared(counts + 8 * stage, 1)
        piece = -1
    return -1
