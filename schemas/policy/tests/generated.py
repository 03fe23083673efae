"""Generated questions: boundary values, empty sets and unknown words included."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from schemas.descriptors.tags import DATA_CLASSES, UNBOUNDED
from schemas.policy.facts import (
    NO_PRICE_BOUND,
    AttestedFacts,
    DomainFacts,
    RequestContext,
    Subject,
    enclosing,
)
from schemas.policy.jurisdictions import premises_of

T = TypeVar("T")

PLACES = ("DE", "DE-HE", "DE-BY", "FR", "NO", "US", "US-CA", "CH", "GB")
ASKED_PLACES = (*PLACES, "EU", "EEA", "Global", "ZZ", premises_of("d0.example"), premises_of("d1.example"))
REGIMES = ("US-CLOUD-Act", "US-FISA-702", "UK-IPA", "CN-NIL")
CERTS = ("ISO27001", "C5", "HDS", "HIPAA-BAA", "SOC2")
BASES = ("adequacy", "SCC", "BCR", "DPF")
PRICES = (0, 1, 99, 100, 101, 10_000)
SECONDS = (0, 1, 299, 300, 301, UNBOUNDED)


def some(draw: random.Random, words: Sequence[T], most: int = 3) -> frozenset[T]:
    return frozenset(draw.sample(words, draw.randint(0, min(most, len(words)))))


def random_request(draw: random.Random) -> RequestContext:
    return RequestContext(
        consumer=draw.choice(("clinic.de", "cloud.fr", "other.example")),
        tenant="t",
        application="a",
        data_class=draw.choice(DATA_CLASSES),
        residency=some(draw, ASKED_PLACES),
        origin=draw.choice(PLACES),
        forbid_regimes=some(draw, (*REGIMES, "unknown-regime"), 2),
        require_certs=some(draw, (*CERTS, "unknown-certificate"), 2),
        min_assurance=draw.randint(0, 4),
        confidential_gpu=draw.random() < 0.2,
        max_retention_s=draw.choice(SECONDS),
        max_attestation_age_s=draw.choice(SECONDS),
        max_carbon=draw.choice((0, 50, 51, UNBOUNDED)),
        max_price=draw.choice((*PRICES, NO_PRICE_BOUND)),
        allow_debug=draw.random() < 0.2,
        simulated_allowed=draw.random() < 0.8,
    )


def random_subject(draw: random.Random) -> Subject:
    domain = f"d{draw.randint(0, 3)}.example"
    places = draw.sample(PLACES, draw.choice((1, 1, 1, 2)))
    return Subject(
        DomainFacts(
            domain=domain,
            profile_digest="0" * 64,
            status=draw.choice(("active",) * 9 + ("suspended",)),
            inside=enclosing(places) | {premises_of(domain)},
            exposed_to=some(draw, REGIMES, 2),
            certs=some(draw, CERTS, 4),
            transfer_basis=some(draw, BASES, 2),
            retention_s=draw.choice(SECONDS),
            carbon=draw.choice((0, 50, 51, UNBOUNDED)),
            jurisdiction_evidence=draw.randint(0, 3),
            evidence=draw.randint(0, 3),
            key_control=draw.choice(("customer", "domain", "third-party", "unknown")),
            support_access=frozenset(),
            seal=0,
        ),
        AttestedFacts(
            assurance=draw.randint(0, 4),
            simulated=draw.random() < 0.3,
            debug_allowed=draw.random() < 0.1,
            confidential_gpu=draw.random() < 0.6,
            engine_in_tee=draw.random() < 0.9,
            binding_mode="none",
            enrolled=draw.random() < 0.9,
            age_s=draw.choice(SECONDS),
        ),
        draw.choice(PRICES),
    )
