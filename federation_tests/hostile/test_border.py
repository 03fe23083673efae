"""Lies of a border: it carries sealed runs to its nodes and could try anything with them on the way."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from attestation.appraise import NodeAppraisal
from broker.providing.border import Border
from broker.providing.executions import Run
from broker.providing.interior import Interior
from broker.service import Service
from federation.stream import open_stream
from federation_tests.conftest import MakeWorld
from federation_tests.hostile.lie import Lie, lie
from federation_tests.hostile.lying import (
    ONE_NODE_EACH,
    border_of,
    declined,
    heard,
    lying,
    tell,
)
from federation_tests.plan import CLINIC, CLOUD, HYPER
from federation_tests.receipts import fetch, proved, verify
from federation_tests.world import World, until
from schemas import envelope, seal
from schemas.canonical import sha256
from schemas.errors import Refused
from schemas.keys import SigningKey
from schemas.messages import answer
from schemas.messages.execute import Execute, pack, unpack
from schemas.messages.interior import Hold
from schemas.messages.message import Received, sign
from schemas.messages.negotiation import CallForOffers, Revoke
from schemas.policy.layers import Decision

Frames = AsyncGenerator[bytes, None]
NOTHING = "no receipt: nothing was placed and nothing ran"


@lie(
    "a border",
    "replays an Execute",
    by="the node, which has opened this very order before",
    codes="node.duplicate",
    receipt="one Execution for one run; the replay leaves nothing to sign",
)
async def test_an_order_runs_once(arena: World, told: Lie) -> None:
    problems: list[answer.Problem] = []

    class Replaying(Border):
        __slots__ = ()

        async def _frames(self, node_id: str, run: Run, head: bytes, body: Sequence[bytes]) -> Frames:
            async for frame in super()._frames(node_id, run, head, body):
                yield frame
            async with open_stream(self.peers.bus, f"node.{node_id}.in.execute", head, body) as again:
                problems.extend([answer.Problem.read(frame[1:]) async for frame in again])

    with lying(border_of(arena), Replaying):
        stream = await tell(arena, "run me once")
    assert stream.complete
    assert heard(arena, "run me once") == 1
    await until(lambda: problems)
    assert [problem.code for problem in problems] == [told.code]
    found = await proved(arena, arena.http(), stream.comity["receipt"])
    assert len(found.claims("execution", "signature")) == 1


@lie(
    "a border",
    "swaps the node key in an offer",
    by="the consumer's broker, whose own appraisal proves another key",
    codes="attempt.node_swapped",
    receipt=NOTHING,
)
@pytest.mark.parametrize("which", ["node_sign", "seal_key"])
async def test_only_a_proved_key_is_sealed_to(arena: World, told: Lie, which: str) -> None:
    own = {"node_sign": SigningKey.generate().thumbprint, "seal_key": seal.SealKey.generate().public}

    class Swapping(Border):
        __slots__ = ()

        def _offer(
            self,
            call: Received[CallForOffers],
            hold: Hold,
            appraisal: NodeAppraisal,
            decision: Decision,
            price: int,
        ) -> bytes:
            swapped = hold.model_copy(update={which: own[which]})
            return super()._offer(call, swapped, appraisal, decision, price)

    logged = arena[CLINIC].broker.parts.log.size
    with lying(border_of(arena), Swapping):
        stream = await tell(arena, "to whom am I sealed")
    assert declined(stream) == {CLOUD: [told.code]}
    assert heard(arena, "to whom am I sealed") == 0
    assert arena[CLINIC].broker.parts.log.size == logged


@lie(
    "a border",
    "offers another domain's genuine node",
    by="the consumer's broker: the domain stands inside the evidence",
    codes="evidence.foreign",
    receipt=NOTHING,
)
async def test_a_node_of_another_domain_is_no_node_of_ours(arena: World, told: Lie) -> None:
    theirs = arena[HYPER].agent.book.get("virginia-1")
    assert theirs
    assert theirs.appraisal
    proof, document = theirs.appraisal, next(reversed(theirs.documents.values()))[1]

    class Relaying(Border):
        __slots__ = ()

        def _offer(
            self,
            call: Received[CallForOffers],
            hold: Hold,
            appraisal: NodeAppraisal,
            decision: Decision,
            price: int,
        ) -> bytes:
            foreign = {
                "node_sign": proof.sign_key.thumbprint,
                "seal_key": proof.seal_key,
                "evidence": sha256(document).hex(),
            }
            return super()._offer(call, hold.model_copy(update=foreign), appraisal, decision, price)

    class Serving(Interior):
        __slots__ = ()

        async def evidence(self, digest: str) -> bytes:
            return document if digest == sha256(document).hex() else await super().evidence(digest)

    border = border_of(arena)
    with lying(border, Relaying), lying(border.interior, Serving):
        stream = await tell(arena, "whose node is this")
    assert declined(stream) == {CLOUD: [told.code]}
    assert heard(arena, "whose node is this") == 0


def _altered(head: bytes, changed: dict[str, Any], way: str, border: Border) -> bytes:
    """The head of an execute stream with other words around the same sealed secret."""
    signed, secret = unpack(head)
    parsed = json.loads(signed)
    header = Execute.read(envelope.read(signed).payload).model_copy(update=changed)
    if way == "keeps the signature":
        made = envelope.sign(envelope.MESSAGE, header.write(), border.peers.key)
        forged = json.loads(made)
        forged["signatures"] = parsed["signatures"]
        return pack(json.dumps(forged).encode(), secret)
    if way == "signs as itself":
        header = header.model_copy(update={"iss": border.peers.domain})
    return pack(sign(header, border.peers.key), secret)


CHANGES: dict[str, dict[str, Any]] = {
    "model": {"model_digest": "a" * 64},
    "scope": {"cache_scope": "public", "cache_key": "b" * 64},
    "retention": {"retention_s": 31_536_000},
}
WAYS = ("keeps the signature", "signs as the consumer", "signs as itself")


@lie(
    "a border",
    "alters model, scope or retention around the ciphertext",
    by="the node: the header is the consumer's alone to sign, and the secret opens under no other",
    codes="envelope.signature_invalid seal.secret_invalid node.model",
    receipt="the provider's own Execution says `failed` with the node's code; no answer was shown",
)
@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("way", WAYS)
async def test_the_header_cannot_be_altered(arena: World, told: Lie, what: str, way: str) -> None:
    class Altering(Border):
        __slots__ = ()

        def _frames(self, node_id: str, run: Run, head: bytes, body: Sequence[bytes]) -> Frames:
            return super()._frames(node_id, run, _altered(head, CHANGES[what], way, self), body)

    invalid, unopened, absent = told.codes
    expected = invalid if way != WAYS[2] else absent if what == "model" else unopened
    text = f"altered {what}, {way}"
    with lying(border_of(arena), Altering):
        stream = await tell(arena, text)
    assert stream.failed
    assert stream.code == expected
    assert heard(arena, text) == 0


def _chunks(frames: list[bytes]) -> list[int]:
    return [at for at, frame in enumerate(frames) if frame[:1] == answer.CHUNK]


def _cut_end(frames: list[bytes]) -> list[bytes]:
    return [frame for at, frame in enumerate(frames) if at != _chunks(frames)[-1]]


def _cut_middle(frames: list[bytes]) -> list[bytes]:
    return [frame for at, frame in enumerate(frames) if at != _chunks(frames)[0]]


def _swap(frames: list[bytes]) -> list[bytes]:
    first, second, *_ = _chunks(frames)
    frames[first], frames[second] = frames[second], frames[first]
    return frames


def _repeat(frames: list[bytes]) -> list[bytes]:
    first = _chunks(frames)[0]
    return [*frames[: first + 1], frames[first], *frames[first + 1 :]]


def _lengthen(frames: list[bytes]) -> list[bytes]:
    first = _chunks(frames)[0]
    return [*frames[:first], frames[first] + bytes(16), *frames[first + 1 :]]


TAMPERED: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "truncates at the end": (_cut_end, 0),
    "truncates in the middle": (_cut_middle, 1),
    "reorders": (_swap, 1),
    "repeats": (_repeat, 1),
    "pads": (_lengthen, 1),
}


@lie(
    "a border",
    "truncates, reorders or pads a stream",
    by="the consumer's broker: chunks are counted and sealed, and the node's statement is the last",
    codes="attempt.no_statement seal.chunk_invalid",
    receipt="the Placement stands; the application was told in type that its answer is not complete",
)
@pytest.mark.parametrize("how", TAMPERED)
async def test_a_stream_is_whole_or_it_is_not_an_answer(arena: World, told: Lie, how: str) -> None:
    tamper, code = TAMPERED[how]

    class Tampering(Border):
        __slots__ = ()

        async def _frames(self, node_id: str, run: Run, head: bytes, body: Sequence[bytes]) -> Frames:
            frames = [frame async for frame in super()._frames(node_id, run, head, body)]
            for frame in tamper(frames):
                yield frame

    with lying(border_of(arena), Tampering):
        stream = await tell(arena, f"one two three {how}")
    assert stream.failed
    assert stream.code == told.codes[code]
    assert not stream.done
    assert heard(arena, f"one two three {how}") == 1


@lie(
    "a border",
    "withholds the receipt",
    by="the consumer's broker, which asks again, counts it as missing and warns",
    codes="verify.execution_absent",
    receipt="`execution-link` is not-checked: withheld, lost or never run; the exit code is 3",
)
async def test_a_receipt_that_does_not_come_is_an_alarm(
    arena: World, told: Lie, caplog: pytest.LogCaptureFixture
) -> None:
    class Keeping(Border):
        __slots__ = ()

        async def run(self, sender: str, head: bytes, body: Sequence[bytes]) -> Frames:
            async for frame in super().run(sender, head, body):
                if frame[:1] != answer.EXECUTION:
                    yield frame

    class Silent(Service):
        __slots__ = ()

        async def handle(self, sender: str, op: str, payload: bytes) -> bytes:
            if op == "receipt":
                raise Refused("receipt.unknown", "what receipt?")
            return await super().handle(sender, op, payload)

    shelf = arena[CLINIC].broker.parts.answering.shelf
    missing = shelf.missing
    with lying(border_of(arena), Keeping), lying(arena[CLOUD].broker.parts.service, Silent):
        stream = await tell(arena, "is there a receipt")
        assert stream.complete  # the node's own statement came, inside the seal
        await until(lambda: shelf.missing > missing)
        bundle = await fetch(arena.http(), stream.comity["receipt"])
    found = verify(arena, bundle)
    assert [claim["code"] for claim in found.claims("placement", "execution-link")] == [told.code]
    assert found.verdicts("placement", "execution-link") == ["not-checked"]
    assert found.exit_code == 3
    assert {record.name for record in caplog.records if record.levelname == "WARNING"} >= {"comity.receipts"}


@lie(
    "a border",
    "answers from cache",
    by="the consumer's broker: each run has keys of its own, and old chunks open under no other",
    codes="seal.chunk_invalid",
    receipt="the Placement stands; the application was told in type that its answer is not complete",
)
async def test_an_answer_of_yesterday_is_no_answer(arena: World, told: Lie) -> None:
    kept: list[bytes] = []

    class Caching(Border):
        __slots__ = ()

        async def _frames(self, node_id: str, run: Run, head: bytes, body: Sequence[bytes]) -> Frames:
            if kept:
                for frame in kept:
                    yield frame
                return
            async for frame in super()._frames(node_id, run, head, body):
                kept.append(frame)
                yield frame

    with lying(border_of(arena), Caching):
        assert (await tell(arena, "the same question")).complete
        stream = await tell(arena, "the same question")
    assert stream.failed
    assert stream.code == told.code
    assert heard(arena, "the same question") == 1


class _Stale(Border):
    """Offers what its agent's node proved some time ago."""

    __slots__ = ()
    proof: tuple[NodeAppraisal, bytes]

    def _offer(
        self,
        call: Received[CallForOffers],
        hold: Hold,
        appraisal: NodeAppraisal,
        decision: Decision,
        price: int,
    ) -> bytes:
        proof, document = self.proof
        old = {
            "node_sign": proof.sign_key.thumbprint,
            "seal_key": proof.seal_key,
            "evidence": sha256(document).hex(),
        }
        return super()._offer(call, hold.model_copy(update=old), appraisal, decision, price)


class _Archive(Interior):
    """An agent that still has what it should have forgotten."""

    __slots__ = ()
    document: bytes

    async def evidence(self, digest: str) -> bytes:
        kept = self.document
        return kept if digest == sha256(kept).hex() else await super().evidence(digest)


def _proof(world: World) -> tuple[NodeAppraisal, bytes]:
    record = world[CLOUD].agent.book.get("paris-1")
    assert record
    assert record.appraisal
    return record.appraisal, record.documents[record.appraisal.evidence_digest.hex()][1]


async def _age(world: World, seconds: float) -> None:
    """Let the clinic's challenges grow old, as waiting would: it issues a new one, nodes answer that."""
    domain = world[CLINIC]
    before = _proof(world)[0].evidence_digest
    own, book = domain.agent.own, domain.broker.parts.service.appraisals.challenges
    own._issued = [replace(each, issued_at=each.issued_at - seconds) for each in own._issued]
    book._issued = {value: at - seconds for value, at in book._issued.items()}
    await until(lambda: len(book._issued) > 1, within=15)
    challenge = own.current(domain.agent.clock.wall())
    await until(lambda: _proof(world)[0].evidence_digest != before, within=15)
    assert challenge.value.hex() in book._issued


@lie(
    "a border",
    "serves evidence of an earlier epoch",
    by="the consumer's broker: age counts from its own challenge, on its own clock",
    codes="node.challenge_stale",
    receipt=NOTHING,
)
async def test_old_evidence_does_not_prove_today(make_world: MakeWorld, told: Lie) -> None:
    world = await make_world(ONE_NODE_EACH)
    _Stale.proof = _proof(world)
    _Archive.document = _Stale.proof[1]
    await _age(world, 301.0)
    border = border_of(world)
    with lying(border, _Stale), lying(border.interior, _Archive):
        assert declined(await tell(world, "how old are you")) == {CLOUD: [told.code]}
    assert heard(world, "how old are you") == 0
    assert (await tell(world, "and today")).complete


@lie(
    "a border",
    "serves evidence of a killed boot",
    by="the consumer's broker once it is told; the node's next boot in any case, which has other keys",
    codes="trust.node_revoked node.sign_key",
    receipt="nothing was placed; or the provider's own Execution says `failed` with the node's code",
)
@pytest.mark.parametrize("hidden", [False, True], ids=["and says so", "and hides that"])
async def test_keys_of_a_dead_boot_open_nothing(make_world: MakeWorld, told: Lie, hidden: bool) -> None:
    class Discreet(Service):
        __slots__ = ()

        async def _tell_revoked(self, revoked: Revoke) -> None:  # type: ignore[override]
            del revoked

    world = await make_world(ONE_NODE_EACH)
    service, border = world[CLOUD].broker.parts.service, border_of(world)
    _Stale.proof = _proof(world)
    _Archive.document = _Stale.proof[1]
    assert (await tell(world, "before")).complete
    trusted = world[CLINIC].broker.parts.service.appraisals
    epoch, first = trusted.trust_epoch, _Stale.proof[0].sign_key.thumbprint
    with lying(service, Discreet if hidden else Service):
        await world[CLOUD].nodes["paris-1"].kill()
        await world[CLOUD].start_node("paris-1", world.engines["paris-1"])
        await until(lambda: trusted.trust_epoch > epoch)
        await world.ready()
        assert _proof(world)[0].sign_key.thumbprint != first
        with lying(border, _Stale), lying(border.interior, _Archive):
            stream = await tell(world, "which boot are you")
    said_so, opened_nothing = told.codes
    if hidden:
        assert stream.failed
        assert stream.code == opened_nothing
    else:
        assert declined(stream) == {CLOUD: [said_so]}
    assert heard(world, "which boot are you") == 0
