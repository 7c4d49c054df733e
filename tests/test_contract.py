"""Every law of ``contract.py`` for every structure, device and precision."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import contract
from conftest import CUDA

# Minutes in the interpreter, which runs a program after the other in any case.
_LONG = {
    contract.threads_do_not_matter,
    contract.density_integrates_to_one,
    contract.same_seed_same_result,
    contract.skipped_work_is_negligible,
}
_QUICK = [law for law in contract.LAWS if law not in _LONG]


@pytest.mark.parametrize("law", contract.LAWS, ids=lambda law: law.__name__)
def test_law(law, structure, place, dtype):
    if place == "reference" and law is contract.device_is_the_reference:
        pytest.skip("the reference is what it is compared with")
    law(structure, place, dtype)


@pytest.mark.skipif(CUDA, reason="a device is there: no interpreter")
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "triton"))), reason="there is no triton"
)
@pytest.mark.parametrize("law", _QUICK, ids=lambda law: law.__name__)
@pytest.mark.parametrize(
    ("structure", "dtype"), [("full", np.float32), ("diag", np.float64), ("tied", np.float32)]
)
def test_law_of_the_gpu_kernels_in_the_interpreter(law, structure, dtype):
    law(structure, ("cpu", "interpreter"), dtype)
