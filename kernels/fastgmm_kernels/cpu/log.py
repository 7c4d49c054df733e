"""log of vectors as plain arithmetic: Numba's own is a scalar library call.

x = 2^n m with sqrt(1/2) <= m < sqrt(2), and log m = 2 artanh(s) with s = (m - 1) / (m + 1), a
series in s^2 <= 0.0295.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .simd import emit_fma

_LN2 = 0.6931471805599453
# Terms of the series: what is left out is below 4e-10 and 2e-18 of the first.
_TERMS = {32: 5, 64: 11}
_WORDS = {32: (np.float32, np.int32, 23), 64: (np.float64, np.int64, 52)}


def _emit(builder, x, bits):
    kind, number, mantissa = _WORDS[bits]
    vector, whole = x.type, ir.VectorType(ir.IntType(bits), x.type.count)

    def constant(value):
        return ir.Constant(vector, [float(value)] * vector.count)

    def integer(value):
        return ir.Constant(whole, [int(value)] * vector.count)

    # Counted from the bits of sqrt(1/2) the exponent is n, and what is left of the word is m.
    base = kind(math.sqrt(0.5)).view(number)
    word = builder.sub(builder.bitcast(x, whole), integer(base))
    n = builder.ashr(word, integer(mantissa))
    m = builder.add(builder.and_(word, integer((1 << mantissa) - 1)), integer(base))
    m = builder.bitcast(m, vector)
    # In the last bits of a large number: not every machine converts integers of this size.
    large = kind(1.5 * 2.0**mantissa)
    n = builder.bitcast(builder.add(n, integer(large.view(number))), vector)
    n = builder.fsub(n, constant(large))
    s = builder.fdiv(builder.fsub(m, constant(1)), builder.fadd(m, constant(1)))
    square = builder.fmul(s, s)
    p = constant(2 / (2 * _TERMS[bits] + 1))
    for k in range(_TERMS[bits] - 1, 0, -1):
        p = emit_fma(builder, p, square, constant(2 / (2 * k + 1)))
    # The first term is much the largest, and exact where x is a power of two.
    p = emit_fma(builder, builder.fmul(p, square), s, builder.fadd(s, s))
    result = emit_fma(builder, n, constant(_LN2), p)
    # What is left is 0 and NaN.
    rest = builder.fsub(x, constant(math.inf))
    return builder.select(builder.fcmp_ordered(">", x, constant(0)), result, rest)


@intrinsic
def log(typingctx, x):
    """Logarithm of a vector of finite normal numbers; -inf of 0, NaN of NaN."""

    def codegen(context, builder, signature, args):
        single = signature.return_type.dtype == types.float32
        return _emit(builder, args[0], 32 if single else 64)

    return x(x), codegen
