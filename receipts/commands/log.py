"""`comity log fsck | tiles | export`: check a log where it lies, or write it out. Reads only.

What changes a log (`admit`, `accuse`, `convict`, `erase`, `expire`) is `log_keeping`.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from receipts.audit.logfile import LogFile
from receipts.commands import keeping as log_keeping
from receipts.commands.ids import told_apart
from receipts.commands.keeping import Opener
from receipts.commands.visible import visible
from receipts.counted import counted
from receipts.export.lines import csv_lines, json_lines
from receipts.log import fsck, static, store
from receipts.log.columns import check_columns
from receipts.log.fsck import Findings
from receipts.note import NoteKey
from schemas.errors import ComityError, ConfigurationError, Unreadable


def main(argv: Sequence[str], *, opener: Opener | None = None) -> int:
    """Run one `comity log` command; returns its exit code (DESIGN 7). Raises `ComityError`.

    `opener` opens a broker's own log, for the commands that write to it.
    """
    try:
        arguments = _parser().parse_args(told_apart(argv))
    except SystemExit as stop:  # argparse has printed why
        return stop.code if isinstance(stop.code, int) else 2
    if arguments.command == "tiles":
        return _tiles(arguments.database, arguments.folder)
    if arguments.command == "export":
        return _export(arguments.database, arguments.format, arguments.out)
    if arguments.command != "fsck":
        if opener is None:
            raise ConfigurationError("log.opener", "this needs the broker's own keys: `comity log`")
        return log_keeping.run(arguments, opener)
    try:
        keys = [NoteKey.read(each) for each in arguments.vkey]
        findings = fsck.check(arguments.database, keys=keys)
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
    parser = argparse.ArgumentParser(prog="comity log", description="Check a log, or write to one's own.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("fsck", help="is the log what it was signed to be? changes nothing")
    check.add_argument("database", type=Path, metavar="DATABASE")
    check.add_argument(
        "--vkey", metavar="VKEY", action="append", default=[],
        help="verify checkpoint signatures too; again for a key from before or after a rotation",
    )  # fmt: skip
    check.add_argument("--json", action="store_true", help="one JSON object on stdout")
    tiles = commands.add_parser("tiles", help="write the log as static files that tlog tools read")
    tiles.add_argument("database", type=Path, metavar="DATABASE")
    tiles.add_argument("folder", type=Path, metavar="FOLDER", help="what is there already is written over")
    export = commands.add_parser("export", help="every receipt as a line; nothing is verified on the way")
    export.add_argument("database", type=Path, metavar="DATABASE")
    export.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="default jsonl")
    export.add_argument("--out", type=Path, metavar="FILE", help="default stdout")
    log_keeping.add_parsers(commands)
    return parser


def _tiles(database: Path, folder: Path) -> int:
    """C2SP tlog-tiles as of the newest checkpoint, which is written last. Raises `ComityError`."""
    connection = store.connect(database, read_only=True)
    count = 0
    try:
        connection.execute("BEGIN")  # one state of the log, even while its holder goes on writing
        check_columns(connection)
        for name, data in static.resources(connection):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            count += 1
    except sqlite3.Error as error:
        raise Unreadable("log.not_a_log", f"{database}: {error}") from None
    except OSError as error:
        raise ConfigurationError("log.tiles", f"{folder}: {error.strerror}") from None
    finally:
        connection.close()
    sys.stdout.write(f"{counted(count, 'file')}: {folder}\n")
    return 0


def _export(database: Path, form: str, out: Path | None) -> int:
    """One state of the log, line by line. Raises `ComityError`."""
    with LogFile(database) as log, ExitStack() as stack:
        log.check_apart(out)
        try:
            file = sys.stdout.buffer if out is None else stack.enter_context(out.open("wb"))
            for line in json_lines(log) if form == "jsonl" else csv_lines(log):
                file.write(line)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ConfigurationError("log.output", f"{out}: {error.strerror}") from None
    return 0


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
    return "\n".join(map(visible, lines)) + "\n"
