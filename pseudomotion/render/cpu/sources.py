"""Images and textures, and their pyramid levels, as working frames of float32.

A working frame has a black pixel on its left and above, and two on its right and below, so that samples outside need no test: coordinates
are clamped into that border. Rows are padded further, because pixels are written four at a time.
"""

# mypy: ignore-errors
# LLVM compiles these functions; their annotations are its types.

from pseudomotion.render.cpu import table as T
from pseudomotion.render.cpu import vector as V
from pseudomotion.render.cpu.compiler import LANES, Float, Floats, compiled, inlined
from pseudomotion.render.cpu.vector import PIXEL


@compiled
def clear_border(frame, pitch, width, height):
    """Clear the border of a working frame, except at the right end of its rows (see ``close_row``)."""
    for x in range(width + 3):
        V.clear(frame + x * PIXEL)
        V.clear(frame + ((height + 1) * pitch + x) * PIXEL)
        V.clear(frame + ((height + 2) * pitch + x) * PIXEL)
    for y in range(height):
        V.clear(frame + (y + 1) * pitch * PIXEL)


@compiled
def close_row(row, width):
    """Clear the border at the right end of a row of a working frame; ``row`` is its first pixel."""
    V.clear(row + width * PIXEL)
    V.clear(row + (width + 1) * PIXEL)


@inlined
def _unit(place) -> Floats:
    """Bytes as numbers in [0, 1]."""
    return V.load_bytes(place) / 255


@inlined
def _interleave(target, red: Floats, green: Floats, blue: Floats, alpha: Floats):
    """Sixteen pixels of a working frame from four planes."""
    pixels = V.join(red, green, blue, alpha)
    for k in V.FOUR:
        V.store(pixels[k], target + 4 * k * PIXEL)


@compiled
def _read_row(target, place, width, plane, channels, item):
    """Copy a row of an image into a working frame; missing channels repeat the last one."""
    second = plane if channels > 1 else 0
    third, fourth = 2 * second, (3 if channels == 4 else 2) * second
    full = width // LANES * LANES
    for x in range(0, full, LANES):
        if item == 1:
            _interleave(
                target + x * PIXEL, _unit(place + x), _unit(place + x + second), _unit(place + x + third), _unit(place + x + fourth)
            )
        else:
            at = place + 4 * x
            red, green, blue, alpha = V.load(at), V.load(at + second), V.load(at + third), V.load(at + fourth)
            _interleave(target + x * PIXEL, red, green, blue, alpha)
    for x in range(full, width):
        for c in range(4):
            at = place + x * item + (0 if c == 0 else second if c == 1 else third if c == 2 else fourth)
            value = V.byte(at) / 255 if item == 1 else V.real(at, 0)
            V.put_real(target + x * PIXEL, c, value)


@compiled
def _premultiply_row(row, width):
    """Colors times alpha, in a row of a working frame; ``row`` is its first pixel."""
    for x in range(0, width, 4):
        pixels = V.load(row + x * PIXEL)
        alpha = V.lane(pixels, 3)
        V.store(V.with_alpha(pixels * alpha, alpha), row + x * PIXEL)


@inlined
def _average_row(target, image, source, y, full_width, full_height, plane, channels, item, weights, sums, cut):
    """Row y of a reduced image: weighted averages over blocks of pixels; ``sums`` is memory for one row of the image.

    Whether colors are to be multiplied by alpha, ``cut``, is a constant.
    """
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
                if cut:
                    alpha = V.byte(place + (3 - c) * plane + x) * unit if item == 1 else V.real(place + (3 - c) * plane, x)
                    value *= alpha if c < 3 else Float(1.0)
                V.put_real(sums, x, V.real(sums, x) + weight * value)
        for x in range(width):
            total = Float(0.0)
            for k in range(x * size, min((x + 1) * size, last - first)):
                total += V.real(across, first + k) * V.real(sums, k)
            for k in range(c, 4):
                V.put_real(target + x * PIXEL, k, total)


@compiled
def _reduce_row(target, image, source, y, full_width, full_height, plane, channels, item, weights, sums):
    _average_row(target, image, source, y, full_width, full_height, plane, channels, item, weights, sums, 0)


@compiled
def _reduce_cut_row(target, image, source, y, full_width, full_height, plane, channels, item, weights, sums):
    _average_row(target, image, source, y, full_width, full_height, plane, channels, item, weights, sums, 1)


@compiled
def prepare(call, first, last, base, part, parts, sums):
    """Write part of the rows of some sources into working frames."""
    item = V.long(call, T.ITEM)
    for s in range(first, last):
        source = V.long(call, T.SOURCE_ROWS) + s * (4 * T.SOURCE)
        textured = V.whole(source, T.TEXTURED)
        cut = V.long(call, T.ALPHA) * textured
        channels = V.long(call, T.CHANNELS) + cut
        image, full_width, full_height = V.long(call, T.IMAGES), V.long(call, T.IMAGE_W), V.long(call, T.IMAGE_H)
        if textured:
            image, full_width, full_height = V.long(call, T.TEXTURES), V.long(call, T.TEXTURE_W), V.long(call, T.TEXTURE_H)
        plane = full_width * full_height * item
        image += V.whole(source, T.INDEX) * channels * plane
        width, height, pitch = V.whole(source, T.WIDTH), V.whole(source, T.HEIGHT), V.whole(source, T.PITCH)
        frame = base + V.whole(source, T.PLACE) * PIXEL
        if part == 0:
            clear_border(frame, pitch, width, height)
        for y in range(height * part // parts, height * (part + 1) // parts):
            row, at = frame + ((y + 1) * pitch + 1) * PIXEL, V.whole(source, T.TOP) + y
            if V.whole(source, T.LEVEL) == 0:
                _read_row(row, image + (at * full_width + V.whole(source, T.LEFT)) * item, width, plane, channels, item)
                if cut:
                    _premultiply_row(row, width)
            elif cut:
                _reduce_cut_row(row, image, source, at, full_width, full_height, plane, channels, item, V.long(call, T.WEIGHTS), sums)
            else:
                _reduce_row(row, image, source, at, full_width, full_height, plane, channels, item, V.long(call, T.WEIGHTS), sums)
            close_row(row, width)
