"""The log as static resources (C2SP tlog-tiles): what any tlog tool can fetch and check.

`checkpoint`, `tile/<L>/<N>[.p/<W>]` and `tile/entries/<N>[.p/<W>]`, as of the newest checkpoint.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Final

from receipts import checkpoint
from receipts.log.tiles import WIDTH, TileSource, tile_path, tiles_at
from schemas.errors import Refused, Unreadable

MAX_LEVEL: Final = 63  # tile levels that a path can name (tlog-tiles)
MAX_ENTRY_BYTES: Final = 65_535  # what the length of an entry can say (tlog-tiles); ours have 66
_TILE: Final = re.compile(
    r"tile/(?P<level>entries|0|[1-9]\d?)/(?P<number>(x\d{3}/){0,6}\d{3})(\.p/(?P<width>[1-9]\d{0,2}))?"
)


def resource(connection: sqlite3.Connection, path: str) -> bytes:
    """The bytes of one resource. Raises `Unreadable` for a path that is none, `Refused` for one not here."""
    note = _newest(connection)
    if path == "checkpoint":
        return note
    level, number, width = read_path(path)
    size = checkpoint.read(note).checkpoint.size
    if width not in _widths(size, max(level, 0), number):
        raise Refused("static.not_here", f"a log of {size} leaves has no {path}")
    if level < 0:
        return entry_bundle(_records(connection, number, width))
    return b"".join(TileSource(connection).hashes(level, number, width))


def resources(connection: sqlite3.Connection) -> Iterator[tuple[str, bytes]]:
    """Every resource that the newest checkpoint implies, the checkpoint last: export them in this order."""
    size = checkpoint.read(_newest(connection)).checkpoint.size
    for level, (full, width) in enumerate(tiles_at(size)):
        names = [tile_path(number) for number in range(full)]
        names += [f"{tile_path(full)}.p/{width}"] if width else []
        for name in names:
            for folder in (f"tile/{level}", *(["tile/entries"] if level == 0 else [])):
                yield f"{folder}/{name}", resource(connection, f"{folder}/{name}")
    yield "checkpoint", _newest(connection)


def read_path(path: str) -> tuple[int, int, int]:
    """(level, or −1 for entries; tile number; width). Raises `Unreadable`."""
    match = _TILE.fullmatch(path)
    if match is None:
        raise Unreadable("static.path", "not a path of tlog-tiles")
    level = -1 if match["level"] == "entries" else int(match["level"])
    number = int(match["number"].replace("x", "").replace("/", ""))
    width = int(match["width"] or WIDTH)
    whole = match["width"] is None
    if level > MAX_LEVEL or tile_path(number) != match["number"] or (width >= WIDTH and not whole):
        raise Unreadable("static.path", "not a path of tlog-tiles")
    return level, number, width


def entry_bundle(records: list[bytes]) -> bytes:
    """Leaf records, each behind its big-endian u16 length. Raises `Unreadable` for one that is too long."""
    if any(len(record) > MAX_ENTRY_BYTES for record in records):
        raise Unreadable("log.damaged", f"a record of more than {MAX_ENTRY_BYTES} bytes")
    return b"".join(len(record).to_bytes(2) + record for record in records)


def read_entry_bundle(data: bytes) -> list[bytes]:
    """The records of an entry bundle. Raises `Unreadable`."""
    records: list[bytes] = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2])
        record = data[at + 2 : at + 2 + size]
        if len(data) < at + 2 or len(record) != size or len(records) == WIDTH:
            raise Unreadable("static.entries", "not an entry bundle")
        records.append(record)
        at += 2 + size
    return records


def _widths(size: int, level: int, number: int) -> tuple[int, ...]:
    """Widths in which a tile exists: full once it is full, else as wide as the checkpoint implies."""
    levels = tiles_at(size)
    if level >= len(levels):
        return ()
    full, width = levels[level]
    if number < full:
        return (WIDTH,)
    return (width,) if number == full and width else ()


def _newest(connection: sqlite3.Connection) -> bytes:
    row = connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
    if row is None:
        raise Refused("static.not_here", "the log has signed no checkpoint yet")
    return bytes(row[0])


def _records(connection: sqlite3.Connection, number: int, width: int) -> list[bytes]:
    first = number * WIDTH
    rows = connection.execute(
        "SELECT record FROM leaf WHERE idx >= ? AND idx < ? ORDER BY idx", (first, first + width)
    )
    return [record for (record,) in rows]
