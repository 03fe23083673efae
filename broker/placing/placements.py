"""The Placement receipt: where a request goes and why there, signed before it goes (receipts.md 3.2).

It commits to every candidate with its reasons, salted, so that losers stay hidden until someone
entitled demands them; the salted list itself is kept beside the log. Being durable before Execute
is sent, it is the consumer's intent (session.md 11).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from attestation.appraise import NodeAppraisal
from broker.journey import Journey
from broker.placing.appraisals import ChallengeBook
from broker.placing.attempt import new_commitment
from broker.placing.collateral import NOTHING, Supply
from broker.placing.negotiate import Offered
from broker.placing.policy_block import node_record, policy_block
from broker.problems import Invalid
from broker.select.candidates import Feasibility, Rejected
from broker.select.rank import Plan, RankRecord
from broker.select.refused import CutRecord
from broker.select.replayed import objective
from broker.shelf import INTENT, REQUEST, Intent
from receipts.log import Draft, Issued, Keep, Recorded, TransparencyLog
from receipts.log.draft import ChallengeDisclosure, Disclosures
from receipts.retention import retention
from receipts.statements import fields, receipt
from receipts.statements.decided import plan_digest, refusal_block
from schemas import merkle
from schemas.canonical import Json, jcs, sha256, write_json
from schemas.errors import ComityError, Refused
from schemas.papers.trust import FederationTrust
from schemas.policy.layers import Decision, Layers
from schemas.primitives import format_time

MAX_SUPPLIES: Final = 1024  # names of bundles remembered; one that is forgotten goes to the log again


@dataclass(frozen=True, slots=True)
class Considered:
    """Everything that was looked at, in a fixed order: plans by rank, then what was rejected."""

    plans: Sequence[Plan]
    rejected: Sequence[Rejected]
    registry: bytes
    """Digest of the directory snapshot."""
    ranking: RankRecord
    """Everything that J read, so that the order can be computed again bit for bit."""

    def entries(self) -> list[Json]:
        """One JSON object a candidate, without salt."""
        kept: list[Json] = [
            {"plan": plan.candidate.key, "score": str(plan.score), "reasons": []} for plan in self.plans
        ]
        return kept + [{"plan": gone.key, "reasons": list(gone.reasons)} for gone in self.rejected]


@dataclass(frozen=True, slots=True)
class Choice:
    """One plan that won, with everything that its receipt must say."""

    plan: Plan
    considered: Considered
    offered: Offered
    appraisal: NodeAppraisal
    decision: Decision
    commitment: str
    """Keyed commitment to the request body, hex."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What our appraisal was made from: with it, an auditor makes it again."""

    evidence: bytes | None = field(repr=False)
    collateral: Supply = NOTHING
    """What the provider kept apart, where the evidence alone left something undecided."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nobody may serve the request, and everything from which an auditor finds that out alone."""

    found: Feasibility
    layers: Layers
    """The rules for our own plans; other domains' own layers are asked at their borders."""
    registry: bytes
    """Digest of the directory snapshot."""
    adverts: Sequence[bytes] = field(repr=False)
    """What that digest stands for, as each domain signed it."""
    record: CutRecord = field(repr=False)

    @property
    def rules(self) -> tuple[str, ...]:
        """A minimal set that together excludes every candidate."""
        return self.found.report().binding


@dataclass(slots=True)
class Placements:
    """Writes Placement receipts through the log's one writer."""

    domain: str
    trust: FederationTrust
    challenges: ChallengeBook
    log: TransparencyLog = field(repr=False)
    _supplies: set[str | None] = field(default_factory=set)
    """Names of bundles whose pieces the log keeps since we began: shared by requests, never erased."""

    async def issue(self, journey: Journey, choice: Choice, shown: Shown) -> Issued:
        """Make the choice durable. Only afterwards may the Execute header that names it be sent."""
        salted = _salted(choice.considered.entries())
        body = self._draft(journey, choice, _root(salted), len(salted))
        listing = write_json({"considered": [item.decode() for item in salted]})
        draft = Draft(body, disclosures=self._disclosures(choice.appraisal, listing, shown.collateral))
        kept = [listing, choice.considered.ranking.write(), choice.decision.record]
        kept += [*([shown.evidence] if shown.evidence else []), *self._unkept(shown.collateral)]
        issued = await self._log(journey, draft, kept, self._ahead(journey, choice))
        if len(self._supplies) >= MAX_SUPPLIES:
            self._supplies.clear()
        self._supplies.add(shown.collateral.name)
        return issued

    async def withdraw(self, choice: Choice) -> None:
        """Its order was never sent: no Execution is owed for it. The Placement stands."""
        with suppress(ComityError):  # what stands in the way stood in the Placement's way as well
            await self.log.settle(INTENT, choice.offered.body.nid)

    async def refuse(self, journey: Journey, refusal: Refusal) -> Issued:
        """A refusal is signed and logged too: every candidate, every rule, no plan (receipts.md 3.5)."""
        salted = _salted([rejected.as_json() for rejected in refusal.found.rejected])
        listing = write_json({"considered": [item.decode() for item in salted]})
        record, tags = refusal.record.write(), journey.descriptor.policy_digest.hex()
        now = datetime.now(UTC)
        body = receipt.PlacementDraft(
            audience=[self.domain],
            peer=self.domain,
            request=fields.RequestRef(id=journey.wire_id, commitment=new_commitment(journey.body())[1]),
            times=fields.Times(issued=format_time(now)),
            trace=journey.trace_id,
            considered=receipt.Considered(root=_root(salted).hex(), count=len(salted)),
            capability=fields.Capability(name=journey.descriptor.capability),
            policy=refusal_block(refusal.layers, refusal.rules, input_commitment=tags, at=now),
            inputs=receipt.Inputs(registry=refusal.registry.hex(), costs=sha256(record).hex()),
            budget=self._budget(journey),
            retention=_retention(journey),
        )
        adverts = [sha256(advert).hex() for advert in refusal.adverts]
        disclosed = Disclosures(considered=sha256(listing).hex(), adverts=adverts)
        return await self._log(journey, Draft(body, disclosed), [listing, record, *refusal.adverts], [])

    async def _log(
        self, journey: Journey, draft: Draft, kept: Sequence[bytes], rows: Sequence[Recorded]
    ) -> Issued:
        """Log it; the request's first receipt says whose it is. A name is used once: otherwise `Invalid`."""
        tenant = journey.accepted.tenant.name.encode()
        whose = [] if journey.recorded else [Recorded(REQUEST, journey.wire_id, tenant)]
        try:
            (issued,) = await self.log.issue(
                [draft], keep=Keep(journey.wire_id, evidence=kept), record=[*rows, *whose]
            )
        except Refused as error:
            if error.code != "log.recorded":
                raise
            text = "request_id: this name was used before; each request needs its own"
            raise Invalid("request.repeated", text, param="request_id") from None
        journey.recorded = True
        return issued

    def _unkept(self, supply: Supply) -> Iterable[bytes]:
        return () if supply.name in self._supplies else supply.pieces.values()

    def _ahead(self, journey: Journey, choice: Choice) -> list[Recorded]:
        """The intent of this attempt."""
        intent = Intent(
            provider=choice.offered.domain,
            request_id=journey.wire_id,
            commitment=choice.commitment,
            nid=choice.offered.body.nid,
        )
        return [Recorded(INTENT, intent.row, intent.write())]

    def _draft(self, journey: Journey, choice: Choice, root: bytes, count: int) -> receipt.PlacementDraft:
        offer, plan = choice.offered.body, choice.plan
        now = datetime.now(UTC)
        node = offer.node_sign
        return receipt.PlacementDraft(
            audience=sorted({self.domain, offer.iss}),
            peer=offer.iss,
            request=fields.RequestRef(id=journey.wire_id, commitment=choice.commitment),
            times=fields.Times(issued=format_time(now)),
            trace=journey.trace_id,
            links=self._links(journey),
            plan=receipt.Plan(
                digest=plan_digest(plan.candidate.key, node, offer.model_digest),
                id=offer.nid,
                domain=offer.iss,
                nodes=[node],
            ),
            path="local" if offer.iss == self.domain else "merged",
            transcript=choice.offered.offer.digest.hex(),
            considered=receipt.Considered(
                root=root.hex(),
                count=count,
                selected_index=choice.considered.plans.index(plan),
            ),
            objective=objective(plan.terms, plan.score),
            capability=fields.Capability(
                name=offer.capability,
                artifact_digest=offer.model_digest,
                model_signing_digest=offer.model_signing,
            ),
            policy=policy_block(choice.decision, input_commitment=journey.descriptor.policy_digest.hex()),
            inputs=receipt.Inputs(
                registry=choice.considered.registry.hex(),
                costs=sha256(choice.considered.ranking.write()).hex(),
            ),
            budget=self._budget(journey),
            retention=_retention(journey),
            executor=receipt.Executor(
                domain=offer.iss, key=self.trust.keys(offer.iss, "receipt", now)[0].thumbprint
            ),
            nodes=[node_record(choice.appraisal, "inference")],
        )

    def _links(self, journey: Journey) -> list[fields.Link]:
        """A continuation names the Placement that it continues."""
        return [
            fields.Link(rel="parent", digest=segment.placement.digest.hex())
            for segment in journey.segments[-1:]
        ]

    def _budget(self, journey: Journey) -> receipt.Budget:
        bound = journey.descriptor.budget.max_price
        price = None if bound is None else fields.Price(micro=bound, currency=self.trust.charter.currency)
        return receipt.Budget(max_price=price, max_output_tokens=journey.descriptor.max_output_tokens)

    def _disclosures(self, appraisal: NodeAppraisal, listing: bytes, collateral: Supply) -> Disclosures:
        """The challenge that the evidence answers, and where the candidates are listed: for an auditor."""
        return Disclosures(
            considered=sha256(listing).hex(),
            collateral=list(collateral.pieces),
            challenges=[
                ChallengeDisclosure(
                    domain=self.domain,
                    value=issued.value.hex(),
                    issued_at=format_time(datetime.fromtimestamp(issued.issued_at, UTC)),
                )
                for issued in self.challenges.issued()
                if issued.issued_at == appraisal.challenged_at
            ],
        )


def _retention(journey: Journey) -> fields.Retention | None:
    """How long this tenant's receipts must be kept; nothing is said where it falls under no class."""
    names = journey.accepted.tenant.retention
    return retention(names, datetime.now(UTC)) if names else None


def _salted(entries: Sequence[Json]) -> list[bytes]:
    """Each candidate with its own salt, as the bytes whose hash is a leaf."""
    return [jcs({"salt": secrets.token_hex(16), "candidate": entry}) for entry in entries]


def _root(salted: Sequence[bytes]) -> bytes:
    return merkle.root([merkle.leaf_hash(item) for item in salted])
