"""The renderer for CPUs: sources to working frames, working frames to each other, and their rows to finished clips.

A working frame has a black pixel on its left and above, and two on its right and below, so that samples outside need no test: coordinates
are clamped into that border. Its rows are longer than that, for pixels are made four at a time. Everything that is decided is in the table.
"""

# mypy: ignore-errors
# LLVM compiles these functions; their annotations are its types.

import math

from pseudomotion import outline
from pseudomotion.geometry import HORIZON
from pseudomotion.render.cpu import table as T
from pseudomotion.render.cpu import vector as V
from pseudomotion.render.cpu.compiler import Bit, Double, Float, Floats, Int, Words, compiled, inlined
from pseudomotion.render.cpu.vector import PIXEL

SPOT = 16  # bytes a pixel: what is noted about where it reads; for four pixels their places, then the following
ACROSS, DOWN, COVERED = 16, 32, 48  # how far right of and below that, and how much a layer covers
ROUNDING = 1 / 16  # pixels by which the ends of a layer, where nearly nothing of it is seen, may be off
PATIENCE = 1_000  # looks at what another thread has still to do, before the caller is asked to wait


# Sources ---------------------------------------------------------------------------------------------------------------------------------


@compiled
def _clear_border(frame, pitch, width, height):
    """Make the border of a working frame black, but for the right hand of its rows."""
    for x in range(width + 3):
        V.store(0.0, frame + x * PIXEL)
        V.store(0.0, frame + ((height + 1) * pitch + x) * PIXEL)
        V.store(0.0, frame + ((height + 2) * pitch + x) * PIXEL)
    for y in range(height):
        V.store(0.0, frame + (y + 1) * pitch * PIXEL)


@compiled
def _close_row(row, width):
    """Make the right hand of a row of a working frame black; ``row`` is its first pixel."""
    V.store(0.0, row + width * PIXEL)
    V.store(0.0, row + (width + 1) * PIXEL)


@inlined
def _unit(place) -> Floats:
    """Four bytes as numbers in [0, 1]."""
    return V.load_bytes(place) / 255


@inlined
def _interleave(target, red: Floats, green: Floats, blue: Floats, alpha: Floats):
    """Four pixels of a working frame from four planes."""
    pixels = V.transpose(red, green, blue, alpha)
    for k in V.FOUR:
        V.store(pixels[k], target + k * PIXEL)


@compiled
def _read_row(target, place, width, plane, channels, item):
    """A row of an image into a working frame; a channel that the image lacks is a copy of the last it has."""
    second = plane if channels > 1 else 0
    third, fourth = 2 * second, (3 if channels == 4 else 2) * second
    full = width & ~3
    for x in range(0, full, 4):
        if item == 1:
            _interleave(
                target + x * PIXEL, _unit(place + x), _unit(place + x + second), _unit(place + x + third), _unit(place + x + fourth)
            )
        else:
            at = place + 4 * x
            red, green, blue, alpha = V.load_floats(at), V.load_floats(at + second), V.load_floats(at + third), V.load_floats(at + fourth)
            _interleave(target + x * PIXEL, red, green, blue, alpha)
    for x in range(full, width):
        for c in range(4):
            at = place + x * item + (0 if c == 0 else second if c == 1 else third if c == 2 else fourth)
            value = V.byte(at) / 255 if item == 1 else V.real(at, 0)
            V.put_real(target + x * PIXEL, c, value)


@compiled
def _reduce_row(target, image, source, y, full_width, full_height, plane, channels, item, weights, sums):
    """Row y of a reduced image: weighted averages over blocks of pixels; ``sums`` has room for a row of the image."""
    size, x0, width = 1 << V.whole(source, T.LEVEL), V.whole(source, T.LEFT), V.whole(source, T.WIDTH)
    across, down = weights + 4 * V.whole(source, T.WEIGHTS_X), weights + 4 * V.whole(source, T.WEIGHTS_Y)
    first, last = x0 * size, min((x0 + width) * size, full_width)
    unit = Float(1 / 255) if item == 1 else Float(1.0)
    for c in range(channels):
        for x in range(last - first):
            V.put_real(sums, x, Float(0.0))
        for row in range(y * size, min((y + 1) * size, full_height)):
            place, weight = image + c * plane + (row * full_width + first) * item, V.real(down, row) * unit
            for x in range(last - first):
                value = V.byte(place + x) if item == 1 else V.real(place, x)
                V.put_real(sums, x, V.real(sums, x) + weight * value)
        for x in range(width):
            total = Float(0.0)
            for k in range(x * size, min((x + 1) * size, last - first)):
                total += V.real(across, first + k) * V.real(sums, k)
            for k in range(c, 4):
                V.put_real(target + x * PIXEL, k, total)


@compiled
def _prepare(call, first, last, base, part, parts, sums):
    """Bring a part of the rows of some sources into working frames."""
    channels, item = V.long(call, T.CHANNELS), V.long(call, T.ITEM)
    for s in range(first, last):
        source = V.long(call, T.SOURCE_ROWS) + s * (4 * T.SOURCE)
        textured = V.whole(source, T.TEXTURED)
        image, full_width, full_height = V.long(call, T.IMAGES), V.long(call, T.IMAGE_W), V.long(call, T.IMAGE_H)
        if textured:
            image, full_width, full_height = V.long(call, T.TEXTURES), V.long(call, T.TEXTURE_W), V.long(call, T.TEXTURE_H)
        plane = full_width * full_height * item
        image += V.whole(source, T.INDEX) * channels * plane
        width, height, pitch = V.whole(source, T.WIDTH), V.whole(source, T.HEIGHT), V.whole(source, T.PITCH)
        frame = base + V.whole(source, T.PLACE) * PIXEL
        if part == 0:
            _clear_border(frame, pitch, width, height)
        for y in range(height * part // parts, height * (part + 1) // parts):
            row, at = frame + ((y + 1) * pitch + 1) * PIXEL, V.whole(source, T.TOP) + y
            if V.whole(source, T.LEVEL) == 0:
                _read_row(row, image + (at * full_width + V.whole(source, T.LEFT)) * item, width, plane, channels, item)
            else:
                _reduce_row(row, image, source, at, full_width, full_height, plane, channels, item, V.long(call, T.WEIGHTS), sums)
            _close_row(row, width)


# Rows of frames --------------------------------------------------------------------------------------------------------------------------


@inlined
def _along_row(m, axis, y) -> Double:
    """What is the same for all pixels of row y of a frame in a row of its homography."""
    return Double(V.real(m, T.MATRIX + 3 * axis + 1)) * y + V.real(m, T.MATRIX + 3 * axis + 2)


@inlined
def _note(spot, pitch, u: Floats, v: Floats, low: Floats, high_u: Floats, high_v: Floats):
    """Note where four points lie in a working frame, into which they are clamped: the pixels above and left of them, and how far beyond."""
    u, v = V.clamp(u, low, high_u), V.clamp(v, low, high_v)
    left, top = Words(u), Words(v)
    V.store_words(top * Words(pitch) + left, spot)
    V.store(u - Floats(left), spot + ACROSS)
    V.store(v - Floats(top), spot + DOWN)


@inlined
def _fold(at: Floats, period: Floats) -> Floats:
    """Coordinates on an axis that is repeated back and forth; a period is there and back."""
    at = V.fabs(at)
    at = at - V.floor(at / period) * period
    return min(at, period - at)


@inlined
def _weights(f: Floats) -> (Floats, Floats, Floats, Floats):
    """Of the four control points of a cubic B-spline about points that lie f, in [0, 1), behind the second."""
    back, f2 = 1 - f, f * f
    f3 = f2 * f
    first, last = back * back * back * (1 / 6), f3 * (1 / 6)
    second = V.fma(f3, 0.5, V.fma(f2, -1.0, 2 / 3))
    return first, second, 1 - first - second - last, last


@inlined
def _total(a: Floats, b: Floats, c: Floats, d: Floats) -> Floats:
    """The sums over each of four vectors."""
    w, x, y, z = V.transpose(a, b, c, d)
    return w + x + (y + z)


@inlined
def _lattice(at: Floats, cells: Float, start: Float, side) -> Floats:
    """Lattice coordinates of a bend. Beyond the padding of its control points all is zero, as within it."""
    return V.clamp(V.fma(at, cells, start), 1.0, side - 2.001)


@inlined
def _bend_anywhere(controls, side, scratch, s: Floats, t: Floats) -> (Floats, Floats):
    """How far a bend moves four points at lattice coordinates (s, t), in pixels.

    Four neighboring control points of a row are one vector, so every point needs four of them for x and four for y.
    """
    column, row = Words(s), Words(t)
    V.store_words((row - 1) * Words(side) + column - 1, scratch)
    w0, w1, w2, w3 = _weights(s - Floats(column))
    across = V.transpose(w0, w1, w2, w3)
    w0, w1, w2, w3 = _weights(t - Floats(row))
    down = (w0, w1, w2, w3)
    moved_x, moved_y = (), ()
    for k in V.FOUR:
        place = controls + V.whole(scratch, k) * 4
        x, y = Floats(0.0), Floats(0.0)
        for j in V.FOUR:
            weight = V.lane(down[j], k)
            x = V.fma(V.load_floats(place + j * side * 4), weight, x)
            y = V.fma(V.load_floats(place + (side + j) * side * 4), weight, y)
        moved_x = (*moved_x, x * across[k])
        moved_y = (*moved_y, y * across[k])
    return _total(*moved_x), _total(*moved_y)


@compiled
def _collapse(controls, side, scratch, t: Float):
    """The polynomials that a bend is along a row, at lattice coordinate t, into ``scratch``.

    For x, then for y, these are 16 coefficients of degree 0, 16 of degree 1 and so on: one for every column of the lattice.
    """
    row = Int(t)
    w0, w1, w2, w3 = _weights(Floats(t - row))
    weights = (w0, w1, w2, w3)
    for axis in range(2):
        sums, target = scratch + 512, scratch + axis * 256
        V.store(0.0, sums + 64)
        for i in range(0, side, 4):
            total = Floats(0.0)
            for j in V.FOUR:
                total = V.fma(V.load_floats(controls + ((axis * side + row - 1 + j) * side + i) * 4), weights[j], total)
            V.store(total, sums + i * 4)
        for i in range(0, side - 3, 4):  # column i + 1 lies between the second and the third of these
            p0, p1, p2, p3 = (
                V.load_floats(sums + i * 4),
                V.load_floats(sums + i * 4 + 4),
                V.load_floats(sums + i * 4 + 8),
                V.load_floats(sums + i * 4 + 12),
            )
            V.store_floats(V.fma(p1, 4.0, p0 + p2) * (1 / 6), target + i * 4 + 4)
            V.store_floats((p2 - p0) * 0.5, target + i * 4 + 68)
            V.store_floats(V.fma(p1, -1.0, (p0 + p2) * 0.5), target + i * 4 + 132)
            V.store_floats(V.fma(p3 - p0, 1 / 6, (p1 - p2) * 0.5), target + i * 4 + 196)


@inlined
def _polynomial(coefficients, f: Floats) -> Floats:
    high = V.fma(f, V.real(coefficients, 48), V.real(coefficients, 32))
    return V.fma(f, V.fma(f, high, V.real(coefficients, 16)), V.real(coefficients, 0))


@inlined
def _bend_along(scratch, s: Floats) -> (Floats, Floats):
    """As ``_bend_anywhere``, at four points of one row that lie in two neighboring columns at most."""
    first, last = Int(V.first(s)), Int(V.last(s))
    f = s - first
    x, y = _polynomial(scratch + first * 4, f), _polynomial(scratch + 256 + first * 4, f)
    if first != last:
        g = s - last
        there = V.choose(s < max(first, last), 0.0, 1.0) if last > first else V.choose(s < max(first, last), 1.0, 0.0)
        x = V.lerp(x, _polynomial(scratch + last * 4, g), there)
        y = V.lerp(y, _polynomial(scratch + 256 + last * 4, g), there)
    return x, y


@inlined
def _locate_points(call, x0, x1, y, m, source, surface, spots, scratch, affine, bent, folds):
    """As ``_locate``, without what is not needed: whether places are mapped affinely, bent and folded are constants."""
    pitch, left, top = V.whole(source, T.PITCH), V.whole(source, T.LEFT), V.whole(source, T.TOP)
    black = V.long(call, T.PADDING) == T.ZEROS
    low, high_u, high_v = 1 - Int(black), V.whole(source, T.WIDTH) + black, V.whole(source, T.HEIGHT) + black
    scale = 1.0 / (1 << V.whole(source, T.LEVEL))
    scales, shift_u, shift_v = Float(scale), Float(0.5 * scale - 0.5), Float(0.5 * scale - 0.5)
    if not folds:
        shift_u, shift_v = shift_u + (1 - left), shift_v + (1 - top)
    a, d, g = V.real(m, T.MATRIX), V.real(m, T.MATRIX + 3), V.real(m, T.MATRIX + 6)
    c, f, h = Float(_along_row(m, 0, y)), Float(_along_row(m, 1, y)), Float(_along_row(m, 2, y))
    period_u, period_v = V.real(source, T.PERIOD_U), V.real(source, T.PERIOD_V)
    cells_x, cells_y, start_x, start_y = V.real(m, T.CELLS), V.real(m, T.CELLS + 1), V.real(m, T.CELLS + 2), V.real(m, T.CELLS + 3)
    side, controls, along = V.whole(m, T.GRID) + 6, V.long(call, T.CONTROLS) + V.whole(m, T.BEND) * 4, 0
    opacity = V.real(m, T.OPACITY)
    if bent and V.whole(m, T.FLAGS) & T.AFFINE and d == 0 and -1 < 3 * a * cells_x < 1:
        along = 1
        _collapse(controls, side, scratch, min(max(f * cells_y + start_y, 1.0), Float(side - 2.001)))
    for x in range(x0, x1, 4):
        xs = V.ramp() + x
        u, v = V.fma(xs, a, c), V.fma(xs, d, f)
        if not affine:
            near = 1.0 / max(V.fma(xs, g, h), HORIZON)
            u, v = u * near, v * near
        if bent:
            s = _lattice(u, cells_x, start_x, side)
            if along:
                far_x, far_y = _bend_along(scratch, s)
                u, v = u + far_x, v + far_y
            else:
                far_x, far_y = _bend_anywhere(controls, side, scratch, s, _lattice(v, cells_y, start_y, side))
                u, v = u + far_x, v + far_y
        if surface:
            V.store(_coverage(surface, u, v) * opacity, spots + COVERED)
        u, v = V.fma(u, scales, shift_u), V.fma(v, scales, shift_v)
        if folds:
            u, v = _fold(u, period_u) + (1 - left), _fold(v, period_v) + (1 - top)
        _note(spots, pitch, u, v, low, high_u, high_v)
        spots += 4 * SPOT


@compiled
def _locate(call, x0, x1, y, m, source, surface, spots, scratch):
    """Note where pixels x0 to x1 of row y of a frame read in a working frame, and how much a layer's outline covers them.

    Args:
        call: sizes and addresses, as ``table`` lays them out.
        x0: the first pixel.
        x1: after the last.
        y: the row.
        m: row of the table of the frame that is made.
        source: row of the table of what is read.
        surface: row of the table of the layer; 0 for a back, which covers all.
        spots: memory for what is noted.
        scratch: more memory.

    """
    pitch, left, top = V.whole(source, T.PITCH), V.whole(source, T.LEFT), V.whole(source, T.TOP)
    black = V.long(call, T.PADDING) == T.ZEROS
    low, high_u, high_v = 1 - Int(black), V.whole(source, T.WIDTH) + black, V.whole(source, T.HEIGHT) + black
    scale = 1.0 / (1 << V.whole(source, T.LEVEL))
    shift = 0.5 * scale - 0.5
    flags, folds = V.whole(m, T.FLAGS), V.long(call, T.PADDING) == T.REFLECTION
    if folds:
        _locate_points(call, x0, x1, y, m, source, surface, spots, scratch, flags & T.AFFINE, flags & T.BENT, 1)
    elif flags & T.BENT:
        _locate_points(call, x0, x1, y, m, source, surface, spots, scratch, flags & T.AFFINE, 1, 0)
    elif not flags & T.AFFINE:
        _locate_points(call, x0, x1, y, m, source, surface, spots, scratch, 0, 0, 0)
    elif surface:
        _locate_points(call, x0, x1, y, m, source, surface, spots, scratch, 1, 0, 0)
    else:
        a, d = Float(V.real(m, T.MATRIX) * scale), Float(V.real(m, T.MATRIX + 3) * scale)
        c = Float(_along_row(m, 0, y) * scale + shift + (1 - left))
        f = Float(_along_row(m, 1, y) * scale + shift + (1 - top))
        for x in range(x0, x1, 4):
            xs = V.ramp() + x
            _note(spots, pitch, V.fma(xs, a, c), V.fma(xs, d, f), low, high_u, high_v)
            spots += 4 * SPOT


@inlined
def _bilinear(upper, pitch, x: Floats, y: Floats) -> Floats:
    """The sample between four pixels, the first of which is at ``upper``."""
    lower = upper + pitch * PIXEL
    return V.lerp(V.lerp(V.load(upper), V.load(lower), y), V.lerp(V.load(upper + PIXEL), V.load(lower + PIXEL), y), x)


@compiled
def _gather(target, count, spots, frame, pitch):
    """Bilinear samples of a working frame at points that ``_locate`` has noted.

    Apart from that, for the processor works ahead: it loads pixels while the coordinates of the next are not waited for.
    """
    for _ in range(0, count, 4):
        across, down = V.load(spots + ACROSS), V.load(spots + DOWN)
        for k in V.FOUR:
            upper = frame + V.whole(spots, k) * PIXEL
            V.store(_bilinear(upper, pitch, V.lane(across, k), V.lane(down, k)), target + PIXEL * k)
        spots += 4 * SPOT
        target += 4 * PIXEL


@compiled
def _gather_over(target, count, spots, frame, pitch):
    """As ``_gather``, painted over what is there as much as is covered."""
    for _ in range(0, count, 4):
        covered = V.load(spots + COVERED)
        if V.any(covered):
            across, down = V.load(spots + ACROSS), V.load(spots + DOWN)
            for k in V.FOUR:
                upper, place = frame + V.whole(spots, k) * PIXEL, target + PIXEL * k
                above = _bilinear(upper, pitch, V.lane(across, k), V.lane(down, k))
                V.store(V.lerp(V.load(place), above, V.lane(covered, k)), place)
        spots += 4 * SPOT
        target += 4 * PIXEL


@compiled
def _copy(call, target, x0, x1, y, m, source, frame):
    """Pixels x0 to x1 of row y of a frame that shows what is read pixel by pixel."""
    row, column = Int(_along_row(m, 1, y)) + 1 - V.whole(source, T.TOP), Int(_along_row(m, 0, y)) + 1 - V.whole(source, T.LEFT)
    place = frame + (row * V.whole(source, T.PITCH) + column + x0) * PIXEL
    for x in range(x1 - x0):
        V.store(V.load(place + x * PIXEL), target + x * PIXEL)


@inlined
def _sample_row(call, target, x0, x1, y, m, source, frame, spots, scratch):
    """Pixels x0 to x1 of row y of a back, sampled from a working frame."""
    if V.whole(m, T.FLAGS) & T.COPY:
        _copy(call, target, x0, x1, y, m, source, frame)
    else:
        _locate(call, x0, x1, y, m, source, 0, spots, scratch)
        _gather(target, x1 - x0, spots, frame, V.whole(source, T.PITCH))


@inlined
def _recolor_row(target, width, m):
    """Apply a color map, whose four columns lie in the table as four pixels, and clamp to [0, 1]."""
    color = m + 4 * T.COLOR
    red, green, blue, add = (
        V.load_floats(color),
        V.load_floats(color + PIXEL),
        V.load_floats(color + 2 * PIXEL),
        V.load_floats(color + 3 * PIXEL),
    )
    for x in range(width):
        pixel = V.load(target + x * PIXEL)
        mapped = V.fma(blue, V.lane(pixel, 2), V.fma(green, V.lane(pixel, 1), V.fma(red, V.lane(pixel, 0), add)))
        V.store(V.clamp(mapped, 0.0, 1.0), target + x * PIXEL)


@inlined
def _mix_row(target, other, count, share: Float):
    for x in range(count):
        V.store(V.lerp(V.load(target + x * PIXEL), V.load(other + x * PIXEL), share), target + x * PIXEL)


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
        _sample_row(call, spare if k else target, 0, w, y, m, source, base + V.whole(source, T.PLACE) * PIXEL, spots, scratch)
    if share > 0:
        _mix_row(target, spare, w, share)
    if V.whole(m, T.FLAGS) & T.COLORED:
        _recolor_row(target, w, m)


@compiled
def _paint_layer(call, target, x0, x1, y, m, surface, base, spare, second, spots, scratch):
    """Paint pixels x0 to x1 of row y of a layer over those at ``target``."""
    share, colored, source = V.real(m, T.SHARE), V.whole(m, T.FLAGS) & T.COLORED, _source(call, m, 0)
    _locate(call, x0, x1, y, m, source, surface, spots, scratch)
    target += x0 * PIXEL
    if share == 0 and not colored:
        _gather_over(target, x1 - x0, spots, base + V.whole(source, T.PLACE) * PIXEL, V.whole(source, T.PITCH))
        return
    _gather(spare, x1 - x0, spots, base + V.whole(source, T.PLACE) * PIXEL, V.whole(source, T.PITCH))
    if share > 0:
        source = _source(call, m, 1)
        _locate(call, x0, x1, y, m, source, surface, spots, scratch)
        _gather(second, x1 - x0, spots, base + V.whole(source, T.PLACE) * PIXEL, V.whole(source, T.PITCH))
        _mix_row(spare, second, x1 - x0, share)
    if colored:
        _recolor_row(spare, x1 - x0, m)
    for x in range(0, x1 - x0, 4):
        covered = V.load(spots + x * SPOT + COVERED)
        for k in V.FOUR:
            place = target + (x + k) * PIXEL
            V.store(V.lerp(V.load(place), V.load(spare + (x + k) * PIXEL), V.lane(covered, k)), place)


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
            c, inverse = _along_row(m, axis, y), V.real(m, T.STEEP + axis)
            first, last = (V.real(surface, T.LIMITS + axis) - c) * inverse, (V.real(surface, T.LIMITS + 2 + axis) - c) * inverse
            x0, x1 = max(x0, min(first, last)), min(x1, max(first, last))
        if not x0 <= x1 + 1:
            return 0, 0
        return max(0, Int(V.ceil(x0 - ROUNDING))), min(w, Int(V.floor(x1 + ROUNDING)) + 1)
    g, h = Double(V.real(m, T.MATRIX + 6)), _along_row(m, 2, y)
    if h < HORIZON or h + g * (w - 1) < HORIZON:
        return 0, w
    for axis in range(2):
        a, c = Double(V.real(m, T.MATRIX + 3 * axis)), _along_row(m, axis, y)
        low, high = V.real(surface, T.LIMITS + axis), V.real(surface, T.LIMITS + 2 + axis)
        x0, x1 = _cut(a - low * g, c - low * h, x0, x1)
        x0, x1 = _cut(high * g - a, high * h - c, x0, x1)
    if not x0 <= x1 + 1:
        return 0, 0
    return max(0, Int(V.ceil(x0 - ROUNDING))), min(w, Int(V.floor(x1 + ROUNDING)) + 1)


@inlined
def _superellipse(surface, u: Floats, v: Floats) -> (Floats, Floats, Floats):
    """``g`` and its gradient along both axes, as ``outline`` defines them."""
    u, v, steps = V.fabs(u), V.fabs(v), 0
    for k in range(outline.POWERS):
        if V.real(surface, T.PARAMS + 1) > k:
            steps += 1
    largest = max(u, v, outline.TINY)
    inverse = 1.0 / largest
    u, v = u * inverse, v * inverse
    power_u, power_v = u, v
    for _ in range(steps):
        power_u, power_v = power_u * power_u, power_v * power_v
    total = power_u + power_v
    for _ in range(steps):
        total = V.sqrt(total)
    total = max(total, 1.0)
    inverse = 1.0 / total
    along_u, along_v, square_u, square_v = Floats(1.0), Floats(1.0), u * inverse, v * inverse
    for _ in range(steps):
        along_u, along_v = along_u * square_u, along_v * square_v
        square_u, square_v = square_u * square_u, square_v * square_v
    return largest * total, along_u, along_v


@inlined
def _blob(surface, u: Floats, v: Floats) -> (Floats, Floats, Floats):
    """``g`` and its gradient along both axes, as ``outline`` defines them."""
    rho = V.sqrt(V.fma(u, u, v * v))
    inverse = 1.0 / max(rho, outline.TINY)
    u, v = u * inverse, v * inverse
    radius, change, cosine, sine = Floats(V.real(surface, T.PARAMS + 1)), Floats(0.0), u, v
    for i in V.SIX:
        cosine, sine = cosine * u - sine * v, cosine * v + sine * u
        c, s = V.real(surface, T.PARAMS + 2 + 2 * i), V.real(surface, T.PARAMS + 3 + 2 * i)
        radius = V.fma(sine, s, V.fma(cosine, c, radius))
        change = V.fma(s * cosine - c * sine, i + outline.ORDERS[0], change)
    inverse = 1.0 / radius
    slope = change * inverse
    return rho * inverse, V.fma(slope, v, u) * inverse, (v - slope * u) * inverse


@compiled
def _coverage(surface, u: Floats, v: Floats) -> Floats:
    """How much of four texture pixels lies inside a layer's outline."""
    sharpness, shape = V.real(surface, T.SHARPNESS), V.whole(surface, T.SHAPE)
    inner_x = min(u - V.real(surface, T.BOX), V.real(surface, T.BOX + 2) - u)
    inner_y = min(v - V.real(surface, T.BOX + 1), V.real(surface, T.BOX + 3) - v)
    if shape == outline.BOX:
        return V.clamp(V.fma(inner_x, sharpness, 0.5), 0.0, 1.0) * V.clamp(V.fma(inner_y, sharpness, 0.5), 0.0, 1.0)
    x, y, distance = u - V.real(surface, T.CENTER), v - V.real(surface, T.CENTER + 1), min(inner_x, inner_y)
    if shape == outline.POLYGON:
        for k in range(outline.MOST_VERTICES):
            line = surface + 4 * (T.PARAMS + 3 * k)
            distance = min(distance, V.fma(x, V.real(line, 0), V.fma(y, V.real(line, 1), V.real(line, 2))))
    else:
        per_x, per_y, hole = V.real(surface, T.PER), V.real(surface, T.PER + 1), V.real(surface, T.PARAMS)
        if shape == outline.SUPERELLIPSE:
            value, along_x, along_y = _superellipse(surface, x * per_x, y * per_y)
        else:
            value, along_x, along_y = _blob(surface, x * per_x, y * per_y)
        along_x, along_y, within = along_x * per_x, along_y * per_y, 1 - value
        if hole > 0:
            within = min(within, value - hole)
        distance = min(distance, within / max(V.sqrt(V.fma(along_x, along_x, along_y * along_y)), outline.TINY))
    return V.clamp(V.fma(distance, sharpness, 0.5), 0.0, 1.0)


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
    if recursive and t > 0:
        before = chain + ((t - 1) % buffers) * frame_bytes
        _sample_row(call, target, 0, w, y, m, V.long(call, T.PREVIOUS), before, spots, scratch)
        if V.whole(m, T.FLAGS) & T.COLORED:
            _recolor_row(target, w, m)
    else:
        _show_back(call, target, y, m, base, spare, spots, scratch)
    if recursive:
        _close_row(target, w)
    if layered:
        if recursive:
            for x in range(w):
                V.store(V.load(target + x * PIXEL), own + x * PIXEL)
            target = own
        _paint_layers(call, target, clip, y, t, base, spare, second, spots, scratch)
    return target


@inlined
def _write_pixels(target, source, count, plane, channels, finish, kind, item):
    """Some pixels, a multiple of four, to their places in planes that are ``plane`` bytes apart: scaled, shifted, cast."""
    for _ in range(0, count, 4):
        planes = V.transpose(V.load(source), V.load(source + PIXEL), V.load(source + 2 * PIXEL), V.load(source + 3 * PIXEL))
        for c in V.FOUR:
            if c == 0 or c < channels:
                value = V.fma(planes[c], V.real(finish, c), V.real(finish, 4 + c))
                if kind == T.UINT8:
                    V.write_bytes(target + c * plane, value)
                elif kind == T.FLOAT32:
                    V.write_floats(target + c * plane, value)
                elif kind == T.BFLOAT16:
                    V.write_bfloat16(target + c * plane, value)
                else:
                    V.write_float16(target + c * plane, value)
        source += 4 * PIXEL
        target += 4 * item


@inlined
def _write_some(call, target, source, count, plane):
    """As ``_write_pixels``, of the type that is asked for."""
    channels, kind, finish = V.long(call, T.CHANNELS), V.long(call, T.KIND), V.long(call, T.FINISH)
    if kind == T.UINT8:
        _write_pixels(target, source, count, plane, channels, finish, T.UINT8, 1)
    elif kind == T.FLOAT32:
        _write_pixels(target, source, count, plane, channels, finish, T.FLOAT32, 4)
    elif kind == T.BFLOAT16:
        _write_pixels(target, source, count, plane, channels, finish, T.BFLOAT16, 2)
    else:
        _write_pixels(target, source, count, plane, channels, finish, T.FLOAT16, 2)


@compiled
def _write_row(call, target, source, spare, item):
    """A finished row to its places in the clips, converted."""
    w, plane = V.long(call, T.W), V.long(call, T.CHANNEL_STRIDE)
    full = w & ~3
    _write_some(call, target, source, full, plane)
    if full < w:  # less than four pixels are left, and what follows them may be finished
        _write_some(call, spare, source + full * PIXEL, 4, PIXEL)
        for c in range(V.long(call, T.CHANNELS)):
            for k in range((w - full) * item):
                V.copy_byte(target + c * plane + full * item + k, spare + c * PIXEL + k)


@compiled
def _finish_row(call, clip, y, t, arena, rows):
    """Row y of frame t of a clip, mixed with its partner's, to its place; ``rows`` is memory for six rows."""
    size, clips = V.long(call, T.ROW_BYTES), V.long(call, T.CLIPS)
    row = clips + clip * (4 * T.CLIP)
    own, other, spare, second, spots = rows, rows + size, rows + 2 * size, rows + 3 * size, rows + 4 * size
    source, result, chain, shown = own, own, arena, clip
    mixed = V.whole(row, T.FIRST) <= t < V.whole(row, T.LAST) and V.whole(row, T.MIX_TOP) <= y < V.whole(row, T.MIX_BOTTOM)
    needed = mixed or (t < V.whole(row, T.LAST) and V.whole(clips + V.whole(row, T.PARTNER) * (4 * T.CLIP), T.RECURSIVE))
    for k in range(2 if needed else 1):
        if k:
            source, own, chain, shown = result, other, arena + V.long(call, T.CHAIN_BYTES), V.whole(row, T.PARTNER)
        result = _paint_row(call, shown, y, t, chain, own, spare, second, spots, rows + 5 * size)
    if needed:
        result, partner = source, result
        if mixed:
            for x in range(V.long(call, T.W)):
                share = V.real(row, T.WEIGHT) if V.whole(row, T.MIX_LEFT) <= x < V.whole(row, T.MIX_RIGHT) else Float(0.0)
                V.store(V.lerp(V.load(result + x * PIXEL), V.load(partner + x * PIXEL), share), spare + x * PIXEL)
            result = spare
    item = 4 if V.long(call, T.KIND) == T.FLOAT32 else 1 if V.long(call, T.KIND) == T.UINT8 else 2
    place = V.long(call, T.OUT) + clip * V.long(call, T.CLIP_STRIDE) + t * V.long(call, T.FRAME_STRIDE) + y * V.long(call, T.W) * item
    _write_row(call, place, result, second, item)


# Whole clips -----------------------------------------------------------------------------------------------------------------------------


@compiled
def _rows_read(m, y0, y1, w, h) -> (Int, Int):
    """The rows of the frame before, from the first up to the second, that rows y0 to y1 of a frame read."""
    low, high = math.inf, -math.inf
    for corner in range(4):
        x, y = (w - 1) * (corner & 1), (y1 - 1) if corner & 2 else y0
        depth = Double(V.real(m, T.MATRIX + 6)) * x + _along_row(m, 2, y)
        if depth < HORIZON:
            return 0, h
        v = (Double(V.real(m, T.MATRIX + 3)) * x + _along_row(m, 1, y)) / depth
        low, high = min(low, v), max(high, v)
    low, high = low - V.real(m, T.REACHED), high + V.real(m, T.REACHED)
    low, high = min(max(low, 0.0), h - 1.0), min(max(high, 0.0), h - 1.0)
    return max(0, Int(low) - 1), min(h, Int(high) + 3)


@compiled
def _ready(call, clip, stage, y0, y1, queue) -> Bit:
    """Whether all has been made that rows y0 to y1 of a stage need."""
    pieces, t, rows = V.long(call, T.PIECES), stage - 1, V.long(call, T.PIECE_ROWS)
    counts = queue + 8
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
def work_on_clip(call, clip, arena, rows, sums, queue, piece) -> Int:
    """Do pieces of work on a clip, which threads share among them, until none is left.

    Stage 0 prepares the sources, stage t + 1 makes frame t; a stage is cut into pieces, which are taken in order. Whatever is not a number
    is passed as an address.

    Args:
        call: sizes and addresses, as ``table`` lays them out.
        clip: position in the batch.
        arena: the clip's memory, shared by the threads.
        rows: this thread's memory for rows of frames.
        sums: this thread's memory for a row of an image.
        queue: the next piece, how many pieces of every stage are done, and which of them; zeros at first.
        piece: to begin with; -1: take the next.

    Returns:
        -1 where no piece is left; else a piece that must wait for other threads, to be passed again.

    """
    pieces, height, h = V.long(call, T.PIECES), V.long(call, T.PIECE_ROWS), V.long(call, T.H)
    counts = queue + 8
    done = counts + 8 * (V.long(call, T.NUM_FRAMES) + 1)
    clips = V.long(call, T.CLIPS)
    row = clips + clip * (4 * T.CLIP)
    while True:
        if piece < 0:
            piece = V.add_shared(queue, 1)
        stage, part = piece // pieces, piece % pieces
        if stage > V.long(call, T.NUM_FRAMES):
            return -1
        if stage == 0:
            for chain in range(2 if V.whole(row, T.LAST) > 0 else 1):
                shown = clips + V.whole(row, T.PARTNER) * (4 * T.CLIP) if chain else row
                base = arena + chain * V.long(call, T.CHAIN_BYTES)
                for k in range(V.long(call, T.BUFFERS)):
                    if k % pieces == part:
                        _clear_border(
                            base + k * V.long(call, T.FRAME_BYTES), V.whole(V.long(call, T.PREVIOUS), T.PITCH), V.long(call, T.W), h
                        )
                base += V.long(call, T.BUFFERS) * V.long(call, T.FRAME_BYTES)
                _prepare(call, V.whole(shown, T.SOURCES), V.whole(shown, T.SOURCES + 1), base, part, pieces, sums)
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
