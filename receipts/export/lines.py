"""A log's receipts as lines: JSON for programs, CSV for spreadsheets. Nothing is verified on the way.

A JSON line brings what a verifier needs of one leaf, byte for byte: the envelope as text, the leaf record and
its salt. CSV has the figures that people ask for. Whoever needs proof takes the bundle of a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from receipts import spreadsheet
from receipts.audit.logfile import LogFile, NoticeRow
from receipts.audit.rows import Row
from receipts.leaf import Kind
from schemas import envelope
from schemas.canonical import Json, read_json, write_json
from schemas.errors import ComityError, Unreadable

COLUMNS: Final = (
    "index", "kind", "receiptId", "request", "peer", "seq", "issued", "outcome", "domain", "capability",
    "inputTokens", "outputTokens", "cachedTokens", "priceMicro", "currency", "trace", "digest",
)  # fmt: skip


def json_lines(log: LogFile) -> Iterator[bytes]:
    """One JSON object and a newline for each leaf, in the order of the log. Raises `Unreadable`."""
    for row in _merged(log.rows(), log.notices()):
        yield write_json(_stated(row)) + b"\n"


def csv_lines(log: LogFile) -> Iterator[bytes]:
    """A heading, then a line for each receipt; of an erased one, what its row still says."""
    yield spreadsheet.line(COLUMNS).encode()
    for row in log.rows():
        figures = _figures(row)
        cells = ["" if figures.get(name) is None else str(figures[name]) for name in COLUMNS]
        yield spreadsheet.line(cells).encode()


def _merged(receipts: Iterable[Row], notices: Iterable[NoticeRow]) -> Iterator[Row | NoticeRow]:
    """Both in one order. Notices are few: they are held."""
    waiting = sorted(notices, key=lambda each: each.leaf, reverse=True)
    for row in receipts:
        while waiting and waiting[-1].leaf < row.leaf:
            yield waiting.pop()
        yield row
    yield from reversed(waiting)


def _stated(row: Row | NoticeRow) -> dict[str, Json]:
    data = row.envelope or None
    return {
        "index": row.leaf,
        "kind": _kind(row.kind),
        "receiptId": row.receipt_id if isinstance(row, Row) else None,
        "digest": _digest(row),
        "record": row.record.hex() if row.record else None,
        "salt": row.salt.hex() if row.salt else None,
        "envelope": _text(row.leaf, data) if data else None,
        "statement": _statement(row.leaf, data) if data else None,
    }


def _digest(row: Row | NoticeRow) -> str | None:
    if isinstance(row, Row):
        return row.digest.hex()
    return envelope.read(row.envelope).digest.hex()


def _kind(kind: int) -> str:
    try:
        return Kind(kind).name.lower()
    except ValueError:
        raise Unreadable("leaf.kind", f"leaf kind {kind}") from None


def _text(index: int, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("log.damaged", f"leaf {index}: the envelope is not text") from None


def _statement(index: int, data: bytes) -> Json:
    try:
        return read_json(envelope.read(data).payload)
    except ComityError as error:
        raise Unreadable(error.code, f"leaf {index}: {error.text}") from None


def _figures(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {
        "index": row.leaf, "kind": _kind(row.kind), "receiptId": row.receipt_id, "peer": row.peer,
        "seq": row.seq, "digest": row.digest.hex(),
    }  # fmt: skip
    if not row.envelope:
        return found | {"outcome": "erased"}
    match _statement(row.leaf, row.envelope):
        case {"predicate": dict(stated)}:
            return found | _stated_figures(stated)
    raise Unreadable("log.damaged", f"leaf {row.leaf}: no statement")


def _stated_figures(stated: dict[str, Json]) -> dict[str, Any]:
    """What a receipt states, by column. An Acknowledgement's counters are those that it agrees to."""
    usage = _part(stated, "usage") or _part(stated, "usageAgreed")
    price = _part(stated, "price")
    return {
        "request": _part(stated, "request").get("id"),
        "issued": _part(stated, "times").get("issued"),
        "outcome": stated.get("outcome") or stated.get("status") or _part(stated, "policy").get("verdict"),
        "domain": _part(stated, "plan").get("domain"),
        "capability": _part(stated, "capability").get("name"),
        "inputTokens": usage.get("inputTokens"),
        "outputTokens": usage.get("outputTokens"),
        "cachedTokens": usage.get("cachedTokens"),
        "priceMicro": price.get("micro"),
        "currency": price.get("currency"),
        "trace": stated.get("trace"),
    }


def _part(stated: dict[str, Json], name: str) -> dict[str, Json]:
    part = stated.get(name)
    return part if isinstance(part, dict) else {}
