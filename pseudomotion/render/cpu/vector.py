"""Operations on four floats at once, written in LLVM's own language; numba compiles them for the processor at hand.

A pixel of a working frame is four float32, its channels, in 16 aligned bytes: one load fetches it. Coordinates are computed for four
neighboring pixels at once. Numba does not turn four scalar channels into one vector by itself, hence these. Addresses are plain integers.
``llvm.fmuladd`` is one fused instruction where the processor has it.
"""

# mypy: ignore-errors
# Annotations are numba's types, and the functions build code instead of computing.

import inspect

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pseudomotion.geometry import HORIZON

Address, Int, Float = types.int64, types.int64, types.float32

BYTE, HALF, WORD, LONG, FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
FLOATS, WORDS, LONGS = (ir.VectorType(kind, 4) for kind in (FLOAT, WORD, LONG))
PIXEL = 16  # bytes
ROUND = 12582912.0  # 1.5 * 2^23: a float32 below 2^22 loses its fraction when this is added, halves to even


def operation(build):
    """Make a function of compiled code from one that emits its instructions; its annotations are the types of its arguments."""
    signature = inspect.signature(build)
    _, *operands = signature.parameters.values()
    result = types.void if signature.return_annotation is signature.empty else signature.return_annotation

    def define(context, *given):
        def emit(context, builder, signature, args):
            value = build(builder, *args)
            return context.get_dummy_value() if value is None else value

        return result(*(operand.annotation for operand in operands)), emit

    define.__name__, define.__doc__, define.__signature__ = build.__name__, build.__doc__, signature
    return intrinsic(define)


def _constant(value, kind=FLOATS):
    return ir.Constant(kind, [value] * 4)


def _splat(b, value):
    """A scalar four times."""
    kind = ir.VectorType(value.type, 4)
    return _lane(b, b.insert_element(ir.Constant(kind, ir.Undefined), value, WORD(0)), 0)


def _lane(b, vector, k):
    """One of the four numbers of a vector, four times."""
    return b.shuffle_vector(vector, vector, _constant(k, WORDS))


def _call(b, name, *args):
    return b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(FLOATS, [FLOATS] * len(args)), f"llvm.{name}.v4f32"), args)


def _fma(b, x, y, z):
    return _call(b, "fmuladd", x, y, z)


def _lerp(b, x, y, share):
    return _fma(b, share, b.fsub(y, x), x)


def _min(b, x, y):
    return b.select(b.fcmp_ordered("<", x, y), x, y)


def _max(b, x, y):
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def _clamp(b, x, low, high):
    return _min(b, _max(b, x, low), high)


def _pointer(b, address, kind, offset=0):
    return b.inttoptr(b.add(address, LONG(offset)), kind.as_pointer())


def _load(b, address, kind=FLOATS, offset=0, align=PIXEL):
    return b.load(_pointer(b, address, kind, offset), align=align)


def _store(b, value, address, offset=0, align=PIXEL):
    b.store(value, _pointer(b, address, value.type, offset), align=align)


def _transpose(b, rows):
    """Four vectors of four, rows turned to columns."""
    pick = lambda x, y, lanes: b.shuffle_vector(x, y, ir.Constant(WORDS, lanes))  # noqa: E731
    low = [pick(rows[k], rows[k + 1], [0, 4, 1, 5]) for k in (0, 2)]
    high = [pick(rows[k], rows[k + 1], [2, 6, 3, 7]) for k in (0, 2)]
    return [pick(*half, lanes) for half in (low, high) for lanes in ([0, 1, 4, 5], [2, 3, 6, 7])]


# Scalars in memory -----------------------------------------------------------------------------------------------------------------------


def _word(b, row, index, size):
    return b.add(row, b.mul(index, LONG(size)))


@operation
def long(b, row: Address, index: Int) -> Int:
    """A number of 64 bits."""
    return _load(b, _word(b, row, index, 8), LONG, align=8)


@operation
def whole(b, row: Address, index: Int) -> Int:
    """A number of 32 bits."""
    return b.sext(_load(b, _word(b, row, index, 4), WORD, align=4), LONG)


@operation
def real(b, row: Address, index: Int) -> Float:
    """A float32."""
    return _load(b, _word(b, row, index, 4), FLOAT, align=4)


@operation
def byte(b, address: Address) -> Float:
    """A byte."""
    return b.uitofp(_load(b, address, BYTE, align=1), FLOAT)


@operation
def put_real(b, row: Address, index: Int, value: Float):
    """Write a float32."""
    _store(b, value, _word(b, row, index, 4), align=4)


@operation
def copy_byte(b, target: Address, source: Address):
    """Copy a byte."""
    _store(b, _load(b, source, BYTE, align=1), target, align=1)


# Numbers that threads share --------------------------------------------------------------------------------------------------------------


@operation
def add_shared(b, address: Address, amount: Int) -> Int:
    """Add to a number that other threads add to as well; its value before. What was written earlier is visible to who reads it later."""
    return b.atomic_rmw("add", _pointer(b, address, LONG), amount, "acq_rel")


@operation
def get_shared(b, address: Address) -> Int:
    """A number that other threads change; what they wrote before they did so can be read now."""
    return b.load_atomic(_pointer(b, address, LONG), "acquire", 8)


# Single pixels ---------------------------------------------------------------------------------------------------------------------------


@operation
def clear_pixel(b, target: Address):
    """Make a pixel black."""
    _store(b, _constant(0.0), target)


@operation
def copy_pixel(b, target: Address, source: Address):
    """Copy a pixel."""
    _store(b, _load(b, source), target)


@operation
def mix_pixel(b, target: Address, own: Address, other: Address, share: Float):
    """Write a pixel between two others: ``own`` at share 0, ``other`` at share 1."""
    _store(b, _lerp(b, _load(b, own), _load(b, other), _splat(b, share)), target)


@operation
def recolor_pixel(b, pixel: Address, color: Address):
    """Change a pixel by a color map, whose four columns lie in memory as four pixels, and clamp it to [0, 1]."""
    value, columns = _load(b, pixel), [_load(b, color, offset=PIXEL * k, align=4) for k in range(4)]
    mapped = columns[3]
    for k in range(3):
        mapped = _fma(b, columns[k], _lane(b, value, k), mapped)
    _store(b, _clamp(b, mapped, _constant(0.0), _constant(1.0)), pixel)


# Four neighboring pixels -----------------------------------------------------------------------------------------------------------------


def _line(b, x, slope, start):
    """Slope * x + start at four neighboring pixels, of which the first is x."""
    xs = b.fadd(_splat(b, x), ir.Constant(FLOATS, [0.0, 1.0, 2.0, 3.0]))
    return _fma(b, xs, _splat(b, slope), _splat(b, start))


def _fold(b, at, period):
    """Coordinates brought onto an axis that is repeated back and forth, a period being there and back."""
    period = _splat(b, period)
    at = _call(b, "fabs", at)
    at = b.fsub(at, b.fmul(_call(b, "floor", b.fdiv(at, period)), period))
    return _min(b, at, b.fsub(period, at))


def _place(b, spots, pitch, u, v, low, high_u, high_v):
    """Write where in a working frame four points lie, clamped into it: the pixel above and left of each, and how far each lies beyond."""
    low = _splat(b, low)
    u, v = _clamp(b, u, low, _splat(b, high_u)), _clamp(b, v, low, _splat(b, high_v))
    left, top = b.fptosi(u, WORDS), b.fptosi(v, WORDS)
    _store(b, b.add(b.mul(top, _splat(b, b.trunc(pitch, WORD))), left), spots)
    _store(b, b.fsub(u, b.sitofp(left, FLOATS)), spots, 16)
    _store(b, b.fsub(v, b.sitofp(top, FLOATS)), spots, 32)


@operation
def locate(b, spots: Address, pitch: Int, x: Float, a: Float, c: Float, d: Float, f: Float, low: Float, high_u: Float, high_v: Float):
    """Where four pixels read under an affine map, u = a x + c, v = d x + f, kept within low <= u <= high_u and low <= v <= high_v."""
    _place(b, spots, pitch, _line(b, x, a, c), _line(b, x, d, f), low, high_u, high_v)


def _project(b, x, a, c, d, f, g, h):
    depth = _max(b, _line(b, x, g, h), _constant(HORIZON))
    return b.fdiv(_line(b, x, a, c), depth), b.fdiv(_line(b, x, d, f), depth)


def _locator(folded):
    @operation
    def locate_any(
        b,
        spots: Address,
        pitch: Int,
        x: Float,
        a: Float,
        c: Float,
        d: Float,
        f: Float,
        g: Float,
        h: Float,
        scale: Float,
        shift: Float,
        period_u: Float,
        period_v: Float,
        add_u: Float,
        add_v: Float,
        low: Float,
        high_u: Float,
        high_v: Float,
    ):
        """Where four pixels read under a homography whose result is scaled, folded and shifted into a working frame."""
        u, v = (_fma(b, at, _splat(b, scale), _splat(b, shift)) for at in _project(b, x, a, c, d, f, g, h))
        if folded:
            u, v = _fold(b, u, period_u), _fold(b, v, period_v)
        _place(b, spots, pitch, b.fadd(u, _splat(b, add_u)), b.fadd(v, _splat(b, add_v)), low, high_u, high_v)

    return locate_any


locate_projective, locate_folded = _locator(False), _locator(True)


@operation
def gather(b, target: Address, spots: Address, source: Address, pitch: Int):
    """Bilinear samples of a working frame at four places."""
    across, down = _load(b, spots, offset=16), _load(b, spots, offset=32)
    below = b.mul(pitch, LONG(PIXEL))
    for k in range(4):
        first = b.add(source, b.mul(b.sext(_load(b, spots, WORD, 4 * k, 4), LONG), LONG(PIXEL)))
        second = b.add(first, below)
        x, y = _lane(b, across, k), _lane(b, down, k)
        upper, lower = (_lerp(b, _load(b, row), _load(b, row, offset=PIXEL), x) for row in (first, second))
        _store(b, _lerp(b, upper, lower, y), target, PIXEL * k)


@operation
def cover(
    b,
    target: Address,
    top: Address,
    x: Float,
    a: Float,
    c: Float,
    d: Float,
    f: Float,
    g: Float,
    h: Float,
    x0: Float,
    y0: Float,
    x1: Float,
    y1: Float,
    sharpness: Float,
    opacity: Float,
):
    """Paint four pixels of a layer over those below, where its box covers them, with an edge 1 / sharpness wide."""
    half, zero, one, sharp = _constant(0.5), _constant(0.0), _constant(1.0), _splat(b, sharpness)
    alpha = _splat(b, opacity)
    for at, low, high in zip(_project(b, x, a, c, d, f, g, h), (x0, y0), (x1, y1), strict=True):
        inside = _min(b, b.fsub(at, _splat(b, low)), b.fsub(_splat(b, high), at))
        alpha = b.fmul(alpha, _clamp(b, _fma(b, inside, sharp, half), zero, one))
    for k in range(4):
        below = _load(b, target, offset=PIXEL * k)
        _store(b, _lerp(b, below, _load(b, top, offset=PIXEL * k), _lane(b, alpha, k)), target, PIXEL * k)


def _reader(kind):
    def load(b, address):
        value = _load(b, address, ir.VectorType(kind, 4), align=1 if kind is BYTE else 4)
        return b.fdiv(b.uitofp(value, FLOATS), _constant(255.0)) if kind is BYTE else value

    @operation
    def read(b, target: Address, source: Address, second: Int, third: Int, fourth: Int):
        """Four pixels of a planar image into a working frame, in [0, 1]; the other planes lie so many bytes behind the first."""
        planes = [load(b, source), *(load(b, b.add(source, plane)) for plane in (second, third, fourth))]
        for k, pixel in enumerate(_transpose(b, planes)):
            _store(b, pixel, target, PIXEL * k)

    return read


read_bytes, read_floats = _reader(BYTE), _reader(FLOAT)


def _to_bfloat16(b, value):
    """Upper halves of float32, rounded to nearest, halves to even."""
    bits = b.bitcast(value, WORDS)
    odd = b.and_(b.lshr(bits, _constant(16, WORDS)), _constant(1, WORDS))
    return b.lshr(b.add(bits, b.add(odd, _constant(0x7FFF, WORDS))), _constant(16, WORDS))


def _to_float16(b, value):
    """float16 rounded to nearest, halves to even, by integers alone: not every processor converts."""
    bits = b.bitcast(value, WORDS)
    sign = b.and_(bits, _constant(-(2**31), WORDS))
    size = b.xor(bits, sign)
    odd = b.and_(b.lshr(size, _constant(13, WORDS)), _constant(1, WORDS))
    normal = b.lshr(b.add(size, b.add(odd, _constant(0xFFF - (112 << 23), WORDS))), _constant(13, WORDS))
    # Below 2^-14: a float32 in [0.5, 1) has 2^-24 for its last place, so adding 0.5 rounds to multiples of that.
    small = b.sub(b.bitcast(b.fadd(b.bitcast(size, FLOATS), _constant(0.5)), WORDS), _constant(126 << 23, WORDS))
    chosen = b.select(b.icmp_signed("<", size, _constant(113 << 23, WORDS)), small, normal)
    chosen = b.select(b.icmp_signed(">=", size, _constant(143 << 23, WORDS)), _constant(0x7C00, WORDS), chosen)
    return b.or_(chosen, b.lshr(sign, _constant(16, WORDS)))


def _to_byte(b, value):
    return b.bitcast(b.fadd(value, _constant(ROUND)), WORDS)


def _writer(convert, kind):
    @operation
    def write(b, target: Address, source: Address, plane: Int, channels: Int, finish: Address):
        """Four pixels of a working frame to their places in planes ``plane`` bytes apart: scaled, shifted, cast."""
        planes = _transpose(b, [_load(b, source, offset=PIXEL * k) for k in range(4)])

        def put(c):
            scale, shift = (_splat(b, _load(b, finish, FLOAT, offset=4 * (c + k), align=4)) for k in (0, 4))
            value = convert(b, _fma(b, planes[c], scale, shift))
            value = value if kind is FLOAT else b.trunc(value, ir.VectorType(kind, 4))
            _store(b, value, b.add(target, b.mul(plane, LONG(c))), align=kind.width // 8 if kind is not FLOAT else 4)

        put(0)
        with b.if_then(b.icmp_signed(">", channels, LONG(1)), likely=True):
            put(1)
            put(2)
            with b.if_then(b.icmp_signed("==", channels, LONG(4)), likely=False):
                put(3)

    return write


write_bytes = _writer(_to_byte, BYTE)
write_float16 = _writer(_to_float16, HALF)
write_bfloat16 = _writer(_to_bfloat16, HALF)
write_floats = _writer(lambda b, value: value, FLOAT)
