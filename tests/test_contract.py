"""Every law of ``contract.py`` for every structure, device and precision."""

from __future__ import annotations

import pytest

import contract


@pytest.mark.parametrize("law", contract.LAWS, ids=lambda law: law.__name__)
def test_law(law, structure, place, dtype):
    if place == "reference" and law is contract.device_is_the_reference:
        pytest.skip("the reference is what it is compared with")
    law(structure, place, dtype)
