"""`comity federation init | status`: the only place in this room that prints or asks the clock."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from federation.found import Founded, found
from federation.founding.plan import read_plan
from federation.status import Standing, folders


def main(argv: Sequence[str]) -> int:
    """Run one command; returns its exit code (DESIGN 7). Raises `ComityError`."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed why
        return stop.code if isinstance(stop.code, int) else 2
    now = datetime.now(UTC)
    if arguments.command == "init":
        return _init(arguments.plan, arguments.dir, now)
    return _status(arguments.dir, now, as_json=arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="comity federation",
        description="Found a federation and look at it: charter, keys, NATS accounts.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    init = commands.add_parser("init", help="make keys, charter, bus and settings from a plan")
    init.add_argument("plan", type=Path, metavar="PLAN", help="TOML file; see examples/plan.toml")
    init.add_argument("--dir", type=Path, required=True, metavar="DIR", help="folder to make; must not exist")
    status = commands.add_parser("status", help="check a founded domain's papers against the pin")
    status.add_argument(
        "--dir", type=Path, required=True, metavar="DIR", help="a domain's folder, or the one above several"
    )
    status.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _init(plan: Path, folder: Path, now: datetime) -> int:
    made = found(read_plan(plan), folder, now)
    print(_announcement(made))  # noqa: T201
    return 0


def _announcement(made: Founded) -> str:
    lines = [
        f"Federation {made.plan.federation} is founded in {made.folder}.",
        f"Charter pin, to be compared out of band: {made.pin.hex()}",
        "",
    ]
    for domain in made.plan.domains:
        folder = made.domain(domain.name)
        lines.append(f"{domain.name}: everything it needs is in {folder}; secrets in {folder / 'keys'}")
        lines += [
            f"  API key of {name}: {folder / 'keys' / f'api-{name}.txt'}"
            for owner, name in made.api_keys
            if owner == domain.name
        ]
    lines += ["", f"Bus: loopback port {made.bus_port}, settings in {made.bus.path}"]
    return "\n".join(lines)


def _status(path: Path, now: datetime, *, as_json: bool) -> int:
    standings = [Standing.read(folder).as_json(now) for folder in folders(path)]
    holds = all(_holds(standing) for standing in standings)
    agreed = len({str(standing["pin"]) for standing in standings}) == 1
    if as_json:
        print(json.dumps({"holds": holds and agreed, "domains": standings}))  # noqa: T201
    else:
        console = Console()
        for standing in standings[: 1 if agreed else None]:
            _show(console, standing)
        held_by = ", ".join(str(standing["domain"]) for standing in standings)
        verdict = "the same charter, verified against its pin" if agreed else "different charters"
        console.print(f"{held_by}: {verdict}")
    return 0 if holds and agreed else 1


def _holds(standing: dict[str, Any]) -> bool:
    return not standing["expired"] and all(member["fault"] is None for member in standing["members"])


def _show(console: Console, standing: dict[str, Any]) -> None:
    table = Table(title=f"{standing['federation']} · charter until {standing['charter_until']}")
    for heading in ("member", "operator", "stands in", "exposed to", "keys", "machines", "fault"):
        table.add_column(heading)
    for member in standing["members"]:
        table.add_row(
            member["domain"],
            member["operator"],
            " ".join(member["jurisdictions"]),
            " ".join(member["exposed_to"]) or "-",
            str(len(member.get("keys", []))),
            str(member.get("platforms", "-")),
            member["fault"] or "-",
        )
    console.print(table)
    console.print(f"pin {standing['pin']}", soft_wrap=True)
    if standing["simulated_roots"]:
        console.print(f"accepts simulated hardware of: {', '.join(standing['simulated_roots'])}")
