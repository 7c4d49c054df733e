"""scikit-learn's installed tests of GaussianMixture, run on fastgmm's.

The modules are executed afresh under another name with the class exchanged, so
that what they import and what they parametrise with is ours.
"""

from __future__ import annotations

import importlib.util
import pathlib
import sys
from unittest import mock

import numpy as np
import pytest
import sklearn
import sklearn.mixture
from sklearn.utils.fixes import parse_version

import fastgmm

# These modules were written for scikit-learn's own warning filters.
pytestmark = [
    pytest.mark.filterwarnings("ignore::fastgmm.errors.DegenerateDataWarning"),
    pytest.mark.filterwarnings("default::sklearn.exceptions.ConvergenceWarning"),
]

TESTS = pathlib.Path(sklearn.__file__).parent / "mixture" / "tests"

if not (TESTS / "test_gaussian_mixture.py").exists():
    pytest.skip("the installed scikit-learn does not ship its tests", allow_module_level=True)

# What is left out, and why.
EXCLUDED = {
    # They test module-level private helpers of scikit-learn, not the estimator.
    "test_suffstat_sk_full",
    "test_suffstat_sk_tied",
    "test_suffstat_sk_diag",
    "test_gaussian_suffstat_sk_spherical",
    "test_compute_log_det_cholesky",
    "test_gaussian_mixture_log_probabilities",
    # It calls the private methods _initialize and _set_parameters.
    "test_gaussian_mixture_precisions_init",
    # It counts calls of a private helper of scikit-learn through a mock.
    "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters",
    # Two components start on one row each with reg_covar=0: their variance is exactly 0, and
    # X^2 - mean^2 passes only through the 4e-16 that its cancellation leaves. fastgmm reports
    # the singular covariance (fault case 30).
    "test_gaussian_mixture_setting_best_params",
    # Array namespaces other than NumPy, through scikit-learn's own dispatch.
    "test_gaussian_mixture_array_api_compliance",
    "test_gaussian_mixture_raises_where_array_api_not_implemented",
}


def _load(stem):
    name = f"_exchanged_{stem}"
    spec = importlib.util.spec_from_file_location(name, TESTS / f"{stem}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with mock.patch.object(sklearn.mixture, "GaussianMixture", fastgmm.GaussianMixture):
        spec.loader.exec_module(module)
    assert module.GaussianMixture is fastgmm.GaussianMixture
    return {key: value for key, value in vars(module).items() if key.startswith("test_")}


FOUND = {**_load("test_gaussian_mixture"), **_load("test_mixture")}
globals().update({name: test for name, test in FOUND.items() if name not in EXCLUDED})


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def global_dtype(request):
    return request.param


@pytest.fixture(params=[0, 42])
def global_random_seed(request):
    return request.param


@pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.9"),
    reason="the list was made for scikit-learn 1.9",
)
def test_every_exclusion_still_exists():
    assert set(FOUND) >= EXCLUDED
    assert len(FOUND) - len(EXCLUDED) >= 25
