"""What a device measured against what one manifest wants (gpu.md 7). Manifest index = block index - 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from attestation.gpu.spdm.firmware import Firmware

NVDEC_INDEX: Final = 35  # has no fixed value while the video decoder is off


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One golden value that the report does not show."""

    index: int
    """As the manifest counts, from 0."""
    seen: bytes | None
    """None = the report has no such block."""
    wanted: tuple[bytes, ...]
    excused: bool = False
    """Whether it may differ: the decoder that it measures is off."""

    @property
    def text(self) -> str:
        seen = "missing" if self.seen is None else self.seen.hex()
        return f"index {self.index}: {seen}, wanted {' or '.join(each.hex() for each in self.wanted)}"


def compare(golden: Mapping[int, tuple[bytes, ...]], firmware: Firmware) -> list[Mismatch]:
    """Every golden value that it lacks or shows otherwise; another size is another value."""
    values = firmware.measurements
    found = [
        Mismatch(index, values.get(index), wanted)
        for index, wanted in golden.items()
        if values.get(index) not in wanted
    ]
    if len(found) == 1 and _is_excused(found[0], firmware):
        return [Mismatch(found[0].index, found[0].seen, found[0].wanted, excused=True)]
    return found


def _is_excused(mismatch: Mismatch, firmware: Firmware) -> bool:
    """Only that index differs, it is there, and the decoder is off (gpu.md 7)."""
    return mismatch.index == NVDEC_INDEX and mismatch.seen is not None and firmware.decoder_off


def holds(mismatches: list[Mismatch]) -> bool:
    """Whether nothing speaks against it that is not excused."""
    return all(each.excused for each in mismatches)
