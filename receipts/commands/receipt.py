"""`comity receipt verify | show | export`. Of verification, only this reads files and asks the clock."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from receipts import bundle as bundles
from receipts.commands import render
from receipts.commands.ids import told_apart
from receipts.counted import counted
from receipts.export.cose import Signers
from receipts.model_signature import MAX_SIGNATURE_BYTES
from receipts.note import NoteSigner
from receipts.verify import verify_bundle
from receipts.verify.pinned import PinnedTrust, establish
from receipts.verify.replay.selection import Selection
from receipts.verify.show import describe
from receipts.verify.trust_file import TrustFile, parse
from schemas.errors import ComityError, ConfigurationError
from schemas.files import read_up_to
from schemas.keys import SigningKey
from schemas.primitives import parse_time

MAX_NAMED_BYTES: Final = MAX_SIGNATURE_BYTES  # of a trust file or one that it names: models' are largest


def main(argv: Sequence[str], *, selection: Selection | None = None) -> int:
    """Run one `comity receipt` command; returns its exit code (DESIGN 7). Raises `ComityError`.

    `selection`: the broker's cut and ranking, to make a choice again.
    """
    try:
        arguments = _parser().parse_args(told_apart(argv))
    except SystemExit as stop:  # argparse has printed why
        return stop.code if isinstance(stop.code, int) else 2
    try:
        match arguments.command:
            case "verify":
                return _verify(arguments, selection)
            case "export":
                return _export(arguments)
        return _show(arguments)
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
    verify.add_argument("--html", type=Path, metavar="FILE", help="write the report as one HTML page")
    export = commands.add_parser("export", help="take one request's receipts out of a log's database")
    export.add_argument("log", type=Path, metavar="LOG", help="the log's database")
    export.add_argument("name", metavar="ID", help="a request id or receipt id")
    export.add_argument("--papers", type=Path, required=True, metavar="FOLDER", help="charter and manifests")
    export.add_argument("--policies", type=Path, metavar="FOLDER", help="Cedar files; those named are taken")
    export.add_argument("--explained", action="store_true", help="with the ranking's inputs, losers included")
    export.add_argument("--trust", type=Path, metavar="FILE", help="with --folder: taken along")
    where = export.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="FILE", help="write the bundle alone")
    where.add_argument("--sigstore", type=Path, metavar="DIR", help="write what the sigstore tool verifies")
    where.add_argument("--cose", type=Path, metavar="DIR", help="write each receipt as COSE, signed anew")
    export.add_argument(
        "--receipt-key", type=Path, metavar="FILE", help="with --cose: what signed the receipt"
    )
    export.add_argument(
        "--log-key", type=Path, metavar="FILE", help="with --cose: what signs the checkpoints"
    )
    export.add_argument(
        "--authority", type=Path, metavar="DIR", help="with --sigstore: the private root, made at first use"
    )
    where.add_argument("--folder", type=Path, metavar="DIR", help="write a folder that verifies by itself")
    export.add_argument("--json", action="store_true", help="one JSON object on stdout")
    show = commands.add_parser("show", help="print what a bundle states, without judging it")
    show.add_argument("bundle", type=Path, metavar="BUNDLE")
    show.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _verify(arguments: argparse.Namespace, selection: Selection | None) -> int:
    _check_apart(arguments.html, arguments.bundle, arguments.trust)
    trust = load_trust(arguments.trust)
    at = parse_time(arguments.at) if arguments.at else datetime.now(UTC)
    report = verify_bundle(_bundle(arguments.bundle), trust, at=at, selection=selection)
    if arguments.html:
        _save(arguments.html, render.page(report).encode())
    if arguments.json:
        _print(json.dumps(report.as_json(), ensure_ascii=False))
    else:
        render.report(report, sys.stdout)
    return report.exit_code


def _check_apart(out: Path | None, *inputs: Path) -> None:
    """A report is not written over what it is about. Raises `ConfigurationError`."""
    for path in inputs:
        if out is not None and os.path.exists(out) and os.path.exists(path) and os.path.samefile(out, path):
            raise ConfigurationError("receipt.output", f"{out}: this is what is judged; write elsewhere")


def _export(arguments: argparse.Namespace) -> int:
    """Take a request out of its log, as a bundle or as a whole folder for an auditor."""
    from receipts.audit import papers
    from receipts.audit.logfile import LogFile
    from receipts.commands import take

    if not arguments.out and not arguments.trust:
        raise ConfigurationError("take.trust", "this needs --trust FILE: what the auditor holds as true")
    policies = take.read_policies(arguments.policies) if arguments.policies else {}
    with LogFile(arguments.log) as log:
        log.check_apart(arguments.out)
        held = papers.read(arguments.papers)
        bundle = take.take(log, arguments.name, held, policies, explained=arguments.explained)
        if arguments.cose:
            bundle = take.under_newest(log, arguments.name, bundle)
        domain, origin = log.domain, log.origin
    if arguments.sigstore:
        return _sigstore(arguments, bundle, domain, establish(held, load_trust(arguments.trust)))
    if arguments.cose:
        signers = _signers(arguments, origin)
        return _cose(arguments, bundle, domain, establish(held, load_trust(arguments.trust)), signers)
    if arguments.out:
        _save(arguments.out, bundles.write(bundle))
    else:
        named = take.NamedFiles(arguments.trust.parent, _configuration)
        trust = _configuration(arguments.trust)
        parse(trust, source=str(arguments.trust), read=named.read)
        take.write_folder(arguments.folder, bundle, trust, named.found)
    written = arguments.out or arguments.folder
    statements, proofs = counted(len(bundle.envelopes), "statement"), counted(len(bundle.proofs), "proof")
    text = f"{statements}, {proofs}: {written}"
    _print(json.dumps({"exit": 0, "written": str(written)}) if arguments.json else text)
    return 0


def _sigstore(arguments: argparse.Namespace, bundle: bundles.Bundle, domain: str, held: PinnedTrust) -> int:
    """Export the log's own receipts under the domain's private root."""
    from receipts.export import files
    from receipts.export.authority import Authority

    if not arguments.authority:
        raise ConfigurationError("export.authority", "--sigstore needs --authority DIR: your private root")
    at = datetime.now(UTC).replace(microsecond=0)
    authority = Authority.open(arguments.authority, domain, at)
    commands = files.write(bundle, domain, held, authority, arguments.sigstore, at=at)
    note = "anchor: none. The time shown is that of this export, under this domain's own private root."
    if arguments.json:
        _print(json.dumps({"exit": 0, "note": note, "commands": list(commands)}))
    else:
        _print("\n".join([*commands, note]))
    return 0


def _signers(arguments: argparse.Namespace, origin: str) -> Signers:
    """The keys that `--cose` signs with. Raises `ConfigurationError`."""
    from receipts.witnessing.commands import read_seed

    if not arguments.receipt_key or not arguments.log_key:
        raise ConfigurationError("export.keys", "--cose needs --receipt-key FILE and --log-key FILE")
    return Signers(
        SigningKey.load(arguments.receipt_key), NoteSigner.of(origin, read_seed(arguments.log_key))
    )


def _cose(
    arguments: argparse.Namespace, bundle: bundles.Bundle, domain: str, held: PinnedTrust, signers: Signers
) -> int:
    """Export the log's own receipts under the keys that signed them and their log."""
    from receipts.export import files

    written = [str(path) for path in files.write_cose(bundle, domain, held, signers, arguments.cose)]
    _print(json.dumps({"exit": 0, "written": written}) if arguments.json else "\n".join(written))
    return 0


def _save(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigurationError("receipt.output", f"{path}: {error.strerror}") from None


def _show(arguments: argparse.Namespace) -> int:
    stated = describe(_bundle(arguments.bundle))
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
    """A trust file, or one that it names. Raises `ConfigurationError`."""
    data = read_up_to(path, MAX_NAMED_BYTES, "trust_file.file")
    if len(data) > MAX_NAMED_BYTES:
        raise ConfigurationError("trust_file.file", f"{path}: more than {MAX_NAMED_BYTES} bytes")
    return data


def _bundle(path: Path) -> bytes:
    return read_up_to(path, bundles.MAX_BUNDLE_BYTES, "bundle.file")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
