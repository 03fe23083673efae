"""One request between two brokers that decide by real rules, for an auditor who decides again."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from broker.placing.policy_block import policy_block
from broker.select.cost import Inputs, Weights
from broker.select.rank import RankRecord, StoredPlan
from broker.select.replayed import SELECTION, rerank
from receipts import bundle as bundles
from receipts.bundle import Bundle
from receipts.log import Keep
from receipts.statements import receipt
from receipts.statements.decided import by_offer, plan_digest
from receipts.statements.fields import Capability, PolicyDecision
from receipts.tests.world import CLINIC, CLOUD, MODEL, NOW, TAGS, Domain, Federation, Node, Run, platform
from receipts.verify import Report, verify_bundle
from receipts.verify.replay.selection import Ranked
from schemas import merkle
from schemas.canonical import Json, jcs, sha256, write_json
from schemas.policy.facts import DomainFacts, Subject
from schemas.policy.layers import ELSEWHERE, Decision, Layers
from schemas.policy.replay import facts_only
from schemas.policy.tests.cases import asking, cloud, forbidding, open_set
from schemas.primitives import format_time

CHARTER, PROVIDER = open_set("charter"), open_set("provider")
TENANT = forbidding("TNT-001-never", "false")
TEXTS = {each.digest: each.text.encode() for each in (CHARTER, PROVIDER, TENANT)}
CONSUMER_LAYERS = Layers.of(charter=CHARTER, national=(), tenant=TENANT, provider=ELSEWHERE)
PROVIDER_LAYERS = Layers.of(charter=CHARTER, national=(), tenant=ELSEWHERE, provider=PROVIDER)
REQUEST = asking(data_class="public", simulated_allowed=False)  # the made-up charter lists no such root


def plan(key: str, price: int) -> StoredPlan:
    inputs = Inputs(
        key=key, rtt_ms=20, body_bytes=900, queue_ms="5", fresh_tokens=100, output_tokens=32,
        prefill_tps="900", decode_tps="40", cold=False, move_ms="0", headroom="6", assurance=1,
        preferred=True, price=price,
    )  # fmt: skip
    return StoredPlan(inputs=inputs, stale=False)


RANKING = RankRecord(
    seed="r1",
    weights=Weights().as_json(),
    plans=[plan("cloud.fr chat.small FR simulated", 100), plan("hyper.us chat.small US simulated", 4000)],
)
BEST, SECOND = rerank(RANKING.write())


def subject(federation: Federation, **attested: Any) -> Subject:
    """cloud.fr as the charter endorses it, with hardware as the evidence shows it."""
    facts = DomainFacts.of(federation.cloud.member().endorsed.profile, CLOUD, NOW)
    assert isinstance(facts, DomainFacts)
    proven = replace(cloud().attested, **({"binding_mode": "cpu-only"} | attested))
    return Subject(facts, proven, 3)


def recorded(layers: Layers, about: Subject, **request: Any) -> Decision:
    asked = replace(REQUEST, **request)
    decision = layers.decide(asked, about)
    return replace(decision, record=facts_only(layers, asked, about, decision))


def block(decision: Decision) -> PolicyDecision:
    written = policy_block(decision, input_commitment=TAGS)
    return written.model_copy(update={"time_created": format_time(NOW)})


def salted(order: Sequence[Ranked], *rejected: Json) -> list[bytes]:
    entries: list[Json] = [{"plan": each.key, "score": str(each.score), "reasons": []} for each in order]
    return [jcs({"salt": secrets.token_hex(16), "candidate": each}) for each in [*entries, *rejected]]


REJECTED: Json = {"plan": "else.us chat.small US simulated", "reasons": ["RES-001-residency"]}


def considered(items: Sequence[bytes], index: int = 0) -> receipt.Considered:
    root = merkle.root([merkle.leaf_hash(item) for item in items]).hex()
    return receipt.Considered(root=root, count=len(items), selected_index=index)


def founded(rules: str) -> Federation:
    made = Federation(Domain.make(CLINIC), Domain.make(CLOUD, (platform(),)), policy_digest=rules)
    made.publish()
    return made


class Case:
    """One request whose receipts state what an honest pair of brokers decided, until something is changed."""

    def __init__(self, federation: Federation, folder: Path) -> None:
        self.federation, self.folder, self.node = federation, folder, Node()
        self.consumer = recorded(CONSUMER_LAYERS, subject(federation)).joined(by_offer(CLOUD, "6" * 64))
        self.provider = recorded(PROVIDER_LAYERS, subject(federation), tenant=CLINIC)
        self.listing = salted([BEST, SECOND], REJECTED)
        thumbprint = self.node.key.thumbprint
        self.placement: dict[str, Any] = {
            "policy": block(self.consumer),
            "objective": BEST.objective,
            "inputs": receipt.Inputs(registry="1" * 64, costs=sha256(RANKING.write()).hex()),
            "considered": considered(self.listing),
            "capability": Capability(name="chat.small", artifact_digest=MODEL),
            "plan": receipt.Plan(
                digest=plan_digest(BEST.key, thumbprint, MODEL), id="p1", domain=CLOUD, nodes=[thumbprint]
            ),
        }
        self.execution: dict[str, Any] = {"policy": block(self.provider)}

    async def judged(self, of: str = CLINIC, touch: Callable[[Bundle], Bundle] | None = None) -> Report:
        """The auditor's verdict on the explained bundle out of one side's log."""
        listing = write_json({"considered": [item.decode() for item in self.listing]})
        shown = self.node.disclosures().model_copy(update={"considered": sha256(listing).hex()})
        run = Run(self.node, placement=self.placement, execution=self.execution, disclosures=shown)
        logs = {
            CLINIC: await self.federation.clinic.open(self.folder),
            CLOUD: await self.federation.cloud.open(self.folder),
        }
        await run.play(logs[CLINIC], logs[CLOUD])
        kept = [self.consumer.record, RANKING.write(), listing]
        await logs[CLINIC].keep(Keep(run.request.id, evidence=kept))
        evidence = [self.provider.record, self.node.evidence]
        await logs[CLOUD].keep(Keep(run.request.id, evidence=evidence))
        documents = replace(self.federation.clinic.documents, policies=TEXTS)
        held = logs[of]._reader.bundle(run.request.id, documents, explained=True)
        for log in logs.values():
            await log.close()
        held = touch(held) if touch else held
        return verify_bundle(bundles.write(held), self.federation.trust(), at=NOW, selection=SELECTION)

    def sign(self, part: str, /, **changes: Any) -> None:
        """Have the broker sign this block otherwise."""
        self.placement[part] = self.placement[part].model_copy(update=changes)


def claim(report: Report, name: str, kind: str = "placement") -> tuple[str, str | None]:
    (found,) = [each for each in report.receipts if each.kind == kind]
    (each,) = [each for each in found.claims if each.name == name]
    return each.label, each.code
