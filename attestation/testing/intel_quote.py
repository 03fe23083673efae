"""The bytes of a quote, assembled from its parts, right or wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from attestation.tdx.quote import QE_VENDOR
from attestation.testing.intel_documents import QE_SIGNER

_TD: Final = (
    ("tcb_svn", 16), ("mrseam", 48), ("mrsignerseam", 48), ("seam_attributes", 8), ("td_attributes", 8),
    ("xfam", 8), ("mrtd", 48), ("mrconfigid", 48), ("mrowner", 48), ("mrownerconfig", 48), ("rtmr0", 48),
    ("rtmr1", 48), ("rtmr2", 48), ("rtmr3", 48), ("report_data", 64), ("tcb_svn2", 16), ("mrservicetd", 48),
    ("vmid", 1), ("td_id", 32), ("devinfo", 48), ("init_servicetd", 48), ("init_servicetd_attributes", 8),
    ("init_cpusvn", 16), ("init_tcb_svn", 16), ("init_fmspc", 12), ("current_servicetd", 48),
    ("current_servicetd_attributes", 8),
)  # fmt: skip
GOOD_TD: Final[dict[str, bytes]] = {
    "tcb_svn": bytes([5, 1]) + bytes([5]) * 14,
    "tcb_svn2": bytes([5, 1]) + bytes([5]) * 14,
    "mrseam": b"\x5e" * 48,
    "td_attributes": bytes.fromhex("0000001000000000"),
    "xfam": bytes.fromhex("e700060000000000"),
    "mrtd": b"\x11" * 48,
    "rtmr0": b"\x20" * 48,
    "rtmr1": b"\x21" * 48,
    "rtmr2": b"\x22" * 48,
    "report_data": b"\x33" * 64,
}


def td_body(changes: Mapping[str, Any], size: int = 584) -> bytes:
    """A TD report; what is not named is as in the good one, or zero."""
    fields = {**GOOD_TD, **changes}
    return b"".join(fields.get(name, bytes(length)) for name, length in _TD)[:size]


def sgx_body(changes: Mapping[str, Any]) -> bytes:
    """An enclave's report."""
    fields = {
        "cpusvn": bytes(16), "miscselect": 0, "attributes": b"\x05" + bytes(15), "mrenclave": b"\x41" * 32,
        "mrsigner": b"\x42" * 32, "isvprodid": 7, "isvsvn": 3, "report_data": b"\x33" * 64, **changes,
    }  # fmt: skip
    return struct.pack(
        "<16sI12x16x16s32s32x32s32x64xHHH42x16x64s", fields["cpusvn"], fields["miscselect"],
        fields["attributes"], fields["mrenclave"], fields["mrsigner"], fields["isvprodid"], fields["isvsvn"],
        0, fields["report_data"],
    )  # fmt: skip


def qe_body(changes: Mapping[str, Any]) -> bytes:
    """The report of the quoting enclave that the good identity describes."""
    good = {"miscselect": 0x01020304, "attributes": b"\x15" + bytes(15), "mrsigner": QE_SIGNER,
            "isvprodid": 2, "isvsvn": 4}  # fmt: skip
    return sgx_body({**good, **changes})


Shape = Callable[[Mapping[str, Any]], tuple[int, bytes, bytes]]
QUOTE_BODIES: Final[dict[str, Shape]] = {
    "v3 sgx": lambda changes: (3, b"", sgx_body(changes)),
    "v4": lambda changes: (4, b"", td_body(changes)),
    "v4 sgx": lambda changes: (4, b"", sgx_body(changes)),
    "v5 sgx": lambda changes: (5, struct.pack("<HI", 1, 384), sgx_body(changes)),
    "v5 td10": lambda changes: (5, struct.pack("<HI", 2, 584), td_body(changes)),
    "v5 td15": lambda changes: (5, struct.pack("<HI", 3, 648), td_body(changes, 648)),
    "v5 td15ex": lambda changes: (5, struct.pack("<HI", 4, 885), td_body(changes, 885)),
}
"""Shape → (version, what stands before the body, body)."""


def header(version: int, tee: str) -> bytes:
    return struct.pack("<HHI4s16s20s", version, 2, 0x81 if tee == "tdx" else 0, b"", QE_VENDOR, b"simulated")


def assemble(
    version: int,
    signed: bytes,
    signature: bytes,
    attestation_key: bytes,
    qe_report: bytes,
    qe_signature: bytes,
    auth_data: bytes,
    kind: int,
    certification: bytes,
) -> bytes:
    """Everything behind the signed part, in the layout of its version."""
    qe = qe_report + qe_signature + struct.pack("<H", len(auth_data)) + auth_data
    qe += struct.pack("<HI", kind, len(certification)) + certification
    wrapped = qe if version == 3 else struct.pack("<HI", 6, len(qe)) + qe
    data = signature + attestation_key + wrapped
    return signed + struct.pack("<I", len(data)) + data
