"""Azure's trust domains: a quote made at boot, whose report data names the vTPM that answers ever after.

As on SEV-SNP (attestation/snp/azure.py, which holds every link): the report data is the hash of runtime data
with the vTPM's key, whose quote is fresh and vouches for PCRs. MRTD is then the paravisor's, and PCRs speak
for what runs above it. Only the profile of that name takes them for the guest's.
"""

from __future__ import annotations

from attestation.result import Check
from attestation.snp.azure import AzureParts, check_azure, check_no_vtpm
from attestation.tdx.expected import QuotePolicy

_SNP, _TDX = "snp.azure.", "tdx.azure."


def check_vtpm(
    parts: AzureParts | None, report_data: bytes, policy: QuotePolicy | None, nonce: bytes | None
) -> list[Check]:
    """From the quote's report data to the PCRs; a demand for PCRs without a vTPM cannot be decided."""
    wanted = policy.pcrs if policy is not None else {}
    if parts is None:
        return [_ours(check_no_vtpm(wanted))] if wanted else []
    return [_ours(check) for check in check_azure(parts, report_data, nonce=nonce, wanted=wanted)]


def _ours(check: Check) -> Check:
    """Under this room's name, the name and the code."""
    code = None if check.code is None else check.code.replace(_SNP, _TDX, 1)
    return check._replace(name=check.name.replace(_SNP, _TDX, 1), code=code)
