"""Device functions for a tile of pixels: project, sample, recolor, paint layers, mix, store.

**Values.** v in [0, 1] is held as the float32 ``S = 1 + v * 255 / 256`` in [1, 2). Its 23 bits after the exponent are a fixed-point number,
so a pixel is packed and unpacked by moving bytes: no conversions between integers and floats, of which a GPU computes only a quarter or an
eighth as many as additions. Everything after sampling is linear in S, and the host folds the constants into the table.

**Words.** Images of 8 bits are packed to int32 words, one byte per channel; a byte b is unpacked to ``128 + b / 256 = 127 + S``. Other
images, reduced copies and working frames are packed to int64 words of four 16-bit fields ``0x8000 | v * 32640``. One load reads all
channels of a pixel. Packed images have a black border, one pixel before and two behind, so that sampling needs no masks.

**Order.** Functions always return four channels; where images have fewer, the missing ones are copies that the compiler removes.
"""

# mypy: ignore-errors
# Triton functions only look like Python: they have no types to check, and jaxtyping's import hook must not wrap them.

import triton
import triton.language as tl

from pseudomotion import geometry
from pseudomotion.render.cuda.table import (
    ALIGNED,
    BOX,
    COLOR,
    COLORED,
    HEIGHT,
    KIND,
    MATRIX,
    OPACITY,
    PARTNER_BOX,
    PARTNER_FRAMES,
    PLACE,
    PROJECTIVE,
    SHARE,
    SHARPNESS,
    UNIT,
    WEIGHT,
    WIDTH,
)

HORIZON = tl.constexpr(geometry.HORIZON)
WHITE = tl.constexpr(1.0 + 255.0 / 256.0)  # S of 1; S of 0 is 1
HALF = tl.constexpr(1.0 / 65536.0)  # half a step of a 16-bit field


@triton.jit
def load_int32(pointer):
    """The int32 whose bits are stored in a table of float32."""
    return tl.load(pointer).to(tl.int32, bitcast=True)


@triton.jit
def as_float(word):
    """The float32 with the bits of an int32."""
    return word.to(tl.float32, bitcast=True)


@triton.jit
def permute(a, b, SELECTOR: tl.constexpr, ASM: tl.constexpr):
    """Four bytes of two int32, as PTX's ``prmt`` selects them. Without assembly: the same bits, for the selectors that are used here."""
    if ASM:
        word = tl.inline_asm_elementwise("prmt.b32 $0, $1, $2, " + SELECTOR + ";", "=r,r,r", [a, b], dtype=tl.int32, is_pure=True, pack=1)
    elif SELECTOR == "0x7404":  # byte 0 of a, over b
        word = ((a & 0xFF) << 8) | b
    elif SELECTOR == "0x7414":
        word = (a & 0xFF00) | b
    elif SELECTOR == "0x7424":
        word = ((a >> 8) & 0xFF00) | b
    elif SELECTOR == "0x7434":
        word = ((a >> 16) & 0xFF00) | b
    elif SELECTOR == "0x7104":  # the low half of a, over b
        word = ((a & 0xFFFF) << 8) | b
    elif SELECTOR == "0x7324":  # the high half
        word = ((a >> 8) & 0xFFFF00) | b
    else:  # 0x6521: bytes 1 and 2 of both
        word = ((a >> 8) & 0xFFFF) | ((b >> 8) << 16)
    return word


@triton.jit
def lerp(first, second, share):
    """Linear interpolation: exactly ``first`` at share 0."""
    return first + share * (second - first)


@triton.jit
def _bilinear(a, b, c, d, fx, fy, magic, SELECTOR: tl.constexpr, ASM: tl.constexpr):
    """One channel of four words, interpolated."""
    a, b = as_float(permute(a, magic, SELECTOR, ASM)), as_float(permute(b, magic, SELECTOR, ASM))
    c, d = as_float(permute(c, magic, SELECTOR, ASM)), as_float(permute(d, magic, SELECTOR, ASM))
    return lerp(lerp(a, b, fx), lerp(c, d, fx), fy)


@triton.jit
def sample(words, fx, fy, magic, magic_bytes, C: tl.constexpr, PITCH: tl.constexpr, ASM: tl.constexpr):
    """All channels between the four words at ``words``: S, or 127 + S from words of bytes."""
    a, b, c, d = tl.load(words), tl.load(words + 1), tl.load(words + PITCH), tl.load(words + (PITCH + 1))
    if words.dtype.element_ty == tl.int32:
        red = _bilinear(a, b, c, d, fx, fy, magic_bytes, "0x7404", ASM)
        green, blue, alpha = red, red, red
        if C > 1:
            green = _bilinear(a, b, c, d, fx, fy, magic_bytes, "0x7414", ASM)
            blue = _bilinear(a, b, c, d, fx, fy, magic_bytes, "0x7424", ASM)
            if C == 4:
                alpha = _bilinear(a, b, c, d, fx, fy, magic_bytes, "0x7434", ASM)
    else:
        low_a, low_b, low_c, low_d = a.to(tl.int32), b.to(tl.int32), c.to(tl.int32), d.to(tl.int32)
        red = _bilinear(low_a, low_b, low_c, low_d, fx, fy, magic, "0x7104", ASM)
        green, blue, alpha = red, red, red
        if C > 1:
            green = _bilinear(low_a, low_b, low_c, low_d, fx, fy, magic, "0x7324", ASM)
            a, b, c, d = (a >> 32).to(tl.int32), (b >> 32).to(tl.int32), (c >> 32).to(tl.int32), (d >> 32).to(tl.int32)
            blue = _bilinear(a, b, c, d, fx, fy, magic, "0x7104", ASM)
            if C == 4:
                alpha = _bilinear(a, b, c, d, fx, fy, magic, "0x7324", ASM)
    return red, green, blue, alpha


@triton.jit
def decode(word, magic, C: tl.constexpr, ASM: tl.constexpr):
    """All channels of int64 words."""
    low = word.to(tl.int32)
    red = as_float(permute(low, magic, "0x7104", ASM))
    green, blue, alpha = red, red, red
    if C > 1:
        high = (word >> 32).to(tl.int32)
        green = as_float(permute(low, magic, "0x7324", ASM))
        blue = as_float(permute(high, magic, "0x7104", ASM))
        if C == 4:
            alpha = as_float(permute(high, magic, "0x7324", ASM))
    return red, green, blue, alpha


@triton.jit
def encode(red, green, blue, alpha, ASM: tl.constexpr):
    """Four channels S to int64 words, rounded."""
    low = permute((red + HALF).to(tl.int32, bitcast=True), (green + HALF).to(tl.int32, bitcast=True), "0x6521", ASM)
    high = permute((blue + HALF).to(tl.int32, bitcast=True), (alpha + HALF).to(tl.int32, bitcast=True), "0x6521", ASM)
    return (low.to(tl.int64) & 0xFFFFFFFF) | (high.to(tl.int64) << 32)


@triton.jit
def load_surface(packed, row):
    """What a frame's row says of where a surface is read: homography, KIND, first word, columns and rows of the image."""
    matrix = row + MATRIX
    a, b, c = tl.load(matrix), tl.load(matrix + 1), tl.load(matrix + 2)
    d, e, f = tl.load(matrix + 3), tl.load(matrix + 4), tl.load(matrix + 5)
    g, h, i = tl.load(matrix + 6), tl.load(matrix + 7), tl.load(matrix + 8)
    words = packed + load_int32(row + PLACE).to(tl.int64) * UNIT
    return a, b, c, d, e, f, g, h, i, load_int32(row + KIND), words, tl.load(row + WIDTH), tl.load(row + HEIGHT)


@triton.jit
def project(a, b, c, d, e, f, g, h, i, kind, x, y):
    """Coordinates that frame pixels read; x (1, columns) and y (rows, 1) make (rows, columns)."""
    u = a * x + (b * y + c)
    v = d * x + (e * y + f)
    if (kind & PROJECTIVE) != 0:
        scale = 1.0 / tl.maximum(g * x + (h * y + i), HORIZON)
        u, v = u * scale, v * scale
    return u, v


@triton.jit
def _onto(at, side, PADDING: tl.constexpr):
    """Coordinates brought to where there are words; ``side`` is the number of pixels along the axis."""
    low, high = 0.0, side + 1.0
    if PADDING != "zeros":
        low, high = 1.0, side
        if PADDING == "reflection":
            period = tl.maximum(side * 2.0 - 2.0, 1.0)
            at = tl.abs(at - 1.0)
            at = at - tl.floor(at / period) * period
            at = tl.minimum(at, period - at) + 1.0
    return tl.minimum(tl.maximum(at, low), high)


@triton.jit
def _between(u, v, width, height, PITCH: tl.constexpr, PADDING: tl.constexpr):
    """Offset of the first of the four words around coordinates, and the fractions between them."""
    u, v = _onto(u, width, PADDING), _onto(v, height, PADDING)
    column, line = u.to(tl.int32), v.to(tl.int32)  # not below 0, so this rounds down
    return line * PITCH + column, u - column.to(tl.float32), v - line.to(tl.float32)


@triton.jit
def locate(a, b, c, d, e, f, g, h, i, kind, x, y, width, height, PITCH: tl.constexpr, PADDING: tl.constexpr):
    """As ``_between``, for frame pixels (x, y). Where columns and rows are read apart, coordinates are computed once for each."""
    if (kind & ALIGNED) != 0:
        offset, fx, fy = _between(a * x + c, e * y + f, width, height, PITCH, PADDING)
        fx, fy = tl.broadcast_to(fx, offset.shape), tl.broadcast_to(fy, offset.shape)
    else:
        u, v = project(a, b, c, d, e, f, g, h, i, kind, x, y)
        offset, fx, fy = _between(u, v, width, height, PITCH, PADDING)
    return offset, fx, fy


@triton.jit
def read(
    packed,
    row,
    a,
    b,
    c,
    d,
    e,
    f,
    g,
    h,
    i,
    kind,
    words,
    width,
    height,
    x,
    y,
    magic,
    magic_bytes,
    C: tl.constexpr,
    PITCH: tl.constexpr,
    PADDING: tl.constexpr,
    BYTES: tl.constexpr,
    ASM: tl.constexpr,
):
    """Frame pixels (x, y) of a surface, from its packed image, recolored: S, or 127 + S where BYTES. Takes what ``load_surface`` gives."""
    offset, fx, fy = locate(a, b, c, d, e, f, g, h, i, kind, x, y, width, height, PITCH, PADDING)
    red, green, blue, alpha = sample(words + offset, fx, fy, magic, magic_bytes, C, PITCH, ASM)
    if packed.dtype.element_ty == tl.int32:
        if not BYTES:
            red, green, blue, alpha = red - 127.0, green - 127.0, blue - 127.0, alpha - 127.0
    else:
        share = tl.load(row + SHARE)
        if share > 0:
            u, v = project(a, b, c, d, e, f, g, h, i, kind, x, y)
            # The centers of the reduced pixels lie halfway between those of the pixels that they average.
            offset, fx, fy = _between(u * 0.5 + 0.25, v * 0.5 + 0.25, tl.load(row + WIDTH + 1), tl.load(row + HEIGHT + 1), PITCH, PADDING)
            words = packed + load_int32(row + PLACE + 1).to(tl.int64) * UNIT
            next_red, next_green, next_blue, next_alpha = sample(words + offset, fx, fy, magic, magic_bytes, C, PITCH, ASM)
            red, green = lerp(red, next_red, share), lerp(green, next_green, share)
            blue, alpha = lerp(blue, next_blue, share), lerp(alpha, next_alpha, share)
    if C == 3:
        if BYTES:
            red, green, blue = recolor(row, kind, red, green, blue, 127.0)
        else:
            red, green, blue = recolor(row, kind, red, green, blue, 0.0)
    return red, green, blue, alpha


@triton.jit
def recolor(row, kind, red, green, blue, base: tl.constexpr):
    """Apply the frame's color map, if it has one, to ``base + S``, and clamp to black and white."""
    if (kind & COLORED) != 0:
        red, green, blue = red - base, green - base, blue - base
        red, green, blue = (
            _color_row(row + COLOR, red, green, blue) + base,
            _color_row(row + COLOR + 4, red, green, blue) + base,
            _color_row(row + COLOR + 8, red, green, blue) + base,
        )
    return red, green, blue


@triton.jit
def _color_row(color, red, green, blue):
    value = tl.load(color) * red + tl.load(color + 1) * green + tl.load(color + 2) * blue + tl.load(color + 3)
    return tl.minimum(tl.maximum(value, 1.0), WHITE)


@triton.jit
def coverage(row, u, v):
    """How much of the pixels at coordinates (u, v) the layer's box covers, times its opacity, in [0, 1]."""
    box, sharpness = row + BOX, tl.load(row + SHARPNESS)
    across = tl.minimum(u - tl.load(box), tl.load(box + 2) - u) * sharpness + 0.5
    down = tl.minimum(v - tl.load(box + 1), tl.load(box + 3) - v) * sharpness + 0.5
    return tl.minimum(tl.maximum(across, 0.0), 1.0) * tl.minimum(tl.maximum(down, 0.0), 1.0) * tl.load(row + OPACITY)


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
def store(out, channel_stride, scale, shift, red, green, blue, alpha, mask, C: tl.constexpr):
    """Scale and shift the channels by the header's numbers, round for 8-bit output, cast, and write; they lie ``channel_stride`` apart."""
    _store_channel(out, scale, shift, red, mask)
    if C > 1:
        _store_channel(out + channel_stride, scale + 1, shift + 1, green, mask)
        _store_channel(out + channel_stride + channel_stride, scale + 2, shift + 2, blue, mask)
        if C == 4:
            _store_channel(out + channel_stride + channel_stride + channel_stride, scale + 3, shift + 3, alpha, mask)


@triton.jit
def _store_channel(out, scale, shift, value, mask):
    value = value * tl.load(scale) + tl.load(shift)
    if out.dtype.element_ty == tl.uint8:
        # The shift holds 1.5 * 2^23, at which a float32 has no bits for fractions: the sum is rounded, half to even, in its lowest bits.
        value = value.to(tl.int32, bitcast=True)
    tl.store(out, value.to(out.dtype.element_ty), mask=mask)
