"""The opaque data of an NVIDIA report: type-length-value fields, each at most once (gpu.md 2).

What NVIDIA defines is read strictly; a type that we do not know is kept and shown, never judged.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from schemas.errors import Refused

CACHED_FIELDS: Final = 1024  # devices whose fields are kept, about 2 KiB each
MAX_FIELDS: Final = 64  # about 40 types exist, each at most once

DRIVER, GPU_INFO, VBIOS, NVDEC0, COUNTERS = 3, 4, 6, 11, 12
CHIP_SKU, PROJECT, PROJECT_SKU = 15, 17, 18
FWID, PROTECTED_PCIE, PDI, DISABLED_PORTS, POSITION, LOCK, GPU_PDIS = 20, 21, 22, 23, 24, 25, 26
CHIP_INFO, FEATURE, INVALID = 35, 36, 255

NAMES: Final = {
    1: "issuer_name", 2: "authority_key_id", DRIVER: "driver", GPU_INFO: "gpu_info", 5: "sku", VBIOS: "vbios",
    7: "manufacturer", 8: "tamper", 9: "smc", 10: "vpr", NVDEC0: "nvdec0", COUNTERS: "update_counters",
    13: "cpr_info", 14: "board_id", CHIP_SKU: "chip_sku", 16: "chip_sku_modifier", PROJECT: "project",
    PROJECT_SKU: "project_sku", 19: "project_sku_modifier", FWID: "fwid", PROTECTED_PCIE: "protected_pcie",
    PDI: "pdi", DISABLED_PORTS: "disabled_ports", POSITION: "position", LOCK: "lock", GPU_PDIS: "gpu_pdis",
    27: "switch_ports", 32: "gpu_link_connection", 33: "system_enable", 34: "opaque_version",
    CHIP_INFO: "chip_info", FEATURE: "feature",
}  # fmt: skip

_LENGTHS: Final = {
    NVDEC0: (1,), FWID: (48,), PROTECTED_PCIE: (1,), PDI: (8, 144), POSITION: (2,), LOCK: (2,),
    GPU_PDIS: (128,), FEATURE: (2,), 33: (2,), 34: (2,), 13: (4,), 14: (4,), GPU_INFO: (8, 128),
}  # fmt: skip
"""Bytes of the fields that have a fixed form; older LS10 firmware puts the GPU table under type 4."""

_TEXTS: Final = frozenset((DRIVER, CHIP_SKU, 16, PROJECT, PROJECT_SKU, 19, CHIP_INFO))
_TEXT: Final = re.compile(r"[A-Za-z0-9._-]{0,64}")
_NEXT_FORM: Final = b"NVDAOD\0\0"
"""How Rubin's opaque data begins: a header, then fields of another kind (NVIDIA attestation-sdk, 2026)."""
FLAGS: Final = {0xAA: True, 0x55: False}
"""How NVIDIA writes on and off."""
FEATURES: Final = {0: "single", 1: "multi", 2: "ppcie"}


@dataclass(frozen=True, slots=True)
class Opaque:
    """The fields by type, in the order in which they stand."""

    fields: Mapping[int, bytes]
    texts: Mapping[int, str]
    """Those that are text, without their padding; and the VBIOS, as people write it."""

    def text(self, kind: int) -> str | None:
        """A text field; None where it is absent."""
        return self.texts.get(kind)

    def flag(self, kind: int) -> bool | None:
        """A one-byte switch; None where it is absent."""
        return FLAGS[self.fields[kind][0]] if kind in self.fields else None

    @property
    def is_switch(self) -> bool:
        """A switch has no driver; its VBIOS is text (gpu.md 2). A GPU's boot processor states nothing."""
        return bool(self.fields) and DRIVER not in self.fields

    @property
    def vbios(self) -> str | None:
        """The VBIOS version with dots, lower case: from eight bytes for a GPU, text for a switch."""
        return self.texts.get(VBIOS)

    @property
    def feature(self) -> str | None:
        """`single`, `multi` or `ppcie`, or a mode of newer GPUs by its number; None where it is not said."""
        value = self.fields.get(FEATURE)
        if value is None:
            return None
        number = int.from_bytes(value, "little")
        return FEATURES.get(number, f"unknown-{number}")

    @property
    def own_pdi(self) -> bytes | None:
        """A switch's own physical device id (8 bytes)."""
        value = self.fields.get(PDI)
        return value if self.is_switch and value is not None else None

    @property
    def switch_pdis(self) -> tuple[bytes, ...] | None:
        """A GPU's switch at each NVLink, turned into the order of serial numbers; zero = link off."""
        value = self.fields.get(PDI)
        if self.is_switch or value is None:
            return None
        return tuple(value[i : i + 8][::-1] for i in range(0, len(value), 8))

    @property
    def gpu_table(self) -> tuple[tuple[bytes, ...], bytes] | None:
        """A switch's eight GPU PDIs, and for each of its 64 ports the index of the GPU (0xFF = none)."""
        value = self.fields.get(GPU_PDIS) or self.fields.get(GPU_INFO)
        if not self.is_switch or value is None:
            return None
        return tuple(value[i : i + 8] for i in range(0, 64, 8)), value[64:]


@lru_cache(maxsize=CACHED_FIELDS)
def read_opaque(data: bytes) -> Opaque:
    """Read the fields, which a device says again in every report.

    Raises `Refused` (`gpu.report_malformed`, `gpu.report_duplicate_field`).
    """
    if data.startswith(_NEXT_FORM):
        raise malformed("opaque data in the form of GPUs after Blackwell, which is not read")
    fields: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if len(data) - at < 4:
            raise malformed("an opaque field is cut short")
        kind, length = struct.unpack_from("<HH", data, at)
        at += 4
        if at + length > len(data):
            raise malformed(f"opaque field {kind} reaches beyond the opaque data")
        if kind in fields:
            raise Refused("gpu.report_duplicate_field", f"opaque field {kind} stands twice")
        if kind == INVALID or len(fields) == MAX_FIELDS:
            raise malformed(f"opaque field {kind}, or more than {MAX_FIELDS} fields")
        fields[kind] = data[at : at + length]
        at += length
    texts = {kind: _text(fields[kind]) for kind in _TEXTS & fields.keys()}
    found = Opaque(fields, texts)
    _check(found)
    if VBIOS in fields:
        texts[VBIOS] = _text(fields[VBIOS]).lower() if found.is_switch else _dotted(fields[VBIOS])
    return found


def _check(found: Opaque) -> None:
    for kind, value in found.fields.items():
        if kind in _LENGTHS and len(value) not in _LENGTHS[kind]:
            raise malformed(f"opaque field {kind} has {len(value)} bytes")
        if kind in (NVDEC0, PROTECTED_PCIE) and value[0] not in FLAGS:
            raise malformed(f"opaque field {kind} is neither on nor off")
    vbios = found.fields.get(VBIOS)
    if vbios is not None and not found.is_switch and len(vbios) != 8:
        raise malformed("a GPU's VBIOS version is not 8 bytes")
    if len(found.fields.get(COUNTERS, b"")) % 4:
        raise malformed("update counters are not whole words")
    _check_kind(found)


def _check_kind(found: Opaque) -> None:
    """Fields whose form depends on whether a GPU or a switch speaks."""
    wanted = {PDI: 8, GPU_INFO: 128} if found.is_switch else {PDI: 144, GPU_INFO: 8}
    for kind, length in wanted.items():
        if len(found.fields.get(kind, bytes(length))) != length:
            raise malformed(f"opaque field {kind} is not that of a {'switch' if found.is_switch else 'GPU'}")


def _dotted(vbios: bytes) -> str:
    """A GPU's version, which its eight bytes hold out of order (gpu.md 2)."""
    return f"{vbios[3]:02x}.{vbios[2]:02x}.{vbios[1]:02x}.{vbios[0]:02x}.{vbios[4]:02x}"


def _text(value: bytes) -> str:
    """ASCII without its padding; only what is safe in an id or a path."""
    text = value.strip(b"\0 ").decode("latin-1")
    if not _TEXT.fullmatch(text):
        raise malformed("a text field with other than letters, digits, dot, dash, underscore")
    return text


def malformed(why: str) -> Refused:
    return Refused("gpu.report_malformed", why)
