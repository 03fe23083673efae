"""One request that nobody may serve, refused by the broker's own code, for an auditor who decides again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from broker.directory import Directory
from broker.edge.exchange import Accepted, Tenant
from broker.journey import Journey
from broker.placing.appraisals import ChallengeBook
from broker.placing.placements import Placements, Refusal
from broker.select import refused
from broker.select.candidates import feasible
from broker.select.predict import Predictor
from broker.select.replayed import SELECTION
from receipts import bundle as bundles
from receipts.bundle import Bundle
from receipts.log import Draft, Issued, Keep
from receipts.tests.world import CLINIC, CLOUD, FEDERATION, Domain, Federation
from receipts.verify import Report, verify_bundle
from schemas.descriptors.capability import Rates
from schemas.descriptors.request import describe, parse_tags
from schemas.descriptors.summary import CapabilitySummary, Cell
from schemas.descriptors.tags import Home, TagFloor
from schemas.keys import SigningKey
from schemas.messages.advert import sign_advert
from schemas.papers.trust import FederationTrust
from schemas.policy.facts import RequestContext
from schemas.policy.layers import ELSEWHERE, Layers
from schemas.policy.tests.cases import forbidding, open_set

CHARTER, PROVIDER = open_set("charter"), open_set("provider")
TENANT = forbidding("TNT-001-public-only", 'context.dataClass != "public"')
RULES = Layers.of(charter=CHARTER, national=(), tenant=TENANT, provider=PROVIDER)
ABROAD = Layers.of(charter=CHARTER, national=(), tenant=TENANT, provider=ELSEWHERE)
TEXTS = {each.digest: each.text.encode() for each in (CHARTER, PROVIDER, TENANT)}

Touch = Callable[[Draft], Draft]


def founded(rules: str = CHARTER.digest) -> Federation:
    """Two domains that also advertise."""
    clinic, cloud = (replace(Domain.make(name), advert=SigningKey.generate()) for name in (CLINIC, CLOUD))
    made = Federation(clinic, cloud, policy_digest=rules)
    made.publish()
    return made


def cell(**changes: Any) -> Cell:
    values: dict[str, Any] = {
        "cls": "chat.small", "variant": "tiny-q4", "version": "1", "digest": "a" * 64, "jur": "DE", "tier": 2,
        "context_limit": 4096, "params_m": 135, "rates": Rates(input=10, output=30, cached=1),
        "prefill_tps": 500, "decode_tps": 100, "headroom": 8,
    }  # fmt: skip
    return Cell.model_validate(values | changes)


def advert(domain: Domain, at: datetime, *cells: Cell, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "federation": FEDERATION, "iss": domain.name, "epoch": 1, "seq": 1, "iat": int(at.timestamp()),
        "ttl_s": 30, "challenge": "0" * 64, "trust_epoch": 0, "profile_digest": "0" * 64, "k_min": 1,
        "cells": list(cells),
    }  # fmt: skip
    assert domain.advert
    return sign_advert(CapabilitySummary.model_validate(values | changes), domain.advert)


class Dishonest:
    """A log into which a broker writes something else than it decided."""

    def __init__(self, log: Any, touch: Touch, keep: Callable[[Keep], Keep]) -> None:
        self._log, self._touch, self._keep = log, touch, keep

    async def issue(self, drafts: list[Draft], *, keep: Keep, **more: Any) -> list[Issued]:
        issued: list[Issued] = await self._log.issue(
            [self._touch(each) for each in drafts], keep=self._keep(keep), **more
        )
        return issued


@dataclass
class Case:
    """clinic.de asks about personal data; its own cell is of another class."""

    federation: Federation
    folder: Path
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    comity: Mapping[str, Any] = field(default_factory=lambda: {"policy": {"data_class": "personal"}})
    cells: dict[str, tuple[Cell, ...]] = field(
        default_factory=lambda: {CLINIC: (cell(cls="embed.small"),), CLOUD: (cell(),)}
    )
    rules: Layers = RULES
    abroad: Layers = ABROAD
    predictor: Predictor = field(default_factory=Predictor)
    model_digest: str | None = None
    tell: Callable[[Refusal], Refusal] = lambda refusal: refusal
    """What the broker makes of its refusal before it writes it down."""
    sign: Touch = lambda draft: draft
    keep: Callable[[Keep], Keep] = lambda kept: kept

    def adverts(self) -> dict[str, bytes]:
        domains = {CLINIC: self.federation.clinic, CLOUD: self.federation.cloud}
        return {name: advert(domains[name], self.at, *cells) for name, cells in self.cells.items()}

    def trust(self) -> FederationTrust:
        """What the broker holds of its federation."""
        pin, held = self.federation.trust().charter, self.federation.clinic.documents.manifests
        assert pin
        return FederationTrust.load(
            self.federation.charter, pin=pin, manifests=held.values(), reference_values=[]
        )

    def journey(self, request_id: str) -> Journey:
        body = {"model": "chat.small", "messages": [{"role": "user", "content": "x" * 30}], "max_tokens": 10}
        data = json.dumps(body).encode()
        descriptor = describe(
            body,
            parse_tags(dict(self.comity), {}),
            floor=None,
            home=Home(CLINIC, ("DE",)),
            request_id=request_id,
            body_bytes=len(data),
        )
        tenant = Tenant("ward", TagFloor(), None, "standard")
        return Journey.begin(Accepted(tenant, descriptor, data, plain=True, received_ns=0))

    def directory(self, trust: FederationTrust) -> Directory:
        """What the broker has heard."""
        heard = Directory(trust)
        for name, data in self.adverts().items():
            heard.apply(name, data, self.at)
        return heard

    def refusal(self, journey: Journey, trust: FederationTrust) -> Refusal:
        """As broker.placing.agreement makes one."""
        directory = self.directory(trust)
        snapshot, descriptor = directory.snapshot(self.at), journey.descriptor
        context = RequestContext.of(
            descriptor.policy,
            consumer=CLINIC,
            tenant="ward",
            application="api",
            max_price=descriptor.budget.max_price,
            allow_debug=False,
            simulated_allowed=bool(trust.charter.simulated_roots),
        )
        found = feasible(
            descriptor,
            context,
            snapshot.entries,
            {True: self.rules, False: self.abroad},
            local_domain=CLINIC,
            rtts_ms=self.predictor.rtts_ms(),
            at=self.at,
            predictor=self.predictor,
            model_digest=self.model_digest,
        )
        cut = refused.record(
            descriptor, context, snapshot.entries, self.predictor,
            name=journey.wire_id, at=self.at, model_digest=self.model_digest,
        )  # fmt: skip
        return Refusal(found, self.rules, snapshot.digest, directory.adverts(snapshot), cut)

    async def refuse(self, request_id: str = "mine") -> str:
        """Have it signed and logged; returns the receipt id."""
        journey, trust = self.journey(request_id), self.trust()
        log = await self.federation.clinic.open(self.folder, clock=lambda: datetime.now(UTC))
        written: Any = Dishonest(log, self.sign, self.keep)
        placements = Placements(CLINIC, trust, ChallengeBook(CLINIC), written)
        issued = await placements.refuse(journey, self.tell(self.refusal(journey, trust)))
        await log.checkpoint()
        await log.close()
        return issued.receipt_id

    async def judged(
        self,
        touch: Callable[[Bundle], Bundle] = lambda held: held,
        *,
        explained: bool = True,
        **pin: str | None,
    ) -> Report:
        """The auditor's verdict on a refusal, out of the broker's log. `pin`: changes to the trust file."""
        return await self.verdict(await self.refuse(), touch, explained=explained, **pin)

    async def verdict(
        self,
        receipt_id: str,
        touch: Callable[[Bundle], Bundle] = lambda held: held,
        *,
        explained: bool = True,
        **pin: str | None,
    ) -> Report:
        """The same on the receipt of this id."""
        log = await self.federation.clinic.open(self.folder, clock=lambda: datetime.now(UTC))
        documents = replace(self.federation.clinic.documents, policies=TEXTS)
        held = log._reader.bundle(receipt_id, documents, explained=explained)
        await log.close()
        trust = self.federation.trust(**pin)
        return verify_bundle(bundles.write(touch(held)), trust, at=datetime.now(UTC), selection=SELECTION)


def claim(report: Report, name: str = "policy") -> tuple[str, str | None]:
    (found,) = report.receipts
    (each,) = [each for each in found.claims if each.name == name]
    return each.label, each.code
