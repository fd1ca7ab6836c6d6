"""Marks for single cases of parametrized tests."""

from __future__ import annotations

import pytest


def slowly(*arguments):
    """Return a case of a parametrized test that only runs among the slow tests, because another case is similar."""
    return pytest.param(*arguments, marks=pytest.mark.slow)
