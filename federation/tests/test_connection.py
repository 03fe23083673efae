"""Requests and services over a real server, and what an outage does to them."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from federation import connection
from federation.accounts import make_user
from federation.connection import Bus
from federation.embedded.folder import found_bus
from federation.flood import FloodLimits
from federation.serving import Inbound
from federation.tests.conftest import GENEROUS, World, until
from schemas.errors import ComityError, ConfigurationError, Refused, Undecided, Unreadable

CALL = "fed.v1.neg.DOM_cloud_fr.*.call"


async def echo(inbound: Inbound) -> bytes:
    return inbound.sender.encode() + b"|" + inbound.op.encode() + b"|" + inbound.payload


async def test_the_server_names_the_sender(world: World) -> None:
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")
    serving = await answerer.serve(CALL, echo, limits=GENEROUS, concurrency=4)
    await answerer.flush()
    assert await asker.request("peer.cloud_fr.call", b"hello", timeout=5) == b"clinic.de|call|hello"
    assert serving.counts["handled"] == 1
    await serving.stop()
    await answerer.flush()
    with pytest.raises(Undecided, match=r"bus\.absent"):
        await asker.request("peer.cloud_fr.call", b"", timeout=5)
    assert answerer.servings == []


async def test_nobody_there_is_known_at_once(world: World) -> None:
    asker = await world.bus("clinic.de")
    started = time.monotonic()
    for subject in ("peer.cloud_fr.call", "peer.no_such.call"):
        with pytest.raises(Undecided, match=r"bus\.absent"):
            await asker.request(subject, b"", timeout=30)
    assert time.monotonic() - started < 2


async def test_no_answer_in_time(world: World) -> None:
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")
    asked = asyncio.Event()

    async def silent(inbound: Inbound) -> None:
        asked.set()

    await answerer.serve(CALL, silent, limits=GENEROUS, concurrency=1)
    await answerer.flush()
    with pytest.raises(Undecided, match=r"bus\.timeout"):
        await asker.request("peer.cloud_fr.call", b"", timeout=0.2)
    assert asked.is_set()


async def test_a_handlers_error_comes_back_in_kind(world: World) -> None:
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")
    kinds: dict[bytes, type[ComityError]] = {
        kind.__name__.encode(): kind for kind in (Unreadable, ConfigurationError, Refused, Undecided)
    }

    async def fails(inbound: Inbound) -> bytes:
        raise kinds[inbound.payload]("room.reason", "because\r\nof é")

    await answerer.serve(CALL, fails, limits=GENEROUS, concurrency=1)
    await answerer.flush()
    for name, kind in kinds.items():
        with pytest.raises(kind) as caught:
            await asker.request("peer.cloud_fr.call", name, timeout=5)
        assert caught.value.code == "room.reason"
        assert caught.value.text == "because??of ?"


async def test_a_handlers_defect_tells_nothing_but_that(world: World) -> None:
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")

    async def breaks(inbound: Inbound) -> bytes:
        raise ValueError("a secret")

    serving = await answerer.serve(CALL, breaks, limits=GENEROUS, concurrency=1)
    await answerer.flush()
    with pytest.raises(Undecided, match=r"bus\.defect") as caught:
        await asker.request("peer.cloud_fr.call", b"", timeout=5)
    assert "secret" not in str(caught.value)
    assert serving.counts["defects"] == 1


async def test_workers_are_bounded(world: World) -> None:
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")
    running, most, go_on = 0, 0, asyncio.Event()

    async def counts(inbound: Inbound) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go_on.wait()
        running -= 1
        return inbound.payload

    await answerer.serve(CALL, counts, limits=GENEROUS, concurrency=3)
    await answerer.flush()
    asks = [
        asyncio.create_task(asker.request("peer.cloud_fr.call", b"%d" % n, timeout=10)) for n in range(20)
    ]
    await until(lambda: running == 3)
    go_on.set()
    assert await asyncio.gather(*asks) == [b"%d" % n for n in range(20)]
    assert most == 3


async def test_bounds_and_rights_are_typed(world: World) -> None:
    bus = await world.bus("clinic.de")
    with pytest.raises(Refused, match=r"bus\.too_long"):
        await bus.publish("peer.cloud_fr.call", bytes(connection.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(Refused, match=r"bus\.subject"):
        await bus.publish("peer.cloud fr.call", b"")
    with pytest.raises(Refused, match=r"bus\.subject"):
        await bus.publish("peer.cloud_fr.call\r\nPUB x 0\r\n", b"")
    with pytest.raises(Refused, match=r"bus\.not_permitted"):
        await bus.request("fed.v1.neg.DOM_cloud_fr.DOM_clinic_de.call", b"", timeout=10)


async def test_a_login_that_the_server_does_not_know_is_refused_at_once(world: World, tmp_path: Path) -> None:
    other, _ = found_bus(tmp_path / "other", {"clinic.de": []}, datetime.now(UTC))
    settings = world.settings("clinic.de", "broker")
    seed = other.seed_file("clinic.de", "broker")
    strange = type(settings)(settings.url, seed, settings.ca_file, "strange", "_INBOX.broker")
    started = time.monotonic()
    with pytest.raises(Refused, match=r"bus\.login"):
        await Bus.connect(strange)
    assert time.monotonic() - started < 5
    seed.chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"keys\.file_mode"):
        await Bus.connect(strange)
    seed.chmod(0o600)
    seed.write_bytes(b"not a seed")
    with pytest.raises(ConfigurationError, match=r"bus\.seed"):
        await Bus.connect(strange)


async def test_out_of_reach_and_no_authority_are_typed(tmp_path: Path) -> None:
    folder, _ = found_bus(tmp_path / "bus", {"a.de": []}, datetime.now(UTC))
    with pytest.raises(Undecided, match=r"bus\.unreachable"):
        await Bus.connect(folder.settings("a.de", "broker", "tls://127.0.0.1:9"), timeout=0.6)
    folder.ca_file.unlink()
    with pytest.raises(ConfigurationError, match=r"bus\.ca_file"):
        await Bus.connect(folder.settings("a.de", "broker", "tls://127.0.0.1:9"), timeout=0.6)


async def test_kill_9_and_back_on_the_same_port(world: World) -> None:
    """The acceptance test: three seconds after the port is back, requests work again."""
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")
    again, hold = asyncio.Event(), asyncio.Event()

    async def on_reconnect() -> None:
        again.set()

    async def holds(inbound: Inbound) -> bytes:
        if inbound.payload == b"wait":
            await hold.wait()
        return b"done"

    asker.on_reconnect(on_reconnect)
    await answerer.serve(CALL, holds, limits=GENEROUS, concurrency=4)
    await answerer.flush()
    pending = asyncio.create_task(asker.request("peer.cloud_fr.call", b"wait", timeout=60))
    await until(lambda: answerer.servings[0].gate.total.accepted == 1)
    port = world.server.port
    await world.server.kill()
    with pytest.raises(Undecided, match=r"bus\.disconnected"):
        await asyncio.wait_for(pending, 3)
    assert not asker.connected
    assert not await asker.wait_connected(0.05)
    with pytest.raises(Undecided, match=r"bus\.disconnected"):
        await asker.publish("peer.cloud_fr.call", b"must not be sent later")
    await world.server.start()
    assert world.server.port == port
    started = time.monotonic()
    await asyncio.gather(asker.wait_connected(3), answerer.wait_connected(3))
    while True:
        try:
            assert await asker.request("peer.cloud_fr.call", b"x", timeout=1) == b"done"
            break
        except Undecided:
            assert time.monotonic() - started < 3
            await asyncio.sleep(0.05)
    assert time.monotonic() - started < 3
    await asyncio.wait_for(again.wait(), 3)
    assert asker.reconnects == 1
    assert answerer.servings[0].gate.total.accepted == 2, "nothing of the outage was sent afterwards"
    hold.set()


async def test_replicas_share_a_queue_or_each_get_all(world: World) -> None:
    asker = await world.bus("clinic.de")
    replicas = [await world.bus("cloud.fr") for _ in range(2)]
    shared, all_of_them = [0, 0], [0, 0]
    for number, replica in enumerate(replicas):

        async def one(inbound: Inbound, number: int = number) -> bytes:
            shared[number] += 1
            return b""

        async def each(inbound: Inbound, number: int = number) -> None:
            all_of_them[number] += 1

        await replica.serve(CALL, one, limits=GENEROUS, concurrency=4, queue="border")
        await replica.serve("fed.v1.neg.DOM_cloud_fr.*.revoke", each, limits=GENEROUS, concurrency=4)
        await replica.flush()
    for _ in range(40):
        await asker.request("peer.cloud_fr.call", b"", timeout=5)
    assert sum(shared) == 40
    await asker.publish("peer.cloud_fr.revoke", b"")
    await until(lambda: all_of_them == [1, 1])


async def test_messages_beyond_a_peers_bucket_are_dropped_and_counted(world: World) -> None:
    asker, other, answerer = [await world.bus(name) for name in ("evil.test", "clinic.de", "cloud.fr")]
    limits = FloodLimits(rate=1, burst=10, queue=64)
    serving = await answerer.serve(CALL, echo, limits=limits, concurrency=4)
    await answerer.flush()
    for _ in range(200):
        await asker.publish("peer.cloud_fr.call", b"flood")
    await asker.flush()
    assert await other.request("peer.cloud_fr.call", b"", timeout=5) == b"clinic.de|call|"
    counts = serving.gate.counts()
    assert counts["clinic.de"].accepted == 1
    assert counts["evil.test"].over_rate >= 185
    assert counts["evil.test"].accepted <= 15


async def test_close_lets_what_runs_end(world: World) -> None:
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")
    started = asyncio.Event()

    async def slow(inbound: Inbound) -> bytes:
        started.set()
        await asyncio.sleep(0.2)
        return b"still answered"

    await answerer.serve(CALL, slow, limits=GENEROUS, concurrency=1)
    await answerer.flush()
    asked = asyncio.create_task(asker.request("peer.cloud_fr.call", b"", timeout=5))
    await started.wait()
    await answerer.close()
    assert await asked == b"still answered"
    assert answerer.closed.is_set()
    await answerer.close()
    with pytest.raises(Undecided, match=r"bus\.disconnected"):
        await answerer.publish("peer.clinic_de.call", b"")


async def test_a_login_that_is_withdrawn_ends_the_connection_and_says_so(world: World) -> None:
    gone, kept = await world.bus("clinic.de", "broker"), await world.bus("clinic.de", "agent")
    over = asyncio.create_task(gone.over())
    await withdraw(world, "broker")
    with pytest.raises(Refused, match=r"bus\.login: .* was withdrawn"):
        await asyncio.wait_for(over, 10)
    assert kept.connected


async def test_a_login_that_is_withdrawn_during_an_outage_ends_the_connection_too(world: World) -> None:
    gone = await world.bus("clinic.de", "broker")
    over = asyncio.create_task(gone.over())
    await world.server.kill()
    await withdraw(world, "broker")
    await world.server.start()
    with pytest.raises(Refused, match=r"bus\.login: .* was withdrawn"):
        await asyncio.wait_for(over, 20)


async def test_what_else_the_server_ends_for_good_is_said_in_its_words(world: World) -> None:
    bus = await world.bus("clinic.de")
    over = asyncio.create_task(bus.over())
    bus._client._max_payload = 1 << 20  # a client that does not check: the server ends the connection
    await bus._client.publish("peer.cloud_fr.call", bytes(300 * 1024))
    with pytest.raises(Undecided, match=r"bus\.ended: .*[Mm]aximum [Pp]ayload"):
        await asyncio.wait_for(over, 10)


async def withdraw(world: World, user: str) -> None:
    """Take a login of clinic.de out of the server's configuration; a server that runs takes it over."""
    public = world.plan.domains[0].user(user).public
    lines = world.folder.config.read_text().splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if public in line)
    assert f"# {user}" in lines[start + 3]
    world.folder.config.write_text("".join(lines[:start] + lines[start + 4 :]))
    if world.server.pid:
        await world.server.reload()


def test_users_have_their_own_inboxes() -> None:
    assert make_user("node.n1", "node").inbox_prefix == "_INBOX.node.n1"


def _down(bus: Bus) -> bool:
    return not bus.connected


async def test_closing_while_the_server_is_gone_is_no_error(world: World) -> None:
    for _ in range(5):  # the client's reconnection is somewhere else each time
        bus = await world.bus("clinic.de")
        for op in range(8):
            await bus.serve(f"fed.v1.neg.DOM_cloud_fr.*.op{op}", echo, limits=GENEROUS, concurrency=1)
        await bus.flush()
        await world.server.kill()
        await until(partial(_down, bus))
        await bus.close()
        assert bus.closed.is_set()
        await world.server.start()
