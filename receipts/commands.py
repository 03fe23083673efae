"""`comity receipt verify | show`. Of verification, only this reads files and asks the clock."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from receipts import bundle as bundles
from receipts import render
from receipts.verify import verify_bundle
from receipts.verify.replayed import Rerank
from receipts.verify.show import describe
from receipts.verify.trust_file import TrustFile, parse
from schemas.errors import ComityError, ConfigurationError
from schemas.primitives import parse_time


def main(argv: Sequence[str], *, rerank: Rerank | None = None) -> int:
    """Run one `comity receipt` command; returns its exit code (DESIGN 7). Raises `ComityError`.

    `rerank`: the broker's ranking, to compute a choice again.
    """
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed why
        return stop.code if isinstance(stop.code, int) else 2
    try:
        return _verify(arguments, rerank) if arguments.command == "verify" else _show(arguments)
    except ComityError as error:
        if not arguments.json:
            raise
        _print(json.dumps({"exit": error.exit_code, "reason": error.code, "error": error.text}))
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="comity receipt", description="Verify and show receipts, offline.")
    commands = parser.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify", help="judge every claim of a bundle; never touches a network")
    verify.add_argument("bundle", type=Path, metavar="BUNDLE", help="a .receipt file, zip or JSON")
    verify.add_argument("--trust", type=Path, required=True, metavar="FILE", help="what you hold as true")
    verify.add_argument("--at", metavar="RFC3339", help="the moment to judge at; default now")
    verify.add_argument("--json", action="store_true", help="one JSON object on stdout")
    show = commands.add_parser("show", help="print what a bundle states, without judging it")
    show.add_argument("bundle", type=Path, metavar="BUNDLE")
    show.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _verify(arguments: argparse.Namespace, rerank: Rerank | None) -> int:
    trust = load_trust(arguments.trust)
    at = parse_time(arguments.at) if arguments.at else datetime.now(UTC)
    report = verify_bundle(_read(arguments.bundle, bundles.MAX_BUNDLE_BYTES), trust, at=at, rerank=rerank)
    if arguments.json:
        _print(json.dumps(report.as_json(), ensure_ascii=False))
    else:
        render.report(report, sys.stdout)
    return report.exit_code


def _show(arguments: argparse.Namespace) -> int:
    stated = describe(_read(arguments.bundle, bundles.MAX_BUNDLE_BYTES))
    if arguments.json:
        _print(json.dumps(stated, ensure_ascii=False))
    else:
        render.stated(stated, sys.stdout)
    return 0


def load_trust(path: Path) -> TrustFile:
    """Read a trust file and what it names, relative to its folder. Raises `ConfigurationError`."""
    folder = path.parent
    return parse(_configuration(path), source=str(path), read=lambda name: _configuration(folder / name))


def _configuration(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError("trust_file.file", f"{path}: {error.strerror}") from None


def _read(path: Path, limit: int) -> bytes:
    """At most one byte more than the limit, so that the parser can say that it is too long."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise ConfigurationError("bundle.file", f"{path}: {error.strerror}") from None


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
