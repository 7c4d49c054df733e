"""Reading the next chunk while the present one is computed."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Item:
    value: Any


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def caller_stream() -> AbstractContextManager[Any]:
    """The CUDA stream of this thread, and with it the device, as a context for another one.

    torch has both by thread: what the reader puts on a device would be on another one, or not yet
    there when it is used.
    """
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return nullcontext()
    there: AbstractContextManager[Any] = cuda.stream(cuda.current_stream())
    return there


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Yield the items of an iterator that a thread of its own reads, one ahead.

    Two items exist at a time: the one in use and the next. An error of the iterator is raised here
    with its own traceback. Closing this generator ends the thread, once it has read what it is
    about to read.

    Parameters
    ----------
    items : iterator
        Only the thread touches it.

    Yields
    ------
    item
    """
    ready: queue.SimpleQueue[_Item | _End] = queue.SimpleQueue()
    wanted = threading.Semaphore(1)
    stop = threading.Event()
    reader = threading.Thread(
        target=_read,
        args=(items, ready, wanted, stop, caller_stream()),
        name="fastgmm-reader",
        daemon=True,
    )
    reader.start()
    try:
        while isinstance(got := ready.get(), _Item):
            wanted.release()
            value = got.value
            del got
            yield value
            del value
        if got.error is not None:
            raise got.error
    finally:
        stop.set()
        wanted.release()
        reader.join()


def _read(
    items: Iterator[Any],
    ready: queue.SimpleQueue[_Item | _End],
    wanted: threading.Semaphore,
    stop: threading.Event,
    stream: AbstractContextManager[Any],
) -> None:
    error: BaseException | None = None
    try:
        with stream:
            while True:
                wanted.acquire()
                if stop.is_set():
                    break
                try:
                    ready.put(_Item(next(items)))
                except StopIteration:
                    break
    except BaseException as caught:  # noqa: BLE001
        error = caught
    finally:
        # A generator holds files open, and this thread is the one that may run it.
        close = getattr(items, "close", None)
        if close is not None:
            close()
        ready.put(_End(error))
