"""A federation whose charter names real rules, and one request in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.select.tests.deciding import CHARTER, Case, founded
from receipts.tests.world import Federation


@pytest.fixture(scope="module")
def federation() -> Federation:
    return founded(CHARTER.digest)


@pytest.fixture
def case(federation: Federation, tmp_path: Path) -> Case:
    return Case(federation, tmp_path)
