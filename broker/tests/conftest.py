from __future__ import annotations

import pytest

from broker.tests.parties import Parties, make_parties


@pytest.fixture(scope="session")
def parties() -> Parties:
    """Founded once: nothing in it changes."""
    return make_parties()
