"""Vectors as values: what LLVM's vectoriser does not find by itself.

Its loops over rows keep sums in memory between blocks of features. With vectors as values a kernel
holds them in registers over the whole inner product. A vector fills one register of the machine; a
strip fills as many as leave room for four sums of its size, and LLVM splits it into registers.
Operations take a number in place of any operand but the first, and use it in every lane.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, models, overload, register_model


def _machine() -> tuple[int, int]:
    """Bytes of a vector register, and registers of a strip: a quarter of what sums may take."""
    # What Numba compiles for: the machine itself, unless its settings name another.
    features = getattr(config, "CPU_FEATURES", None)
    if features is None:
        host = getattr(config, "CPU_NAME", None) in (None, "", "host")
        # Without what it leaves out by itself, or by NUMBA_ENABLE_AVX.
        features = get_host_cpu_features() if host else ""
    present = set(features.split(","))
    if "+avx512f" in present:
        return 64, 4
    if "+avx" in present:
        return 32, 2
    return 16, 4 if "+neon" in present else 2


REGISTER_BYTES, STRIP_REGISTERS = _machine()


class Vector(types.Type):
    """Numbers of one dtype in one or several registers."""

    def __init__(self, dtype, registers):
        self.dtype = dtype
        self.registers = registers
        self.lanes = registers * REGISTER_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype}, {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        scalar = ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(scalar, kind.lanes))


def lanes(array):
    """Numbers per vector of the array's dtype."""
    return REGISTER_BYTES // array.itemsize


@overload(lanes)
def _lanes(array):
    count = REGISTER_BYTES * 8 // array.dtype.bitwidth
    return lambda array: count


@intrinsic
def lanes_of(typingctx, vector):
    """Numbers in a vector."""

    def codegen(context, builder, signature, args):
        return context.get_constant(types.intp, signature.args[0].lanes)

    return types.intp(vector), codegen


def strip_lanes(array):
    """Numbers per strip of the array's dtype."""
    return STRIP_REGISTERS * REGISTER_BYTES // array.itemsize


@overload(strip_lanes)
def _strip_lanes(array):
    count = STRIP_REGISTERS * REGISTER_BYTES * 8 // array.dtype.bitwidth
    return lambda array: count


def pointer(context, builder, kind, array, row, column):
    """Pointer to an entry of a C-contiguous matrix."""
    struct = context.make_array(kind)(context, builder, array)
    width = builder.extract_value(struct.shape, 1)
    return builder.gep(struct.data, [builder.add(builder.mul(row, width), column)])


@intrinsic
def at(typingctx, array, row, column):
    """array[row, column] of a C-contiguous matrix; indices are not looked at, and do not wrap."""

    def codegen(context, builder, signature, args):
        return builder.load(pointer(context, builder, signature.args[0], *args))

    return array.dtype(array, types.intp, types.intp), codegen


@intrinsic
def in_panel(typingctx, array, k, column, line):
    """array[k, column, line] of a C-contiguous (K, P, 4) array, as :func:`at`."""

    def codegen(context, builder, signature, args):
        array, k, column, line = args
        struct = context.make_array(signature.args[0])(context, builder, array)
        columns = builder.extract_value(struct.shape, 1)
        place = builder.add(builder.mul(k, columns), column)
        place = builder.add(builder.mul(place, ir.Constant(place.type, 4)), line)
        return builder.load(builder.gep(struct.data, [place]))

    return array.dtype(array, types.intp, types.intp, types.intp), codegen


def _load(context, builder, signature, args):
    """The vector at array[row, column], the last three arguments; nothing is checked."""
    kind = signature.args[-3]
    place = pointer(context, builder, kind, *args[-3:])
    vector = context.get_value_type(signature.return_type)
    value = builder.load(builder.bitcast(place, vector.as_pointer()))
    value.align = kind.dtype.bitwidth // 8
    return value


@intrinsic
def load(typingctx, array, row, column):
    """The vector at array[row, column]; nothing is checked."""
    return Vector(array.dtype, 1)(array, types.intp, types.intp), _load


@intrinsic
def load_strip(typingctx, array, row, column):
    """The strip at array[row, column]; nothing is checked."""
    return Vector(array.dtype, STRIP_REGISTERS)(array, types.intp, types.intp), _load


@intrinsic
def load_like(typingctx, vector, array, row, column):
    """As many numbers as ``vector`` has, at array[row, column]; nothing is checked."""
    return vector(vector, array, types.intp, types.intp), _load


@intrinsic
def store(typingctx, array, row, column, value):
    """Write a vector to array[row, column]."""

    def codegen(context, builder, signature, args):
        place = pointer(context, builder, signature.args[0], *args[:3])
        place = builder.bitcast(place, args[3].type.as_pointer())
        builder.store(args[3], place).align = signature.args[0].dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), codegen


def spread(builder, vector, value):
    """``value`` itself where it is a vector, else the vector with it in every lane."""
    if isinstance(value.type, ir.VectorType):
        return value
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, zeros)


def as_operand(vector, operand):
    """Type of an operand: a vector stays, a number is brought to the dtype of the vector."""
    return operand if isinstance(operand, Vector) else vector.dtype


@intrinsic
def splat(typingctx, like, value):
    """The vector of the type of ``like`` with ``value`` in every lane."""

    def codegen(context, builder, signature, args):
        return spread(builder, context.get_value_type(signature.return_type), args[1])

    return like(like, like.dtype), codegen


def _binary(emit):
    @intrinsic
    def operation(typingctx, a, b):
        def codegen(context, builder, signature, args):
            return emit(builder, args[0], spread(builder, args[0].type, args[1]))

        return a(a, as_operand(a, b)), codegen

    return operation


def _larger(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _smaller(builder, a, b):
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


add = _binary(lambda builder, a, b: builder.fadd(a, b))
subtract = _binary(lambda builder, a, b: builder.fsub(a, b))
multiply = _binary(lambda builder, a, b: builder.fmul(a, b))
divide = _binary(lambda builder, a, b: builder.fdiv(a, b))
#: The second operand where either is NaN, as the machine's own instruction.
maximum = _binary(_larger)
minimum = _binary(_smaller)


@intrinsic
def select_below(typingctx, a, b, x, y):
    """x in the lanes where a < b, else y."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])

    return x(a, a, x, x), codegen


@intrinsic
def raise_to(typingctx, array, row, column, value):
    """array[row, column] = max of what is there and a vector without NaN."""

    def codegen(context, builder, signature, args):
        vector = args[3].type
        place = pointer(context, builder, signature.args[0], *args[:3])
        place = builder.bitcast(place, vector.as_pointer())
        width = signature.args[0].dtype.bitwidth
        old = builder.load(place)
        old.align = width // 8
        kind = ir.FunctionType(vector, [vector] * 2)
        name = f"llvm.maxnum.v{vector.count}f{width}"
        larger = cgutils.get_or_insert_function(builder.module, kind, name)
        # As a comparison and a selection it would become a store under a mask, which later loads
        # wait for.
        found = builder.call(larger, [args[3], old], fastmath=("nnan", "nsz"))
        builder.store(found, place).align = width // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), codegen


def emit_fma(builder, a, b, c):
    """a b + c, rounded once, for vectors in LLVM."""
    width = 32 if isinstance(a.type.element, ir.FloatType) else 64
    kind = ir.FunctionType(a.type, [a.type] * 3)
    name = f"llvm.fma.v{a.type.count}f{width}"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), (a, b, c))


@intrinsic
def fma(typingctx, a, b, c):
    """a b + c, rounded once."""

    def codegen(context, builder, signature, args):
        vector = args[0].type
        return emit_fma(builder, *[spread(builder, vector, value) for value in args])

    return a(a, as_operand(a, b), as_operand(a, c)), codegen


def _zeros(registers):
    @intrinsic
    def zeros(typingctx, array):
        def codegen(context, builder, signature, args):
            return ir.Constant(context.get_value_type(signature.return_type), None)

        return Vector(array.dtype, registers)(array), codegen

    return zeros


#: zero(array): a vector of zeros of the array's dtype.
zero = _zeros(1)
zero_strip = _zeros(STRIP_REGISTERS)
#: Half a strip: eight sums of it take as many registers as four of a strip.
zero_half = _zeros(STRIP_REGISTERS // 2)
