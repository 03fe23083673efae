"""The two reports that a quote can carry, read at fixed offsets (Intel SDM: REPORT; TDX module: TDREPORT).

A TD's comes in three lengths: of TD 1.0, of TD 1.5, and of TD 1.5 extended by what happened to it before.

Reading never judges. All integers are little endian. Sizes are checked by the caller (quote.py).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

SGX_BYTES: Final = 384
TD10_BYTES: Final = 584
TD15_BYTES: Final = 648
TD15_EX_BYTES: Final = 885  # Intel QVL: body type 4 of a quote of version 5

_SGX: Final = struct.Struct("<16sI12x16x16s32s32x32s32x64xHHH42x16x64s")
_TD10: Final = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
_TD15: Final = struct.Struct(_TD10.format + "16s48s")
_HISTORY: Final = struct.Struct("<B32s48s48s8s16s16s12s48s8s")
assert _SGX.size == SGX_BYTES
assert _TD10.size == TD10_BYTES
assert _TD15.size == TD15_BYTES
assert _TD15.size + _HISTORY.size == TD15_EX_BYTES

TD_UNTRUSTED: Final = 0xFF  # TUD group, bits 7:0: bit 0 is DEBUG, the others are reserved and zero
SGX_DEBUG: Final = 0x02  # ATTRIBUTES.DEBUG, Intel SDM vol. 3D 35.7.1
TD_ATTRIBUTES: Final = {"debug": 0, "sept_ve_disable": 28, "pks": 30, "perfmon": 63}
"""Bits of TDATTRIBUTES whose names are confirmed; others are policy by mask."""


class SgxReport(NamedTuple):
    """What an enclave's report states: an application enclave's, or the quoting enclave's own."""

    raw: bytes
    cpusvn: bytes
    miscselect: int
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    isvprodid: int
    isvsvn: int
    configsvn: int
    report_data: bytes

    @property
    def debug(self) -> bool:
        return bool(self.attributes[0] & SGX_DEBUG)


class TdHistory(NamedTuple):
    """Who asked for an extended report, and where the trust domain came from."""

    vmid: int
    """The virtual machine inside the trust domain that asked; 0 = the trust domain itself."""
    td_id: bytes
    """32 bytes that name this launch; they stay when the module is updated and when the domain migrates."""
    devinfo: bytes
    """Hash of what is stated about devices."""
    init_servicetd: bytes
    """Hash of the service TDs that were bound when the trust domain was built."""
    init_servicetd_attributes: bytes
    init_cpusvn: bytes
    init_tcb_svn: bytes
    """TEE_TCB_SVN of the platform on which the trust domain was built."""
    init_fmspc: bytes
    """12 bytes that name that platform's model; not a PCK certificate's FMSPC."""
    current_servicetd: bytes
    current_servicetd_attributes: bytes


class TdReport(NamedTuple):
    """What a trust domain's report states. `tcb_svn2` and `mrservicetd` exist from TD 1.5 on."""

    raw: bytes
    tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tcb_svn2: bytes | None
    mrservicetd: bytes | None
    history: TdHistory | None
    """In an extended report alone."""

    @property
    def debug(self) -> bool:
        """Any bit of the untrusted group, not only DEBUG itself (Intel TDX module: TUD)."""
        return bool(self.td_attributes[0] & TD_UNTRUSTED)

    @property
    def rtmrs(self) -> tuple[bytes, bytes, bytes, bytes]:
        return self.rtmr0, self.rtmr1, self.rtmr2, self.rtmr3


def read_sgx(data: bytes) -> SgxReport:
    """`data`: exactly 384 bytes."""
    return SgxReport(data, *_SGX.unpack(data))


def read_td(data: bytes) -> TdReport:
    """`data`: exactly 584 bytes (TD 1.0), 648 (TD 1.5) or 885 (TD 1.5 extended)."""
    if len(data) == TD10_BYTES:
        return TdReport._make((data, *_TD10.unpack(data), None, None, None))
    history = TdHistory(*_HISTORY.unpack_from(data, TD15_BYTES)) if len(data) == TD15_EX_BYTES else None
    return TdReport._make((data, *_TD15.unpack_from(data), history))
