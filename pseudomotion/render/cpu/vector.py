"""Memory access and arithmetic on vectors of sixteen floats, for kernels.

A pixel of a working frame is four float32, its channels. A vector holds four neighboring pixels, or one number, such as a coordinate, of
sixteen. Addresses are plain integers.
"""

# mypy: ignore-errors
# LLVM's builders have no types, and compiled functions are not Python's.

from llvmlite import ir

from pseudomotion.render.cpu.compiler import (
    LANES,
    Byte,
    Double,
    Float,
    Floats,
    Half,
    Int,
    Word,
    Words,
    alike,
    convert,
    inlined,
    operation,
)

PIXEL = 16  # bytes
FOUR, SIX = tuple(range(4)), tuple(range(6))  # loops over a tuple are unrolled
ROUND = 12582912.0  # 1.5 * 2^23: a float32 below 2^22 loses its fraction when this is added, halves to even

# Memory ----------------------------------------------------------------------------------------------------------------------------------


def _pointer(b, address, kind):
    return b.inttoptr(address, kind.as_pointer())


def _element(b, row, index, kind):
    size = {Float: 4, Double: 8}.get(kind) or kind.width // 8
    return _pointer(b, b.add(row, b.mul(index, Int(size))), kind)


def _load(b, address, kind, align):
    return b.load(_pointer(b, address, kind), align=align)


@operation
def long(b, row: Int, index: Int):
    """Element ``index`` of a row of int64."""
    return b.load(_element(b, row, index, Int), align=8)


@operation
def whole(b, row: Int, index: Int):
    """Element ``index`` of a row of int32."""
    return b.sext(b.load(_element(b, row, index, Word), align=4), Int)


@operation
def real(b, row: Int, index: Int):
    """Element ``index`` of a row of float32."""
    return b.load(_element(b, row, index, Float), align=4)


@operation
def double(b, row: Int, index: Int):
    """Element ``index`` of a row of float64."""
    return b.load(_element(b, row, index, Double), align=8)


@operation
def whole_byte(b, address: Int):
    """A byte as an integer."""
    return b.zext(_load(b, address, Byte, 1), Int)


@operation
def byte(b, address: Int):
    """A byte as a float."""
    return b.uitofp(_load(b, address, Byte, 1), Float)


@operation
def put_real(b, row: Int, index: Int, value: Float):
    """Write element ``index`` of a row of float32."""
    b.store(value, _element(b, row, index, Float), align=4)


@operation
def put_double(b, row: Int, index: Int, value: Double):
    """Write element ``index`` of a row of float64."""
    b.store(value, _element(b, row, index, Double), align=8)


@operation
def put_whole(b, row: Int, index: Int, value: Int):
    """Write element ``index`` of a row of int32."""
    b.store(b.trunc(value, Word), _element(b, row, index, Word), align=4)


@operation
def copy_byte(b, target: Int, source: Int):
    """Copy a byte."""
    b.store(_load(b, source, Byte, 1), _pointer(b, target, Byte), align=1)


@operation
def load(b, address: Int):
    """Four pixels, or the numbers of sixteen."""
    return _load(b, address, Floats, 4)


@operation
def store(b, value: Floats, address: Int):
    """Write four pixels, or the numbers of sixteen."""
    b.store(value, _pointer(b, address, Floats), align=4)


@operation
def store_words(b, value: Words, address: Int):
    """Write sixteen int32."""
    b.store(value, _pointer(b, address, Words), align=4)


@operation
def load_bytes(b, address: Int):
    """Sixteen bytes as floats."""
    return b.uitofp(_load(b, address, ir.VectorType(Byte, LANES), 1), Floats)


@operation
def clear(b, address: Int):
    """Make a pixel black."""
    b.store(ir.Constant(ir.VectorType(Float, 4), [0.0] * 4), _pointer(b, address, ir.VectorType(Float, 4)), align=4)


def _load_few(b, address, count, lanes):
    few = _load(b, address, ir.VectorType(Float, count), 4)
    return _shuffle(b, few, few, lanes)


@operation
def load_repeated(b, address: Int):
    """Four floats, repeated: the same for each of four pixels."""
    return _load_few(b, address, 4, [*FOUR] * 4)


@operation
def load_spread(b, address: Int):
    """Four floats, each four times: one for each of four pixels."""
    return _load_few(b, address, 4, [k for k in FOUR for _ in FOUR])


@operation
def load_spread_to_pairs(b, address: Int):
    """Two floats, each eight times: one for each of two pairs of pixels."""
    return _load_few(b, address, 2, [0] * 8 + [1] * 8)


@operation
def load_pairs(b, first: Int, second: Int):
    """The two pixels at either address."""
    return _shuffle(b, *(_load(b, address, ir.VectorType(Float, 8), 4) for address in (first, second)), range(LANES))


@operation
def load_fours(b, *addresses):
    """The four floats at each of four addresses."""
    fours = [_load(b, address, ir.VectorType(Float, 4), 4) for address in addresses]
    return _shuffle(b, *(_shuffle(b, *two, range(8)) for two in (fours[:2], fours[2:])), range(LANES))


@operation
def add_shared(b, address: Int, amount: Int):
    """Atomic add with acquire-release ordering; returns the value before."""
    return b.atomic_rmw("add", _pointer(b, address, Int), amount, "acq_rel")


@operation
def get_shared(b, address: Int):
    """Atomic load with acquire ordering."""
    return b.load_atomic(_pointer(b, address, Int), "acquire", 8)


# Arithmetic ------------------------------------------------------------------------------------------------------------------------------


def _intrinsic(name, count):
    def emit(b, *values):
        values = alike(b, *values)
        kind = values[0].type
        full = f"llvm.{name}.v{kind.count}f32" if isinstance(kind, ir.VectorType) else f"llvm.{name}.f{32 if kind == Float else 64}"
        function = b.module.globals.get(full) or ir.Function(b.module, ir.FunctionType(kind, [kind] * count), full)
        return b.call(function, values)

    return operation(emit)


fma = _intrinsic("fmuladd", 3)  # x * y + z, one instruction where the processor has it
floor, ceil, fabs, sqrt = (_intrinsic(name, 1) for name in ("floor", "ceil", "fabs", "sqrt"))


def _shuffle(b, x, y, lanes):
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(Word, len(lanes)), [*lanes]))


@operation
def lane(b, pixels: Floats, k):
    """Channel k, a constant, of each of four pixels, four times."""
    return _shuffle(b, pixels, pixels, [j - j % 4 + k for j in range(LANES)])


@operation
def spread(b, numbers: Floats, k):
    """Of four times four numbers, the k-th four, each four times; k is a constant."""
    return _shuffle(b, numbers, numbers, [4 * k + j // 4 for j in range(LANES)])


@operation
def lefts(b, x: Floats, y: Floats):
    """The first pixel of each of four pairs."""
    return _shuffle(b, x, y, [j for j in range(2 * LANES) if j % 8 < 4])


@operation
def rights(b, x: Floats, y: Floats):
    """The second pixel of each of four pairs."""
    return _shuffle(b, x, y, [j for j in range(2 * LANES) if j % 8 >= 4])


@operation
def with_alpha(b, pixels: Floats, alpha: Floats):
    """Four pixels with another fourth channel."""
    return _shuffle(b, pixels, alpha, [j + LANES * (j % 4 == 3) for j in range(LANES)])


@operation
def following(b, numbers: Floats, k):
    """Each number replaced by the k-th after it, or before it where k, a constant, is negative; at the ends by the last or first."""
    return _shuffle(b, numbers, numbers, [min(max(j + k, 0), LANES - 1) for j in range(LANES)])


@operation
def first(b, vector: Floats):
    """The first number."""
    return b.extract_element(vector, Word(0))


@operation
def last(b, vector: Floats):
    """The last number."""
    return b.extract_element(vector, Word(LANES - 1))


@operation
def choose(b, test, yes: Floats, no: Floats):
    """Numbers of ``yes`` where a test of each holds, else of ``no``."""
    return b.select(test, yes, no)


@operation
def ramp(b):
    """0, 1, 2 and so on."""
    return ir.Constant(Floats, [float(k) for k in range(LANES)])


@operation
def ramp_of_pixels(b):
    """0, 1, 2, 3, each four times: one for each of four pixels."""
    return ir.Constant(Floats, [float(k // 4) for k in range(LANES)])


def _channel(b, c, pixels):
    """Channel c of sixteen pixels, four a vector."""
    halves = (_shuffle(b, *pixels[k : k + 2], range(c, 2 * LANES, 4)) for k in (0, 2))
    return _shuffle(b, *halves, range(LANES))


@operation
def split(b, *pixels):
    """The four channels of sixteen pixels, four a vector."""
    return tuple(_channel(b, c, pixels) for c in FOUR)


@operation
def join(b, *channels):
    """Sixteen pixels, four a vector, of their four channels."""
    made = []
    for half in (0, LANES // 2):
        mixed = [_shuffle(b, *channels[c : c + 2], [k for j in range(half, half + 8) for k in (j, j + LANES)]) for c in (0, 2)]
        made += [_shuffle(b, *mixed, [k for j in range(q, q + 8, 2) for k in (j, j + 1, j + LANES, j + LANES + 1)]) for q in (0, 8)]
    return tuple(made)


@inlined
def lerp(x: Floats, y: Floats, share: Floats) -> Floats:
    """Between x at share 0 and y at share 1."""
    return fma(share, y - x, x)


@inlined
def clamp(x: Floats, low: Floats, high: Floats) -> Floats:
    """Within limits; ``low`` where it is not a number."""
    return min(max(x, low), high)


# Output ----------------------------------------------------------------------------------------------------------------------------------


def _bits(b, value):
    return b.bitcast(value, Words)


def _words(value):
    return ir.Constant(Words, [value] * LANES)


def _to_byte(b, value):
    return _bits(b, b.fadd(value, convert(b, ROUND, Floats)))


def _to_bfloat16(b, value):
    """Upper halves of float32, rounded to nearest, halves to even."""
    bits = _bits(b, value)
    odd = b.and_(b.lshr(bits, _words(16)), _words(1))
    return b.lshr(b.add(bits, b.add(odd, _words(0x7FFF))), _words(16))


def _to_float16(b, value):
    """float16 rounded to nearest, halves to even, by integers alone: not every processor converts."""
    bits = _bits(b, value)
    sign = b.and_(bits, _words(-(2**31)))
    size = b.xor(bits, sign)
    odd = b.and_(b.lshr(size, _words(13)), _words(1))
    normal = b.lshr(b.add(size, b.add(odd, _words(0xFFF - (112 << 23)))), _words(13))
    # Below 2^-14: a float32 in [0.5, 1) has 2^-24 for its last place, so adding 0.5 rounds to multiples of that.
    small = b.sub(_bits(b, b.fadd(b.bitcast(size, Floats), convert(b, 0.5, Floats))), _words(126 << 23))
    chosen = b.select(b.icmp_signed("<", size, _words(113 << 23)), small, normal)
    chosen = b.select(b.icmp_signed(">=", size, _words(143 << 23)), _words(0x7C00), chosen)
    return b.or_(chosen, b.lshr(sign, _words(16)))


def _writer(cast, kind, streamed=False):
    def emit(b, address: Int, c, *pixels):
        """Write channel c, a constant, of sixteen pixels."""
        cast_pixels = [cast(b, four) if kind is Float else b.trunc(cast(b, four), ir.VectorType(kind, LANES)) for four in pixels]
        value = _channel(b, c, cast_pixels)
        stored = b.store(value, _pointer(b, address, value.type), align=64 if streamed else 4 if kind is Float else kind.width // 8)
        if streamed:
            stored.set_metadata("nontemporal", b.module.add_metadata([Word(1)]))

    return operation(emit)


write_bytes, write_float16, write_bfloat16 = _writer(_to_byte, Byte), _writer(_to_float16, Half), _writer(_to_bfloat16, Half)
write_floats = _writer(lambda b, value: value, Float)
stream_floats = _writer(lambda b, value: value, Float, streamed=True)  # sixteen fill a cache line
