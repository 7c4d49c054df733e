"""Pictures of a fitted mixture: its components, its density, the way a fit converged.

Every function draws into the Axes it is given, or into a new one, and returns it. matplotlib is
imported when the first of them is called. They need the fitted attributes only, so scikit-learn's
``GaussianMixture`` is drawn just as well.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from fastgmm import covariance
from fastgmm.arrays import to_numpy
from fastgmm.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MATPLOTLIB_MISSING = 'drawing needs matplotlib, which is not installed: pip install "fastgmm[plot]"'

# Okabe and Ito's colours: told apart by colour-blind readers, and in this order by their lightness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#5B5B5B")
MAX_POINTS = 20_000

__all__ = ["marginal", "plot_components", "plot_convergence", "plot_density"]


def plot_convergence(estimator: Any, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """Draw the lower bound of every iteration of a fit.

    Parameters
    ----------
    estimator : GaussianMixture
        Fitted; ``lower_bounds_`` holds the mean log-likelihood of a row, iteration by iteration.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.
    **kwargs
        Go to ``Axes.plot``.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        If the estimator was not fitted by EM and so has no lower bounds.
    ImportError
        If matplotlib is not installed.
    """
    check_is_fitted(estimator)
    bounds = np.asarray(getattr(estimator, "lower_bounds_", ()), dtype=float)
    if bounds.size == 0:
        raise InputError(
            "plot_convergence: the estimator has no lower bounds; "
            "it was built from parameters, not fitted"
        )
    ax = _axes(ax)
    from matplotlib.ticker import MaxNLocator

    style = {"color": COLOURS[0], "marker": "o", "markersize": 3.5, **kwargs}
    ax.plot(np.arange(1, bounds.size + 1), bounds, **style)
    ax.set_xlabel("EM iteration")
    ax.set_ylabel("mean log-likelihood of a row")
    state = "converged" if getattr(estimator, "converged_", False) else "not converged"
    ax.set_title(f"{state} after {bounds.size} iteration{'s' if bounds.size > 1 else ''}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.25, linewidth=0.6)
    return ax


def plot_components(
    estimator: Any,
    X: ArrayLike | None = None,
    ax: Axes | None = None,
    features: tuple[int, int] = (0, 1),
    n_std: float | tuple[float, ...] = 2,
) -> Axes:
    """Draw every component as an ellipse, over the rows coloured by their component.

    The ellipse of component k holds the points x of the plane of two features with

        (x - mu_k)' S_k^-1 (x - mu_k) = n_std^2

    where mu_k and S_k are the mean and the covariance of the component's marginal distribution over
    these features. It is filled the more, the greater the component's weight is.

    Parameters
    ----------
    estimator : GaussianMixture
        Fitted, of any covariance structure.
    X : array-like of shape (N, D), optional
        Rows to draw as points. More than 20,000 are thinned out evenly.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.
    features : (int, int), default=(0, 1)
        The two features to draw.
    n_std : float or tuple of float, default=2
        Size of the ellipses in standard deviations; several give several rings.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        If a feature is out of range, or X has the wrong number of features.
    ImportError
        If matplotlib is not installed.
    """
    weights, means, covariances = marginal(estimator, features)
    rings = sorted(np.atleast_1d(np.asarray(n_std, dtype=float)), reverse=True)
    if not all(np.isfinite(ring) and ring > 0 for ring in rings):
        raise InputError(f"plot_components: n_std must be positive, got {n_std!r}")
    ax = _axes(ax)
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Ellipse

    if X is not None:
        rows = _thinned(X, np.shape(estimator.means_)[1])
        with warnings.catch_warnings():
            # The points of a table are drawn without the names of its columns.
            warnings.filterwarnings("ignore", "X does not have valid feature names")
            labels = to_numpy(estimator.predict(rows))
        colours = np.array(COLOURS)[labels % len(COLOURS)]
        ax.scatter(
            rows[:, features[0]],
            rows[:, features[1]],
            s=_size(rows),
            c=colours,
            alpha=0.35,
            linewidths=0,
            zorder=1,
        )
    for k, (weight, mean, spread) in enumerate(zip(weights, means, covariances, strict=True)):
        colour = COLOURS[k % len(COLOURS)]
        lengths, directions = np.linalg.eigh(spread)
        width, height = 2 * np.sqrt(np.maximum(lengths[::-1], 0))
        angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
        alpha = (0.06 + 0.3 * weight / max(float(weights.max()), 1e-300)) / len(rings)
        for ring in rings:
            ellipse = Ellipse(
                tuple(mean),
                ring * width,
                ring * height,
                angle=angle,
                facecolor=to_rgba(colour, alpha),
                edgecolor=colour,
                linewidth=1.4,
                zorder=2,
            )
            ax.add_patch(ellipse)
        ax.plot(*mean, marker="+", color=colour, markersize=8, markeredgewidth=1.6, zorder=4)
    ax.autoscale_view()
    _name_axes(ax, estimator, features)
    return ax


def plot_density(
    estimator: Any,
    X: ArrayLike | None = None,
    ax: Axes | None = None,
    features: tuple[int, int] = (0, 1),
    levels: int = 12,
    resolution: int = 200,
    cmap: str = "Blues",
) -> Axes:
    """Draw the log-density over two features as filled contours.

    With more than two features, this is the density of the marginal distribution over these two:
    a mixture with the same weights and the means' and covariances' parts that belong to them.

    Parameters
    ----------
    estimator : GaussianMixture
        Fitted, of any covariance structure.
    X : array-like of shape (N, D), optional
        Rows to draw as points over the contours; more than 20,000 are thinned out evenly.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default. The window reaches four standard deviations past
        the components.
    features : (int, int), default=(0, 1)
        The two features to draw.
    levels : int, default=12
        Number of contours. They end where the density is e^-12 of its maximum.
    resolution : int, default=200
        Points of the grid along each axis.
    cmap : str, default="Blues"
        matplotlib's name of the colours.

    Returns
    -------
    matplotlib Axes
        The contours are its last collection; give it to ``figure.colorbar`` for a colour bar.

    Raises
    ------
    InputError
        If a feature is out of range.
    ImportError
        If matplotlib is not installed.
    """
    weights, means, covariances = marginal(estimator, features)
    ax = _axes(ax)
    live = weights > 0
    weights, means, covariances = weights[live], means[live], covariances[live]
    reach = 4 * np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    low, high = (means - reach).min(axis=0), (means + reach).max(axis=0)
    x, y = np.linspace(low[0], high[0], resolution), np.linspace(low[1], high[1], resolution)
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    density = _log_density(grid, weights, means, covariances)
    top = float(density.max())
    if X is not None:
        rows = _thinned(X, np.shape(estimator.means_)[1])
        ax.scatter(
            rows[:, features[0]],
            rows[:, features[1]],
            s=_size(rows),
            c="#222222",
            alpha=0.3,
            linewidths=0,
            zorder=3,
        )
    steps = np.linspace(top - 12, top, levels + 1)
    ax.contour(x, y, density, levels=steps, colors="white", linewidths=0.5, alpha=0.7, zorder=2)
    ax.contourf(x, y, density, levels=steps, cmap=cmap, zorder=1)
    _name_axes(ax, estimator, features)
    return ax


def marginal(
    estimator: Any, features: tuple[int, int] = (0, 1)
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Give weights (K,), means (K, 2) and covariances (K, 2, 2) of the marginal over two features.

    The arrays are float64 and have this shape for every covariance structure.
    """
    check_is_fitted(estimator)
    if hasattr(estimator, "_current_model"):  # parameters assigned by hand
        estimator._current_model()
    means = np.asarray(to_numpy(estimator.means_), dtype=np.float64)
    K, D = means.shape
    pair = [int(f) for f in features]
    if len(pair) != 2 or pair[0] == pair[1] or not all(-D <= f < D for f in pair):
        raise InputError(
            f"features must be two different numbers from 0 to {D - 1}, got {features!r}"
        )
    structure = covariance.get(estimator.covariance_type)
    covariances = np.asarray(to_numpy(estimator.covariances_), dtype=np.float64)
    if structure.family == "full":
        block = covariances[..., pair, :][..., pair]
    elif structure.family == "diag":
        block = covariances[..., pair, None] * np.eye(2)
    else:
        block = covariances[..., None, None] * np.eye(2)
    return (
        np.asarray(to_numpy(estimator.weights_), dtype=np.float64),
        means[:, pair],
        np.broadcast_to(block, (K, 2, 2)),
    )


def _log_density(
    grid: NDArray[Any], weights: NDArray[Any], means: NDArray[Any], covariances: NDArray[Any]
) -> NDArray[Any]:
    """log sum_k w_k N(x; mu_k, S_k) of points of the plane, (..., 2) -> (...)."""
    total = np.full(grid.shape[:-1], -np.inf)
    for weight, mean, spread in zip(weights, means, covariances, strict=True):
        factor = np.linalg.cholesky(spread)
        apart = grid - mean
        first = apart[..., 0] / factor[0, 0]
        second = (apart[..., 1] - factor[1, 0] * first) / factor[1, 1]
        size = np.log(weight) - np.log(2 * np.pi * factor[0, 0] * factor[1, 1])
        np.logaddexp(total, size - 0.5 * (first**2 + second**2), out=total)
    return total


def _thinned(X: ArrayLike, D: int) -> NDArray[Any]:
    """Give at most MAX_POINTS rows, evenly spread over all."""
    rows = to_numpy(X)
    if rows.ndim != 2 or rows.shape[1] != D:
        raise InputError(f"plot: expected rows of shape (N, {D}), got {rows.shape}")
    return rows[:: -(-len(rows) // MAX_POINTS) or 1]


def _size(rows: NDArray[Any]) -> float:
    """The area of a point: smaller, the more there are."""
    return float(np.clip(3000 / max(len(rows), 1), 2, 16))


def _axes(ax: Axes | None) -> Axes:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(MATPLOTLIB_MISSING) from error
    return plt.subplots(layout="constrained")[1] if ax is None else ax


def _name_axes(ax: Axes, estimator: Any, features: tuple[int, int]) -> None:
    names = getattr(estimator, "feature_names_in_", None)
    D = np.shape(estimator.means_)[1]
    labels = [f"feature {f % D}" if names is None else str(names[f]) for f in features]
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
