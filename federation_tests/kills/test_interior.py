"""Node, agent or bus are killed under a request: its receipt is as good as that of any other."""

from __future__ import annotations

import asyncio

from broker.providing.executions import COMMITMENT
from broker.shelf import INTENT
from federation.connection import Bus, BusSettings
from federation_tests.engine import echo, hold_after
from federation_tests.kills.town import FRANCE, HOME, Town, until
from federation_tests.plan import CHAT, CLINIC, CLOUD
from schemas.messages.interior import HoldReply, HoldRequest, HoldUpdate, HoldUpdated

PROMPT = "one two three"


async def test_a_node_in_mid_stream(here: Town) -> None:
    """The answer goes on at the other node; both attempts ran here, and both have their Execution."""
    never = asyncio.Event()
    here.script(hold_after("one ", until=never))
    said = here.ask(PROMPT, FRANCE)
    await said.shows("one ")
    (busy,) = here.serving(PROMPT)
    here.script(echo())
    await here.kill(f"{CLOUD}/{busy}")
    stream = await said.ended()
    never.set()
    assert stream.complete, stream.error
    assert stream.text == f"{PROMPT} "
    first, second = stream.headers["x-comity-receipt"], stream.comity["receipt"]
    assert first != second
    await here.start(f"{CLOUD}/{busy}")
    for receipt in (first, second):
        await here.verified(receipt)
    await here.whole()
    assert here.unsettled(CLINIC, INTENT) == []


async def test_the_only_node_in_mid_stream(here: Town) -> None:
    """At home there is no other node: the answer ends in type, with the Execution of a run that failed."""
    go_on = asyncio.Event()
    here.script(hold_after("one ", until=go_on))
    said = here.ask("nobody goes on", HOME)
    await said.shows("one ")
    await here.kill(f"{CLINIC}/ward-1")
    stream = await said.ended()
    go_on.set()
    assert stream.failed
    await here.start(f"{CLINIC}/ward-1")
    await here.verified(stream.headers["x-comity-receipt"])
    await here.whole()


async def test_an_agent_in_mid_stream(here: Town) -> None:
    """Broker and node finish without it; it comes back knowing nothing, and admits its nodes again."""
    go_on = asyncio.Event()
    here.script(hold_after("one ", until=go_on, then=("two ",)))
    said = here.ask("without an agent", FRANCE)
    await said.shows("one ")
    await here.kill(f"{CLOUD}/agent")
    go_on.set()
    stream = await said.ended()
    assert stream.complete
    assert stream.text == "one two "
    await here.start(f"{CLOUD}/agent")
    await here.verified(stream.comity["receipt"])
    await here.whole()
    await until(lambda: not here.unsettled(CLOUD, COMMITMENT))


async def test_an_agent_while_it_holds(here: Town) -> None:
    """A hold lives in memory alone: after the restart it is void, and nothing may start under it."""
    bus = await Bus.connect(_login(here, CLOUD))
    try:
        wanted = HoldRequest(
            nid="0" * 32, capability=CHAT, model_digest=None, hold_ms=10_000,
            consumer=CLINIC, data_class="public", exclude_nodes=[],
        )  # fmt: skip
        reply = HoldReply.read(await bus.request("agent.hold", wanted.write(), timeout=5))
        assert reply.hold
        await here.kill(f"{CLOUD}/agent")
        await here.start(f"{CLOUD}/agent")
        await here.whole()
        update = HoldUpdate(hold_id=reply.hold.hold_id, nid=wanted.nid)
        updated = HoldUpdated.read(await bus.request("agent.commit", update.write(), timeout=5))
        assert not updated.known
    finally:
        await bus.close()


async def test_the_bus_in_mid_stream(here: Town) -> None:
    """The answer from abroad ends in type; what ran there is written there, and comes when the bus does."""
    go_on = asyncio.Event()
    here.script(hold_after("one ", until=go_on))
    said = here.ask("cut", FRANCE)
    await said.shows("one ")
    await here.federation.server.kill()
    stream = await said.ended()
    go_on.set()
    assert stream.failed
    assert stream.text == "one "
    await here.federation.server.start()
    await here.start()
    await here.verified(stream.headers["x-comity-receipt"])
    await here.whole()
    assert here.unsettled(CLINIC, INTENT) == []


def _login(here: Town, domain: str) -> BusSettings:
    """The broker's login, used by hand."""
    founded = here.federation.founded
    seed = founded.domain(domain) / "keys" / "broker.nk"
    return BusSettings(
        here.federation.server.url, seed, founded.bus.ca_file, f"{domain}/broker/test", "_INBOX.broker"
    )
