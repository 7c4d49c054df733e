"""exp as plain arithmetic, so that LLVM vectorises it; Numba's own is a scalar library call.

x = n log 2 + r with |r| <= log(2)/2, exp(x) = 2^n p(r). The subtraction of n log 2 is done in two
steps (Cody and Waite) and must not be re-associated, hence its own fastmath flags.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

_OPTIONS: Any = {"fastmath": {"contract"}, "error_model": "numpy", "boundscheck": False}

_LOG2E = 1.4426950408889634
# Below, exp(x) is not a normal number of the precision: the result is 0.
_LOWEST = {32: np.float32(-87.0), 64: -708.0}
_LN2_HIGH = {32: np.float32(0.693359375), 64: 6.93147180369123816490e-01}
_LN2_LOW = {32: np.float32(-2.12194440e-4), 64: 1.90821492927058770002e-10}


@intrinsic
def _as_float(typingctx, bits):
    """The float whose bit pattern is the integer ``bits``."""
    result = types.float32 if bits == types.int32 else types.float64

    def codegen(context, builder, signature, args):
        kind = ir.FloatType() if signature.return_type == types.float32 else ir.DoubleType()
        return builder.bitcast(args[0], kind)

    return result(bits), codegen


def exp(x):
    """Exponential of a float32 or float64 scalar; 0 where the result would not be normal."""
    return math.exp(x)


@overload(exp, jit_options=_OPTIONS)
def _exp(x):
    if x == types.float32:
        lowest, high, low = _LOWEST[32], _LN2_HIGH[32], _LN2_LOW[32]
        log2e, half, one = np.float32(_LOG2E), np.float32(0.5), np.float32(1.0)
        # Minimax on |r| <= log(2)/2 (the classic single-precision coefficients).
        p0, p1 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3)
        p2, p3 = np.float32(8.3334519073e-3), np.float32(4.1665795894e-2)
        p4, p5 = np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)

        def exp32(x):
            clamped = max(x, lowest)
            n = np.floor(clamped * log2e + half)
            r = clamped - n * high
            r = r - n * low
            p = ((((p0 * r + p1) * r + p2) * r + p3) * r + p4) * r + p5
            p = p * (r * r) + (r + one)
            scale = _as_float(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))
            return p * scale if x >= lowest else np.float32(0.0)

        return exp32

    lowest64, high64, low64 = _LOWEST[64], _LN2_HIGH[64], _LN2_LOW[64]
    # Taylor to r^13: the remainder is below 1e-17 on |r| <= log(2)/2.
    c13, c12, c11, c10 = 1 / 6227020800, 1 / 479001600, 1 / 39916800, 1 / 3628800
    c9, c8, c7, c6 = 1 / 362880, 1 / 40320, 1 / 5040, 1 / 720
    c5, c4, c3 = 1 / 120, 1 / 24, 1 / 6

    def exp64(x):
        clamped = max(x, lowest64)
        n = np.floor(clamped * _LOG2E + 0.5)
        r = clamped - n * high64
        r = r - n * low64
        p = ((((c13 * r + c12) * r + c11) * r + c10) * r + c9) * r + c8
        p = ((((p * r + c7) * r + c6) * r + c5) * r + c4) * r + c3
        p = (p * r + 0.5) * (r * r) + (r + 1.0)
        scale = _as_float((np.int64(n) + np.int64(1023)) << np.int64(52))
        return p * scale if x >= lowest64 else 0.0

    return exp64
