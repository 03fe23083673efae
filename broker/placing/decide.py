"""Step 6 on both sides of a border: which rules apply, over which facts, with what verdict.

The consumer decides over the charter's endorsed profile and its own appraisal; the provider decides
again for itself, and its veto wins. TEE facts never come from a profile (session.md 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from attestation.appraise import NodeAppraisal
from broker.edge.exchange import Accepted
from receipts.statements.decided import by_offer
from schemas.descriptors.profile import DomainProfile
from schemas.errors import ConfigurationError
from schemas.messages.negotiation import CallForOffers, Offer
from schemas.papers.charter import Charter
from schemas.policy.facts import AttestedFacts, DomainFacts, RequestContext, Subject, Unusable
from schemas.policy.layers import ELSEWHERE, Decision, Layers
from schemas.policy.policy_set import PolicySet
from schemas.policy.replay import facts_only

APPLICATION: Final = "api"  # one application per tenant, until keys name several


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Every owner's rules that this broker knows, loaded and checked at start."""

    charter: PolicySet
    national: tuple[PolicySet, ...]
    tenants: Mapping[str, PolicySet]
    """By the name that tenants refer to; `default` serves those that name none."""
    provider: PolicySet
    """Our own rules about what we accept from others and from our own tenants."""

    def texts(self) -> dict[str, bytes]:
        """Digest → text of every set: what an auditor needs to decide again."""
        sets = (self.charter, *self.national, *self.tenants.values(), self.provider)
        return {each.digest: each.text.encode() for each in sets}


@dataclass(slots=True)
class ConsumerPolicy:
    """Decides where our tenants' requests may go."""

    domain: str
    charter: Charter
    rules: Rulebook
    _layers: dict[tuple[str, bool], Layers] = field(default_factory=dict)

    def context(self, accepted: Accepted) -> RequestContext:
        """The request's side of every decision about it."""
        descriptor, tenant = accepted.descriptor, accepted.tenant
        return RequestContext.of(
            descriptor.policy,
            consumer=self.domain,
            tenant=tenant.name,
            application=APPLICATION,
            max_price=descriptor.budget.max_price,
            allow_debug=tenant.floor.allow_debug,
            simulated_allowed=bool(self.charter.simulated_roots),
        )

    def layers(self, tenant_layer: str | None, *, local: bool) -> Layers:
        """The rules for one tenant; a foreign provider's own layer is decided at its border."""
        name = tenant_layer or "default"
        if name not in self.rules.tenants:
            raise ConfigurationError("policy.tenant_layer", f"no tenant policy set named {name!r}")
        key = (name, local)
        if key not in self._layers:
            self._layers[key] = Layers.of(
                charter=self.rules.charter,
                national=self.rules.national,
                tenant=self.rules.tenants[name],
                provider=self.rules.provider if local else ELSEWHERE,
            )
        return self._layers[key]

    def tenant_digest(self, tenant_layer: str | None) -> str:
        """Digest of the tenant's own set, hex."""
        return self.rules.tenants[tenant_layer or "default"].digest

    def decide(
        self, accepted: Accepted, offer: Offer, profile: DomainProfile, appraisal: NodeAppraisal, price: int
    ) -> Decision:
        """Every layer's verdict on sending this request to the node we appraised. Never raises."""
        now = datetime.now(UTC)
        facts = DomainFacts.of(profile, offer.iss, now)
        subject = facts if isinstance(facts, Unusable) else Subject(facts, facts_of(appraisal, now), price)
        local = offer.iss == self.domain
        layers, context = self.layers(accepted.tenant.policy_layer, local=local), self.context(accepted)
        decision = layers.decide(context, subject)
        if isinstance(subject, Subject) and decision.verdict == "allow":
            decision = replace(decision, record=facts_only(layers, context, subject, decision))
        return decision if local else decision.joined(by_offer(offer.iss, offer.policy_digest))


@dataclass(slots=True)
class ProviderPolicy:
    """Decides what we take from whom: charter, our country's rules, and our own (double enforcement)."""

    charter: Charter
    profile: DomainProfile
    layers: Layers
    digest: str

    @classmethod
    def of(cls, charter: Charter, profile: DomainProfile, rules: Rulebook) -> ProviderPolicy:
        layers = Layers.of(
            charter=rules.charter, national=rules.national, tenant=ELSEWHERE, provider=rules.provider
        )
        return cls(charter, profile, layers, rules.provider.digest)

    def decide(self, call: CallForOffers, appraisal: NodeAppraisal, price: int) -> Decision:
        """Our verdict on running this call on the node that our agent holds for it. Never raises."""
        now = datetime.now(UTC)
        context = RequestContext.of(
            call.tags,
            consumer=call.iss,
            tenant=call.iss,
            application=APPLICATION,
            max_price=call.max_price,
            allow_debug=False,
            simulated_allowed=bool(self.charter.simulated_roots),
        )
        facts = DomainFacts.of(self.profile, self.profile.domain, now)
        if isinstance(facts, Unusable):
            return self.layers.decide(context, facts)
        subject = Subject(facts, facts_of(appraisal, now), price)
        decision = self.layers.decide(context, subject)
        if decision.verdict == "allow":
            decision = replace(decision, record=facts_only(self.layers, context, subject, decision))
        return decision

    def retention_s(self) -> int:
        """The shortest retention that we promise, seconds."""
        facts = DomainFacts.of(self.profile, self.profile.domain, datetime.now(UTC))
        return 0 if isinstance(facts, Unusable) else facts.retention_s


def facts_of(appraisal: NodeAppraisal, now: datetime) -> AttestedFacts:
    """What our appraisal established, in the policy's words."""
    age = now.timestamp() - (appraisal.challenged_at or 0.0)
    return AttestedFacts(
        assurance=appraisal.assurance,
        simulated=appraisal.simulated,
        debug_allowed=appraisal.debug,
        confidential_gpu=appraisal.confidential_gpus > 0,
        engine_in_tee=appraisal.engine_in_tee,
        binding_mode=appraisal.binding_mode,
        enrolled=appraisal.platform_digest is not None,
        age_s=max(0, int(age)),
    )
