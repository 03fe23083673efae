"""The decision: four owners' rules, each evaluated for itself, and all of them must allow.

Fail closed (A3): `allow` only if the engine said exactly Allow and reported no error. Every denial
names its rules; errors are incidents, listed apart, and never an ordinary denial. No owner's permit
widens another's forbid.

How one call can answer for four layers: Cedar reports *all* satisfied forbids, or, if there are
none, *all* satisfied permits. So over the union of the sets an Allow in which every set's own permit
is named is an Allow of every set; and after a Deny the union of the permits alone tells which of the
other sets would have allowed. `tests/test_layers.py` holds this against one call per set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

import cedarpy

from schemas.canonical import Json
from schemas.errors import ConfigurationError, Refused
from schemas.policy import cedar
from schemas.policy.facts import RequestContext, Subject, Unusable
from schemas.policy.policy_set import PolicySet

LayerName: TypeAlias = Literal["charter", "national", "tenant", "provider"]
LAYERS: Final[tuple[LayerName, ...]] = ("charter", "national", "tenant", "provider")
MAX_REMEMBERED: Final = 8192  # verdicts; about 1 kB each
DEFAULT_DENY: Final = "DEFAULT-DENY"
ENGINE_ERROR: Final = "ENGINE-ERROR"
ELSEWHERE: Final = "elsewhere"
"""Written for a layer whose owner decides at its own border; its verdict is joined later."""

Verdict: TypeAlias = Literal["allow", "deny", "error"]
LayerSets: TypeAlias = PolicySet | Sequence[PolicySet] | Literal["elsewhere"]


@dataclass(frozen=True, slots=True)
class LayerVerdict:
    """What one owner's set says."""

    layer: LayerName
    policy_set: str
    digest: str
    verdict: Verdict
    rules: tuple[str, ...]
    """Determining rules: the forbids that deny, or the permits that allow."""

    def as_json(self) -> dict[str, Json]:
        return {
            "layer": self.layer,
            "policySet": self.policy_set,
            "digest": self.digest,
            "verdict": self.verdict,
            "rules": list(self.rules),
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """The whole answer. Callers treat `error` as `deny`, and raise an incident for it."""

    domain: str
    verdict: Verdict
    reasons: tuple[str, ...]
    """Rule ids of the layers that deny, sorted; when all allow, the permits."""
    errors: tuple[str, ...]
    layer_verdicts: tuple[LayerVerdict, ...]
    policy_digests: Mapping[str, str]
    """Layer and set name → digest."""
    schema_digest: str
    engine: str
    engine_version: str
    record: bytes = field(default=b"", repr=False, compare=False)
    """The facts that it was made from, as they are stored (schemas.policy.replay); empty where none are."""

    def require_allow(self) -> Decision:
        """This decision, if it allows. Raises `Refused` (`policy.denied`) with the rules otherwise."""
        if self.verdict != "allow":
            raise Refused("policy.denied", f"{self.domain}: {', '.join(self.reasons)}")
        return self

    def joined(self, verdict: LayerVerdict) -> Decision:
        """With another owner's verdict ANDed in, such as the provider's from its signed offer."""
        verdicts = (*self.layer_verdicts, verdict)
        digests = {**self.policy_digests, f"{verdict.layer}/{verdict.policy_set}": verdict.digest}
        combined, reasons = _combine(verdicts)
        if self.verdict == "error":
            combined, reasons = "error", self.reasons
        return replace(
            self, verdict=combined, reasons=reasons, layer_verdicts=verdicts, policy_digests=digests
        )

    def as_json(self) -> dict[str, Json]:
        """The policy block of a receipt (receipts.md 3.5) and of a denial record (A9)."""
        return {
            "domain": self.domain,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "errors": list(self.errors),
            "layers": [verdict.as_json() for verdict in self.layer_verdicts],
            "policyDigests": dict(self.policy_digests),
            "schemaDigest": self.schema_digest,
            "engine": self.engine,
            "engineVersion": self.engine_version,
        }


@dataclass(frozen=True, slots=True)
class Unit:
    """One set in its layer."""

    layer: LayerName
    policies: PolicySet

    @property
    def name(self) -> str:
        return f"{self.layer}/{self.policies.name}"

    def tagged(self, *, permits_only: bool = False) -> dict[str, Any]:
        return {
            f"{self.name}/{rule}": body
            for rule, body in self.policies.rules.items()
            if not permits_only or body["effect"] == "permit"
        }


@dataclass(slots=True, eq=False)
class Layers:
    """The active rules of all owners. Owns its memo; a changed set means a new `Layers`, never equal."""

    units: tuple[Unit, ...]
    digests: Mapping[str, str]
    _everything: cedarpy.PolicySet = field(repr=False)
    _permits: cedarpy.PolicySet = field(repr=False)
    _memo: dict[Any, Decision] = field(repr=False, default_factory=dict)
    _raw_price: bool = True
    _raw_age: bool = True

    @classmethod
    def of(cls, *, charter: LayerSets, national: LayerSets, tenant: LayerSets, provider: LayerSets) -> Layers:
        """All four must be given; one that its owner decides at another border is `"elsewhere"`.

        Raises `ConfigurationError` when no layer is left, or two sets of a layer share a name.
        """
        given = dict(zip(LAYERS, (charter, national, tenant, provider), strict=True))
        units = tuple(Unit(layer, policies) for layer, sets in given.items() for policies in _listed(sets))
        names = [unit.name for unit in units]
        if not units or len(set(names)) != len(names):
            raise ConfigurationError("policy.layers", "name at least one policy set, each once per layer")
        everything, permits = _union(units, permits_only=False), _union(units, permits_only=True)
        return cls(
            units,
            {unit.name: unit.policies.digest for unit in units},
            cedar.compile_policies(everything),
            cedar.compile_policies(permits),
            _raw_price=_reads_otherwise(everything.values(), "price", "maxPrice"),
            _raw_age=_reads_otherwise(everything.values(), "attestationAgeS", "maxAttestationAgeS"),
        )

    @property
    def rules(self) -> dict[str, str]:
        """Rule id → digest of the rule, over all sets."""
        return {
            rule: unit.policies.rule_digest(rule) or "" for unit in self.units for rule in unit.policies.rules
        }

    def decide(self, request: RequestContext, subject: Subject | Unusable) -> Decision:
        """The verdict on placing this request there. Never raises for what the engine does."""
        if isinstance(subject, Unusable):
            return self._decision(subject.domain, "deny", (subject.reason,), (), ())
        key = self._key(request, subject)
        known = self._memo.get(key)
        if known is None:
            known = self._decide(request, subject)
            if len(self._memo) >= MAX_REMEMBERED:
                self._memo.clear()
            if known.verdict != "error":
                self._memo[key] = known
        return known

    def _key(self, request: RequestContext, subject: Subject) -> Any:
        """Price and age count by how they compare with their bounds, unless a rule reads them otherwise."""
        price, age = subject.price, subject.attested.age_s
        return (
            request,
            subject.domain,
            subject.attested.key,
            price if self._raw_price else price > request.max_price,
            age if self._raw_age else age > request.max_attestation_age_s,
        )

    def _decide(self, request: RequestContext, subject: Subject) -> Decision:
        domain = subject.domain.domain
        try:
            outcome, permitting = self._ask(request, subject)
        except Exception as error:  # the binding may raise anything; fail closed (A3.7)
            return self._decision(domain, "error", (ENGINE_ERROR,), (f"{type(error).__name__}: {error}",), ())
        errors = tuple(sorted({*outcome.errors, *permitting.errors}))
        if "NoDecision" in (outcome.decision, permitting.decision):
            return self._decision(domain, "error", (ENGINE_ERROR,), errors or ("no decision",), ())
        forbidding = outcome.rules if outcome.decision == "Deny" else frozenset()
        permitted = permitting.rules if permitting.decision == "Allow" else frozenset()
        verdicts = tuple(_verdict(unit, forbidding, permitted, errors) for unit in self.units)
        verdict, reasons = _combine(verdicts)
        if errors and verdict == "allow":  # an error that names no rule of ours
            verdict, reasons = "error", (ENGINE_ERROR,)
        return self._decision(domain, verdict, reasons, errors, verdicts)

    def _ask(self, request: RequestContext, subject: Subject) -> tuple[cedar.Outcome, cedar.Outcome]:
        """The outcome of all rules, and one from which the satisfied permits can be read."""
        entities = cedar.compile_entities(request, subject)
        asked = cedar.question(request, subject.domain.domain)
        outcome = cedar.evaluate(self._everything, entities, [asked])[0]
        if outcome.decision != "Deny":
            return outcome, outcome
        return outcome, cedar.evaluate(self._permits, entities, [asked])[0]

    def _decision(
        self,
        domain: str,
        verdict: Verdict,
        reasons: tuple[str, ...],
        errors: tuple[str, ...],
        verdicts: tuple[LayerVerdict, ...],
    ) -> Decision:
        return Decision(
            domain=domain,
            verdict=verdict,
            reasons=reasons,
            errors=errors,
            layer_verdicts=verdicts,
            policy_digests=self.digests,
            schema_digest=cedar.schema_digest(),
            engine=cedar.ENGINE,
            engine_version=cedar.engine_version(),
        )


def _listed(sets: LayerSets) -> tuple[PolicySet, ...]:
    if isinstance(sets, PolicySet):
        return (sets,)
    return () if isinstance(sets, str) else tuple(sets)


def _union(units: Iterable[Unit], *, permits_only: bool) -> dict[str, Any]:
    return {rule: body for unit in units for rule, body in unit.tagged(permits_only=permits_only).items()}


def _verdict(
    unit: Unit, forbidding: frozenset[str], permitted: frozenset[str], errors: tuple[str, ...]
) -> LayerVerdict:
    prefix = f"{unit.name}/"
    forbids = _own(prefix, forbidding)
    permits = _own(prefix, permitted)
    if any(f"`{prefix}" in error for error in errors) and not forbids:
        return LayerVerdict(unit.layer, unit.policies.name, unit.policies.digest, "error", (ENGINE_ERROR,))
    rules = forbids or permits or (DEFAULT_DENY,)
    verdict: Verdict = "allow" if permits and not forbids else "deny"
    return LayerVerdict(unit.layer, unit.policies.name, unit.policies.digest, verdict, rules)


def _own(prefix: str, rules: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(rule.removeprefix(prefix) for rule in rules if rule.startswith(prefix)))


def _combine(verdicts: Sequence[LayerVerdict]) -> tuple[Verdict, tuple[str, ...]]:
    """All must allow. An error of one set is no denial of another: deny wins only where a rule denied."""
    denying = [verdict for verdict in verdicts if verdict.verdict == "deny"]
    failing = [verdict for verdict in verdicts if verdict.verdict == "error"]
    worst: Verdict = "deny" if denying else "error" if failing or not verdicts else "allow"
    determining = denying or failing or verdicts
    return worst, tuple(sorted({rule for verdict in determining for rule in verdict.rules}))


def _reads_otherwise(bodies: Iterable[Any], attribute: str, bound: str) -> bool:
    """Whether a rule uses the attribute in any way but `resource.attribute > context.bound`."""
    comparison = {
        "left": {".": {"left": {"Var": "resource"}, "attr": attribute}},
        "right": {".": {"left": {"Var": "context"}, "attr": bound}},
    }
    pending: list[Any] = list(bodies)
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if node.get("attr") == attribute:
                return True
            pending.extend(value for key, value in node.items() if not (key == ">" and value == comparison))
        elif isinstance(node, list):
            pending.extend(node)
    return False
