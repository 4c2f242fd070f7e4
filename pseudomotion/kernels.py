"""Triton kernels of the fused renderer; ``pseudomotion.render.fused`` fills their table and launches them.

Imports Triton, so nothing imports this module before a fused renderer is wanted. Two kernels share everything but what a frame reads:
``paint_clips`` paints frames from source images, ``step_clips`` one frame of clips that read their previous frame.

Positions within a plane of pixels are 32-bit (a plane has at most 2^30 of them); positions of planes are 64-bit. A channel that the images
do not have is a copy of one they have, which the compiler drops.
"""

# mypy: ignore-errors
# What Triton compiles only looks like Python: its functions have no types to check, and jaxtyping's hook must not wrap them.

import triton
import triton.language as tl

# One row of the table for each frame of a layer, in words of 4 bytes; whole numbers are stored as the bits of an int32.
FRAME = tl.constexpr(32)
BACK = tl.constexpr(0)  # 9: homography from frame pixel to pixel of what is read, its denominator 1 at the frame's centre
COLOR = tl.constexpr(9)  # 12
OPACITY = tl.constexpr(21)
BOX = tl.constexpr(22)  # 4
IMAGE = tl.constexpr(26)  # int32
REDUCED = tl.constexpr(27)  # int32: how many source pixels along each axis make one of the copy that is read; 1 is the image itself
NEXT = tl.constexpr(28)  # share of the copy reduced twice as much
START = tl.constexpr(29)  # 2 x int32: where the two copies lie within an image's pyramid

# One row for each clip that a launch renders.
CLIP = tl.constexpr(10)
INDEX = tl.constexpr(0)  # int32
PARTNER = tl.constexpr(1)  # int32: the partner's clip, or its slot in the working frames
WEIGHT = tl.constexpr(2)
PARTNER_BOX = tl.constexpr(3)  # 4
FLAGS = tl.constexpr(7)  # int32
PARTNER_FRAMES = tl.constexpr(8)  # 2 x int32: from the first up to, not including, the second
RECURSIVE = tl.constexpr(1)  # frames after the first read the one before
WANTED = tl.constexpr(2)  # not there for its partner alone

# At the table's start: scale and shift of the four channels, for normalisation or 8-bit output.
SHIFT = tl.constexpr(4)
HEADER = tl.constexpr(8)

HORIZON = tl.constexpr(1e-3)  # as in ``render.reference``
HALF_EVEN = tl.constexpr(12582912.0)  # 1.5 * 2^23: a float32 below 2^22 loses its fraction when this is added, halves to even


@triton.jit
def _whole(pointer):
    """The int32 stored in a table of float32."""
    return tl.load(pointer).to(tl.int32, bitcast=True)


@triton.jit
def _project(row, x, y):
    """Where frame pixels (x, y) read."""
    back = row + BACK
    u = tl.load(back) * x + (tl.load(back + 1) * y + tl.load(back + 2))
    v = tl.load(back + 3) * x + (tl.load(back + 4) * y + tl.load(back + 5))
    w = tl.load(back + 6) * x + (tl.load(back + 7) * y + tl.load(back + 8))
    w = tl.maximum(w, HORIZON)
    return tl.div_rn(u, w), tl.div_rn(v, w)


@triton.jit
def _taps(at, side, PADDING: tl.constexpr):
    """Along one axis of ``side`` pixels: the two neighbours of each coordinate and their weights."""
    last = side - 1.0
    if PADDING == "zeros":
        at = tl.minimum(tl.maximum(at, -1.0), last + 1.0)
    else:
        if PADDING == "reflection":
            period = tl.maximum(last * 2.0, 1.0)
            at = tl.abs(at)
            at = at - tl.floor(at / period) * period
            at = tl.minimum(at, period - at)
        at = tl.minimum(tl.maximum(at, 0.0), last)
    floor = tl.floor(at)
    before = floor.to(tl.int32)
    after = before + 1
    weight_after = at - floor
    weight_before = 1.0 - weight_after
    if PADDING == "zeros":
        weight_before = tl.where((before >= 0) & (before < side), weight_before, 0.0)
        weight_after = tl.where(after < side, weight_after, 0.0)
    return tl.minimum(tl.maximum(before, 0), side - 1), tl.minimum(after, side - 1), weight_before, weight_after


@triton.jit
def _blend(plane, top, bottom, left, right, above, below, before, after):
    """Bilinear samples of one channel, in [0, 1]."""
    upper = before * tl.load(plane + (top + left)).to(tl.float32) + after * tl.load(plane + (top + right)).to(tl.float32)
    lower = before * tl.load(plane + (bottom + left)).to(tl.float32) + after * tl.load(plane + (bottom + right)).to(tl.float32)
    value = above * upper + below * lower
    if plane.dtype.element_ty == tl.uint8:
        value = tl.div_rn(value, 255.0)
    return value


@triton.jit
def _sample(image, x, y, height, width, C: tl.constexpr, PADDING: tl.constexpr):
    """All channels of an image (C, height, width) at (x, y)."""
    left, right, before, after = _taps(x, width, PADDING)
    top, bottom, above, below = _taps(y, height, PADDING)
    top *= width
    bottom *= width
    a = _blend(image, top, bottom, left, right, above, below, before, after)
    b, c, d = a, a, a
    if C > 1:
        plane = height * width
        b = _blend(image + plane, top, bottom, left, right, above, below, before, after)
        c = _blend(image + plane + plane, top, bottom, left, right, above, below, before, after)
        if C == 4:
            d = _blend(image + plane + plane + plane, top, bottom, left, right, above, below, before, after)
    return a, b, c, d


@triton.jit
def _sample_reduced(pyramid, image, reduced, start, x, y, height, width, pyramid_size, C: tl.constexpr, PADDING: tl.constexpr):
    """All channels of a reduced copy of an image at source coordinates (x, y)."""
    scale = 1.0 / reduced.to(tl.float32)
    height = (height + reduced - 1) // reduced
    width = (width + reduced - 1) // reduced
    return _sample(pyramid + image * pyramid_size + start, (x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5, height, width, C, PADDING)


@triton.jit
def _layer(
    images,
    pyramid,
    row,
    x,
    y,
    height,
    width,
    pyramid_size,
    C: tl.constexpr,
    REDUCES: tl.constexpr,
    COLORED: tl.constexpr,
    PADDING: tl.constexpr,
):
    """One layer's pixels from its source image, recolored, at source coordinates (x, y)."""
    image = _whole(row + IMAGE).to(tl.int64)
    if REDUCES:
        reduced = _whole(row + REDUCED)
        if reduced == 1:
            a, b, c, d = _sample(images + image * height * width * C, x, y, height, width, C, PADDING)
        else:
            a, b, c, d = _sample_reduced(pyramid, image, reduced, _whole(row + START), x, y, height, width, pyramid_size, C, PADDING)
        share = tl.load(row + NEXT)
        if share > 0:
            start = _whole(row + START + 1)
            e, f, g, h = _sample_reduced(pyramid, image, reduced * 2, start, x, y, height, width, pyramid_size, C, PADDING)
            a, b, c, d = _between(a, e, share), _between(b, f, share), _between(c, g, share), _between(d, h, share)
    else:
        a, b, c, d = _sample(images + image * height * width * C, x, y, height, width, C, PADDING)
    if COLORED:
        a, b, c = _recolor(row, a, b, c)
    return a, b, c, d


@triton.jit
def _recolor(row, red, green, blue):
    """RGB under the frame's color map, clamped to [0, 1]."""
    return (
        _color_row(row + COLOR, red, green, blue),
        _color_row(row + COLOR + 4, red, green, blue),
        _color_row(row + COLOR + 8, red, green, blue),
    )


@triton.jit
def _color_row(color, red, green, blue):
    value = tl.load(color) * red + tl.load(color + 1) * green + tl.load(color + 2) * blue + tl.load(color + 3)
    return tl.minimum(tl.maximum(value, 0.0), 1.0)


@triton.jit
def _between(a, b, share):
    """``a`` at share 0, ``b`` at share 1, exactly."""
    return a * (1.0 - share) + b * share


@triton.jit
def _coverage(row, x, y):
    """Share of the pixels at source coordinates (x, y) that the layer's box covers."""
    box = row + BOX
    across = tl.minimum(x - tl.load(box), tl.load(box + 2) - x) + 0.5
    down = tl.minimum(y - tl.load(box + 1), tl.load(box + 3) - y) + 0.5
    return tl.minimum(tl.maximum(across, 0.0), 1.0) * tl.minimum(tl.maximum(down, 0.0), 1.0)


@triton.jit
def _paint(
    images,
    pyramid,
    frames,
    clip,
    frame,
    num_frames,
    x,
    y,
    height,
    width,
    pyramid_size,
    C: tl.constexpr,
    LAYERS: tl.constexpr,
    REDUCES: tl.constexpr,
    COLORED: tl.constexpr,
    PADDING: tl.constexpr,
):
    """Pixels (x, y) of a frame that reads source images: all layers, back to front."""
    row = frames + (clip * LAYERS * num_frames + frame) * FRAME
    u, v = _project(row, x, y)
    a, b, c, d = _layer(images, pyramid, row, u, v, height, width, pyramid_size, C, REDUCES, COLORED, PADDING)
    opacity = tl.load(row + OPACITY)
    a, b, c, d = a * opacity, b * opacity, c * opacity, d * opacity
    for _ in tl.static_range(LAYERS - 1):
        row += num_frames * FRAME
        opacity = tl.load(row + OPACITY)
        if opacity > 0:
            u, v = _project(row, x, y)
            e, f, g, h = _layer(images, pyramid, row, u, v, height, width, pyramid_size, C, REDUCES, COLORED, PADDING)
            share = opacity * _coverage(row, u, v)
            a, b, c, d = _between(a, e, share), _between(b, f, share), _between(c, g, share), _between(d, h, share)
    return a, b, c, d


@triton.jit
def _partner_weight(row, frame):
    """Weight of the partner clip within its box in a frame."""
    during = (frame >= _whole(row + PARTNER_FRAMES)) & (frame < _whole(row + PARTNER_FRAMES + 1))
    return tl.where(during, tl.load(row + WEIGHT), 0.0)


@triton.jit
def _within(row, weight, x, y):
    """The partner clip's weight at frame pixels (x, y)."""
    box = row + PARTNER_BOX
    inside = (x >= tl.load(box)) & (x < tl.load(box + 2)) & (y >= tl.load(box + 1)) & (y < tl.load(box + 3))
    return tl.where(inside, weight, 0.0)


@triton.jit
def _store(out, step, table, a, b, c, d, mask, C: tl.constexpr, ROUND: tl.constexpr):
    """Write finished pixels, channel by channel ``step`` apart: normalised, or scaled and rounded to 8 bits, and cast."""
    _store_channel(out, table, a, mask, ROUND)
    if C > 1:
        _store_channel(out + step, table + 1, b, mask, ROUND)
        _store_channel(out + step + step, table + 2, c, mask, ROUND)
        if C == 4:
            _store_channel(out + step + step + step, table + 3, d, mask, ROUND)


@triton.jit
def _store_channel(out, table, value, mask, ROUND: tl.constexpr):
    value = value * tl.load(table) + tl.load(table + SHIFT)
    if ROUND:
        value = (value + HALF_EVEN) - HALF_EVEN
    tl.store(out, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _pixels(tile, h, w, BLOCK: tl.constexpr):
    """A tile's pixels: their positions in the frame, which of them exist, and (x, y); the others repeat the last one."""
    position = tile * BLOCK + tl.arange(0, BLOCK)
    mask = position < h * w
    position = tl.minimum(position, h * w - 1)
    return position, mask, (position % w).to(tl.float32), (position // w).to(tl.float32)


@triton.jit(do_not_specialize=["first"])
def paint_clips(
    images,
    pyramid,
    table,
    frames,
    first,
    out,
    clip_stride,
    frame_stride,
    channel_stride,
    num_frames,
    h,
    w,
    height,
    width,
    pyramid_size,
    C: tl.constexpr,
    LAYERS: tl.constexpr,
    REDUCES: tl.constexpr,
    COLORED: tl.constexpr,
    MIXES: tl.constexpr,
    PADDING: tl.constexpr,
    ROUND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Every frame of clips whose frames, and whose partners' frames, read source images. A program paints one tile of one frame."""
    program = tl.program_id(0)
    tiles = (h * w + BLOCK - 1) // BLOCK
    frame = (program // tiles) % num_frames
    row = table + HEADER + (first + program // tiles // num_frames) * CLIP
    position, mask, x, y = _pixels(program % tiles, h, w, BLOCK)
    clip = _whole(row + INDEX)
    a, b, c, d = _paint(
        images, pyramid, frames, clip, frame, num_frames, x, y, height, width, pyramid_size, C, LAYERS, REDUCES, COLORED, PADDING
    )
    weight = _partner_weight(row, frame)
    if MIXES and weight > 0:
        partner = _whole(row + PARTNER)
        e, f, g, i = _paint(
            images, pyramid, frames, partner, frame, num_frames, x, y, height, width, pyramid_size, C, LAYERS, REDUCES, COLORED, PADDING
        )
        share = _within(row, weight, x, y)
        a, b, c, d = _between(a, e, share), _between(b, f, share), _between(c, g, share), _between(d, i, share)
    place = out + clip.to(tl.int64) * clip_stride + frame.to(tl.int64) * frame_stride
    _store(place + position, channel_stride, table, a, b, c, d, mask, C, ROUND)


@triton.jit
def _finish(row, frame, table, working, own, pixel, x, y, place, channel_stride, mask, plane, C: tl.constexpr, ROUND: tl.constexpr):
    """Mix a working frame with its partner's, and write it to its place."""
    a, b, c, d = _read(own + pixel, plane, C)
    share = _within(row, _partner_weight(row, frame), x, y)
    e, f, g, i = _read(working + _whole(row + PARTNER).to(tl.int64) * plane * C + pixel, plane, C)
    a, b, c, d = _between(a, e, share), _between(b, f, share), _between(c, g, share), _between(d, i, share)
    _store(place, channel_stride, table, a, b, c, d, mask, C, ROUND)


@triton.jit
def _read(pixel, plane, C: tl.constexpr):
    a = tl.load(pixel)
    b, c, d = a, a, a
    if C > 1:
        b = tl.load(pixel + plane)
        c = tl.load(pixel + plane + plane)
        if C == 4:
            d = tl.load(pixel + plane + plane + plane)
    return a, b, c, d


@triton.jit(do_not_specialize=["first", "slots", "frame"])
def step_clips(
    images,
    pyramid,
    table,
    frames,
    first,
    slots,
    frame,
    working,
    out,
    clip_stride,
    frame_stride,
    channel_stride,
    num_frames,
    h,
    w,
    height,
    width,
    pyramid_size,
    C: tl.constexpr,
    LAYERS: tl.constexpr,
    REDUCES: tl.constexpr,
    COLORED: tl.constexpr,
    MIXES: tl.constexpr,
    PADDING: tl.constexpr,
    ROUND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Frame ``frame`` of the clips of a chunk, into working frames (2, slots, C, h, w) of which one half holds the frame before.

    Unmixed clips are written out at once. Where clips are mixed, a frame waits for all its partners: the launch after it writes it, and one
    launch more than there are frames writes the last.
    """
    tiles = (h * w + BLOCK - 1) // BLOCK
    slot = tl.program_id(0) // tiles
    row = table + HEADER + (first + slot) * CLIP
    position, mask, x, y = _pixels(tl.program_id(0) % tiles, h, w, BLOCK)
    clip, flags = _whole(row + INDEX), _whole(row + FLAGS)
    plane = h * w
    half = slots.to(tl.int64) * plane * C
    before = working + ((frame + 1) % 2) * half
    own = before + slot.to(tl.int64) * plane * C
    place = out + clip.to(tl.int64) * clip_stride + frame.to(tl.int64) * frame_stride + position
    if MIXES and frame > 0 and (flags & WANTED) != 0:
        _finish(row, frame - 1, table, before, own, position, x, y, place - frame_stride, channel_stride, mask, plane, C, ROUND)
    if frame < num_frames:
        if frame > 0 and (flags & RECURSIVE) != 0:
            step = frames + (clip * LAYERS * num_frames + frame) * FRAME
            u, v = _project(step, x, y)
            a, b, c, d = _sample(own, u, v, h, w, C, PADDING)
            if COLORED:
                a, b, c = _recolor(step, a, b, c)
            opacity = tl.load(step + OPACITY)
            a, b, c, d = a * opacity, b * opacity, c * opacity, d * opacity
        else:
            a, b, c, d = _paint(
                images, pyramid, frames, clip, frame, num_frames, x, y, height, width, pyramid_size, C, LAYERS, REDUCES, COLORED, PADDING
            )
        after = working + (frame % 2) * half + slot.to(tl.int64) * plane * C + position
        tl.store(after, a, mask=mask)
        if C > 1:
            tl.store(after + plane, b, mask=mask)
            tl.store(after + plane + plane, c, mask=mask)
            if C == 4:
                tl.store(after + plane + plane + plane, d, mask=mask)
        if not MIXES:
            _store(place, channel_stride, table, a, b, c, d, mask, C, ROUND)
