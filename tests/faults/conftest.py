"""The same fixtures as end to end."""

from tests.e2e.conftest import policies

__all__ = ["policies"]
