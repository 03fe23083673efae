"""What firmware measured into a trust domain's registers before the kernel ran: its CCEL, from ACPI.

The log proves nothing by itself; whoever appraises the quote replays it (attestation/tdx/log). It says
nothing of RTMR3, nor of what a kernel extends later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from schemas.errors import ConfigurationError, Undecided

CCEL: Final = Path("/sys/firmware/acpi/tables/data/CCEL")
MAX_AREA_BYTES: Final = 1024 * 1024  # 64 KiB in the field, nearly all of it fill
MAX_LOG_BYTES: Final = 64 * 1024  # in base64 still less than half of an evidence document
KEPT_FILL_BYTES: Final = 256  # a log's last record may itself end in octets like the fill's


def read_firmware_log(path: Path = CCEL) -> bytes:
    """The log without most of the fill behind it. Raises `ConfigurationError` or `Undecided`."""
    try:
        with path.open("rb") as file:
            area = file.read(MAX_AREA_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            "tee.event_log", f"{path}: {error.strerror}; leave [tee] event_log out where firmware keeps none"
        ) from None
    log = area[: len(area.rstrip(area[-1:])) + KEPT_FILL_BYTES]
    if not 0 < len(log) <= MAX_LOG_BYTES:
        raise Undecided("tee.event_log", f"{path} holds {len(log)} bytes, at most {MAX_LOG_BYTES} are sent")
    return log
