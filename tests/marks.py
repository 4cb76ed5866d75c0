"""Marks of single parameters."""

import pytest


def slow(*values: object) -> object:
    """Mark parameters that repeat a test of the quick set."""
    return pytest.param(*values, marks=pytest.mark.slow)
