"""The renderer for CPUs, compiled by numba: sources to working frames, working frames to each other, and their rows to finished clips.

A working frame has a black pixel on its left and above, and two on its right and below, so that samples outside it need no test: coordinates
are clamped into that border. Its rows are wider than that, for pixels are made four at a time. Everything that is decided is in the table.
"""

# mypy: ignore-errors
# Numba compiles these functions; jaxtyping's hook must not wrap them.

import math

import numpy as np
from numba import njit, types

from pseudomotion.render import table as T
from pseudomotion.render.cpu import vector as V

compiled = njit(nogil=True, error_model="numpy")
PIXEL = V.PIXEL
PATIENCE = 20_000  # looks at what another thread has still to do, before the caller is asked to wait
BLOCKED = np.int64(1) << 62  # added to the piece of work that waits
f32 = np.float32


# Sources ---------------------------------------------------------------------------------------------------------------------------------


@compiled
def _clear_border(frame, pitch, width, height):
    """Make the border of a working frame black, but for the right hand of its rows."""
    for x in range(width + 3):
        V.clear_pixel(frame + x * PIXEL)
        V.clear_pixel(frame + ((height + 1) * pitch + x) * PIXEL)
        V.clear_pixel(frame + ((height + 2) * pitch + x) * PIXEL)
    for y in range(height):
        V.clear_pixel(frame + (y + 1) * pitch * PIXEL)


@compiled
def _close_row(row, width):
    """Make the right hand of a row of a working frame black; ``row`` is its first pixel."""
    V.clear_pixel(row + width * PIXEL)
    V.clear_pixel(row + (width + 1) * PIXEL)


@compiled
def _read_row(target, image, y, x0, width, full_width, plane, channels, item):
    """A row of an image, from column ``x0`` on, into a working frame."""
    second = plane if channels > 1 else 0
    third, fourth = 2 * second, (3 if channels == 4 else 2) * second
    place = image + (y * full_width + x0) * item
    whole = width & ~3
    if item == 1:
        for x in range(0, whole, 4):
            V.read_bytes(target + x * PIXEL, place + x, second, third, fourth)
    else:
        for x in range(0, whole, 4):
            V.read_floats(target + x * PIXEL, place + 4 * x, second, third, fourth)
    for x in range(whole, width):
        for c in range(4):
            at = place + x * item + (0 if c == 0 else second if c == 1 else third if c == 2 else fourth)
            V.put_float(target + x * PIXEL + 4 * c, V.get_byte(at) / f32(255) if item == 1 else V.get_float(at))


@compiled
def _reduce_row(target, image, y, x0, width, level, full_width, full_height, plane, channels, item, weights, wx, wy, scratch):
    """A row of a reduced image: weighted averages over blocks of 2^level pixels; ``scratch`` has room for a row of the image."""
    size = 1 << level
    first, last = x0 * size, min((x0 + width) * size, full_width)
    unit = f32(1 / 255) if item == 1 else f32(1)
    for c in range(channels):
        for row in range(y * size, min((y + 1) * size, full_height)):
            place, weight = image + c * plane + row * full_width * item, weights[wy + row] * unit
            if row == y * size:
                for x in range(first, last):
                    scratch[x - first] = f32(0)
            if item == 1:
                for x in range(first, last):
                    scratch[x - first] += weight * V.get_byte(place + x)
            else:
                for x in range(first, last):
                    scratch[x - first] += weight * V.get_float(place + 4 * x)
        for x in range(width):
            total = f32(0)
            for k in range(x * size, min((x + 1) * size, last - first)):
                total += weights[wx + first + k] * scratch[k]
            for k in range(c, 4):  # the last channel there is stands for those that are missing
                V.put_float(target + x * PIXEL + 4 * k, total)


@compiled
def _prepare(call, sources, weights, first, last, base, part, parts, scratch):
    """Bring a part of the rows of some sources into working frames."""
    channels, item = call[T.CHANNELS], call[T.ITEM]
    for s in range(first, last):
        textured = sources[s, T.TEXTURED]
        width, height = sources[s, T.WIDTH], sources[s, T.HEIGHT]
        full_width, full_height = (call[T.TEXTURE_W], call[T.TEXTURE_H]) if textured else (call[T.IMAGE_W], call[T.IMAGE_H])
        plane = full_width * full_height * item
        image = (call[T.TEXTURES] if textured else call[T.IMAGES]) + sources[s, T.INDEX] * channels * plane
        pitch, frame = sources[s, T.PITCH], base + np.int64(sources[s, T.PLACE]) * PIXEL
        if part == 0:
            _clear_border(frame, pitch, width, height)
        for y in range(height * part // parts, height * (part + 1) // parts):
            row = frame + ((y + 1) * pitch + 1) * PIXEL
            x0, at, level = np.int64(sources[s, T.LEFT]), np.int64(sources[s, T.TOP] + y), sources[s, T.LEVEL]
            if level == 0:
                _read_row(row, image, at, x0, width, full_width, plane, channels, item)
            else:
                _reduce_row(
                    row,
                    image,
                    at,
                    x0,
                    width,
                    level,
                    full_width,
                    full_height,
                    plane,
                    channels,
                    item,
                    weights,
                    sources[s, T.WEIGHTS_X],
                    sources[s, T.WEIGHTS_Y],
                    scratch,
                )
            _close_row(row, width)


# Rows of frames --------------------------------------------------------------------------------------------------------------------------


@compiled
def _sample_row(target, x0, x1, y, m, flags, source, pitch, width, height, scale, left, top, period_u, period_v, padding):
    """Pixels x0 to x1 of row y of a frame, from a working frame that holds a part of what is read.

    Args:
        target: of pixel x0.
        m: the frame's row of the table, of which the homography is used.
        flags: of the frame.
        source: the working frame.
        scale: pixels of the working frame per pixel of what the homography leads to.
        left, top: what the working frame's first pixel is in what is read.
        period_u, period_v: of reflection.
        padding: mode.

    """
    if flags & T.COPY:
        place = source + ((y + int(m[T.MATRIX + 5]) + 1 - top) * pitch + x0 + int(m[T.MATRIX + 2]) + 1 - left) * PIXEL
        for x in range(x1 - x0):
            V.copy_pixel(target + x * PIXEL, place + x * PIXEL)
        return
    start = np.float64(y)
    c = m[T.MATRIX + 1] * start + m[T.MATRIX + 2]
    f = m[T.MATRIX + 4] * start + m[T.MATRIX + 5]
    h = m[T.MATRIX + 7] * start + m[T.MATRIX + 8]
    a, d, g = m[T.MATRIX], m[T.MATRIX + 3], m[T.MATRIX + 6]
    low = f32(0) if padding == T.ZEROS else f32(1)
    high_u, high_v = (f32(width + 1), f32(height + 1)) if padding == T.ZEROS else (f32(width), f32(height))
    shift = 0.5 * scale - 0.5
    add_u, add_v = np.float64(1 - left), np.float64(1 - top)
    if padding == T.REFLECTION:
        for x in range(x0, x1, 4):
            V.sample_any(
                target + (x - x0) * PIXEL,
                source,
                pitch,
                x,
                a,
                c,
                d,
                f,
                g,
                h,
                T.HORIZON,
                scale,
                shift,
                period_u,
                period_v,
                add_u,
                add_v,
                low,
                high_u,
                high_v,
            )
    elif flags & T.AFFINE:
        a, d = a * scale, d * scale
        c, f = c * scale + (shift + add_u), f * scale + (shift + add_v)
        for x in range(x0, x1, 4):
            V.sample(target + (x - x0) * PIXEL, source, pitch, x, a, c, d, f, low, high_u, high_v)
    else:
        add_u, add_v = shift + add_u, shift + add_v
        for x in range(x0, x1, 4):
            V.sample_projective(
                target + (x - x0) * PIXEL, source, pitch, x, a, c, d, f, g, h, T.HORIZON, scale, add_u, add_v, low, high_u, high_v
            )


@compiled
def _sample_source(target, x0, x1, y, m, flags, sources, s, base, padding):
    """Pixels x0 to x1 of row y of a frame, from a source."""
    periods = sources[s].view(np.float32)
    _sample_row(
        target,
        x0,
        x1,
        y,
        m,
        flags,
        base + np.int64(sources[s, T.PLACE]) * PIXEL,
        np.int64(sources[s, T.PITCH]),
        sources[s, T.WIDTH],
        sources[s, T.HEIGHT],
        1.0 / (1 << sources[s, T.LEVEL]),
        np.int64(sources[s, T.LEFT]),
        np.int64(sources[s, T.TOP]),
        periods[T.PERIOD_U],
        periods[T.PERIOD_V],
        padding,
    )


@compiled
def _show(target, x0, x1, y, m, bits, sources, base, padding, spare):
    """Pixels x0 to x1 of row y of what a back or layer shows of its sources, recolored."""
    flags = bits[T.FLAGS]
    _sample_source(target, x0, x1, y, m, flags, sources, bits[T.READS], base, padding)
    share = m[T.SHARE]
    if share > 0:
        _sample_source(spare, x0, x1, y, m, flags, sources, bits[T.READS + 1], base, padding)
        for x in range(x1 - x0):
            V.mix_pixel(target + x * PIXEL, target + x * PIXEL, spare + x * PIXEL, share)
    if flags & T.COLORED:
        _recolor_row(target, x1 - x0, m)


@compiled
def _recolor_row(target, width, m):
    color = m[T.COLOR :].ctypes.data
    for x in range(width):
        V.recolor_pixel(target + x * PIXEL, color)


@compiled
def _cut(slope, start, x0, x1):
    """The part of the interval x0 to x1 in which slope * x + start is not negative."""
    if slope > 0:
        return max(x0, -start / slope), x1
    if slope < 0:
        return x0, min(x1, -start / slope)
    return (x0, x1) if start >= 0 else (x1 + 1, x1)


@compiled
def _span(m, y, w):
    """The pixels, from the first up to the second, of row y at which a layer's box may be seen."""
    h = np.float64(m[T.MATRIX + 7]) * y + m[T.MATRIX + 8]
    g = np.float64(m[T.MATRIX + 6])
    if h < T.HORIZON or h + g * (w - 1) < T.HORIZON:
        return 0, w
    x0, x1 = 0.0, w - 1.0
    soft = 0.5 / m[T.SHARPNESS]
    for axis in range(2):
        a = np.float64(m[T.MATRIX + 3 * axis])
        c = np.float64(m[T.MATRIX + 3 * axis + 1]) * y + m[T.MATRIX + 3 * axis + 2]
        low, high = m[T.BOX + axis] - soft, m[T.BOX + 2 + axis] + soft
        x0, x1 = _cut(a - low * g, c - low * h, x0, x1)
        x0, x1 = _cut(high * g - a, high * h - c, x0, x1)
    if not x0 <= x1 + 1:
        return 0, 0
    return max(0, int(math.floor(x0)) - 1), min(w, int(math.ceil(x1)) + 2)


@compiled
def _paint_layers(call, target, y, t, frames, bits, first, sources, base, spare, spare2):
    """Paint the layers over row y of frame t; ``first`` is the table's row of the first layer's first frame."""
    w, num_frames = call[T.W], call[T.NUM_FRAMES]
    for layer in range(call[T.NUM_LAYERS]):
        m, b = frames[first + layer * num_frames + t], bits[first + layer * num_frames + t]
        if m[T.OPACITY] > 0 and b[T.ROWS] <= y < b[T.ROWS + 1]:
            x0, x1 = _span(m, y, w)
            if x0 < x1:
                _show(spare, x0, x1, y, m, b, sources, base, call[T.PADDING], spare2)
                start = np.float64(y)
                c = m[T.MATRIX + 1] * start + m[T.MATRIX + 2]
                f = m[T.MATRIX + 4] * start + m[T.MATRIX + 5]
                h = m[T.MATRIX + 7] * start + m[T.MATRIX + 8]
                for x in range(x0, x1, 4):
                    V.cover(
                        target + x * PIXEL,
                        spare + (x - x0) * PIXEL,
                        x,
                        m[T.MATRIX],
                        c,
                        m[T.MATRIX + 3],
                        f,
                        m[T.MATRIX + 6],
                        h,
                        T.HORIZON,
                        m[T.BOX],
                        m[T.BOX + 1],
                        m[T.BOX + 2],
                        m[T.BOX + 3],
                        m[T.SHARPNESS],
                        m[T.OPACITY],
                    )


@compiled
def _paint_row(call, clip, y, t, clips, frames, bits, sources, chain, own, spare, spare2):
    """Row y of frame t of a clip before it is mixed; where its first pixel is.

    Args:
        chain: memory of the clip's working frames, behind which its sources lie.
        own: a row for a clip that needs no working frame, or paints layers over it.
        spare, spare2: more rows.

    """
    w, num_frames, frame_bytes = call[T.W], call[T.NUM_FRAMES], call[T.FRAME_BYTES]
    first = clip * (1 + call[T.NUM_LAYERS]) * num_frames
    m, b = frames[first + t], bits[first + t]
    base, padding, pitch = chain + call[T.BUFFERS] * frame_bytes, call[T.PADDING], call[T.PITCHES]
    target = own
    if clips[clip, T.RECURSIVE]:
        target = chain + (t % call[T.BUFFERS]) * frame_bytes + ((y + 1) * pitch + 1) * PIXEL
    if t > 0 and clips[clip, T.RECURSIVE]:
        before = chain + ((t - 1) % call[T.BUFFERS]) * frame_bytes
        h, flags = call[T.H], b[T.FLAGS]
        period_u, period_v = f32(max(1, 2 * (w - 1))), f32(max(1, 2 * (h - 1)))
        _sample_row(target, 0, w, y, m, flags, before, pitch, w, h, 1.0, 0, 0, period_u, period_v, padding)
        if flags & T.COLORED:
            _recolor_row(target, w, m)
    else:
        _show(target, 0, w, y, m, b, sources, base, padding, spare)
    if clips[clip, T.RECURSIVE]:
        _close_row(target, w)
    if clips[clip, T.LAYERED]:
        if clips[clip, T.RECURSIVE]:
            for x in range(w):
                V.copy_pixel(own + x * PIXEL, target + x * PIXEL)
            target = own
        _paint_layers(call, target, y, t, frames, bits, first + num_frames, sources, base, spare, spare2)
    return target


@compiled
def _write_row(call, target, source, spare):
    """A finished row to its places in the clips, converted."""
    w, plane, channels, kind = call[T.W], call[T.CHANNEL_STRIDE], call[T.CHANNELS], call[T.KIND]
    finish = call[T.FINISH]
    item = 4 if kind == T.FLOAT32 else 1 if kind == T.UINT8 else 2
    whole = w & ~3
    if kind == T.UINT8:
        for x in range(0, whole, 4):
            V.write_bytes(target + x, source + x * PIXEL, plane, channels, finish)
    elif kind == T.FLOAT32:
        for x in range(0, whole, 4):
            V.write_floats(target + 4 * x, source + x * PIXEL, plane, channels, finish)
    elif kind == T.BFLOAT16:
        for x in range(0, whole, 4):
            V.write_bfloat16(target + 2 * x, source + x * PIXEL, plane, channels, finish)
    else:
        for x in range(0, whole, 4):
            V.write_float16(target + 2 * x, source + x * PIXEL, plane, channels, finish)
    if whole < w:
        place = source + whole * PIXEL
        if kind == T.UINT8:
            V.write_bytes(spare, place, PIXEL, channels, finish)
        elif kind == T.FLOAT32:
            V.write_floats(spare, place, PIXEL, channels, finish)
        elif kind == T.BFLOAT16:
            V.write_bfloat16(spare, place, PIXEL, channels, finish)
        else:
            V.write_float16(spare, place, PIXEL, channels, finish)
        for c in range(channels):
            for k in range((w - whole) * item):
                V.copy_byte(target + c * plane + whole * item + k, spare + c * PIXEL + k)


@compiled
def _finish_row(call, clip, y, t, clips, frames, bits, sources, arena, row):
    """Row y of frame t of a clip and, where it is mixed, of its partner, to the clip; ``row`` is memory for several rows."""
    size = call[T.ROW_BYTES]
    own, spare, spare2, other = row, row + size, row + 2 * size, row + 3 * size
    source = _paint_row(call, clip, y, t, clips, frames, bits, sources, arena, own, spare, spare2)
    if t < clips[clip, T.LAST]:
        mixed = t >= clips[clip, T.FIRST] and clips[clip, T.MIX_TOP] <= y < clips[clip, T.MIX_BOTTOM]
        partner = clips[clip, T.PARTNER]
        if mixed or clips[partner, T.RECURSIVE]:
            chain = arena + call[T.CHAIN_BYTES]
            second = _paint_row(call, partner, y, t, clips, frames, bits, sources, chain, other, spare, spare2)
            if mixed:
                if source != own:
                    for x in range(call[T.W]):
                        V.copy_pixel(own + x * PIXEL, source + x * PIXEL)
                    source = own
                share = clips[clip].view(np.float32)[T.WEIGHT]
                for x in range(clips[clip, T.MIX_LEFT], clips[clip, T.MIX_RIGHT]):
                    V.mix_pixel(own + x * PIXEL, own + x * PIXEL, second + x * PIXEL, share)
    item = 4 if call[T.KIND] == T.FLOAT32 else 1 if call[T.KIND] == T.UINT8 else 2
    place = call[T.OUT] + clip * call[T.CLIP_STRIDE] + t * call[T.FRAME_STRIDE] + y * call[T.W] * item
    _write_row(call, place, source, spare)


# Whole clips -----------------------------------------------------------------------------------------------------------------------------


@compiled
def _rows_read(m, y0, y1, w, h):
    """The rows of the frame before, from the first up to the second, that rows y0 to y1 of a frame read."""
    low, high = np.inf, -np.inf
    for y in (y0, y1 - 1):
        for x in (0, w - 1):
            depth = np.float64(m[T.MATRIX + 6]) * x + np.float64(m[T.MATRIX + 7]) * y + m[T.MATRIX + 8]
            if depth < T.HORIZON:
                return 0, h
            v = (np.float64(m[T.MATRIX + 3]) * x + np.float64(m[T.MATRIX + 4]) * y + m[T.MATRIX + 5]) / depth
            low, high = min(low, v), max(high, v)
    low, high = min(max(low, 0.0), h - 1.0), min(max(high, 0.0), h - 1.0)
    return max(0, int(low) - 1), min(h, int(high) + 3)


@compiled
def _ready(call, clip, stage, y0, y1, clips, frames, queue):
    """Whether all has been made that rows y0 to y1 of a stage need."""
    pieces, t, rows = call[T.PIECES], stage - 1, call[T.PIECE_ROWS]
    counts = queue + 8
    if V.get_shared(counts + 8 * max(0, stage - 2)) < pieces:  # also nothing reads any more what will be written over
        return False
    if t == 0:
        return V.get_shared(counts) == pieces
    flags = counts + 8 * (call[T.NUM_FRAMES] + 1) + 8 * pieces * t
    partner = clips[clip, T.PARTNER] if t < clips[clip, T.LAST] else clip
    for chained in (clip, partner):
        if clips[chained, T.RECURSIVE]:
            m = frames[chained * (1 + call[T.NUM_LAYERS]) * call[T.NUM_FRAMES] + t]
            low, high = (0, call[T.H]) if call[T.PADDING] == T.REFLECTION else _rows_read(m, y0, y1, call[T.W], call[T.H])
            for piece in range(low // rows, (high - 1) // rows + 1):
                if V.get_shared(flags + 8 * piece) == 0:
                    return False
    return True


@njit(
    types.int64(
        types.int64[::1],
        types.int32[:, ::1],
        types.float32[:, ::1],
        types.int32[:, ::1],
        types.float32[::1],
        types.int64,
        types.int64,
        types.int64,
        types.float32[::1],
        types.int64,
        types.int64,
    ),
    nogil=True,
    error_model="numpy",
    cache=True,
)
def work_on_clip(call, clips, frames, sources, weights, clip, arena, row, scratch, queue, piece):
    """Do pieces of work on a clip, which threads share among them, until none is left.

    Stage 0 prepares the sources, stage t + 1 makes frame t; a stage is cut into pieces, which are taken in order.

    Args:
        call: sizes and addresses, as ``render.table`` lays them out.
        clips: of the table.
        frames: of the table.
        sources: of the table.
        weights: of blocks of pixels at the far edge of reduced images.
        clip: position in the batch.
        arena: address of the clip's memory, shared by the threads.
        row: address of this thread's rows.
        scratch: this thread's row of an image.
        queue: address of the next piece, how many pieces of every stage are done, and which of them; zeros at first.
        piece: to begin with; -1: take the next.

    Returns:
        -1 where no piece is left; else a piece that must wait for other threads, to be passed again.

    """
    bits = frames.view(np.int32)
    pieces, rows, h = call[T.PIECES], call[T.PIECE_ROWS], call[T.H]
    counts = queue + 8
    done = counts + 8 * (call[T.NUM_FRAMES] + 1)
    while True:
        if piece < 0:
            piece = V.add_shared(queue, 1)
        stage, part = piece // pieces, piece % pieces
        if stage > call[T.NUM_FRAMES]:
            return -1
        y0, y1 = part * rows, min(h, (part + 1) * rows)
        partner = clips[clip, T.PARTNER] if clips[clip, T.LAST] > 0 else clip
        if stage == 0:
            for chain in range(1 if partner == clip else 2):
                shown, base = (partner, arena + call[T.CHAIN_BYTES]) if chain else (clip, arena)
                if clips[shown, T.RECURSIVE]:
                    for k in range(call[T.BUFFERS]):
                        if k % pieces == part:
                            _clear_border(base + k * call[T.FRAME_BYTES], call[T.PITCHES], call[T.W], h)
                first, last = clips[shown, T.SOURCES], clips[shown, T.SOURCES + 1]
                _prepare(call, sources, weights, first, last, base + call[T.BUFFERS] * call[T.FRAME_BYTES], part, pieces, scratch)
        else:
            looks = 0
            while not _ready(call, clip, stage, y0, y1, clips, frames, queue):
                looks += 1
                if looks > PATIENCE:
                    return piece
            for y in range(y0, y1):
                _finish_row(call, clip, y, stage - 1, clips, frames, bits, sources, arena, row)
        V.add_shared(done + 8 * piece, 1)
        V.add_shared(counts + 8 * stage, 1)
        piece = np.int64(-1)
