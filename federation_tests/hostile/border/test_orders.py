"""What a border does to an order on its way to the node: a second run, other words around the secret."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from broker.providing.border import Border
from broker.providing.executions import Run
from federation.stream import open_stream
from federation_tests.hostile.lie import Lie, lie
from federation_tests.hostile.lying import border_of, heard, lying, tell
from federation_tests.receipts import proved
from federation_tests.world import World, until
from schemas import envelope
from schemas.messages import answer
from schemas.messages.execute import Execute, pack, unpack
from schemas.messages.message import sign

Frames = AsyncGenerator[bytes, None]


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
