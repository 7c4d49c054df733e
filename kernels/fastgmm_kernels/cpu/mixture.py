"""What the passes take of a mixture besides its factors, in one call: small fits pay for each."""

from __future__ import annotations

import math

import numpy as np

from .jit import driver

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@driver
def centre_mixture(
    means, weights, log_determinants, half_ulp, skip, centre, relative, constants, reach,
    thresholds,
):  # fmt: skip
    """Mean of the mixture, the means relative to it, constants, and what may be skipped.

    means (K, D), weights (K,) and log_determinants (K,), of the factors of the precisions, are
    float64, as is ``relative`` (K, D). centre (D,), constants, reach and thresholds (K,) are in
    the precision of the rows, of which ``half_ulp`` is half the distance of 1 to the next number.
    For ``reach`` and ``thresholds`` see ``skip``; without ``skip`` nothing is left out.
    """
    n_components, n_features = means.shape
    whole = 0.0
    for k in range(n_components):
        whole += weights[k]
    for d in range(n_features):
        # Differences first: the sum of large means would lose their small differences.
        offset = 0.0
        for k in range(n_components):
            offset += weights[k] / whole * (means[k, d] - means[0, d])
        centre[d] = offset + means[0, d]
        # The centre as it was rounded: rows are taken relative to that.
        rounded = np.float64(centre[d])
        for k in range(n_components):
            relative[k, d] = means[k, d] - rounded
    for k in range(n_components):
        height = log_determinants[k] - n_features * _HALF_LOG_2PI
        constants[k] = height + np.log(weights[k])
        if skip:
            # A component without weight matters to no row.
            reach[k] = height - np.log(half_ulp) if weights[k] > 0 else -np.inf
            thresholds[k] = half_ulp * weights[k]
        else:
            reach[k] = np.inf
            thresholds[k] = 0
