"""One founding for the whole room; a bus and its programs per test."""

from __future__ import annotations

import pytest

from domain_agent.tests.founding import Founded, found


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Founded:
    return found(tmp_path_factory.mktemp("founded") / "federation")
