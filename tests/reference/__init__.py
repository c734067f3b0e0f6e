"""Slow, independent re-implementations that the tests compare raptr with."""
