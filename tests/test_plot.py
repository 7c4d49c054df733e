"""Tests of fastgmm.plot: the marginals that are drawn, and that every structure can be drawn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import fastgmm
from fastgmm import plot

pytest.importorskip("matplotlib").use("Agg")

STRUCTURES = ("full", "tied", "diag", "spherical", "tied_diag", "tied_spherical")
WEIGHTS, MEANS = np.array([0.3, 0.7]), np.array([[0.0, 1.0, 2.0], [5.0, -1.0, 0.5]])
FACTORS = np.array(
    [[[2.0, 0, 0], [0.5, 1, 0], [0.1, 0.3, 0.5]], [[1.0, 0, 0], [-0.4, 2, 0], [0, 1, 1]]]
)
FULL = FACTORS @ FACTORS.transpose(0, 2, 1)
COVARIANCES = {
    "full": FULL,
    "tied": FULL[0],
    "diag": np.array([[4.0, 1, 0.25], [1, 2, 3]]),
    "spherical": np.array([4.0, 0.5]),
    "tied_diag": np.array([4.0, 1, 0.25]),
    "tied_spherical": np.array(2.0),
}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def mixture(structure: str) -> fastgmm.GaussianMixture:
    return fastgmm.GaussianMixture.from_parameters(
        WEIGHTS, MEANS, COVARIANCES[structure], covariance_type=structure
    )


def dense(structure: str) -> np.ndarray:
    """The covariances as (K, D, D), by the definition of the structure."""
    c = COVARIANCES[structure]
    if structure in ("full", "tied"):
        return np.broadcast_to(c, (2, 3, 3))
    if structure == "diag":
        return np.stack([np.diag(row) for row in c])
    if structure == "tied_diag":
        return np.stack([np.diag(c)] * 2)
    return np.stack([np.eye(3) * v for v in np.broadcast_to(c, 2)])


@pytest.mark.parametrize("features", [(0, 1), (2, 0), (-1, 1)])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_marginal_takes_the_block_of_the_covariance(structure, features):
    weights, means, covariances = plot.marginal(mixture(structure), features)
    pair = list(features)
    np.testing.assert_allclose(weights, WEIGHTS)
    np.testing.assert_allclose(means, MEANS[:, pair])
    np.testing.assert_allclose(covariances, dense(structure)[:, pair][:, :, pair], rtol=1e-12)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_plot_components_draws_one_ellipse_per_ring_and_component(structure):
    from matplotlib.patches import Ellipse

    model = mixture(structure)
    rows = np.random.default_rng(0).normal(size=(50, 3))
    ax = plot.plot_components(model, rows, features=(0, 2), n_std=(1, 2))
    assert len([patch for patch in ax.patches if isinstance(patch, Ellipse)]) == 2 * 2
    ax.figure.canvas.draw()


def test_the_ellipse_is_the_contour_of_the_marginal():
    """Its points have the Mahalanobis distance n_std from the mean."""
    ax = plot.plot_components(mixture("full"), n_std=2, features=(1, 2))
    _, means, covariances = plot.marginal(mixture("full"), (1, 2))
    for k, patch in enumerate(ax.patches):
        points = patch.get_patch_transform().transform(patch.get_path().vertices)
        points = (
            points[::3][:-1] - means[k]
        )  # on the curve are only every third of the control points
        distance = np.sqrt(np.einsum("ni,ij,nj->n", points, np.linalg.inv(covariances[k]), points))
        np.testing.assert_allclose(distance, 2, rtol=1e-6)


def test_density_is_the_density_of_the_model_in_two_dimensions():
    model = fastgmm.GaussianMixture.from_parameters(WEIGHTS, MEANS[:, :2], FULL[:, :2, :2])
    grid = np.random.default_rng(1).normal(size=(4, 5, 2)) * 4
    expected = model.score_samples(grid.reshape(-1, 2)).reshape(4, 5)
    np.testing.assert_allclose(plot._log_density(grid, *plot.marginal(model)), expected, rtol=1e-10)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_plot_density_draws_into_the_given_axes(structure):
    import matplotlib.pyplot as plt

    given = plt.subplots()[1]
    rows = np.random.default_rng(0).normal(size=(30_000, 3))
    ax = plot.plot_density(mixture(structure), rows, given, features=(0, 1), resolution=20)
    assert ax is given
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("feature 0", "feature 1")
    assert len(ax.collections[0].get_offsets()) <= plot.MAX_POINTS
    ax.figure.canvas.draw()


def test_a_component_of_weight_zero_is_left_out_of_the_density():
    model = fastgmm.GaussianMixture.from_parameters([1.0, 0.0], MEANS, FULL)
    ax = plot.plot_density(model, resolution=20)
    assert ax.get_xlim()[1] < MEANS[1, 0] + 4


def test_plot_convergence_shows_every_lower_bound():
    rows = np.random.default_rng(0).normal(size=(200, 2))
    model = fastgmm.GaussianMixture(2, random_state=0, max_iter=7, tol=0).fit(rows)
    ax = plot.plot_convergence(model)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), model.lower_bounds_)
    assert "iteration" in ax.get_xlabel()
    assert ax.get_title() == "not converged after 7 iterations"


def test_feature_names_name_the_axes():
    pandas = pytest.importorskip("pandas")
    rows = pandas.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])
    model = fastgmm.GaussianMixture(2, random_state=0).fit(rows)
    ax = plot.plot_components(model, features=(2, 0))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("c", "a")


@pytest.mark.parametrize("features", [(0, 3), (1, 1), (0,), (-4, 0)])
def test_features_out_of_range_are_refused(features):
    with pytest.raises(fastgmm.errors.InputError, match="from 0 to 2"):
        plot.plot_components(mixture("full"), features=features)


def test_rows_of_a_table_are_drawn():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"])
    model = fastgmm.GaussianMixture(2, random_state=0).fit(frame)
    # The suite turns warnings into errors.
    assert plot.plot_components(model, frame).collections
    assert plot.plot_density(model, frame).collections


def test_wrong_use_is_refused():
    with pytest.raises(fastgmm.errors.InputError, match=r"\(N, 3\)"):
        plot.plot_components(mixture("full"), np.zeros((5, 2)))
    with pytest.raises(fastgmm.errors.InputError, match="n_std"):
        plot.plot_components(mixture("full"), n_std=0)
    with pytest.raises(fastgmm.errors.InputError, match="no lower bounds"):
        plot.plot_convergence(mixture("full"))
    with pytest.raises(NotFittedError):
        plot.plot_components(fastgmm.GaussianMixture(2))


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "fastgmm\[plot\]"'):
        plot.plot_components(mixture("full"))


def test_importing_the_module_does_not_import_matplotlib():
    code = "import sys, fastgmm.plot; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
