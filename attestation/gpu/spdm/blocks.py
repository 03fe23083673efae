"""The measurement record of a report, block by block (DMTF DSP0274 1.1, 10.11.1)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from attestation.gpu.spdm.opaque import malformed

CACHED_RECORDS: Final = 512  # devices of one firmware show the same; about 12 KiB each
_DMTF: Final = 1  # MeasurementSpecification
_BLOCK: Final = struct.Struct("<BBHBH")
"""Index, specification, size; type and size of the value."""


@lru_cache(maxsize=CACHED_RECORDS)
def read_blocks(record: bytes, count: int) -> Mapping[int, bytes]:
    """Values by index as a manifest counts, from 0: a block's own index less one.

    Exactly `count` blocks that fill the record, ascending. Raises `Refused` (`gpu.report_malformed`).
    """
    found: dict[int, bytes] = {}
    unpack, header, end = _BLOCK.unpack_from, _BLOCK.size, len(record)
    at = last = 0
    for _ in range(count):
        if at + header > end:
            raise malformed("the measurement record is cut short")
        index, specification, size, _kind, length = unpack(record, at)
        start = at + header
        at = start + length
        if specification != _DMTF or length + 3 != size or at > end:
            raise malformed(f"measurement block {index} disagrees with itself")
        if index <= last:
            raise malformed(f"measurement block {index} is repeated or out of order")
        found[index - 1] = record[start:at]
        last = index
    if at != end:
        raise malformed("the measurement record is longer than its blocks")
    return found
