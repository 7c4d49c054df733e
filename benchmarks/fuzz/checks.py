"""What is asked of a backend, compared with the oracle within the bounds."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import oracle
from fastgmm.arrays import to_numpy

from .bounds import U64, Distances, Posterior, distances, posterior, unit
from .cases import Case
from .engines import Engine
from .steps import TILE, em_step, kmeans_distances

Array = Any

#: deviations from the mean whose squares a fit refuses, by `fastgmm.checks`
_LARGEST = {"float32": 1e16, "float64": 1e150}
_LLOYD_STEPS = 3


@dataclass(frozen=True)
class Finding:
    """One comparison: its largest error in units of the bound, above 1 a failure."""

    check: str
    ratio: float
    message: str = ""


def check(case: Case, engine: Engine, at: Distances) -> Iterator[Finding]:
    """All comparisons of one case on one backend."""
    u = engine.unit(case.dtype, case.mixture.structure, case.precision)
    with engine.running():
        for name, comparisons in (("rows", _rows), ("fit", _fit), ("kmeans", _kmeans)):
            yield from _guarded(name, lambda c=comparisons: c(case, engine, at, u))


def _guarded(name: str, comparisons: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Findings until something raises; warnings about numbers raise too."""
    found: list[Finding] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", category=RuntimeWarning, module="fastgmm")
        try:
            for finding in comparisons():
                found.append(finding)
        except Exception as error:  # noqa: BLE001 - whatever it raises is a finding
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
            message = f"{type(error).__name__} at {place}: {str(error)[:300]}"
            found.append(Finding(name, np.inf, message))
    return iter(found)


def _compare(name: str, got: Array, expected: Array, error: Array) -> Finding:
    """The largest difference in units of the bound; NaN and a wrong shape are beyond it."""
    got = np.asarray(got, np.float64)
    if np.ndim(expected) == 0:
        expected = np.full(got.shape, expected)
    expected, error = np.broadcast_arrays(np.asarray(expected, np.float64), error)
    if got.shape != expected.shape:
        return Finding(name, np.inf, f"shape {got.shape}, expected {expected.shape}")
    if got.size == 0:
        return Finding(name, 0.0)
    with np.errstate(all="ignore"):
        difference = np.where(got == expected, 0.0, np.abs(got - expected))
        ratio = np.where(difference == 0, 0.0, difference / error)
        ratio = np.where(np.isnan(ratio) & np.isposinf(error) & ~np.isnan(got), 0.0, ratio)
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    worst = np.unravel_index(int(ratio.argmax()), ratio.shape)
    message = (
        f"at {tuple(map(int, worst))} {got[worst]!r}, expected {expected[worst]!r}"
        f" within {error[worst]:.2e}; {int((ratio > 1).sum())} of {ratio.size} are off"
    )
    return Finding(name, float(ratio[worst]), message)


def _model(case: Case, engine: Engine, **params: Any) -> Any:
    from fastgmm import GaussianMixture

    m = case.mixture
    return GaussianMixture.from_parameters(
        m.weights,
        m.means,
        m.covariances,
        covariance_type=m.structure,
        device=engine.device,
        precision=case.precision,
        **params,
    )


def _rows(case: Case, engine: Engine, at: Distances, u: float) -> Iterator[Finding]:
    """Scores, labels, responsibilities and log-probabilities of every row."""
    model, x, v = _model(case, engine), case.given, unit(case.dtype)
    post = posterior(case.mixture, at, u, case.dtype)
    seen = ~post.lost
    score = model.score_samples(x)
    if score.dtype != np.dtype(case.dtype):
        yield Finding("dtype", np.inf, f"{score.dtype} for {case.dtype} rows")
    error = post.score_error + v * np.abs(post.score)
    yield _compare("score_samples", score[seen], post.score[seen], error[seen])
    yield _no_nan("score_samples of far rows", score[~seen])

    label = model.predict(x)
    yield from _labels("predict", label, post, seen)
    resp = model.predict_proba(x)
    yield _compare("predict_proba", resp[seen], post.resp[seen], post.resp_error[seen] + v)
    sums = resp.sum(axis=1, dtype=np.float64)
    yield _compare("responsibilities sum to 1", sums, 1.0, (resp.shape[1] + 8) * 2 * v)
    far = np.flatnonzero(~seen)
    agree = resp[far].argmax(axis=1) == label[far] if len(far) else np.ones(0, bool)
    if not np.all(agree | (resp[far].max(axis=1, initial=0.0) < 1)):
        yield Finding("labels of far rows", np.inf, "predict and predict_proba differ")

    log_resp = model.predict_log_proba(x)
    yield _no_nan("predict_log_proba", log_resp)
    expected = post.log_prob - post.score[:, None]
    error = post.log_prob_error + post.score_error[:, None]
    with np.errstate(invalid="ignore"):
        error += 4 * v * (np.abs(post.log_prob) + np.abs(post.score[:, None]) + 4)
    near = seen[:, None] & np.isfinite(expected) & _reachable(case, at)
    yield _compare("predict_log_proba", log_resp[near], expected[near], error[near])

    log_prob = model.component_log_prob(x)
    near = np.isfinite(at.log_prob) & _reachable(case, at)
    plain = replace(case.mixture, weights=np.ones(case.mixture.n_components))
    error = posterior(plain, at, u, case.dtype).log_prob_error
    with np.errstate(invalid="ignore"):
        error = error + v * np.abs(at.log_prob)
    yield _compare("component_log_prob", log_prob[near], at.log_prob[near], error[near])
    yield _no_nan("component_log_prob of far rows", log_prob[~near])


def _reachable(case: Case, at: Distances) -> Array:
    """Pairs whose squares are numbers of the dtype."""
    return at.reach < float(np.finfo(case.dtype).max) / 64


def _no_nan(name: str, values: Array) -> Finding:
    count = int(np.isnan(values).sum())
    return Finding(name, np.inf if count else 0.0, f"{count} NaN" if count else "")


def _labels(name: str, label: Array, post: Posterior, seen: Array) -> Iterator[Finding]:
    """A label may be any component that rounding could make the largest."""
    k = post.log_prob.shape[1]
    if label.dtype != np.int64 or label.min() < 0 or label.max() >= k:
        yield Finding(name, np.inf, f"labels {label.dtype} from {label.min()} to {label.max()}")
        return
    rows = np.flatnonzero(seen)
    with np.errstate(invalid="ignore"):
        chosen = post.log_prob[rows, label[rows]]
        slack = post.log_prob_error[rows, label[rows]]
        best = post.log_prob[rows].argmax(axis=1)
        top, off = post.log_prob[rows, best], post.log_prob_error[rows, best]
    yield _compare(name, np.minimum(chosen, top), top, slack + off)


def _fit(case: Case, engine: Engine, at: Distances, u: float) -> Iterator[Finding]:
    """EM from the mixture: each step compared with the oracle's from where it began."""
    from fastgmm.errors import InputError, SingularCovarianceError

    _, k, _ = case.shape
    states: list[Any] = []
    model = _model(
        case,
        engine,
        warm_start=True,
        tol=0.0,
        max_iter=case.n_steps,
        reg_covar=case.reg_covar,
        batch_size=case.batch_size,
    )
    singular = None
    try:
        model.fit(case.given, sample_weight=case.weight, callback=states.append)
    except SingularCovarianceError as error:
        singular = error
    except InputError as error:
        used = case.rows if case.weight is None else case.rows[case.weight > 0]
        spread = np.abs(used - used.mean(axis=0)).max(initial=0.0)
        # The bound of the range is of a mean that is rounded too.
        allowed = len(used) < max(k, 2) or not spread < _LARGEST[case.dtype] * (1 - 1e-9)
        yield Finding("refusal", 0.0 if allowed else np.inf, str(error)[:300])
        return
    before, here = case.mixture, at
    for number, state in enumerate(states):
        found = state.model.on_host()
        post = posterior(before, here, u, case.dtype)
        if post.lost.any():
            # Rows out of reach have no say in the statistics; the oracle has no number for them.
            yield from (_finite(found, f"step {number + 1}"))
            return
        step = em_step(
            before, case.rows, case.weight, case.reg_covar, here, post, u, case.dtype
        )  # fmt: skip
        name = "first step" if number == 0 else "later steps"
        yield _compare(f"lower bound, {name}", state.lower_bound, *step.bound)
        yield _compare(f"weights, {name}", found.weights, *step.weights)
        yield _compare(f"means, {name}", found.means, *_where_known(step.means, found.means))
        yield _compare(
            f"covariances, {name}",
            found.covariances,
            *_where_known(step.covariances, found.covariances),
        )
        before = oracle.Mixture(
            case.mixture.structure, found.weights, found.means, found.covariances
        )
        try:
            here = distances(before, case.rows)
        except np.linalg.LinAlgError:
            return  # of condition 1/eps: the two factorisations need not agree
    if singular is not None:
        post = posterior(before, here, u, case.dtype)
        step = em_step(
            before, case.rows, case.weight, case.reg_covar, here, post, u, case.dtype
        )  # fmt: skip
        allowed = step.singular or bool(post.lost.any())
        yield Finding("singular covariance", 0.0 if allowed else np.inf, str(singular)[:400])
        return
    if len(states) != case.n_steps:
        yield Finding("iterations", np.inf, f"{len(states)} of {case.n_steps}")
    shown, exact = np.asarray(model.means_), states[-1].model.on_host().means
    same = np.array_equal(shown, exact.astype(case.dtype))
    yield Finding("published means", 0.0 if same else np.inf, f"{shown.dtype}")


def _where_known(value: tuple[Array, Array], got: Array) -> tuple[Array, Array]:
    """The oracle's value where it has one; elsewhere anything that is a number."""
    expected, error = value
    known = np.isfinite(expected)
    return np.where(known, expected, got), np.where(known, error, np.inf)


def _finite(model: Any, name: str) -> Iterator[Finding]:
    for part in ("weights", "means", "covariances"):
        fine = bool(np.isfinite(getattr(model, part)).all())
        yield Finding(f"finite {part}, {name}", 0.0 if fine else np.inf, "not finite")


def _kmeans(case: Case, engine: Engine, at: Distances, u: float) -> Iterator[Finding]:
    """Lloyd's steps one by one, each label near enough, each sum that of its labels."""
    from fastgmm.backends import choose
    from fastgmm.kmeans import kmeans
    from fastgmm.sources import ArraySource

    mean = case.rows.mean(axis=0)
    spread = max(np.abs(a - mean).max(initial=0.0) for a in (case.rows, case.centroids))
    if not spread < _LARGEST[case.dtype] / 4:
        return
    x = case.given
    if not isinstance(x, np.ndarray) or x.dtype != np.dtype(case.dtype):
        x = case.rows.astype(case.dtype)
    backend, _ = choose(engine.device, None, case.precision)
    x = backend.rows(x)
    v = np.ones(len(x)) if case.weight is None else case.weight / case.weight.max()
    weight = None if case.weight is None else v
    centroids, guess = np.array(case.centroids), None
    rows, farthest = np.arange(len(case.rows)), np.zeros(case.rows.shape[1])
    for _ in range(_LLOYD_STEPS):
        step = backend.kmeans_step(x, weight, backend.own(centroids), guess)
        label = np.asarray(step.labels).astype(np.int64)
        if label.min() < 0 or label.max() >= len(centroids):
            yield Finding("k-means labels", np.inf, f"from {label.min()} to {label.max()}")
            return
        square, error, moved = kmeans_distances(case.rows, centroids, u)
        farthest = np.maximum(farthest, moved.max(axis=0))
        best = square.argmin(axis=1)
        chosen, least = square[rows, label], square[rows, best]
        off = error[rows, label] + error[rows, best]
        yield _compare("k-means labels", chosen, least, off)
        one_hot = np.zeros_like(square)
        one_hot[rows, label] = v
        slack = len(x) * U64
        if engine.device not in ("cpu", "reference"):
            slack += (min(len(x), TILE) + 4) * u  # weights and sums of tiles, as rows are
        counts = one_hot.sum(axis=0)
        sums, found = (to_numpy(a).astype(np.float64) for a in (step.sums, step.counts))
        yield _compare("k-means counts", found, counts, slack * counts)
        size = one_hot.T @ ((3 * u + slack) * moved + 2 * slack * np.abs(case.rows))
        yield _compare("k-means sums", sums, one_hot.T @ case.rows, size)
        off = v @ error[rows, label] + slack * (v @ chosen)
        yield _compare("k-means inertia", float(step.inertia), v @ chosen, off)
        alive = found > 0
        centroids = centroids.copy()
        centroids[alive] = sums[alive] / found[alive, None]
        settled = guess is not None and np.array_equal(to_numpy(guess), to_numpy(step.labels))
        guess = step.labels
        if settled:
            break  # as the library does: a step more may move rows between centroids that are alike
    if weight is not None:
        return  # a source scales weights, which rounds them otherwise
    source = ArraySource(x)
    start = backend.own(np.array(case.centroids))
    whole, _ = kmeans(source, start, backend, 1.0, max_iter=_LLOYD_STEPS, tol=-1.0)
    off = 8 * u * farthest + 4 * slack * np.abs(case.rows).max(axis=0)
    yield _compare("k-means in one", np.asarray(whole), centroids, off + 4 * U64 * abs(centroids))
