"""One calm federation for all tests that disturb nothing, and fresh ones for those that do.

All tests of this folder share one event loop: the calm federation goes on living while others run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from federation_tests.world import World, world

HERE = Path(__file__).parent
MakeWorld = Callable[..., Awaitable[World]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what is asynchronous here in the session's loop."""
    for item in items:
        if HERE in item.path.parents and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def calm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A federation that nobody disturbs."""
    async with world(tmp_path_factory.mktemp("calm") / "world") as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def make_world(tmp_path: Path) -> AsyncIterator[MakeWorld]:
    """Makes federations for this test alone; see `federation_tests.world.world`."""
    async with AsyncExitStack() as stack:

        async def make(*arguments: object, **named: object) -> World:
            made: World = await stack.enter_async_context(
                world(tmp_path / "world", *arguments, **named)  # type: ignore[arg-type]
            )
            return made

        yield make
