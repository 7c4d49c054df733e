"""Sources of rows: whatever yields chunks, as often as it is asked."""

from fastgmm.sources.arrays import ArraySource, check_weights
from fastgmm.sources.base import Chunk, Source
from fastgmm.sources.batches import batch_rows
from fastgmm.sources.files import read_npy, read_parquet, read_path
from fastgmm.sources.joined import Joined
from fastgmm.sources.opening import is_stream, open_source
from fastgmm.sources.stream import Reader, StreamSource

__all__ = [
    "ArraySource",
    "Chunk",
    "Joined",
    "Reader",
    "Source",
    "StreamSource",
    "batch_rows",
    "check_weights",
    "is_stream",
    "open_source",
    "read_npy",
    "read_parquet",
    "read_path",
]
