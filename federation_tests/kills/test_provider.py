"""The provider's broker is killed: what it committed to comes back as an Execution, and none comes twice."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker.providing.executions import COMMITMENT
from federation_tests.engine import hold_after
from federation_tests.kills.town import FRANCE, Town
from federation_tests.plan import CLOUD
from receipts.leaf import Kind

BROKER = f"{CLOUD}/broker"


def executed(report: dict[str, Any]) -> str:
    """What the Placement's claim says became of the run."""
    (text,) = [
        claim["text"]
        for receipt in report["receipts"]
        for claim in receipt["claims"]
        if receipt["kind"] == "placement" and claim["claim"] == "execution-link"
    ]
    return str(text)


async def test_in_mid_stream(here: Town) -> None:
    """The stream ends in type; the commitment becomes the Execution of a run that failed."""
    go_on = asyncio.Event()
    here.script(hold_after("one ", until=go_on))
    said = here.ask("broken off", FRANCE)
    await said.shows("one ")
    assert len(here.unsettled(CLOUD, COMMITMENT)) == 1
    await here.kill(BROKER)
    stream = await said.ended()
    go_on.set()
    assert stream.failed
    assert stream.code == "stream.lost"
    await here.start(BROKER)
    assert here.unsettled(CLOUD, COMMITMENT) == []
    report = await here.verified(stream.headers["x-comity-receipt"])
    assert executed(report) == f"executed by {CLOUD}: failed"
    await here.whole()


async def test_after_the_nodes_statement_and_before_the_execution(here: Town) -> None:
    """The application has a whole answer; the provider could not write down that it has given one.

    Its database is held by somebody else just then. The Execution says the worst, and the node's own
    statement, which the consumer keeps, says that the answer was whole.
    """
    go_on = asyncio.Event()
    here.script(hold_after("one ", until=go_on, then=("two ",)))
    said = here.ask("unwritten", FRANCE)
    await said.shows("one ")
    before = here.issued(CLOUD, Kind.EXECUTION)
    with held(here.database(CLOUD)):
        go_on.set()
        stream = await said.ended()
        assert stream.complete
        await here.kill(BROKER)
    assert here.issued(CLOUD, Kind.EXECUTION) == before
    assert len(here.unsettled(CLOUD, COMMITMENT)) == 1
    await here.start(BROKER)
    assert here.unsettled(CLOUD, COMMITMENT) == []
    report = await here.verified(stream.comity["receipt"])
    assert executed(report) == f"executed by {CLOUD}: failed"
    await here.whole()


@contextmanager
def held(database: Path) -> Iterator[None]:
    """Keep the only writing transaction of a database: whoever else would commit waits."""
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()
