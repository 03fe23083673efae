"""`comity attest verify | show | fetch`. The only place in this room that prints or asks the clock."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attestation import appraise, render
from attestation.endorsements import MAX_DOCUMENT_BYTES, recognise
from attestation.expected import Expectations
from attestation.gpu.expected import GpuPolicy
from attestation.gpu.forms import Devices, TokenFile, devices_in, devices_of
from attestation.gpu.forms import unwrap as unwrap_gpu
from attestation.gpu.show import state_report
from attestation.gpu.spdm.report import is_report
from attestation.gpu.spdm.report import read_report as read_gpu_report
from attestation.result import AttestationResult
from attestation.snp.forms import FOLDER_FILES, Evidence, from_folder, unwrap
from attestation.snp.products import PRODUCTS
from attestation.snp.report import read_report
from attestation.snp.show import state, state_form
from attestation.tdx.collateral.rollback import MAX_MARKS_BYTES, read_marks
from attestation.tdx.log.events import MAX_LOG_BYTES
from attestation.tdx.origin.chain import INTEL_ROOTS
from attestation.tdx.quote import QE_VENDOR, read_quote
from attestation.tdx.show import state_quote
from schemas.canonical import Json, read_json
from schemas.errors import ComityError, ConfigurationError, Unreadable
from schemas.evidence import MAX_EVIDENCE_BYTES, NodeEvidence
from schemas.primitives import format_time, parse_time

if TYPE_CHECKING:
    import httpx

TEES: Final = ("snp", "tdx", "sgx", "nvidia", "node")
MAX_FILES: Final = 1000  # files read from one folder of endorsements


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
    verify = commands.add_parser("verify", help="appraise evidence; never touches a network")
    verify.add_argument("--tee", required=True, metavar="|".join(TEES), help="what kind of evidence this is")
    verify.add_argument("evidence", type=Path, metavar="EVIDENCE")
    verify.add_argument("--endorsements", type=Path, action="append", default=[], metavar="PATH",
                        help="a certificate, CRL, certificate table, or a folder of such files")  # fmt: skip
    verify.add_argument("--at", metavar="RFC3339", help="the moment to judge at; default now")
    verify.add_argument("--expect", type=Path, metavar="FILE", help="expected.toml")
    verify.add_argument("--nonce", metavar="HEX",
                        help="snp, tdx, sgx: the whole report data, 64 bytes; node: one domain's challenge, "
                             "32 bytes; with a vTPM quote: its nonce")  # fmt: skip
    verify.add_argument("--waive", action="append", default=[], choices=["revocation"],
                        help="accept a missing (never a failing) revocation status")  # fmt: skip
    verify.add_argument("--event-log", type=Path, action="append", default=[], metavar="PATH",
                        help="tdx: what was measured after MRTD: a CCEL or a dstack log")  # fmt: skip
    verify.add_argument("--marks", type=Path, metavar="FILE",
                        help="tdx, sgx: marks.json of a fetched folder: nothing older counts")  # fmt: skip
    verify.add_argument("--evaluation", type=int, metavar="N",
                        help="tdx, sgx: as if this TCB evaluation data number were the newest")  # fmt: skip
    verify.add_argument("--json", action="store_true", help="one JSON object on stdout")
    show = commands.add_parser("show", help="print what evidence states, without judging it")
    show.add_argument("evidence", type=Path, metavar="EVIDENCE")
    show.add_argument("--json", action="store_true", help="one JSON object on stdout")
    fetch = commands.add_parser("fetch", help="collect the endorsements of evidence for offline use")
    fetch.add_argument("evidence", type=Path, metavar="EVIDENCE")
    fetch.add_argument("--out", type=Path, required=True, metavar="DIR", help="the bundle; also a cache")
    fetch.add_argument("--from", dest="base_url", metavar="URL", help="a mirror of the vendor's service")
    fetch.add_argument("--update", choices=["standard", "early"], default="standard",
                       help="tdx, sgx: which TCB evaluation of Intel's")  # fmt: skip
    fetch.add_argument("--evaluation", type=int, metavar="N", help="tdx, sgx: this TCB evaluation instead")
    fetch.add_argument("--product", choices=sorted(PRODUCTS), help="for a version 2 report")
    fetch.add_argument("--expect", type=Path, metavar="FILE", help="expected.toml, for its simulated roots")
    fetch.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.tee not in TEES:
        raise ConfigurationError(
            "attest.tee", f"--tee {arguments.tee} is no kind of evidence; there is {' and '.join(TEES)}"
        )
    _hold_options(arguments)
    at = _moment(arguments.at) if arguments.at else datetime.now(UTC)
    nonce = _nonce(arguments.nonce)
    expectations = Expectations.load(arguments.expect) if arguments.expect else None
    endorsements = [document for path in arguments.endorsements for document in _documents(path)]
    waive = "revocation" in arguments.waive
    if arguments.tee == "node":
        evidence = _read(arguments.evidence, MAX_EVIDENCE_BYTES)
        result = _verify_node(evidence, endorsements, expectations, nonce, waive, at)
    elif arguments.tee in ("tdx", "sgx"):
        result = appraise.appraise_dcap(
            _read(arguments.evidence, MAX_EVIDENCE_BYTES), tee=arguments.tee, endorsements=endorsements,
            expectations=expectations, nonce=nonce, waive_revocation=waive, at=at,
            evaluation=arguments.evaluation,
            event_logs=[_read(each, MAX_LOG_BYTES) for each in arguments.event_log],
            marks=read_marks(_read(arguments.marks, MAX_MARKS_BYTES)) if arguments.marks else None,
        )  # fmt: skip
    elif arguments.tee == "nvidia":
        result = appraise.appraise_nvidia(
            _devices(arguments.evidence), endorsements=endorsements, expectations=expectations,
            nonce=nonce, waive_revocation=waive, at=at,
        )  # fmt: skip
    else:
        result = appraise.appraise_snp(
            _evidence(arguments.evidence), endorsements=endorsements, expectations=expectations, nonce=nonce,
            waive_revocation=waive, at=at,
        )  # fmt: skip
    _print(render.json_text(result) if arguments.json else render.human_text(result))
    return result.exit_code


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


def _evidence(path: Path) -> bytes | Evidence:
    """A file in any form, or a folder as configfs-tsm or an Azure guest leaves it."""
    if not path.is_dir():
        return _read(path, MAX_EVIDENCE_BYTES)
    present = [path / name for name in FOLDER_FILES if (path / name).is_file()]
    return from_folder({file.name: _read(file, MAX_DOCUMENT_BYTES) for file in present})


def _devices(path: Path) -> bytes | Devices:
    """A file in any form, or a folder with a report or with a folder for each device."""
    if not path.is_dir():
        return _read(path, MAX_EVIDENCE_BYTES)
    folders = [path, *sorted(each for each in path.iterdir() if each.is_dir())][:MAX_FILES]
    return devices_in({str(folder): _files(folder) for folder in folders})


def _files(folder: Path) -> dict[str, bytes]:
    """The files of one device; descriptions of a case are no evidence."""
    listed = sorted(each for each in folder.iterdir() if each.is_file())[:MAX_FILES]
    return {
        file.name: _read(file, MAX_DOCUMENT_BYTES)
        for file in listed
        if file.suffix in (".bin", ".pem", ".der", ".xml", ".crl")
    }


def _verify_node(
    evidence: bytes,
    endorsements: list[bytes],
    expectations: Expectations | None,
    nonce: bytes | None,
    waive: bool,
    at: datetime,
) -> AttestationResult:
    if expectations is not None and expectations.node is None:
        raise ConfigurationError(
            "expected.unset",
            f"{expectations.source}: [node] is not set; write a [node] table (docs/attestation-snp.md)",
        )
    return appraise.appraise_node_offline(
        evidence, endorsements=endorsements, expectations=expectations, challenge=nonce,
        waive_revocation=waive, at=at,
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


def _documents(path: Path) -> list[bytes]:
    """The documents of a file, or of a folder, where what is no endorsement is passed over."""
    if not path.is_dir():
        data = _read(path, MAX_DOCUMENT_BYTES)
        recognise(data)
        return [data]
    found: list[bytes] = []
    for file in sorted(each for each in path.rglob("*") if each.is_file())[:MAX_FILES]:
        try:
            data = _read(file, MAX_DOCUMENT_BYTES)
            recognise(data)
        except Unreadable as error:
            print(f"{file}: passed over: {error.text}", file=sys.stderr)  # noqa: T201
            continue
        found.append(data)
    return found


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ConfigurationError("attest.file", f"{path}: {error.strerror}") from None
    if len(data) > limit:
        raise Unreadable("attest.file", f"{path}: more than {limit} bytes")
    return data


def _show(arguments: argparse.Namespace) -> int:
    stated = _stated(_evidence(arguments.evidence))
    _print(
        json.dumps(stated, ensure_ascii=False, indent=2)
        if arguments.json
        else "\n".join(render.stated_lines(stated))
    )
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    """The network is loaded only here: verifying must work where there is none."""
    import asyncio

    import httpx

    expectations = Expectations.load(arguments.expect) if arguments.expect else None
    devices = _gpu_evidence(arguments.evidence)
    evidence = b"" if devices is not None else _evidence(arguments.evidence)

    async def fetch() -> list[Path]:
        async with httpx.AsyncClient() as client:
            if devices is not None:
                return await _from_nvidia(arguments, client, devices, expectations)
            quote = _quote(evidence)
            if quote is not None:
                found = await _from_intel(arguments, client, quote, expectations)
            else:
                found = await _from_amd(arguments, client, _report(evidence), expectations)
            if isinstance(evidence, bytes) and _is_node(evidence):
                attached = devices_of(NodeEvidence.read(evidence))
                found += await _from_nvidia(arguments, client, attached, expectations)
            return found

    files = [str(file) for file in asyncio.run(fetch())]
    _print(json.dumps({"files": files}) if arguments.json else "\n".join(files))
    return 0


async def _from_amd(
    arguments: argparse.Namespace,
    client: httpx.AsyncClient,
    report: bytes,
    expectations: Expectations | None,
) -> list[Path]:
    from attestation.collateral.amd import AMD, KeyDistribution
    from attestation.collateral.service import Service

    service = Service(client, (arguments.base_url or AMD).rstrip("/"))
    return await KeyDistribution(arguments.out, service, expectations).endorse(
        report, product=arguments.product
    )


async def _from_intel(
    arguments: argparse.Namespace,
    client: httpx.AsyncClient,
    quote: bytes,
    expectations: Expectations | None,
) -> list[Path]:
    from attestation.collateral.intel import INTEL, Provisioning, Wanted
    from attestation.collateral.pieces import Pieces
    from attestation.collateral.service import Service

    sgx = read_quote(quote).tee == "sgx"
    rules = expectations and (expectations.sgx if sgx else expectations.tdx)
    service = Service(client, (arguments.base_url or INTEL).rstrip("/"))
    wanted = Wanted(arguments.update, arguments.evaluation)
    roots = rules.roots if rules else INTEL_ROOTS
    return await Provisioning(Pieces(arguments.out), service, roots, wanted).endorse(quote)


async def _from_nvidia(
    arguments: argparse.Namespace,
    client: httpx.AsyncClient,
    devices: Devices | TokenFile,
    expectations: Expectations | None,
) -> list[Path]:
    from attestation.collateral.nvidia import Accelerators, Endpoints
    from attestation.collateral.pieces import Pieces
    from attestation.collateral.service import Service

    mirror = arguments.base_url and arguments.base_url.rstrip("/")
    policy = (expectations and expectations.nvidia) or GpuPolicy()
    endpoints = Endpoints.mirror(mirror) if mirror else Endpoints()
    services = Accelerators(Pieces(arguments.out), Service(client, mirror or ""), policy, endpoints)
    if isinstance(devices, TokenFile):
        return await services.archive_keys(devices)
    return await services.endorse(devices.inputs)


def _gpu_evidence(path: Path) -> Devices | TokenFile | None:
    """Devices of NVIDIA's or a service token; None for another vendor's evidence."""
    found = (
        _devices(path)
        if path.is_file() or any(path.glob("report.bin")) or any(path.glob("*/report.bin"))
        else None
    )
    if isinstance(found, Devices):
        return found if all(is_report(each.report) for each in found.inputs) else None
    if found is None or not (is_report(found) or found.lstrip()[:2] == b"[[" or b'"evidence_list"' in found):
        return None
    known = unwrap_gpu(found)
    return known if isinstance(known, Devices | TokenFile) else None


def _quote(data: bytes | Evidence) -> bytes | None:
    """The DCAP quote that the evidence is or carries; None for another vendor's."""
    if isinstance(data, Evidence):
        return None
    if data[12:28] == QE_VENDOR:
        return data
    if _is_node(data):
        cpu = NodeEvidence.read(data).cpu
        return cpu.report if cpu.tee == "tdx" else None
    return None


def _report(data: bytes | Evidence) -> bytes:
    """The bare report in any form, a node's evidence included."""
    if isinstance(data, Evidence):
        return data.report
    if _is_node(data):
        return unwrap(NodeEvidence.read(data).cpu.report).report
    return unwrap(data).report


def _is_node(data: bytes) -> bool:
    """A JSON object that names no form of its own is a node's evidence."""
    if data.lstrip()[:1] != b"{":
        return False
    stated = read_json(data, limit=MAX_EVIDENCE_BYTES)
    return isinstance(stated, dict) and not {"form", "outblob"} & stated.keys()


def _stated(data: bytes | Evidence) -> dict[str, Json]:
    if not isinstance(data, Evidence) and is_report(data):
        return state_report(read_gpu_report(data))
    if not isinstance(data, Evidence) and data[12:28] == QE_VENDOR:
        return state_quote(read_quote(data))
    if not isinstance(data, Evidence) and _is_node(data):
        evidence = NodeEvidence.read(data)
        if evidence.cpu.tee != "snp":
            return evidence.as_json()
        return {**evidence.as_json(), "report": state(read_report(_report(data)))}
    form = data if isinstance(data, Evidence) else unwrap(data)
    return {**state_form(form), **state(read_report(form.report))}


def _print(text: str) -> None:
    print(text)  # noqa: T201


_COMMANDS: Final = {"verify": _verify, "show": _show, "fetch": _fetch}
