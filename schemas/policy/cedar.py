"""The only file that calls the Cedar engine: schema, entities, one evaluation.

Always with the schema: without it a rule that errors is skipped, and a skipped `forbid` allows
(A2.1). Nothing here decides; `layers` turns outcomes into verdicts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

import cedarpy

from schemas.canonical import sha256
from schemas.policy.facts import RequestContext, Subject
from schemas.policy.jurisdictions import chain

ENGINE: Final = "cedarpy"
MAX_SURROUNDINGS: Final = 2048  # pairs of a domain's places and an asker; about 5 kB each

SCHEMA: Final = """
entity Jurisdiction in [Jurisdiction];
entity Regime;
entity Certification;
entity Participant;
entity Tenant in [Participant];
entity Application in [Tenant];
entity Domain in [Jurisdiction] {
  status: String,
  exposedTo: Set<Regime>,
  certs: Set<Certification>,
  transferBasis: Set<String>,
  retentionS: Long,
  carbon: Long,
  price: Long,
  jurisdictionEvidence: Long,
  evidence: Long,
  keyControl: String,
  supportAccess: Set<Jurisdiction>,
  seal: Long,
  assurance: Long,
  simulated: Bool,
  debugAllowed: Bool,
  confidentialGpu: Bool,
  engineInTee: Bool,
  bindingMode: String,
  attestationAgeS: Long
};
action place appliesTo {
  principal: Application,
  resource: Domain,
  context: {
    dataClass: String,
    residency: Set<Jurisdiction>,
    origin: Jurisdiction,
    forbidRegimes: Set<Regime>,
    requireCerts: Set<Certification>,
    minAssurance: Long,
    confidentialGpu: Bool,
    allowDebug: Bool,
    simulatedAllowed: Bool,
    maxPrice: Long,
    maxCarbon: Long,
    maxRetentionS: Long,
    maxAttestationAgeS: Long
  }
};
"""
"""Vocabulary of A5. `Participant` is a tenant's home domain, for a provider that picks its consumers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the engine said. `decision` is Allow, Deny or NoDecision; rules are our policy ids."""

    decision: str
    rules: frozenset[str]
    errors: tuple[str, ...]


@cache
def schema() -> cedarpy.Schema:
    """The parsed schema."""
    return cedarpy.Schema.from_str(SCHEMA)


@cache
def schema_digest() -> str:
    """SHA-256 of the schema text, hex."""
    return sha256(SCHEMA.encode()).hex()


@cache
def engine_version() -> str:
    """The engine's release; a receipt names it so that the decision can be replayed."""
    from importlib.metadata import version

    return version(ENGINE)


def compile_policies(policies: Mapping[str, Any]) -> cedarpy.PolicySet:
    """A handle over policies in Cedar's JSON form, each under the id that outcomes will name."""
    text = json.dumps({"staticPolicies": dict(policies), "templates": {}, "templateLinks": []})
    return cedarpy.PolicySet.from_json_str(text)


def compile_entities(request: RequestContext, subject: Subject) -> cedarpy.Entities:
    """One small handle per question. Only the domain is new each time, for its price and its age."""
    around = _surroundings(
        subject.domain.inside, request.origin, request.consumer, request.tenant, request.application
    )
    return around.with_added_json_str(json.dumps([_domain(subject)]), schema())


@lru_cache(maxsize=MAX_SURROUNDINGS)
def _surroundings(
    inside: frozenset[str], origin: str, consumer: str, tenant: str, application: str
) -> cedarpy.Entities:
    """The places around the domain and the origin, and the asker: half of the parsing, done once."""
    places = {place for code in (*inside, origin) for place in chain(code)}
    entities = [_entity(_uid("Jurisdiction", place), "Jurisdiction", chain(place)[1:2]) for place in places]
    entities.append(_entity(_application(consumer, tenant, application), "Tenant", [f"{consumer}/{tenant}"]))
    entities.append(_entity(_uid("Tenant", f"{consumer}/{tenant}"), "Participant", [consumer]))
    return cedarpy.Entities.from_json_str(json.dumps(entities), schema())


def question(request: RequestContext, domain: str) -> dict[str, Any]:
    """The authorization request in Cedar's JSON form."""
    return {
        "principal": _application(request.consumer, request.tenant, request.application),
        "action": 'Action::"place"',
        "resource": _uid("Domain", domain),
        "context": json.dumps(_context(request)),
    }


def evaluate(
    policies: cedarpy.PolicySet, entities: cedarpy.Entities, asked: Iterable[dict[str, Any]]
) -> list[Outcome]:
    """Ask the engine. Raises whatever the binding raises: the caller turns that into `error`."""
    results = cedarpy.is_authorized_batch(list(asked), policies, entities, schema())
    return [
        Outcome(
            result.decision.value,
            frozenset(result.diagnostics.reasons),
            tuple(result.diagnostics.errors),
        )
        for result in results
    ]


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _set(kind: str, names: Iterable[str]) -> list[dict[str, dict[str, str]]]:
    return [{"__entity": _uid(kind, name)} for name in sorted(names)]


def _entity(uid: dict[str, str], above: str, parents: Iterable[str]) -> dict[str, Any]:
    return {"uid": uid, "attrs": {}, "parents": [_uid(above, name) for name in parents]}


def _application(consumer: str, tenant: str, application: str) -> dict[str, str]:
    return _uid("Application", f"{consumer}/{tenant}/{application}")


def _domain(subject: Subject) -> dict[str, Any]:
    domain, attested = subject.domain, subject.attested
    return {
        "uid": _uid("Domain", domain.domain),
        "parents": [_uid("Jurisdiction", place) for place in sorted(domain.inside)],
        "attrs": {
            "status": domain.status,
            "exposedTo": _set("Regime", domain.exposed_to),
            "certs": _set("Certification", domain.certs),
            "transferBasis": sorted(domain.transfer_basis),
            "retentionS": domain.retention_s,
            "carbon": domain.carbon,
            "price": subject.price,
            "jurisdictionEvidence": subject.jurisdiction_evidence,
            "evidence": domain.evidence,
            "keyControl": domain.key_control,
            "supportAccess": _set("Jurisdiction", domain.support_access),
            "seal": domain.seal,
            "assurance": attested.assurance,
            "simulated": attested.simulated,
            "debugAllowed": attested.debug_allowed,
            "confidentialGpu": attested.confidential_gpu,
            "engineInTee": attested.engine_in_tee,
            "bindingMode": attested.binding_mode,
            "attestationAgeS": attested.age_s,
        },
    }


def _context(request: RequestContext) -> dict[str, Any]:
    return {
        "dataClass": request.data_class,
        "residency": _set("Jurisdiction", request.residency),
        "origin": {"__entity": _uid("Jurisdiction", request.origin)},
        "forbidRegimes": _set("Regime", request.forbid_regimes),
        "requireCerts": _set("Certification", request.require_certs),
        "minAssurance": request.min_assurance,
        "confidentialGpu": request.confidential_gpu,
        "allowDebug": request.allow_debug,
        "simulatedAllowed": request.simulated_allowed,
        "maxPrice": request.max_price,
        "maxCarbon": request.max_carbon,
        "maxRetentionS": request.max_retention_s,
        "maxAttestationAgeS": request.max_attestation_age_s,
    }
