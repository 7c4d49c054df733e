"""Rows and results that lie elsewhere: chunks over a copy stream through two pinned buffers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch

from fastgmm.arrays import is_tensor, to_tensor

Tensor: TypeAlias = torch.Tensor


def slices(n_rows: int, size: int) -> Iterator[slice]:
    """Consecutive parts of at most ``size`` rows."""
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


def on_device(x: Any, device: torch.device) -> bool:
    """Whether rows can be read where they are."""
    return is_tensor(x) and x.device == device


def torch_dtype(x: Any) -> torch.dtype:
    """The dtype of a NumPy array or a tensor, in torch's words."""
    if is_tensor(x):
        return x.dtype
    return getattr(torch, np.dtype(x.dtype).name)


def result_dtype(x: Any) -> torch.dtype:
    """Results per row have the dtype of the rows; half precision gives float32."""
    return torch.float64 if torch_dtype(x) == torch.float64 else torch.float32


def _fill(buffer: Tensor, x: Any) -> None:
    """Copy host rows of any strides, read-only ones too, into host memory."""
    if is_tensor(x):
        buffer.copy_(x)
    else:
        np.copyto(buffer.numpy(), x, casting="same_kind")


def move(x: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor of the values on the device; waits for nothing that is there already."""
    return to_tensor(x, str(device)).to(dtype)


def chunks(x: Any, size: int, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """Parts of the rows on the device, each valid until the next is asked for.

    Rows of the host are copied while the part before is worked on.
    """
    if on_device(x, device):
        for rows in slices(len(x), size):
            yield rows, x[rows]
        return
    n_rows, n_features = x.shape
    size = min(size, n_rows)
    shape, dtype, cuda = (size, n_features), torch_dtype(x), device.type == "cuda"
    # On the host whatever the default device of torch is.
    buffers = [
        torch.empty(shape, dtype=dtype, device="cpu", pin_memory=cuda)
        for _ in range(2 if cuda else 1)
    ]
    if not cuda:
        for rows in slices(n_rows, size):
            part = buffers[0][: rows.stop - rows.start]
            _fill(part, x[rows])
            yield rows, part
        return
    there = [torch.empty(shape, dtype=dtype, device=device) for _ in range(2)]
    copying, working = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    copied = [torch.cuda.Event() for _ in range(2)]
    worked = [torch.cuda.Event() for _ in range(2)]
    # What the buffers on the device were used for before may not have ended yet.
    copying.wait_stream(working)

    def start(rows: slice, i: int) -> None:
        n = rows.stop - rows.start
        copied[i].synchronize()
        _fill(buffers[i][:n], x[rows])
        with torch.cuda.stream(copying):
            copying.wait_event(worked[i])
            there[i][:n].copy_(buffers[i][:n], non_blocking=True)
            copied[i].record(copying)

    try:
        parts = list(slices(n_rows, size))
        start(parts[0], 0)
        for number, rows in enumerate(parts):
            i = number % 2
            if number + 1 < len(parts):
                start(parts[number + 1], 1 - i)
            working.wait_event(copied[i])
            yield rows, there[i][: rows.stop - rows.start]
            worked[i].record(working)
    finally:
        # The buffers go back to pools that do not know of the copy stream.
        copying.synchronize()


class Results:
    """Results per row, of the kind and on the device of the rows.

    Parameters
    ----------
    x : ndarray or Tensor
        The rows.
    shape : tuple of int
        Of the results, rows first.
    dtype : torch.dtype
    device : torch.device
        Where they are computed.
    """

    def __init__(
        self, x: Any, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> None:
        self._numpy = not is_tensor(x)
        self._there = on_device(x, device)
        self._device = device
        self._all = torch.empty(shape, dtype=dtype, device=device if self._there else "cpu")
        self._under_way: deque[tuple[slice, Tensor, Any]] = deque()

    def part(self, rows: slice) -> Tensor:
        """Where to write the results of some rows."""
        part = self._all[rows]
        return part if self._there else torch.empty_like(part, device=self._device)

    def put(self, rows: slice, part: Tensor) -> None:
        """What :meth:`part` gave has been written."""
        if self._there:
            return
        if self._device.type != "cuda":
            self._all[rows] = part
            return
        buffer = torch.empty(part.shape, dtype=part.dtype, device="cpu", pin_memory=True)
        buffer.copy_(part, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._under_way.append((rows, buffer, event))
        if len(self._under_way) > 1:
            self._settle()

    def _settle(self) -> None:
        rows, buffer, event = self._under_way.popleft()
        event.synchronize()
        self._all[rows] = buffer

    def array(self) -> Any:
        """All results."""
        while self._under_way:
            self._settle()
        return self._all.numpy() if self._numpy else self._all
