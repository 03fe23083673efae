"""What a report states, as plain JSON for people and logs. Display only: nothing is judged here."""

from __future__ import annotations

from attestation.snp.chain import Chain
from attestation.snp.products import line_of_cpuid, product_of_cpuid
from attestation.snp.report import PLATFORM_BITS, POLICY_BITS, SIGNING_KEYS, Report
from schemas.canonical import Json


def state(report: Report, chain: Chain | None = None) -> dict[str, Json]:
    """Every field by name; TCBs in parts once the product is known."""
    product = chain.product if chain else product_of_cpuid(*report.cpuid[:2])
    tcbs: dict[str, Json] = {}
    for name, raw in report.tcbs().items():
        tcbs[name] = dict(product.layout.read(raw)) if product else raw.hex()
    return {
        "version": report.version,
        "product": product.name if product else None,
        "cpu": line_of_cpuid(*report.cpuid[:2]) if report.version >= 3 else None,
        "cpuid": list(report.cpuid) if report.version >= 3 else None,
        "guest_svn": report.guest_svn,
        "vmpl": report.vmpl,
        "policy": {
            "raw": f"0x{report.policy:x}",
            "abi_min": f"{report.abi[0]}.{report.abi[1]}",
            **{name: bool(report.policy >> bit & 1) for name, bit in POLICY_BITS.items()},
        },
        "platform_info": {
            "raw": f"0x{report.platform_info:x}",
            **{name: bool(report.platform_info >> bit & 1) for name, bit in PLATFORM_BITS.items()},
        },
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
        "tcb": tcbs,
        "firmware": {
            "current": ".".join(map(str, report.current_firmware)),
            "committed": ".".join(map(str, report.committed_firmware)),
        },
        "mitigation": {
            "launch": f"0x{report.launch_mitigation:x}",
            "current": f"0x{report.current_mitigation:x}",
        }
        if report.version >= 5
        else None,
        "identity": report.identity.hex(),
    }
