"""Three Gaussians found again by EM: ``python docs/examples/three_gaussians.py three.png``.

Rows are drawn from a known mixture; EM starts at rows drawn at random and is watched by a callback.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fastgmm import GaussianMixture
from fastgmm.em import EMState

WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[-2.0, 0.0], [1.5, 1.5], [2.0, -2.0]])
COVARIANCES = np.array(
    [[[1.0, 0.6], [0.6, 0.8]], [[0.5, -0.3], [-0.3, 0.6]], [[1.2, 0.0], [0.0, 0.2]]]
)


def fit(n_rows: int = 3000, seed: int = 3) -> tuple[GaussianMixture, np.ndarray, list[EMState]]:
    """Return the fitted mixture, the rows, and what EM said after every iteration."""
    truth = GaussianMixture.from_parameters(WEIGHTS, MEANS, COVARIANCES, random_state=seed)
    x, _ = truth.sample(n_rows)
    states: list[EMState] = []
    mixture = GaussianMixture(3, init_params="random_from_data", tol=1e-6, random_state=seed)
    mixture.fit(x, callback=states.append)
    return mixture, x, states


def error(mixture: GaussianMixture) -> float:
    """Largest difference of a mean from the nearest true one."""
    gaps = np.linalg.norm(mixture.means_[:, None] - MEANS, axis=2)
    return float(gaps.min(axis=0).max())


def draw(mixture: GaussianMixture, x: np.ndarray, states: list[EMState], path: Path) -> None:
    """The start, the fit, and the likelihood that led from one to the other."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from fastgmm.plot import plot_components

    first = states[0].model
    begin = GaussianMixture.from_parameters(first.weights, first.means, first.covariances)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for axis, model, title in zip(
        axes, (begin, mixture), ("after one iteration", f"after {mixture.n_iter_}"), strict=False
    ):
        plot_components(model, x, ax=axis)
        axis.plot(*MEANS.T, "k+", markersize=12, label="true means")
        axis.set_title(title)
        axis.set_aspect("equal")
    axes[2].plot([s.iteration for s in states], [s.lower_bound for s in states], color="#0072b2")
    axes[2].set_xlabel("iteration")
    axes[2].set_ylabel("nats per row")
    axes[2].set_title("log-likelihood")
    axes[2].grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Fit, say what came out, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    path = parser.parse_args().picture
    mixture, x, states = fit()
    print(f"means found to {error(mixture):.3f} in {mixture.n_iter_} iterations")
    draw(mixture, x, states, path)


if __name__ == "__main__":
    main()
