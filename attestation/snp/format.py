"""What a report must look like before any key is touched (AMD 56860, ATTESTATION_REPORT).

Malformed input is refused here, cheaply: no public-key operation is spent on it.
"""

from __future__ import annotations

from operator import le
from typing import Final

from attestation.result import Check, compared, failed, passed
from attestation.snp.products import line_of_cpuid, product_of_cpuid
from attestation.snp.report import HOST_REQUESTED_VMPL, SIGNING_KEYS, Report

VERSIONS: Final = frozenset({2, 3, 4, 5})
"""Versions whose layout is known. 1 was never released; above 5 nothing is known."""

ECDSA_P384_SHA384: Final = 1
P384_ORDER: Final = (
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
)

NAMES: Final = (
    "snp.report.version",
    "snp.report.algorithm",
    "snp.report.signing_key",
    "snp.report.reserved",
    "snp.report.vmpl",
    "snp.report.tcb_order",
    "snp.report.product",
    "snp.signature.encoding",
)
"""Names of the checks, in the order in which they are made."""

_NO_PADDING: Final = bytes(24 + 24 + 368)
_ABI = "AMD 56860 ATTESTATION_REPORT"


def check_layout(report: Report) -> list[Check]:
    """One check per rule of the signed region. An unknown version ends it: nothing behind it can be read."""
    version = compared(
        "snp.report.version", "snp.report.version_unsupported", report.version in VERSIONS,
        str(report.version), "2..5", _ABI,
    )  # fmt: skip
    if version.status == "fail":
        return [version]
    return [
        version,
        compared("snp.report.algorithm", "snp.report.signature_algorithm",
                 report.signature_algorithm == ECDSA_P384_SHA384, str(report.signature_algorithm),
                 "1 (ECDSA P-384 with SHA-384)", _ABI),
        _signing_key(report),
        _reserved(report),
        _vmpl(report),
        _tcb_order(report),
        _product(report),
    ]  # fmt: skip


def _signing_key(report: Report) -> Check:
    name, clause = "snp.report.signing_key", "AMD 56860 KEY_INFO.SIGNING_KEY"
    kind = SIGNING_KEYS.get(report.signing_key)
    if kind is None:
        return failed(name, "snp.report.reserved_nonzero", str(report.signing_key), "VCEK or VLEK", clause)
    if kind == "none":
        return failed(name, "snp.signature.unsigned", kind, "VCEK or VLEK", clause)
    return passed(name, kind, "VCEK or VLEK", clause)


def _reserved(report: Report) -> Check:
    """Everything that the stated version defines as zero is zero, and policy bit 17 is one."""
    faults = [f"0x{offset:03x}" for offset, content in report.reserved if content.count(0) != len(content)]
    if report.policy >> 26 or not report.policy >> 17 & 1:
        faults.append("policy")
    if report.key_info >> 5:
        faults.append("key_info")
    return compared(
        "snp.report.reserved", "snp.report.reserved_nonzero", not faults,
        ", ".join(faults) or "as defined", "as defined", _ABI,
    )  # fmt: skip


def _vmpl(report: Report) -> Check:
    return compared(
        "snp.report.vmpl", "snp.report.malformed",
        report.vmpl <= 3 or report.vmpl == HOST_REQUESTED_VMPL,
        str(report.vmpl), "0..3, or all ones for a report that the host requested", _ABI,
    )  # fmt: skip


def _tcb_order(report: Report) -> Check:
    """REPORTED ≤ COMMITTED ≤ CURRENT in every part. Byte by byte it holds for each layout alike."""
    reported, committed, current = report.reported_tcb, report.committed_tcb, report.current_tcb
    holds = (
        (reported == committed or all(map(le, reported, committed)))
        and (committed == current or all(map(le, committed, current)))
        and report.committed_firmware <= report.current_firmware
    )
    return compared(
        "snp.report.tcb_order", "snp.report.tcb_order", holds,
        f"{reported.hex()} {committed.hex()} {current.hex()}", "reported ≤ committed ≤ current",
        "AMD 56860 TCB_VERSION",
    )  # fmt: skip


def _product(report: Report) -> Check:
    name, clause = "snp.report.product", "AMD 56860 CPUID_FAM_ID, CPUID_MOD_ID"
    if report.version < 3:
        return passed(name, "not stated in version 2", "taken from the certificate", clause)
    family, model, stepping = report.cpuid
    seen = f"{line_of_cpuid(family, model)} ({family:02x}h {model:02x}h {stepping})"
    if product_of_cpuid(family, model) is None:
        return failed(name, "snp.report.cpuid_unknown", seen, "a known product line", clause)
    return passed(name, seen, "a known product line", clause)


def check_encoding(report: Report) -> Check:
    """Nothing from 0x2A0 on is signed, so it is demanded in its one canonical spelling."""
    name, clause = "snp.signature.encoding", "AMD 56860 SIGNATURE; FIPS 186-5 6.4.2"
    if report.signature_padding != _NO_PADDING:
        return failed(name, "snp.signature.padding_nonzero", "padding set", "zero", clause)
    if report.r == report.s == 0:
        # A masked chip key leaves the signature empty, whatever the selector says.
        seen = "chip key masked" if report.chip_key_masked else "empty"
        return failed(name, "snp.signature.unsigned", seen, "a signature", clause)
    if not (0 < report.r < P384_ORDER and 0 < report.s < P384_ORDER):
        return failed(name, "snp.signature.out_of_range", "r or s outside", "0 < r, s < n", clause)
    return passed(name, "canonical", "canonical", clause)
