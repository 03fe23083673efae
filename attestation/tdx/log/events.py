"""One measured event, and whether its data is what was measured (TCG PC Client PFP 10.2, 10.4).

Replay proves digests and their order, nothing else: an event's type, name and data are covered only
where its digest is the hash of them. What is not bound must never be read as a fact.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

REGISTERS: Final = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")
REGISTER_BYTES: Final = 48  # SHA-384
MAX_LOG_BYTES: Final = 1024 * 1024  # firmware sets aside 64 to 256 KiB
MAX_EVENTS: Final = 4096  # a boot through GRUB writes about a hundred

EV_NO_ACTION: Final = 0x3
EV_IPL: Final = 0xD
EV_EFI_VARIABLE_BOOT: Final = 0x80000002
RUNTIME_EVENT: Final = 0x08000001  # dstack: extended by the guest after boot
_DATA_IS_MEASURED: Final = frozenset({0x4, 0x5, 0x8, 0x80000001, 0x80000006, 0x80000007, 0x800000E0})
"""Separator, action, CRTM version, EFI variable, GPT, EFI action, variable authority (PFP 10.4.1)."""
_COMMANDS: Final = (b"grub_cmd: ", b"kernel_cmdline: ")  # GRUB measures what stands behind its label
_VARIABLE: Final = (
    32  # UEFI_VARIABLE_DATA: GUID 16, name length in characters u64, data length u64 (PFP 10.2.6)
)

Binding = Literal["bound", "digest only", "contradicted"]


@dataclass(frozen=True, slots=True)
class Event:
    """One record of a log, as it stands there."""

    register: int
    """0 to 3: RTMR0 to RTMR3."""
    kind: int
    digest: bytes | None
    """48 bytes; None where the log leaves it out."""
    name: str
    data: bytes

    @property
    def binding(self) -> Binding:
        """Whether the digest is the hash of what the record says was measured.

        A record that states nothing contradicts nothing.
        """
        if self.digest is None:
            return "digest only"
        if any(hashlib.sha384(each).digest() == self.digest for each in _measured(self)):
            return "bound"
        must = self.kind == RUNTIME_EVENT or self.kind in _DATA_IS_MEASURED or _command(self.data) is not None
        return "contradicted" if must and self.data else "digest only"


def _measured(event: Event) -> list[bytes]:
    """Every reading of the record under which its data is the thing measured."""
    if event.kind == RUNTIME_EVENT:  # dstack: type, name and payload, with colons between
        return [b":".join((event.kind.to_bytes(4, "little"), event.name.encode(), event.data))]
    if event.kind == EV_EFI_VARIABLE_BOOT:
        return [event.data, *_variable_data(event.data)]
    command = _command(event.data) if event.kind == EV_IPL else None
    if command is not None:
        return [command]
    return [event.data] if event.kind in _DATA_IS_MEASURED else []


def _command(data: bytes) -> bytes | None:
    """What GRUB ran: its label stripped, without the NUL behind it."""
    for label in _COMMANDS:
        if data.startswith(label):
            return data[len(label) :].removesuffix(b"\0")
    return None


def _variable_data(data: bytes) -> list[bytes]:
    """The contents of an EFI variable, which older firmware measures alone."""
    if len(data) < _VARIABLE:
        return []
    start = _VARIABLE + 2 * int.from_bytes(data[16:24], "little")
    size = int.from_bytes(data[24:32], "little")
    return [data[start:]] if start + size == len(data) else []
