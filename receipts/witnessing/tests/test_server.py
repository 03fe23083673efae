"""A witness with its memory, over HTTP: races, restarts, lies, and a log that was set back."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from receipts import checkpoint, note
from receipts.checkpoint import Checkpoint
from receipts.cosignature import SUBTREE, Cosigner
from receipts.log import TransparencyLog, fsck
from receipts.note import Note, Signature
from receipts.proof import read as read_proof
from receipts.tests.world import Domain, drafts
from receipts.witnessing import equivocation
from receipts.witnessing.asking import Circle, HttpRoad, Reply, Witness, cosign, request_body
from receipts.witnessing.equivocation import Equivocation
from receipts.witnessing.server import build_app
from receipts.witnessing.state import WitnessState
from receipts.witnessing.tests.trees import LEAVES, LOG, ORIGIN, OTHER, SIGNER, TIME, proof, signed, tree
from schemas.errors import ConfigurationError, Refused, Undecided

NOW = datetime.fromtimestamp(TIME, UTC)
STRONG = Cosigner.of(SIGNER.key.name, bytes(31) + b"\1", SUBTREE)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[WitnessState]:
    opened = reopen(tmp_path)
    yield opened
    opened.close()


def reopen(folder: Path, signers: Sequence[Cosigner] = (SIGNER,)) -> WitnessState:
    return WitnessState.open(folder / "witness.db", logs={ORIGIN: [LOG.key]}, signers=signers)


def ask(state: WitnessState, old: int, new: int, leaves: list[bytes] = LEAVES) -> tuple[int, bytes]:
    answer = state.add_checkpoint(request_body(old, proof(old, new, leaves), signed(new, leaves)), time=TIME)
    return answer.status, answer.body


def test_what_was_answered_survives_a_restart(state: WitnessState, tmp_path: Path) -> None:
    assert ask(state, 0, 5)[0] == 200
    again = reopen(tmp_path)
    assert ask(again, 0, 5) == (409, b"5\n")
    assert ask(again, 5, 9)[0] == 200
    kept = again.latest(ORIGIN)
    assert kept is not None
    assert checkpoint.verify(kept, [LOG.key], origin=ORIGIN).checkpoint.size == 9
    again.close()
    with pytest.raises(ConfigurationError):
        WitnessState.open(tmp_path / "no" / "where.db", logs={}, signers=[SIGNER])
    with pytest.raises(ConfigurationError):
        WitnessState.open(tmp_path / "other.db", logs={}, signers=[])


def test_nobody_else_reads_what_a_witness_remembers(state: WitnessState, tmp_path: Path) -> None:
    assert ask(state, 0, 5)[0] == 200
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes.keys() >= {"witness.db", "witness.db-wal"}
    assert set(modes.values()) == {0o600}


def test_of_two_requests_in_flight_one_wins(state: WitnessState, tmp_path: Path) -> None:
    """From the same old size, on two processes' worth of connections: never both, never rolled back."""
    states = [state, reopen(tmp_path)]
    sizes = [*range(1, 33)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda size: ask(states[size % 2], 0, size)[0], sizes))
    assert sorted(answers) == [200] + [409] * 31
    kept = state.latest(ORIGIN)
    assert kept is not None
    assert checkpoint.read(kept).checkpoint.size == sizes[answers.index(200)]
    states[1].close()


def test_nothing_is_cosigned_that_could_not_be_stored(state: WitnessState, tmp_path: Path) -> None:
    assert ask(state, 0, 5)[0] == 200
    state._connection.close()
    state._connection = sqlite3.connect(f"file:{tmp_path}/witness.db?mode=ro", uri=True, isolation_level=None,
                                        check_same_thread=False)  # fmt: skip
    with pytest.raises(Undecided, match="cannot be written"):
        ask(state, 5, 9)
    assert ask_again(tmp_path) == (409, b"5\n")


def ask_again(folder: Path) -> tuple[int, bytes]:
    state = reopen(folder)
    try:
        return ask(state, 9, 9)
    finally:
        state.close()


@pytest.mark.parametrize(("old", "new"), [(5, 5), (5, 9)])
def test_a_second_history_convicts_the_log(state: WitnessState, old: int, new: int) -> None:
    assert ask(state, 0, 5)[0] == 200
    assert ask(state, old, new, OTHER)[0] == 422
    (document,) = state.convictions()
    assert equivocation.convict_log(equivocation.read(document), [LOG.key]).from_size == 5
    assert ask(state, old, new, OTHER)[0] == 422
    assert len(state.convictions()) == 1
    assert ask(state, 5, 9)[0] == 200, "the witness goes on with the history that it knows"


def test_a_request_is_told_what_it_caught_itself(state: WitnessState) -> None:
    """Whoever asks twice, or asks meanwhile, brings about nothing: who passes documents on does so once."""

    def caught(leaves: list[bytes]) -> bytes | None:
        return state.judge_checkpoint(request_body(5, [], signed(5, leaves)), time=TIME).conviction

    assert ask(state, 0, 5)[0] == 200
    assert caught(LEAVES) is None
    first, second = caught(OTHER), caught(list(reversed(OTHER)))
    assert state.convictions() == [first, second]
    assert [caught(OTHER), caught(list(reversed(OTHER)))] == [None, None]


def test_a_tree_that_cannot_be_is_behind_like_any_other(state: WitnessState) -> None:
    """The order of refusals is the protocol's: what was cosigned last comes before what size 0 must be."""
    assert ask(state, 0, 5)[0] == 200
    trap = LOG.sign(Checkpoint(ORIGIN, 0, LEAVES[0]).text)
    for old, wanted in ((0, (409, b"5\n")), (5, (400, b"the old size exceeds the checkpoint's\n"))):
        answer = state.add_checkpoint(request_body(old, [], trap), time=TIME)
        assert (answer.status, answer.body) == wanted


def test_only_the_log_s_own_lines_are_served(state: WitnessState) -> None:
    stranger = Cosigner.of("someone.else/witness", bytes([9]) * 32)
    parsed = note.read(signed(5))
    crowded = note.write(Note(parsed.text, (*parsed.signatures, stranger.sign(parsed.text, TIME))))
    assert state.add_checkpoint(request_body(0, [], crowded), time=TIME).status == 200
    kept = note.read(state.latest(ORIGIN) or b"")
    assert [line.key_id for line in kept.signatures] == [LOG.key.key_id, SIGNER.key.key_id]


def test_both_kinds_of_key_cosign(tmp_path: Path) -> None:
    state = reopen(tmp_path, (SIGNER, STRONG))
    status, body = ask(state, 0, 5)
    lines = note.read_signatures(body.decode())
    assert status == 200
    assert [
        each.key.verify(line, tree(5).text) for each, line in zip((SIGNER, STRONG), lines, strict=True)
    ] == [
        TIME,
        TIME,
    ]
    state.close()


@pytest.fixture
def client(state: WitnessState) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=build_app(state, clock=lambda: NOW))
    return httpx.AsyncClient(transport=transport, base_url="http://witness.invalid")


async def test_the_resources_of_the_protocol(client: httpx.AsyncClient) -> None:
    name = hashlib.sha256(ORIGIN.encode()).hexdigest()
    async with client:
        assert (await client.get(f"/{name}/checkpoint")).status_code == 404
        first = await client.post("/add-checkpoint", content=request_body(0, [], signed(5)))
        assert first.status_code == 200
        latest = await client.get(f"/{name}/checkpoint")
        assert latest.content == signed(5) + first.content
        assert latest.headers["content-type"].startswith("text/plain")
        conflict = await client.post("/add-checkpoint", content=request_body(3, [], signed(9)))
        assert (conflict.status_code, conflict.content) == (409, b"5\n")
        assert conflict.headers["content-type"] == "text/x.tlog.size"
        assert (await client.post("/add-checkpoint", content=b"noise")).status_code == 400
        assert (await client.post("/add-checkpoint", content=bytes(600_000))).status_code == 400
        assert (await client.get(f"/{name[:-1]}/checkpoint")).status_code == 404
        assert (await client.get("/add-checkpoint")).status_code == 405


async def test_convictions_are_passed_on(client: httpx.AsyncClient) -> None:
    document = Equivocation(kind="log-same-size", first=signed(5), second=signed(5, OTHER))
    innocent = Equivocation(kind="log-same-size", first=signed(5), second=signed(5))
    async with client:
        assert (await client.get("/equivocations")).content == b""
        for wanted in (b"kept\n", b"known\n"):
            assert (await client.post("/equivocations", content=document.write())).content == wanted
        assert (await client.get("/equivocations")).content == document.write() + b"\n"
        assert (await client.post("/equivocations", content=innocent.write())).status_code == 422
        assert (await client.post("/equivocations", content=b"{}")).status_code == 400


@dataclass
class Memory:
    """A log of a few leaves, as far as asking its witnesses needs one."""

    leaves: list[bytes]
    kept: list[tuple[int, Signature]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.leaves)

    async def consistency(self, first: int, second: int) -> Sequence[bytes]:
        return proof(first, second, self.leaves)

    async def root_at(self, size: int) -> bytes:
        return tree(size, self.leaves).root

    async def keep_cosignature(self, size: int, signature: Signature) -> None:
        self.kept.append((size, signature))

    async def newer_checkpoint(self, than: int) -> bytes:
        if self.size <= than:
            await asyncio.Event().wait()
        return self.signed()

    def signed(self) -> bytes:
        return signed(self.size, self.leaves)


def witness_at(client: httpx.AsyncClient) -> Witness:
    return Witness("clinic.de", SIGNER.key, HttpRoad(client, "http://witness.invalid"))


async def test_a_log_asks_and_keeps_what_comes(client: httpx.AsyncClient) -> None:
    async with client:
        witness = witness_at(client)
        absent = Witness(
            "a.b", SIGNER.key, HttpRoad(httpx.AsyncClient(transport=Refusing()), "http://x.invalid")
        )
        circle = Circle(ORIGIN, [LOG.key], [witness, absent], clock=lambda: NOW)
        for size in (5, 5, 9, 40):
            log = Memory(LEAVES[:size])
            assert await circle.show(log, log.signed()) == 1
            ((kept, line),) = log.kept
            assert (kept, SIGNER.key.verify(line, tree(size).text)) == (size, TIME)
        assert absent.trouble == "witness.unreachable"
        assert circle.status == "witnesses: 1/2"
        forgetful = witness_at(client)  # a new process of the log does not know what was cosigned
        await cosign(forgetful, signed(40), Memory(LEAVES).consistency, now=NOW)
        assert forgetful.size == 40


async def test_an_open_log_is_followed(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """Receipts are issued as ever; soon their proofs carry the witness's word."""
    domain = Domain.make("cloud.fr")
    log = await domain.open(tmp_path)
    state = WitnessState.open(
        tmp_path / "w.db", logs={domain.origin: [domain.keys.note.key]}, signers=[SIGNER]
    )
    transport = httpx.ASGITransport(app=build_app(state, clock=lambda: NOW))
    async with httpx.AsyncClient(transport=transport) as there:
        witness = Witness("clinic.de", SIGNER.key, HttpRoad(there, "http://w.invalid"))
        circle = Circle(domain.origin, [domain.keys.note.key], [witness], clock=lambda: NOW)
        await circle.check_not_behind(log)
        following = asyncio.create_task(circle.follow(log))
        for count in (3, 6):
            issued = await log.issue(drafts(3))
            text = await cosigned_proof(log, issued[-1].receipt_id)
            found = read_proof(text)
            shown = note.read(found.note)
            assert SIGNER.key.verify(shown.signatures[1], shown.text) == TIME
            assert checkpoint.read(found.note).checkpoint.size == count
        first = await log.proof((await log.issue(drafts(1)))[0].receipt_id)
        assert first is None or b"clinic.de" not in first
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await circle.check_not_behind(log)
    await log.close()
    state.close()
    assert fsck.check(tmp_path / "cloud.fr.db", keys=[domain.keys.note.key]).wrong == []


async def cosigned_proof(log: TransparencyLog, receipt_id: str) -> bytes:
    async with asyncio.timeout(10):
        while True:
            text = await log.proof(receipt_id)
            if text is not None and b"clinic.de/witness" in text:
                return text
            await asyncio.sleep(0.02)  # nobody announces a cosignature


class Refusing(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody there")


async def test_a_log_that_was_set_back_does_not_go_on(client: httpx.AsyncClient) -> None:
    async with client:
        circle = Circle(ORIGIN, [LOG.key], [witness_at(client)], clock=lambda: NOW)
        log = Memory(LEAVES[:9])
        await circle.show(log, log.signed())
        for leaves, code in ((LEAVES[:5], "log.behind_witness"), (OTHER[:9], "log.contradicts_witness")):
            fresh = Circle(ORIGIN, [LOG.key], [witness_at(client)], clock=lambda: NOW)
            with pytest.raises(Refused) as refused:
                await fresh.check_not_behind(Memory(leaves))
            assert refused.value.code == code
        await Circle(ORIGIN, [LOG.key], [witness_at(client)]).check_not_behind(Memory(LEAVES))
        restored = Memory(LEAVES[:5])
        with pytest.raises(Refused) as refused:
            await Circle(ORIGIN, [LOG.key], [witness_at(client)]).show(restored, restored.signed())
        assert refused.value.code == "witness.ahead"


@dataclass
class Liar:
    """A witness that says what it is told to."""

    reply: Reply
    shown: bytes | None = None

    async def add_checkpoint(self, body: bytes) -> Reply:
        return self.reply

    async def latest(self, origin: str) -> bytes | None:
        return self.shown


OF_OTHER_TEXT = note.format_signature(SIGNER.sign(tree(4).text, TIME)).encode()
OF_TOMORROW = note.format_signature(SIGNER.sign(tree(5).text, TIME + 86_400)).encode()
OF_ANOTHER = note.format_signature(STRONG.sign(tree(5).text, TIME)).encode()


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b""),
        Reply(200, OF_OTHER_TEXT),
        Reply(200, OF_TOMORROW),
        Reply(200, OF_ANOTHER),
        Reply(500, b""),
        Reply(409, b"much\n"),
        Reply(409, b"2\n"),
        Reply(409, b"9" * 30),
        Reply(409, b"77\n"),
    ],
)
@pytest.mark.parametrize("shown", [None, b"noise", signed(40)], ids=["nothing", "noise", "uncosigned"])
async def test_a_lying_witness_neither_counts_nor_stops_the_log(reply: Reply, shown: bytes | None) -> None:
    """Only what the log itself signed, cosigned, proves that it was set back; a bare number does not."""
    log = Memory(LEAVES[:5])
    witness = Witness("clinic.de", SIGNER.key, Liar(reply, shown))
    circle = Circle(ORIGIN, [LOG.key], [witness], clock=lambda: NOW)
    await circle.check_not_behind(log)
    assert await asyncio.wait_for(circle.show(log, log.signed()), 5) == 0
    assert log.kept == []
    assert witness.trouble is not None
    assert circle.status == "witnesses: 0/1"
