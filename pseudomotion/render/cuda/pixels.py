"""What kernels do with a tile of pixels: find where they read, sample, recolor, layer, mix, store.

Positions within a plane of pixels are 32-bit (a plane has at most 2^30 of them); positions of planes are 64-bit. A channel that the images
do not have is a copy of one they have, which the compiler drops.
"""

# mypy: ignore-errors
# What Triton compiles only looks like Python: its functions have no types to check, and jaxtyping's hook must not wrap them.

import triton
import triton.language as tl

from pseudomotion.render.cuda.table import (
    BACK,
    BOX,
    COLOR,
    FEATHER,
    FRAME,
    IMAGE,
    NEXT,
    OPACITY,
    PARTNER_BOX,
    PARTNER_FRAMES,
    REDUCED,
    SHIFT,
    START,
    WEIGHT,
)

HORIZON = tl.constexpr(1e-3)  # as in ``render.reference``
HALF_EVEN = tl.constexpr(12582912.0)  # 1.5 * 2^23: a float32 below 2^22 loses its fraction when this is added, halves to even


@triton.jit
def whole(pointer):
    """The int32 stored in a table of float32."""
    return tl.load(pointer).to(tl.int32, bitcast=True)


@triton.jit
def project(row, x, y):
    """Where frame pixels (x, y) read."""
    back = row + BACK
    u = tl.load(back) * x + (tl.load(back + 1) * y + tl.load(back + 2))
    v = tl.load(back + 3) * x + (tl.load(back + 4) * y + tl.load(back + 5))
    w = tl.load(back + 6) * x + (tl.load(back + 7) * y + tl.load(back + 8))
    w = tl.maximum(w, HORIZON)
    return tl.div_rn(u, w), tl.div_rn(v, w)


@triton.jit
def _taps(at, side, PADDING: tl.constexpr):
    """Along one axis of ``side`` pixels: the two neighbors of each coordinate and their weights."""
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
def sample(image, x, y, height, width, C: tl.constexpr, PADDING: tl.constexpr):
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
    return sample(pyramid + image * pyramid_size + start, (x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5, height, width, C, PADDING)


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
    image = whole(row + IMAGE).to(tl.int64)
    if REDUCES:
        reduced = whole(row + REDUCED)
        if reduced == 1:
            a, b, c, d = sample(images + image * height * width * C, x, y, height, width, C, PADDING)
        else:
            a, b, c, d = _sample_reduced(pyramid, image, reduced, whole(row + START), x, y, height, width, pyramid_size, C, PADDING)
        share = tl.load(row + NEXT)
        if share > 0:
            start = whole(row + START + 1)
            e, f, g, h = _sample_reduced(pyramid, image, reduced * 2, start, x, y, height, width, pyramid_size, C, PADDING)
            a, b, c, d = between(a, e, share), between(b, f, share), between(c, g, share), between(d, h, share)
    else:
        a, b, c, d = sample(images + image * height * width * C, x, y, height, width, C, PADDING)
    if COLORED:
        a, b, c = recolor(row, a, b, c)
    return a, b, c, d


@triton.jit
def recolor(row, red, green, blue):
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
def between(a, b, share):
    """``a`` at share 0, ``b`` at share 1, exactly."""
    return a * (1.0 - share) + b * share


@triton.jit
def _coverage(row, x, y):
    """Share of the pixels at source coordinates (x, y) that the layer's box covers."""
    box, feather = row + BOX, tl.load(row + FEATHER)
    across = tl.minimum(x - tl.load(box), tl.load(box + 2) - x) / feather + 0.5
    down = tl.minimum(y - tl.load(box + 1), tl.load(box + 3) - y) / feather + 0.5
    return tl.minimum(tl.maximum(across, 0.0), 1.0) * tl.minimum(tl.maximum(down, 0.0), 1.0)


@triton.jit
def paint_back(
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
    """Pixels (x, y) of the back of a frame that reads its image."""
    row = frames + (clip * LAYERS * num_frames + frame) * FRAME
    u, v = project(row, x, y)
    return _layer(images, pyramid, row, u, v, height, width, pyramid_size, C, REDUCES, COLORED, PADDING)


@triton.jit
def paint_layers(
    a,
    b,
    c,
    d,
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
    """Pixels (x, y) of a back, (a, b, c, d), with all layers painted over it in order."""
    row = frames + (clip * LAYERS * num_frames + frame) * FRAME
    for _ in tl.static_range(LAYERS - 1):
        row += num_frames * FRAME
        opacity = tl.load(row + OPACITY)
        if opacity > 0:
            u, v = project(row, x, y)
            e, f, g, h = _layer(images, pyramid, row, u, v, height, width, pyramid_size, C, REDUCES, COLORED, PADDING)
            share = opacity * _coverage(row, u, v)
            a, b, c, d = between(a, e, share), between(b, f, share), between(c, g, share), between(d, h, share)
    return a, b, c, d


@triton.jit
def paint(
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
    """Pixels (x, y) of a frame that reads images: the back, and all layers over it."""
    a, b, c, d = paint_back(
        images, pyramid, frames, clip, frame, num_frames, x, y, height, width, pyramid_size, C, LAYERS, REDUCES, COLORED, PADDING
    )
    return paint_layers(
        a,
        b,
        c,
        d,
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
        C,
        LAYERS,
        REDUCES,
        COLORED,
        PADDING,
    )


@triton.jit
def partner_weight(row, frame):
    """Weight of the partner clip within its box in a frame."""
    during = (frame >= whole(row + PARTNER_FRAMES)) & (frame < whole(row + PARTNER_FRAMES + 1))
    return tl.where(during, tl.load(row + WEIGHT), 0.0)


@triton.jit
def within(row, weight, x, y):
    """The partner clip's weight at frame pixels (x, y)."""
    box = row + PARTNER_BOX
    inside = (x >= tl.load(box)) & (x < tl.load(box + 2)) & (y >= tl.load(box + 1)) & (y < tl.load(box + 3))
    return tl.where(inside, weight, 0.0)


@triton.jit
def store(out, step, table, a, b, c, d, mask, C: tl.constexpr, ROUND: tl.constexpr):
    """Write finished pixels, channel by channel ``step`` apart: normalized, or scaled and rounded to 8 bits, and cast."""
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
def pixels(tile, h, w, BLOCK: tl.constexpr):
    """A tile's pixels: their positions in the frame, which of them exist, and (x, y); the others repeat the last one."""
    position = tile * BLOCK + tl.arange(0, BLOCK)
    mask = position < h * w
    position = tl.minimum(position, h * w - 1)
    return position, mask, (position % w).to(tl.float32), (position // w).to(tl.float32)
