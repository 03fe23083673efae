"""Faults in the TCB and against what the relying party asks."""

from __future__ import annotations

from functools import partial
from typing import Any

from attestation.tdx.tests.faults.listed import asking, fault, made
from attestation.tdx.tests.judging import GOOD, SGX, TD15, TD15_EX, but, judge
from attestation.testing.intel_documents import module, platform_level, svn_level
from schemas.canonical import sha256

DATE, OLD = "2025-05-14T00:00:00Z", "2024-03-13T00:00:00Z"


def svns(first: int, version: int, rest: int = 5) -> bytes:
    """TEE_TCB_SVN: the module's SVN and version, then fourteen components."""
    return bytes([first, version]) + bytes([rest]) * 14


def level(
    status: str, *, sgx: int = 5, tdx: int = 5, date: str = DATE, advisories: Any = ()
) -> dict[str, Any]:
    return {"tcbLevels": [platform_level(sgx, tdx, status, date, advisories)]}


# 4.1: the platform
made("tcb_level_not_found", "SGX component", components=(5,) * 15 + (2,))
made("tcb_level_not_found", "PCESVN", pcesvn=10)
made("tcb_level_not_found", "TDX component", body={"tcb_svn": svns(5, 1, 2)})
made("tcb_level_not_found", "no levels", info={"tcbLevels": []})
made("tcb_level_not_found", "SGX's", SGX, components=(2,) * 16)
made("tcb_level_not_found", "module version 0: its two components count", body={"tcb_svn": svns(2, 0)})
made("tcb_level_not_found", "current only", TD15, body={"tcb_svn2": svns(5, 1, 2)})

# 4.2: the module
made("tdx_module_not_supported", "version that no identity names", body={"tcb_svn": svns(5, 2)})
made("tdx_module_not_supported", "no identities at all", info={"tdxModuleIdentities": None})
made("tdx_module_not_supported", "SVN below every level", body={"tcb_svn": svns(1, 1)})
made("tdx_module_not_supported", "current version", TD15, body={"tcb_svn2": svns(5, 2)})
made("tdx_module_mismatch", "signer", body={"mrsignerseam": b"\1" + bytes(47)})
made("tdx_module_mismatch", "attributes", body={"seam_attributes": b"\1" + bytes(7)})
made(
    "tdx_module_mismatch",
    "signer in the identity",
    info={"tdxModuleIdentities": [module(mrsigner="11" * 48)]},
)
made("tdx_module_mismatch", "attributes that the mask leaves free",
     body={"seam_attributes": b"\1" + bytes(7)},
     info={"tdxModuleIdentities": [module(attributesMask="00" * 8)]})  # fmt: skip
made("tdx_module_mismatch", "attributes that must be set",
     info={"tdxModuleIdentities": [module(attributes="01" + "00" * 7)]})  # fmt: skip
FOREIGN: dict[str, Any] = {"mrsigner": "11" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
made("tdx_module_mismatch", "version 0: tdxModule's signer", body={"tcb_svn": svns(5, 0)},
     info={"tdxModule": FOREIGN})  # fmt: skip

# 4.3: the quoting enclave
made("qe_debug", "TDX", qe={"attributes": b"\x17" + bytes(15)})
made("qe_debug", "an identity that allows it", SGX, qe={"attributes": b"\x17" + bytes(15)},
     identity={"attributesMask": "F9" + "FF" * 15})  # fmt: skip
made("qe_identity_mismatch", "MRSIGNER", qe={"mrsigner": bytes(32)})
made("qe_identity_mismatch", "ISVPRODID", qe={"isvprodid": 1})
made("qe_identity_mismatch", "MISCSELECT", qe={"miscselect": 0x04030201})
made("qe_identity_mismatch", "ATTRIBUTES", qe={"attributes": b"\x05" + bytes(15)})
made("qe_isvsvn_not_supported", "below every level", qe={"isvsvn": 1})

# 4.4 to 4.6: status
for status in (
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
):
    made("tcb_status_not_accepted", status, info=level(status))
made("tcb_status_not_accepted", "module out of date", body={"tcb_svn": svns(2, 1)})
made("tcb_status_not_accepted", "QE out of date", qe={"isvsvn": 2})
made("tcb_revoked", "platform", info=level("Revoked"))
made("tcb_revoked", "QE", identity={"tcbLevels": [svn_level(1, "Revoked", DATE)]})
made("tcb_revoked", "module", info={"tdxModuleIdentities": [module("TDX_01", svn_level(1, "Revoked", DATE))]})
fault("tcb_revoked", "whatever is accepted", lambda: judge(but(info=level("Revoked")), tcb_status='"any"'))
made("tcb_status_not_accepted", "relaunch advised", TD15, body={"tcb_svn": svns(2, 1)})
made("SWHardeningNeeded", "accepted with a reservation", verdict="warning", info=level("SWHardeningNeeded"))
asking("tcb_date_too_old", "below the floor", tcb_date_min='"2025-05-15T00:00:00Z"')
asking(
    "tcb_date_too_old", "the enclave's level is older than the platform's",
    but(identity={"tcbLevels": [svn_level(4, "UpToDate", "2025-04-01T00:00:00Z")]}),
    tcb_date_min='"2025-05-14T00:00:00Z"',
)  # fmt: skip
fault(
    "advisory_denied",
    "denied",
    lambda: judge(
        but(info=level("SWHardeningNeeded", advisories=["INTEL-SA-00615"])),
        advisories_denied='["INTEL-SA-00615"]',
    ),
)
fault(
    "advisory_denied",
    "not tolerated",
    lambda: judge(
        but(info=level("SWHardeningNeeded", advisories=["INTEL-SA-00615"])),
        advisories_tolerated='["INTEL-SA-00001"]',
    ),
)
fault("advisory_denied", "of the current TCB", lambda: judge(
    but(TD15, info={"tcbLevels": [platform_level(5, 6, "UpToDate", DATE),
                                  platform_level(5, 5, "SWHardeningNeeded", DATE, ["INTEL-SA-9"])]},
        body={"tcb_svn": svns(6, 1, 6)}), advisories_denied='["INTEL-SA-9"]'))  # fmt: skip

# Section 7.2: what the relying party asks
for bit in range(8):
    made(
        "debug_enabled",
        f"TD attribute bit {bit}",
        body={"td_attributes": bytes([1 << bit, 0, 0, 0x10, 0, 0, 0, 0])},
    )
made("debug_enabled", "enclave", SGX, body={"attributes": b"\x07" + bytes(15)})
NOTHING = "00" * 48
for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig", "mrseam",
             "mrsignerseam"):  # fmt: skip
    asking("measurement_mismatch", name, **{name: f'["{"77" * 48}", "{"78" * 48}"]'})
for name in ("mrenclave", "mrsigner"):
    asking("measurement_mismatch", name, SGX, **{name: f'["{"77" * 32}"]'})
asking("measurement_mismatch", "isvprodid", SGX, isvprodid="[8]")
asking("measurement_mismatch", "isvsvn", SGX, isvsvn_min="4")
asking("report_data_mismatch", "TDX", report_data=f'["{"34" * 64}"]')
asking("report_data_mismatch", "SGX", SGX, report_data=f'["{"34" * 64}"]')
fault("report_data_mismatch", "nonce", lambda: judge(GOOD, nonce=bytes(64)))
fault("report_data_mismatch", "nonce that is too short", lambda: judge(GOOD, nonce=b"\x33" * 32))
ZERO8, ZERO16 = "00" * 8, "00" * 16
asking("td_attributes_not_allowed", "a bit that must be set",
       td_attributes=f'{{ required = "0000004000000000", forbidden = "{ZERO8}" }}')  # fmt: skip
asking("td_attributes_not_allowed", "a bit that must not be set",
       td_attributes=f'{{ required = "{ZERO8}", forbidden = "0000001000000000" }}')  # fmt: skip
asking("td_attributes_not_allowed", "enclave", SGX,
       attributes=f'{{ required = "{ZERO16}", forbidden = "04{ZERO16[2:]}" }}')  # fmt: skip
asking("xfam_not_allowed", "required", xfam=f'{{ required = "08{ZERO8[2:]}", forbidden = "{ZERO8}" }}')
asking("xfam_not_allowed", "forbidden", xfam=f'{{ required = "{ZERO8}", forbidden = "01{ZERO8[2:]}" }}')
made("td_attributes_not_allowed", "SEPT_VE_DISABLE clear", body={"td_attributes": bytes(8)})
made("service_td_not_allowed", "a service TD", TD15, body={"mrservicetd": b"\1" * 48})
fault(
    "service_td_not_allowed",
    "another service TD",
    lambda: judge(
        but(TD15, body={"mrservicetd": b"\1" * 48}), profile='"service-td"', mrservicetd=f'["{"02" * 48}"]'
    ),
)
for which in ("init_servicetd", "current_servicetd"):
    made("service_td_not_allowed", which, TD15_EX, body={which: b"\1" * 48})
    fault(
        "service_td_not_allowed",
        f"another {which}",
        partial(
            judge, but(TD15_EX, body={"mrservicetd": b"\2" * 48, which: b"\1" * 48}),
            profile='"service-td"', mrservicetd=f'["{"02" * 48}"]',
        ),
    )  # fmt: skip
made("vm_not_allowed", "asked for by a VM inside", TD15_EX, body={"vmid": b"\1"})
made("tcb_level_not_found", "extended, current only", TD15_EX, body={"tcb_svn2": svns(5, 1, 2)})
made("debug_enabled", "extended", TD15_EX, body={"td_attributes": bytes.fromhex("0100001000000000")})
asking("platform_not_allowed", "FMSPC not listed", fmspcs='["000000000000"]')
asking("platform_not_allowed", "FMSPC denied", fmspcs_denied='["00806f050000"]')
asking("platform_not_allowed", "platform not listed", platforms=f'["{"00" * 32}"]')
asking("platform_not_allowed", "platform denied",
       platforms_denied=f'["{sha256(GOOD.ppid).hex()}"]')  # fmt: skip
asking("platform_not_allowed", "SGX type", sgx_types='["standard"]')
for flag in ("dynamic_platform", "cached_keys", "smt_enabled"):
    asking("platform_not_allowed", flag, platform_refused=f'["{flag}"]')
