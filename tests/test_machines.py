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
eye = np.eye(5)
precisions = {"full": np.stack([eye] * 3), "diag": np.ones((3, 5)), "tied": eye}
for case in sys.argv[1:]:
    kind, dtype = case.split()
    # A whole start, so that no kernel of the initialisation has to be compiled.
    start = {"means_init": x[:3], "weights_init": [0.2, 0.3, 0.5]}
    settings = {"covariance_type": kind, "max_iter": 4, "tol": 0, "random_state": 0}
    mixture = GaussianMixture(3, precisions_init=precisions[kind], **settings, **start)
    mixture.fit(x.astype(dtype))
    found[case] = [mixture.lower_bound_, mixture.means_.tolist()]
print(json.dumps(found))
"""


CASES = tuple(f"{kind} {t}" for kind in ("full", "diag", "tied") for t in ("float32", "float64"))


def _run(settings, cases):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **settings}
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, *cases],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def _features(names):
    return {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": names}


@pytest.mark.parametrize(
    ("settings", "length", "cases"),
    [
        (_features("+sse4.2"), 16, CASES),
        (_features("+avx,+avx2,+fma"), 32, CASES),
        ({"NUMBA_ENABLE_AVX": "0"}, 16, CASES[:1]),
    ],
    ids=["sse", "avx2", "no avx"],
)
def test_shorter_registers_give_the_same(settings, length, cases):
    host = binding.get_host_cpu_features()
    wanted = settings.get("NUMBA_CPU_FEATURES", "+sse2")
    if not all(host.get(name[1:]) for name in wanted.split(",")):
        pytest.skip(f"this machine cannot run code for {wanted}")
    expected, got = _run({}, cases), _run(settings, cases)
    assert got.pop("bytes") == length
    expected.pop("bytes")
    for name, (bound, means) in expected.items():
        rtol = 2e-5 if "32" in name else 1e-10
        assert got[name][0] == pytest.approx(bound, rel=rtol)
        np.testing.assert_allclose(got[name][1], means, rtol=rtol, atol=rtol)
