"""What a border does to an answer on its way back: cut, replaced, or without its receipt."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest

from broker.providing.border import Border
from broker.providing.executions import Executions, Run
from broker.service import Service
from federation_tests.hostile.lie import Lie, lie
from federation_tests.hostile.lying import border_of, heard, lying, tell
from federation_tests.plan import CLINIC, CLOUD
from federation_tests.receipts import fetch, proved_bundle, verify
from federation_tests.world import World, until
from receipts.statements.node import NodeStatement
from receipts.statements.statement import Statement
from schemas.errors import Refused
from schemas.messages import answer

Frames = AsyncGenerator[bytes, None]


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


def more_tokens(said: dict[str, Any]) -> dict[str, Any]:
    usage = said["usage"]
    return {**said, "usage": usage.model_copy(update={"output_tokens": usage.output_tokens + 1000})}


def more_money(said: dict[str, Any]) -> dict[str, Any]:
    price = said["price"]
    return {**said, "price": price.model_copy(update={"micro": price.micro + 1})}


@lie(
    "a border",
    "bills for more than the node counted, or more than it offered",
    by="the consumer's broker: the node's statement came inside the seal, and the rates in the offer",
    codes="verify.usage ack.price",
    receipt="the Acknowledgement says disputed, with the code; no counters are agreed",
)
@pytest.mark.parametrize(
    ("billed", "code", "exit_code"), [(more_tokens, "verify.usage", 1), (more_money, "ack.price", 3)]
)
async def test_a_bill_that_does_not_fit_is_disputed(
    arena: World, told: Lie, billed: Callable[[dict[str, Any]], dict[str, Any]], code: str, exit_code: int
) -> None:
    class Billing(Executions):
        __slots__ = ()

        def _stated(self, run: Run, statement: Statement[NodeStatement]) -> dict[str, Any]:
            return billed(super()._stated(run, statement))

    assert code in told.codes
    parts = arena[CLINIC].broker.parts
    disputed = parts.answering.shelf.disputed
    with lying(border_of(arena).executions, Billing):
        stream = await tell(arena, f"what do I owe for {billed.__name__}")
        assert stream.complete
        await until(lambda: parts.answering.shelf.disputed > disputed)
    found = verify(arena, await proved_bundle(arena.http(), stream.comity["receipt"]))
    assert found.verdicts("acknowledgement", "ack-link") == [f"asserted-by({CLINIC})"]
    (usage,) = found.claims("execution", "usage")
    assert usage["verdict"] == f"asserted-by({CLOUD})"
    assert usage["text"].endswith(f"disputed by {CLINIC}: {code}")
    assert found.exit_code == exit_code


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
