"""Faults of the report itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from attestation.result import AttestationResult
from attestation.snp.format import P384_ORDER
from attestation.snp.report import HOST_REQUESTED_VMPL
from attestation.snp.tests.faults.listed import FAULTS, MILAN, Fault, asking, fault, stating
from attestation.snp.tests.judging import judge
from attestation.testing.forge import ec_key, sign_report

# --- the report's format -------------------------------------------------------------------------
for version in (0, 1, 6, 2**32 - 1):
    stating("snp.report.version_unsupported", version=version)
asking("snp.report.version_unsupported", report_versions="[5]")
for algorithm in (0, 2, 2**32 - 1):
    stating("snp.report.signature_algorithm", signature_algorithm=algorithm)
stating("snp.report.reserved_nonzero", policy=1 << 16)  # bit 17 clear
for bit in (26, 40, 63):
    stating("snp.report.reserved_nonzero", policy=1 << 17 | 1 << bit)
for info in (1 << 5, 1 << 31, 2 << 2, 6 << 2):
    stating("snp.report.reserved_nonzero", key_info=info)
stating("snp.report.reserved_nonzero", launch_mitigation=1)  # version 3 has no mitigation vectors
stating("snp.report.reserved_nonzero", replace(MILAN, version=2), cpuid=(0x19, 1, 1))
stating("snp.signature.unsigned", key_info=7 << 2)
stating("snp.report.malformed", vmpl=4)
stating("snp.report.malformed", vmpl=HOST_REQUESTED_VMPL - 1)
stating("snp.report.cpuid_unknown", cpuid=(0, 0, 0))
stating("snp.report.cpuid_unknown", cpuid=(0x19, 0x20, 0))
stating("snp.report.cpuid_unknown", cpuid=(0x1A, 0x12, 0))
HIGHER_TCB = MILAN.product.layout.write({**MILAN.tcb, "ucode": 220})
LOWER_TCB = MILAN.product.layout.write({**MILAN.tcb, "tee": 0, "snp": 23})
stating("snp.report.tcb_order", committed_tcb=LOWER_TCB)
stating("snp.report.tcb_order", committed_tcb=HIGHER_TCB)
stating("snp.report.tcb_order", committed_firmware=(1, 55, 41))
stating("snp.report.reserved_nonzero", current_tcb=bytes((4, 0, 1, 0, 0, 0, 24, 219)))


def patched(offset: int, value: bytes) -> bytes:
    unsigned = bytearray(MILAN.unsigned_report())
    unsigned[offset : offset + len(value)] = value
    return sign_report(bytes(unsigned), MILAN.leaf_key)


def _judge_patched(offset: int) -> AttestationResult:
    return judge(MILAN, report=patched(offset, b"\1"))


for _offset in (0x04C, 0x04F, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x1F8, 0x208, 0x29F):
    FAULTS.append(
        Fault(
            "snp.report.reserved_nonzero",
            f"0x{_offset:03x}",
            partial(_judge_patched, _offset),
        )
    )


def resigned(r: int | None = None, s: int | None = None, padding: tuple[int, bytes] = (0, b"")) -> bytes:
    report = bytearray(MILAN.report())
    if r is not None:
        report[0x2A0 : 0x2A0 + 72] = r.to_bytes(72, "little")
    if s is not None:
        report[0x2E8 : 0x2E8 + 72] = s.to_bytes(72, "little")
    at, value = padding
    report[at : at + len(value)] = value if at else b""
    return bytes(report)


def _judge_resigned(r: int | None, s: int | None, padding: tuple[int, bytes] = (0, b"")) -> AttestationResult:
    return judge(MILAN, report=resigned(r, s, padding))


for _r, _s in ((0, 1), (1, 0), (P384_ORDER, 1), (1, P384_ORDER), (2**384 - 1, 1)):
    FAULTS.append(
        Fault(
            "snp.signature.out_of_range",
            f"r={_r:x},s={_s:x}"[:40],
            partial(_judge_resigned, _r, _s),
        )
    )
for _at in (0x2D0, 0x2E7, 0x318, 0x32F, 0x330, 0x49F):
    FAULTS.append(
        Fault(
            "snp.signature.padding_nonzero",
            f"0x{_at:x}",
            partial(_judge_resigned, None, None, (_at, b"\1")),
        )
    )
FAULTS.append(Fault("snp.signature.unsigned", "empty", lambda: judge(MILAN, report=resigned(0, 0))))
FAULTS.append(
    Fault("snp.signature.unsigned", "masked", lambda: judge(MILAN, report=MILAN.unsigned_report(key_info=2)))
)
FAULTS.append(Fault("snp.signature.invalid", "other", lambda: judge(MILAN, report=resigned(1, 1))))


@fault("snp.signature.invalid")
def signed_by_another_key() -> AttestationResult:
    return judge(MILAN, report=sign_report(MILAN.unsigned_report(), ec_key("other")))
