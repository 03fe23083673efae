"""The column prefilter: one typed rule table over numpy columns, for thousands of domains at once.

It says in microseconds who cannot serve a request, and by which rules; Cedar then decides over the
few finalists. A table row speaks for a rule only while that rule's text is the shipped one; rules
that the table does not know are Cedar's alone, and the mask is then a superset filter. A differential
test holds mask and Cedar together. TEE columns hold claims here: they prefilter and decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.policy.facts import RequestContext, Subject
from schemas.policy.jurisdictions import chain, within
from schemas.policy.layers import DEFAULT_DENY, Layers
from schemas.policy.packs import load_pack

Flags: TypeAlias = NDArray[np.bool_]
Numbers: TypeAlias = NDArray[np.int64]
Words: TypeAlias = Mapping[str, Flags]

HEALTH: Final = frozenset({"special-category", "phi"})
BASES: Final = ("adequacy", "SCC", "BCR", "DPF")
COMPELLED: Final = ("US-CLOUD-Act", "US-FISA-702", "CN-NIL")
COMPELLED_ABROAD: Final = ("CN-DSL", "CN-NIL", "RU-SORM")


@dataclass(frozen=True, slots=True)
class Columns:
    """Many domains as arrays of equal length. Built once per directory version."""

    size: int
    active: Flags
    inside: Words
    """Place → which domains lie in it. A place that no domain lies in has no row."""
    exposed_to: Words
    certs: Words
    transfer_basis: Words
    flags: Words
    numbers: Mapping[str, Numbers]

    @classmethod
    def of(cls, subjects: Sequence[Subject]) -> Columns:
        """The columns of these subjects, in their order."""
        domains = [subject.domain for subject in subjects]
        attested = [subject.attested for subject in subjects]
        return cls(
            size=len(subjects),
            active=np.array([domain.status == "active" for domain in domains], bool),
            inside=_words([_around(domain.inside) for domain in domains]),
            exposed_to=_words([domain.exposed_to for domain in domains]),
            certs=_words([domain.certs for domain in domains]),
            transfer_basis=_words([domain.transfer_basis for domain in domains]),
            flags={
                "simulated": np.array([facts.simulated for facts in attested], bool),
                "debug": np.array([facts.debug_allowed for facts in attested], bool),
                "confidential_gpu": np.array([facts.confidential_gpu for facts in attested], bool),
                "engine_in_tee": np.array([facts.engine_in_tee for facts in attested], bool),
            },
            numbers={
                "assurance": _numbers(facts.assurance for facts in attested),
                "age": _numbers(facts.age_s for facts in attested),
                "price": _numbers(subject.price for subject in subjects),
                "carbon": _numbers(domain.carbon for domain in domains),
                "retention": _numbers(domain.retention_s for domain in domains),
                "location": _numbers(subject.jurisdiction_evidence for subject in subjects),
                "evidence": _numbers(domain.evidence for domain in domains),
            },
        )

    def any_of(self, words: Words, wanted: Iterable[str]) -> Flags:
        """Who has at least one of the words. An unknown word matches nobody."""
        result = np.zeros(self.size, bool)
        for word in wanted:
            if (row := words.get(word)) is not None:
                result |= row
        return result

    def all_of(self, words: Words, wanted: Iterable[str]) -> Flags:
        """Who has every one of the words."""
        result = np.ones(self.size, bool)
        for word in wanted:
            result &= words.get(word, np.zeros(self.size, bool))
        return result

    def nobody(self) -> Flags:
        return np.zeros(self.size, bool)


@dataclass(frozen=True, slots=True)
class NumericBound:
    """How a numeric rule reads, for telling what would be achievable."""

    column: str
    asked: str
    """The request's field."""
    unit: str
    better: Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class MaskRule:
    """One row of the table: a rule by its id in a shipped pack, and whom it denies."""

    rule: str
    pack: str
    denies: Callable[[RequestContext, Columns], Flags]
    bound: NumericBound | None = None


@dataclass(frozen=True, slots=True)
class Masked:
    """Whom each rule denies."""

    denials: Mapping[str, Flags]
    size: int

    @property
    def allowed(self) -> Flags:
        result = np.ones(self.size, bool)
        for denied in self.denials.values():
            result &= ~denied
        return result

    def reasons(self, index: int) -> tuple[str, ...]:
        """Rules that deny this one, sorted."""
        return tuple(sorted(rule for rule, denied in self.denials.items() if denied[index]))


@dataclass(frozen=True, slots=True)
class Mask:
    """The table rows that speak for the active layers."""

    rules: tuple[MaskRule, ...]
    exact: bool
    """True when every active rule has a row: then the mask is equivalent to Cedar."""

    @classmethod
    def of(cls, layers: Layers) -> Mask:
        """Pick the rows whose rule is active with the very text that the row was written for."""
        sets = [unit.policies for unit in layers.units]
        active = {(rule, each.rule_digest(rule)) for each in sets for rule in each.rules}
        shipped = load_pack("charter").rule_digest(MEMBERSHIP)
        picked = tuple(
            row for row in table() if (row.rule, load_pack(row.pack).rule_digest(row.rule)) in active
        )
        spoken = {(row.rule, load_pack(row.pack).rule_digest(row.rule)) for row in picked}
        if any(each.permits == {MEMBERSHIP} and each.rule_digest(MEMBERSHIP) == shipped for each in sets):
            picked = (*picked, MaskRule(DEFAULT_DENY, "charter", lambda _, on: ~on.active))
            spoken.add((MEMBERSHIP, shipped))
        return cls(picked, exact=active <= spoken)

    def apply(self, request: RequestContext, on: Columns, price: Numbers | None = None) -> Masked:
        """Whom each rule denies; `price` replaces the price column (micro-units for this request)."""
        if price is not None:
            on = Columns(
                on.size,
                on.active,
                on.inside,
                on.exposed_to,
                on.certs,
                on.transfer_basis,
                on.flags,
                {**on.numbers, "price": price},
            )
        return Masked({row.rule: row.denies(request, on) for row in self.rules}, on.size)


MEMBERSHIP: Final = "MEM-001-active-member"


@lru_cache(maxsize=256)
def mask_of(layers: Layers) -> Mask:
    """`Mask.of`, kept per `Layers` value: reading the rules' digests takes milliseconds."""
    return Mask.of(layers)


@cache
def table() -> tuple[MaskRule, ...]:
    """The typed rule table: every requirement of the charter pack and of the national packs."""
    return (
        MaskRule("RES-001-inside-residency", "charter", lambda q, on: ~on.any_of(on.inside, q.residency)),
        MaskRule(
            "RES-002-no-foreign-compulsion",
            "charter",
            lambda q, on: on.any_of(on.exposed_to, q.forbid_regimes),
        ),
        MaskRule(
            "DAT-001-special-category-stays-home",
            "charter",
            _when(
                lambda q: q.data_class == "special-category", lambda q, on: ~on.any_of(on.inside, [q.origin])
            ),
        ),
        MaskRule(
            "DAT-002-transfer-needs-basis",
            "charter",
            _when(
                lambda q: q.data_class in ("personal", "phi") and within(q.origin, "EEA"),
                lambda _, on: ~on.any_of(on.inside, ["EEA"]) & ~on.any_of(on.transfer_basis, BASES),
            ),
        ),
        MaskRule("CRT-001-certificates", "charter", lambda q, on: ~on.all_of(on.certs, q.require_certs)),
        MaskRule(
            "CRT-002-phi-needs-baa",
            "charter",
            _when(lambda q: q.data_class == "phi", lambda _, on: ~on.any_of(on.certs, ["HIPAA-BAA"])),
        ),
        _at_least("TEE-001-assurance-floor", "assurance", "min_assurance", "level"),
        MaskRule(
            "TEE-002-confidential-gpu",
            "charter",
            _when(lambda q: q.confidential_gpu, lambda _, on: ~on.flags["confidential_gpu"]),
        ),
        MaskRule(
            "TEE-003-debug-off",
            "charter",
            _when(lambda q: not q.allow_debug, lambda _, on: on.flags["debug"]),
        ),
        _at_most("TEE-004-fresh-attestation", "age", "max_attestation_age_s", "s"),
        MaskRule(
            "TEE-005-simulated-root-unlisted",
            "charter",
            _when(lambda q: not q.simulated_allowed, lambda _, on: on.flags["simulated"]),
        ),
        _not_public("TEE-006-engine-outside-tee", lambda on: ~on.flags["engine_in_tee"]),
        _not_public("TEE-007-not-attested", lambda on: on.numbers["assurance"] < 1),
        _not_public("EVD-001-jurisdiction-needs-credential", lambda on: on.numbers["location"] < 2),
        _not_public("EVD-002-self-declared-serves-public-only", lambda on: on.numbers["evidence"] < 1),
        _at_most("OPS-001-within-price", "price", "max_price", "micro-units"),
        _at_most("OPS-002-within-carbon", "carbon", "max_carbon", "g/kWh"),
        _at_most("OPS-003-within-retention", "retention", "max_retention_s", "s"),
        MaskRule(
            "NDE-001-health-data-stays-in-germany",
            "national-de",
            _when(_health_of("DE"), lambda _, on: ~on.any_of(on.inside, ["DE"])),
        ),
        MaskRule(
            "NDE-002-compelled-operator-needs-basis",
            "national-de",
            _when(
                lambda q: q.data_class == "personal" and within(q.origin, "DE"),
                lambda _, on: on.any_of(on.exposed_to, COMPELLED) & ~on.any_of(on.transfer_basis, BASES),
            ),
        ),
        MaskRule(
            "NFR-001-health-data-needs-hds",
            "national-fr",
            _when(_health_of("FR"), lambda _, on: ~on.any_of(on.certs, ["HDS"])),
        ),
        MaskRule(
            "NFR-002-health-data-stays-in-eea",
            "national-fr",
            _when(_health_of("FR"), lambda _, on: ~on.any_of(on.inside, ["EEA"])),
        ),
        MaskRule(
            "NUS-001-phi-needs-business-associate",
            "national-us",
            _when(_phi_of_us, lambda _, on: ~on.any_of(on.certs, ["HIPAA-BAA"])),
        ),
        MaskRule(
            "NUS-002-phi-free-of-foreign-compulsion",
            "national-us",
            _when(_phi_of_us, lambda _, on: on.any_of(on.exposed_to, COMPELLED_ABROAD)),
        ),
    )


def _when(
    applies: Callable[[RequestContext], bool], denies: Callable[[RequestContext, Columns], Flags]
) -> Callable[[RequestContext, Columns], Flags]:
    return lambda q, on: denies(q, on) if applies(q) else on.nobody()


def _not_public(rule: str, denies: Callable[[Columns], Flags]) -> MaskRule:
    return MaskRule(rule, "charter", _when(lambda q: q.data_class != "public", lambda _, on: denies(on)))


def _at_most(rule: str, column: str, asked: str, unit: str) -> MaskRule:
    return MaskRule(
        rule,
        "charter",
        lambda q, on: on.numbers[column] > getattr(q, asked),
        NumericBound(column, asked, unit, "lower"),
    )


def _at_least(rule: str, column: str, asked: str, unit: str) -> MaskRule:
    return MaskRule(
        rule,
        "charter",
        lambda q, on: on.numbers[column] < getattr(q, asked),
        NumericBound(column, asked, unit, "higher"),
    )


def _health_of(country: str) -> Callable[[RequestContext], bool]:
    return lambda q: q.data_class in HEALTH and within(q.origin, country)


def _phi_of_us(q: RequestContext) -> bool:
    return q.data_class == "phi" and within(q.origin, "US")


def _around(inside: Iterable[str]) -> frozenset[str]:
    return frozenset(place for code in inside for place in chain(code))


def _words(listed: Sequence[frozenset[str]]) -> dict[str, Flags]:
    rows: dict[str, Flags] = {}
    for index, words in enumerate(listed):
        for word in words:
            rows.setdefault(word, np.zeros(len(listed), bool))[index] = True
    return rows


def _numbers(values: Iterable[int]) -> Numbers:
    return np.fromiter(values, np.int64)
