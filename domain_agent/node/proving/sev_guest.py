"""SEV-SNP reports straight from `/dev/sev-guest`, for kernels without configfs-tsm (before Linux 6.7).

One ioctl, SNP_GET_EXT_REPORT, gives the firmware's answer and the host's certificate table
(include/uapi/linux/sev-guest.h; GHCB 56421, 4.1.8.1). Nothing in either is believed here.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.errors import ConfigurationError, Undecided
from schemas.proof.evidence import CpuEvidence

DEVICE: Final = Path("/dev/sev-guest")
REPORT_DATA_BYTES: Final = 64
RESPONSE_BYTES: Final = 4000  # struct snp_report_resp: the firmware's MSG_REPORT_RSP, zero-filled
HEADER_BYTES: Final = 32  # of MSG_REPORT_RSP: u32 status, u32 report size, 24 zero (AMD 56860)
REPORT_BYTES: Final = 1184
TABLE_BYTES: Final = 16 * 1024  # SEV_FW_BLOB_MAX_SIZE: the kernel takes no larger table
GET_EXT_REPORT: Final = 0xC020_5302  # _IOWR('S', 2, 32 bytes)
VMM_INVALID_LENGTH: Final = 1  # SNP_GUEST_VMM_ERR_INVALID_LEN: the table needs more room
VMM_BUSY: Final = 2  # SNP_GUEST_VMM_ERR_BUSY: the host throttles
MAX_ATTEMPTS: Final = 8
RETRY_S: Final = 0.25  # seconds; the kernel's own limit is one request in two seconds

Ioctl = Callable[[int, int, bytearray], object]
"""fcntl.ioctl with a buffer that the kernel changes in place."""


class _Report(ctypes.Structure):
    """struct snp_report_req"""

    _fields_ = (("user_data", ctypes.c_uint8 * 64), ("vmpl", ctypes.c_uint32), ("rsvd", ctypes.c_uint8 * 28))


class _ExtendedReport(ctypes.Structure):
    """struct snp_ext_report_req"""

    _fields_ = (("data", _Report), ("certs_address", ctypes.c_uint64), ("certs_len", ctypes.c_uint32))


class _Request(ctypes.Structure):
    """struct snp_guest_request_ioctl"""

    _fields_ = (
        ("msg_version", ctypes.c_uint8),
        ("req_data", ctypes.c_uint64),
        ("resp_data", ctypes.c_uint64),
        ("fw_error", ctypes.c_uint32),
        ("vmm_error", ctypes.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class SevGuestCollector:
    """The guest device. Blocks while the host throttles: call it in a thread."""

    device: Path = DEVICE
    ioctl: Ioctl = fcntl.ioctl

    def __call__(self, report_data: bytes) -> CpuEvidence:
        """Quote at VMPL 0. Raises `ConfigurationError` (no TEE here) or `Undecided` (busy, refused)."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise ValueError("report data is 64 bytes")
        try:
            handle = os.open(self.device, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ConfigurationError(
                "tee.absent", f"{self.device} does not exist: this machine is no SEV-SNP guest"
            ) from None
        except OSError as error:
            raise ConfigurationError("tee.access", f"{self.device}: {error.strerror}") from None
        try:
            return self._quote(handle, report_data)
        finally:
            os.close(handle)

    def _quote(self, handle: int, report_data: bytes) -> CpuEvidence:
        for _ in range(MAX_ATTEMPTS):
            try:
                return _ask(self.ioctl, handle, report_data)
            except BlockingIOError:
                time.sleep(RETRY_S)
        raise Undecided("tee.busy", "the host kept throttling report requests")


def _ask(ioctl: Ioctl, handle: int, report_data: bytes) -> CpuEvidence:
    """One request. Raises `BlockingIOError` when it is worth another try, else `Undecided`."""
    response = (ctypes.c_uint8 * RESPONSE_BYTES)()
    table = (ctypes.c_uint8 * TABLE_BYTES)()
    asked = _ExtendedReport(certs_address=ctypes.addressof(table), certs_len=TABLE_BYTES)
    asked.data.user_data[:] = report_data
    request = _Request(msg_version=1, req_data=ctypes.addressof(asked), resp_data=ctypes.addressof(response))
    buffer = bytearray(request)
    try:
        ioctl(handle, GET_EXT_REPORT, buffer)
    except OSError as error:
        raise _explained(error, _Request.from_buffer_copy(buffer)) from None
    host = bytes(table[: min(asked.certs_len, TABLE_BYTES)])
    return CpuEvidence(tee="snp", report=_report(bytes(response)), endorsements=[host] if any(host) else [])


def _explained(error: OSError, answer: _Request) -> OSError | Undecided:
    """What a failed ioctl means."""
    if answer.vmm_error == VMM_BUSY or error.errno in (errno.EAGAIN, errno.EBUSY, errno.EINTR):
        return BlockingIOError(errno.EBUSY, "busy")
    if answer.vmm_error == VMM_INVALID_LENGTH:
        return Undecided("tee.report", f"the host's certificate table exceeds {TABLE_BYTES} bytes")
    return Undecided(
        "tee.report",
        f"{error.strerror}; firmware error {answer.fw_error}, host error {answer.vmm_error}",
    )


def _report(response: bytes) -> bytes:
    """The report inside the firmware's answer."""
    status, size = int.from_bytes(response[:4], "little"), int.from_bytes(response[4:8], "little")
    if status or size != REPORT_BYTES:
        raise Undecided("tee.report", f"the firmware answered with status {status}, {size} bytes")
    return response[HEADER_BYTES : HEADER_BYTES + REPORT_BYTES]
