"""The guest device: a kernel that answers, throttles, fails, or is not there."""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass
from pathlib import Path

import pytest

from domain_agent.node.proving import sev_guest
from domain_agent.node.proving.sev_guest import GET_EXT_REPORT, SevGuestCollector
from schemas.errors import ConfigurationError, Undecided

DATA = bytes(range(64))
REPORT = b"\x05" + bytes(range(1, 128)) + bytes(1056)
EMPTY = bytes(24)
TABLE = b"table" * 9


@dataclass
class Kernel:
    """Reads the request at the addresses it is given and writes there, as the driver does."""

    table: bytes = TABLE
    status: int = 0
    size: int = 1184
    throttled: int = 0
    error: tuple[int, int, int] | None = None
    """errno, firmware error, host error."""
    asked: bytes = b""

    def ioctl(self, handle: int, number: int, request: bytearray) -> int:
        assert (number, len(request)) == (GET_EXT_REPORT, 32)
        assert request[0] == 1  # msg_version
        requested, response = (int.from_bytes(request[at : at + 8], "little") for at in (8, 16))
        self.asked = ctypes.string_at(requested, 112)
        if self.throttled:
            self.throttled -= 1
            return self._fail(request, errno.EIO, 0, sev_guest.VMM_BUSY)
        if self.error:
            return self._fail(request, *self.error)
        certificates, room = (
            int.from_bytes(self.asked[at : at + size], "little") for at, size in ((96, 8), (104, 4))
        )
        assert room % 4096 == 0  # the driver takes whole pages only
        ctypes.memmove(certificates, self.table, len(self.table))
        head = self.status.to_bytes(4, "little") + self.size.to_bytes(4, "little") + bytes(24)
        answer = (head + REPORT).ljust(4000, b"\0")
        ctypes.memmove(response, answer, len(answer))
        return 0

    def _fail(self, request: bytearray, number: int, firmware: int, host: int) -> int:
        request[24:32] = firmware.to_bytes(4, "little") + host.to_bytes(4, "little")
        raise OSError(number, "failed")


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sev_guest, "RETRY_S", 0.0)
    path = tmp_path / "sev-guest"
    path.touch()
    return path


def test_a_report_comes_with_the_hosts_table(device: Path) -> None:
    kernel = Kernel()
    evidence = SevGuestCollector(device, kernel.ioctl)(DATA)
    assert evidence.tee == "snp"
    assert evidence.report == REPORT
    assert evidence.endorsements[0].startswith(TABLE)
    assert kernel.asked[:64] == DATA
    assert kernel.asked[64:68] == bytes(4)  # VMPL 0


def test_an_empty_table_is_no_endorsement(device: Path) -> None:
    assert SevGuestCollector(device, Kernel(table=EMPTY).ioctl)(DATA).endorsements == []


def test_a_throttling_host_is_asked_again_but_not_for_ever(device: Path) -> None:
    assert SevGuestCollector(device, Kernel(throttled=3).ioctl)(DATA).report == REPORT
    with pytest.raises(Undecided, match=r"tee\.busy"):
        SevGuestCollector(device, Kernel(throttled=1000).ioctl)(DATA)


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        (Kernel(error=(errno.EIO, 7, 0)), "firmware error 7"),
        (Kernel(error=(errno.EIO, 0, 1)), "table exceeds"),
        (Kernel(error=(errno.ENOTTY, 0, 0)), "failed"),
        (Kernel(status=0x16), "status 22"),
        (Kernel(size=64), "64 bytes"),
    ],
)
def test_a_failing_firmware_or_host_is_named(device: Path, kernel: Kernel, text: str) -> None:
    with pytest.raises(Undecided, match=text) as caught:
        SevGuestCollector(device, kernel.ioctl)(DATA)
    assert caught.value.code == "tee.report"


def test_a_machine_that_is_no_guest_is_told_so(tmp_path: Path, device: Path) -> None:
    with pytest.raises(ConfigurationError, match="this machine is no SEV-SNP guest"):
        SevGuestCollector(tmp_path / "none")(DATA)
    with pytest.raises(ConfigurationError, match=r"tee\.access"):
        SevGuestCollector(tmp_path)(DATA)  # a folder cannot be opened for writing
    with pytest.raises(Undecided, match=r"tee\.report"):
        SevGuestCollector(device)(DATA)  # the real ioctl on a plain file
