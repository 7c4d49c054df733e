"""Expecting one warning among several: a fault seldom comes alone."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager

from sklearn.exceptions import ConvergenceWarning

from fastgmm.errors import DegenerateDataWarning, PrecisionWarning

EXPECTED = (DegenerateDataWarning, PrecisionWarning, ConvergenceWarning)


@contextmanager
def caught_warnings():
    """Collects (category, message); a warning that is none of the library's is an error."""
    found = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    for warning in caught:
        assert issubclass(warning.category, EXPECTED), str(warning.message)
        found.append((warning.category, str(warning.message)))


@contextmanager
def warns(category, match):
    """``pytest.warns`` that lets other warnings of the library pass."""
    with caught_warnings() as found:
        yield found
    messages = [text for kind, text in found if issubclass(kind, category)]
    assert any(re.search(match, text) for text in messages), (match, found)


def messages(found, category=DegenerateDataWarning):
    return [text for kind, text in found if issubclass(kind, category)]
