"""EM and k-means as one writes them in PyTorch, by chunks of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..workloads import Array
from .base import Fitted, TensorAdapter, to_host

#: a torch.Tensor; torch is imported by what is called, so that this file can be read without it
Tensor = Any


@dataclass
class _State:
    weights: Tensor
    means: Tensor
    covariances: Tensor


class PlainTorch(TensorAdapter):
    """Matrix products wherever the formulas allow them.

    Full covariances centre the rows, the others expand the square: |x|^2 - 2 x mu + |mu|^2, which
    is one product for all components and loses digits.
    """

    name = "plain PyTorch"
    package = "torch"
    tasks = frozenset({"score", "predict", "fit", "kmeans"})
    structures = frozenset({"full", "tied", "diag", "spherical"})
    modes = ("highest", "medium")
    note = "eager, by chunks of rows; statistics in the precision of the rows"

    def prepare(self) -> None:
        self._score = self._scorer(self._start())

    def score(self, x: Tensor) -> Tensor:
        return self._of_rows(x, lambda log_prob: log_prob.logsumexp(dim=1))

    def predict(self, x: Tensor) -> Tensor:
        return self._of_rows(x, lambda log_prob: log_prob.argmax(dim=1))

    def fit(self, x: Tensor, n_iter: int) -> Fitted:
        state, x = self._start(), self.rows(x)
        with float32_products(self.mode):
            for _ in range(n_iter):
                state = self._iterate(x, state)
        return self.fitted(state.weights, state.means, state.covariances, n_iter)

    def kmeans(self, x: Tensor, n_iter: int) -> Array:
        import torch

        centres = self.own(self.parameters.means).clone()
        with float32_products(self.mode):
            for _ in range(n_iter):
                sums, counts = torch.zeros_like(centres), torch.zeros_like(centres[:, 0])
                half = 0.5 * (centres**2).sum(dim=1)
                for rows in self.chunks(self.rows(x), len(centres)):
                    labels = (rows @ centres.T - half).argmax(dim=1)
                    sums.index_add_(0, labels, rows)
                    counts += torch.bincount(labels, minlength=len(centres))
                found = counts > 0
                centres = torch.where(found[:, None], sums / counts.clamp(min=1)[:, None], centres)
        return to_host(centres)

    def _of_rows(self, x: Tensor, call: Callable[[Tensor], Tensor]) -> Tensor:
        import torch

        with float32_products(self.mode):
            return torch.cat([call(self._score(rows)) for rows in self._chunks(self.rows(x))])

    def _chunks(self, x: Tensor) -> Iterator[Tensor]:
        p = self.parameters
        yield from self.chunks(x, p.n_components * (p.n_features if p.structure == "full" else 1))

    def _start(self) -> _State:
        p = self.parameters
        return _State(self.own(p.weights), self.own(p.means), self.own(p.covariances))

    def _scorer(self, s: _State) -> Callable[[Tensor], Tensor]:
        """The function from rows to their weighted log-probabilities, (n, K)."""
        import torch

        structure, d = self.parameters.structure, s.means.shape[1]
        constant = s.weights.log() - 0.5 * d * math.log(2 * math.pi)
        if structure in ("full", "tied"):
            lower = torch.linalg.cholesky(s.covariances)
            eye = torch.eye(d, dtype=lower.dtype, device=lower.device).expand_as(lower)
            factor = torch.linalg.solve_triangular(lower, eye, upper=False).mT
            constant = constant + factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
            if structure == "full":
                return lambda rows: (
                    constant - 0.5 * (((rows - s.means[:, None]) @ factor) ** 2).sum(dim=2).T
                )
            means = s.means @ factor
            return lambda rows: constant - 0.5 * _squares(rows @ factor, means)
        if structure == "spherical":
            constant = constant - 0.5 * d * s.covariances.log()
            return lambda rows: constant - 0.5 * _squares(rows, s.means) / s.covariances
        constant = constant - 0.5 * s.covariances.log().sum(dim=1)
        precisions = 1 / s.covariances
        linear, rest = s.means * precisions, (s.means**2 * precisions).sum(dim=1)
        return lambda rows: constant - 0.5 * (rows**2 @ precisions.T - 2 * rows @ linear.T + rest)

    def _iterate(self, x: Tensor, s: _State) -> _State:
        import torch

        structure = self.parameters.structure
        score = self._scorer(s)
        counts, first = torch.zeros_like(s.weights), torch.zeros_like(s.means)
        shape = s.covariances.shape if structure in ("full", "tied") else s.means.shape
        second = torch.zeros(shape, dtype=x.dtype, device=x.device)
        for rows in self._chunks(x):
            resp = score(rows).softmax(dim=1)
            counts += resp.sum(dim=0)
            first += resp.T @ rows
            if structure == "full":
                centred = rows - s.means[:, None]
                second += (centred * resp.T[:, :, None]).mT @ centred
            elif structure == "tied":
                second += rows.T @ rows
            else:
                second += resp.T @ rows**2
        weights, means = counts / counts.sum(), first / counts[:, None]
        if structure == "full":
            shift = means - s.means
            covariances = second / counts[:, None, None] - shift[:, :, None] * shift[:, None, :]
        elif structure == "tied":
            covariances = second / counts.sum() - (means.T * weights) @ means
        else:
            covariances = second / counts[:, None] - means**2
            if structure == "spherical":
                covariances = covariances.mean(dim=1)
        if structure in ("full", "tied"):
            covariances.diagonal(dim1=-2, dim2=-1).add_(self.reg_covar)
        else:
            covariances = covariances + self.reg_covar
        return _State(weights, means, covariances)


def _squares(rows: Tensor, means: Tensor) -> Tensor:
    """|x - mu|^2 for every row and mean, expanded."""
    return (rows**2).sum(dim=1)[:, None] - 2 * rows @ means.T + (means**2).sum(dim=1)


@contextmanager
def float32_products(mode: str) -> Iterator[None]:
    """torch's own float32 products in this precision; "medium" and "high" are TF32 in cuBLAS."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(mode)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
