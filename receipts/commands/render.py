"""Reports for people: a table of claims, in colour where the terminal has any."""

from __future__ import annotations

from typing import Final, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from receipts.commands.page import Page
from receipts.commands.visible import visible
from receipts.verify.claim import Claim
from receipts.verify.report import ReceiptReport, Report
from schemas.canonical import Json
from schemas.primitives import format_time

WIDTH: Final = 120  # columns where the output is no terminal
_STYLES: Final = {"proved": "green", "asserted-by": "yellow", "not-checked": "dim", "failed": "bold red"}
_ENDS: Final = {0: "holds", 1: "does NOT hold", 3: "could not be decided"}


def report(result: Report, out: TextIO) -> None:
    """The whole report: trust, one table for each receipt, the outcome."""
    console = _console(out)
    console.print(f"federation  {escape(result.federation)}")
    console.print(f"trust       {escape(result.pin)}")
    for paper in result.papers:
        console.print(f"            → {escape(paper)}")
    console.print(f"judged at   {format_time(result.at)}, profile {escape(result.profile.name)}")
    if result.waived:
        console.print(f"waived      {escape(', '.join(result.waived))}", style="yellow")
    console.print(f"status      {result.status}\n")
    for receipt in result.receipts:
        console.print(_table(receipt, result))
    _outcome(result, console)


def page(result: Report) -> str:
    """The whole report as one HTML page."""
    sheet = Page(f"Receipts of {result.federation}", _ENDS[result.exit_code])
    facts = [("trust", result.pin), ("papers", ", ".join(result.papers))]
    facts += [("judged at", format_time(result.at)), ("profile", result.profile.name)]
    facts += [("status", result.status)]
    facts += [("waived", ", ".join(result.waived))] if result.waived else []
    facts += [("required but not proved", ", ".join(result.missing))] if result.missing else []
    sheet.facts(facts)
    for receipt in result.receipts:
        rows = [[claim.name, claim.label, _why(claim)] for claim in receipt.claims]
        sheet.table(_title(receipt), ["claim", "verdict", "why"], rows)
    return sheet.html()


def stated(value: dict[str, Json], out: TextIO) -> None:
    """What a bundle states, as indented JSON."""
    import json

    console = _console(out)
    console.print("Nothing below was verified: `comity receipt verify` does that.\n", style="yellow")
    lines = json.dumps(value, indent=2, ensure_ascii=False).split("\n")
    console.print(escape("\n".join(map(visible, lines))), highlight=False, soft_wrap=True)


def _console(out: TextIO) -> Console:
    return Console(file=out, highlight=False, width=None if out.isatty() else WIDTH)


def _table(receipt: ReceiptReport, result: Report) -> Table:
    table = Table(title=_plain(_title(receipt)), title_justify="left", title_style="bold", expand=False)
    table.add_column("claim", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("why")
    for claim in receipt.claims:
        required = claim.name in result.profile.requires and claim.applies
        name = f"{claim.name} *" if required else claim.name
        table.add_row(name, _styled(claim), _plain(_why(claim)))
    return table


def _title(receipt: ReceiptReport) -> str:
    name, issuer = receipt.receipt_id or receipt.digest.hex()[:16], receipt.issuer or "nobody known"
    return f"{receipt.kind} {name} by {issuer}"


def _styled(claim: Claim) -> str:
    return f"[{_STYLES[claim.verdict]}]{_plain(claim.label)}[/]"


def _plain(text: str) -> str:
    """Text that is neither markup nor a control."""
    return escape(visible(text))


def _why(claim: Claim) -> str:
    return f"{claim.text} ({claim.code})" if claim.code else claim.text


def _outcome(result: Report, console: Console) -> None:
    code = result.exit_code
    style = {0: "bold green", 1: "bold red", 3: "bold yellow"}[code]
    console.print(f"\nThe bundle {_ENDS[code]}.", style=style)
    if code == 3:
        console.print(f"Required (*) but not proved: {', '.join(result.missing)}.")
