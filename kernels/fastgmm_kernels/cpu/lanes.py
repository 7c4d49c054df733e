"""What passes between the lanes of vectors and plain numbers: bits, sums, totals."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .simd import Vector, as_operand, spread


def shuffle(builder, a, b, lanes):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(a, b, mask)


def _halves(builder, value):
    """The lower and the upper half of the lanes."""
    n = value.type.count
    return (
        shuffle(builder, value, value, list(range(n // 2))),
        shuffle(builder, value, value, list(range(n // 2, n))),
    )


def _added(builder, value, lanes):
    """The lanes added up until so many are left."""
    while value.type.count > lanes:
        value = builder.fadd(*_halves(builder, value))
    return value


@intrinsic
def any_at_most(typingctx, vector, limit):
    """Whether a number in any lane is at most ``limit``. No lane may be NaN."""

    def codegen(context, builder, signature, args):
        value, limit = args
        # Registers first among each other: one comparison is left.
        while value.type.count > signature.args[0].lanes // signature.args[0].registers:
            low, high = _halves(builder, value)
            value = builder.select(builder.fcmp_ordered("<", low, high), low, high)
        found = builder.fcmp_ordered("<=", value, spread(builder, value.type, limit))
        bits = builder.bitcast(found, ir.IntType(found.type.count))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(vector, vector.dtype), codegen


@intrinsic
def bits_above(typingctx, a, b):
    """An integer with bit i set where a > b in lane i; a strip has at most 64 lanes."""

    def codegen(context, builder, signature, args):
        second = spread(builder, args[0].type, args[1])
        found = builder.fcmp_ordered(">", args[0], second)
        bits = builder.bitcast(found, ir.IntType(found.type.count))
        word = ir.IntType(64)
        return bits if bits.type == word else builder.zext(bits, word)

    return types.uint64(a, as_operand(a, b)), codegen


@intrinsic
def count_bits(typingctx, bits):
    """Number of bits that are set."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


@intrinsic
def lowest_bit(typingctx, bits):
    """Position of the lowest bit that is set; ``bits`` is not 0."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@intrinsic
def add_to(typingctx, array, position, value):
    """Add a vector to numbers of a contiguous float64 array.

    ``position`` counts elements from the first: no view of a line is made, because each would
    count references on memory that all threads share.
    """

    def codegen(context, builder, signature, args):
        struct = context.make_array(signature.args[0])(context, builder, args[0])
        wide = ir.VectorType(ir.DoubleType(), args[2].type.count)
        value = args[2] if args[2].type == wide else builder.fpext(args[2], wide)
        place = builder.bitcast(builder.gep(struct.data, [args[1]]), wide.as_pointer())
        old = builder.load(place)
        old.align = 8
        builder.store(builder.fadd(old, value), place).align = 8
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def sum_lanes(typingctx, value):
    """Sum of all lanes, in a fixed order."""

    def codegen(context, builder, signature, args):
        value = _added(builder, args[0], 1)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return value.dtype(value), codegen


@intrinsic
def sum_wide(typingctx, value):
    """Sum of all lanes in float64, in a fixed order."""

    def codegen(context, builder, signature, args):
        wide = ir.VectorType(ir.DoubleType(), args[0].type.count)
        value = args[0] if args[0].type == wide else builder.fpext(args[0], wide)
        value = _added(builder, value, 1)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return types.float64(value), codegen


@intrinsic
def fold(typingctx, strip):
    """The registers of a strip added up to one vector."""

    def codegen(context, builder, signature, args):
        return _added(builder, args[0], signature.return_type.lanes)

    return Vector(strip.dtype, 1)(strip), codegen


def _pair_sums(builder, a, b, size):
    """Sums of neighbouring runs of ``size`` lanes, those of ``a`` and ``b`` in turn."""
    n = a.type.count
    even = [i for i in range(n) if i // size % 2 == 0]
    runs = [even[i : i + size] for i in range(0, len(even), size)]
    first = [lane for run in runs for lane in [*run, *(n + i for i in run)]]
    return builder.fadd(
        shuffle(builder, a, b, first), shuffle(builder, a, b, [i + size for i in first])
    )


@intrinsic
def add_totals(typingctx, array, position, a, b, c, d):
    """Add the sums of the lanes of a, b, c and d to four numbers of a contiguous float64 array.

    ``position`` as for :func:`add_to`.
    """

    def codegen(context, builder, signature, args):
        a, b, c, d = args[2:]
        halves = _pair_sums(builder, a, b, 1), _pair_sums(builder, c, d, 1)
        if a.type.count == 2:
            sums = shuffle(builder, *halves, [0, 1, 2, 3])
        else:
            sums = _pair_sums(builder, *halves, 2)
        sums = _added(builder, sums, 4)
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
