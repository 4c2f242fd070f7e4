"""A compiler for a small subset of Python, with LLVM as its back end: numbers, vectors, ``if``, ``while``, ``for``.

``@compiled`` takes a function whose parameters and result are annotated with the types below; a parameter without annotation is an ``Int``.
Inside, Python's rules hold, with these exceptions:

- A variable keeps the type of its first value. Values are converted where nothing is lost (``Int`` to ``Float`` to ``Double``, a number to
  a vector of equal numbers); anything else must be asked for, as in ``Int(x)``.
- Whatever is not a variable is evaluated while compiling: constants, functions and tuples. A loop over a tuple is unrolled.
- ``//`` and ``%`` are those of C: the same as Python's for numbers that are not negative.

``@operation`` makes an operation from a function that emits LLVM's instructions.

Not numba, because that took 11 seconds for these kernels, most of them to infer the types that are annotated here, and one second to load
what it had compiled. LLVM alone takes one second and a tenth.
"""

import ast
import builtins
import inspect
import operator
import textwrap
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from llvmlite import ir

Bit, Byte, Half, Word, Int = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
Float, Double = ir.FloatType(), ir.DoubleType()
LANES = 16  # numbers in a vector; where registers hold fewer, LLVM takes several
Floats, Words = ir.VectorType(Float, LANES), ir.VectorType(Word, LANES)
Nothing = ir.VoidType()
RANK = {str(kind): rank for rank, kind in enumerate((Bit, Int, Float, Double, Words, Floats))}

Value = Any  # an ir.Value, or a constant of Python


def is_constant(value: Value) -> bool:
    """Whether a value is a compile-time constant."""
    return not isinstance(value, ir.Value)


def convert(b: ir.IRBuilder, value: Value, kind: ir.Type) -> ir.Value:
    """A value or constant as another type; floats are truncated to integers. A number becomes a vector of equal numbers."""
    if is_constant(value):
        if isinstance(kind, ir.VectorType):
            return ir.Constant(kind, [convert(b, value, kind.element)] * kind.count)
        return ir.Constant(kind, float(value) if kind in (Float, Double) else int(value))
    if value.type == kind:
        return value
    if isinstance(kind, ir.VectorType):
        if isinstance(value.type, ir.VectorType):
            return b.sitofp(value, kind) if kind == Floats else b.fptosi(value, kind)
        first = b.insert_element(ir.Constant(kind, ir.Undefined), convert(b, value, kind.element), Word(0))
        return b.shuffle_vector(first, first, ir.Constant(ir.VectorType(Word, kind.count), [0] * kind.count))
    if isinstance(kind, ir.IntType):
        if isinstance(value.type, ir.IntType):
            widen = b.zext if value.type == Bit else b.sext
            return widen(value, kind) if kind.width > value.type.width else b.trunc(value, kind)
        return b.fptosi(value, kind)
    if isinstance(value.type, ir.IntType):
        return b.sitofp(value, kind)
    return b.fpext(value, kind) if kind == Double else b.fptrunc(value, kind)


def widen(b: ir.IRBuilder, value: Value, kind: ir.Type) -> ir.Value:
    """Convert a value or constant to a type of the same or higher rank: implicit conversions lose nothing."""
    lossy = isinstance(value, float) and kind in (Bit, Int) if is_constant(value) else RANK[str(value.type)] > RANK[str(kind)]
    if lossy:
        raise TypeError(f"{'a fraction' if is_constant(value) else value.type} must be converted explicitly to be {kind}")
    return convert(b, value, kind)


def alike(b: ir.IRBuilder, *values: Value) -> list[ir.Value]:
    """Values converted to the greatest of their types. Constants count least: an integer as ``Int``, a fraction as ``Double``."""
    kinds = [value.type for value in values if not is_constant(value)]
    kind = max(kinds, key=lambda kind: RANK[str(kind)])
    if kind in (Bit, Int) and len(kinds) < len(values):
        kind = Double if any(isinstance(value, float) for value in values) else Int
    return [convert(b, value, kind) for value in values]


class CompileError(Exception):
    """Raised for a function outside the supported subset of Python."""


class Operation:
    """A function that emits instructions: called while compiling with a builder and values; annotated parameters are converted first."""

    def __init__(self, emit: Callable[..., Any]) -> None:
        self.emit, self.__doc__ = emit, emit.__doc__
        _, *parameters = inspect.signature(emit).parameters.values()
        self.kinds = [parameter.annotation for parameter in parameters if parameter.kind != parameter.VAR_POSITIONAL]

    def __call__(self, b: ir.IRBuilder, *values: Value) -> Any:
        """Emit the operation."""
        given = zip_longest(values, self.kinds)
        return self.emit(b, *(widen(b, value, kind) if isinstance(kind, ir.Type) else value for value, kind in given))


operation = Operation


class Function:
    """A function to be compiled."""

    def __init__(self, function: Callable[..., Any], attribute: str = "") -> None:
        self.function, self.attribute, self.__doc__, self.__name__ = function, attribute, function.__doc__, function.__name__
        signature = inspect.signature(function)
        self.parameters = {
            name: Int if parameter.annotation is parameter.empty else parameter.annotation
            for name, parameter in signature.parameters.items()
        }
        returned = signature.return_annotation
        self.returned = (
            Nothing if returned is signature.empty else ir.LiteralStructType(returned) if isinstance(returned, tuple) else returned
        )

    def emit(self, module: ir.Module, linkage: str = "internal") -> ir.Function:
        """The function in an LLVM module, added if it is not there yet."""
        if self.__name__ in module.globals:
            return module.globals[self.__name__]
        emitted = ir.Function(module, ir.FunctionType(self.returned, self.parameters.values()), self.__name__)
        emitted.linkage = linkage
        if self.attribute:
            emitted.attributes.add(self.attribute)
        tree = ast.parse(textwrap.dedent(inspect.getsource(self.function))).body[0]
        assert isinstance(tree, ast.FunctionDef)
        _Body(self, emitted).fill(tree.body)
        return emitted


compiled = Function


def inlined(function: Callable[..., Any]) -> Function:
    """Decorator: a function that is inlined into its callers."""
    return Function(function, "alwaysinline")


def apart(function: Callable[..., Any]) -> Function:
    """Decorator: a function that is not inlined, so that its loops have all registers to themselves."""
    return Function(function, "noinline")


BINARY: dict[type, tuple[Callable[..., Any], str, str]] = {  # as Python computes constants; for integers; for floats
    ast.Add: (operator.add, "add", "fadd"),
    ast.Sub: (operator.sub, "sub", "fsub"),
    ast.Mult: (operator.mul, "mul", "fmul"),
    ast.BitAnd: (operator.and_, "and_", ""),
    ast.BitOr: (operator.or_, "or_", ""),
    ast.BitXor: (operator.xor, "xor", ""),
    ast.LShift: (operator.lshift, "shl", ""),
    ast.RShift: (operator.rshift, "ashr", ""),
    ast.Div: (operator.truediv, "", "fdiv"),
    ast.FloorDiv: (operator.floordiv, "sdiv", ""),
    ast.Mod: (operator.mod, "srem", ""),
}
COMPARED: dict[type, tuple[Callable[..., Any], str]] = {
    ast.Eq: (operator.eq, "=="),
    ast.NotEq: (operator.ne, "!="),
    ast.Lt: (operator.lt, "<"),
    ast.LtE: (operator.le, "<="),
    ast.Gt: (operator.gt, ">"),
    ast.GtE: (operator.ge, ">="),
}


class _Body:
    """The body of a function while it is compiled. Variables live on the stack; LLVM turns them into registers."""

    def __init__(self, function: Function, emitted: ir.Function) -> None:
        self.function, self.names = function, vars(builtins) | function.function.__globals__
        self.entry = ir.IRBuilder(emitted.append_basic_block())  # holds the variables
        self.b = ir.IRBuilder(emitted.append_basic_block())
        self.start, self.variables = self.b.block, dict[str, ir.AllocaInstr]()
        self.loops = list[tuple[ir.Block, ir.Block]]()  # where ``continue`` and ``break`` lead
        for name, argument in zip(function.parameters, emitted.args, strict=True):
            self.assign(name, argument)

    def fill(self, body: list[ast.stmt]) -> None:
        self.suite(body)
        if not self.b.block.is_terminated:
            self.b.ret_void() if self.function.returned == Nothing else self.b.unreachable()
        self.entry.branch(self.start)

    # Statements: methods are named after Python's nodes

    def suite(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            if self.b.block.is_terminated:
                return
            try:
                self.visit(statement)
            except Exception as error:
                if isinstance(error, CompileError) and "line" in str(error):  # of a function that is called, or a statement within this one
                    raise
                raise CompileError(f"{self.function.__name__}, line {statement.lineno} of it: {error}") from error

    def visit(self, node: ast.AST) -> Value:
        if not hasattr(self, type(node).__name__):
            raise CompileError(f"{type(node).__name__} cannot be compiled")
        return getattr(self, type(node).__name__)(node)

    def assign(self, name: str, value: Value) -> None:
        if isinstance(value, tuple):
            self.names = self.names | {name: value}
            return
        if name not in self.variables:
            kind = value.type if not is_constant(value) else Double if isinstance(value, float) else Int
            self.variables[name] = self.entry.alloca(kind, name=name)
        self.b.store(widen(self.b, value, self.variables[name].allocated_type), self.variables[name])

    def Assign(self, node: ast.Assign) -> None:
        (target,), value = node.targets, self.value(node.value)
        if isinstance(target, ast.Name):
            self.assign(target.id, value)
            return
        assert isinstance(target, ast.Tuple)
        if not is_constant(value):
            value = [self.b.extract_value(value, k) for k in range(len(target.elts))]
        for name, part in zip(target.elts, value, strict=True):
            assert isinstance(name, ast.Name)
            self.assign(name.id, part)

    def AugAssign(self, node: ast.AugAssign) -> None:
        assert isinstance(node.target, ast.Name)
        self.assign(node.target.id, self.binary(node.op, self.name(node.target.id), self.value(node.value)))

    def Expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def Return(self, node: ast.Return) -> None:
        value: Any = None if node.value is None else self.value(node.value)
        kind = self.function.returned
        if kind == Nothing:
            self.b.ret_void()
        elif isinstance(kind, ir.LiteralStructType) and is_constant(value):
            result = ir.Constant(kind, ir.Undefined)
            for k, (part, element) in enumerate(zip(value, kind.elements, strict=True)):
                result = self.b.insert_value(result, widen(self.b, part, element), k)
            self.b.ret(result)
        else:
            self.b.ret(widen(self.b, value, kind))

    def If(self, node: ast.If) -> None:
        test = self.value(node.test)
        if is_constant(test):
            return self.suite(node.body if test else node.orelse)
        with self.b.if_else(self.truth(test)) as (then, otherwise):
            with then:
                self.suite(node.body)
            with otherwise:
                self.suite(node.orelse)
        return None

    def loop(self, test: Callable[[], Value], body: Callable[[], None], step: Callable[[], None]) -> None:
        start, run, following, end = (self.b.append_basic_block() for _ in range(4))
        self.b.branch(start)
        self.b.position_at_end(start)
        self.b.cbranch(self.truth(test()), run, end)
        self.b.position_at_end(run)
        self.loops.append((following, end))
        body()
        self.loops.pop()
        if not self.b.block.is_terminated:
            self.b.branch(following)
        self.b.position_at_end(following)
        step()
        self.b.branch(start)
        self.b.position_at_end(end)

    def While(self, node: ast.While) -> None:
        self.loop(lambda: self.value(node.test), lambda: self.suite(node.body), lambda: None)

    def For(self, node: ast.For) -> None:
        assert isinstance(node.target, ast.Name)
        if not isinstance(node.iter, ast.Call):
            for value in self.value(node.iter):
                self.names = self.names | {node.target.id: value}
                self.suite(node.body)
            return
        assert isinstance(node.iter.func, ast.Name)
        assert node.iter.func.id == "range"
        name, limits = node.target.id, [self.value(argument) for argument in node.iter.args]
        begin, end, step = (0, limits[0], 1) if len(limits) == 1 else (*limits, 1)[:3]
        self.assign(name, begin)
        self.loop(
            lambda: self.compare(ast.Lt(), self.name(name), end),
            lambda: self.suite(node.body),
            lambda: self.assign(name, self.binary(ast.Add(), self.name(name), step)),
        )

    def Continue(self, node: ast.Continue) -> None:
        self.b.branch(self.loops[-1][0])

    def Break(self, node: ast.Break) -> None:
        self.b.branch(self.loops[-1][1])

    # Expressions

    def value(self, node: ast.expr) -> Value:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.name(node.id)
        if isinstance(node, ast.Attribute):
            return getattr(self.value(node.value), node.attr)
        if isinstance(node, ast.Subscript):
            return self.value(node.value)[self.value(node.slice)]
        if isinstance(node, ast.Tuple):
            return tuple(self.several(node.elts))
        if isinstance(node, ast.BinOp):
            return self.binary(node.op, self.value(node.left), self.value(node.right))
        if isinstance(node, ast.Compare):
            return self.comparison(node)
        return self.visit(node)

    def several(self, nodes: Sequence[ast.expr]) -> list[Value]:
        values: list[Value] = []
        for node in nodes:
            values += self.value(node.value) if isinstance(node, ast.Starred) else [self.value(node)]
        return values

    def name(self, name: str) -> Value:
        return self.b.load(self.variables[name]) if name in self.variables else self.names[name]

    def binary(self, kind: ast.operator, left: Value, right: Value) -> Value:
        compute, whole, real = BINARY[type(kind)]
        if is_constant(left) and is_constant(right):
            return compute(left, right)
        left, right = (x if is_constant(x) or x.type != Bit else self.b.zext(x, Int) for x in (left, right))
        left, right = alike(self.b, left, right)
        if not whole:
            left, right = (convert(self.b, x, Double) if x.type == Int else x for x in (left, right))
        return getattr(self.b, whole if left.type in (Bit, Int, Words) else real)(left, right)

    def UnaryOp(self, node: ast.UnaryOp) -> Value:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            return not value if is_constant(value) else self.b.not_(self.truth(value))
        if isinstance(node.op, ast.Invert):
            return ~value if is_constant(value) else self.b.not_(value)
        return -value if is_constant(value) else self.binary(ast.Sub(), 0, value)

    def compare(self, kind: ast.cmpop, left: Value, right: Value) -> Value:
        compute, sign = COMPARED[type(kind)]
        if is_constant(left) and is_constant(right):
            return compute(left, right)
        left, right = alike(self.b, left, right)
        return (self.b.icmp_signed if left.type in (Bit, Int, Words) else self.b.fcmp_ordered)(sign, left, right)

    def comparison(self, node: ast.Compare) -> Value:
        values = [self.value(part) for part in (node.left, *node.comparators)]
        result = self.compare(node.ops[0], values[0], values[1])
        for kind, left, right in zip(node.ops[1:], values[1:-1], values[2:], strict=True):
            result = self.b.and_(result, self.compare(kind, left, right))
        return result

    def truth(self, value: Value) -> ir.Value:
        if is_constant(value) or value.type == Bit:
            return convert(self.b, value, Bit)
        return self.compare(ast.NotEq(), value, 0)

    def choose(self, test: Value, first: Callable[[], Value], second: Callable[[], Value]) -> Value:
        """Conditional expression: only the chosen value is computed."""
        if is_constant(test):
            return first() if test else second()
        ends, values = [], []
        with self.b.if_else(self.truth(test)) as branches:
            for branch, compute in zip(branches, (first, second), strict=True):
                with branch:
                    values.append(compute())
                    ends.append(self.b.block)
        kinds = [value.type for value in values if not is_constant(value)]
        literal = Double if any(isinstance(value, float) for value in values) else Int
        kind = max(kinds, key=lambda kind: RANK[str(kind)]) if kinds else literal
        result = self.b.phi(kind)
        for value, end in zip(values, ends, strict=True):
            builder = ir.IRBuilder(end)
            builder.position_before(end.terminator)
            result.add_incoming(convert(builder, value, kind), end)
        return result

    def IfExp(self, node: ast.IfExp) -> Value:
        return self.choose(self.value(node.test), lambda: self.value(node.body), lambda: self.value(node.orelse))

    def BoolOp(self, node: ast.BoolOp) -> Value:
        first, *rest = node.values
        value = self.value(first)
        if not rest:
            return value if is_constant(value) else self.truth(value)
        others = ast.BoolOp(node.op, rest)
        if isinstance(node.op, ast.And):
            return self.choose(value, lambda: self.BoolOp(others), lambda: Bit(0))
        return self.choose(value, lambda: Bit(1), lambda: self.BoolOp(others))

    def Call(self, node: ast.Call) -> Value:
        called, values = self.value(node.func), self.several(node.args)
        if isinstance(called, ir.Type):
            return convert(self.b, values[0], called)
        if isinstance(called, Operation):
            return called(self.b, *values)
        if isinstance(called, Function):
            values = [widen(self.b, value, kind) for value, kind in zip(values, called.parameters.values(), strict=True)]
            return self.b.call(called.emit(self.b.module), values)
        if all(map(is_constant, values)):
            return called(*values)
        sign = ast.Lt() if called is min else ast.Gt()
        assert called in (min, max), f"{called} cannot be compiled"
        result = values[0]
        for value in values[1:]:
            result, value = alike(self.b, result, value)
            result = self.b.select(self.compare(sign, result, value), result, value)
        return result
