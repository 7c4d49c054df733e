"""What a fit on a GPU remembers of the rows between passes: their labels, and whether they help."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from fastgmm.backends.ordering import REST, WORTH

Tensor: TypeAlias = torch.Tensor


class RowOrder:
    """Labels of the rows of one chunk from the last pass over them, (n,) int32, or None.

    As on the CPU an order that saves too little is given up for a while. What a pass visited is
    counted on the device and copied while the M-step runs; the next pass looks at it. A fit has
    waited for more by then, so this is no wait of its own.
    """

    def __init__(self) -> None:
        self.labels: Tensor | None = None
        self._rest = 0
        self._unordered = 1.0
        # Visited share on the host, what tells that it is there, and whether rows were in order.
        self._last: tuple[Tensor, Any, bool] | None = None

    def wanted(self) -> bool:
        """Whether the next pass shall read rows by label, where there are any, and note labels."""
        if self._last is not None:
            share, there, ordered = self._last
            if there is not None:
                there.synchronize()
            self._last, visited = None, float(share)
            if not ordered:
                self._unordered = visited
            elif visited > (1 - WORTH) * self._unordered:
                self.labels, self._rest = None, REST
        if self._rest > 0:
            self._rest -= 1
            return False
        return True

    @property
    def dense(self) -> bool:
        """Whether most pairs matter without an order: then to look for others is in vain."""
        return self._unordered > 1 - WORTH

    def note(self, labels: Tensor, visited: Tensor, *, ordered: bool) -> None:
        """Keep the labels of a pass, and the share of the pairs () that it could not leave out."""
        cuda = visited.device.type == "cuda"
        share = torch.empty((), dtype=visited.dtype, device="cpu", pin_memory=cuda)
        share.copy_(visited, non_blocking=True)
        there = torch.cuda.current_stream(visited.device).record_event() if cuda else None
        self.labels, self._last = labels, (share, there, ordered)
