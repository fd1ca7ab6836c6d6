"""Marks for single cases."""

from __future__ import annotations

import pytest


def slowly(*arguments):
    """A case of a parametrized test that is as good as another one, and for the slow tests."""
    return pytest.param(*arguments, marks=pytest.mark.slow)
