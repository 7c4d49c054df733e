"""Vectors as values: what LLVM's vectoriser does not find by itself.

Its loops over rows keep sums in memory between blocks of features. With vectors as values a kernel
holds them in registers over the whole inner product, which is worth a third of the speed.
The vector is as wide as the registers of the machine; LLVM splits it where it must.
"""

from __future__ import annotations

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model


def _register_bytes() -> int:
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx") else 16


REGISTER_BYTES = _register_bytes()


class Vector(types.Type):
    """As many numbers of one dtype as a register holds."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.lanes = REGISTER_BYTES * 8 // dtype.bitwidth
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


def _address(context, builder, kind, array, row, column):
    """Pointer to a vector of a C-contiguous matrix."""
    struct = context.make_array(kind)(context, builder, array)
    width = builder.extract_value(struct.shape, 1)
    place = builder.gep(struct.data, [builder.add(builder.mul(row, width), column)])
    vector = context.get_value_type(Vector(kind.dtype))
    return builder.bitcast(place, vector.as_pointer())


@intrinsic
def load(typingctx, array, row, column):
    """The vector at array[row, column]; nothing is checked."""

    def codegen(context, builder, signature, args):
        value = builder.load(_address(context, builder, signature.args[0], *args))
        value.align = signature.args[0].dtype.bitwidth // 8
        return value

    return Vector(array.dtype)(array, types.intp, types.intp), codegen


@intrinsic
def store(typingctx, array, row, column, value):
    """Write a vector to array[row, column]."""

    def codegen(context, builder, signature, args):
        place = _address(context, builder, signature.args[0], *args[:3])
        builder.store(args[3], place).align = signature.args[0].dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), codegen


@intrinsic
def splat(typingctx, value):
    """The vector with ``value`` in every lane."""

    def codegen(context, builder, signature, args):
        vector = context.get_value_type(signature.return_type)
        undefined = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(undefined, args[0], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        return builder.shuffle_vector(first, undefined, zeros)

    return Vector(value)(value), codegen


@intrinsic
def add(typingctx, a, b):
    """a + b."""

    def codegen(context, builder, signature, args):
        return builder.fadd(*args)

    return a(a, b), codegen


@intrinsic
def subtract(typingctx, a, b):
    """a - b."""

    def codegen(context, builder, signature, args):
        return builder.fsub(*args)

    return a(a, b), codegen


@intrinsic
def multiply(typingctx, a, b):
    """a b."""

    def codegen(context, builder, signature, args):
        return builder.fmul(*args)

    return a(a, b), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a b + c, rounded once."""

    def codegen(context, builder, signature, args):
        vector = context.get_value_type(signature.return_type)
        name = f"llvm.fma.v{vector.count}f{signature.return_type.dtype.bitwidth}"
        kind = ir.FunctionType(vector, [vector] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return a(a, b, c), codegen


def _shuffle(builder, a, b, lanes):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(a, b, mask)


def _pair_sums(builder, a, b, size):
    """Sums of neighbouring runs of ``size`` lanes, those of ``a`` and ``b`` in turn."""
    n = a.type.count
    even = [i for i in range(n) if i // size % 2 == 0]
    runs = [even[i : i + size] for i in range(0, len(even), size)]
    first = [lane for run in runs for lane in [*run, *(n + i for i in run)]]
    return builder.fadd(
        _shuffle(builder, a, b, first), _shuffle(builder, a, b, [i + size for i in first])
    )


@intrinsic
def add_totals(typingctx, array, position, a, b, c, d):
    """Add the sums of the lanes of a, b, c and d to four numbers of a contiguous float64 array.

    ``position`` counts elements from the first: no view of a line is made, because each would
    count references on memory that all threads share.
    """

    def codegen(context, builder, signature, args):
        a, b, c, d = args[2:]
        halves = _pair_sums(builder, a, b, 1), _pair_sums(builder, c, d, 1)
        if a.type.count == 2:
            sums = _shuffle(builder, *halves, [0, 1, 2, 3])
        else:
            sums = _pair_sums(builder, *halves, 2)
        while sums.type.count > 4:
            n = sums.type.count
            low = _shuffle(builder, sums, sums, list(range(n // 2)))
            sums = builder.fadd(low, _shuffle(builder, sums, sums, list(range(n // 2, n))))
        four = ir.VectorType(ir.DoubleType(), 4)
        if sums.type != four:
            sums = builder.fpext(sums, four)
        struct = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.bitcast(builder.gep(struct.data, [args[1]]), four.as_pointer())
        old = builder.load(place)
        old.align = 8
        builder.store(builder.fadd(old, sums), place).align = 8
        return context.get_dummy_value()

    return types.void(array, types.intp, a, a, a, a), codegen


def zero_like(array):
    """0 of the array's dtype."""
    return array.dtype.type(0)


@overload(zero_like)
def _zero_like(array):
    zero = np.float32(0) if array.dtype == types.float32 else np.float64(0)
    return lambda array: zero
