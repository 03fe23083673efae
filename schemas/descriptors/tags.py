"""Policy tags: what must hold for a request's data, and how a floor and a request combine.

Tags can be added downstream and never removed: of two statements the stricter counts, whoever made
it. What nobody states gets the most restrictive value of its data class; a missing data class is
the strictest one. To be free of a bound you write it: `Global` for residency.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field

from schemas.canonical import Wire
from schemas.descriptors.profile import MAX_LISTED, CertificationScheme, Place, Regime, Residency
from schemas.policy.jurisdictions import GLOBAL, PREMISES, chain, common, country, within

DataClass = Literal["public", "internal", "personal", "phi", "special-category"]
DATA_CLASSES: Final[tuple[DataClass, ...]] = ("public", "internal", "personal", "phi", "special-category")
"""From the freest to the strictest (A3.2)."""

UNBOUNDED: Final = 2**31 - 1
"""The value of a bound that binds nothing: seconds, g/kWh."""
MAX_ATTESTATION_AGE_S: Final = 300  # seconds; the default of session.md 2 for all but public data
ANY_ASSURANCE: Final = 0
SOME_TEE: Final = 1

Bound = Annotated[int, Field(ge=0, le=UNBOUNDED)]


class PolicyTags(Wire):
    """Constraints on where and how data may be processed. `None` means: not stated."""

    data_class: DataClass | None = None
    residency: Annotated[list[Residency], Field(max_length=MAX_LISTED)] | None = None
    """The data may only be processed inside one of these. An empty list admits no place."""
    origin: Place | None = None
    """Whose law the data stands under."""
    forbid_regimes: Annotated[list[Regime], Field(max_length=MAX_LISTED)] | None = None
    require_certs: Annotated[list[CertificationScheme], Field(max_length=MAX_LISTED)] | None = None
    min_assurance: Annotated[int, Field(ge=0, le=4)] | None = None
    """0 none, 1 simulated TEE, 2 TEE with a warning, 3 TEE affirmed, 4 with CPU and GPU bound."""
    confidential_gpu: bool | None = None
    max_retention_s: Bound | None = None
    max_attestation_age_s: Bound | None = None
    max_carbon_g_kwh: Bound | None = None
    allow_degraded: bool | None = None
    """Whether a smaller variant or shorter context may stand in; the answer says so."""


class TagFloor(PolicyTags):
    """What a tenant's key imposes on each of its requests."""

    allow_debug: bool = False
    """Debuggable enclaves: a tenant's decision alone, never a request's."""


@dataclass(frozen=True, slots=True)
class Home:
    """The domain at whose border a request comes in."""

    domain: str
    jurisdictions: tuple[str, ...]

    @property
    def country(self) -> str:
        """The origin of data that names none."""
        return country(self.jurisdictions[0])


@dataclass(frozen=True, slots=True)
class Effective:
    """The tags that count for a request, every field filled."""

    tags: PolicyTags
    digest: bytes
    """SHA-256 of the tags' canonical form (32 bytes): what Execute headers and calls bind to."""
    overridden: tuple[str, ...]
    """Fields where the request stated something looser and the floor won."""


def effective(floor: PolicyTags | None, request: PolicyTags, home: Home) -> Effective:
    """Combine a tenant's floor with a request's tags and fill what nobody stated. Never raises."""
    narrowed, overridden = narrow(floor or PolicyTags(), request, home)
    tags = complete(narrowed, home)
    return Effective(tags, tags.value_digest(), overridden)


def effective_digest(tags: PolicyTags) -> bytes:
    """SHA-256 of the tags' canonical form (32 bytes)."""
    return tags.value_digest()


def narrow(floor: PolicyTags, request: PolicyTags, home: Home) -> tuple[PolicyTags, tuple[str, ...]]:
    """The stricter of both, field by field, and the fields in which the request asked for less."""
    values: dict[str, Any] = {}
    for name, stricter in _STRICTER.items():
        ours, theirs = getattr(floor, name), getattr(request, name)
        values[name] = theirs if ours is None else ours if theirs is None else stricter(ours, theirs)
    values["residency"] = _meet(floor.residency, request.residency, home)
    values["origin"] = request.origin or floor.origin
    if floor.origin and request.origin and not within(request.origin, floor.origin):
        values["origin"] = floor.origin
        if not within(floor.origin, request.origin):
            # Two laws claim the data: it stays under the floor's, and inside what the request named.
            values["residency"] = _meet(values["residency"], [request.origin], home)
    lost = tuple(name for name, value in values.items() if _loosened(name, getattr(request, name), value))
    return PolicyTags(**values), lost


def complete(tags: PolicyTags, home: Home) -> PolicyTags:
    """Fill what is not stated with the most restrictive value that the data class calls for.

    `public` data has no bound unless one is stated; all other data stays in the country of its
    origin, in a TEE that was attested lately, and is not kept.
    """
    data_class = tags.data_class or DATA_CLASSES[-1]
    origin = tags.origin or home.country
    public = data_class == "public"
    defaults: dict[str, Any] = {
        "data_class": data_class,
        "residency": [GLOBAL] if public else [origin],
        "origin": origin,
        "forbid_regimes": [],
        "require_certs": [],
        "min_assurance": ANY_ASSURANCE if public else SOME_TEE,
        "confidential_gpu": False,
        "max_retention_s": UNBOUNDED if public else 0,
        "max_attestation_age_s": UNBOUNDED if public else MAX_ATTESTATION_AGE_S,
        "max_carbon_g_kwh": UNBOUNDED,
        "allow_degraded": False,
    }
    stated = {name: value for name in defaults if (value := getattr(tags, name)) is not None}
    values = defaults | stated
    for name in ("residency", "forbid_regimes", "require_certs"):
        values[name] = sorted(set(values[name]))
    return PolicyTags(**values)


_Stricter: TypeAlias = Callable[[Any, Any], Any]


def _class(ours: DataClass, theirs: DataClass) -> DataClass:
    return max(ours, theirs, key=DATA_CLASSES.index)


def _both(ours: list[str], theirs: list[str]) -> list[str]:
    return sorted({*ours, *theirs})


_STRICTER: Final[Mapping[str, _Stricter]] = {
    "data_class": _class,
    "forbid_regimes": _both,
    "require_certs": _both,
    "min_assurance": max,
    "confidential_gpu": max,
    "max_retention_s": min,
    "max_attestation_age_s": min,
    "max_carbon_g_kwh": min,
    "allow_degraded": min,
}


def _meet(ours: list[str] | None, theirs: list[str] | None, home: Home) -> list[str] | None:
    """The places that both allow; `premises` lies where its domain stands."""
    if ours is None or theirs is None:
        return theirs if ours is None else ours
    shared = common(
        [code for code in ours if code != PREMISES], [code for code in theirs if code != PREMISES]
    )
    if (PREMISES in ours and _covers(theirs, home)) or (PREMISES in theirs and _covers(ours, home)):
        shared |= {PREMISES}
    return sorted(shared)


def _covers(codes: list[str], home: Home) -> bool:
    """Whether the home domain's own ground lies in the places, wherever it has machines."""
    return PREMISES in codes or all(not set(codes).isdisjoint(chain(code)) for code in home.jurisdictions)


def _loosened(name: str, asked: Any, result: Any) -> bool:
    if asked is None or name in ("forbid_regimes", "require_certs"):
        return False
    if name == "residency":
        return set(asked) != set(result)
    return bool(asked != result)
