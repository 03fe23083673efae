"""What a report states, as plain JSON for people and logs. Display only: nothing is judged here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from attestation.endorsements import gather
from attestation.pki.x509 import read_certificate
from attestation.snp.azure import AzureParts, read_quote
from attestation.snp.forms import Evidence
from attestation.snp.origin.chain import Chain
from attestation.snp.products import line_of_cpuid, product_of_cpuid
from attestation.snp.report import PLATFORM_BITS, POLICY_BITS, SIGNING_KEYS, Report
from schemas.canonical import Json
from schemas.errors import Refused, Unreadable
from schemas.primitives import format_time


def state(report: Report, chain: Chain | None = None) -> dict[str, Json]:
    """Every field by name; TCBs in parts once the product is known."""
    stated = product_of_cpuid(*report.cpuid[:2]) if report.version >= 3 else None
    product = chain.product if chain else stated
    return {
        "version": report.version,
        "product": product.name if product else None,
        "cpu": line_of_cpuid(*report.cpuid[:2]) if report.version >= 3 else None,
        "cpuid": list(report.cpuid) if report.version >= 3 else None,
        "guest_svn": report.guest_svn,
        "vmpl": report.vmpl,
        "policy": _bits(report.policy, POLICY_BITS, abi_min=f"{report.abi[0]}.{report.abi[1]}"),
        "platform_info": _bits(report.platform_info, PLATFORM_BITS),
        "signing_key": SIGNING_KEYS.get(report.signing_key, f"reserved ({report.signing_key})"),
        "author_key_enabled": report.author_key_enabled,
        "chip_key_masked": report.chip_key_masked,
        "measurement": report.measurement.hex(),
        "report_data": report.report_data.hex(),
        "host_data": report.host_data.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "report_id": report.report_id.hex(),
        "report_id_ma": report.report_id_ma.hex(),
        "chip_id": report.chip_id.hex(),
        "tcb": {
            name: dict(product.layout.read(raw)) if product else raw.hex()
            for name, raw in report.tcbs().items()
        },
        "firmware": {
            "current": ".".join(map(str, report.current_firmware)),
            "committed": ".".join(map(str, report.committed_firmware)),
        },
        "mitigation": _mitigation(report) if report.version >= 5 else None,
        "identity": report.identity.hex(),
    }


def _bits(value: int, names: Mapping[str, int], **more: Json) -> dict[str, Json]:
    return {"raw": f"0x{value:x}", **more, **{name: bool(value >> bit & 1) for name, bit in names.items()}}


def _mitigation(report: Report) -> dict[str, Json]:
    return {"launch": f"0x{report.launch_mitigation:x}", "current": f"0x{report.current_mitigation:x}"}


def state_form(evidence: Evidence) -> dict[str, Json]:
    """What came along with a report: certificates by name and end, a vTPM's quote. Nothing is verified."""
    stated: dict[str, Json] = {"form": evidence.form}
    if evidence.endorsements:
        stated["endorsements"] = _documents(evidence.endorsements)
    if evidence.azure is not None:
        stated["azure"] = _azure(evidence.azure)
    return stated


def _documents(documents: tuple[bytes, ...]) -> list[Json]:
    try:
        found = gather(documents)
    except Unreadable as error:
        return [f"cannot be read: {error.text}"]
    return [*map(_certificate, found.certificates), *("a CRL" for _ in found.crls)]


def _certificate(der: bytes) -> str:
    try:
        certificate = read_certificate(der)
    except Unreadable as error:
        return f"a certificate that cannot be read: {error.text}"
    end = format_time(datetime.fromtimestamp(certificate.not_after, UTC))
    return f"{certificate.common_name} by {certificate.issuer_common_name}, until {end}"


def _azure(parts: AzureParts) -> dict[str, Json]:
    runtime = parts.runtime_data.decode("utf-8", "replace")
    if parts.quote is None:
        return {"runtime_data": runtime, "quote": None}
    try:
        quote = read_quote(parts.quote)
    except Refused as error:
        return {"runtime_data": runtime, "quote": f"cannot be read: {error.text}"}
    return {
        "runtime_data": runtime,
        "quote": {
            "nonce": quote.extra_data.hex(),
            "pcrs": list(quote.selected),
            "pcr_digest": quote.pcr_digest.hex(),
        },
    }
