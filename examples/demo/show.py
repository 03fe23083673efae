"""How the demo looks: headings, tables of candidates, answers. Nothing here decides anything."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from examples.demo.stage import Answer

MICRO: Final = 1_000_000
ANSWER_CHARS: Final = 240
WIDTH: Final = 100  # columns, where nobody says how many there are


def console() -> Console:
    """The terminal as it is; in a file or a pipe, wide enough for the tables."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=WIDTH)


def heading(console: Console, number: int, title: str) -> None:
    console.print()
    console.rule(f"[bold]Scene {number}[/]", align="left")
    console.print(f"[bold]{title}[/]\n")


def request(console: Console, prompt: str, tags: str) -> None:
    """What the application asks, under which tags."""
    console.print(Padding(Text.assemble(("asks  ", "dim"), prompt), (0, 2)))
    console.print(Padding(Text.assemble(("tags  ", "dim"), tags), (0, 2)))


def candidates(console: Console, explained: dict[str, Any], model: str) -> None:
    """Every domain that offers the class, ranked or with the rules that reject it."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("", "domain", "predicted price", "J", "verdict"):
        right, whole = name in ("predicted price", "J"), name != "verdict"
        table.add_column(
            name,
            justify="right" if right else "left",
            no_wrap=whole,
            overflow="fold",
            ratio=None if whole else 1,
        )
    for number, plan in enumerate(explained.get("plans", []), 1):
        price = f"{int(plan['terms']['money']) / MICRO:.6f} EUR"
        score = f"{float(plan['score']):,.0f}"
        table.add_row(str(number), plan["domain"], price, score, "[green]allowed[/]")
    for plan in explained.get("rejected", []):
        if f" {model}/" in plan["plan"]:
            table.add_row("", plan["domain"], "", "", "[red]" + "\n".join(plan["rules"]) + "[/]")
    console.print(table)


def answered(console: Console, answer: Answer) -> None:
    """The answer, who gave it, and where the time went."""
    text = " ".join(answer.text.split())
    shown = text if len(text) <= ANSWER_CHARS else text[:ANSWER_CHARS] + " …"
    console.print(
        Padding(Panel(Text(shown, style="italic"), title=answer.domain, title_align="left"), (0, 2))
    )
    console.print(Padding(Text(str(answer.comity["latency"]), style="dim"), (0, 2)))
    console.print(Padding(Text(f"receipt {answer.receipt}", style="dim"), (0, 2)))


def note(console: Console, text: str) -> None:
    console.print(Padding(text, (0, 2)))


def holds(console: Console, text: str) -> None:
    console.print(Padding(f"[green]✓[/] {text}", (0, 2)))


def broken(console: Console, text: str) -> None:
    console.print(Padding(Text(f"✗ {text}", style="red"), (0, 2)))


def refusal(console: Console, error: dict[str, Any]) -> None:
    """A typed refusal, in full."""
    comity = error["comity"]
    table = Table(box=None, padding=(0, 2), show_header=False)
    table.add_row("error", f"[red]{error['code']}[/]  {comity['code']}")
    table.add_row("says", error["message"])
    table.add_row("binding rules", ", ".join(comity["binding"]))
    relaxation = comity["smallest_relaxation"] or {}
    dropped = ", ".join(relaxation.get("rules", [])) or "none"
    table.add_row(
        "smallest relaxation", f"without {dropped}: {relaxation.get('candidates', 0)} could serve it"
    )
    console.print(table)


def verdicts(console: Console, rows: list[tuple[str, str, int, str]]) -> None:
    """The auditor's table: file, what it is about, exit code, in words."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("receipt", "about", "exit", "verdict"):
        table.add_column(name, no_wrap=name == "receipt")
    colours = {0: "green", 1: "red", 3: "yellow"}
    for file, about, code, verdict in rows:
        colour = colours.get(code, "red")
        table.add_row(file, about, f"[{colour}]{code}[/]", f"[{colour}]{verdict}[/]")
    console.print(table)
