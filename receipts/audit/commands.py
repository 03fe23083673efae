"""`comity audit LOG`, `comity audit --pair A B`. Only this and `logfile` read files; no network."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from receipts.audit import papers
from receipts.audit.findings import Audit
from receipts.audit.logfile import LogFile
from receipts.audit.pair import audit_pair
from receipts.audit.sampled import MAX_SAMPLE, Sampling, audit_sample
from receipts.audit.whole import Progress as Report
from receipts.audit.whole import audit_log
from receipts.commands.receipt import load_trust
from receipts.commands.take import read_policies
from receipts.verify.jury import Jury
from receipts.verify.pinned import establish
from receipts.verify.replay.selection import Selection
from schemas.errors import ComityError, ConfigurationError
from schemas.primitives import parse_time


def main(argv: Sequence[str], *, selection: Selection | None = None) -> int:
    """Run `comity audit`; returns its exit code (DESIGN 7). Raises `ComityError`.

    `selection`: the broker's cut and ranking, to make its choices again.
    """
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
        if bool(arguments.log) == bool(arguments.pair):
            parser.error("one LOG, or --pair A B")
        if (arguments.policies or arguments.sample) and not arguments.log:
            parser.error("--policies and --sample are about one LOG")
        _check_sample(parser, arguments)
    except SystemExit as stop:  # argparse has printed why
        return stop.code if isinstance(stop.code, int) else 2
    try:
        result = _audit(arguments, selection)
        _write(arguments, result)
    except ComityError as error:
        if not arguments.json:
            raise
        _print(json.dumps({"exit": error.exit_code, "reason": error.code, "error": error.text}))
        return error.exit_code
    return result.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="comity audit", description="Audit a whole transparency log, or two against each other, offline."
    )
    parser.add_argument("log", type=Path, nargs="?", metavar="LOG", help="a log's database")
    parser.add_argument("--pair", type=Path, nargs=2, metavar=("A", "B"), help="two logs' databases")
    parser.add_argument("--trust", type=Path, required=True, metavar="FILE", help="what you hold as true")
    parser.add_argument(
        "--papers", type=Path, required=True, metavar="FOLDER", help="charter and manifests, as their files"
    )
    parser.add_argument("--at", metavar="RFC3339", help="the moment to judge at; default now")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the findings as CSV")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one HTML page")
    parser.add_argument(
        "--proofs", type=Path, metavar="FOLDER", help="with --pair: write a bundle for each missing exchange"
    )
    parser.add_argument(
        "--sample", type=int, metavar="M", help="check M leaves of LOG, drawn by a later cosigned root"
    )
    parser.add_argument(
        "--defects",
        type=int,
        metavar="D",
        help="with --sample: judge how sure it is that there are fewer; default 1 %%",
    )
    parser.add_argument(
        "--policies", type=Path, metavar="FOLDER", help="Cedar files: make every decision of LOG again"
    )
    return parser


def _check_sample(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if arguments.sample is None:
        if arguments.defects is not None:
            parser.error("--defects goes with --sample")
        return
    if arguments.policies:
        parser.error("decisions are made again of a whole log, not of a sample")
    if not 1 <= arguments.sample <= MAX_SAMPLE or (arguments.defects is not None and arguments.defects < 1):
        parser.error(f"--sample is 1 to {MAX_SAMPLE}, --defects 1 or more")


def _audit(arguments: argparse.Namespace, selection: Selection | None) -> Audit:
    trust, held_papers = load_trust(arguments.trust), papers.read(arguments.papers)
    held = establish(held_papers, trust)
    at = parse_time(arguments.at) if arguments.at else datetime.now(UTC)
    jury = Jury(at, trust)
    with ExitStack() as stack:
        report = _progress(stack)
        if arguments.log:
            log = stack.enter_context(LogFile(arguments.log))
            log.check_apart(arguments.csv, arguments.html)
            if arguments.sample:
                asked = Sampling(arguments.sample, arguments.defects)
                return audit_sample(log, held, trust, asked, at=at, progress=report)
            policies = read_policies(arguments.policies) if arguments.policies else None
            return audit_log(log, held, progress=report, policies=policies, selection=selection, jury=jury)
        first, second = (stack.enter_context(LogFile(path)) for path in arguments.pair)
        for log in (first, second):
            log.check_apart(arguments.csv, arguments.html)
        keep = Folder(arguments.proofs).keep if arguments.proofs else None
        return audit_pair(first, second, held, held_papers, at=at, jury=jury, keep=keep, progress=report)


class Folder:
    """Where bundles of missing exchanges go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError("audit.proofs", f"{path}: {error.strerror}") from None

    def keep(self, name: str, data: bytes) -> str:
        """Write one bundle; returns its file name. Receipt ids are plain tokens, so are the names."""
        _save(self._path / name, data)
        return name


def _progress(stack: ExitStack) -> Report:
    """A bar on stderr where that is a terminal; nothing elsewhere, also where somebody forces colours."""
    columns = (TextColumn("verifying receipts"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console, silent = Console(stderr=True), not sys.stderr.isatty()
    bar = stack.enter_context(Progress(*columns, console=console, disable=silent))
    task = bar.add_task("", total=None)

    def report(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)

    return report


def _write(arguments: argparse.Namespace, result: Audit) -> None:
    if arguments.csv:
        _save(arguments.csv, result.as_csv().encode())
    if arguments.html:
        _save(arguments.html, result.as_html().encode())
    _print(json.dumps(result.as_json(), ensure_ascii=False) if arguments.json else result.as_text())


def _save(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigurationError("audit.output", f"{path}: {error.strerror}") from None


def _print(text: str) -> None:
    sys.stdout.write(text.removesuffix("\n") + "\n")
