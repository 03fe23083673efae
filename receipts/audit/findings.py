"""What an audit found: counted, listed, and written for machines and people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from receipts import spreadsheet
from receipts.commands.page import Page
from receipts.commands.visible import visible
from schemas.canonical import Json

MAX_FINDINGS: Final = 10_000  # listed; beyond them they are only counted
COLUMNS: Final = ("domain", "code", "severity", "receiptId", "request", "text", "proof")

Severity: TypeAlias = Literal["wrong", "missing", "note"]
"""`wrong` contradicts a rule; `missing` is something that one party owes; `note` is for the reader."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    domain: str
    """Whose log, or whose duty."""
    code: str
    severity: Severity
    text: str
    receipt_id: str | None = None
    request: str | None = None
    proof: str | None = None
    """File name of the bundle that shows it to anyone, where one was written."""

    def as_json(self) -> dict[str, Json]:
        return {
            "domain": self.domain,
            "code": self.code,
            "severity": self.severity,
            "receiptId": self.receipt_id,
            "request": self.request,
            "text": self.text,
            "proof": self.proof,
        }


@dataclass(slots=True)
class Audit:
    """The outcome of one audit."""

    title: str
    counts: dict[str, Json] = field(default_factory=dict)
    """What was looked at, by name."""
    findings: list[Finding] = field(default_factory=list)
    total: dict[str, int] = field(default_factory=lambda: {"wrong": 0, "missing": 0, "note": 0})
    limits: list[str] = field(default_factory=list)
    """What such an audit cannot show, said every time."""

    def add(self, finding: Finding) -> None:
        self.total[finding.severity] += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)

    @property
    def exit_code(self) -> int:
        """0 nothing is wrong and nothing missing; 1 otherwise (DESIGN 7)."""
        return 1 if self.total["wrong"] or self.total["missing"] else 0

    def as_json(self) -> dict[str, Json]:
        return {
            "exit": self.exit_code,
            "audit": self.title,
            "counts": dict(self.counts),
            "total": dict(self.total),
            "limits": list(self.limits),
            "findings": [finding.as_json() for finding in self.findings],
        }

    def as_csv(self) -> str:
        """One line a finding. Cells that a spreadsheet would take for a formula are quoted."""
        rows = [finding.as_json() for finding in self.findings]
        lines = [[_words(row[name]) for name in COLUMNS] for row in rows]
        return "".join(spreadsheet.line(each) for each in (COLUMNS, *lines))

    def as_html(self) -> str:
        """One page, whole in itself: it loads nothing."""
        page = Page(self.title, "holds" if self.exit_code == 0 else "does not hold")
        page.facts([(name, _words(value)) for name, value in self.counts.items()])
        page.table(
            "Findings",
            list(COLUMNS),
            [[_words(finding.as_json()[name]) for name in COLUMNS] for finding in self.findings],
        )
        page.notes("What such an audit cannot show", self.limits)
        return page.html()

    def as_text(self) -> str:
        """For a terminal."""
        lines = [self.title, ""]
        lines += [f"{name:<14} {_words(value)}" for name, value in self.counts.items()]
        lines += ["", *(f"{each.severity.upper():<8} {each.domain}: {each.text} ({each.code})"
                        for each in self.findings)]  # fmt: skip
        hidden = sum(self.total.values()) - len(self.findings)
        lines += [f"… and {hidden} more"] if hidden else []
        lines += [f"note     {text}" for text in self.limits]
        lines += ["Nothing is wrong or missing." if self.exit_code == 0 else "The audit does NOT hold."]
        return "\n".join(map(visible, lines)) + "\n"


def _words(value: Json) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_words(inner) for inner in value)
    return "" if value is None else str(value)
