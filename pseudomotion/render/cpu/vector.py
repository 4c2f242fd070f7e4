"""Memory access and arithmetic on vectors of four floats, for kernels.

A pixel of a working frame is four float32, its channels, in 16 aligned bytes. Coordinates are computed for four neighboring pixels at once.
Addresses are plain integers.
"""

# mypy: ignore-errors
# LLVM's builders have no types, and compiled functions are not Python's.

from llvmlite import ir

from pseudomotion.render.cpu.compiler import (
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
    """A pixel, or the numbers of four."""
    return _load(b, address, Floats, PIXEL)


@operation
def store(b, value: Floats, address: Int):
    """Write a pixel, or the numbers of four."""
    b.store(value, _pointer(b, address, Floats), align=PIXEL)


@operation
def store_floats(b, value: Floats, address: Int):
    """Write four floats that need not be aligned as pixels are."""
    b.store(value, _pointer(b, address, Floats), align=4)


@operation
def store_words(b, value: Words, address: Int):
    """Write four int32."""
    b.store(value, _pointer(b, address, Words), align=PIXEL)


@operation
def load_bytes(b, address: Int):
    """Four bytes as floats."""
    return b.uitofp(_load(b, address, ir.VectorType(Byte, 4), 1), Floats)


@operation
def load_floats(b, address: Int):
    """Four floats that need not be aligned as pixels are."""
    return _load(b, address, Floats, 4)


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
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(Word, len(lanes)), lanes))


@operation
def lane(b, vector: Floats, k):
    """One of four numbers, four times; k is a constant."""
    return _shuffle(b, vector, vector, [k] * 4)


@operation
def first(b, vector: Floats):
    """The first of four numbers."""
    return b.extract_element(vector, Word(0))


@operation
def last(b, vector: Floats):
    """The last of four numbers."""
    return b.extract_element(vector, Word(3))


@operation
def choose(b, test, yes: Floats, no: Floats):
    """Numbers of ``yes`` where a test of four holds, else of ``no``."""
    return b.select(test, yes, no)


@operation
def any(b, vector: Floats):
    """Whether some number is above zero."""
    above = b.fcmp_ordered(">", vector, ir.Constant(Floats, [0.0] * 4))
    return b.icmp_signed("!=", b.bitcast(above, ir.IntType(4)), ir.IntType(4)(0))


@operation
def ramp(b):
    """0, 1, 2, 3."""
    return ir.Constant(Floats, [0.0, 1.0, 2.0, 3.0])


@operation
def transpose(b, *rows):
    """Four vectors of four, rows turned to columns."""
    low = [_shuffle(b, rows[k], rows[k + 1], [0, 4, 1, 5]) for k in (0, 2)]
    high = [_shuffle(b, rows[k], rows[k + 1], [2, 6, 3, 7]) for k in (0, 2)]
    return tuple(_shuffle(b, *half, lanes) for half in (low, high) for lanes in ([0, 1, 4, 5], [2, 3, 6, 7]))


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
    return ir.Constant(Words, [value] * 4)


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


def _writer(cast, kind):
    def emit(b, address: Int, value: Floats):
        value = cast(b, value)
        value = value if kind is Float else b.trunc(value, ir.VectorType(kind, 4))
        b.store(value, _pointer(b, address, value.type), align=4 if kind is Float else kind.width // 8)

    return operation(emit)


write_bytes, write_float16, write_bfloat16 = _writer(_to_byte, Byte), _writer(_to_float16, Half), _writer(_to_bfloat16, Half)
write_floats = _writer(lambda b, value: value, Float)
