"""Vectors between arrays that are laid out otherwise: rows of any array, transposes, lists."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lanes import shuffle
from .simd import Vector, pointer, spread


def _in_row(context, builder, kind, array, row, column):
    """Pointer into a row; of the second stride it is known that neighbours lie side by side."""
    struct = context.make_array(kind)(context, builder, array)
    line = builder.mul(row, builder.extract_value(struct.strides, 0))
    start = builder.bitcast(struct.data, ir.IntType(8).as_pointer())
    start = builder.bitcast(builder.gep(start, [line]), struct.data.type)
    return builder.gep(start, [column])


@intrinsic
def load_row(typingctx, array, row, column):
    """A vector from a row of a matrix whose rows may lie anywhere."""

    def codegen(context, builder, signature, args):
        kind = signature.args[0]
        vector = context.get_value_type(signature.return_type)
        place = _in_row(context, builder, kind, *args)
        value = builder.load(builder.bitcast(place, vector.as_pointer()))
        value.align = kind.dtype.bitwidth // 8
        return value

    return Vector(array.dtype, 1)(array, types.intp, types.intp), codegen


@intrinsic
def load_part(typingctx, array, row, column, count):
    """As :func:`load_row`, of ``count`` numbers alone, and zeros to fill the vector."""

    def codegen(context, builder, signature, args):
        kind = signature.args[0]
        vector = context.get_value_type(signature.return_type)
        place = _in_row(context, builder, kind, *args[:3])
        numbers = ir.VectorType(ir.IntType(64), vector.count)
        counts = spread(builder, numbers, args[3])
        inside = builder.icmp_signed("<", ir.Constant(numbers, list(range(vector.count))), counts)
        address = builder.bitcast(place, vector.as_pointer())
        align = ir.IntType(32)
        width = kind.dtype.bitwidth
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(vector, [address.type, align, inside.type, vector]),
            f"llvm.masked.load.v{vector.count}f{width}.p0",
        )
        return builder.call(
            function, [address, align(width // 8), inside, ir.Constant(vector, None)]
        )

    return Vector(array.dtype, 1)(array, types.intp, types.intp, types.intp), codegen


def _merge(builder, a, b, size):
    """The two vectors that hold, of a and b, runs of ``size`` lanes in turn."""
    n = a.type.count
    low, high = [], []
    for start in range(0, n, 2 * size):
        run = range(start, start + size)
        low += [*run, *(n + i for i in run)]
        high += [*(i + size for i in run), *(n + i + size for i in run)]
    return shuffle(builder, a, b, low), shuffle(builder, a, b, high)


@intrinsic
def transpose(typingctx, source, row, column, target):
    """Copy a square of as many lines as a vector has lanes: target[column + j, row + i]."""

    def codegen(context, builder, signature, args):
        kind = signature.args[0]
        scalar = context.get_value_type(kind.dtype)
        n = Vector(kind.dtype, 1).lanes
        vector = ir.VectorType(scalar, n)
        width = kind.dtype.bitwidth // 8
        whole = args[1].type

        def place(kind, array, line, start, offset):
            line = builder.add(line, ir.Constant(whole, offset))
            found = pointer(context, builder, kind, array, line, start)
            return builder.bitcast(found, vector.as_pointer())

        lines = []
        for i in range(n):
            lines.append(builder.load(place(kind, args[0], args[1], args[2], i)))
            lines[-1].align = width
        size = 1
        while size < n:
            for i in range(n):
                if i & size == 0:
                    lines[i], lines[i + size] = _merge(builder, lines[i], lines[i + size], size)
            size *= 2
        for j in range(n):
            target = place(signature.args[3], args[3], args[2], args[1], j)
            builder.store(lines[j], target).align = width
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target), codegen


@intrinsic
def append_where(typingctx, index, kept, first, key, limit):
    """List the lanes in which key >= limit in ``index``, int32, as first + lane.

    ``kept`` numbers are in the list already; returns their new number. A vector beyond the last is
    overwritten. ``key`` may be a strip.
    """

    def codegen(context, builder, signature, args):
        index, kept, first, key, limit = args
        kind = signature.args[3]
        n = kind.lanes // kind.registers
        number = ir.IntType(32)
        numbers = ir.VectorType(number, n)
        places = context.make_array(signature.args[0])(context, builder, index).data
        base = spread(builder, numbers, builder.trunc(first, number))
        for start in range(0, kind.lanes, n):
            lanes = list(range(start, start + n))
            part = shuffle(builder, key, key, lanes)
            found = builder.fcmp_ordered(">=", part, spread(builder, part.type, limit))
            # For integers: where the machine cannot do it LLVM writes it out, and fails at floats.
            compress = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(numbers, [numbers, found.type, numbers]),
                f"llvm.experimental.vector.compress.v{n}i32",
            )
            position = builder.add(base, ir.Constant(numbers, lanes))
            chosen = builder.call(compress, [position, found, ir.Constant(numbers, ir.Undefined)])
            place = builder.bitcast(builder.gep(places, [kept]), numbers.as_pointer())
            builder.store(chosen, place).align = 4
            bits = builder.bitcast(found, ir.IntType(n))
            kept = builder.add(kept, builder.zext(builder.ctpop(bits), kept.type))
        return kept

    return types.intp(index, types.intp, types.intp, key, key.dtype), codegen
