"""Evidence that once was true: of an earlier epoch, of a boot that is dead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attestation.appraise import NodeAppraisal
from broker.service import Service
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
from federation_tests.plan import CLINIC, CLOUD
from federation_tests.world import World, until
from schemas.messages.negotiation import Revoke

NOTHING = "no receipt: nothing was placed and nothing ran"


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
    proof, document = _proof(world)
    await _age(world, 301.0)
    border, stale = border_of(world), offering(**proved_by(proof, document))
    with lying(border, stale), lying(border.interior, serving(document)):
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
    proof, document = _proof(world)
    stale = offering(**proved_by(proof, document))
    assert (await tell(world, "before")).complete
    trusted = world[CLINIC].broker.parts.service.appraisals
    epoch, first = trusted.trust_epoch, proof.sign_key.thumbprint
    with lying(service, Discreet if hidden else Service):
        await world[CLOUD].nodes["paris-1"].kill()
        await world[CLOUD].start_node("paris-1", world.engines["paris-1"])
        await until(lambda: trusted.trust_epoch > epoch)
        await world.ready()
        assert _proof(world)[0].sign_key.thumbprint != first
        with lying(border, stale), lying(border.interior, serving(document)):
            stream = await tell(world, "which boot are you")
    said_so, opened_nothing = told.codes
    if hidden:
        assert stream.failed
        assert stream.code == opened_nothing
    else:
        assert declined(stream) == {CLOUD: [said_so]}
    assert heard(world, "which boot are you") == 0
