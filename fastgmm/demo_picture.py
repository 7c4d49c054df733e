"""The picture of the demonstration: photograph, segments, log-likelihood, convergence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fastgmm.demo import Comparison

PLOT_MISSING = 'the demo needs matplotlib and Pillow: pip install "fastgmm[plot]"'
INK, FAINT, OURS, THEIRS = "#1b1f24", "#6a737d", "#0b62a4", "#a3abb3"
FONT: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "axes.edgecolor": "#c4cad0",
    "axes.linewidth": 0.8,
}

__all__ = ["PLOT_MISSING", "draw", "require_matplotlib"]


def require_matplotlib() -> None:
    """Raise an ImportError that says what to install, where matplotlib or Pillow is missing."""
    try:
        import matplotlib  # noqa: F401
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError(PLOT_MISSING) from error


def draw(
    output: str | os.PathLike[str],
    image: NDArray[np.uint8],
    rows: NDArray[np.float32],
    fits: Sequence[tuple[Any, float]],
    comparisons: Sequence[Comparison],
) -> None:
    """Draw the picture into a file.

    Parameters
    ----------
    output : path-like
        Any format that matplotlib writes, by its suffix; PNG without one.
    image : ndarray of shape (H, W, 3)
        The photograph.
    rows : ndarray of shape (H * W, D)
        Its pixels, as they were fitted.
    fits : sequence of (estimator, seconds)
        fastgmm's fit, and scikit-learn's where it was run.
    comparisons : sequence of Comparison
        All covariance types; the first is that of `fits`.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ours = fits[0][0]
    labels = np.asarray(ours.predict(rows)).reshape(image.shape[:2])
    density = np.asarray(ours.score_samples(rows)).reshape(image.shape[:2])
    with matplotlib.rc_context(
        FONT
    ):  # no pyplot: the caller's figures and settings stay as they are
        figure = Figure(figsize=(14, 10), dpi=110, facecolor="white")
        FigureCanvasAgg(figure)
        _title(figure, image, ours, comparisons)
        left, right, wide, high, top, bottom = 0.035, 0.54, 0.425, 0.398, 0.478, 0.026
        photograph = figure.add_axes((left, top, wide, high))
        segments = figure.add_axes((right, top, wide, high))
        heat = figure.add_axes((left, bottom, wide, high))
        curve = figure.add_axes((right + 0.035, bottom + 0.045, 0.225, high - 0.07))
        bars = figure.add_axes((right + 0.31, bottom + 0.015, 0.115, high - 0.04))
        _picture(photograph, image, "The photograph")
        _draw_segments(segments, image, labels, ours)
        _draw_heat(heat, density)
        _draw_convergence(curve, fits)
        _draw_times(bars, comparisons)
        figure.savefig(output)


def _title(
    figure: Any, image: NDArray[np.uint8], ours: Any, comparisons: Sequence[Comparison]
) -> None:
    first = comparisons[0]
    height, width = image.shape[:2]
    k = len(ours.weights_)
    if first.speed_up is not None:
        title = "The same mixture" + _faster(first.speed_up, ", ")
        tail = f" from the same start: {first.sklearn_seconds:.2f} s with scikit-learn, "
    else:
        title = f"{height * width:,} pixels, {k} Gaussians, {first.fastgmm_seconds:.2f} seconds"
        tail = ": "
    figure.text(0.035, 0.96, title, fontsize=21, fontweight="bold", va="center")
    figure.text(
        0.035,
        0.926,
        f"{height * width:,} pixels as colour and position, {k} Gaussians with {first.covariance} "
        f"covariances, {len(ours.lower_bounds_)} EM iterations"
        f"{tail}{first.fastgmm_seconds:.2f} s with fastgmm",
        fontsize=11.5,
        color=FAINT,
        va="center",
    )


def _faster(ratio: float, before: str = "") -> str:
    """Put the ratio of two times into words; nothing where fastgmm did not win."""
    if ratio < 1.05:  # a very small picture
        return ""
    return (
        f"{before}{ratio:.0f} times faster" if ratio >= 10 else f"{before}{ratio:.1f} times faster"
    )


def _heading(ax: Axes, text: str, note: str = "") -> None:
    ax.set_title(text, loc="left", fontsize=11.5, fontweight="bold", pad=7)
    if note:
        ax.set_title(note, loc="right", fontsize=9.5, color=FAINT, pad=7)


def _picture(ax: Axes, image: NDArray[Any], text: str, note: str = "") -> None:
    ax.imshow(image, interpolation="antialiased")
    ax.set_axis_off()
    _heading(ax, text, note)


def _draw_segments(ax: Axes, image: NDArray[np.uint8], labels: NDArray[Any], ours: Any) -> None:
    """Paint each segment in its mean colour; a strip below shows their shares."""
    counts = np.bincount(labels.ravel(), minlength=len(ours.weights_))
    sums = np.stack(
        [np.bincount(labels.ravel(), image[..., c].ravel(), len(counts)) for c in range(3)], axis=-1
    )
    palette = sums / np.maximum(counts, 1)[:, None] / 255
    painted = palette[labels]
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    painted[edge] *= (
        0.86  # enough to part two segments of like colour, too little to be seen as a line
    )
    _picture(ax, painted, "The segmentation", "each segment in its mean colour")
    strip = ax.inset_axes((0, -0.045, 1, 0.028))
    start = 0.0
    for i in np.argsort(palette @ [0.2126, 0.7152, 0.0722]):
        share = counts[i] / labels.size
        strip.barh(
            0, share, left=start, color=palette[i], height=1, edgecolor="white", linewidth=1.2
        )
        start += share
    strip.set_xlim(0, 1)
    strip.set_ylim(-0.5, 0.5)
    strip.set_axis_off()


def _draw_heat(ax: Axes, density: NDArray[Any]) -> None:
    finite = density[np.isfinite(density)]
    low, high = np.percentile(
        finite, [1, 99]
    )  # a few pixels far from everything must not take all the colours
    drawn = ax.imshow(density, cmap="magma", vmin=low, vmax=high, interpolation="antialiased")
    ax.set_axis_off()
    _heading(ax, "Log-likelihood of every pixel", "dark: the mixture did not expect it")
    bar = ax.figure.colorbar(drawn, cax=ax.inset_axes((1.012, 0, 0.016, 1)), extend="both")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8.5)


def _draw_convergence(ax: Axes, fits: Sequence[tuple[Any, float]]) -> None:
    ends = []
    iterations = len(fits[0][0].lower_bounds_)
    for (estimator, seconds), colour, name in zip(
        reversed(fits),
        (THEIRS, OURS)[-len(fits) :],
        ("scikit-learn", "fastgmm")[-len(fits) :],
        strict=True,
    ):
        bounds = np.asarray(estimator.lower_bounds_, dtype=float)
        clock = (
            seconds * np.arange(1, len(bounds) + 1) / len(bounds)
        )  # iterations cost the same each
        ax.plot(
            clock,
            bounds,
            color=colour,
            linewidth=2,
            marker="o",
            markersize=4,
            markeredgecolor="white",
            markeredgewidth=0.6,
            clip_on=False,
            zorder=3,
        )
        ends.append((clock[-1], bounds[-1]))
        if len(fits) == 1:
            continue  # nothing to tell apart
        ax.annotate(
            name,
            (clock[0], bounds[0]),
            xytext=(0, -9),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9.5,
            color=OURS if colour == OURS else FAINT,
            fontweight="bold",
        )
    if len(fits) > 1:
        ax.set_xscale("log")
        first, last = ends[-1][0] / iterations, max(end for end, _ in ends)
        span = max(last / first, 10)
        ax.set_xlim(first / span**0.2, last * span**0.05)
        ax.xaxis.set_minor_formatter("")
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.1 * (high - low), high + 0.2 * (high - low))
    if len(ends) == 2:
        y = ends[0][1] + 0.1 * (high - low)
        ax.annotate(
            "",
            (ends[1][0], y),
            (ends[0][0], y),
            arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 1.1},
        )
        ax.text(
            np.sqrt(ends[0][0] * ends[1][0]),
            y + 0.02 * (high - low),
            _faster(ends[0][0] / ends[1][0]),
            ha="center",
            va="bottom",
            fontsize=9.5,
        )
    ax.set_xlabel("seconds since the first iteration")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.grid(color="#e7eaed", linewidth=0.8, which="major")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(which="both", length=0)
    _heading(ax, "Convergence", "mean log-likelihood")


def _draw_times(ax: Axes, comparisons: Sequence[Comparison]) -> None:
    longest = max(c.sklearn_seconds or c.fastgmm_seconds for c in comparisons)
    for i, c in enumerate(comparisons):
        ax.text(0, i - 0.37, c.covariance, va="bottom", fontsize=9.5)
        label = f"{c.fastgmm_seconds:.2f} s"
        if c.sklearn_seconds is not None:
            label += f"   {c.speed_up:.0f}x"
            _bar(ax, i + 0.17, c.sklearn_seconds, longest, f"{c.sklearn_seconds:.2f} s", THEIRS)
        _bar(ax, i - 0.17, c.fastgmm_seconds, longest, label, OURS)
    ax.set_ylim(len(comparisons) - 0.5, -0.6)
    ax.set_xlim(0, 1.05 * longest)
    ax.set_axis_off()
    _heading(ax, "Time of the fit")


def _bar(ax: Axes, y: float, length: float, longest: float, label: str, colour: str) -> None:
    inside = length > 0.55 * longest
    ax.barh(y, length, height=0.3, color=colour)
    ax.text(
        length + (-0.02 if inside else 0.02) * longest,
        y,
        label,
        va="center",
        ha="right" if inside else "left",
        fontsize=8.5,
        fontweight="bold" if colour == OURS else "normal",
        color="white" if inside else OURS if colour == OURS else FAINT,
    )
