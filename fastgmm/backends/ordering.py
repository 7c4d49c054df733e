"""What a fit remembers of the rows between passes: an order in which neighbours are alike."""

from __future__ import annotations

import numpy as np

Array = np.ndarray

# Passes without an order after one that did not pay.
REST = 16
# Share of the pairs that an order must save to pay for the reading of rows out of turn.
WORTH = 0.2


class RowOrder:
    """Rows of one chunk ordered by the label of an earlier pass.

    A pass in this order meets few components per tile and skips the others. The rows themselves
    stay where they are. Where most pairs matter in any order it is given up for a while.

    Attributes
    ----------
    labels : ndarray of shape (n,) or (0,)
        The labels that ``index`` was made from.
    index : ndarray of shape (n,) or (0,)
        Row numbers by label; empty for no order.
    """

    def __init__(self) -> None:
        self.labels = np.empty(0, np.int32)
        self.index = np.empty(0, np.int32)
        self._rest = 0
        self._unordered = 1.0

    def wants_labels(self, n_rows: int) -> bool:
        """Whether the next pass shall write the labels, for an order after it."""
        if self._rest > 0:
            self._rest -= 1
            return False
        if len(self.labels) != n_rows:
            # A chunk of another length is another chunk.
            self.labels, self.index = np.zeros(n_rows, np.int32), np.empty(0, np.int32)
        return True

    def worth(self, visited: float) -> bool:
        """Take note of the share of pairs that a pass visited; whether to order by its labels."""
        if len(self.index) == 0:
            self._unordered = visited
        elif visited > (1 - WORTH) * self._unordered:
            self.index = np.empty(0, np.int32)
            self._rest = REST
            return False
        return True
