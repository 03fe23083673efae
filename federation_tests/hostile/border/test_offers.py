"""What a border offers: another key, another domain's node."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

import pytest

from broker.providing.interior import Interior
from federation_tests.conftest import MakeWorld
from federation_tests.hostile.lie import Lie, lie
from federation_tests.hostile.lying import (
    ONE_NODE_EACH,
    border_of,
    declined,
    heard,
    lying,
    offering,
    proved_by,
    serving,
    tell,
)
from federation_tests.plan import CLINIC, CLOUD, HYPER
from federation_tests.sse import read, request
from federation_tests.world import World, until
from schemas import seal
from schemas.keys import SigningKey

NOTHING = "no receipt: nothing was placed and nothing ran"


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

    parts = arena[CLINIC].broker.parts
    await parts.answering.settle()  # of the stories before this one
    logged = parts.log.size
    with lying(border_of(arena), offering(**{which: own[which]})):
        stream = await tell(arena, "to whom am I sealed")
    assert declined(stream) == {CLOUD: [told.code]}
    assert heard(arena, "to whom am I sealed") == 0
    assert parts.log.size == logged


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

    border, relaying = border_of(arena), offering(**proved_by(proof, document))
    with lying(border, relaying), lying(border.interior, serving(document)):
        stream = await tell(arena, "whose node is this")
    assert declined(stream) == {CLOUD: [told.code]}
    assert heard(arena, "whose node is this") == 0


@lie(
    "a border",
    "offers and withholds the evidence of its node",
    by="the consumer's broker: a proof has as long as the places that others hold meanwhile leave it",
    codes="evidence.late evidence.withheld",
    receipt="no receipt of that domain; another one serves, and its Placement is as ever",
)
async def test_who_withholds_its_evidence_keeps_nobody_from_others(make_world: MakeWorld, told: Lie) -> None:
    world = await make_world(ONE_NODE_EACH)
    hold_s = world[CLINIC].broker.parts.dispatcher.placing.terms.hold_ms / 1000
    assert (await tell(world, "warm up")).complete
    border, over = border_of(world), asyncio.Event()
    asking = ExitStack()
    asking.callback(over.set)  # or the liar could not be stopped
    with asking, lying(border, offering(evidence="ab" * 32)), lying(border.interior, withholding(over)):
        began = time.monotonic()
        assert declined(await tell(world, "who are you")) == {CLOUD: [told.codes[0]]}
        assert time.monotonic() - began < 2 * hold_s, "not as long as the evidence may take to come"
        for number in range(3):
            stream = await read(world.http(), request(f"anybody {number}"))
            assert stream.complete, stream.error
            assert stream.comity["domain"] != CLOUD
        appraisals = world[CLINIC].broker.parts.service.appraisals
        await until(lambda: CLOUD in appraisals._silent, within=10.0)  # the request did not wait for that
        assert declined(await tell(world, "and now")) == {CLOUD: [told.codes[1]]}
    assert heard(world, "who are you") == heard(world, "and now") == 0


def withholding(over: asyncio.Event) -> type[Interior]:
    """Its agent's evidence does not leave the domain until then; what its border proves is as ever."""

    class Withholding(Interior):
        __slots__ = ()

        async def evidence(self, digest: str) -> bytes:
            await over.wait()
            return await super().evidence(digest)

    return Withholding
