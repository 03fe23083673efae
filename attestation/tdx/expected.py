"""What a relying party asks of a trust domain or an enclave (`[tdx]` and `[sgx]` of expected.toml).

Identities, masks and the TCB floor have no default: they are stated, or waived with "any". Without a
file only `DEFAULT` is judged: the TCB status, and that debug is off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from attestation.tdx.collateral.evaluations import CHANNELS, Channel
from attestation.tdx.collateral.shapes import STATUSES
from attestation.tdx.log.events import REGISTERS
from attestation.tdx.origin.chain import INTEL_ROOT, INTEL_ROOTS, Roots
from attestation.tdx.platforms import NO_RULES, PlatformRules, read_rules
from attestation.tdx.tcb.grace import Grace, read_grace
from attestation.tdx.tcb.levels import RELAUNCH_STATUSES
from attestation.toml import ANY, Table
from schemas.errors import Unreadable
from schemas.primitives import parse_time
from schemas.toml import is_integer

Digests = frozenset[bytes] | None

TDX_IDENTITIES: Final = {
    "mrtd": 48, "rtmr0": 48, "rtmr1": 48, "rtmr2": 48, "rtmr3": 48, "mrconfigid": 48, "mrowner": 48,
    "mrownerconfig": 48, "mrseam": 48, "mrsignerseam": 48, "report_data": 64,
}  # fmt: skip
SGX_IDENTITIES: Final = {"mrenclave": 32, "mrsigner": 32, "report_data": 64}
TDX_MASKS: Final = {"td_attributes": 8, "xfam": 8}
SGX_MASKS: Final = {"attributes": 16}
MAX_EVALUATION: Final = 2**31
MAX_AGE_DAYS: Final = 366
PROFILES: Final = ("guest", "azure-paravisor", "service-td")
"""What kind of trust domain is meant.

guest: measures itself, SEPT_VE_DISABLE is set, no service TD is bound.
azure-paravisor: MRTD is the paravisor's, a vTPM measures the guest above it, and SEPT_VE_DISABLE may be
clear. service-td: a service TD may be bound, and `mrservicetd` says which.
"""
_PCR_KEYS: Final = frozenset(map(str, range(24)))
ACCEPTABLE: Final = frozenset(STATUSES) - {"Revoked"} | frozenset(RELAUNCH_STATUSES)
"""No switch accepts Revoked."""


@dataclass(frozen=True, slots=True)
class Mask:
    """Bits that must be set and bits that must not, as the report spells them."""

    required: bytes
    forbidden: bytes


@dataclass(frozen=True, slots=True, eq=False)
class QuotePolicy:
    """Everything that is asked of one kind of quote. None = waived. Compared by identity."""

    identities: Mapping[str, Digests] = field(default_factory=dict)
    masks: Mapping[str, Mask | None] = field(default_factory=dict)
    isvprodid: frozenset[int] | None = None
    isvsvn_min: int | None = None
    """The last two are SGX's."""
    profile: str = "guest"
    """One of `PROFILES`; TDX's."""
    mrservicetd: Digests = frozenset({bytes(48)})
    debug: str = "refuse"
    statuses: frozenset[str] = frozenset({"UpToDate", "SWHardeningNeeded"})
    grace: tuple[Grace, ...] = ()
    advisories_denied: frozenset[str] = frozenset()
    advisories_tolerated: frozenset[str] | None = None
    """The only ones that may stand against a platform; None = any."""
    date_min: float | None = None
    """POSIX seconds that the TCB date must not precede."""
    evaluation_min: int = 0
    evaluation_difference: int | None = None
    """The most by which TCB info and QE identity may differ; None = a difference is shown, not judged."""
    channel: Channel | None = None
    """Whose evaluation the TCB info must reach, by Intel's list; None = the list is shown, not demanded."""
    collateral_max_age: int | None = None
    """Days since TCB info and QE identity were issued, where less than Intel's own 30 is wanted."""
    platforms: PlatformRules = NO_RULES
    pcrs: Mapping[int, Digests] = field(default_factory=dict)
    """PCRs that the vTPM of a paravisor must cover, with their allowed values; None = any value."""
    event_log: frozenset[str] | None = None
    """Registers that an event log must explain; None = those that an offered log speaks of."""
    revocation: str = "required"
    roots: Roots = INTEL_ROOTS


DEFAULT: Final = QuotePolicy()
"""What holds where nobody stated anything (DESIGN 7)."""


def read_tdx(table: Table) -> QuotePolicy:
    """`[tdx]`. Raises `ConfigurationError`."""
    policy = QuotePolicy(
        identities={name: table.digests(name, size) for name, size in TDX_IDENTITIES.items()},
        masks={name: _mask(table, name, size) for name, size in TDX_MASKS.items()},
        profile=table.choice("profile", PROFILES, DEFAULT.profile),
        mrservicetd=_service_td(table),
        pcrs=_pcrs(table),
        event_log=_event_log(table),
        **_common(table),
    )
    table.finish()
    return policy


def read_sgx(table: Table) -> QuotePolicy:
    """`[sgx]`. Raises `ConfigurationError`."""
    policy = QuotePolicy(
        identities={name: table.digests(name, size) for name, size in SGX_IDENTITIES.items()},
        masks={name: _mask(table, name, size) for name, size in SGX_MASKS.items()},
        isvprodid=table.integers("isvprodid", 0, 65535),
        isvsvn_min=table.integer("isvsvn_min", 0, 65535),
        **_common(table),
    )
    table.finish()
    return policy


def _common(table: Table) -> dict[str, Any]:
    """What is asked of both kinds alike."""
    difference = table.take("evaluation_difference", ANY, write="evaluation_difference = 1")
    if difference != ANY and not is_integer(difference, 0, MAX_EVALUATION):
        raise table.error("evaluation_difference", "is no number", "evaluation_difference = 1")
    statuses = table.names("tcb_status", ACCEPTABLE, sorted(DEFAULT.statuses))
    advisories = table.texts("advisories_denied", [], write='advisories_denied = ["INTEL-SA-00837"]')
    age = table.take("collateral_max_age_days", None, write="collateral_max_age_days = 7")
    if age is not None and not is_integer(age, 1, MAX_AGE_DAYS):
        raise table.error("collateral_max_age_days", "is no number of days", "collateral_max_age_days = 7")
    return {
        "debug": table.choice("debug", ("refuse", ANY), "refuse"),
        "statuses": ACCEPTABLE if statuses is None else statuses,
        "grace": read_grace(table.children("grace")),
        "advisories_denied": frozenset() if advisories is None else advisories,
        "advisories_tolerated": _tolerated(table),
        "channel": _channel(table),
        "collateral_max_age": age,
        "platforms": read_rules(table),
        "date_min": _date(table),
        "evaluation_min": table.integer("evaluation_min", 0, MAX_EVALUATION, 0) or 0,
        "evaluation_difference": None if difference == ANY else difference,
        "revocation": table.choice("revocation", ("required", ANY), "required"),
        "roots": _roots(table),
    }


def _channel(table: Table) -> Channel | None:
    if not table.states("evaluation_channel"):
        return None
    chosen = table.choice("evaluation_channel", CHANNELS, "")
    return next(each for each in CHANNELS if each == chosen)


def _tolerated(table: Table) -> frozenset[str] | None:
    if not table.states("advisories_tolerated"):
        return None
    return table.texts("advisories_tolerated", write='advisories_tolerated = ["INTEL-SA-00837"]')


def _date(table: Table) -> float | None:
    write = 'tcb_date_min = "2025-05-14T00:00:00Z"'
    value = table.demand("tcb_date_min", write=write)
    if table.is_any("tcb_date_min", value):
        return None
    try:
        return parse_time(str(value)).timestamp()
    except Unreadable as error:
        raise table.error("tcb_date_min", error.text, write) from None


def _mask(table: Table, key: str, size: int) -> Mask | None:
    """`{ required = "<hex>", forbidden = "<hex>" }`, the bytes in the order of the report."""
    zero = "00" * size
    write = f'{key} = {{ required = "{zero}", forbidden = "{zero}" }}'
    value = table.take(key, write=write)
    if table.is_any(key, value):
        return None
    if not isinstance(value, dict) or sorted(value) != ["forbidden", "required"]:
        raise table.error(key, "does not state required and forbidden", write)
    if not all(isinstance(v, str) and re.fullmatch(rf"[0-9a-fA-F]{{{2 * size}}}", v) for v in value.values()):
        raise table.error(key, f"holds something other than {2 * size} hex digits", write)
    mask = Mask(bytes.fromhex(value["required"]), bytes.fromhex(value["forbidden"]))
    if any(a & b for a, b in zip(mask.required, mask.forbidden, strict=True)):
        raise table.error(key, "requires and forbids the same bit", write)
    return mask


def _service_td(table: Table) -> Digests:
    """No service TD, unless the profile says so and the list says which."""
    if table.values.get("profile") == "service-td":
        return table.digests("mrservicetd", 48)
    if table.states("mrservicetd"):
        raise table.error("mrservicetd", "needs its profile", 'profile = "service-td" beside it')
    return DEFAULT.mrservicetd


def _pcrs(table: Table) -> dict[int, Digests]:
    """Only a paravisor's guest has a vTPM that the quote vouches for."""
    inside = table.child("pcrs")
    if inside.values and table.values.get("profile") != "azure-paravisor":
        raise table.error("pcrs", "needs its profile", 'profile = "azure-paravisor" beside it')
    unknown = inside.values.keys() - _PCR_KEYS
    if unknown:
        raise inside.error(min(unknown), "is no PCR", '0 to 23 as a key, e.g. 7 = ["<64 hex digits>"]')
    return {int(key): inside.digests(key, 32) for key in inside.values}


def _event_log(table: Table) -> frozenset[str] | None:
    """ "any" demands nothing of an offered log; an empty list likewise."""
    if not table.states("event_log"):
        return None
    return table.names("event_log", REGISTERS) or frozenset()


def _roots(table: Table) -> Roots:
    """Intel's, and made-up ones that are listed by name and digest (DESIGN 15)."""
    simulated: list[tuple[str, str]] = []
    for each in table.children("simulated_root"):
        name = each.text("name", r"[\x21-\x7e]{1,64}", write='name = "demo"')
        write = 'sha256 = "<SHA-256 of the root\'s DER, 64 hex digits>"'
        digest = each.text("sha256", r"[0-9a-f]{64}", write=write)
        each.finish()
        if digest == INTEL_ROOT:
            raise each.error("sha256", "is Intel's root", "the digest of the simulated root")
        simulated.append((name, digest))
    return Roots.intel(simulated) if simulated else INTEL_ROOTS
