"""The one place where Numba's options are fixed.

``kernel`` compiles a helper that runs inside a pass. ``Driver`` is a whole pass over rows: the same
source compiled in parallel and, for small inputs and forked children, without threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import types as pytypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import types

# No "nnan", no "ninf": log-weights are -inf for empty components, and isnan must keep meaning.
FASTMATH: Any = {"reassoc", "contract", "arcp", "nsz"}
OPTIONS: dict[str, Any] = {
    "fastmath": FASTMATH,
    "error_model": "numpy",
    "boundscheck": False,
    "nogil": True,
}

_log = logging.getLogger("fastgmm_kernels")

# Numba threads must not be entered by two Python threads at once under its workqueue layer,
# and two passes side by side would only share the same cores anyway.
_launch = threading.Lock()


def _fingerprint() -> str:
    """Hash of all kernel sources: after an edit no caller may keep stale machine code."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_FINGERPRINT = _fingerprint()


@contextlib.contextmanager
def _forgiving() -> Iterator[None]:
    """Go on where the disk is full or the cache cannot be read: what is lost is a compilation."""
    try:
        yield
    except OSError as error:
        _log.info("a compiled kernel is neither kept nor taken from the cache: %s", error)


def _compile(function: Callable[..., Any], **options: Any) -> Any:
    """Decorate ``function``, cached on disk where a cache folder can be written."""
    dispatcher = numba.njit(**{**OPTIONS, **options})(function)
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # no writable cache folder: compile in memory
        return dispatcher
    # Numba lets an error of the disk through, which would end the pass that was to be compiled.
    dispatcher._cache._guard_against_spurious_io_errors = _forgiving
    file = getattr(dispatcher._cache, "_cache_file", None)
    if file is not None:
        # Numba stamps an entry with its own file only; helpers live in other files.
        file._source_stamp = (file._source_stamp, _FINGERPRINT)
    return dispatcher


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a helper that is called from passes: it has no threads and allocates nothing.

    It counts no references either. Each call would count those of all its arrays, most of which
    all threads share: more work than many a helper does.
    """
    return _compile(function, _nrt=False)


def embedded(function: Callable[..., Any]) -> Any:
    """As :func:`kernel`, compiled into its callers: for what is called once per few loops."""
    return _compile(function, _nrt=False, forceinline=True)


def ordered(function: Callable[..., Any]) -> Any:
    """As :func:`kernel`, for additions that must keep their order, which may change elsewhere."""
    return _compile(function, _nrt=False, fastmath=False)


def allocating(function: Callable[..., Any]) -> Any:
    """Compile a helper that returns new arrays."""
    return _compile(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a helper into each of its callers: its results stay in their registers."""
    options: dict[str, Any] = {"inline": "always", "_nrt": False, **OPTIONS}
    return numba.njit(**options)(function)


class Driver:
    """A pass over rows, compiled per dtype on first use.

    The first argument is the rows ``x``; it is typed as read-only with any strides, so that one
    compilation serves every layout. All other arrays are C-contiguous and writable. What remains
    are the dtypes and dimensions of the arrays: one compilation each.

    Called with ``threads=n`` the pass runs on at most n of Numba's threads, with 0 on the calling
    one. The work is cut into the same blocks either way.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        serial = pytypes.FunctionType(
            function.__code__, function.__globals__, function.__name__ + "_serial"
        )
        # Numba's cache files are named after the qualified name: two compilations of one
        # source need two names.
        serial.__qualname__ = function.__qualname__ + "_serial"
        serial.__module__ = function.__module__
        self._sources: dict[bool, Callable[..., Any]] = {True: function, False: serial}
        self._compiled: dict[tuple[Any, ...], Any] = {}

    def _get(self, parallel: bool, args: tuple[Any, ...]) -> Any:
        key = (parallel, *[(a.dtype.num, a.ndim) for a in args if type(a) is np.ndarray])
        compiled = self._compiled.get(key)
        if compiled is None:
            signature = []
            for position, value in enumerate(args):
                kind = numba.typeof(value)
                if position == 0:
                    kind = types.Array(kind.dtype, kind.ndim, "A", readonly=True)
                signature.append(kind)
            compiled = _compile(self._sources[parallel], parallel=parallel)
            compiled.compile(tuple(signature))
            compiled.disable_compile()
            self._compiled[key] = compiled
        return compiled

    def __call__(self, *args: Any, threads: int) -> Any:
        compiled = self._get(threads > 0, args)
        if not threads:
            return compiled(*args)
        with _launch:
            allowed = numba.get_num_threads()
            if threads >= allowed:
                return compiled(*args)
            numba.set_num_threads(threads)
            try:
                return compiled(*args)
            finally:
                numba.set_num_threads(allowed)


driver = Driver
