"""Rows of pixels on a CPU: sampled from working frames, recolored, mixed, painted over each other."""

# mypy: ignore-errors
# LLVM compiles these functions; their annotations are its types.

from pseudomotion.render.cpu import table as T
from pseudomotion.render.cpu import vector as V
from pseudomotion.render.cpu.compiler import Float, Floats, Int, apart, compiled, inlined
from pseudomotion.render.cpu.locate import PLACE, along_row, locate
from pseudomotion.render.cpu.vector import PIXEL
from pseudomotion.render.reference import TRANSPARENT


@inlined
def _bilinear(spots, plane, frame, pitch) -> Floats:
    """Samples of a working frame at four points that ``locate`` has noted, each between four pixels."""
    across, down = spots + plane, spots + 2 * plane
    lower, mixed = frame + pitch * PIXEL, ()
    for k in (0, 2):
        one, two = V.whole(spots, k) * PLACE, V.whole(spots, k + 1) * PLACE
        rows = V.load_pairs(frame + one, frame + two), V.load_pairs(lower + one, lower + two)
        mixed = (*mixed, V.lerp(*rows, V.load_spread_to_pairs(down + 4 * k)))
    return V.lerp(V.lefts(*mixed), V.rights(*mixed), V.load_spread(across))


@apart
def gather(target, count, spots, plane, frame, pitch):
    """Bilinear samples of a working frame at points that ``locate`` has noted.

    Apart from that, for the processor works ahead: it loads pixels while the coordinates of the next are not waited for.
    """
    for x in range(0, count, 4):
        V.store(_bilinear(spots + 4 * x, plane, frame, pitch), target + x * PIXEL)


@apart
def gather_twice(target, again, count, spots, plane, frame, pitch):
    """As ``gather``, to two places: nearly as fast as to one, for loads take most of the time."""
    for x in range(0, count, 4):
        pixels = _bilinear(spots + 4 * x, plane, frame, pitch)
        V.store(pixels, target + x * PIXEL)
        V.store(pixels, again + x * PIXEL)


@apart
def gather_over(target, count, spots, plane, frame, pitch):
    """As ``gather``, painted over what is there as much as is covered."""
    for x in range(0, count, 4):
        covered, place = V.load_spread(spots + 3 * plane + 4 * x), target + x * PIXEL
        V.store(V.lerp(V.load(place), _bilinear(spots + 4 * x, plane, frame, pitch), covered), place)


@inlined
def copy_row(target, source, width):
    """Copy a row of pixels."""
    for x in range(0, width, 4):
        V.store(V.load(source + x * PIXEL), target + x * PIXEL)


@compiled
def _copy(call, target, x0, x1, y, m, source, frame):
    """Pixels x0 to x1 of row y of a frame that shows what is read pixel by pixel."""
    row, column = Int(along_row(m, 1, y)) + 1 - V.whole(source, T.TOP), Int(along_row(m, 0, y)) + 1 - V.whole(source, T.LEFT)
    place = frame + (row * V.whole(source, T.PITCH) + column + x0) * PIXEL
    copy_row(target, place, x1 - x0)


@inlined
def sample_row(call, target, x0, x1, y, m, source, frame, spots, scratch):
    """Pixels x0 to x1 of row y of a back, sampled from a working frame."""
    if V.whole(m, T.FLAGS) & T.COPY:
        _copy(call, target, x0, x1, y, m, source, frame)
    else:
        locate(call, x0, x1, y, m, source, spots, scratch)
        gather(target, x1 - x0, spots, V.long(call, T.ROW_BYTES) // 4, frame, V.whole(source, T.PITCH))


@inlined
def recolor_row(target, width, m, cut):
    """Apply a color map, whose four columns lie in the table as four pixels, and clamp to [0, 1].

    Whether colors are multiplied by alpha, the fourth channel, is a constant: ``cut``.
    """
    color = m + 4 * T.COLOR
    red, green, blue, add = (
        V.load_repeated(color),
        V.load_repeated(color + PIXEL),
        V.load_repeated(color + 2 * PIXEL),
        V.load_repeated(color + 3 * PIXEL),
    )
    for x in range(0, width, 4):
        pixel = V.load(target + x * PIXEL)
        alpha = V.lane(pixel, 3)
        if cut:
            pixel = pixel / max(alpha, TRANSPARENT)
        mapped = V.fma(blue, V.lane(pixel, 2), V.fma(green, V.lane(pixel, 1), V.fma(red, V.lane(pixel, 0), add)))
        mapped = V.clamp(mapped, 0.0, 1.0)
        V.store(V.with_alpha(mapped * alpha, alpha) if cut else mapped, target + x * PIXEL)


@inlined
def mix_row(target, other, count, share: Float):
    for x in range(0, count, 4):
        V.store(V.lerp(V.load(target + x * PIXEL), V.load(other + x * PIXEL), share), target + x * PIXEL)


@compiled
def paint_cut(target, count, covered, layer):
    """Paint pixels, whose colors are multiplied by their fourth channel, alpha, over those at ``target``, as much as is covered."""
    for x in range(0, count, 4):
        place, above = target + x * PIXEL, V.load(layer + x * PIXEL)
        below = V.load(place)
        V.store(V.fma(above - below * V.lane(above, 3), V.load_spread(covered + 4 * x), below), place)
