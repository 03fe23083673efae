"""What a relying party asks of a trust domain or an enclave (`[tdx]` and `[sgx]` of expected.toml).

Identities, masks and the TCB floor have no default: they are stated, or waived with "any". Without a
file only `DEFAULT` is judged: the TCB status, and that debug is off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from attestation.tdx.chain import INTEL_ROOT, INTEL_ROOTS, Roots
from attestation.tdx.collateral import STATUSES
from attestation.tdx.tcb import RELAUNCH_STATUSES
from attestation.toml import ANY, Table, is_integer
from schemas.errors import Unreadable
from schemas.primitives import parse_time

Digests = frozenset[bytes] | None

TDX_IDENTITIES: Final = {
    "mrtd": 48, "rtmr0": 48, "rtmr1": 48, "rtmr2": 48, "rtmr3": 48, "mrconfigid": 48, "mrowner": 48,
    "mrownerconfig": 48, "mrseam": 48, "mrsignerseam": 48, "report_data": 64,
}  # fmt: skip
SGX_IDENTITIES: Final = {"mrenclave": 32, "mrsigner": 32, "report_data": 64}
TDX_MASKS: Final = {"td_attributes": 8, "xfam": 8}
SGX_MASKS: Final = {"attributes": 16}
REGISTERS: Final = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")
MAX_EVALUATION: Final = 2**31
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
    mrservicetd: Digests = frozenset({bytes(48)})
    debug: str = "refuse"
    statuses: frozenset[str] = frozenset({"UpToDate", "SWHardeningNeeded"})
    advisories_denied: frozenset[str] = frozenset()
    date_min: float | None = None
    """POSIX seconds that the TCB date must not precede."""
    evaluation_min: int = 0
    evaluation_difference: int | None = None
    """The most by which TCB info and QE identity may differ; None = a difference is shown, not judged."""
    event_log: frozenset[str] = frozenset()
    """Registers that an event log must explain."""
    revocation: str = "required"
    roots: Roots = INTEL_ROOTS


DEFAULT: Final = QuotePolicy()
"""What holds where nobody stated anything (DESIGN 7)."""


def read_tdx(table: Table) -> QuotePolicy:
    """`[tdx]`. Raises `ConfigurationError`."""
    policy = QuotePolicy(
        identities={name: table.digests(name, size) for name, size in TDX_IDENTITIES.items()},
        masks={name: _mask(table, name, size) for name, size in TDX_MASKS.items()},
        mrservicetd=_service_td(table),
        event_log=table.names("event_log", REGISTERS, []) or frozenset(),
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
    return {
        "debug": table.choice("debug", ("refuse", ANY), "refuse"),
        "statuses": ACCEPTABLE if statuses is None else statuses,
        "advisories_denied": frozenset() if advisories is None else advisories,
        "date_min": _date(table),
        "evaluation_min": table.integer("evaluation_min", 0, MAX_EVALUATION, 0) or 0,
        "evaluation_difference": None if difference == ANY else difference,
        "revocation": table.choice("revocation", ("required", ANY), "required"),
        "roots": _roots(table),
    }


def _date(table: Table) -> float | None:
    write = 'tcb_date_min = "2025-05-14T00:00:00Z"'
    value = table.take("tcb_date_min", write=write)
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
    """No service TD unless it is listed."""
    if "mrservicetd" not in table.values:
        table.taken.add("mrservicetd")
        return DEFAULT.mrservicetd
    return table.digests("mrservicetd", 48)


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
