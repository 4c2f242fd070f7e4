"""Pack a plan into the rows of ``table``: everything that depends on the plan alone is computed here, once, in float64.

This includes where frames read, which part of which pyramid level they need, where layers can be visible, control points of bends, and the
edges of polygons. It is compiled, because in Python it would take longer than rendering a clip of 112 x 112 pixels.
"""

# mypy: ignore-errors
# LLVM compiles these functions; their annotations are its types.

import math

from pseudomotion import outline
from pseudomotion.geometry import HORIZON
from pseudomotion.render.cpu import table as T
from pseudomotion.render.cpu import vector as V
from pseudomotion.render.cpu.compiler import LANES, Double, Float, Int, compiled, inlined

INFINITE = math.inf


@inlined
def _number(value: Double) -> Double:
    """A homography's coefficient, clamped; NaN becomes the limit."""
    if value != value:
        return T.FARTHEST
    return max(min(value, T.FARTHEST), -T.FARTHEST)


@inlined
def _minor(m, i, j) -> Double:
    """Signed minor of a float32 matrix without row i and column j."""
    i1, i2, j1, j2 = (i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3
    first = Double(V.real(m, 3 * i1 + j1)) * V.real(m, 3 * i2 + j2)
    return first - Double(V.real(m, 3 * i1 + j2)) * V.real(m, 3 * i2 + j1)


@compiled
def _pack_matrix(row, homography, w, h) -> Int:
    """The inverse homography, with denominator 1 at the frame's center. Returns whether it is affine."""
    determinant = Double(0.0)
    for j in range(3):
        determinant += Double(V.real(homography, j)) * _minor(homography, 0, j)
    center = _minor(homography, 0, 2) * (0.5 * (w - 1)) + _minor(homography, 1, 2) * (0.5 * (h - 1)) + _minor(homography, 2, 2)
    center = center / determinant
    for i in range(3):
        for j in range(3):
            V.put_real(row, T.MATRIX + 3 * i + j, Float(_number(_minor(homography, j, i) / determinant / center)))
    for axis in range(2):
        V.put_real(row, T.STEEP + axis, Float(max(min(1 / Double(V.real(row, T.MATRIX + 3 * axis)), 1e30), -1e30)))
    return V.real(row, T.MATRIX + 6) == 0 and V.real(row, T.MATRIX + 7) == 0 and V.real(row, T.MATRIX + 8) == 1


@compiled
def _pack_color(row, color) -> Int:
    """The color map in columns. Returns whether it changes anything."""
    colored = 0
    for column in range(4):
        for channel in range(3):
            value = V.real(color, 4 * channel + column)
            V.put_real(row, T.COLOR + 4 * column + channel, value)
            if value != (1 if channel == column else 0):
                colored = 1
        V.put_real(row, T.COLOR + 4 * column + 3, 0.0)
    return colored


@compiled
def _pack_bend(row, target, at, bend, grid, x0: Double, y0: Double, x1: Double, y1: Double) -> (Double, Double):
    """Control points of one frame's bend in pixels, padded by zeros, at ``target``. Returns the farthest reach in x and y; 0 if rigid."""
    side = grid + 6
    reach_x, reach_y = 0.0, 0.0
    if grid == 0:
        return reach_x, reach_y
    cell_x, cell_y = (x1 - x0) / grid, (y1 - y0) / grid
    for axis in range(2):
        cell, reach = (cell_y if axis else cell_x), 0.0
        for j in range(side):
            for i in range(side):
                value = 0.0
                if 3 <= i < grid + 3 and 3 <= j < grid + 3:
                    value = cell * V.real(bend, (axis * grid + j - 3) * grid + i - 3)
                V.put_real(target, (axis * side + j) * side + i, Float(value))
                reach = max(reach, max(value, -value))
        if axis == 0:
            reach_x = reach
        else:
            reach_y = reach
    for k in range(LANES):
        V.put_real(target, 2 * side * side + k, 0.0)
    V.put_real(row, T.CELLS, Float(1 / cell_x))
    V.put_real(row, T.CELLS + 1, Float(1 / cell_y))
    V.put_real(row, T.CELLS + 2, Float(2.5 - x0 / cell_x))
    V.put_real(row, T.CELLS + 3, Float(2.5 - y0 / cell_y))
    V.put_whole(row, T.BEND, at)
    V.put_whole(row, T.GRID, grid)
    return reach_x, reach_y


@compiled
def _seen(m, w, h) -> (Double, Double, Double, Double):
    """Smallest and largest (x, y) that a frame reads; infinite if it sees the horizon."""
    x0, y0, x1, y1 = INFINITE, INFINITE, -INFINITE, -INFINITE
    for corner in range(4):
        x, y = (w - 1) * (corner & 1), (h - 1) * (corner >> 1)
        depth = Double(V.real(m, T.MATRIX + 6)) * x + Double(V.real(m, T.MATRIX + 7)) * y + V.real(m, T.MATRIX + 8)
        if not depth > HORIZON:
            return -INFINITE, -INFINITE, INFINITE, INFINITE
        u = (Double(V.real(m, T.MATRIX)) * x + Double(V.real(m, T.MATRIX + 1)) * y + V.real(m, T.MATRIX + 2)) / depth
        v = (Double(V.real(m, T.MATRIX + 3)) * x + Double(V.real(m, T.MATRIX + 4)) * y + V.real(m, T.MATRIX + 5)) / depth
        x0, y0, x1, y1 = min(x0, u), min(y0, v), max(x1, u), max(y1, v)
    return x0, y0, x1, y1


@compiled
def _copies(m, steps_x: Double, steps_y: Double) -> Int:
    """Whether an affine homography maps every frame pixel to one pixel of a source that is larger by ``steps_x`` and ``steps_y``."""
    if not (V.real(m, T.MATRIX) == 1 and V.real(m, T.MATRIX + 1) == 0 and V.real(m, T.MATRIX + 3) == 0 and V.real(m, T.MATRIX + 4) == 1):
        return 0
    x, y = Double(V.real(m, T.MATRIX + 2)), Double(V.real(m, T.MATRIX + 5))
    return 0 <= x <= steps_x and 0 <= y <= steps_y and V.floor(x) == x and V.floor(y) == y


@compiled
def _rows_seen(m, homography, surface, w, h) -> (Int, Int):
    """Rows of a frame in which a layer may be visible: all rows if the layer or the frame reaches beyond the horizon."""
    for corner in range(4):
        x, y = (w - 1) * (corner & 1), (h - 1) * (corner >> 1)
        if not Double(V.real(m, T.MATRIX + 6)) * x + Double(V.real(m, T.MATRIX + 7)) * y + V.real(m, T.MATRIX + 8) > HORIZON:
            return 0, h
    first, last, before = INFINITE, -INFINITE, 0
    for corner in range(4):
        u, v = V.real(surface, T.LIMITS + 2 * (corner & 1)), V.real(surface, T.LIMITS + 1 + 2 * (corner >> 1))
        depth = Double(V.real(homography, 6)) * u + Double(V.real(homography, 7)) * v + V.real(homography, 8)
        seen = (Double(V.real(homography, 3)) * u + Double(V.real(homography, 4)) * v + V.real(homography, 5)) / depth
        if not -T.FARTHEST < seen < T.FARTHEST:
            return 0, h
        before += 1 if depth > 0 else 0
        first, last = min(first, seen), max(last, seen)
    if 0 < before < 4:
        return 0, h
    top, bottom = Int(V.floor(min(max(first, 0.0), Double(h)))) - 1, Int(V.ceil(min(max(last, -1.0), Double(h)))) + 2
    return max(top, 0), min(max(bottom, 0), h)


@compiled
def _pack_surface(call, surface, layer, reach_x: Double, reach_y: Double):
    """A layer's outline."""
    box, numbers = V.long(call, T.LAYER_BOX) + layer * 16, V.long(call, T.OUTLINE_NUMBERS)
    row = V.long(call, T.LAYER_OUTLINE) + layer * numbers * 4
    feather, shape = Double(V.real(row, outline.FEATHER)), Int(V.real(row, outline.SHAPE))
    for k in range(4):
        V.put_real(surface, T.BOX + k, V.real(box, k))
    V.put_real(surface, T.SHARPNESS, Float(1 / feather))
    V.put_whole(surface, T.SHAPE, shape)
    half_x, half_y = 0.5 * (Double(V.real(box, 2)) - V.real(box, 0)), 0.5 * (Double(V.real(box, 3)) - V.real(box, 1))
    for axis in range(2):
        around, half = 0.5 * feather + (reach_y if axis else reach_x), (half_y if axis else half_x)
        V.put_real(surface, T.LIMITS + axis, Float(V.real(box, axis) - around))
        V.put_real(surface, T.LIMITS + 2 + axis, Float(V.real(box, 2 + axis) + around))
        V.put_real(surface, T.CENTER + axis, Float(V.real(box, axis) + half))
        V.put_real(surface, T.PER + axis, Float(1 / half))
    if shape == outline.BOX:
        return
    for k in range(numbers - outline.PARAMS):
        V.put_real(surface, T.PARAMS + k, V.real(row, outline.PARAMS + k))
    if shape != outline.POLYGON:
        return
    for k in range(outline.MOST_VERTICES):
        start, end = row + 4 * (outline.PARAMS + 2 * k), row + 4 * (outline.PARAMS + 2 * ((k + 1) % outline.MOST_VERTICES))
        x, y = V.real(start, 0) * half_x, V.real(start, 1) * half_y
        along_x, along_y = V.real(end, 0) * half_x - x, V.real(end, 1) * half_y - y
        length = V.sqrt(along_x * along_x + along_y * along_y)
        normal_x, normal_y, offset = 0.0, 0.0, outline.FAR
        if length > 1e-6 * max(half_x, half_y):  # not between equal vertices
            normal_x, normal_y = -along_y / length, along_x / length
            offset = -(normal_x * x + normal_y * y)
        V.put_real(surface, T.PARAMS + 3 * k, Float(normal_x))
        V.put_real(surface, T.PARAMS + 3 * k + 1, Float(normal_y))
        V.put_real(surface, T.PARAMS + 3 * k + 2, Float(offset))


@compiled
def _edges(low: Double, high: Double, level, size, padding) -> (Int, Int, Float):
    """The range of pixels that a clip needs along one axis of a pyramid level, and the period of its reflection."""
    scale = 1.0 / (1 << level)
    low, high = (low + 0.5) * scale - 0.5, (high + 0.5) * scale - 0.5
    # A pixel more on either side than is read, for coordinates are rounded.
    start, end = Int(V.floor(min(max(low, -4.0), size + 4.0))) - 1, Int(V.floor(min(max(high, -4.0), size + 4.0))) + 3
    outside = start < 0 or end > size
    if outside and padding == T.REFLECTION:
        start, end = 0, size
    start = min(max(start, 0), size - 1)
    end = max(min(max(end, 0), size), start + 1)
    return start, end, (Float(max(1, 2 * (size - 1))) if outside else Float(T.ENDLESS))


@compiled
def _pack_source(call, source, textured, index, level, place, low_x: Double, low_y: Double, high_x: Double, high_y: Double) -> Int:
    """A part of an image that a clip reads. Returns the pixels that it takes."""
    width, height = V.long(call, T.IMAGE_W), V.long(call, T.IMAGE_H)
    if textured:
        width, height = V.long(call, T.TEXTURE_W), V.long(call, T.TEXTURE_H)
    size = 1 << level
    left, right, period_u = _edges(low_x, high_x, level, (width + size - 1) >> level, V.long(call, T.PADDING))
    top, bottom, period_v = _edges(low_y, high_y, level, (height + size - 1) >> level, V.long(call, T.PADDING))
    pitch = (right - left + 3) // 4 * 4 + 4  # as ``table.pitch``
    pitch += 4 if pitch % 32 == 0 else 0
    V.put_whole(source, T.TEXTURED, textured)
    V.put_whole(source, T.INDEX, index)
    V.put_whole(source, T.LEVEL, level)
    V.put_whole(source, T.LEFT, left)
    V.put_whole(source, T.TOP, top)
    V.put_whole(source, T.WIDTH, right - left)
    V.put_whole(source, T.HEIGHT, bottom - top)
    V.put_whole(source, T.PITCH, pitch)
    V.put_whole(source, T.PLACE, place)
    V.put_real(source, T.PERIOD_U, period_u)
    V.put_real(source, T.PERIOD_V, period_v)
    for axis in range(2):
        V.put_whole(source, T.WEIGHTS_X + axis, V.long(V.long(call, T.PLACES), (textured * V.long(call, T.LEVELS) + level) * 2 + axis))
    return pitch * (bottom - top + 3) + 4


@compiled
def _pack_blend(call, row, clip):
    """A clip's partner, weight, box and frames."""
    V.put_whole(row, T.LAST, 0)
    V.put_whole(row, T.FIRST, 0)
    V.put_whole(row, T.PARTNER, clip)
    if V.long(call, T.BLEND_PARTNER) == 0:
        return
    partner, weight = V.long(V.long(call, T.BLEND_PARTNER), clip), V.real(V.long(call, T.BLEND_WEIGHT), clip)
    V.put_whole(row, T.PARTNER, partner)
    V.put_real(row, T.WEIGHT, weight)
    for k in range(4):  # the pixels whose centers lie in [x0, x1) and [y0, y1)
        edge, side = V.real(V.long(call, T.BLEND_BOX), 4 * clip + k), Double(V.long(call, T.H if k & 1 else T.W))
        V.put_whole(row, T.MIX_LEFT + k, Int(min(max(V.ceil(Double(edge)), 0.0), side)))
    frames, most = V.long(call, T.BLEND_FRAMES) + 16 * clip, V.long(call, T.NUM_FRAMES)
    first, last = V.long(frames, 0), V.long(frames, 1)
    if weight > 0 and partner != clip and first < last:
        V.put_whole(row, T.FIRST, min(max(first, 0), most))
        V.put_whole(row, T.LAST, min(max(last, 0), most))


@inlined
def _rows(call, clip, s) -> Int:
    """The first row of the frames of a back or layer."""
    return V.long(call, T.FRAMES) + (clip * (1 + V.long(call, T.NUM_LAYERS)) + s) * V.long(call, T.NUM_FRAMES) * (4 * T.FRAME)


@compiled
def _pack_frames(call, clip, s, scratch, at, recursive) -> Int:
    """The frames of the back (s = 0) or a layer, and what they read of every level, at ``scratch``. Returns whether any is seen."""
    w, h, t_most = V.long(call, T.W), V.long(call, T.H), V.long(call, T.NUM_FRAMES)
    layer = clip * V.long(call, T.NUM_LAYERS) + s - 1
    first = (layer if s else clip) * t_most  # of this surface's frames, in the plan
    homography = V.long(call, T.LAYER_HOMOGRAPHY if s else T.BACK_HOMOGRAPHY) + first * 36
    color = V.long(call, T.LAYER_COLOR if s else T.BACK_COLOR) + first * 48
    detail = V.long(call, T.LAYER_DETAIL if s else T.BACK_DETAIL) + first * 8
    grid = V.long(call, T.LAYER_GRID if s else T.BACK_GRID)
    bend = V.long(call, T.LAYER_BEND if s else T.BACK_BEND) + first * (8 * grid * grid)
    box, opacity = V.long(call, T.LAYER_BOX) + layer * 16, V.long(call, T.LAYER_OPACITY) + first * 4
    rows = _rows(call, clip, s)
    surface = V.long(call, T.SURFACES) + (clip * (1 + V.long(call, T.NUM_LAYERS)) + s) * (4 * T.SURFACE)
    for level in range(V.long(call, T.LEVELS)):
        for k in range(2):
            V.put_double(scratch, T.REACH * level + k, INFINITE)
            V.put_double(scratch, T.REACH * level + 2 + k, -INFINITE)
        V.put_double(scratch, T.REACH * level + 4, 0.0)
    seen, reach_x, reach_y = 0, 0.0, 0.0
    size = 2 * (grid + 6) * (grid + 6) + LANES  # as ``table.controls``
    for t in range(t_most):
        row, previous = rows + t * (4 * T.FRAME), recursive and t > 0
        share = V.double(detail, t)
        level = Int(share)
        flags = T.AFFINE * _pack_matrix(row, homography + t * 36, w, h) + T.COLORED * _pack_color(row, color + t * 48)
        x0, y0 = -0.5, -0.5
        x1, y1 = V.long(call, T.IMAGE_W) - 0.5, V.long(call, T.IMAGE_H) - 0.5
        if previous:
            x1, y1 = w - 0.5, h - 0.5
        spare_x, spare_y = x1 - (w - 0.5), y1 - (h - 0.5)
        shown = Float(1.0)
        if s:
            x0, y0, x1, y1 = V.real(box, 0), V.real(box, 1), V.real(box, 2), V.real(box, 3)
            shown = V.real(opacity, t)
        place = at + t * size
        far_x, far_y = _pack_bend(row, V.long(call, T.CONTROLS) + place * 4, place, bend + t * (8 * grid * grid), grid, x0, y0, x1, y1)
        if far_x > 0 or far_y > 0:
            flags += T.BENT
        elif flags & T.AFFINE and s == 0 and share == 0 and _copies(row, spare_x, spare_y):
            flags += T.COPY
        reach_x, reach_y = max(reach_x, far_x), max(reach_y, far_y)
        V.put_real(row, T.REACHED, Float(far_y))
        V.put_real(row, T.SHARE, Float(share - level))
        V.put_whole(row, T.FLAGS, flags)
        V.put_real(row, T.OPACITY, shown)
        V.put_whole(row, T.ROWS, 0)
        V.put_whole(row, T.ROWS + 1, h)
        if shown > 0 and not previous:
            seen = 1
            low_x, low_y, high_x, high_y = _seen(row, w, h)
            low_x, low_y, high_x, high_y = low_x - far_x, low_y - far_y, high_x + far_x, high_y + far_y
            if s:
                soft = 0.5 * V.real(V.long(call, T.LAYER_OUTLINE), layer * V.long(call, T.OUTLINE_NUMBERS) + outline.FEATHER) + 1
                low_x, low_y, high_x, high_y = max(low_x, x0 - soft), max(low_y, y0 - soft), min(high_x, x1 + soft), min(high_y, y1 + soft)
            for k in range(2 if share > level else 1):
                reached = scratch + (level + k) * (8 * T.REACH)
                V.put_double(reached, 0, min(V.double(reached, 0), low_x))
                V.put_double(reached, 1, min(V.double(reached, 1), low_y))
                V.put_double(reached, 2, max(V.double(reached, 2), high_x))
                V.put_double(reached, 3, max(V.double(reached, 3), high_y))
                V.put_double(reached, 4, 1.0)
    if s:
        _pack_surface(call, surface, layer, reach_x, reach_y)
        for t in range(t_most):
            row = rows + t * (4 * T.FRAME)
            top, bottom = _rows_seen(row, homography + t * 36, surface, w, h)
            V.put_whole(row, T.ROWS, top)
            V.put_whole(row, T.ROWS + 1, bottom if V.real(row, T.OPACITY) > 0 else top)
    return seen


@compiled
def _pack_reads(call, clip, s, scratch):
    """The sources that the frames of a back or layer read; ``scratch`` holds 1 + the source of every level."""
    layer, num_frames = clip * V.long(call, T.NUM_LAYERS) + s - 1, V.long(call, T.NUM_FRAMES)
    detail = V.long(call, T.LAYER_DETAIL if s else T.BACK_DETAIL) + (layer if s else clip) * num_frames * 8
    rows = _rows(call, clip, s)
    for t in range(num_frames):
        for k in range(2):
            level = min(Int(V.double(detail, t)) + k, V.long(call, T.LEVELS) - 1)
            V.put_whole(rows + t * (4 * T.FRAME), T.READS + k, max(0, Int(V.double(scratch, T.REACH * level + 4)) - 1))


@compiled
def pack(call) -> Int:
    """Write the rows of all clips, frames, surfaces, sources and control points. Returns the most pixels that one clip's sources take."""
    count, most, layers = 0, 0, V.long(call, T.NUM_LAYERS)
    scratch, levels, at = V.long(call, T.SCRATCH), V.long(call, T.LEVELS), 0
    for clip in range(V.long(call, T.BATCH)):
        row = V.long(call, T.CLIPS) + clip * (4 * T.CLIP)
        recursive = V.whole_byte(V.long(call, T.BACK_READS_PREVIOUS) + clip)
        pixels, layered = 0, 0
        V.put_whole(row, T.SOURCES, count)
        for s in range(1 + layers):
            seen = _pack_frames(call, clip, s, scratch, at, recursive if s == 0 else 0)
            grid = V.long(call, T.LAYER_GRID if s else T.BACK_GRID)
            if grid > 0:
                at += V.long(call, T.NUM_FRAMES) * (2 * (grid + 6) * (grid + 6) + LANES)
            layered = layered or (s > 0 and seen)
            shown = V.long(V.long(call, T.LAYER_TEXTURE), clip * layers + s - 1) if s else V.long(V.long(call, T.BACK_IMAGE), clip)
            textured = V.long(call, T.SEPARATE) if s else 0
            for level in range(levels):
                reached = scratch + level * (8 * T.REACH)
                if V.double(reached, 4) > 0:
                    source = V.long(call, T.SOURCE_ROWS) + count * (4 * T.SOURCE)
                    low_x, low_y, high_x, high_y = V.double(reached, 0), V.double(reached, 1), V.double(reached, 2), V.double(reached, 3)
                    pixels += _pack_source(call, source, textured, shown, level, pixels, low_x, low_y, high_x, high_y)
                    V.put_double(reached, 4, 1.0 + count)
                    count += 1
            _pack_reads(call, clip, s, scratch)
        V.put_whole(row, T.SOURCES + 1, count)
        V.put_whole(row, T.RECURSIVE, recursive)
        V.put_whole(row, T.LAYERED, layered)
        _pack_blend(call, row, clip)
        most = max(most, pixels)
    return most
