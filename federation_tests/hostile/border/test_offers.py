"""What a border offers: another key, another domain's node."""

from __future__ import annotations

import pytest

from federation_tests.hostile.lie import Lie, lie
from federation_tests.hostile.lying import (
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
from federation_tests.world import World
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
