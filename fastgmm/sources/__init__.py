"""Sources of rows."""

from fastgmm.sources.arrays import ArraySource, check_weights
from fastgmm.sources.base import Chunk, Source

__all__ = ["ArraySource", "Chunk", "Source", "check_weights"]
