"""Agent and nodes as programs on a real bus, around engines that follow a script."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest
from aiohttp import web

from domain_agent.node.start import StartedEngine
from domain_agent.tests.bench import until
from domain_agent.tests.consumer import Attempt, Consumer, NodeFacts, chat
from domain_agent.tests.domain import ANSWER_S, Domain, domain
from domain_agent.tests.engines import ScriptedEngine, die_after, hang_after, say, speak
from domain_agent.tests.founding import OURS, PEER, Founded
from federation.stream import open_stream
from schemas.descriptors.summary import CapabilitySummary
from schemas.envelope import read as read_envelope
from schemas.errors import Refused, Undecided
from schemas.messages.interior import Challenges, Hold, NodeState, OwnAdvert, RevokeNode


def order(clinic: Domain, hold: Hold, **changes: object) -> Attempt:
    """A good order for what was held, as cloud.fr signs it."""
    assert clinic.running
    record = clinic.running.book.get(hold.node_id)
    assert record
    assert record.appraisal
    facts = NodeFacts(record.appraisal.sign_key, hold.seal_key, hold.model_digest)
    consumer = Consumer(clinic.founded.message[PEER])
    return consumer.order(facts, chat("hi"), **changes)  # type: ignore[arg-type]


async def held(clinic: Domain, **more: object) -> Hold:
    reply = await clinic.hold(**more)  # type: ignore[arg-type]
    assert reply.hold, reply.refused
    return reply.hold


def summary(clinic: Domain) -> CapabilitySummary:
    return CapabilitySummary.read(read_envelope(clinic.adverts[-1].advert.encode()).payload)


async def test_a_forged_node_stays_out_and_a_revoked_one_goes_out(founded: Founded, tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, domain(founded, tmp_path) as clinic:
        agent = await clinic.agent()
        await clinic.scripted(engine, name="n1", chip="stray")
        await clinic.scripted(engine, name="n2")
        await clinic.admitted("n2")
        await clinic.refused("n1", "node.platform_not_enrolled")
        # The good one runs; nobody is ever sent to the forged one.
        hold = await held(clinic)
        assert hold.node_id == "n2"
        attempt = await clinic.execute(order(clinic, hold), hold)
        assert attempt.text == "Hello world"
        await until(lambda: bool(clinic.adverts) and len(summary(clinic).cells) == 1)
        before = summary(clinic)
        # Revoked: the border is told, the next request finds nobody, the peers see a new trust epoch.
        revoke = RevokeNode(node_id="n2", reason_class="compromise", reason="stolen")
        await clinic.broker.request("agent.revoke", revoke.write(), timeout=ANSWER_S)
        assert (await clinic.hold()).refused
        await until(lambda: bool(clinic.revoked))
        assert clinic.revoked[0].nodes == [hold.node_sign]
        assert clinic.revoked[0].reason_class == "compromise"
        await until(lambda: summary(clinic).trust_epoch > before.trust_epoch and not summary(clinic).cells)
        assert (agent.config.state / "revocations.json").exists()
        assert summary(clinic).version > before.version


async def test_a_hold_of_a_revoked_node_starts_nothing(founded: Founded, tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, domain(founded, tmp_path) as clinic:
        agent = await clinic.agent()
        await clinic.scripted(engine)
        await clinic.admitted("n1")
        hold = await held(clinic)
        await agent.revoke(RevokeNode(node_id="n1", reason_class="stale", reason="replaced"))
        assert not (await clinic.commit(hold)).known


async def test_runs_on_the_bus_are_cancelled_refused_twice_and_ended_by_draining(
    founded: Founded, tmp_path: Path
) -> None:
    async with ScriptedEngine() as engine, domain(founded, tmp_path) as clinic:
        await clinic.agent()
        node = await clinic.scripted(engine)
        await clinic.admitted("n1")
        engine.script = hang_after("one")
        engine.bodies.clear()
        # 1. The consumer leaves: the engine is told by its closed connection.
        hold = await held(clinic)
        attempt = order(clinic, hold)
        async with open_stream(clinic.broker, "node.n1.in.execute", attempt.head, attempt.chunks) as stream:
            async for frame in stream:
                attempt.take(frame)
                if attempt.text:
                    break
        await asyncio.wait_for(engine.left.wait(), 5)
        await until(lambda: not node.runs)
        # 2. The same order again is a typed refusal, not a second run.
        again = Attempt(**{name: getattr(attempt, name) for name in _SEALED})
        await clinic.execute(again, hold)
        assert again.problem
        assert again.problem.code == "node.duplicate"
        assert len(engine.bodies) == 1
        # 3. Draining: what runs gets its time, then the node's statement that it was ended.
        last = order(clinic, hold)
        running = asyncio.create_task(clinic.execute(last, hold))
        await until(lambda: last.text)
        node.drain()
        await running
        assert last.statement
        assert (last.statement.outcome, last.statement.code) == ("terminated", "node.draining")
        assert last.clear_statement == last.statement


_SEALED = ("header", "sealed_secret", "chunks", "secret", "digest", "facts")


async def test_a_dead_engine_ends_the_node_after_its_runs_have_said_so(
    founded: Founded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedEngine() as engine, domain(founded, tmp_path) as clinic:
        await clinic.agent()
        died = asyncio.Event()
        monkeypatch.setattr(StartedEngine, "ended", lambda _: died.wait())
        node = await clinic.scripted(engine, fails="engine.died")
        await clinic.admitted("n1")

        async def die(response: web.StreamResponse, body: dict[str, object]) -> None:
            await say(response, "one")
            died.set()
            await die_after()(response, body)

        engine.script = die
        hold = await held(clinic)
        attempt = await clinic.execute(order(clinic, hold), hold)
        assert attempt.statement
        assert (attempt.statement.outcome, attempt.statement.code) == ("partial", "engine.lost")
        await until(lambda: node.bus.closed.is_set())


async def test_a_node_that_comes_back_is_someone_else(founded: Founded, tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, domain(founded, tmp_path) as clinic:
        await clinic.agent()
        first = await clinic.scripted(engine)
        before = (await clinic.admitted("n1")).nodes[0].node_sign
        first.drain()
        await until(lambda: first.bus.closed.is_set())
        await clinic.scripted(engine)
        await until(lambda: clinic.revoked)
        assert clinic.revoked[0].nodes == [before]
        assert (await clinic.admitted("n1")).nodes[0].node_sign != before


async def test_only_a_peers_own_advert_key_brings_its_challenge(founded: Founded, tmp_path: Path) -> None:
    async with domain(founded, tmp_path) as clinic:
        agent = await clinic.agent()
        await clinic.peer_advert(secrets.token_bytes(32), key_of=OURS)
        good = await clinic.peer_advert(secrets.token_bytes(32), seq=1)
        await until(lambda: agent.peers.current(agent.clock.wall()))
        assert agent.peers.current(agent.clock.wall()) == {PEER: good.value}
        older = await clinic.peer_advert(secrets.token_bytes(32), seq=0)
        newest = await clinic.peer_advert(secrets.token_bytes(32), seq=2)
        await until(lambda: agent.peers.current(agent.clock.wall()) != {PEER: good.value})
        assert agent.peers.current(agent.clock.wall()) == {PEER: newest.value}
        assert older.value != newest.value


async def test_nodes_are_admitted_again_after_the_bus_was_gone(founded: Founded, tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, domain(founded, tmp_path) as clinic:
        await clinic.agent(epoch_s=2)
        await clinic.scripted(engine)
        await clinic.admitted("n1")
        await clinic.server.kill()
        await clinic.server.start()
        async with asyncio.timeout(10):
            while True:
                try:
                    reply = await clinic.hold()
                except Undecided:
                    reply = None
                if reply and reply.hold:
                    break
                await asyncio.sleep(0.05)
        seen = len(clinic.adverts)
        await until(lambda: len(clinic.adverts) > seen)


async def test_a_node_answers_no_quote_without_its_own_domains_challenge(
    founded: Founded, tmp_path: Path
) -> None:
    async with ScriptedEngine() as engine, domain(founded, tmp_path) as clinic:
        node = await clinic.scripted(engine)
        asked = Challenges(key_epoch=1, challenges={PEER: "0" * 64})
        await until(lambda: len(node.bus.servings) >= 1)
        with pytest.raises(Refused, match=r"node\.not_own_challenge"):
            await clinic.broker.request("node.n1.in.quote", asked.write(), timeout=5)


async def test_an_agent_that_ends_says_so_and_starts_again_as_a_new_epoch(
    founded: Founded, tmp_path: Path
) -> None:
    async with domain(founded, tmp_path) as clinic:
        first = await clinic.agent()
        await until(lambda: clinic.adverts)
        first.drain()
        await until(lambda: summary(clinic).draining)
        last = summary(clinic)
        await until(lambda: first.bus.closed.is_set())
        await clinic.agent()
        await until(lambda: not summary(clinic).draining)
        again = summary(clinic)
        assert again.epoch > last.epoch
        assert again.trust_epoch == last.trust_epoch
        assert OwnAdvert.read(await clinic.broker.request("agent.snapshot", b"{}", timeout=2)).advert


async def test_telemetry_comes_each_second(founded: Founded, tmp_path: Path) -> None:
    words = speak("one", "two", "three", "four", "five")
    async with ScriptedEngine(words) as engine, domain(founded, tmp_path) as clinic:
        agent = await clinic.agent()
        await clinic.scripted(engine, slots=3)
        await clinic.admitted("n1")
        record = agent.book.get("n1")
        assert record
        first = record.state
        assert isinstance(first, NodeState)
        assert (first.slots, first.health) == (3, "HEALTHY")
        assert first.models[0].decode_tps == 50
        await until(lambda: record.state is not first)


async def test_a_program_that_the_bus_will_not_have_back_ends(founded: Founded, tmp_path: Path) -> None:
    """Otherwise an agent that hears nobody, and a node that nobody hears, look alive for ever."""
    async with ScriptedEngine() as engine, domain(founded, tmp_path) as clinic:
        agent = await clinic.agent(fails="bus.ended")
        node = await clinic.scripted(engine, fails="bus.ended")
        await clinic.admitted("n1")
        for bus in (agent.bus, node.bus):
            bus._client._max_payload = 1 << 20  # a client that does not check: the server shuts it out
            await bus._client.publish("agent.status", bytes(300 * 1024))
            await asyncio.wait_for(bus.closed.wait(), ANSWER_S)
