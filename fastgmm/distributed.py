"""One fit by many processes, each with rows of its own: one all-reduce of torch's per pass."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import fields, is_dataclass, replace
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np

from fastgmm.arrays import Array, is_tensor, like, to_numpy, to_tensor
from fastgmm.errors import (
    BackendUnavailableError,
    DistributedError,
    InputError,
    SingularCovarianceError,
)
from fastgmm.sources import Chunk, Reader, Source
from fastgmm.sources.base import counted
from fastgmm.sources.files import read_path

T = TypeVar("T")
Opener = Callable[[Any, Any], Source]

__all__ = ["Sharded", "shard"]


class Sharded(Source):
    """The rows of all processes of a group, of which each has its own.

    Every process of the group calls ``fit`` with a ``Sharded`` of its rows and equal settings, and
    ends with the same model: from the same start that of a fit to all rows together, to rounding.
    "kmeans" and "k-means++" choose first centroids among a random sample of max(16384, 32 K) rows,
    as where rows are not in memory; the steps of ``warm_up`` are those of rank 0 with its rows. The
    random state is that of rank 0. An error in one process ends the fit in all. Nothing but ``fit``
    takes it: to score or label rows give each process its own.

    Parameters
    ----------
    X : rows as ``fit`` takes them, or None
        The rows of this process; None if it has none.
    sample_weight : array-like of shape (n,), optional
        Weights of these rows.
    group : torch.distributed.ProcessGroup, optional
        All processes by default.

    Raises
    ------
    BackendUnavailableError
        If torch.distributed has not been initialised.

    Examples
    --------
    In a program that ``torchrun --nproc-per-node=4 program.py`` starts::

        torch.distributed.init_process_group("gloo")
        mixture = GaussianMixture(16).fit(fastgmm.distributed.shard("rows.npy"))
        torch.distributed.destroy_process_group()
    """

    shared = True

    def __init__(self, X: Any = None, sample_weight: Any = None, *, group: Any = None) -> None:
        self._group = _Group(group)
        self._given = (X, sample_weight)
        self._local: Source | None = None
        self._starts: list[int] | None = None
        self._over = False
        self._all_have_rows = True
        self.own = to_numpy
        self.leader = self._group.rank == 0
        self.n_rows = 0

    @property
    def reduced_bytes(self) -> int:
        """Bytes of this process's statistics that all-reduces have taken so far."""
        return self._group.reduced_bytes

    def begin(self) -> AbstractContextManager[None]:
        """A context for what may fail in one process before :meth:`open`: all learn of it."""
        self._over = False
        return _Told(self)

    def open(self, opener: Opener, settings: Mapping[str, object]) -> None:
        """Open this process's rows; all must agree on settings and features.

        Parameters
        ----------
        opener : callable
            Gives a source of rows and weights.
        settings : mapping
            What must be equal everywhere.

        Raises
        ------
        InputError, DistributedError
        """
        X, weight = self._given
        self._starts, self.weight_scale = None, 1.0
        with _Told(self):
            if isinstance(X, _Share):
                X = X.reader()
            empty = X is None or (hasattr(X, "shape") and X.shape[0] == 0)
            self._local = None if empty else opener(X, weight)
        local = self._local
        mine = None if local is None else (local.n_features, str(local.dtype), local.names)
        told = self._group.gather((dict(settings), mine))
        for rank, (theirs, _) in enumerate(told):
            other = {k: v for k, v in theirs.items() if v != told[0][0].get(k)}
            if other:
                self._over = True
                raise InputError(
                    f"rank {rank} fits with {other}, rank 0 with "
                    f"{ {k: told[0][0].get(k) for k in other} }. Settings must be equal everywhere."
                )
        found = [(rank, facts) for rank, (_, facts) in enumerate(told) if facts is not None]
        if not found:
            self._over = True
            raise InputError("there are no rows: every process has None or 0 of them.")
        first, facts = found[0]
        for rank, other_facts in found:
            if other_facts != facts:
                self._over = True
                raise InputError(
                    f"rank {rank} has rows with (features, dtype, names) {other_facts}, rank "
                    f"{first} {facts}. They must be equal."
                )
        self._all_have_rows = len(found) == len(told)
        self.n_features, dtype, self.names = facts
        self.dtype = np.dtype(np.float64 if "64" in dtype else np.float32)
        if local is not None:
            self.dtype, self.home, self.resident = local.dtype, local.home, local.resident
            # As given: they are scaled by the mean over all processes.
            local.scale_weights(1.0)

    @property
    def homes(self) -> tuple[str | None, ...]:
        """Those of this process's rows."""
        return super().homes if self._local is None else self._local.homes

    def place(self, where: Callable[[Array], Array]) -> None:
        if self._local is not None:
            self._local.place(where)
            self.dtype = self._local.dtype

    def scale_weights(self, scale: float) -> None:
        self.weight_scale = scale
        if self._local is not None:
            self._local.scale_weights(scale)

    def __iter__(self) -> Iterator[Chunk]:
        """This process's chunks, with the numbers that their rows have among all."""
        start = 0 if self._starts is None else self._starts[self._group.rank]
        for chunk in self._local if self._local is not None else ():
            yield counted(chunk, start, self.weight_scale)

    def fold(self, run: Callable[[Iterable[Chunk]], T]) -> T:
        value: T | None = None
        with _Told(self):
            if self._local is not None:
                value = super().fold(run)
        if self._starts is None:
            mine = 0 if self._local is None else self._local.n_rows
            counts = self._group.gather(mine)
            self._starts = [0, *accumulate(counts)]
            self.n_rows = self._starts[-1]
        return self._sum(value)

    def pool(self, value: T) -> T:
        return self._sum(value, everywhere=True)

    def anywhere(self, flag: bool) -> bool:
        return self.tell(None, flag)

    def _sum(self, value: Any, *, everywhere: bool = False) -> Any:
        if hasattr(value, "to_buffer") and self._all_have_rows:
            return value.from_buffer(self._group.all_reduce(value.to_buffer()))
        # A process without rows does not know the shape of a sum, and what has no flat form is
        # small: all get all, and add in the same order. On the host: a tensor would come back on
        # the device of the process that sent it. The backend knows where sums live: those of
        # NumPy rows may be tensors, and those of tensors NumPy arrays.
        values = self._group.gather(mapped(value, lambda tensor: tensor.cpu()))
        total = functools.reduce(operator.add, (v for v in values if v is not None or everywhere))
        return mapped(total, self.own)

    def agree(self, make: Callable[[], T]) -> T:
        value: Any = None
        error: SingularCovarianceError | None = None
        with _Told(self):
            if self.leader:
                try:
                    value = make()
                except SingularCovarianceError as caught:
                    # A fit may have other starts: all get the error, and go on to the next.
                    error = caught
        value, error = self._group.broadcast((value, error))
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        if self._local is not None:
            self._local.close()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.close()
        self.tell(error)

    def tell(self, error: BaseException | None, flag: bool = False) -> bool:
        """Let all processes know whether this one can go on.

        Parameters
        ----------
        error : exception or None
            Why it cannot.
        flag : bool

        Returns
        -------
        anywhere : bool
            Whether the flag is set in any process.

        Raises
        ------
        DistributedError
            If another cannot go on, or could not before.
        """
        if self._over or self._group.lost:
            if error is None:
                raise DistributedError("this fit has been ended on all ranks by an error before.")
            return False
        failed, flagged = self._group.count(error is not None, flag)
        if not failed:
            return flagged > 0
        self._over = True
        texts = self._group.gather(None if error is None else f"{type(error).__name__}: {error}")
        if error is None:
            reasons = [f"rank {rank} failed: {t}" for rank, t in enumerate(texts) if t is not None]
            raise DistributedError(
                f"the fit was ended on all {len(texts)} ranks because " + "\n".join(reasons)
            )
        return False


def mapped(value: Any, function: Callable[[Array], Array]) -> Any:
    """A value with a function applied to its tensors, be it one or a dataclass of such."""
    if is_tensor(value):
        return function(value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    parts = {field.name: getattr(value, field.name) for field in fields(value)}
    return replace(value, **{name: mapped(part, function) for name, part in parts.items()})


class _Told:
    """A block whose end, good or bad, all processes learn of before any goes on."""

    def __init__(self, source: Sharded) -> None:
        self._source = source

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._source.tell(error)


class _Group:
    """The collectives that a fit needs."""

    def __init__(self, group: Any) -> None:
        import torch
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            raise BackendUnavailableError(
                "Sharded rows need processes that know each other: start the program with "
                "torchrun and call torch.distributed.init_process_group('gloo') first, or 'nccl'."
            )
        self._dist, self._group = dist, group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._device = "cpu"
        if dist.get_backend(group) == "nccl":
            # As torch itself does with objects.
            self._device = f"cuda:{torch.cuda.current_device()}"
        self.reduced_bytes = 0
        # True after a collective that failed: the others cannot be told anything any more.
        self.lost = False

    def _run(self, operation: Callable[..., Any], *args: Any, **options: Any) -> None:
        self.lost = True
        try:
            operation(*args, group=self._group, **options)
        except RuntimeError as error:
            raise DistributedError(
                f"rank {self.rank} of {self.size}: the processes of this fit have lost each other, "
                f"by an end of one or by its time limit: {error}"
            ) from error
        self.lost = False

    def count(self, *flags: bool) -> list[int]:
        """For each flag, of 4 bytes, the number of processes where it is set."""
        numbers = to_tensor(np.array(flags, dtype=np.int32), self._device)
        self._run(self._dist.all_reduce, numbers)
        return numbers.tolist()

    def all_reduce(self, buffer: Array) -> Array:
        """Sum of flat buffers of equal lengths, the same bits everywhere; may write to its own."""
        self.reduced_bytes += len(buffer) * buffer.dtype.itemsize
        sums = to_tensor(buffer, self._device)
        self._run(self._dist.all_reduce, sums)
        return like(sums, buffer)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        values: list[Any] = [None] * self.size
        self._run(self._dist.all_gather_object, values, value)
        return values

    def broadcast(self, value: T) -> T:
        """The value of rank 0."""
        values = [value]
        source = 0 if self._group is None else self._dist.get_global_rank(self._group, 0)
        self._run(self._dist.broadcast_object_list, values, src=source)
        return values[0]


def shard(path: str | os.PathLike[str], *, group: Any = None) -> Sharded:
    """This process's share of a .npy file, a .parquet file or a folder of such.

    Rows of a .npy file are shared out evenly, those of Parquet by row groups.

    Parameters
    ----------
    path : path-like
        The same in every process.
    group : torch.distributed.ProcessGroup, optional

    Returns
    -------
    rows : Sharded
    """
    return Sharded(_Share(path, _Group(group)), group=group)


class _Share:
    """A share of a file that is opened with the rest of the fit, so that errors reach all."""

    def __init__(self, path: str | os.PathLike[str], group: _Group) -> None:
        self._path, self._part = path, (group.rank, group.size)

    def reader(self) -> Reader | None:
        """Its reader; None if there are fewer rows than processes."""
        reader = read_path(self._path, self._part)
        return reader if reader.n_rows else None
