"""The one place where Triton's options are fixed: ``kernel`` compiles what passes launch."""

from __future__ import annotations

import functools

import triton

# Counts that differ from chunk to chunk. By default Triton compiles a kernel anew for each that is
# 1 or a multiple of 16. Strides, widths and numbers of components stay as they are, for they decide
# how memory is read.
_COUNTS = ("n_rows", "n_tiles", "n_groups", "n_draws", "per_split", "per_group", "early")

kernel = functools.partial(triton.jit, do_not_specialize=_COUNTS)
