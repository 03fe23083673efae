"""What reaches the agent from others: a flood, a refusal to quote, a report that the books must heed."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain_agent.agent import Agent
from domain_agent.offer import capacity
from domain_agent.tests.bench import until
from domain_agent.tests.domain import LIMITS, domain
from domain_agent.tests.founding import OURS, PEER, Founded
from federation.serving import Inbound, Serving
from schemas.errors import ConfigurationError, Undecided
from schemas.messages.interior import Challenges, NodeState


async def last_served(agent: Agent) -> Serving:
    """The peers' adverts, which an agent serves last: everything before them is served as well."""
    await until(lambda: any(each.pattern.endswith(".advert") for each in agent.bus.servings))
    await agent.bus.flush()
    return next(each for each in agent.bus.servings if each.pattern.endswith(".advert"))


async def test_a_peer_that_floods_with_adverts_is_shut_out(founded: Founded, tmp_path: Path) -> None:
    async with domain(founded, tmp_path) as clinic:
        adverts = await last_served(await clinic.agent())
        flooder, limits = await clinic.login(PEER, "agent"), adverts.gate.limits
        for _ in range(int(limits.burst) + 2 * limits.shut_after):
            await flooder.publish("peer.clinic_de.advert", b"flood")
        await flooder.flush()
        await until(lambda: PEER in adverts.shut)


async def test_what_a_node_says_instead_of_its_evidence_proves_nothing(
    founded: Founded, tmp_path: Path
) -> None:
    """Of whatever kind it calls its failure: nothing came that could be appraised."""

    async def quote(_: Inbound) -> bytes:
        raise ConfigurationError("tee.absent", "no TEE here")

    async with domain(founded, tmp_path) as clinic:
        agent = await clinic.agent()
        node = await clinic.login(OURS, "node.n1")
        await node.serve("node.n1.in.quote", quote, limits=LIMITS, concurrency=1)
        await node.flush()
        with pytest.raises(Undecided, match=r"tee\.absent"):
            await agent._ask("n1", Challenges(key_epoch=1, challenges={}))


async def test_the_books_heed_what_a_busy_node_reports(
    founded: Founded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "REACH_S", 0.0)
    monkeypatch.setattr(capacity, "SURPLUS_GRACE_S", 0.0)
    state = NodeState(
        node_id="n1",
        boot_id="boot",
        health="HEALTHY",
        slots=4,
        busy_slots=1,
        queued=1,
        memory_mb=1000,
        models=[],
    )
    async with domain(founded, tmp_path) as clinic:
        agent = await clinic.agent()
        node = await clinic.login(OURS, "node.n1")
        books, steady = agent.capacity, agent.clock.steady
        await last_served(agent)
        books.set_room("n1", slots=4, queue=0)
        for name in ("a", "b", "c", "d"):
            place = books.hold("n1", name, hold_s=10, now=steady())
            books.commit(place.hold_id, name, steady())

        await node.publish("node.n1.out.state", state.write())  # it is not known yet: this is its hello
        await until(lambda: agent.book.get("n1"))
        await node.publish("node.n1.out.state", state.write())
        await until(lambda: books.used("n1", steady()) == 2)
