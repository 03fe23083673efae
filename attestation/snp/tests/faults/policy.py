"""Evidence that is good and not what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from attestation.result import AttestationResult
from attestation.snp.report import HOST_REQUESTED_VMPL
from attestation.snp.tests.faults.listed import FAULTS, MILAN, TURIN, VLEK, Fault, asking, fault, stating
from attestation.snp.tests.faults.report import HIGHER_TCB
from attestation.snp.tests.judging import demanding, judge
from attestation.testing.forge import Forge

# --- expectations --------------------------------------------------------------------------------
asking("snp.deny.product", products='["Genoa", "Turin"]')
stating("snp.policy.debug_enabled", policy=1 << 17 | 1 << 19)
stating("snp.policy.migration_allowed", policy=1 << 17 | 1 << 18)
asking("snp.policy.abi_too_old", abi_min='"0.32"')
asking("snp.policy.abi_too_old", abi_min='"1.0"')
asking("snp.policy.bit_required", policy_required='["single_socket"]')
asking("snp.policy.bit_forbidden", policy_forbidden='["smt"]')
asking("snp.platform.bit_required", platform_required='["tsme_en"]')
asking("snp.platform.bit_forbidden", platform_forbidden='["smt_en"]')
stating("snp.platform.alias_check_incomplete", platform_info=0x05)
FAULTS.append(
    Fault(
        "snp.platform.alias_check_incomplete", "version-2-required",
        lambda: judge(
            replace(MILAN, version=2), report=replace(MILAN, version=2).report(platform_info=0x05),
            expectations=demanding(MILAN, alias_check='"required"'),
        ),
    )
)  # fmt: skip
FAULTS.append(
    Fault(
        "snp.platform.unknown_bits", "bit-8",
        lambda: judge(
            MILAN, report=MILAN.report(platform_info=0x125),
            expectations=demanding(MILAN, unknown_platform_bits='"refuse"'),
        ),
    )
)  # fmt: skip


def _floor(name: str, forge: Forge, **parts: int) -> dict[str, Any]:
    levels = ", ".join(f"{part} = {parts.get(part, 0)}" for part in forge.tcb)
    return {f"{name}_tcb_min": f"{{ {levels} }}", "products": f'["{forge.product.name}"]'}


for _name, _code in (
    ("reported", "snp.tcb.reported_too_old"),
    ("committed", "snp.tcb.committed_too_old"),
    ("launch", "snp.tcb.launch_too_old"),
    ("current", "snp.tcb.current_too_old"),
):
    asking(_code, MILAN, **_floor(_name, MILAN, ucode=220))
    asking(_code, TURIN, **_floor(_name, TURIN, fmc=2))
asking("snp.tcb.firmware_too_old", firmware_min='"1.55.41"')
asking("snp.tcb.firmware_too_old", committed_firmware_min='"1.56.0"')
asking("snp.tcb.mitigation_missing", launch_mitigation_required="1")  # version 3 has none
asking("snp.tcb.mitigation_missing", TURIN, current_mitigation_required="4")


def provisional(word: str) -> AttestationResult:
    report = MILAN.report(current_tcb=HIGHER_TCB)
    return judge(MILAN, report=report, expectations=demanding(MILAN, provisional=f'"{word}"'))


FAULTS.append(Fault("snp.tcb.provisional", "refuse", lambda: provisional("refuse")))
FAULTS.append(Fault("snp.tcb.provisional", "warning", lambda: provisional("warning"), "warning"))
FAULTS.append(
    Fault(
        "snp.tcb.provisional", "firmware alone",
        lambda: judge(
            MILAN, report=MILAN.report(current_firmware=(1, 55, 41)),
            expectations=demanding(MILAN, provisional='"refuse"'),
        ),
    )
)  # fmt: skip
for _vmpl in (1, 2, 3, HOST_REQUESTED_VMPL):
    stating("snp.vmpl.not_allowed", vmpl=_vmpl)
FAULTS.append(
    Fault(
        "snp.vmpl.not_allowed", "host-requested-under-any",
        lambda: judge(
            MILAN, report=MILAN.report(vmpl=HOST_REQUESTED_VMPL), expectations=demanding(MILAN, vmpl='"any"')
        ),
    )
)  # fmt: skip
asking("snp.measurement.mismatch", measurement=f'["{"00" * 48}"]')
asking("snp.report_data.mismatch", report_data=f'["{"01" * 64}"]')
FAULTS.append(Fault("snp.report_data.mismatch", "nonce", lambda: judge(MILAN, nonce=bytes([1]) * 64)))
FAULTS.append(Fault("snp.report_data.mismatch", "short-nonce", lambda: judge(MILAN, nonce=bytes(32))))
asking("snp.host_data.mismatch", host_data=f'["{"01" * 32}"]')
asking("snp.id_key.mismatch", id_key_digest=f'["{"01" * 48}"]')
asking("snp.author_key.mismatch", author_key_digest=f'["{"01" * 48}"]')
FAULTS.append(
    Fault(
        "snp.author_key.mismatch", "digest-without-the-bit",
        lambda: judge(
            MILAN, report=MILAN.report(author_key_digest=b"\1" * 48),
            expectations=demanding(MILAN, author_key_digest=f'["{"01" * 48}"]'),
        ),
    )
)  # fmt: skip
asking("snp.family_id.mismatch", family_id=f'["{"01" * 16}"]')
asking("snp.image_id.mismatch", image_id=f'["{"01" * 16}"]')
asking("snp.guest_svn.too_old", guest_svn_min="2")
asking("snp.cert.csp_not_allowed", VLEK, csp_ids="[]")
asking("snp.cert.csp_not_allowed", VLEK, csp_ids='["CN=another"]')


# --- deny-lists ----------------------------------------------------------------------------------
def denial(kind: str, value: str, effect: str = "deny", start: str = "2026-01-01T00:00:00Z") -> str:
    return (
        f'[[deny]]\nkind = "{kind}"\nvalue = "{value}"\neffect = "{effect}"\nfrom = "{start}"\n'
        'reason = "a test"\nauthor = "a tester"\ndate = "2026-01-01"\n'
    )


def denied(forge: Forge, *entries: str, **report: Any) -> AttestationResult:
    return judge(
        forge, report=forge.report(**report), expectations=demanding(forge, tables="\n".join(entries))
    )


def _deny(
    code: str, name: str, make: Callable[[], AttestationResult], verdict: str = "contraindicated"
) -> None:
    FAULTS.append(Fault(code, f"deny-{name}", make, verdict))


_CHIP = MILAN.chip_id.hex()
_deny("snp.deny.product", "product", lambda: denied(MILAN, denial("product", "Milan")))
_deny(
    "snp.deny.product", "downrank", lambda: denied(MILAN, denial("product", "Milan", "downrank")), "warning"
)
_deny(
    "snp.deny.chip", "chip", lambda: denied(MILAN, denial("chip", _CHIP, "downrank"), denial("chip", _CHIP))
)
_deny("snp.deny.chip", "short-chip", lambda: denied(TURIN, denial("chip", TURIN.hwid.hex())))
_deny("snp.deny.undecidable", "masked", lambda: denied(VLEK, denial("chip", _CHIP)), "none")
_deny("snp.deny.csp", "csp", lambda: denied(VLEK, denial("csp", "CN=cc-test-1.example.com")))
_deny("snp.deny.report", "report", lambda: denied(MILAN, denial("report", "ab" * 32), report_id=b"\xab" * 32))
_deny(
    "snp.deny.measurement",
    "measurement",
    lambda: denied(MILAN, denial("measurement", "ab" * 48), measurement=b"\xab" * 48),
)


@fault("snp.deny.key")
def a_denied_key() -> AttestationResult:
    from attestation.pki.x509 import read_certificate

    return denied(MILAN, denial("key", read_certificate(MILAN.leaf()).spki_fingerprint))
