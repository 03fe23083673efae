"""The attestation report of SEV-SNP: 1,184 bytes, read at fixed offsets (AMD 56860, ATTESTATION_REPORT).

Reading never judges: `check_format` (snp/format.py) does. A report's identity is the hash of the
region that is signed, because whatever stands behind it can be changed by anyone.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from schemas.canonical import sha256
from schemas.errors import Unreadable

REPORT_BYTES: Final = 1184  # 0x4A0
SIGNED_BYTES: Final = 672  # 0x2A0: nothing from here on is covered by the signature
HOST_REQUESTED_VMPL: Final = 0xFFFF_FFFF

_FIELDS: Final = struct.Struct(
    "<II8s16s16sII8s8sI4s64s48s32s48s48s32s32s8sBBB21s64s8s4s4s8s8s8s152s72s72s368s"
)
assert _FIELDS.size == REPORT_BYTES


POLICY_BITS: Final = {
    "smt": 16,
    "migrate_ma": 18,
    "debug": 19,
    "single_socket": 20,
    "cxl_allow": 21,
    "mem_aes_256_xts": 22,
    "rapl_dis": 23,
    "ciphertext_hiding_dram": 24,
    "page_swap_disable": 25,
}
"""Guest policy, 56860 table 10. Bit 17 is always one, 63:26 always zero."""

PLATFORM_BITS: Final = {
    "smt_en": 0,
    "tsme_en": 1,
    "ecc_en": 2,
    "rapl_dis": 3,
    "ciphertext_hiding_dram_en": 4,
    "alias_check_complete": 5,
    "iommu_write_safe": 6,
    "tio_en": 7,
}
"""PLATFORM_INFO. Bit 6 is set on real Turin machines; its name is not confirmed."""

KNOWN_PLATFORM_MASK: Final = 0xFF

SIGNING_KEYS: Final = {0: "VCEK", 1: "VLEK", 7: "none"}


class Report(NamedTuple):
    """What a report states. TCBs stay raw (8 bytes): their meaning depends on the product.

    A tuple, because one is made for every verification and a dataclass costs five times as much.
    """

    raw: bytes
    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    current_tcb: bytes
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid: tuple[int, int, int]
    """Family, model, stepping; zeros in version 2."""
    chip_id: bytes
    committed_tcb: bytes
    current_firmware: tuple[int, int, int]
    """Major, minor, build."""
    committed_firmware: tuple[int, int, int]
    launch_tcb: bytes
    launch_mitigation: int
    current_mitigation: int
    r: int
    s: int
    reserved: tuple[tuple[int, bytes], ...]
    """(offset, bytes) of everything that must be zero in the stated version."""
    signature_padding: bytes

    @property
    def signed(self) -> bytes:
        """The bytes that the signature covers."""
        return self.raw[:SIGNED_BYTES]

    @property
    def identity(self) -> bytes:
        """SHA-256 of the signed region: the report's name for replay, caching and receipts."""
        return sha256(self.raw[:SIGNED_BYTES])

    @property
    def signing_key(self) -> int:
        return self.key_info >> 2 & 7

    @property
    def author_key_enabled(self) -> bool:
        return bool(self.key_info & 1)

    @property
    def chip_key_masked(self) -> bool:
        return bool(self.key_info & 2)

    @property
    def abi(self) -> tuple[int, int]:
        """The minimum firmware ABI that the guest's owner demands: major, minor."""
        return self.policy >> 8 & 0xFF, self.policy & 0xFF

    @property
    def debug(self) -> bool:
        return bool(self.policy >> POLICY_BITS["debug"] & 1)

    def tcbs(self) -> dict[str, bytes]:
        """The four TCB values by name, raw."""
        return {
            "reported": self.reported_tcb,
            "committed": self.committed_tcb,
            "current": self.current_tcb,
            "launch": self.launch_tcb,
        }


def read_report(data: bytes) -> Report:
    """Read exactly 1,184 bytes. Raises `Unreadable` (`snp.report.length`) and nothing else."""
    _check_length(data)
    (version, guest_svn, policy, family_id, image_id, vmpl, algorithm, current_tcb, platform_info,
     key_info, zero_04c, report_data, measurement, host_data, id_key, author_key, report_id, report_id_ma,
     reported_tcb, family, model, stepping, zero_18b, chip_id, committed_tcb, firmware, committed_firmware,
     launch_tcb, launch_mitigation, current_mitigation, zero_208, r, s, zero_330,
     ) = _FIELDS.unpack(data)  # fmt: skip
    reserved = [
        (0x04C, zero_04c),
        (0x18B, zero_18b),
        (0x1EB, firmware[3:]),
        (0x1EF, committed_firmware[3:]),
        (0x208, zero_208),
    ]
    if version < 3:  # CPUID came with version 3
        reserved.append((0x188, bytes((family, model, stepping))))
    if version < 5:  # mitigation vectors came with version 5
        reserved.append((0x1F8, launch_mitigation + current_mitigation))
    return Report(
        data, version, guest_svn, int.from_bytes(policy, "little"), family_id, image_id, vmpl, algorithm,
        current_tcb, int.from_bytes(platform_info, "little"), key_info, report_data, measurement, host_data,
        id_key, author_key, report_id, report_id_ma, reported_tcb, (family, model, stepping), chip_id,
        committed_tcb, (firmware[2], firmware[1], firmware[0]),
        (committed_firmware[2], committed_firmware[1], committed_firmware[0]), launch_tcb,
        int.from_bytes(launch_mitigation, "little"), int.from_bytes(current_mitigation, "little"),
        int.from_bytes(r[:48], "little"), int.from_bytes(s[:48], "little"), tuple(reserved),
        r[48:] + s[48:] + zero_330,
    )  # fmt: skip


def standing_of(data: bytes) -> bytes:
    """What a guest says again in every report: all but report data and signature. Raises `Unreadable`."""
    _check_length(data)
    return data[:0x050] + data[0x090:SIGNED_BYTES]


def read_next(known: Report, data: bytes) -> Report:
    """A report with the standing of `known`: only what may differ is read (a third of the work)."""
    r, s = data[0x2A0:0x2E8], data[0x2E8:0x330]
    return known._replace(
        raw=data,
        report_data=data[0x050:0x090],
        r=int.from_bytes(r[:48], "little"),
        s=int.from_bytes(s[:48], "little"),
        signature_padding=r[48:] + s[48:] + data[0x330:],
    )


def _check_length(data: bytes) -> int:
    if len(data) != REPORT_BYTES:
        raise Unreadable("snp.report.length", f"a report is {REPORT_BYTES} bytes, this is {len(data)}")
    return len(data)
