"""Deny-lists: what a relying party no longer believes, whatever signs for it (`[[deny]]`).

A published result says that Milan's root secret can be extracted by software; floors do not help
against that. So a product line, a chip, a key, a measurement, a cloud provider or one report can be
denied or down-ranked, each with reason, author, date, and effect from a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from attestation.result import Check, downranked, failed, passed, undecided
from attestation.snp.origin.chain import Chain
from attestation.snp.origin.leaf import LeafClaims
from attestation.snp.products import CHIP_ID_BYTES, PRODUCTS
from attestation.snp.report import Report
from attestation.toml import Table
from schemas.errors import Unreadable
from schemas.primitives import parse_time

NAME: Final = "snp.deny"
_CLAUSE: Final = "relying party's deny-list"
VALUES: Final = {
    "product": ("|".join(PRODUCTS), "one of " + ", ".join(PRODUCTS)),
    "chip": (r"[0-9a-fA-F]{16}|[0-9a-fA-F]{128}", "CHIP_ID, 128 hex digits, or Turin's hwID, 16"),
    "key": (r"[0-9a-fA-F]{64}", "SHA-256 of the leaf's SubjectPublicKeyInfo, 64 hex digits"),
    "measurement": (r"[0-9a-fA-F]{96}", "96 hex digits"),
    "csp": (r"[\x20-\x7e]{1,127}", "CSP_ID as in the VLEK, e.g. CN=cc-us-east-2.amazonaws.com"),
    "report": (r"[0-9a-fA-F]{64}", "REPORT_ID, 64 hex digits"),
}
"""Kind → what a value of it looks like. One that cannot match anything denies nothing, so it is an error."""
CHIP_DIGITS: Final = 2 * CHIP_ID_BYTES


@dataclass(frozen=True, slots=True)
class Denial:
    """One entry of a deny-list."""

    kind: str
    value: str
    effect: str
    """`deny` or `downrank`."""
    effective_from: float
    """POSIX seconds."""
    reason: str
    author: str
    date: str


def read_denials(tables: Sequence[Table]) -> tuple[Denial, ...]:
    """Raises `ConfigurationError`: an entry without reason, author or date helps nobody later."""
    denials: list[Denial] = []
    for table in tables:
        kind = table.text("kind", "|".join(VALUES), write='kind = "product"')
        pattern, meaning = VALUES[kind]
        value = table.text("value", pattern, write=f'value = "<{meaning}>"')
        denials.append(
            Denial(
                kind=kind,
                value=_spelt(kind, value),
                effect=table.text("effect", "deny|downrank", write='effect = "deny" or effect = "downrank"'),
                effective_from=_time(table),
                reason=table.text("reason", r"[^\n]{1,500}", write='reason = "<why>"'),
                author=table.text("author", r"[^\n]{1,200}", write='author = "<who>"'),
                date=table.text("date", r"\d{4}-\d\d-\d\d", write='date = "2026-01-31"', dated=True),
            )
        )
        table.finish()
    return tuple(denials)


def _spelt(kind: str, value: str) -> str:
    """As the evidence's own name is spelt: in lower-case hex, a chip with its zeros."""
    if kind in ("product", "csp"):
        return value
    return value.lower().ljust(CHIP_DIGITS, "0") if kind == "chip" else value.lower()


def _time(table: Table) -> float:
    text = table.text("from", r"\S+", write='from = "2026-01-31T00:00:00Z"', dated=True)
    try:
        return parse_time(text).timestamp()
    except Unreadable as error:
        raise table.error("from", error.text, 'from = "2026-01-31T00:00:00Z"') from None


_NOTHING_DENIED: Final = passed(NAME, "no entries", "not denied", _CLAUSE)


def check_denials(
    report: Report, chain: Chain | None, claims: LeafClaims | None, denials: Sequence[Denial], at: float
) -> list[Check]:
    """One check over all entries in force, the worst effect first."""
    if not denials:
        return [_NOTHING_DENIED]
    names = _names(report, chain, claims)
    lowered: list[Check] = []
    gap: list[Check] = []
    for denial in denials:
        if at < denial.effective_from:
            continue
        code = f"snp.deny.{denial.kind}"
        seen = f"{denial.value[:32]}: {denial.reason} ({denial.author}, {denial.date})"
        if denial.value == names[denial.kind]:
            if denial.effect == "deny":
                return [failed(NAME, code, seen, "not denied", _CLAUSE)]
            lowered.append(downranked(NAME, code, seen, "not denied", _CLAUSE))
        elif names[denial.kind] is None:
            gap = [undecided(NAME, "snp.deny.undecidable", f"{denial.kind} is hidden", "named", _CLAUSE)]
    return [*gap, *lowered] or [passed(NAME, f"{len(denials)} entries", "not denied", _CLAUSE)]


def _names(report: Report, chain: Chain | None, claims: LeafClaims | None) -> dict[str, str | None]:
    """What this evidence is called in each list; None where it hides its name."""
    return {
        "product": chain.product.name if chain else "",
        "chip": report.chip_id.hex() if any(report.chip_id) else None,
        "key": chain.leaf.spki_fingerprint if chain else "",
        "measurement": report.measurement.hex(),
        "csp": (claims.csp_id or "") if claims else "",
        "report": report.report_id.hex(),
    }
