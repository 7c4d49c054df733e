"""Chunks of rows that add to the same totals: the sums are those of the chunks by themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import helpers
from fastgmm import covariance
from fastgmm.backends import sizes, totals
from fastgmm.backends.cpu import CPUBackend
from fastgmm.backends.ordering import RowOrder
from fastgmm.backends.reference import ReferenceBackend
from fastgmm.model import MixtureModel
from fastgmm.statistics import pairwise_sum
from fastgmm_kernels import cpu as kernels

LENGTHS = {
    "one": [9001],
    "equal": [16_384, 16_384, 8_209],
    "growing": [1, 100, 20_000, 20_001, 5, 700],
    "many": [3] * 70,
}


def problem(structure, dtype, lengths):
    """Rows of a model, their weights, and both by chunk."""
    x, start, rng = helpers.problem(structure, dtype, n=sum(lengths), k=5, d=7)
    given = (start.weights, start.means, start.covariances)
    model = MixtureModel.from_covariances(*given, covariance.get(structure))
    weight = rng.uniform(0.5, 1.5, size=len(x))
    cuts = itertools.pairwise([0, *itertools.accumulate(lengths)])
    return model, x, weight, [(x[a:b], weight[a:b], None) for a, b in cuts]


def assert_same(found, expected, dtype):
    rtol = helpers.tolerance(dtype, 1e-11, 1e-4)
    for name in ("counts", "first", "second", "log_likelihood", "weight"):
        a, b = (np.asarray(getattr(s, name)) for s in (found, expected))
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max(initial=1), err_msg=name)
    assert found.n_rows == expected.n_rows
    assert found.about is expected.about


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=list(LENGTHS))
@pytest.mark.parametrize("room", [sizes.TOTAL_BYTES, 6000], ids=["blocks", "shared"])
def test_a_run_is_the_sum_of_its_chunks(structure, dtype, lengths, room, monkeypatch):
    # With so little room large chunks share one set of totals, and small ones have a block.
    monkeypatch.setattr(sizes, "TOTAL_BYTES", room)
    model, x, weight, chunks = problem(structure, dtype, lengths)
    backend = CPUBackend()
    prepared = backend.prepare(model, dtype)
    found = backend.accumulate_all(prepared, iter(chunks))
    assert_same(found, pairwise_sum(backend.accumulate(prepared, *c[:2]) for c in chunks), dtype)
    assert_same(found, ReferenceBackend().accumulate(model, x, weight), dtype)
    again = backend.accumulate_all(prepared, iter(chunks))
    assert again.to_buffer().tobytes() == found.to_buffer().tobytes()


@pytest.mark.parametrize(
    ("lengths", "joins"),
    [
        ([16_384] * 5 + [9_000], 1),
        ([16_384] * 5 + [5_000], 2),
        ([4_096, 16_384, 16_384], 2),
        ([7] * totals._CHUNKS, 1),
        ([7] * (totals._CHUNKS + 1), 2),
    ],
)
def test_blocks_are_joined_once_per_run(lengths, joins, monkeypatch):
    model, _, _, chunks = problem("full", np.float64, lengths)
    calls = []
    plain = kernels.join_totals
    monkeypatch.setattr(kernels, "join_totals", lambda *a, **b: calls.append(1) or plain(*a, **b))
    backend = CPUBackend()
    backend.accumulate_all(backend.prepare(model, np.float64), chunks)
    assert len(calls) == joins


@pytest.mark.parametrize("n_blocks", [1, 3])
@pytest.mark.parametrize("n_features", [1, 3, 8, 17])
def test_joined_totals(n_blocks, n_features):
    rng = np.random.default_rng(n_features)
    n_components, width = 5, n_features + 7
    count = rng.standard_normal((n_blocks, n_components))
    first = rng.standard_normal((n_blocks, n_components, width))
    square = rng.standard_normal((n_blocks, n_components, n_features + 3, width))
    for lines, triangle in ((0, False), (1, False), (n_features, True)):
        counts = np.full(n_components, np.nan)
        sums = np.full((n_components, n_features), np.nan)
        squares = np.full((n_components, lines, n_features), np.nan)
        second = square[:, :, : lines or 0].copy()
        kernels.join_totals(count, first, second, triangle, counts, sums, squares, threads=0)
        np.testing.assert_allclose(counts, count.sum(axis=0), rtol=0, atol=1e-15)
        np.testing.assert_allclose(sums, first.sum(axis=0)[:, :n_features], rtol=0, atol=1e-14)
        whole = second.sum(axis=0)[:, :, :n_features]
        if triangle:
            lower = np.tril(whole)
            whole = lower + np.swapaxes(np.tril(lower, -1), 1, 2)
        np.testing.assert_allclose(squares, whole, rtol=0, atol=1e-14)


def test_an_order_that_was_given_up_is_tried_again():
    order = RowOrder()
    assert order.wants_labels(10)
    assert order.worth(0.9)
    order.index = np.arange(10, dtype=np.int32)
    assert order.wants_labels(10)
    # It has saved nothing.
    assert not order.worth(0.9)
    assert [order.wants_labels(10) for _ in range(18)] == [False] * 16 + [True] * 2
    assert order.worth(0.5)
    order.index = np.arange(10, dtype=np.int32)
    assert order.wants_labels(10)
    assert order.worth(0.1)


def test_an_order_of_another_chunk_is_forgotten():
    order = RowOrder()
    assert order.wants_labels(10)
    order.index = np.arange(10, dtype=np.int32)
    assert order.wants_labels(12)
    assert len(order.labels) == 12
    assert len(order.index) == 0
