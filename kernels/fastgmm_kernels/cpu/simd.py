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
def subtract(typingctx, a, b):
    """a - b."""

    def codegen(context, builder, signature, args):
        return builder.fsub(*args)

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


@intrinsic
def total(typingctx, a):
    """Sum of the lanes, in any order (the same at every call)."""

    def codegen(context, builder, signature, args):
        vector = context.get_value_type(signature.args[0])
        name = f"llvm.vector.reduce.fadd.v{vector.count}f{signature.args[0].dtype.bitwidth}"
        kind = ir.FunctionType(vector.element, [vector.element, vector])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        start = ir.Constant(vector.element, -0.0)
        return builder.call(function, [start, args[0]], fastmath=("reassoc",))

    return a.dtype(a), codegen


def zero_like(array):
    """0 of the array's dtype."""
    return array.dtype.type(0)


@overload(zero_like)
def _zero_like(array):
    zero = np.float32(0) if array.dtype == types.float32 else np.float64(0)
    return lambda array: zero
