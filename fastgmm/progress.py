"""What a fit says while it runs: scikit-learn's lines, and a progress bar."""

from __future__ import annotations

import sys
from time import perf_counter

from tqdm import tqdm

from fastgmm.em import EMState


class Progress:
    """Callback that reports iterations.

    Lines on standard output are those of scikit-learn. With ``verbose=1`` a bar on standard error
    shows iteration, log-likelihood, change and rows per second; with 2 the lines carry times.

    Parameters
    ----------
    verbose, verbose_interval : int
        As in :class:`fastgmm.GaussianMixture`.
    max_iter : int
    n_rows : int
        Rows per iteration.
    """

    def __init__(self, verbose: int, verbose_interval: int, max_iter: int, n_rows: int) -> None:
        self._verbose = int(verbose)
        self._interval = verbose_interval
        self._max_iter = max_iter
        self._n_rows = n_rows
        self._bar: tqdm | None = None
        self._began = self._last = 0.0

    def _line(self, text: str) -> None:
        # Through tqdm, so that a bar on the same terminal is not broken.
        tqdm.write(text, file=sys.stdout)

    def begin(self, init: int) -> None:
        """Announce a start."""
        if not self._verbose:
            return
        self._began = self._last = perf_counter()
        self._line(f"Initialization {init}")
        if self._verbose == 1:
            self._bar = tqdm(
                total=self._max_iter, desc=f"EM {init}", unit="it", file=sys.stderr, leave=True
            )

    def __call__(self, state: EMState) -> None:
        """Report one iteration."""
        if not self._verbose:
            return
        now = perf_counter()
        if self._bar is not None:
            self._bar.set_postfix(
                log_likelihood=f"{state.lower_bound:.5f}",
                change=f"{state.change:.2e}",
                rows_per_s=f"{self._n_rows / max(now - self._last, 1e-9):.3g}",
                refresh=False,
            )
            self._bar.update()
        if state.iteration % self._interval == 0:
            line = f"  Iteration {state.iteration}"
            if self._verbose >= 2:
                line += f"\t time lapse {now - self._last:.5f}s\t ll change {state.change:.5f}"
            self._line(line)
        self._last = now

    def end(self, lower_bound: float, converged: bool) -> None:
        """Report the end of a start."""
        if not self._verbose:
            return
        self.close()
        outcome = "converged" if converged else "did not converge"
        line = f"Initialization {outcome}."
        if self._verbose >= 2:
            seconds = perf_counter() - self._began
            line += f" time lapse {seconds:.5f}s\t lower bound {lower_bound:.5f}."
        self._line(line)

    def close(self) -> None:
        """End the bar, also after an error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
