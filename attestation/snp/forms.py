"""The forms in which a report arrives, each unwrapped by one explicit parser (snp.md 8).

The form is decided from the bytes alone; what fits none, or two, is refused rather than tried.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from pydantic import Field

from attestation.endorsements import MAX_TABLE_BYTES, is_table
from attestation.snp.azure import MAGIC, PCRS, AzureParts, read_hcl
from attestation.snp.report import REPORT_BYTES
from schemas.canonical import Wire, read_json
from schemas.errors import Unreadable
from schemas.primitives import Bytes64, Digest

FRAME_HEADER: Final = 32  # u32 status, u32 size, 24 zero bytes (AMD 56860 MSG_REPORT_RSP)
FRAME_BYTES: Final = 4000  # the kernel's response buffer, zero-filled behind the report
MAX_BUNDLE_BYTES: Final = 1024 * 1024  # a report, certificates and a quote, in base64
MAX_EXTENDED_BYTES: Final = REPORT_BYTES + MAX_TABLE_BYTES
MAX_PROVIDER_BYTES: Final = 64
PROVIDER: Final = "sev_guest"
_HASH: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one input holds."""

    form: str
    report: bytes
    endorsements: tuple[bytes, ...] = ()
    azure: AzureParts | None = None


class TsmReport(Wire):
    """What Linux's configfs-tsm gave for one request, as JSON."""

    form: Literal["configfs-tsm"] = "configfs-tsm"
    provider: str
    outblob: Bytes64
    auxblob: Bytes64 | None = None


class AzureBundle(Wire):
    """A report of an Azure confidential VM with the vTPM's quote, as JSON."""

    form: Literal["azure-snp"]
    hcl_report: Bytes64 | None = None
    report: Bytes64 | None = None
    """The bare report, with `runtime_data` beside it, where the HCL blob was not kept."""
    runtime_data: Bytes64 | None = None
    quote: Bytes64 | None = None
    quote_signature: Bytes64 | None = None
    pcrs: Annotated[list[Digest], Field(min_length=PCRS, max_length=PCRS)] | None = None
    endorsements: Annotated[tuple[Bytes64, ...], Field(max_length=16)] = ()


def unwrap(data: bytes) -> Evidence:
    """Find the report in any supported form. Raises `Unreadable`."""
    if len(data) == REPORT_BYTES:
        return Evidence("raw", data)
    if data[:4] == MAGIC:
        report, parts = read_hcl(data)
        return Evidence("azure-hcl", report, azure=parts)
    if FRAME_HEADER + REPORT_BYTES <= len(data) <= FRAME_BYTES and _is_frame(data):
        return Evidence("response-frame", _read_frame(data))
    if _is_extended(data):
        return Evidence("extended-report", data[:REPORT_BYTES], (data[REPORT_BYTES:],))
    if data.lstrip()[:1] == b"{":
        return _bundle(data)
    raise Unreadable("snp.report.length", f"{len(data)} bytes are no report in any known form")


def _is_frame(data: bytes) -> bool:
    return data[4:8] == REPORT_BYTES.to_bytes(4, "little") and not any(data[8:FRAME_HEADER])


def _is_extended(data: bytes) -> bool:
    """A report with the host's certificate table right behind it, as guest tools write one file."""
    small = REPORT_BYTES < len(data) <= MAX_EXTENDED_BYTES and not any(data[1:4])  # VERSION is a u32
    return small and any(data[REPORT_BYTES : REPORT_BYTES + 16]) and is_table(data[REPORT_BYTES:])


def _read_frame(data: bytes) -> bytes:
    if any(data[:4]):
        raise Unreadable("snp.report.malformed", "the firmware answered with an error status")
    end = FRAME_HEADER + REPORT_BYTES
    if any(data[end:]):
        raise Unreadable("snp.report.malformed", "something stands behind the report in its frame")
    return data[FRAME_HEADER:end]


def _bundle(data: bytes) -> Evidence:
    stated = read_json(data, limit=MAX_BUNDLE_BYTES)
    match stated:
        case {"form": "configfs-tsm"} | {"outblob": _}:
            tsm = TsmReport.read(data, limit=MAX_BUNDLE_BYTES)
            return read_tsm(tsm.provider, tsm.outblob, tsm.auxblob)
        case {"form": "azure-snp"}:
            return _azure(AzureBundle.read(data, limit=MAX_BUNDLE_BYTES))
    raise Unreadable("snp.report.malformed", 'a JSON bundle states "form": "configfs-tsm" or "azure-snp"')


def read_tsm(provider: str, outblob: bytes, auxblob: bytes | None) -> Evidence:
    """What configfs-tsm gave: the report and the host's certificate table (Linux ABI configfs-tsm).

    auxblob is empty or absent where the host keeps no table. Raises `Unreadable`.
    """
    if provider.strip() != PROVIDER:
        raise Unreadable("snp.report.malformed", f"the provider is {provider.strip()[:MAX_PROVIDER_BYTES]!r}")
    if len(outblob) != REPORT_BYTES:
        raise Unreadable("snp.report.length", f"outblob has {len(outblob)} bytes")
    return Evidence("configfs-tsm", outblob, (auxblob,) if auxblob else ())


def _azure(bundle: AzureBundle) -> Evidence:
    if bundle.hcl_report is not None and bundle.report is None and bundle.runtime_data is None:
        report, parts = read_hcl(bundle.hcl_report)
    elif bundle.hcl_report is None and bundle.report is not None and bundle.runtime_data is not None:
        report, parts = bundle.report, AzureParts(bundle.runtime_data)
    else:
        raise Unreadable("snp.azure.malformed", "either hcl_report, or report and runtime_data")
    if (bundle.quote is None) != (bundle.quote_signature is None):
        raise Unreadable("snp.azure.malformed", "a quote and its signature come together")
    pcrs = tuple(bytes.fromhex(value) for value in bundle.pcrs) if bundle.pcrs else None
    parts = replace(parts, quote=bundle.quote, quote_signature=bundle.quote_signature, pcrs=pcrs)
    return Evidence("azure-snp", report, bundle.endorsements, parts)


def from_folder(files: Mapping[str, bytes]) -> Evidence:
    """The evidence in a folder, by known names. Raises `Unreadable`.

    configfs-tsm: provider, outblob, auxblob. Azure: hcl_report.bin or report.bin with
    runtime_data.json; tpm_quote.bin, tpm_quote_signature.bin, tpm_pcrs.json. Else report.bin.
    """
    if "outblob" in files:
        provider = files.get("provider", b"")[: MAX_PROVIDER_BYTES + 1].decode("ascii", "replace")
        return read_tsm(provider, files["outblob"], files.get("auxblob"))
    if "hcl_report.bin" in files or "runtime_data.json" in files:
        hcl = files.get("hcl_report.bin")
        return _azure(
            AzureBundle(
                form="azure-snp",
                hcl_report=hcl,
                report=None if hcl else files.get("report.bin"),
                runtime_data=None if hcl else files.get("runtime_data.json"),
                quote=files.get("tpm_quote.bin"),
                quote_signature=files.get("tpm_quote_signature.bin"),
                pcrs=_pcr_values(files["tpm_pcrs.json"]) if "tpm_pcrs.json" in files else None,
            )
        )
    if "report.bin" in files:
        return unwrap(files["report.bin"])
    raise Unreadable(
        "snp.report.malformed", "the folder holds neither outblob nor report.bin nor Azure's files"
    )


FOLDER_FILES: Final = (
    "provider", "outblob", "auxblob", "hcl_report.bin", "report.bin", "runtime_data.json",
    "tpm_quote.bin", "tpm_quote_signature.bin", "tpm_pcrs.json",
)  # fmt: skip
"""What `from_folder` looks at."""


def _pcr_values(data: bytes) -> list[str]:
    match read_json(data):
        case list() as values if len(values) == PCRS:
            texts = [value for value in values if isinstance(value, str) and _HASH.fullmatch(value)]
            if len(texts) == PCRS:
                return texts
    raise Unreadable("snp.azure.malformed", f"tpm_pcrs.json is a list of {PCRS} values in hex")
