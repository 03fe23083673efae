"""`comity log fsck DATABASE`: check a transparency log where it lies. Reads only."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from receipts.log import fsck
from receipts.log.fsck import Findings
from receipts.note import NoteKey
from schemas.errors import ComityError


def main(argv: Sequence[str]) -> int:
    """Run one `comity log` command; returns its exit code (DESIGN 7). Raises `ComityError`."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed why
        return stop.code if isinstance(stop.code, int) else 2
    try:
        key = NoteKey.read(arguments.vkey) if arguments.vkey else None
        findings = fsck.check(arguments.database, key=key)
    except ComityError as error:
        if not arguments.json:
            raise
        sys.stdout.write(
            json.dumps({"exit": error.exit_code, "reason": error.code, "error": error.text}) + "\n"
        )
        return error.exit_code
    sys.stdout.write(json.dumps(findings.as_json()) + "\n" if arguments.json else _text(findings))
    return 1 if findings.wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="comity log", description="Check a transparency log.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("fsck", help="is the log what it was signed to be? changes nothing")
    check.add_argument("database", type=Path, metavar="DATABASE")
    check.add_argument("--vkey", metavar="VKEY", help="verify checkpoint signatures under this key too")
    check.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _text(findings: Findings) -> str:
    lines = [
        f"log          {findings.origin}",
        f"leaves       {findings.leaves}",
        f"receipts     {findings.receipts}",
        f"checkpoints  {findings.checkpoints}",
        f"unsettled    {findings.unsettled}",
        *(f"WRONG        {text}" for text in findings.wrong),
        "The log holds." if not findings.wrong else "The log does NOT hold.",
    ]
    return "\n".join(lines) + "\n"
