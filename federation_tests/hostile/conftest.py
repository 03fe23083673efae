"""The federation in which lies are told, and the marker of the test that asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from federation_tests.hostile.lie import Lie
from federation_tests.hostile.lying import ONE_NODE_EACH
from federation_tests.world import World, world


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Lie:
    """The lie that this test is about."""
    marked: Lie = request.function.lie
    return marked


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def arena(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One node in each domain; every lie is taken back when its test ends."""
    async with world(tmp_path_factory.mktemp("arena") / "world", ONE_NODE_EACH) as made:
        yield made
