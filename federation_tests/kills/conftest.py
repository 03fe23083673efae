"""One town for all kills: what one of them breaks, the next one would find."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from federation_tests.engine import echo
from federation_tests.kills.town import Town, town


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    async with town(tmp_path_factory.mktemp("town") / "town") as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def here(_town: Town) -> AsyncIterator[Town]:
    """The town; whatever a test leaves dead or frozen is brought back."""
    _town.script(echo())
    yield _town
    _town.thaw()
    dead = [name for name, program in _town.federation.programs.items() if not program.running]
    await _town.start(*dead)
