"""The outcome of a verification: every claim of every receipt, and the exit code that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from receipts.verify.claim import CLAIMS, Claim, complete, worst
from receipts.verify.trust_file import Profile
from schemas.canonical import Json
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
class Paper:
    """A charter or manifest that was used: how old it is, and until when it holds (receipts.md 6)."""

    name: str
    """The domain whose manifest it is; empty for the charter."""
    expires: int
    """POSIX seconds."""
    version: int | None = None
    issued: int | None = None
    """POSIX seconds; a manifest does not say."""

    def text(self, at: datetime) -> str:
        """Its version or its age, and its end."""
        first = f"{self.name} v{self.version}" if self.name else "charter"
        if self.issued is not None:
            first += f" of {_day(self.issued)}, {_days(self.issued, at)} days old"
        return f"{first} until {_day(self.expires)}"

    def as_json(self, at: datetime) -> dict[str, Json]:
        dates: dict[str, Json] = {"expires": _moment(self.expires)}
        if self.issued is not None:
            dates |= {"issued": _moment(self.issued), "ageDays": _days(self.issued, at)}
        return dates | ({"domain": self.name, "version": self.version} if self.name else {})


def _days(since: int, at: datetime) -> int:
    return int(at.timestamp() - since) // 86_400


def _day(seconds: int) -> str:
    return _moment(seconds)[:10]


def _moment(seconds: int) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))


@dataclass(frozen=True, slots=True)
class Report:
    """What was verified, against which trust, at which time."""

    at: datetime
    federation: str
    pin: str
    """What was pinned, and which versions hang on it."""
    papers: tuple[Paper, ...]
    """The charter where one was pinned, and each manifest that was used."""
    profile: Profile
    waived: tuple[str, ...]
    receipts: tuple[ReceiptReport, ...]
    witnesses: tuple[int, int] = (0, 0)
    """(k, n): operators whose witnesses signed, out of those that could; the worst receipt counts."""

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
            "charter": next((each.as_json(self.at) for each in self.papers if not each.name), None),
            "manifests": [each.as_json(self.at) for each in self.papers if each.name],
            "profile": self.profile.name,
            "requires": [name for name in CLAIMS if name in self.profile.requires],
            "missing": list(self.missing),
            "waived": list(self.waived),
            "status": self.status,
            "claims": [claim.as_json() for claim in self.claims],
            "receipts": [receipt.as_json() for receipt in self.receipts],
        }


def receipt_report(
    kind: str, digest: bytes, receipt_id: str | None, issuer: str | None, claims: Sequence[Claim]
) -> ReceiptReport:
    """With every claim in its place: one that nobody judged is not checked, and says why."""
    why = "the receipt is not authentic, so nothing it says was looked at"
    return ReceiptReport(kind, digest, receipt_id, issuer, complete(claims, why))
