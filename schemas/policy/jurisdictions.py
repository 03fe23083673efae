"""Places, legal regimes and certificates: the words that policies may use, and how places nest.

A place is an ISO 3166-1 alpha-2 country, an ISO 3166-2 subdivision of one (`DE-HE`), a group
(`EU`, `EEA`), `Global`, or `premises`. They nest: DE-HE → DE → EU → EEA → Global. `premises` is the
requesting domain's own ground and resolves to a place that only this domain stands in.

Anything outside the vocabulary is refused by name: a misspelt regime must never read as "none".
Legal wording behind the names has to be checked against the official journals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from schemas.errors import Unreadable


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


GLOBAL: Final = "Global"
PREMISES: Final = "premises"

COUNTRIES: Final = _set(
    """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS
    BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE
    EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM
    HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC
    LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA
    NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW
    SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO
    TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
    """
)
"""ISO 3166-1 alpha-2, officially assigned: 249 codes."""

EU: Final = _set("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK")
"""Member states of the European Union: 27."""

EEA_ONLY: Final = frozenset({"IS", "LI", "NO"})
"""In the European Economic Area without being in the Union."""

GROUPS: Final = frozenset({"EU", "EEA", GLOBAL})

GERMAN_STATES: Final = _set("BB BE BW BY HB HE HH MV NI NW RP SH SL SN ST TH")
ELSEWHERE: Final = {
    **{f"FR-{code}": code for code in ("BL", "NC", "PF", "PM", "TF", "WF")},
    **{f"NL-{code}": code for code in ("AW", "CW", "SX")},
    **{f"NL-BQ{number}": "BQ" for number in (1, 2, 3)},
    "NO-21": "SJ",
}
"""Subdivisions that share neither Union nor Economic Area with their country (TFEU 355(2), Council Decision
2010/718/EU, EEA Agreement protocol 40), and the code that says where they stand."""
_SUBDIVISION: Final = re.compile(r"^([A-Z]{2})-[A-Z0-9]{1,3}\Z")

REGIMES: Final = _set(
    "US-CLOUD-Act US-FISA-702 US-EO-12333 UK-IPA CN-DSL CN-NIL RU-SORM IN-IT-Act-69 AU-TOLA CA-CSIS"
)
"""Legal regimes that can compel an operator to hand out data."""

CERTIFICATIONS: Final = _set(
    """
    ISO27001 ISO27017 ISO27018 ISO27701 ISO42001 C5 SecNumCloud HDS SOC2 FedRAMP-Moderate FedRAMP-High
    HIPAA-BAA HITRUST EUCS-Basic EUCS-Substantial EUCS-High BSI-Grundschutz ENS-High NEN7510 PCI-DSS
    TISAX IRAP Cyber-Essentials-Plus
    """
)

TRANSFER_BASES: Final = frozenset({"adequacy", "SCC", "BCR", "DPF"})
"""GDPR chapter V: adequacy decision, standard clauses, binding corporate rules, EU–US framework."""


def check_place(code: str) -> str:
    """The code, when it is a place we know (`premises` is not one: see `resolve`). Raises `Unreadable`."""
    if code in COUNTRIES or code in GROUPS:
        return code
    if code in ELSEWHERE:
        text = f"{code} lies outside the EU and the EEA, unlike its country: write {ELSEWHERE[code]}"
        raise Unreadable("policy.jurisdiction_unknown", text)
    match = _SUBDIVISION.match(code)
    if match and match[1] in COUNTRIES and (match[1] != "DE" or code[3:] in GERMAN_STATES):
        return code
    raise Unreadable("policy.jurisdiction_unknown", f"{code!r} is no ISO 3166 code or group known here")


def check_residency(code: str) -> str:
    """As `check_place`, and `premises`."""
    return code if code == PREMISES else check_place(code)


def check_regime(name: str) -> str:
    """Raises `Unreadable` for a regime outside the vocabulary."""
    return _known(name, REGIMES, "policy.regime_unknown", "legal regime")


def check_certification(name: str) -> str:
    """Raises `Unreadable` for a certificate outside the vocabulary."""
    return _known(name, CERTIFICATIONS, "policy.certification_unknown", "certification")


def check_transfer_basis(name: str) -> str:
    """Raises `Unreadable` for a transfer basis outside the vocabulary."""
    return _known(name, TRANSFER_BASES, "policy.transfer_basis_unknown", "transfer basis")


def _known(name: str, vocabulary: frozenset[str], code: str, kind: str) -> str:
    if name in vocabulary:
        return name
    raise Unreadable(code, f"{name!r} is no {kind} that Comity knows; one of {', '.join(sorted(vocabulary))}")


def premises_of(domain: str) -> str:
    """The place that only `domain` stands in."""
    return f"{PREMISES}:{domain}"


def parent(code: str) -> str | None:
    """The next larger place, `None` for `Global`. Premises have no place above them but `Global`."""
    if code == GLOBAL:
        return None
    if (match := _SUBDIVISION.match(code)) is not None:
        return match[1]
    if code in EU:
        return "EU"
    return "EEA" if code in EEA_ONLY or code == "EU" else GLOBAL


@lru_cache(maxsize=4096)
def chain(code: str) -> tuple[str, ...]:
    """The place and every larger one around it, smallest first: DE-HE, DE, EU, EEA, Global."""
    above = parent(code)
    return (code,) if above is None else (code, *chain(above))


def within(code: str, larger: str) -> bool:
    """Whether `code` is `larger` or lies in it."""
    return larger in chain(code)


def around(codes: Iterable[str]) -> frozenset[str]:
    """All places that at least one of the codes lies in."""
    return frozenset(place for code in codes for place in chain(code))


def country(code: str) -> str:
    """The country of a subdivision; any other code as it is."""
    match = _SUBDIVISION.match(code)
    return match[1] if match else code


def common(left: Iterable[str], right: Iterable[str]) -> frozenset[str]:
    """The places allowed by both lists: of each overlapping pair the smaller one. May be empty."""
    pairs = [(a, b) for a in left for b in right]
    return frozenset([a for a, b in pairs if within(a, b)] + [b for a, b in pairs if within(b, a)])
