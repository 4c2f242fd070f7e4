"""Source coordinates of the pixels in a row of a frame: homographies, bends, padding."""

# mypy: ignore-errors
# LLVM compiles these functions; their annotations are its types.

from pseudomotion import outline
from pseudomotion.geometry import HORIZON
from pseudomotion.render.cpu import table as T
from pseudomotion.render.cpu import vector as V
from pseudomotion.render.cpu.compiler import LANES, Double, Float, Floats, Int, Words, compiled, inlined
from pseudomotion.render.cpu.coverage import box_coverage, coverage
from pseudomotion.render.cpu.vector import PIXEL

BOX, ANY = 1, 2  # outlines
PLACE = 8  # bytes: places in working frames are noted as multiples of this, so that int32 suffice


@inlined
def along_row(m, axis, y) -> Double:
    """The part of a homography's row that is constant along row y of a frame."""
    return Double(V.real(m, T.MATRIX + 3 * axis + 1)) * y + V.real(m, T.MATRIX + 3 * axis + 2)


@inlined
def _note(spots, plane, pitch, u: Floats, v: Floats, low: Floats, high_u: Floats, high_v: Floats):
    """Note where points lie in a working frame, into which they are clamped: the pixels above and left of them, and how far beyond."""
    u, v = V.clamp(u, low, high_u), V.clamp(v, low, high_v)
    left, top = Words(u), Words(v)
    V.store_words((top * Words(pitch) + left) * (PIXEL // PLACE), spots)
    V.store(u - Floats(left), spots + plane)
    V.store(v - Floats(top), spots + 2 * plane)


@inlined
def _fold(at: Floats, period: Floats) -> Floats:
    """Reflect coordinates along an axis; a period is the way there and back."""
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
def _lattice(at: Floats, cells: Float, start: Float, side) -> Floats:
    """Lattice coordinates of a bend, clamped to the zero padding around its control points."""
    return V.clamp(V.fma(at, cells, start), 1.0, side - 2.001)


@inlined
def _bend_anywhere(controls, side, scratch, s: Floats, t: Floats) -> (Floats, Floats):
    """Displacement of points at lattice coordinates (s, t), in pixels.

    Every point needs four rows of four neighboring control points for x, and four for y; a vector holds a row of four points.
    """
    column, row = Words(s), Words(t)
    V.store_words((row - 1) * Words(side) + column - 1, scratch)
    w0, w1, w2, w3 = _weights(s - Floats(column))
    across = V.join(w0, w1, w2, w3)
    w0, w1, w2, w3 = _weights(t - Floats(row))
    down = (w0, w1, w2, w3)
    moved_x, moved_y = (), ()
    for q in V.FOUR:
        a, b, c, d = (
            controls + V.whole(scratch, 4 * q) * 4,
            controls + V.whole(scratch, 4 * q + 1) * 4,
            controls + V.whole(scratch, 4 * q + 2) * 4,
            controls + V.whole(scratch, 4 * q + 3) * 4,
        )
        x, y = Floats(0.0), Floats(0.0)
        for j in V.FOUR:
            weight, here, there = V.spread(down[j], q), j * side * 4, (side + j) * side * 4
            x = V.fma(V.load_fours(a + here, b + here, c + here, d + here), weight, x)
            y = V.fma(V.load_fours(a + there, b + there, c + there, d + there), weight, y)
        moved_x = (*moved_x, x * across[q])
        moved_y = (*moved_y, y * across[q])
    p0, p1, p2, p3 = V.split(*moved_x)
    q0, q1, q2, q3 = V.split(*moved_y)
    return p0 + p1 + (p2 + p3), q0 + q1 + (q2 + q3)


@compiled
def _collapse(controls, side, scratch, t: Float):
    """The polynomials that a bend is along a row, at lattice coordinate t, into ``scratch``.

    For x, then for y, these are the coefficients of degree 0, of degree 1 and so on: a vector has one for every column of the lattice.
    """
    row = Int(t)
    w0, w1, w2, w3 = _weights(Floats(t - row))
    weights = (w0, w1, w2, w3)
    for axis in range(2):
        target, p1 = scratch + axis * (16 * LANES), Floats(0.0)
        for j in V.FOUR:
            p1 = V.fma(V.load(controls + (axis * side + row - 1 + j) * side * 4), weights[j], p1)
        p0, p2, p3 = V.following(p1, -1), V.following(p1, 1), V.following(p1, 2)
        V.store(V.fma(p1, 4.0, p0 + p2) * (1 / 6), target)
        V.store((p2 - p0) * 0.5, target + 4 * LANES)
        V.store(V.fma(p1, -1.0, (p0 + p2) * 0.5), target + 8 * LANES)
        V.store(V.fma(p3 - p0, 1 / 6, (p1 - p2) * 0.5), target + 12 * LANES)


@inlined
def _polynomial(coefficients, f: Floats) -> Floats:
    high = V.fma(f, V.real(coefficients, 3 * LANES), V.real(coefficients, 2 * LANES))
    return V.fma(f, V.fma(f, high, V.real(coefficients, LANES)), V.real(coefficients, 0))


@inlined
def _bend_along(scratch, s: Floats) -> (Floats, Floats):
    """As ``_bend_anywhere``, at neighboring points of one row."""
    first, last = Int(V.first(s)), Int(V.last(s))
    x, y = Floats(0.0), Floats(0.0)
    for column in range(min(first, last), max(first, last) + 1):
        place, f = scratch + column * 4, s - column
        x = V.choose(f < 0, x, _polynomial(place, f))
        y = V.choose(f < 0, y, _polynomial(place + 16 * LANES, f))
    return x, y


@inlined
def _locate_points(call, x0, x1, y, m, source, surface, spots, scratch, affine, bent, folds, covered):
    """As ``locate``, without what is not needed: whether places are mapped affinely, bent, folded and covered are constants."""
    pitch, left, top = V.whole(source, T.PITCH), V.whole(source, T.LEFT), V.whole(source, T.TOP)
    black = V.long(call, T.PADDING) == T.ZEROS
    low, high_u, high_v = 1 - Int(black), V.whole(source, T.WIDTH) + black, V.whole(source, T.HEIGHT) + black
    scale = 1.0 / (1 << V.whole(source, T.LEVEL))
    scales, shift_u, shift_v = Float(scale), Float(0.5 * scale - 0.5), Float(0.5 * scale - 0.5)
    if not folds:
        shift_u, shift_v = shift_u + (1 - left), shift_v + (1 - top)
    a, d, g = V.real(m, T.MATRIX), V.real(m, T.MATRIX + 3), V.real(m, T.MATRIX + 6)
    c, f, h = Float(along_row(m, 0, y)), Float(along_row(m, 1, y)), Float(along_row(m, 2, y))
    period_u, period_v = V.real(source, T.PERIOD_U), V.real(source, T.PERIOD_V)
    cells_x, cells_y, start_x, start_y = V.real(m, T.CELLS), V.real(m, T.CELLS + 1), V.real(m, T.CELLS + 2), V.real(m, T.CELLS + 3)
    side, controls, along = V.whole(m, T.GRID) + 6, V.long(call, T.CONTROLS) + V.whole(m, T.BEND) * 4, 0
    opacity, plane = V.real(m, T.OPACITY), V.long(call, T.ROW_BYTES) // 4
    if bent and V.whole(m, T.FLAGS) & T.AFFINE and d == 0:
        along = 1
        _collapse(controls, side, scratch, min(max(f * cells_y + start_y, 1.0), Float(side - 2.001)))
    for x in range(x0, x1, LANES):
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
        if covered == BOX:
            V.store(box_coverage(surface, u, v) * opacity, spots + 3 * plane)
        elif covered:
            V.store(coverage(surface, u, v) * opacity, spots + 3 * plane)
        u, v = V.fma(u, scales, shift_u), V.fma(v, scales, shift_v)
        if folds:
            u, v = _fold(u, period_u) + (1 - left), _fold(v, period_v) + (1 - top)
        _note(spots, plane, pitch, u, v, low, high_u, high_v)
        spots += 4 * LANES


@inlined
def _locate(call, x0, x1, y, m, source, surface, spots, scratch, layer):
    """As ``locate``, of a layer or a back: a constant."""
    pitch, left, top = V.whole(source, T.PITCH), V.whole(source, T.LEFT), V.whole(source, T.TOP)
    black = V.long(call, T.PADDING) == T.ZEROS
    low, high_u, high_v = 1 - Int(black), V.whole(source, T.WIDTH) + black, V.whole(source, T.HEIGHT) + black
    scale = 1.0 / (1 << V.whole(source, T.LEVEL))
    shift = 0.5 * scale - 0.5
    flags, folds = V.whole(m, T.FLAGS), V.long(call, T.PADDING) == T.REFLECTION
    if folds:
        _locate_points(call, x0, x1, y, m, source, surface, spots, scratch, flags & T.AFFINE, flags & T.BENT, 1, layer * ANY)
    elif flags & T.BENT:
        _locate_points(call, x0, x1, y, m, source, surface, spots, scratch, flags & T.AFFINE, 1, 0, layer * ANY)
    elif not flags & T.AFFINE:
        _locate_points(call, x0, x1, y, m, source, surface, spots, scratch, 0, 0, 0, layer * ANY)
    elif layer:
        if V.whole(surface, T.SHAPE) == outline.BOX:
            _locate_points(call, x0, x1, y, m, source, surface, spots, scratch, 1, 0, 0, BOX)
        else:
            _locate_points(call, x0, x1, y, m, source, surface, spots, scratch, 1, 0, 0, ANY)
    else:
        a, d = Float(V.real(m, T.MATRIX) * scale), Float(V.real(m, T.MATRIX + 3) * scale)
        c = Float(along_row(m, 0, y) * scale + shift + (1 - left))
        f = Float(along_row(m, 1, y) * scale + shift + (1 - top))
        for x in range(x0, x1, LANES):
            xs = V.ramp() + x
            _note(spots, V.long(call, T.ROW_BYTES) // 4, pitch, V.fma(xs, a, c), V.fma(xs, d, f), low, high_u, high_v)
            spots += 4 * LANES


@compiled
def locate(call, x0, x1, y, m, source, spots, scratch):
    """Note where pixels x0 to x1 of row y of a frame read in a working frame.

    Args:
        call: sizes and addresses, as ``table`` lays them out.
        x0: the first pixel.
        x1: after the last.
        y: the row.
        m: row of the table of the frame that is made.
        source: row of the table of what is read.
        spots: a row of memory for what is noted. Its quarters are the places of the pixels above and left of the points, how far the points
            lie right of them, and below them, and how much a layer covers.
        scratch: more memory.

    """
    _locate(call, x0, x1, y, m, source, 0, spots, scratch, 0)


@compiled
def locate_layer(call, x0, x1, y, m, source, surface, spots, scratch):
    """As ``locate``, and note how much a layer's outline covers; ``surface`` is the layer's row of the table."""
    _locate(call, x0, x1, y, m, source, surface, spots, scratch, 1)
