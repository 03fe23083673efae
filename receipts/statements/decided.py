"""Decisions in the words of receipts: what a broker signs and an auditor computes again (receipts.md 3.5).

Writing and checking share these functions, so that a replay compares every field and not a chosen few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final, cast

from receipts.statements.fields import MAX_LISTED, RECORD, Layer, PolicyDecision, PolicyFile, Verifier
from schemas.canonical import jcs, length_prefixed, sha256
from schemas.policy.cedar import ENGINE, engine_version, schema_digest
from schemas.policy.layers import Decision, Layers, LayerVerdict
from schemas.primitives import format_time

VERIFIER: Final = "https://comity.invalid/policy"  # a name, not an address
OFFERED: Final = "OFFERED"  # the provider's own layer, as its consumer knows it: it offered, so it allows
MAX_ERROR_TEXT: Final = 256  # characters of an engine's error, the wire's own bound for a name

MAX_REMEMBERED: Final = 1024  # values of each kind; a federation's sets and their verdicts are a few dozen


def policy_block(decision: Decision, *, input_commitment: str, at: datetime) -> PolicyDecision:
    """The decision as a receipt states it: engine, schema, facts, every layer's digest, verdict and rules.

    `input_commitment`: digest of the effective policy tags, hex. `at`: when it was decided.
    """
    return PolicyDecision(
        verifier=_verifier(decision.engine, decision.engine_version),
        policies=[_file(name, digest) for name, digest in sorted(decision.policy_digests.items())][
            :MAX_LISTED
        ],
        time_created=format_time(at),
        properties=[
            f"schema:{decision.schema_digest}",
            *([f"{RECORD}{sha256(decision.record).hex()}"] if decision.record else []),
        ],
        verdict=decision.verdict,
        layers=[_layer(each) for each in decision.layer_verdicts],
        errors=[error[:MAX_ERROR_TEXT] for error in decision.errors][:MAX_LISTED],
        input_commitment=input_commitment,
    )


def refusal_block(
    layers: Layers, rules: Sequence[str], *, input_commitment: str, at: datetime
) -> PolicyDecision:
    """The decision behind a refusal: the sets that were asked, and the binding rules as its reasons.

    `rules`: a minimal set that together excludes every candidate. Otherwise as `policy_block`.
    """
    return PolicyDecision(
        verifier=_verifier(ENGINE, engine_version()),
        policies=[_file(name, digest) for name, digest in sorted(layers.digests.items())][:MAX_LISTED],
        time_created=format_time(at),
        properties=[f"schema:{schema_digest()}", *(f"rule:{rule}" for rule in rules)][:MAX_LISTED],
        verdict="deny",
        layers=[],
        input_commitment=input_commitment,
    )


# The same few sets decide request after request: each of these values is made and validated once.


@lru_cache(MAX_REMEMBERED)
def _verifier(engine: str, version: str) -> Verifier:
    return Verifier(id=f"{VERIFIER}/{engine}@{version}")


@lru_cache(MAX_REMEMBERED)
def _file(name: str, digest: str) -> PolicyFile:
    return PolicyFile(name=name, sha256=digest)


@lru_cache(MAX_REMEMBERED)
def _layer(said: LayerVerdict) -> Layer:
    return Layer(
        layer=cast(object, said.layer),  # type: ignore[arg-type]
        digest=said.digest,
        verdict=said.verdict,
        rules=list(said.rules)[:MAX_LISTED],
    )


def by_offer(provider: str, policy_digest: str) -> LayerVerdict:
    """The provider's own verdict: its signed offer is an allow, or it would have refused."""
    return LayerVerdict("provider", provider, policy_digest, "allow", (OFFERED,))


def registry_digest(adverts: Iterable[tuple[str, bytes]]) -> bytes:
    """Name of what was on offer: (domain, digest of its advert) of every domain, in order of domain."""
    parts = [part for domain, digest in adverts for part in (domain.encode(), digest)]
    return sha256(length_prefixed(b"comity directory v1", *parts))


def plan_digest(key: str, node: str, model: str | None) -> str:
    """Name of a plan as a Placement states it, hex: which candidate, on which node, with which model."""
    return sha256(jcs({"plan": key, "node": node, "model": model})).hex()
