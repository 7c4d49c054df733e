"""How exactly float32 products are formed, by target."""

from __future__ import annotations

import triton

from .tile import _load_rows

# Operands are split into a high and a low part inside the kernel (tf32x3, bf16x3), and not stored
# split: factors then cross the caches once, and the parts never leave registers and shared memory.
# AMD's matrix units take float32 itself.
_PRECISIONS = {
    "cuda": {"highest": "tf32x3", "high": "bf16x3", "medium": "tf32"},
    "hip": {"highest": "ieee", "high": "bf16x3", "medium": "bf16x3"},
}
# The first capability whose matrix units take TF32 and bfloat16.
_TF32 = 80


def input_precision(precision, vendor, capability):
    """What ``tl.dot`` calls the precision "highest", "high" or "medium" of float32 products."""
    if vendor == "cuda" and capability < _TF32:
        return "ieee"
    if interpreted() and precision == "high":
        return "tf32x3"  # the interpreter knows no bf16x3, and computes in float32 anyway
    return _PRECISIONS[vendor][precision]


def interpreted():
    """Whether kernels run in Triton's interpreter: decided when triton was imported."""
    return not isinstance(_load_rows, triton.runtime.JITFunction)
