"""Brute-force truth for Gaussian mixtures in float64: NumPy and SciPy only.

Nothing here is fast, and nothing here knows the library: every formula is the
textbook one, written once for dense covariances, with sums about the new mean.
A structure only decides how the dense covariances are pooled and averaged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg, special

STRUCTURES = ("full", "tied", "diag", "spherical", "tied_diag", "tied_spherical")
SHARED_WITH_SKLEARN = ("full", "tied", "diag", "spherical")
LOG_2PI = float(np.log(2.0 * np.pi))


def is_tied(structure):
    return structure.startswith("tied")


def covariance_shape(structure, n_components, n_features):
    k, d = n_components, n_features
    return {
        "full": (k, d, d),
        "tied": (d, d),
        "diag": (k, d),
        "spherical": (k,),
        "tied_diag": (d,),
        "tied_spherical": (),
    }[structure]


def n_parameters(structure, n_components, n_features):
    """Free parameters: K - 1 weights, K D means, and the structure's own."""
    k, d = n_components, n_features
    own = {
        "full": k * d * (d + 1) // 2,
        "tied": d * (d + 1) // 2,
        "diag": k * d,
        "spherical": k,
        "tied_diag": d,
        "tied_spherical": 1,
    }[structure]
    return k - 1 + k * d + own


def dense(structure, covariances, n_components, n_features):
    """Covariances of any structure as (K, D, D)."""
    c = np.asarray(covariances, dtype=np.float64)
    k, d = n_components, n_features
    assert c.shape == covariance_shape(structure, k, d)
    eye = np.eye(d)
    if structure == "full":
        return c.copy()
    if structure == "tied":
        return np.repeat(c[None], k, axis=0)
    if structure == "diag":
        return c[:, :, None] * eye
    if structure == "spherical":
        return c[:, None, None] * eye
    if structure == "tied_diag":
        return np.repeat((c[:, None] * eye)[None], k, axis=0)
    return np.repeat((c * eye)[None], k, axis=0)


def pack(structure, dense_covariances, counts):
    """The structure's own array from dense per-component covariances.

    Tied structures pool with the effective counts as weights; diagonal ones
    keep the diagonal; spherical ones its average.
    """
    c = np.asarray(dense_covariances, dtype=np.float64)
    if is_tied(structure):
        share = counts / counts.sum()
        c = np.einsum("k,kij->ij", share, c)
        diagonal = np.diag(c)
    else:
        diagonal = np.einsum("kii->ki", c)
    if structure in ("full", "tied"):
        return c
    if structure.endswith("diag"):
        return diagonal.copy()
    return np.asarray(diagonal.mean(axis=-1))


@dataclass(frozen=True)
class Mixture:
    structure: str
    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @property
    def n_components(self):
        return self.means.shape[0]

    @property
    def n_features(self):
        return self.means.shape[1]

    def dense(self):
        return dense(self.structure, self.covariances, self.n_components, self.n_features)

    def precisions(self):
        if self.structure in ("full", "tied"):
            inverse = np.linalg.inv(self.covariances)
            return (inverse + np.swapaxes(inverse, -1, -2)) / 2
        return np.asarray(1.0 / self.covariances)

    def precisions_cholesky(self):
        """Upper-triangular U with precision U U' (or 1/sd), as scikit-learn has it."""
        if self.structure == "full":
            return np.stack([_upper_factor(c) for c in self.covariances])
        if self.structure == "tied":
            return _upper_factor(self.covariances)
        return np.asarray(1.0 / np.sqrt(self.covariances))

    def component_log_prob(self, x):
        return component_log_prob(x, self.means, self.dense())

    def weighted_log_prob(self, x):
        with np.errstate(divide="ignore"):
            return self.component_log_prob(x) + np.log(self.weights)

    def score_samples(self, x):
        return special.logsumexp(self.weighted_log_prob(x), axis=1)

    def responsibilities(self, x):
        log_joint = self.weighted_log_prob(x)
        return np.exp(log_joint - special.logsumexp(log_joint, axis=1, keepdims=True))

    def predict(self, x):
        return np.argmax(self.weighted_log_prob(x), axis=1)

    def sample(self, rng, n_samples):
        labels = rng.choice(self.n_components, size=n_samples, p=self.weights)
        factors = np.stack([linalg.cholesky(c, lower=True) for c in self.dense()])
        z = rng.standard_normal((n_samples, self.n_features))
        x = self.means[labels] + np.einsum("nij,nj->ni", factors[labels], z)
        return x, labels

    def permuted(self, order):
        covariances = self.covariances if is_tied(self.structure) else self.covariances[order]
        return replace(
            self, weights=self.weights[order], means=self.means[order], covariances=covariances
        )

    def mapped(self, scale, shift):
        """The mixture of scale * x + shift."""
        return replace(
            self,
            means=self.means * scale + shift,
            covariances=np.asarray(self.covariances * scale**2),
        )


def _upper_factor(covariance):
    lower = linalg.cholesky(covariance, lower=True)
    return linalg.solve_triangular(lower, np.eye(len(lower)), lower=True).T


def component_log_prob(x, means, dense_covariances):
    """log N(x_n; mean_k, covariance_k), shape (N, K)."""
    x = np.asarray(x, dtype=np.float64)
    n_features = x.shape[1]
    out = np.empty((x.shape[0], len(means)))
    for k, (mean, covariance) in enumerate(zip(means, dense_covariances, strict=True)):
        lower = linalg.cholesky(covariance, lower=True)
        y = linalg.solve_triangular(lower, (x - mean).T, lower=True)
        log_det = 2.0 * np.log(np.diag(lower)).sum()
        out[:, k] = -0.5 * (n_features * LOG_2PI + log_det + (y**2).sum(axis=0))
    return out


def m_step(x, resp, structure, *, reg_covar=0.0, sample_weight=None):
    """Weights, means and covariances that maximise the expected likelihood.

    Rows count ``sample_weight`` times. Moments take two passes: the mean first
    (about the rows' own centre), then squares about it.
    """
    x = np.asarray(x, dtype=np.float64)
    resp = np.asarray(resp, dtype=np.float64)
    if sample_weight is not None:
        resp = resp * np.asarray(sample_weight, dtype=np.float64)[:, None]
    counts = resp.sum(axis=0)
    # Weighted: rows that hardly count may be far away.
    centre = np.average(x, axis=0, weights=resp.sum(axis=1))
    shifted = x - centre
    offsets = (resp.T @ shifted) / counts[:, None]
    covariances = []
    for k in range(resp.shape[1]):
        difference = shifted - offsets[k]
        # What the rounded mean leaves over is taken out again (Chan et al., 1983).
        left = resp[:, k] @ difference / counts[k]
        second = (difference.T * resp[:, k]) @ difference / counts[k]
        covariances.append(second - np.outer(left, left))
    packed = pack(structure, np.stack(covariances), counts)
    d = x.shape[1]
    packed = packed + (reg_covar * np.eye(d) if structure in ("full", "tied") else reg_covar)
    return Mixture(structure, counts / counts.sum(), centre + offsets, np.asarray(packed))


@dataclass(frozen=True)
class EMTrace:
    mixture: Mixture
    lower_bounds: list
    converged: bool

    @property
    def n_iter(self):
        return len(self.lower_bounds)


def em(x, start, *, max_iter, tol=0.0, reg_covar=0.0, sample_weight=None):
    """EM from given parameters; the bound of an iteration is that of its E-step."""
    x = np.asarray(x, dtype=np.float64)
    mixture, bounds, converged = start, [], False
    for _ in range(max_iter):
        bound = float(np.average(mixture.score_samples(x), weights=sample_weight))
        resp = mixture.responsibilities(x)
        mixture = m_step(
            x, resp, mixture.structure, reg_covar=reg_covar, sample_weight=sample_weight
        )
        bounds.append(bound)
        if len(bounds) > 1 and abs(bounds[-1] - bounds[-2]) < tol:
            converged = True
            break
    return EMTrace(mixture, bounds, converged)


def random_mixture(rng, structure, n_components, n_features, *, separation=3.0, scale=1.0):
    """A well-conditioned mixture; separation 0 puts all means in one place."""
    k, d = n_components, n_features
    weights = rng.dirichlet(np.full(k, 5.0))
    means = separation * rng.standard_normal((k, d))
    dense_covariances = []
    for _ in range(k):
        a = rng.standard_normal((d, d)) / np.sqrt(d)
        spread = np.exp(rng.uniform(-0.5, 0.5, size=d))
        dense_covariances.append((0.5 * np.eye(d) + a @ a.T) * np.outer(spread, spread))
    packed = pack(structure, np.stack(dense_covariances), weights)
    return Mixture(structure, weights, means, packed).mapped(scale, 0.0)


def start_from_labels(x, labels, structure, *, n_components=None, reg_covar=0.0):
    """One M-step from hard labels: the start that k-means gives scikit-learn."""
    labels = np.asarray(labels, dtype=np.intp)
    k = int(labels.max()) + 1 if n_components is None else n_components
    return m_step(x, np.eye(k)[labels], structure, reg_covar=reg_covar)
