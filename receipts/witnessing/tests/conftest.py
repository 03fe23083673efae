"""The same fixtures as the room's."""

from receipts.tests.conftest import clinic, federation, log

__all__ = ["clinic", "federation", "log"]
