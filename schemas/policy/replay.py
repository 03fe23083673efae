"""Decide again, years later: a decision with everything it was made from, and the proof that it holds.

The record keeps both sides' facts and every set's text. A replay loads the texts through the gate,
checks their digests, asks the same engine and must reach the same verdict, rule by rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from schemas.canonical import Json, Wire, write_json
from schemas.errors import Refused, Undecided
from schemas.policy import cedar
from schemas.policy.facts import AttestedFacts, DomainFacts, RequestContext, Subject
from schemas.policy.layers import LAYERS, Decision, LayerName, Layers
from schemas.policy.policy_set import MAX_POLICY_BYTES, PolicySet
from schemas.primitives import Count, Digest, Label

MAX_REMEMBERED = 1024  # facts as JSON; a request's and a domain's repeat, a node's age makes new ones
MAX_RECORD_BYTES = 2 * 1024 * 1024  # four layers of a few sets each

Text = Annotated[str, Field(max_length=512)]
Words = Annotated[list[Text], Field(max_length=1024)]
Level = Annotated[int, Field(ge=0, le=4)]


class RequestRecord(Wire):
    """A `RequestContext`, lists sorted."""

    consumer: Text
    tenant: Text
    application: Text
    data_class: Text
    residency: Words
    origin: Text
    forbid_regimes: Words
    require_certs: Words
    min_assurance: Level
    confidential_gpu: bool
    max_retention_s: Count
    max_attestation_age_s: Count
    max_carbon: Count
    max_price: Count
    allow_debug: bool
    simulated_allowed: bool


class DomainRecord(Wire):
    """A `DomainFacts`, lists sorted."""

    domain: Text
    profile_digest: Digest
    status: Text
    inside: Words
    exposed_to: Words
    certs: Words
    transfer_basis: Words
    retention_s: Count
    carbon: Count
    jurisdiction_evidence: Level
    evidence: Level
    key_control: Text
    support_access: Words
    seal: Level


class AttestedRecord(Wire):
    """An `AttestedFacts`."""

    assurance: Level
    simulated: bool
    debug_allowed: bool
    confidential_gpu: bool
    engine_in_tee: bool
    binding_mode: Text
    enrolled: bool
    age_s: Count


class SetRecord(Wire):
    """One owner's set as it was in force."""

    layer: LayerName
    name: Label
    digest: Digest
    text: Annotated[str, Field(max_length=MAX_POLICY_BYTES)] | None = None
    """Absent where the set is kept elsewhere, once, by its digest."""
    verdict: Literal["allow", "deny", "error"]
    rules: Words


class DecisionRecord(Wire):
    """A decision that can be made again."""

    v: Literal[1] = 1
    engine: Label
    engine_version: Label
    schema_digest: Digest
    request: RequestRecord
    domain: DomainRecord
    attested: AttestedRecord
    price: Count
    sets: Annotated[list[SetRecord], Field(min_length=1, max_length=64)]
    verdict: Literal["allow", "deny", "error"]
    reasons: Words

    @classmethod
    def read(cls, data: bytes, *, limit: int = MAX_RECORD_BYTES) -> Self:
        return super().read(data, limit=limit)


def facts_only(layers: Layers, request: RequestContext, subject: Subject, decision: Decision) -> bytes:
    """As `record`, written, without the sets' texts: for the hot path, where nothing needs validation."""
    own = decision.layer_verdicts[: len(layers.units)]
    sets: list[Json] = [
        {
            "layer": unit.layer,
            "name": unit.policies.name,
            "digest": unit.policies.digest,
            "verdict": verdict.verdict,
            "rules": list(verdict.rules),
        }
        for unit, verdict in zip(layers.units, own, strict=True)
    ]
    return write_json(
        {
            "v": 1,
            "engine": decision.engine,
            "engine_version": decision.engine_version,
            "schema_digest": decision.schema_digest,
            "request": _plain(request),
            "domain": _plain(subject.domain),
            "attested": _plain(subject.attested),
            "price": subject.price,
            "sets": sets,
            "verdict": decision.verdict,
            "reasons": list(decision.reasons),
        }
    )


def record(layers: Layers, request: RequestContext, subject: Subject, decision: Decision) -> DecisionRecord:
    """What to keep of a decision made by these layers (joined verdicts of others are not ours to replay)."""
    own = decision.layer_verdicts[: len(layers.units)]
    return DecisionRecord(
        engine=decision.engine,
        engine_version=decision.engine_version,
        schema_digest=decision.schema_digest,
        request=RequestRecord(**_plain(request)),
        domain=domain_record(subject.domain),
        attested=AttestedRecord(**_plain(subject.attested)),
        price=subject.price,
        sets=[
            SetRecord(
                layer=unit.layer,
                name=unit.policies.name,
                digest=unit.policies.digest,
                text=unit.policies.text,
                verdict=verdict.verdict,
                rules=list(verdict.rules),
            )
            for unit, verdict in zip(layers.units, own, strict=True)
        ],
        verdict=decision.verdict,
        reasons=list(decision.reasons),
    )


def replay(stored: DecisionRecord, *, texts: Mapping[str, str] | None = None) -> Decision:
    """The decision made again, if it is the one on record. `texts`: digest → text of sets kept elsewhere.

    Raises `Undecided` (`policy.engine_other`) under another engine or schema or (`policy.text_missing`)
    without a set, `Refused` (`policy.digest_differs`, `policy.replay_differs`), or what `PolicySet.load`
    raises.
    """
    engine = (cedar.ENGINE, cedar.engine_version(), cedar.schema_digest())
    if engine != (stored.engine, stored.engine_version, stored.schema_digest):
        raise Undecided("policy.engine_other", f"decided by {stored.engine} {stored.engine_version}")
    sets: dict[str, list[PolicySet]] = {layer: [] for layer in LAYERS}
    for entry in stored.sets:
        text = entry.text if entry.text is not None else (texts or {}).get(entry.digest)
        if text is None:
            raise Undecided("policy.text_missing", f"the text of {entry.layer}/{entry.name} is not here")
        loaded = PolicySet.load(text, entry.name)
        if loaded.digest != entry.digest:
            raise Refused("policy.digest_differs", f"{entry.layer}/{entry.name} is not the set on record")
        sets[entry.layer].append(loaded)
    decision = Layers.of(**sets).decide(_request(stored.request), _subject(stored))
    then = [(entry.layer, entry.name, entry.verdict, tuple(entry.rules)) for entry in stored.sets]
    now = [(said.layer, said.policy_set, said.verdict, said.rules) for said in decision.layer_verdicts]
    if sorted(then) != sorted(now) or (decision.verdict, list(decision.reasons)) != (
        stored.verdict,
        stored.reasons,
    ):
        raise Refused("policy.replay_differs", f"{decision.verdict} now, {stored.verdict} on record")
    return decision


def domain_record(facts: DomainFacts) -> DomainRecord:
    """A domain's facts as they stand in a record."""
    return DomainRecord(**_plain(facts))


@lru_cache(MAX_REMEMBERED)
def _plain(facts: RequestContext | DomainFacts | AttestedFacts) -> dict[str, Any]:
    """The fields as JSON has them. Only read: equal facts share one."""
    values = ((each.name, getattr(facts, each.name)) for each in fields(facts))
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in values}


def _sets(model: Wire) -> dict[str, Any]:
    return {
        name: frozenset(value) if isinstance(value, list) else value
        for name, value in model.model_dump().items()
    }


def _request(stored: RequestRecord) -> RequestContext:
    return RequestContext(**_sets(stored))


def _subject(stored: DecisionRecord) -> Subject:
    return Subject(
        DomainFacts(**_sets(stored.domain)), AttestedFacts(**stored.attested.model_dump()), stored.price
    )
