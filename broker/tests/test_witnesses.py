"""Our witness on the broker's event loop: it waits for no disk there, and says what it caught once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from broker.peers import Peers
from broker.tests.logs import opened
from broker.tests.parties import CONSUMER, PROVIDER, Parties, log_signer
from broker.witnesses import ADD, CONVICT, LATEST, answer, open_witness, remember_all
from receipts.checkpoint import Checkpoint
from receipts.log import TransparencyLog
from receipts.witnessing import equivocation
from receipts.witnessing.asking import request_body
from receipts.witnessing.state import WitnessState

ORIGIN = f"log.{PROVIDER}"


def shown(old: int, root: int) -> bytes:
    """A request about the provider's log at size 5, under one of as many histories as there are roots."""
    return ADD + b"\n" + request_body(old, [], checkpoint(root))


def checkpoint(root: int) -> bytes:
    return log_signer(PROVIDER).sign(Checkpoint(ORIGIN, 5, bytes([root]) * 32).text)


def document(root: int) -> bytes:
    found = equivocation.between(checkpoint(0), checkpoint(root))
    assert found is not None
    return found.write()


@dataclass
class _Bus:
    """Writes down what is published."""

    said: list[tuple[str, bytes]] = field(default_factory=list)

    async def publish(self, subject: str, payload: bytes) -> None:
        self.said.append((subject.rpartition(".")[2], payload))


@dataclass
class _Turn:
    """A witness's lock, which another request may hold for seconds: the loop's thread must not ask for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    loop: int = field(default_factory=threading.get_ident)

    def __enter__(self) -> None:
        assert threading.get_ident() != self.loop, "the event loop would stand still"
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


@pytest.fixture
def state(parties: Parties, tmp_path: Path) -> Iterator[WitnessState]:
    made = open_witness(tmp_path / "w.db", f"{CONSUMER}/witness", b"\1" * 32, parties.trust, CONSUMER)
    yield made
    made.close()


@pytest.fixture
async def own(parties: Parties, tmp_path: Path) -> AsyncIterator[TransparencyLog]:
    async with opened(tmp_path, parties, CONSUMER) as log:
        yield log


@pytest.fixture
def bus() -> _Bus:
    return _Bus()


@pytest.fixture
def peers(parties: Parties, bus: Any) -> Peers:
    return Peers(
        bus, parties.trust, CONSUMER, parties.keys[CONSUMER]["message"], parties.peers(CONSUMER).local
    )


async def test_nothing_of_it_waits_on_the_event_loop(
    state: WitnessState, peers: Peers, own: TransparencyLog, bus: _Bus
) -> None:
    turn: Any = _Turn()
    state._turn = turn
    assert (await answer(state, peers, own, shown(0, 0)))[:3] == b"200"
    assert (await answer(state, peers, own, ADD + b"\nnoise"))[:3] == b"400"
    assert (await answer(state, peers, own, shown(5, 1)))[:3] == b"422"
    assert await answer(state, peers, own, CONVICT + b"\n" + document(2)) == b""
    assert (await answer(state, peers, own, LATEST + b"\n" + ORIGIN.encode()))[:3] == b"200"
    await remember_all(state, peers.trust, own)
    caught, brought = await asyncio.to_thread(state.convictions)
    assert brought == document(2)
    assert await own.convictions() == [caught], "one document convicts a log from a size on"
    assert bus.said == [("witness", CONVICT + b"\n" + caught)], "only what was caught here is passed on"


async def test_what_two_requests_catch_at_once_is_told_once_each(
    state: WitnessState, peers: Peers, own: TransparencyLog, bus: _Bus
) -> None:
    await answer(state, peers, own, shown(0, 0))
    await asyncio.gather(*(answer(state, peers, own, shown(5, root)) for root in (1, 2, 2)))
    caught = state.convictions()
    assert len(caught) == 2
    assert sorted(bus.said) == sorted(("witness", CONVICT + b"\n" + each) for each in caught)


async def test_who_remembers_at_once_says_it_once(
    state: WitnessState, peers: Peers, own: TransparencyLog
) -> None:
    assert state.add_conviction(document(1))
    await asyncio.gather(*(remember_all(state, peers.trust, own) for _ in range(4)))
    assert await own.convictions() == [document(1)]
    assert own.size == 1
