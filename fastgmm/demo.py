"""The demonstration: segment a photograph, beside scikit-learn, and draw what came out.

Every pixel of the photograph that ships with scikit-learn is a row of five features: its colour in
CIE Lab and its position. Both libraries get the same start and do the same number of EM iterations,
so that the times are comparable and the results must agree.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from fastgmm.demo_picture import PLOT_MISSING, draw, require_matplotlib
from fastgmm.errors import InputError
from fastgmm.mixture import GaussianMixture

COVARIANCES = ("full", "tied", "diag", "spherical")  # those that scikit-learn has
PHOTOGRAPH = "china.jpg"
BESIDE = ("scikit-learn", "speed-up", "|diff. of log-lik.|", "same label")
SEED = 11  # one of the starts that part the lake from the sky

__all__ = ["Comparison", "DemoResult", "format_table", "pixel_features", "run"]


@dataclass(frozen=True)
class Comparison:
    """One covariance type, fitted by both libraries.

    The log-likelihood is the mean over the pixels, the agreement the share of pixels that get the
    same label. The errors are the distances of the log-likelihoods from that of a third fit, in
    float64: they tell to which library a difference belongs. What concerns scikit-learn is None
    where it was left out.
    """

    covariance: str
    start_seconds: float
    fastgmm_seconds: float
    log_likelihood: float
    fastgmm_error: float
    sklearn_error: float | None = None
    sklearn_seconds: float | None = None
    speed_up: float | None = None
    log_likelihood_difference: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration found."""

    shape: tuple[int, int]
    n_components: int
    iterations: int
    warm_up_seconds: float
    comparisons: tuple[Comparison, ...]
    output: str | None

    def as_dict(self) -> dict[str, Any]:
        """Give plain numbers, strings and lists, ready for JSON."""
        return {**asdict(self), "rows": self.shape[0] * self.shape[1], "features": 5}


def run(
    output: str | os.PathLike[str] | None = "demo.png",
    *,
    k: int = 12,
    iterations: int = 20,
    step: int = 1,
    compare: bool = True,
    log: Callable[[str], object] | None = None,
) -> DemoResult:
    """Segment the photograph, compare with scikit-learn and draw the picture.

    Parameters
    ----------
    output : path-like or None, default="demo.png"
        The picture to write; None draws nothing.
    k : int, default=12
        Number of Gaussians.
    iterations : int, default=20
        EM iterations; tol is 0, so that neither library stops early.
    step : int, default=1
        Take every step-th pixel of every step-th line of the photograph.
    compare : bool, default=True
        Run scikit-learn too.
    log : callable, optional
        Is called with a line of text whenever something was done.

    Returns
    -------
    DemoResult

    Raises
    ------
    ImportError
        If Pillow or, with an output, matplotlib is not installed.
    InputError
        If k, iterations or step is not positive.
    """
    for name, value in (("k", k), ("iterations", iterations), ("step", step)):
        if value < 1:
            raise InputError(f"demo: {name} must be at least 1, got {value}")
    say = log if log is not None else lambda line: None
    if output is not None:
        if not Path(output).absolute().parent.is_dir():
            raise InputError(f"demo: {output}: no such folder")
        require_matplotlib()  # told now, not after a minute of work
    image = _photograph()[::step, ::step]
    rows = pixel_features(image)
    height, width = image.shape[:2]
    say(
        f"{PHOTOGRAPH}: {height} x {width} = {len(rows):,} pixels as {rows.shape[1]} features "
        f"(Lab colour, position), {rows.dtype}"
    )
    say(
        f"{k} Gaussians, {iterations} EM iterations"
        + (", the same k-means start for both libraries" if compare else "")
    )
    began = time.perf_counter()
    _warm_up(rows, k, compare)
    warm_up = time.perf_counter() - began
    say(f"warming up: {warm_up:.1f} s (the kernels are compiled once and then come from the cache)")
    comparisons, shown = [], None
    for covariance in COVARIANCES:
        comparison, estimators = _compare(rows, covariance, k, iterations, compare)
        comparisons.append(comparison)
        shown = shown or estimators
        line = f"{covariance:<10} k-means start {comparison.start_seconds:6.2f} s"
        line += f"   fastgmm {comparison.fastgmm_seconds:6.2f} s"
        say(line + (f"   scikit-learn {comparison.sklearn_seconds:6.2f} s" if compare else ""))
    if output is not None and shown is not None:
        draw(output, image, rows, shown, comparisons)
    return DemoResult(
        (height, width),
        k,
        iterations,
        warm_up,
        tuple(comparisons),
        None if output is None else str(output),
    )


def pixel_features(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn an sRGB image (H, W, 3) into rows of Lab colour and position (H * W, 5), float32.

    In Lab equal distances look about equally different. The scales make the lightness count half as
    much as the two colour axes, which keeps an object together across its shadows, and put all five
    features at a spread of about one.
    """
    rgb = np.asarray(image, dtype=np.float64) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    # IEC 61966-2-1: linear sRGB to XYZ, relative to the white D65.
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ (to_xyz / to_xyz.sum(axis=1, keepdims=True)).T
    cube = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.stack(
        [
            116 * cube[..., 1] - 16,
            500 * (cube[..., 0] - cube[..., 1]),
            200 * (cube[..., 1] - cube[..., 2]),
        ],
        axis=-1,
    )
    height, width = rgb.shape[:2]
    y, x = np.mgrid[:height, :width]
    place = np.stack([x - (width - 1) / 2, y - (height - 1) / 2], axis=-1) / (height / 2)
    features = np.concatenate([(lab - [50, 0, 0]) / [25, 12, 12], place], axis=-1)
    return features.reshape(-1, 5).astype(np.float32)


def format_table(comparisons: Sequence[Comparison]) -> str:
    """Lay the comparisons out as a table."""
    beside = comparisons[0].sklearn_seconds is not None
    head = ["covariance", "fastgmm", *(BESIDE if beside else ()), "fastgmm error*"]
    lines = [[*head, "scikit-learn error*"] if beside else head]
    for c in comparisons:
        line = [c.covariance, f"{c.fastgmm_seconds:.2f} s"]
        if beside:
            line += [f"{c.sklearn_seconds:.2f} s", f"{c.speed_up:.1f}x"]
            line += [f"{c.log_likelihood_difference:.1e}", f"{100 * (c.agreement or 0):.3f} %"]
        line.append(f"{c.fastgmm_error:.1e}")
        lines.append([*line, f"{c.sklearn_error:.1e}"] if beside else line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    note = "* distance of the mean log-likelihood from that of a fit in float64"
    return "\n".join([text[0], "-" * len(text[0]), *text[1:], note])


def _photograph() -> NDArray[np.uint8]:
    from sklearn.datasets import load_sample_image

    try:
        image: NDArray[np.uint8] = load_sample_image(PHOTOGRAPH)
    except ImportError as error:
        raise ImportError(PLOT_MISSING) from error
    return image


def _fit(
    library: Callable[..., Any], rows: NDArray[Any], iterations: int, start: dict[str, Any]
) -> tuple[Any, float]:
    estimator = library(tol=0.0, max_iter=iterations, **start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # neither may converge: tol is 0
        began = time.perf_counter()
        estimator.fit(rows)
        return estimator, time.perf_counter() - began


def _start(rows: NDArray[Any], covariance: str, k: int) -> dict[str, Any]:
    """Run the k-means start once and give it as parameters, so that both libraries begin alike."""
    first, _ = _fit(
        GaussianMixture,
        rows,
        0,
        {"n_components": k, "covariance_type": covariance, "random_state": SEED},
    )
    return {
        "n_components": k,
        "covariance_type": covariance,
        "weights_init": first.weights_,
        "means_init": first.means_,
        "precisions_init": first.precisions_,
    }


def _libraries(compare: bool) -> list[Callable[..., Any]]:
    from sklearn import mixture

    return [GaussianMixture, mixture.GaussianMixture] if compare else [GaussianMixture]


def _warm_up(rows: NDArray[Any], k: int, compare: bool) -> None:
    """Compile every kernel and start every thread pool.

    fastgmm sees all rows, because few would run without threads, on other machine code.
    """
    for covariance in COVARIANCES:
        start = _start(rows, covariance, k)
        for library in _libraries(compare):
            some = rows if library is GaussianMixture else rows[:: 1 + len(rows) // 5000]
            estimator, _ = _fit(library, some, 1, start)
            estimator.predict(some)
            estimator.score_samples(some)


def _compare(
    rows: NDArray[Any], covariance: str, k: int, iterations: int, compare: bool
) -> tuple[Comparison, list[tuple[Any, float]]]:
    began = time.perf_counter()
    start = _start(rows, covariance, k)
    start_seconds = time.perf_counter() - began
    fits = [_fit(library, rows, iterations, start) for library in _libraries(compare)]
    ours, seconds = fits[0]
    score = float(ours.score(rows))
    exact = _fit_float64(rows, iterations, start)
    error = abs(score - exact)
    if not compare:
        return Comparison(covariance, start_seconds, seconds, score, error), fits
    theirs, their_seconds = fits[1]
    their_score = float(theirs.score(rows))
    return Comparison(
        covariance,
        start_seconds,
        seconds,
        score,
        error,
        sklearn_error=abs(their_score - exact),
        sklearn_seconds=their_seconds,
        speed_up=their_seconds / seconds,
        log_likelihood_difference=abs(score - their_score),
        agreement=float(np.mean(ours.predict(rows) == theirs.predict(rows))),
    ), fits


def _fit_float64(rows: NDArray[Any], iterations: int, start: dict[str, Any]) -> float:
    """The log-likelihood after the same iterations from the same start, in float64."""
    wide = {
        name: value.astype(np.float64) if isinstance(value, np.ndarray) else value
        for name, value in start.items()
    }
    wide["weights_init"] /= wide["weights_init"].sum()  # rounded to float32, they miss 1 by 1e-8
    exact, _ = _fit(GaussianMixture, rows.astype(np.float64), iterations, wide)
    return float(exact.score(rows.astype(np.float64)))
