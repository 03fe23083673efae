"""The outcome of a verification: every claim of every receipt, and the exit code that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from receipts.counted import counted
from receipts.verify.claim import CLAIMS, Claim, complete, worst
from receipts.verify.trust_file import Profile
from schemas.canonical import Json
from schemas.papers.charter import Charter
from schemas.papers.manifest import DomainManifest
from schemas.primitives import format_time


@dataclass(frozen=True, slots=True)
class ReceiptReport:
    """One receipt and all claims about it."""

    kind: str
    digest: bytes
    receipt_id: str | None
    """None when nothing that it says can be believed."""
    issuer: str | None
    claims: tuple[Claim, ...]

    def as_json(self) -> dict[str, Json]:
        return {
            "kind": self.kind,
            "digest": self.digest.hex(),
            "receiptId": self.receipt_id,
            "issuer": self.issuer,
            "claims": [claim.as_json() for claim in self.claims],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What was verified, against which trust, at which time."""

    at: datetime
    federation: str
    pin: str
    """What was pinned, in words."""
    charter: Charter | None = field(repr=False)
    """None when root keys were pinned."""
    manifests: tuple[DomainManifest, ...] = field(repr=False)
    """Each that was used."""
    profile: Profile
    waived: tuple[str, ...]
    receipts: tuple[ReceiptReport, ...]
    witnesses: tuple[int, int] = (0, 0)
    """(k, n): operators whose witnesses signed, out of those that could; the worst receipt counts."""

    @property
    def papers(self) -> tuple[str, ...]:
        """Charter and manifests in words: how old, and until when they hold (receipts.md 6)."""
        ends = [f"{each.domain} v{each.version} until {_day(each.expires)}" for each in self.manifests]
        if self.charter is None:
            return tuple(ends)
        begin, end = _day(self.charter.issued), _day(self.charter.expires)
        age = counted(self._age_days(self.charter), "day")
        return (f"charter of {begin}, {age} old until {end}", *ends)

    def _age_days(self, charter: Charter) -> int:
        return int(self.at.timestamp() - charter.issued) // 86_400

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Each claim once: the worst over all receipts that make it."""
        return tuple(
            worst(claim for receipt in self.receipts for claim in receipt.claims if claim.name == name)
            for name in CLAIMS
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Claims that the profile requires, that apply, and that are not proved."""
        return tuple(
            claim.name
            for claim in self.claims
            if claim.name in self.profile.requires and claim.applies and claim.verdict != "proved"
        )

    @property
    def exit_code(self) -> int:
        """0 all required claims proved and none failed; 1 one failed; 3 otherwise (DESIGN 7)."""
        if any(claim.verdict == "failed" for receipt in self.receipts for claim in receipt.claims):
            return 1
        return 3 if self.missing else 0

    @property
    def status(self) -> str:
        """The honest one-liner."""
        signed, of = self.witnesses
        return f"anchor: none, witnesses: {signed}/{of}"

    def as_json(self) -> dict[str, Json]:
        return {
            "exit": self.exit_code,
            "at": format_time(self.at),
            "federation": self.federation,
            "pin": self.pin,
            "charter": self._charter_json(),
            "manifests": [
                {"expires": _moment(each.expires), "domain": each.domain, "version": each.version}
                for each in self.manifests
            ],
            "profile": self.profile.name,
            "requires": [name for name in CLAIMS if name in self.profile.requires],
            "missing": list(self.missing),
            "waived": list(self.waived),
            "status": self.status,
            "claims": [claim.as_json() for claim in self.claims],
            "receipts": [receipt.as_json() for receipt in self.receipts],
        }

    def _charter_json(self) -> Json:
        """A manifest does not say how old it is; a charter does."""
        if self.charter is None:
            return None
        begin, end = _moment(self.charter.issued), _moment(self.charter.expires)
        return {"expires": end, "issued": begin, "ageDays": self._age_days(self.charter)}


def _day(seconds: int) -> str:
    return _moment(seconds)[:10]


def _moment(seconds: int) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))


def receipt_report(
    kind: str, digest: bytes, receipt_id: str | None, issuer: str | None, claims: Sequence[Claim]
) -> ReceiptReport:
    """With every claim in its place: one that nobody judged is not checked, and says why."""
    why = "the receipt is not authentic, so nothing it says was looked at"
    return ReceiptReport(kind, digest, receipt_id, issuer, complete(claims, why))
