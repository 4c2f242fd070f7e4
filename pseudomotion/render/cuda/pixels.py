"""Device functions for a tile of pixels: project, sample, apply the color map, paint layers, mix, store.

**Values.** A value v in [0, 1] is held as the float32 ``S = 1 + v * 255 / 256``, which lies in [1, 2). All floats in [1, 2) have the same
exponent, so their 23 fraction bits are a fixed-point number: a pixel is packed and unpacked by moving bytes. Conversions between integers
and floats, of which a GPU computes only a quarter or an eighth as many per clock as additions, are not needed. Everything after sampling is
linear in S, so the host folds the change from v to S into the constants of the table.

**Packed images.** A pixel is one word, and one load reads all its channels:

- *bytes*: int32, one byte per channel. A byte b is unpacked to ``128 + b / 256``, which is ``127 + S``. For 8-bit images.
- *fields*: int64, four 16-bit fields ``0x8000 | v * 32640``, unpacked to S. For float images, reduced copies and working frames.

Rows are PITCH words apart. Every image has a black border, one pixel before and two pixels behind, so that sampling beyond the edge needs
no masks: pixel x is word x + 1 of its row, and all coordinates below count from the first word.

**Channels.** Functions take and return four channels. Where images have fewer, the others are copies, which the compiler removes.

**Surfaces.** The back of a clip and each of its layers is a surface. ``m0`` to ``m8`` are the entries, row by row, of the 3x3 matrix that
maps frame pixels to coordinates of what a surface reads.
"""

# mypy: ignore-errors
# Triton functions only look like Python: they have no types to check, and jaxtyping's import hook must not wrap them.

# fmt: off
# One argument per line would hide the code.

import triton
import triton.language as tl

from pseudomotion import geometry, outline
from pseudomotion.render import reference
from pseudomotion.render.cuda.table import (
    ALIGNED,
    BEND,
    BENT,
    CENTER,
    COLOR,
    COLORED,
    FIRST_POINT,
    GRID,
    HALF_SIDES,
    HEIGHT,
    KIND,
    MATRIX,
    PARAMS,
    PARTNER_BOX,
    PARTNER_FRAMES,
    PER_CELL,
    PLACE,
    POINTS,
    PROJECTIVE,
    REDUCE,
    SHAPE,
    SHARE,
    SHARPNESS,
    UNIT,
    WEIGHT,
    WIDTH,
)

HORIZON = tl.constexpr(geometry.HORIZON)
POLYGON, SUPERELLIPSE = tl.constexpr(outline.POLYGON), tl.constexpr(outline.SUPERELLIPSE)
FAR, TINY = tl.constexpr(outline.FAR), tl.constexpr(outline.TINY)
TRANSPARENT = tl.constexpr(reference.TRANSPARENT)
WHITE = tl.constexpr(1.0 + 255.0 / 256.0)  # S of 1; S of 0 is 1
HALF = tl.constexpr(1.0 / 65536.0)  # half a step of a 16-bit field

# Selectors for ``permute``: digit k, from the right, names the byte that becomes byte k, 0 to 3 of the first word and 4 to 7 of the second.
BYTE_0, BYTE_1 = tl.constexpr("0x7404"), tl.constexpr("0x7414")  # a byte of the first word, under the exponent of the second
BYTE_2, BYTE_3 = tl.constexpr("0x7424"), tl.constexpr("0x7434")
LOW_FIELD, HIGH_FIELD = tl.constexpr("0x7104"), tl.constexpr("0x7324")  # a field of the first word, under it
BOTH_FIELDS = tl.constexpr("0x6521")  # the fields of two floats


@triton.jit
def load_int32(pointer):
    """The int32 whose bits are stored in a table of float32."""
    return tl.load(pointer).to(tl.int32, bitcast=True)


@triton.jit
def bits_to_float(word):
    """The float32 with the bits of an int32."""
    return word.to(tl.float32, bitcast=True)


@triton.jit
def permute(a, b, SELECTOR: tl.constexpr, ASM: tl.constexpr):
    """Four bytes of two int32, as PTX's ``prmt`` selects them. Without assembly: the same bits, for the selectors that are used here."""
    if ASM:
        word = tl.inline_asm_elementwise("prmt.b32 $0, $1, $2, " + SELECTOR + ";", "=r,r,r", [a, b], dtype=tl.int32, is_pure=True, pack=1)
    elif SELECTOR == BYTE_0:
        word = ((a & 0xFF) << 8) | b
    elif SELECTOR == BYTE_1:
        word = (a & 0xFF00) | b
    elif SELECTOR == BYTE_2:
        word = ((a >> 8) & 0xFF00) | b
    elif SELECTOR == BYTE_3:
        word = ((a >> 16) & 0xFF00) | b
    elif SELECTOR == LOW_FIELD:
        word = ((a & 0xFFFF) << 8) | b
    elif SELECTOR == HIGH_FIELD:
        word = ((a >> 8) & 0xFFFF00) | b
    else:
        word = ((a >> 8) & 0xFFFF) | ((b >> 8) << 16)
    return word


@triton.jit
def lerp(first, second, share):
    """Linear interpolation: exactly ``first`` at share 0."""
    return first + share * (second - first)


@triton.jit
def lerp_pixels(red, green, blue, alpha, their_red, their_green, their_blue, their_alpha, share):
    """``lerp`` of all channels."""
    red, green = lerp(red, their_red, share), lerp(green, their_green, share)
    return red, green, lerp(blue, their_blue, share), lerp(alpha, their_alpha, share)


@triton.jit
def _bilinear(a, b, c, d, fx, fy, exponent, SELECTOR: tl.constexpr, ASM: tl.constexpr):
    """One channel of four words (upper left, upper right, lower left, lower right), interpolated."""
    a, b = bits_to_float(permute(a, exponent, SELECTOR, ASM)), bits_to_float(permute(b, exponent, SELECTOR, ASM))
    c, d = bits_to_float(permute(c, exponent, SELECTOR, ASM)), bits_to_float(permute(d, exponent, SELECTOR, ASM))
    return lerp(lerp(a, b, fx), lerp(c, d, fx), fy)


@triton.jit
def sample(words, fx, fy, exponent, exponent_bytes, C: tl.constexpr, PITCH: tl.constexpr, ASM: tl.constexpr):
    """Pixels between four words, the upper left of which is at ``words``: S, or 127 + S from bytes."""
    a, b, c, d = tl.load(words), tl.load(words + 1), tl.load(words + PITCH), tl.load(words + (PITCH + 1))
    if words.dtype.element_ty == tl.int32:
        red = _bilinear(a, b, c, d, fx, fy, exponent_bytes, BYTE_0, ASM)
        green, blue, alpha = red, red, red
        if C > 1:
            green = _bilinear(a, b, c, d, fx, fy, exponent_bytes, BYTE_1, ASM)
            blue = _bilinear(a, b, c, d, fx, fy, exponent_bytes, BYTE_2, ASM)
            if C == 4:
                alpha = _bilinear(a, b, c, d, fx, fy, exponent_bytes, BYTE_3, ASM)
    else:
        low_a, low_b, low_c, low_d = a.to(tl.int32), b.to(tl.int32), c.to(tl.int32), d.to(tl.int32)
        red = _bilinear(low_a, low_b, low_c, low_d, fx, fy, exponent, LOW_FIELD, ASM)
        green, blue, alpha = red, red, red
        if C > 1:
            green = _bilinear(low_a, low_b, low_c, low_d, fx, fy, exponent, HIGH_FIELD, ASM)
            a, b, c, d = (a >> 32).to(tl.int32), (b >> 32).to(tl.int32), (c >> 32).to(tl.int32), (d >> 32).to(tl.int32)
            blue = _bilinear(a, b, c, d, fx, fy, exponent, LOW_FIELD, ASM)
            if C == 4:
                alpha = _bilinear(a, b, c, d, fx, fy, exponent, HIGH_FIELD, ASM)
    return red, green, blue, alpha


@triton.jit
def unpack_fields(word, exponent, C: tl.constexpr, ASM: tl.constexpr):
    """Pixels S from int64 words of fields."""
    low = word.to(tl.int32)
    red = bits_to_float(permute(low, exponent, LOW_FIELD, ASM))
    green, blue, alpha = red, red, red
    if C > 1:
        high = (word >> 32).to(tl.int32)
        green = bits_to_float(permute(low, exponent, HIGH_FIELD, ASM))
        blue = bits_to_float(permute(high, exponent, LOW_FIELD, ASM))
        if C == 4:
            alpha = bits_to_float(permute(high, exponent, HIGH_FIELD, ASM))
    return red, green, blue, alpha


@triton.jit
def pack_fields(red, green, blue, alpha, ASM: tl.constexpr):
    """int64 words of fields from pixels S, rounded."""
    low = permute((red + HALF).to(tl.int32, bitcast=True), (green + HALF).to(tl.int32, bitcast=True), BOTH_FIELDS, ASM)
    high = permute((blue + HALF).to(tl.int32, bitcast=True), (alpha + HALF).to(tl.int32, bitcast=True), BOTH_FIELDS, ASM)
    return (low.to(tl.int64) & 0xFFFFFFFF) | (high.to(tl.int64) << 32)


@triton.jit
def load_surface(packed, row):
    """The row of a surface in a frame: its matrix, KIND, and the first word, width and height of the image that it reads."""
    matrix = row + MATRIX
    m0, m1, m2 = tl.load(matrix), tl.load(matrix + 1), tl.load(matrix + 2)
    m3, m4, m5 = tl.load(matrix + 3), tl.load(matrix + 4), tl.load(matrix + 5)
    m6, m7, m8 = tl.load(matrix + 6), tl.load(matrix + 7), tl.load(matrix + 8)
    image = packed + load_int32(row + PLACE).to(tl.int64) * UNIT
    return m0, m1, m2, m3, m4, m5, m6, m7, m8, load_int32(row + KIND), image, tl.load(row + WIDTH), tl.load(row + HEIGHT)


@triton.jit
def project(frames, row, m0, m1, m2, m3, m4, m5, m6, m7, m8, kind, x, y, BENDS: tl.constexpr):
    """Coordinates (u, v) that frame pixels read, (rows, columns); x is (1, columns), y is (rows, 1)."""
    u = m0 * x + (m1 * y + m2)
    v = m3 * x + (m4 * y + m5)
    if (kind & PROJECTIVE) != 0:
        scale = 1.0 / tl.maximum(m6 * x + (m7 * y + m8), HORIZON)
        u, v = u * scale, v * scale
    if BENDS:  # noqa: SIM102  Triton's branches on constants and on values do not mix
        if (kind & BENT) != 0:
            bend, grid = frames + load_int32(row + BEND), load_int32(row + GRID)
            u, v = _displace(bend, grid, u, v)
    return u, v


@triton.jit
def _displace(bend, grid, u, v):
    """Coordinates displaced by cubic B-splines, as ``pseudomotion.spline`` defines them."""
    end = grid.to(tl.float32) + 1.0  # beyond two cells of the control points, nothing is displaced
    s = (u - tl.load(bend + FIRST_POINT)) * tl.load(bend + PER_CELL)
    t = (v - tl.load(bend + FIRST_POINT + 1)) * tl.load(bend + PER_CELL + 1)
    s, t = tl.minimum(tl.maximum(s, -2.0), end), tl.minimum(tl.maximum(t, -2.0), end)
    column, line = (s + 2.0).to(tl.int32) - 3, (t + 2.0).to(tl.int32) - 3  # of the first of 4 x 4 control points around
    for k in range(16):  # a loop, for it compiles in a fraction of the time of 16 copies
        i, j = column + k % 4, line + k // 4
        inside = (i >= 0) & (i < grid) & (j >= 0) & (j < grid)
        point = bend + POINTS + tl.where(inside, j * grid + i, 0) * 2
        weight = tl.where(inside, _spline(s - i.to(tl.float32)) * _spline(t - j.to(tl.float32)), 0.0)
        u += weight * tl.load(point)
        v += weight * tl.load(point + 1)
    return u, v


@triton.jit
def _spline(d):
    """The cubic B-spline."""
    wide, narrow = tl.maximum(2.0 - tl.abs(d), 0.0), tl.maximum(1.0 - tl.abs(d), 0.0)
    return (wide * wide * wide - 4.0 * (narrow * narrow * narrow)) * (1.0 / 6.0)


@triton.jit
def _pad(at, side, PADDING: tl.constexpr):
    """Coordinates along an axis of ``side`` pixels, brought into the image or its border, by the padding mode."""
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
def bilinear_taps(u, v, width, height, PITCH: tl.constexpr, PADDING: tl.constexpr):
    """Offset of the upper left of the four words around coordinates, and the fractions from it towards the right and the lower ones."""
    u, v = _pad(u, width, PADDING), _pad(v, height, PADDING)
    column, line = u.to(tl.int32), v.to(tl.int32)  # not below 0, so this rounds down
    return line * PITCH + column, u - column.to(tl.float32), v - line.to(tl.float32)


@triton.jit
def rigid_taps(m0, m1, m2, m3, m4, m5, m6, m7, m8, kind, x, y, width, height, PITCH: tl.constexpr, PADDING: tl.constexpr):
    """``bilinear_taps`` of frame pixels (x, y), without bends. If the matrix is ALIGNED, u is computed once a column, and v once a row."""
    if (kind & ALIGNED) != 0:
        offset, fx, fy = bilinear_taps(m0 * x + m2, m4 * y + m5, width, height, PITCH, PADDING)
        fx, fy = tl.broadcast_to(fx, offset.shape), tl.broadcast_to(fy, offset.shape)
    else:
        u, v = project(None, None, m0, m1, m2, m3, m4, m5, m6, m7, m8, kind, x, y, False)
        offset, fx, fy = bilinear_taps(u, v, width, height, PITCH, PADDING)
    return offset, fx, fy


@triton.jit
def _reduced(at, reduce):
    """Coordinates in a reduced copy: pixel x of the image, at x + 1, is pixel (x + 0.5) * reduce - 0.5 there."""
    return at * reduce + (0.5 - 0.5 * reduce)


@triton.jit
def sample_surface(
    packed, row, kind, image, width, height, u, v, exponent, exponent_bytes,
    C: tl.constexpr, PITCH: tl.constexpr, PADDING: tl.constexpr, ASM: tl.constexpr,
):
    """Pixels of a surface at coordinates (u, v), with its color map applied. ``load_surface`` gives kind, image, width and height.

    From fields, two levels of the image pyramid are read and blended where the frame lies between them.
    """
    if packed.dtype.element_ty == tl.int32:
        offset, fx, fy = bilinear_taps(u, v, width, height, PITCH, PADDING)
        red, green, blue, alpha = sample(image + offset, fx, fy, exponent, exponent_bytes, C, PITCH, ASM)
        red, green, blue, alpha = red - 127.0, green - 127.0, blue - 127.0, alpha - 127.0
    else:
        reduce, share = tl.load(row + REDUCE), tl.load(row + SHARE)
        offset, fx, fy = bilinear_taps(_reduced(u, reduce), _reduced(v, reduce), width, height, PITCH, PADDING)
        red, green, blue, alpha = sample(image + offset, fx, fy, exponent, exponent_bytes, C, PITCH, ASM)
        if share > 0:
            reduce *= 0.5
            width, height = tl.load(row + WIDTH + 1), tl.load(row + HEIGHT + 1)
            image = packed + load_int32(row + PLACE + 1).to(tl.int64) * UNIT
            offset, fx, fy = bilinear_taps(_reduced(u, reduce), _reduced(v, reduce), width, height, PITCH, PADDING)
            next_red, next_green, next_blue, next_alpha = sample(image + offset, fx, fy, exponent, exponent_bytes, C, PITCH, ASM)
            red, green, blue, alpha = lerp_pixels(red, green, blue, alpha, next_red, next_green, next_blue, next_alpha, share)
    if C == 3:
        red, green, blue = apply_color(row, kind, red, green, blue, 0.0)
    return red, green, blue, alpha


@triton.jit
def apply_color(row, kind, red, green, blue, base: tl.constexpr):
    """The surface's color map, if it has one, of values ``base + S``, clamped to black and white."""
    if (kind & COLORED) != 0:
        red, green, blue = red - base, green - base, blue - base
        red, green, blue = (
            _color_row(row + COLOR, red, green, blue) + base, _color_row(row + COLOR + 4, red, green, blue) + base,
            _color_row(row + COLOR + 8, red, green, blue) + base,
        )
    return red, green, blue


@triton.jit
def _color_row(color, red, green, blue):
    value = tl.load(color) * red + tl.load(color + 1) * green + tl.load(color + 2) * blue + tl.load(color + 3)
    return tl.minimum(tl.maximum(value, 1.0), WHITE)


@triton.jit
def coverage(outline, u, v, SHAPED: tl.constexpr):
    """How much of the pixels at coordinates (u, v) an outline covers, in [0, 1]: the closed forms of ``pseudomotion.outline``."""
    x, y = u - tl.load(outline + CENTER), v - tl.load(outline + CENTER + 1)
    half_x, half_y, sharpness = tl.load(outline + HALF_SIDES), tl.load(outline + HALF_SIDES + 1), tl.load(outline + SHARPNESS)
    inner_x, inner_y = half_x - tl.abs(x), half_y - tl.abs(y)
    across, down = _soft(inner_x, sharpness), _soft(inner_y, sharpness)
    covered = across * down
    if SHAPED:
        shape = load_int32(outline + SHAPE)
        if shape != 0:
            inner = tl.minimum(inner_x, inner_y)
            if shape == POLYGON:
                within = _polygon(outline + PARAMS, x, y)
            elif shape == SUPERELLIPSE:
                within = _superellipse(outline + PARAMS, x, y, half_x, half_y)
            else:
                within = _blob(outline + PARAMS, x, y, half_x, half_y)
            covered = _soft(tl.minimum(inner, within), sharpness)
    return covered


@triton.jit
def _soft(distance, sharpness):
    """Coverage at a distance from the outline, positive inside."""
    return tl.minimum(tl.maximum(distance * sharpness + 0.5, 0.0), 1.0)


@triton.jit
def _polygon(planes, x, y):
    """Distance to the nearest edge."""
    nearest = tl.load(planes) * x + (tl.load(planes + 1) * y + tl.load(planes + 2))
    for k in tl.static_range(1, 8):
        plane = planes + 3 * k
        nearest = tl.minimum(nearest, tl.load(plane) * x + (tl.load(plane + 1) * y + tl.load(plane + 2)))
    return nearest


@triton.jit
def _distance(value, gradient, hole):
    """Distance to the outline or its hole, whichever is nearer, positive between them.

    ``value`` is a function that is 1 on the outline and linear along rays from the center; ``gradient`` is the length of its gradient.
    """
    return tl.minimum(1.0 - value, tl.where(hole > 0, value - hole, FAR)) / tl.maximum(gradient, TINY)


@triton.jit
def _superellipse(params, x, y, half_x, half_y):
    hole, n = tl.load(params), tl.load(params + 1)
    u, v = tl.abs(x) * (1.0 / half_x), tl.abs(y) * (1.0 / half_y)
    largest = tl.maximum(tl.maximum(u, v), TINY)
    inverse = 1.0 / largest
    u, v = u * inverse, v * inverse
    power_u, power_v = u, v
    for k in tl.static_range(3):
        power_u, power_v = tl.where(n > k, power_u * power_u, power_u), tl.where(n > k, power_v * power_v, power_v)
    total = power_u + power_v
    for k in tl.static_range(3):
        total = tl.where(n > k, tl.sqrt(total), total)
    total = tl.maximum(total, 1.0)
    inverse = 1.0 / total
    u, v = u * inverse, v * inverse
    slope_u, slope_v = tl.zeros_like(u) + 1.0 / half_x, tl.zeros_like(v) + 1.0 / half_y
    for k in tl.static_range(3):
        slope_u, slope_v = tl.where(n > k, slope_u * u, slope_u), tl.where(n > k, slope_v * v, slope_v)
        u, v = u * u, v * v
    return _distance(largest * total, tl.sqrt(slope_u * slope_u + slope_v * slope_v), hole)


@triton.jit
def _blob(params, x, y, half_x, half_y):
    hole, radius = tl.load(params), tl.load(params + 1)
    u, v = x * (1.0 / half_x), y * (1.0 / half_y)
    rho = tl.sqrt(u * u + v * v)
    inverse = 1.0 / tl.maximum(rho, TINY)
    u, v = u * inverse, v * inverse
    cosine, sine = u, v
    reach, change = tl.zeros_like(u) + radius, tl.zeros_like(u)
    for k in tl.static_range(2, 8):
        cosine, sine = cosine * u - sine * v, cosine * v + sine * u  # of k times the angle
        c, s = tl.load(params + 2 * k - 2), tl.load(params + 2 * k - 1)
        reach += c * cosine + s * sine
        change += (s * cosine - c * sine) * k
    slope = change / reach
    along_x, along_y = (u + slope * v) / (reach * half_x), (v - slope * u) / (reach * half_y)
    return _distance(rho / reach, tl.sqrt(along_x * along_x + along_y * along_y), hole)


@triton.jit
def partner_weight(row, frame):
    """Weight of the partner clip inside its box, in one frame: 0 outside the frames that are mixed."""
    during = (frame >= load_int32(row + PARTNER_FRAMES)) & (frame < load_int32(row + PARTNER_FRAMES + 1))
    return tl.where(during, tl.load(row + WEIGHT), 0.0)


@triton.jit
def partner_share(row, weight, x, y):
    """Weight of the partner clip at frame pixels (x, y): ``weight`` inside its box, 0 outside it."""
    box = row + PARTNER_BOX
    inside = (x >= tl.load(box)) & (x < tl.load(box + 2)) & (y >= tl.load(box + 1)) & (y < tl.load(box + 3))
    return tl.where(inside, weight, 0.0)


@triton.jit
def store(out, channel_stride, scale, shift, red, green, blue, alpha, mask, C: tl.constexpr):
    """Write pixels as output values ``scale * S + shift``, cast, for 8-bit output rounded; channels lie ``channel_stride`` apart."""
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
