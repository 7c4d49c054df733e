"""exp of vectors as plain arithmetic: Numba's own is a scalar library call.

x = n log 2 + r with |r| <= log(2)/2, exp(x) = 2^n p(r). The subtraction of n log 2 is done in one
fused step in single precision, whose error n 2^-29 shows in results below 1e-13 alone, and in two
in double (Cody and Waite).
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lanes import shuffle
from .simd import REGISTER_BYTES, emit_fma

_LOG2E = 1.4426950408889634
# At ``lowest`` and below, the result is 0, or with 512 bits a number without weight.
# Coefficients of r^2 upwards, highest first: minimax on |r| <= log(2)/2 in single precision, with
# error 3e-9; Taylor to r^13 in double, with a remainder below 1e-17.
_SINGLE = {
    "lowest": -110.0 if REGISTER_BYTES == 64 else -87.0,
    "ln2": (0.6931471805599453,),
    "bias": 127,
    "mantissa": 23,
    "polynomial": (
        1.3814598566e-3,
        8.3687169837e-3,
        4.1668388095e-2,
        1.6666520631e-1,
        4.9999993448e-1,
    ),
}
_DOUBLE = {
    "lowest": -760.0 if REGISTER_BYTES == 64 else -708.0,
    "ln2": (6.93147180369123816490e-01, 1.90821492927058770002e-10),
    "bias": 1023,
    "mantissa": 52,
    "polynomial": (
        1 / 6227020800,
        1 / 479001600,
        1 / 39916800,
        1 / 3628800,
        1 / 362880,
        1 / 40320,
        1 / 5040,
        1 / 720,
        1 / 120,
        1 / 24,
        1 / 6,
        1 / 2,
    ),
}


def _call(builder, name, arguments):
    vector = arguments[0].type
    kind = ir.FunctionType(vector, [value.type for value in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _scale_registers(builder, p, n, bits):
    """2^n p, register by register: one instruction where the machine has 512 bits."""
    lanes = 512 // bits
    suffix = "ps" if bits == 32 else "pd"
    number = ir.IntType(32)
    parts = []
    for start in range(0, p.type.count, lanes):
        places = list(range(start, start + lanes))
        part = shuffle(builder, p, p, places)
        arguments = [
            part,
            shuffle(builder, n, n, places),
            ir.Constant(part.type, None),
            ir.Constant(ir.IntType(lanes), -1),
            ir.Constant(number, 4),  # round as set
        ]
        parts.append(_call(builder, f"llvm.x86.avx512.mask.scalef.{suffix}.512", arguments))
    while len(parts) > 1:
        size = parts[0].type.count
        parts = [
            shuffle(builder, a, b, list(range(2 * size)))
            for a, b in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _emit(builder, x, table, bits):
    vector = x.type

    def constant(value, kind=vector):
        return ir.Constant(kind, [value] * vector.count)

    lowest = constant(table["lowest"])
    normal = builder.fcmp_ordered(">", x, lowest)
    clamped = builder.select(normal, x, lowest)
    n = _call(
        builder,
        f"llvm.floor.v{vector.count}f{bits}",
        [emit_fma(builder, clamped, constant(_LOG2E), constant(0.5))],
    )
    r = clamped
    for step in table["ln2"]:
        r = emit_fma(builder, n, constant(-step), r)
    first, *rest = (constant(c) for c in table["polynomial"])
    p = first
    for coefficient in rest:
        p = emit_fma(builder, p, r, coefficient)
    p = emit_fma(builder, p, builder.fmul(r, r), builder.fadd(r, constant(1.0)))
    if REGISTER_BYTES == 64:
        # Below the normal numbers it gives what is left of them, and in the end 0.
        return _scale_registers(builder, p, n, bits)
    whole = ir.VectorType(ir.IntType(bits), vector.count)
    shifted = builder.add(builder.fptosi(n, whole), constant(table["bias"], whole))
    scale = builder.bitcast(builder.shl(shifted, constant(table["mantissa"], whole)), vector)
    return builder.select(normal, builder.fmul(p, scale), constant(0.0))


@intrinsic
def exp(typingctx, x):
    """Exponential of a vector of numbers of at most 88 (709); 0 far below the normal ones."""

    def codegen(context, builder, signature, args):
        single = signature.return_type.dtype == types.float32
        return _emit(builder, args[0], _SINGLE if single else _DOUBLE, 32 if single else 64)

    return x(x), codegen
