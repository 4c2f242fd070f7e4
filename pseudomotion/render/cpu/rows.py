"""Rows of pixels on a CPU: sampled from working frames, recolored, mixed, painted over each other."""

# mypy: ignore-errors
# LLVM compiles these functions; their annotations are its types.

from pseudomotion.render.cpu import table as T
from pseudomotion.render.cpu import vector as V
from pseudomotion.render.cpu.compiler import Float, Floats, Int, compiled, inlined
from pseudomotion.render.cpu.locate import ACROSS, COVERED, DOWN, SPOT, along_row, locate
from pseudomotion.render.cpu.vector import PIXEL
from pseudomotion.render.reference import TRANSPARENT


@inlined
def _bilinear(upper, pitch, x: Floats, y: Floats) -> Floats:
    """The sample between four pixels, the first of which is at ``upper``."""
    lower = upper + pitch * PIXEL
    return V.lerp(V.lerp(V.load(upper), V.load(lower), y), V.lerp(V.load(upper + PIXEL), V.load(lower + PIXEL), y), x)


@inlined
def _gather_points(target, again, count, spots, frame, pitch, twice):
    """As ``gather`` and ``gather_twice``; ``twice`` is a constant."""
    for _ in range(0, count, 4):
        across, down = V.load(spots + ACROSS), V.load(spots + DOWN)
        for k in V.FOUR:
            upper = frame + V.whole(spots, k) * PIXEL
            pixel = _bilinear(upper, pitch, V.lane(across, k), V.lane(down, k))
            V.store(pixel, target + PIXEL * k)
            if twice:
                V.store(pixel, again + PIXEL * k)
        spots += 4 * SPOT
        target += 4 * PIXEL
        if twice:
            again += 4 * PIXEL


@compiled
def gather(target, count, spots, frame, pitch):
    """Bilinear samples of a working frame at points that ``_locate`` has noted.

    Apart from that, for the processor works ahead: it loads pixels while the coordinates of the next are not waited for.
    """
    _gather_points(target, 0, count, spots, frame, pitch, 0)


@compiled
def gather_twice(target, again, count, spots, frame, pitch):
    """As ``gather``, to two places: nearly as fast as to one, for loads take most of the time."""
    _gather_points(target, again, count, spots, frame, pitch, 1)


@compiled
def gather_over(target, count, spots, frame, pitch):
    """As ``gather``, painted over what is there as much as is covered."""
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
    row, column = Int(along_row(m, 1, y)) + 1 - V.whole(source, T.TOP), Int(along_row(m, 0, y)) + 1 - V.whole(source, T.LEFT)
    place = frame + (row * V.whole(source, T.PITCH) + column + x0) * PIXEL
    for x in range(x1 - x0):
        V.store(V.load(place + x * PIXEL), target + x * PIXEL)


@inlined
def sample_row(call, target, x0, x1, y, m, source, frame, spots, scratch):
    """Pixels x0 to x1 of row y of a back, sampled from a working frame."""
    if V.whole(m, T.FLAGS) & T.COPY:
        _copy(call, target, x0, x1, y, m, source, frame)
    else:
        locate(call, x0, x1, y, m, source, 0, spots, scratch)
        gather(target, x1 - x0, spots, frame, V.whole(source, T.PITCH))


@inlined
def recolor_row(target, width, m, cut):
    """Apply a color map, whose four columns lie in the table as four pixels, and clamp to [0, 1].

    Whether colors are multiplied by alpha, the fourth channel, is a constant: ``cut``.
    """
    color = m + 4 * T.COLOR
    red, green, blue, add = (
        V.load_floats(color),
        V.load_floats(color + PIXEL),
        V.load_floats(color + 2 * PIXEL),
        V.load_floats(color + 3 * PIXEL),
    )
    for x in range(width):
        pixel = V.load(target + x * PIXEL)
        alpha = V.lane(pixel, 3)
        if cut:
            pixel = pixel / max(alpha, TRANSPARENT)
        mapped = V.fma(blue, V.lane(pixel, 2), V.fma(green, V.lane(pixel, 1), V.fma(red, V.lane(pixel, 0), add)))
        mapped = V.clamp(mapped, 0.0, 1.0)
        V.store(mapped * alpha if cut else mapped, target + x * PIXEL)
        if cut:
            V.put_real(target + x * PIXEL, 3, V.first(alpha))


@inlined
def mix_row(target, other, count, share: Float):
    for x in range(count):
        V.store(V.lerp(V.load(target + x * PIXEL), V.load(other + x * PIXEL), share), target + x * PIXEL)


@compiled
def paint_cut(target, count, spots, layer):
    """Paint pixels, whose colors are multiplied by their fourth channel, alpha, over those at ``target``, as much as is covered."""
    for x in range(0, count, 4):
        covered = V.load(spots + x * SPOT + COVERED)
        for k in V.FOUR:
            place, above = target + (x + k) * PIXEL, V.load(layer + (x + k) * PIXEL)
            below = V.load(place)
            V.store(V.fma(above - below * V.lane(above, 3), V.lane(covered, k), below), place)
