"""`comity attest verify | show | fetch`. The only place in this room that prints or asks the clock."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypedDict

from attestation import appraise, render
from attestation.collateral.bundle import load_bundle
from attestation.expected import Expectations
from attestation.files import (
    is_node,
    naming,
    read_any_evidence,
    read_devices,
    read_documents,
    read_evidence,
    read_file,
    read_quote_form,
    report_of,
)
from attestation.gpu.forms import is_form
from attestation.gpu.judge import state_evidence
from attestation.gpu.show import state_report
from attestation.gpu.spdm.report import read_report as read_gpu_report
from attestation.result import AttestationResult
from attestation.snp.forms import Evidence, unwrap
from attestation.snp.products import PRODUCTS
from attestation.snp.report import read_report
from attestation.snp.show import state, state_form
from attestation.tdx.collateral.rollback import MAX_MARKS_BYTES, read_marks
from attestation.tdx.forms import is_wrapped
from attestation.tdx.forms import unwrap as unwrap_quote
from attestation.tdx.log.events import MAX_LOG_BYTES
from attestation.tdx.quote import QE_VENDOR, read_quote
from attestation.tdx.show import state_quote
from schemas.canonical import Json
from schemas.errors import ComityError, ConfigurationError
from schemas.primitives import format_time, parse_time
from schemas.proof.evidence import MAX_EVIDENCE_BYTES, NodeEvidence

TEES: Final = ("snp", "tdx", "sgx", "nvidia", "node")


def main(argv: Sequence[str]) -> int:
    """Run one `comity attest` command; returns its exit code (DESIGN 7). Raises `ComityError`."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed why
        return stop.code if isinstance(stop.code, int) else 2
    try:
        return _COMMANDS[arguments.command](arguments)
    except ComityError as error:
        if not arguments.json:
            raise
        _print(
            json.dumps({"verdict": None, "reason": error.code, "error": error.text, "exit": error.exit_code})
        )
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="comity attest", description="Verify and show hardware evidence.")
    commands = parser.add_subparsers(dest="command", required=True)
    _verify_options(commands.add_parser("verify", help="appraise evidence; never touches a network"))
    show = commands.add_parser("show", help="print what evidence states, without judging it")
    show.add_argument("evidence", type=Path, metavar="EVIDENCE")
    show.add_argument("--json", action="store_true", help="one JSON object on stdout")
    _fetch_options(commands.add_parser("fetch", help="collect the endorsements of evidence for offline use"))
    return parser


def _verify_options(verify: argparse.ArgumentParser) -> None:
    verify.add_argument("--tee", required=True, metavar="|".join(TEES), help="what kind of evidence this is")
    verify.add_argument("evidence", type=Path, metavar="EVIDENCE")
    verify.add_argument("--endorsements", type=Path, action="append", default=[], metavar="PATH",
                        help="collateral of any kind, recognised by content, or a folder of it")  # fmt: skip
    verify.add_argument("--bundle", type=Path, action="append", default=[], metavar="DIR",
                        help="a signed bundle of endorsements; --expect names who may sign")  # fmt: skip
    verify.add_argument("--at", metavar="RFC3339", help="the moment to judge at; default now")
    verify.add_argument("--expect", type=Path, metavar="FILE", help="expected.toml")
    verify.add_argument("--nonce", metavar="HEX",
                        help="snp, tdx, sgx: the whole report data, 64 bytes; nvidia, node: the challenge, "
                             "a node's by one domain, 32 bytes; with a vTPM quote: its nonce")  # fmt: skip
    verify.add_argument("--waive", action="append", default=[], choices=["revocation"],
                        help="accept a missing (never a failing) revocation status")  # fmt: skip
    verify.add_argument("--event-log", type=Path, action="append", default=[], metavar="PATH",
                        help="tdx: what was measured after MRTD: a CCEL or a dstack log")  # fmt: skip
    verify.add_argument("--marks", type=Path, metavar="FILE",
                        help="tdx, sgx: marks.json of a fetched folder: nothing older counts")  # fmt: skip
    verify.add_argument("--evaluation", type=int, metavar="N",
                        help="tdx, sgx: as if this TCB evaluation data number were the newest")  # fmt: skip
    verify.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _fetch_options(fetch: argparse.ArgumentParser) -> None:
    fetch.add_argument("evidence", type=Path, metavar="EVIDENCE")
    fetch.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where pieces are kept; also a cache"
    )
    fetch.add_argument("--bundle", type=Path, metavar="DIR", help="write all of --out as one signed bundle")
    fetch.add_argument("--sign", type=Path, metavar="KEY", help="the domain's attestation-verifier key")
    fetch.add_argument("--domain", metavar="NAME", help="whose bundle it is")
    fetch.add_argument("--from", dest="base_url", metavar="URL", help="a mirror of the vendor's service")
    fetch.add_argument("--update", choices=["standard", "early"], default="standard",
                       help="tdx, sgx: which TCB evaluation of Intel's")  # fmt: skip
    fetch.add_argument("--evaluation", type=int, metavar="N", help="tdx, sgx: this TCB evaluation instead")
    fetch.add_argument("--product", choices=sorted(PRODUCTS), help="for a version 2 report")
    fetch.add_argument("--expect", type=Path, metavar="FILE", help="expected.toml, for its simulated roots")
    fetch.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.tee not in TEES:
        raise ConfigurationError(
            "attest.tee", f"--tee {arguments.tee} is no kind of evidence; there is {' and '.join(TEES)}"
        )
    _hold_options(arguments)
    at = _moment(arguments.at) if arguments.at else datetime.now(UTC)
    nonce = _nonce(arguments.nonce)
    expectations = Expectations.load(arguments.expect) if arguments.expect else None
    endorsements = [document for path in arguments.endorsements for document in read_documents(path)]
    endorsements += [document for path in arguments.bundle for document in _bundled(path, expectations)]
    asked = _Asked(
        endorsements=endorsements, expectations=expectations, nonce=nonce,
        waive_revocation="revocation" in arguments.waive, at=at,
    )  # fmt: skip
    with naming(arguments.evidence):
        result = _appraised(arguments, asked)
    _print(render.json_text(result) if arguments.json else render.human_text(result))
    return result.exit_code


class _Asked(TypedDict):
    """What one call asks of any kind of evidence."""

    endorsements: list[bytes]
    expectations: Expectations | None
    nonce: bytes | None
    waive_revocation: bool
    at: datetime


def _appraised(arguments: argparse.Namespace, asked: _Asked) -> AttestationResult:
    """The evidence, read as the kind that `--tee` names, and what was found about it."""
    path = arguments.evidence
    if arguments.tee == "node":
        return _appraised_node(read_file(path, MAX_EVIDENCE_BYTES), asked)
    if arguments.tee == "nvidia":
        return appraise.appraise_nvidia(read_devices(path), **asked)
    if arguments.tee == "snp":
        return appraise.appraise_snp(read_evidence(path), **asked)
    return appraise.appraise_dcap(
        read_quote_form(path),
        tee=arguments.tee,
        evaluation=arguments.evaluation,
        event_logs=[read_file(each, MAX_LOG_BYTES) for each in arguments.event_log],
        marks=read_marks(read_file(arguments.marks, MAX_MARKS_BYTES)) if arguments.marks else None,
        **asked,
    )


def _bundled(path: Path, expectations: Expectations | None) -> tuple[bytes, ...]:
    """The pieces of a bundle that one whom the expectations name has signed, now or before."""
    if expectations is None or not expectations.signers:
        raise ConfigurationError(
            "expected.unset", "--bundle needs --expect FILE with a [[collateral.signer]]: whose bundles count"
        )
    return load_bundle(path, expectations.signers_of, datetime.now(UTC))[1]


def _hold_options(arguments: argparse.Namespace) -> None:
    """An option that a kind of evidence knows nothing of is a mistake, not something to pass over."""
    known = {"event_log": ("tdx",), "evaluation": ("tdx", "sgx"), "marks": ("tdx", "sgx")}
    for option, tees in known.items():
        if getattr(arguments, option) not in (None, []) and arguments.tee not in tees:
            raise ConfigurationError(
                "attest.option", f"--{option.replace('_', '-')} goes with {' and '.join(tees)}"
            )
    if arguments.marks and arguments.at:
        raise ConfigurationError(
            "attest.option", "--marks is for judging now; --at may be before what was seen"
        )


def _appraised_node(evidence: bytes, asked: _Asked) -> AttestationResult:
    expectations = asked["expectations"]
    if expectations is not None and expectations.node is None:
        raise ConfigurationError(
            "expected.unset",
            f"{expectations.source}: [node] is not set; write a [node] table (docs/attestation-snp.md)",
        )
    return appraise.appraise_node_offline(
        evidence, endorsements=asked["endorsements"], expectations=expectations, challenge=asked["nonce"],
        waive_revocation=asked["waive_revocation"], at=asked["at"],
    )  # fmt: skip


def _moment(text: str) -> datetime:
    """RFC 3339 with any offset, as `date --iso-8601=seconds` and people write it. Raises `Unreadable`."""
    try:
        stated = datetime.fromisoformat(text)
        return parse_time(format_time(stated) if stated.tzinfo else text)
    except (ValueError, OverflowError):  # no moment at all, or one beyond the calendar in UTC
        return parse_time(text)


def _nonce(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        nonce = bytes.fromhex(text)
    except ValueError:
        nonce = b""
    if not 1 <= len(nonce) <= 64:
        raise ConfigurationError("attest.nonce", "--nonce is 1 to 64 bytes in hex")
    return nonce


def _show(arguments: argparse.Namespace) -> int:
    with naming(arguments.evidence):
        stated = _stated(read_any_evidence(arguments.evidence))
    _print(
        json.dumps(stated, ensure_ascii=False, indent=2)
        if arguments.json
        else "\n".join(render.stated_lines(stated))
    )
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    """The network is loaded only here: verifying must work where there is none."""
    import asyncio

    from attestation.collateral.fetch import bundle, fetch, signing_key

    key = signing_key(arguments)
    expectations = Expectations.load(arguments.expect) if arguments.expect else None
    files = asyncio.run(fetch(arguments, expectations))
    if key is not None:
        files = bundle(arguments, key)
    names = [str(file) for file in files]
    _print(json.dumps({"files": names}) if arguments.json else "\n".join(names))
    return 0


def _stated(data: bytes | Evidence) -> dict[str, Json]:
    if not isinstance(data, Evidence) and is_form(data):
        return state_evidence(data)
    if not isinstance(data, Evidence) and (data[12:28] == QE_VENDOR or is_wrapped(data)):
        return state_quote(read_quote(unwrap_quote(data).quote))
    if not isinstance(data, Evidence) and is_node(data):
        evidence = NodeEvidence.read(data)
        said = evidence.as_json()
        if evidence.devices:
            said["device_reports"] = [state_report(read_gpu_report(each.report)) for each in evidence.devices]
        return said if evidence.cpu.tee != "snp" else {**said, "report": state(read_report(report_of(data)))}
    form = data if isinstance(data, Evidence) else unwrap(data)
    return {**state_form(form), **state(read_report(form.report))}


def _print(text: str) -> None:
    print(text)  # noqa: T201


_COMMANDS: Final = {"verify": _verify, "show": _show, "fetch": _fetch}
