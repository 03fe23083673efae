"""Asking witnesses, round after round: lost answers, wrong numbers, and a log that cannot keep what comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from receipts import merkle
from receipts.note import Signature
from receipts.witnessing import asking
from receipts.witnessing.asking import Circle, Reply, Witness
from receipts.witnessing.state import WitnessState
from receipts.witnessing.tests.trees import LEAVES, LOG, ORIGIN, SIGNER, TIME, proof, signed, tree
from schemas.errors import ComityError, ConfigurationError, Refused, Undecided

NOW = datetime.fromtimestamp(TIME, UTC)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[WitnessState]:
    opened = WitnessState.open(tmp_path / "witness.db", logs={ORIGIN: [LOG.key]}, signers=[SIGNER])
    yield opened
    opened.close()


@dataclass
class Growing:
    """A log that gets a leaf and a checkpoint whenever it is asked for a newer one, up to so many leaves."""

    size: int
    until: int
    trouble: ComityError | None = None
    """Why it keeps no cosignature; None when it does."""
    kept: list[int] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing newer will come."""

    async def consistency(self, first: int, second: int) -> Sequence[bytes]:
        if not first <= second <= self.size:
            raise Refused("merkle.size", "no such proof")
        return proof(first, second)

    async def root_at(self, size: int) -> bytes:
        return merkle.root(LEAVES[:size])

    async def keep_cosignature(self, size: int, signature: Signature) -> None:
        if self.trouble is not None:
            raise self.trouble
        assert SIGNER.key.verify(signature, tree(size).text) == TIME
        self.kept.append(size)

    async def newer_checkpoint(self, than: int) -> bytes:
        if self.size == self.until:
            self.done.set()
            await asyncio.Event().wait()
        self.size += 1
        return signed(self.size)


@dataclass
class Road:
    """A witness that is asked at once; of the notes that it shows, the first few are lost on the way."""

    state: WitnessState
    lost: int = 0
    wrong: list[Reply] = field(default_factory=list)
    """Said before anything true is."""
    asked: int = 0

    async def add_checkpoint(self, body: bytes) -> Reply:
        self.asked += 1
        if self.wrong:
            return self.wrong.pop(0)
        answer = self.state.add_checkpoint(body, time=TIME)
        return Reply(answer.status, answer.body)

    async def latest(self, origin: str) -> bytes | None:
        if self.lost:
            self.lost -= 1
            raise Undecided("witness.unreachable", "lost")
        return self.state.latest(origin)


def circle_of(road: Road) -> Circle:
    return Circle(ORIGIN, [LOG.key], [Witness("clinic.de", SIGNER.key, road)], clock=lambda: NOW)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PAUSE_S", 0)


async def follow(circle: Circle, log: Growing) -> None:
    """Until nothing newer comes. Raises what ends it before."""
    async with asyncio.timeout(10):
        following = asyncio.ensure_future(circle.follow(log))
        done = asyncio.ensure_future(log.done.wait())
        await asyncio.wait({following, done}, return_when=asyncio.FIRST_COMPLETED)
        for task in (following, done):
            task.cancel()
        ended, _ = await asyncio.gather(following, done, return_exceptions=True)
        if not isinstance(ended, asyncio.CancelledError):
            assert isinstance(ended, BaseException)
            raise ended


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("lost", [0, 1, 5])
async def test_lost_answers_put_off_what_a_witness_proves(state: WitnessState, lost: int) -> None:
    """It has cosigned 25 leaves, and a backup of 5 was restored: each round asks, until the proof comes."""
    assert await circle_of(Road(state)).show(Growing(25, 25), signed(25)) == 1
    road, log = Road(state, lost), Growing(5, 24)
    with pytest.raises(Refused) as refused:
        await follow(circle_of(road), log)
    assert refused.value.code == "witness.ahead"
    assert (road.asked, log.size) == (lost + 1, 5 + lost + 1)
    assert log.kept == []


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "wrong", [[Reply(409, b"77\n")], [Reply(409, b"1\n")] * 2, [Reply(409, b"1\n"), Reply(409, b"77\n")]]
)
async def test_a_witness_that_named_a_wrong_number_is_heard_again(
    state: WitnessState, wrong: list[Reply]
) -> None:
    """One more than we have, or one that it has not seen: the next round begins with what is known."""
    circle, log = circle_of(Road(state, wrong=wrong)), Growing(5, 8)
    await follow(circle, log)
    assert log.kept == [7, 8]
    assert circle.status == "witnesses: 1/1"


async def test_a_witness_that_is_known_to_be_ahead_is_asked_all_the_same(state: WitnessState) -> None:
    """There is no proof from a larger size: it is asked from ours, and says what it has."""
    assert await circle_of(Road(state)).show(Growing(25, 25), signed(25)) == 1
    circle = circle_of(Road(state))
    circle.witnesses[0].size = 25
    with pytest.raises(Refused) as refused:
        await circle.show(Growing(9, 9), signed(9))
    assert refused.value.code == "witness.ahead"


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "trouble",
    [
        Refused("log.queue_full", "too many are waiting"),
        Undecided("log.cannot_commit", "the disk is full"),
        ConfigurationError("log.erasures", "no such folder"),
    ],
    ids=lambda error: error.code,
)
async def test_a_log_that_keeps_no_cosignature_does_not_end_the_asking(
    state: WitnessState, trouble: ComityError
) -> None:
    """The witness has cosigned all the same: the next one goes on from there, and is kept."""
    circle, log = circle_of(Road(state)), Growing(5, 7, trouble)
    await follow(circle, log)
    witness = circle.witnesses[0]
    assert (log.kept, witness.size, witness.trouble) == ([], 7, trouble.code)
    assert circle.status == "witnesses: 0/1"
    log.trouble, log.until = None, 8
    log.done.clear()
    await follow(circle, log)
    assert (log.kept, witness.trouble) == ([8], None)
