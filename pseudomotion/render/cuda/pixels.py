"""Device functions for a tile of pixels: project, sample, recolor, paint layers, mix, store.

Offsets within a plane are 32-bit (a plane has at most 2^30 pixels); offsets of planes are 64-bit. Functions always pass four channels:
where images have fewer, the missing ones are copies of the first, which the compiler removes.
"""

# mypy: ignore-errors
# Triton functions only look like Python: they have no types to check, and jaxtyping's import hook must not wrap them.

import triton
import triton.language as tl

from pseudomotion import geometry
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

HORIZON = tl.constexpr(geometry.HORIZON)
HALF_EVEN = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding and subtracting it rounds a float32 below 2^22 to an integer, half to even


@triton.jit
def load_int32(pointer):
    """The int32 whose bits are stored in a table of float32."""
    return tl.load(pointer).to(tl.int32, bitcast=True)


@triton.jit
def project(row, x, y):
    """Coordinates that frame pixels (x, y) read, under the homography of a frame's table row."""
    back = row + BACK
    u = tl.load(back) * x + (tl.load(back + 1) * y + tl.load(back + 2))
    v = tl.load(back + 3) * x + (tl.load(back + 4) * y + tl.load(back + 5))
    w = tl.load(back + 6) * x + (tl.load(back + 7) * y + tl.load(back + 8))
    w = tl.maximum(w, HORIZON)
    return tl.div_rn(u, w), tl.div_rn(v, w)


@triton.jit
def _taps(at, side, PADDING: tl.constexpr):
    """Along one axis of ``side`` pixels: the two neighbors of each coordinate, and their weights."""
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
def _bilinear(plane, top, bottom, left, right, above, below, before, after):
    """Bilinear samples of one channel, in [0, 1]."""
    upper = before * tl.load(plane + (top + left)).to(tl.float32) + after * tl.load(plane + (top + right)).to(tl.float32)
    lower = before * tl.load(plane + (bottom + left)).to(tl.float32) + after * tl.load(plane + (bottom + right)).to(tl.float32)
    value = above * upper + below * lower
    if plane.dtype.element_ty == tl.uint8:
        value = tl.div_rn(value, 255.0)
    return value


@triton.jit
def sample(image, x, y, height, width, C: tl.constexpr, PADDING: tl.constexpr):
    """All channels of an image (C, height, width) at (x, y), bilinear."""
    left, right, before, after = _taps(x, width, PADDING)
    top, bottom, above, below = _taps(y, height, PADDING)
    top *= width
    bottom *= width
    red = _bilinear(image, top, bottom, left, right, above, below, before, after)
    green, blue, alpha = red, red, red
    if C > 1:
        plane = height * width
        green = _bilinear(image + plane, top, bottom, left, right, above, below, before, after)
        blue = _bilinear(image + plane + plane, top, bottom, left, right, above, below, before, after)
        if C == 4:
            alpha = _bilinear(image + plane + plane + plane, top, bottom, left, right, above, below, before, after)
    return red, green, blue, alpha


@triton.jit
def _sample_reduced(pyramid, image, reduced, start, x, y, height, width, pyramid_size, C: tl.constexpr, PADDING: tl.constexpr):
    """All channels of a pyramid level of an image, at (x, y) in pixels of the full-size image."""
    scale = 1.0 / reduced.to(tl.float32)
    height = (height + reduced - 1) // reduced
    width = (width + reduced - 1) // reduced
    return sample(pyramid + image * pyramid_size + start, (x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5, height, width, C, PADDING)


@triton.jit
def _read_image(
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
    """Pixels of the back or of a layer, sampled from its image at image coordinates (x, y) and recolored."""
    image = load_int32(row + IMAGE).to(tl.int64)
    if REDUCES:
        reduced = load_int32(row + REDUCED)
        if reduced == 1:
            red, green, blue, alpha = sample(images + image * height * width * C, x, y, height, width, C, PADDING)
        else:
            red, green, blue, alpha = _sample_reduced(
                pyramid, image, reduced, load_int32(row + START), x, y, height, width, pyramid_size, C, PADDING
            )
        share = tl.load(row + NEXT)
        if share > 0:
            start = load_int32(row + START + 1)
            next_red, next_green, next_blue, next_alpha = _sample_reduced(
                pyramid, image, reduced * 2, start, x, y, height, width, pyramid_size, C, PADDING
            )
            red, green, blue, alpha = (
                lerp(red, next_red, share),
                lerp(green, next_green, share),
                lerp(blue, next_blue, share),
                lerp(alpha, next_alpha, share),
            )
    else:
        red, green, blue, alpha = sample(images + image * height * width * C, x, y, height, width, C, PADDING)
    if COLORED:
        red, green, blue = recolor(row, red, green, blue)
    return red, green, blue, alpha


@triton.jit
def recolor(row, red, green, blue):
    """Apply the frame's color map to RGB, and clamp to [0, 1]."""
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
def lerp(first, second, share):
    """Linear interpolation: exactly ``first`` at share 0 and exactly ``second`` at share 1."""
    return first * (1.0 - share) + second * share


@triton.jit
def _coverage(row, x, y):
    """How much of the pixels at texture coordinates (x, y) the layer's box covers, in [0, 1]."""
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
    return _read_image(images, pyramid, row, u, v, height, width, pyramid_size, C, REDUCES, COLORED, PADDING)


@triton.jit
def paint_layers(
    red,
    green,
    blue,
    alpha,
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
    """Paint all layers, in order, over pixels (x, y) of the back."""
    row = frames + (clip * LAYERS * num_frames + frame) * FRAME
    for _ in tl.static_range(LAYERS - 1):
        row += num_frames * FRAME
        opacity = tl.load(row + OPACITY)
        if opacity > 0:
            u, v = project(row, x, y)
            layer_red, layer_green, layer_blue, layer_alpha = _read_image(
                images, pyramid, row, u, v, height, width, pyramid_size, C, REDUCES, COLORED, PADDING
            )
            share = opacity * _coverage(row, u, v)
            red, green, blue, alpha = (
                lerp(red, layer_red, share),
                lerp(green, layer_green, share),
                lerp(blue, layer_blue, share),
                lerp(alpha, layer_alpha, share),
            )
    return red, green, blue, alpha


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
    """Pixels (x, y) of a frame that reads its image: the back, with all layers over it."""
    red, green, blue, alpha = paint_back(
        images, pyramid, frames, clip, frame, num_frames, x, y, height, width, pyramid_size, C, LAYERS, REDUCES, COLORED, PADDING
    )
    return paint_layers(
        red,
        green,
        blue,
        alpha,
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
    """Weight of the partner clip in a frame, within its box; 0 outside its frames."""
    during = (frame >= load_int32(row + PARTNER_FRAMES)) & (frame < load_int32(row + PARTNER_FRAMES + 1))
    return tl.where(during, tl.load(row + WEIGHT), 0.0)


@triton.jit
def partner_share(row, weight, x, y):
    """Weight of the partner clip at frame pixels (x, y): ``weight`` inside its box, 0 outside."""
    box = row + PARTNER_BOX
    inside = (x >= tl.load(box)) & (x < tl.load(box + 2)) & (y >= tl.load(box + 1)) & (y < tl.load(box + 3))
    return tl.where(inside, weight, 0.0)


@triton.jit
def store(out, channel_stride, table, red, green, blue, alpha, mask, C: tl.constexpr, ROUND: tl.constexpr):
    """Apply the header's scale and shift, round for 8-bit output, cast, and write; channels lie ``channel_stride`` apart."""
    _store_channel(out, table, red, mask, ROUND)
    if C > 1:
        _store_channel(out + channel_stride, table + 1, green, mask, ROUND)
        _store_channel(out + channel_stride + channel_stride, table + 2, blue, mask, ROUND)
        if C == 4:
            _store_channel(out + channel_stride + channel_stride + channel_stride, table + 3, alpha, mask, ROUND)


@triton.jit
def _store_channel(out, table, value, mask, ROUND: tl.constexpr):
    value = value * tl.load(table) + tl.load(table + SHIFT)
    if ROUND:
        value = (value + HALF_EVEN) - HALF_EVEN
    tl.store(out, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def pixels(tile, h, w, BLOCK: tl.constexpr):
    """A tile's pixels: offsets in the frame, mask of those that exist, x and y. Pixels past the end repeat the last one."""
    position = tile * BLOCK + tl.arange(0, BLOCK)
    mask = position < h * w
    position = tl.minimum(position, h * w - 1)
    return position, mask, (position % w).to(tl.float32), (position // w).to(tl.float32)
