"""The kernels compiled for machines with shorter registers than this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from llvmlite import binding

SCRIPT = """
import json, sys
import numpy as np
from fastgmm import GaussianMixture
from fastgmm_kernels import cpu
rng = np.random.default_rng(0)
x = rng.standard_normal((700, 5)) + 4 * rng.integers(3, size=(700, 1))
found = {"bytes": cpu.REGISTER_BYTES}
for kind in ("full", "diag", "tied"):
    for dtype in ("float32", "float64"):
        start = {"means_init": x[:3], "weights_init": [0.2, 0.3, 0.5]}
        settings = {"covariance_type": kind, "max_iter": 3, "tol": 0, "random_state": 0}
        mixture = GaussianMixture(3, **settings, **start)
        mixture.fit(x.astype(dtype))
        found[f"{kind} {dtype}"] = [mixture.lower_bound_, mixture.means_.tolist()]
print(json.dumps(found))
"""


def _run(settings):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **settings}
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def _features(names):
    return {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": names}


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        (_features("+sse4.2"), 16),
        (_features("+avx,+avx2,+fma"), 32),
        ({"NUMBA_ENABLE_AVX": "0"}, 16),
    ],
    ids=["sse", "avx2", "no avx"],
)
def test_shorter_registers_give_the_same(settings, length):
    host = binding.get_host_cpu_features()
    wanted = settings.get("NUMBA_CPU_FEATURES", "+sse2")
    if not all(host.get(name[1:]) for name in wanted.split(",")):
        pytest.skip(f"this machine cannot run code for {wanted}")
    expected, got = _run({}), _run(settings)
    assert got.pop("bytes") == length
    expected.pop("bytes")
    for name, (bound, means) in expected.items():
        rtol = 2e-5 if "32" in name else 1e-10
        assert got[name][0] == pytest.approx(bound, rel=rtol)
        np.testing.assert_allclose(got[name][1], means, rtol=rtol, atol=rtol)
