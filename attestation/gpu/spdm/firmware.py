"""What a report shows of the firmware that runs: all that manifests are asked about (gpu.md 6, 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from attestation.gpu.spdm.blocks import read_blocks
from attestation.gpu.spdm.opaque import CHIP_INFO, CHIP_SKU, DRIVER, NVDEC0, PROJECT, PROJECT_SKU, Opaque


class Firmware(NamedTuple):
    """Devices of one firmware on one kind of board are the same here, and are compared by value."""

    record: bytes
    """The measurement record as it came, of `blocks` blocks."""
    blocks: int
    driver: str
    vbios: str
    board: str
    """Project, its SKU and the chip's, as in the name of a manifest."""
    chip: str | None
    """Where the report names it."""
    decoder_off: bool

    @property
    def measurements(self) -> Mapping[int, bytes]:
        """Values by index as a manifest counts, from 0."""
        return read_blocks(self.record, self.blocks)


def firmware_of(record: bytes, blocks: int, opaque: Opaque) -> Firmware:
    """What is absent is empty: no manifest has such a name."""
    text = opaque.texts.get
    board = f"{text(PROJECT, '')}_{text(PROJECT_SKU, '')}_{text(CHIP_SKU, '')}".upper()
    off = opaque.flag(NVDEC0) is False
    return Firmware(record, blocks, text(DRIVER, ""), opaque.vbios or "", board, text(CHIP_INFO), off)
