"""The attacks of nats.md 5 against an account per domain: evil.test attacks clinic.de and cloud.fr.

The attacker has every right that its account can give, as if it ran its own leaf server.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from nats.aio.client import Client

from federation.accounts import SUBSCRIPTIONS
from federation.client import intake
from federation.connection import Bus
from federation.flood import FloodLimits
from federation.serving import Inbound
from federation.tests.conftest import GENEROUS, World, until
from schemas.errors import Refused, Undecided

B, C = "DOM_clinic_de", "DOM_cloud_fr"


class Victim:
    """A domain's border that notes whatever reaches it, by operation."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.got: defaultdict[str, list[Inbound]] = defaultdict(list)

    async def serve(self, domain: str, *ops: str) -> None:
        for op in ops:
            await self.bus.serve(f"fed.v1.neg.{domain}.*.{op}", self._note, limits=GENEROUS, concurrency=8)
        await self.bus.flush()

    async def _note(self, inbound: Inbound) -> bytes:
        self.got[inbound.op].append(inbound)
        return b"an answer with my rights"


async def victims(world: World) -> tuple[Victim, Victim]:
    both = Victim(await world.bus("clinic.de")), Victim(await world.bus("cloud.fr"))
    await both[0].serve(B, "call", "accept", "advert", "snapshot")
    await both[1].serve(C, "call", "accept", "advert", "snapshot")
    return both


async def fence(attacker: Bus, *others: Victim) -> None:
    """After this, whatever the attacker sent before has arrived wherever it could."""
    for victim, name in zip(others, ("clinic_de", "cloud_fr"), strict=False):
        await attacker.request(f"peer.{name}.snapshot", b"fence", timeout=5)
        assert [inbound.sender for inbound in victim.got["snapshot"]] == ["evil.test"]


async def test_n1_nobody_speaks_as_another(world: World) -> None:
    attacker = await world.attacker()
    b, c = await victims(world)
    for subject in (
        f"fed.v1.neg.{B}.{C}.call",
        f"fed.v1.neg.{C}.{B}.advert",
        f"fed.v1.neg.{B}.{B}.call",
        "_R_.x",
    ):
        await attacker.publish(subject, b"forged")
    await fence(attacker, b, c)
    assert not b.got["call"]
    assert not c.got["advert"]
    await attacker.publish("peer.clinic_de.call", b"as myself")
    await attacker.request("peer.clinic_de.snapshot", b"", timeout=5)
    assert [inbound.sender for inbound in b.got["call"]] == ["evil.test"]


async def test_n2_nobody_reads_what_is_not_for_them(world: World) -> None:
    attacker = await world.attacker()
    b, _ = await victims(world)
    seen: list[str] = []
    for pattern in (">", f"fed.v1.neg.{C}.>", "peer.>", "_INBOX.>", "_R_.>"):
        await attacker.subscribe(pattern, lambda message: seen.append(message.subject))
    await attacker.flush()
    await b.bus.request("peer.cloud_fr.call", b"for C alone", timeout=5)
    await b.bus.publish("peer.cloud_fr.advert", b"for C alone")
    await b.bus.request("peer.cloud_fr.snapshot", b"", timeout=5)
    await attacker.flush()
    assert seen == []


async def test_n3_n4_n5_there_is_no_jetstream_to_borrow(world: World) -> None:
    attacker = await world.attacker()
    b, c = await victims(world)
    injected = f"fed.v1.neg.{B}.{C}.call"
    for subject in (
        "$JS.API.INFO",
        "$JS.API.STREAM.CREATE.S",
        "$JS.API.DIRECT.GET.S",
        "$JS.API.CONSUMER.CREATE.S",
    ):
        with pytest.raises(Undecided, match=r"bus\.absent"):
            await attacker.request(subject, b'{"last_by_subj":"x"}', timeout=5)
        await attacker.publish(subject, b'{"last_by_subj":"x"}', reply=injected)
    await fence(attacker, b, c)
    assert not b.got["call"]


async def test_n6_an_answer_does_not_carry_the_victims_rights(world: World) -> None:
    """A asks B, with B's own subjects, C's, and a peer path as the place for the answer."""
    attacker = await world.attacker()
    b, c = await victims(world)
    seen: list[str] = []
    targets = [f"fed.v1.neg.{B}.{C}.accept", f"fed.v1.neg.{C}.{B}.accept", "peer.cloud_fr.accept"]
    for target in targets:
        await attacker.subscribe(target, lambda message: seen.append(message.subject))
        await attacker.publish("peer.clinic_de.call", b"", reply=target)
    await fence(attacker, b, c)
    assert len(b.got["call"]) == 3
    assert all(inbound.reply.startswith("_R_.") for inbound in b.got["call"])
    assert not b.got["accept"]
    # What the attacker names in its own account stays there; its own peer path it may use anyway, as itself.
    assert {inbound.sender for inbound in c.got["accept"]} <= {"evil.test"}
    assert set(seen) <= set(targets)


async def test_n7_an_advert_is_never_answered(world: World) -> None:
    attacker = await world.attacker()
    b, c = await victims(world)
    seen: list[bytes] = []
    await attacker.subscribe("_INBOX.root.trap", lambda message: seen.append(message.data))
    await attacker.publish("peer.clinic_de.advert", b"advert", reply="_INBOX.root.trap")
    await attacker.publish("peer.clinic_de.advert", b"advert", reply=f"fed.v1.neg.{C}.{B}.call")
    await fence(attacker, b, c)
    await attacker.flush()
    assert [inbound.reply for inbound in b.got["advert"]] == ["", ""]
    assert seen == []
    assert not c.got["call"]


async def test_n8_a_foreign_negotiation_has_no_responder(world: World) -> None:
    attacker = await world.attacker()
    b, _ = await victims(world)
    for subject in (f"fed.v1.neg.{B}.{C}.call", f"fed.v1.neg.{B}.DOM_evil_test.call", "peer.evil_test.call"):
        with pytest.raises(Undecided, match=r"bus\.absent"):
            await attacker.request(subject, b"", timeout=5)
    assert not b.got["call"]


async def test_n9_limits_connections(world: World) -> None:
    for _ in range(20):
        await world.bus("evil.test")
    with pytest.raises(Undecided, match=r"bus\.unreachable"):
        await Bus.connect(world.settings("evil.test", "broker"), timeout=0.5)
    assert (await world.bus("clinic.de")).connected, "another domain is not touched"


async def test_n9_limits_payload(world: World) -> None:
    attacker = await world.attacker()
    with pytest.raises(Refused, match=r"bus\.too_long"):
        await attacker.publish("peer.clinic_de.call", bytes(300 * 1024))
    b, _ = await victims(world)
    raw: Client = attacker._client
    raw._max_payload = 1 << 20  # a client that does not check: the server ends the connection
    await raw.publish("peer.clinic_de.call", bytes(300 * 1024))
    await asyncio.wait_for(attacker.closed.wait(), 10)
    assert not b.got["call"]


async def test_n9_limits_subscriptions(world: World) -> None:
    attacker = await world.attacker()
    for number in range(SUBSCRIPTIONS):
        await attacker._client.subscribe(f"fill.{number}", future=asyncio.get_running_loop().create_future())
    await attacker.flush()
    await attacker.subscribe("one.too.many", lambda message: None)
    await asyncio.wait_for(attacker.closed.wait(), 10)


FLOODER = """
import asyncio, sys
from pathlib import Path
from federation.connection import Bus
from federation.embedded.folder import BusFolder

async def main():
    folder, url = BusFolder(Path(sys.argv[1])), sys.argv[2]
    bus = await Bus.connect(folder.settings("evil.test", "broker", url))
    print("flooding", flush=True)
    while True:
        for _ in range(500):
            await bus.publish("peer.clinic_de.call", b"x" * 64)
        await asyncio.sleep(0)

asyncio.run(main())
"""


async def test_n12_a_flood_does_not_take_the_service_from_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine, the flood is not let in again before the fifty requests are through.
    monkeypatch.setattr(intake, "SHUT_S", intake.MAX_SHUT_S)
    handled: defaultdict[str, int] = defaultdict(int)

    async def answer(inbound: Inbound) -> bytes:
        handled[inbound.sender] += 1
        return b""

    b, c = await world.bus("clinic.de"), await world.bus("cloud.fr")
    limits = FloodLimits(rate=100, burst=100, queue=64)
    serving = await b.serve(
        f"fed.v1.neg.{B}.*.call",
        answer,
        limits=limits,
        concurrency=8,
        senders=lambda: ("cloud.fr", "evil.test"),
    )
    await b.flush()
    flooder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FLOODER, str(world.folder.path), world.server.url,
        stdout=asyncio.subprocess.PIPE, cwd=str(Path(__file__).parents[2]),
    )  # fmt: skip
    try:
        assert flooder.stdout
        await asyncio.wait_for(flooder.stdout.readline(), 20)
        started = time.monotonic()
        await until(lambda: "evil.test" in serving.shut, within=60)
        waits = [await timed_request(c) for _ in range(50)]
        elapsed = time.monotonic() - started
    finally:
        flooder.kill()
        await flooder.wait()
    assert handled["cloud.fr"] == 50, "every honest request was answered"
    assert handled["evil.test"] <= limits.burst + limits.rate * (elapsed + 1)
    assert serving.gate.counts()["evil.test"].over_rate >= limits.shut_after
    assert sorted(waits)[40] < 0.5, "once the flood is shut out, it is hardly felt"


async def test_n12_who_is_no_member_any_more_is_shut_out_as_well(world: World) -> None:
    """A member that left keeps its account until somebody takes that away from it."""
    b, c, gone = [await world.bus(name) for name in ("clinic.de", "cloud.fr", "evil.test")]
    victim, limits = Victim(b), FloodLimits(rate=1, burst=10, shut_after=20)
    serving = await b.serve(
        f"fed.v1.neg.{B}.*.call", victim._note, limits=limits, concurrency=8, senders=lambda: ("cloud.fr",)
    )
    await b.flush()
    for _ in range(50):
        await gone.publish("peer.clinic_de.call", b"flood")
    await gone.flush()
    await until(lambda: bool(serving.shut))
    await timed_request(c)
    with pytest.raises(Undecided, match=r"bus\.absent"):
        await gone.request("peer.clinic_de.call", b"", timeout=5)
    assert await c.request("peer.clinic_de.call", b"", timeout=5) == b"an answer with my rights"


async def timed_request(bus: Bus) -> float:
    asked = time.monotonic()
    await bus.request("peer.clinic_de.call", b"", timeout=20)
    return time.monotonic() - asked
