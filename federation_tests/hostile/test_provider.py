"""Lies of a provider: about what its machines prove, where they stand, and who signs for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from attestation.appraise import NodeAppraisal
from broker.providing.border import Border
from domain_agent.offer.summary import Condenser
from federation.found import Founded
from federation_tests.conftest import MakeWorld
from federation_tests.hostile.lie import Lie, lie
from federation_tests.hostile.lying import (
    FRANCE,
    ONE_NODE_EACH,
    border_of,
    declined,
    heard,
    lying,
    offering,
    tell,
)
from federation_tests.plan import CLINIC, CLOUD, HYPER
from federation_tests.sse import Streamed
from federation_tests.world import World, until
from schemas.descriptors.capability import Rates
from schemas.descriptors.summary import Cell
from schemas.keys import SigningKey
from schemas.messages.interior import Hold
from schemas.messages.message import Received
from schemas.messages.negotiation import CallForOffers
from schemas.policy.layers import Decision


def _shown(world: World, domain: str) -> list[Cell]:
    """A domain's cells as the clinic's directory has them."""
    listing = world[CLINIC].broker.parts.service.directory.get(domain, datetime.now(UTC))
    return list(listing.summary.cells) if listing else []


def _claiming(**claimed: Any) -> type[Condenser]:
    class Claiming(Condenser):
        __slots__ = ()

        def cells(self, now: float) -> list[Cell]:
            return [cell.model_copy(update=claimed) for cell in super().cells(now)]

    return Claiming


class _Compliant(Border):
    """Offers whatever is asked, whatever its own policy says of the node it holds."""

    __slots__ = ()

    async def _offer_or_refuse(self, call: Received[CallForOffers], hold: Hold) -> bytes:
        appraisal = await self.appraisals.appraise(self.peers.domain, hold.evidence)
        asked = call.body
        price = hold.rates.total(input_tokens=asked.input_tokens, output_tokens=asked.max_output_tokens)
        asked_little = call.body.tags.model_copy(update={"min_assurance": 0, "confidential_gpu": False})
        lax = call.body.model_copy(update={"tags": asked_little})
        return self._offer(call, hold, appraisal, self.policy.decide(lax, appraisal, price), price)


@lie(
    "a provider",
    "claims a higher assurance than it proves",
    by="the consumer's broker: TEE facts in a decision come from its own appraisal alone",
    codes="TEE-001-assurance-floor",
    receipt="no receipt: nothing was placed; the claim only brought the call",
)
async def test_a_claim_brings_a_call_and_no_request(arena: World, told: Lie) -> None:
    wanted = {"data_class": "public", "residency": ["FR"], "min_assurance": 3}
    honest = await tell(arena, "how strong are you", policy=wanted)
    assert (honest.status, honest.code) == (409, "request.infeasible")
    condenser = arena[CLOUD].agent.advertiser.condenser
    with lying(condenser, _claiming(ar_min=4, tee="snp")), lying(border_of(arena), _Compliant):
        await until(lambda: [cell.ar_min for cell in _shown(arena, CLOUD)] == [4])
        stream = await tell(arena, "how strong are you", policy=wanted)
    await until(lambda: [cell.ar_min for cell in _shown(arena, CLOUD)] == [1])
    assert declined(stream) == {CLOUD: [told.code]}
    assert heard(arena, "how strong are you") == 0


async def test_a_claimed_gpu_brings_a_call_and_no_request(arena: World) -> None:
    """What hyper.us has none of, it does not get by saying so: GPUs count as they were proved."""
    wanted = {"data_class": "public", "residency": ["US"], "confidential_gpu": True}
    honest = await tell(arena, "have you a GPU", policy=wanted)
    assert (honest.status, honest.code) == (409, "request.infeasible")
    condenser = arena[HYPER].agent.advertiser.condenser
    with lying(condenser, _claiming(confidential_gpu=True)), lying(border_of(arena, HYPER), _Compliant):
        await until(lambda: [cell.confidential_gpu for cell in _shown(arena, HYPER)] == [True])
        stream = await tell(arena, "have you a GPU", policy=wanted)
    await until(lambda: [cell.confidential_gpu for cell in _shown(arena, HYPER)] == [False])
    assert declined(stream) == {HYPER: ["TEE-002-confidential-gpu"]}
    assert heard(arena, "have you a GPU") == 0


@pytest.mark.parametrize(
    ("changed", "comity", "code"),
    [
        (
            {"rates": Rates(input=10**6, output=10**6, cached=0)},
            {},
            "BID-001-dearer-than-advertised",
        ),
        ({"queue_ms": 70_000}, {"slo": {"ttft_ms": 60_000}}, "SLO-001-ttft"),
        ({"model_digest": "ab" * 32}, {}, "negotiate.model"),
        ({"capability": "chat.small/other"}, {}, "negotiate.capability"),
    ],
    ids=["dearer", "later than was asked for", "another model", "another variant"],
)
async def test_an_offer_that_breaks_what_its_advert_was_chosen_for_is_not_taken(
    arena: World, changed: dict[str, Any], comity: dict[str, Any], code: str
) -> None:
    with lying(border_of(arena), offering(**changed)):
        stream = await tell(arena, "bait and switch", comity={"policy": FRANCE, **comity})
    assert declined(stream) == {CLOUD: [code]}
    assert heard(arena, "bait and switch") == 0


def _rejected(stream: Streamed, domain: str) -> list[str]:
    assert stream.status == 409
    assert stream.error
    return [
        rule
        for plan in stream.error["comity"]["rejected"]
        if plan["domain"] == domain
        for rule in plan["rules"]
    ]


class _Editing(Border):
    """Offers under a profile that it wrote for itself."""

    __slots__ = ()

    def _compose_reply(self, to: Received[Any], model: type[Any], *, seq: int, **fields: Any) -> Any:
        edited = self.policy.profile.model_copy(update={"jurisdictions": ["IT", "FR"]})
        if "profile_digest" in fields:
            fields["profile_digest"] = edited.value_digest().hex()
        return super()._compose_reply(to, model, seq=seq, **fields)


@lie(
    "a provider",
    "edits its own profile's jurisdiction",
    by="the consumer's broker: where a domain stands is what the charter endorses",
    codes="RES-001-inside-residency negotiate.profile",
    receipt="the signed refusal names the rule for that domain; under an edited profile nothing is placed",
)
async def test_a_domain_stands_where_the_charter_says(arena: World, told: Lie) -> None:
    by_rule, by_digest = told.codes
    italy = {"data_class": "public", "residency": ["IT"]}
    with lying(arena[HYPER].agent.advertiser.condenser, _claiming(jur="IT")):
        await until(lambda: {cell.jur for cell in _shown(arena, HYPER)} == {"IT"})
        stream = await tell(arena, "are you in Italy", policy=italy)
    assert by_rule in _rejected(stream, HYPER)
    await until(lambda: {cell.jur for cell in _shown(arena, HYPER)} == {"US"})
    with lying(border_of(arena), _Editing):
        assert declined(await tell(arena, "and now")) == {CLOUD: [by_digest]}


def _without_enrolment(founded: Founded) -> None:
    path = founded.domain(CLOUD) / "expectations.toml"
    text = path.read_text("utf-8")
    assert 'enrolment = "required"' in text
    path.write_text(text.replace('enrolment = "required"', 'enrolment = "any"'), "utf-8")


@lie(
    "a provider",
    "enrols a platform twice",
    by="every honest member: a platform that two manifests enrol is contraindicated",
    codes="node.platform_enrolled_twice",
    receipt="no receipt: nothing was placed",
)
async def test_a_machine_belongs_to_one_domain(make_world: MakeWorld, told: Lie) -> None:
    """hyper.us enrols cloud.fr's machines; cloud.fr looks away, the consumer does not."""
    changes = replace(ONE_NODE_EACH, enrolled_twice={HYPER: CLOUD})
    world = await make_world(changes, before=_without_enrolment)
    assert declined(await tell(world, "whose machine is this")) == {CLOUD: [told.code]}
    assert heard(world, "whose machine is this") == 0


async def test_its_own_agent_does_not_admit_such_a_machine(make_world: MakeWorld) -> None:
    world = await make_world(replace(ONE_NODE_EACH, enrolled_twice={HYPER: CLOUD}), wait=False)

    def reason() -> str | None:
        record = world[CLOUD].agent.book.get("paris-1")
        return record.reason if record else None

    await until(lambda: reason() == "node.platform_enrolled_twice")


@lie(
    "a provider",
    "signs an offer with a node or agent key",
    by="the consumer's broker: only a key registered for messages signs messages",
    codes="envelope.signature_invalid",
    receipt="no receipt: nothing was placed",
)
@pytest.mark.parametrize("role", ["node", "agent", "receipt"])
async def test_each_key_has_one_role(arena: World, told: Lie, role: str) -> None:
    keys = {
        "node": arena[CLOUD].nodes["paris-1"].node.keys.sign,
        "agent": arena[CLOUD].agent.config.advert_key,
        "receipt": SigningKey.load(arena.founded.domain(CLOUD) / "keys" / "receipt.pem"),
    }

    class Misusing(Border):
        __slots__ = ()

        def _offer(
            self,
            call: Received[CallForOffers],
            hold: Hold,
            appraisal: NodeAppraisal,
            decision: Decision,
            price: int,
        ) -> bytes:
            honest, self.peers = self.peers, replace(self.peers, key=keys[role])
            try:
                return super()._offer(call, hold, appraisal, decision, price)
            finally:
                self.peers = honest

    text = f"who signs, the {role}"
    with lying(border_of(arena), Misusing):
        stream = await tell(arena, text)
    assert declined(stream) == {CLOUD: [told.code]}
    assert heard(arena, text) == 0
