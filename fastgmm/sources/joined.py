"""Rows in several places as one source: on many devices, on the host, in files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, zip_longest
from typing import Any, TypeVar

from fastgmm import frames
from fastgmm.arrays import Array, working_dtype
from fastgmm.errors import InputError
from fastgmm.sources.arrays import ArraySource
from fastgmm.sources.base import Chunk, Source, counted
from fastgmm.sources.items import as_rows
from fastgmm.sources.opening import is_stream, open_source

T = TypeVar("T")


class Joined(Source):
    """The rows of several parts, one after the other, each computed where it lies.

    With a tensor on each of many GPUs a fit uses all of them: a pass runs on each, and the sums are
    added on the device of the first part, where the parameters are. Results per row are of the kind
    and on the device of the first part too, in the order of the rows. The same parts give the same
    bits.

    Parameters
    ----------
    parts : iterable
        Arrays, tensors or tables (n, D), tuples of such and weights (n,), or whatever else
        :func:`fastgmm.sources.open_source` takes, if it knows its number of rows. All have the
        same features and precision.
    batch_size : int or str, optional
        Rows per chunk, or their size such as "64MB"; by default all rows of an array at once.

    Raises
    ------
    InputError
        If there is no part, or the parts do not fit together.

    Notes
    -----
    As with rows that are not in memory, "kmeans" and "k-means++" choose first centroids among a
    random sample of max(16384, 32 K) rows.

    In a fit devices take their chunks in turns, and side by side. A part on the host keeps this
    process busy until its pass is done: name it last. Scores are computed part by part.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import GaussianMixture
    >>> from fastgmm.sources import Joined
    >>> X = np.random.default_rng(0).standard_normal((100, 2))
    >>> parts = Joined([X[:70], X[70:]])
    >>> mixture = GaussianMixture(random_state=0).fit(parts)
    >>> mixture.predict(parts).shape
    (100,)
    """

    def __init__(self, parts: Iterable[Any], batch_size: int | str | None = None) -> None:
        self._parts = [_opened(part, i, batch_size) for i, part in enumerate(parts)]
        if not self._parts:
            raise InputError("Joined has no parts; expected at least one.")
        first = self._parts[0]
        named = next((part for part in self._parts if part.names is not None), first)
        for i, part in enumerate(self._parts):
            # Names that are not known may be any.
            names = part.names or named.names
            mine, theirs = (*_facts(part), names), (*_facts(first), named.names)
            if mine != theirs:
                raise InputError(
                    f"part {i} has rows with (features, dtype, names) {mine}, others {theirs}. "
                    "They must be equal."
                )
            # As given: they are scaled by the mean over all parts.
            part.scale_weights(1.0)
        self._starts = [0, *accumulate(part.n_rows for part in self._parts)]
        self.n_rows, self.n_features = self._starts[-1], first.n_features
        self.dtype, self.home, self.names = first.dtype, first.home, named.names
        self.resident = all(part.resident for part in self._parts)

    @property
    def homes(self) -> tuple[str | None, ...]:
        """The homes of the parts, each once."""
        return tuple(dict.fromkeys(home for part in self._parts for home in part.homes))

    def _of_part(self, number: int) -> Iterator[Chunk]:
        """The chunks of a part, with the numbers that their rows have among all."""
        for chunk in self._parts[number]:
            yield counted(chunk, self._starts[number], self.weight_scale)

    def __iter__(self) -> Iterator[Chunk]:
        for number in range(len(self._parts)):
            yield from self._of_part(number)

    def fold(self, run: Callable[[Iterable[Chunk]], T]) -> T:
        # In turns, so that no device waits until the host has gone through the parts of others.
        turns = zip_longest(*map(self._of_part, range(len(self._parts))))
        return run(chunk for turn in turns for chunk in turn if chunk is not None)

    def place(self, where: Callable[[Array], Array]) -> None:
        for part in self._parts:
            part.place(where)
        self.dtype = self._parts[0].dtype

    def scale_weights(self, scale: float) -> None:
        self.weight_scale = scale
        for part in self._parts:
            part.scale_weights(scale)

    def close(self) -> None:
        for part in self._parts:
            part.close()


def _opened(part: Any, number: int, batch_size: int | str | None) -> Source:
    if is_stream(part):
        return open_source(part, None, batch_size)
    x, weight = as_rows(part, f"part {number} of the rows")
    source = ArraySource(x, weight, batch_size)
    rows = part[0] if isinstance(part, tuple) else part
    if frames.is_frame(rows):
        source.names = tuple(frames.names(rows))
    return source


def _facts(part: Source) -> tuple[Any, ...]:
    return part.n_features, str(working_dtype(part.dtype))
