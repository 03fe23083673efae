"""Erasing what a request left behind, while every proof stays valid (receipts.md 14).

Gone are the receipts' text, leaf salts, commitment keys, and what is kept of others about the
request. Left are the leaf records, which name nothing without their salts, the numbers of the
sequence, and a signed tombstone under a leaf of its own. The ledger lies beside the database, outside
its backup: a restored backup is erased again before it serves anything.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Final

from receipts import private_file
from receipts.bundle import Disclosures
from receipts.leaf import Kind
from receipts.retention import check_erasable
from receipts.statements import packed
from receipts.statements.fields import RECORD
from receipts.statements.notice import Notice, Tombstone, sign_notice
from receipts.statements.receipt import MODELS, AcknowledgementReceipt, PlacementReceipt, Receipt
from receipts.statements.statement import parse_receipt, receipt_kind
from schemas import envelope
from schemas.errors import ConfigurationError, Refused, Unreadable
from schemas.files import sync_folder
from schemas.keys import SigningKey
from schemas.primitives import format_time

MAX_LEDGER_BYTES: Final = 256 * 1024 * 1024  # some million erasures
MAX_LINE: Final = 324  # bytes of one order: a request id of 64, two words of 128, blanks and line end
_WORD: Final = re.compile(r"[\x21-\x7e]{1,128}")  # a label: one word of the ledger, a field of a tombstone
UNKNOWN: Final = "restored"  # reason and authority of an erasure that an older ledger names alone


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be erased: all receipts of one request."""

    request_id: str
    reason: str
    authority: str
    at: datetime


def ledger_of(database: Path) -> Path:
    """The list of erasures: back it up apart from the database, or it comes back with what it forbids."""
    return database.with_name(database.name + "-erasures")


def erase(connection: sqlite3.Connection, order: Order, key: SigningKey, ledger: Path) -> list[Notice]:
    """Inside a transaction: erase, and return the signed tombstones, which go into the log with it.

    The ledger is on disk first. Raises `Refused` (`log.unknown_receipt`, `log.erasure_words`,
    `retention.hold`, `retention.early`); nothing is erased then.
    """
    if not all(_WORD.fullmatch(word) for word in (order.reason, order.authority)):
        raise Refused("log.erasure_words", "reason and authority are visible ASCII without blanks")
    rows = _rows(connection, order.request_id)
    if not rows:
        raise Refused("log.unknown_receipt", f"no receipt of request {order.request_id} to erase")
    for _, _, data in rows:
        _check(data, order.at)
    _remember(ledger, order)
    return _bury(connection, order, rows, key)


def _rows(connection: sqlite3.Connection, request_id: str) -> list[tuple[int, str, bytes]]:
    """(leaf, receipt id, envelope) of a request's receipts that are still there."""
    return connection.execute(
        "SELECT idx, receipt_id, envelope FROM statement"
        " WHERE request_id = ? AND envelope != x'' ORDER BY idx",
        (request_id,),
    ).fetchall()


def _bury(
    connection: sqlite3.Connection, order: Order, rows: Sequence[tuple[int, str, bytes]], key: SigningKey
) -> list[Notice]:
    """Wipe, with a tombstone for each receipt."""
    stones = [_tombstone(index, receipt_id, order, key) for index, receipt_id, _ in rows]
    wipe(connection, order.request_id, [data for _, _, data in rows])
    connection.executemany(
        "INSERT OR REPLACE INTO tombstone (idx, envelope) VALUES (?, ?)",
        [(stone.about, stone.envelope) for stone in stones],
    )
    return stones


def unlogged(connection: sqlite3.Connection) -> list[Notice]:
    """Tombstones that stand under no leaf: of a restored backup, or of a log from before they did."""
    rows = connection.execute(
        "SELECT t.idx, t.envelope FROM tombstone t LEFT JOIN notice n ON n.about = t.idx WHERE n.idx IS NULL"
        " ORDER BY t.idx"
    )
    return [Notice(Kind.TOMBSTONE, envelope.read(data).digest, data, about) for about, data in rows]


def _check(data: bytes, at: datetime) -> Receipt:
    body = _read(data)
    check_erasable(body.retention, at)
    return body


def _tombstone(index: int, receipt_id: str, order: Order, key: SigningKey) -> Notice:
    return sign_notice(
        Tombstone(
            leaf=index,
            receipt_id=receipt_id,
            reason=order.reason,
            authority=order.authority,
            time=format_time(order.at),
        ),
        key,
    )


def wipe(connection: sqlite3.Connection, request_id: str, envelopes: Sequence[bytes]) -> None:
    """Text, salts, keys, what others said of the request, and what its outcome was waited for with.

    Evidence of a node's epoch is shared by many requests and says nothing of any: it stays.
    """
    bodies = [_read(data) for data in envelopes]
    commitments = {each for body in bodies for each in _commitments(body)}
    reasons = {each for body in bodies for each in _reasons(body)} | _candidates(connection, request_id)
    connection.executemany("DELETE FROM blob WHERE digest = ?", [(each,) for each in reasons])
    connection.executemany(
        "DELETE FROM commitment_key WHERE commitment = ?", [(each,) for each in commitments]
    )
    connection.execute(
        "UPDATE leaf SET salt = NULL WHERE idx IN (SELECT idx FROM statement WHERE request_id = ?)",
        (request_id,),
    )
    connection.execute(
        "UPDATE statement SET envelope = x'', disclosures = NULL WHERE request_id = ?", (request_id,)
    )
    connection.execute("DELETE FROM foreign_statement WHERE request_id = ?", (request_id,))
    _forget_points(connection, request_id, commitments)


def _forget_points(connection: sqlite3.Connection, request_id: str, commitments: Iterable[bytes]) -> None:
    """Write-ahead rows stay without their data, so that no name is used twice. What was still to come for
    the request is waited for no longer: it would bring back what was erased.

    Rows whose outcome is known hold nothing any more, since the log was opened.
    """
    for kind in _kinds(connection):
        connection.execute("UPDATE ahead SET data = x'' WHERE kind = ? AND key = ?", (kind, request_id))
        connection.executemany(
            "UPDATE ahead SET data = x'', settled = 1 WHERE kind = ? AND key = ?",
            [(kind, each.hex()) for each in commitments],
        )


def _kinds(connection: sqlite3.Connection) -> list[str]:
    """Kinds of write-ahead rows, of which there are a few: each is one step down the index, not a scan."""
    found: list[str] = []
    while True:
        (kind,) = connection.execute(
            "SELECT min(kind) FROM ahead WHERE kind > ?", (found[-1] if found else "",)
        ).fetchone()
        if kind is None:
            return found
        found.append(kind)


def _read(data: bytes) -> Receipt:
    payload = packed.read(data).payload
    return parse_receipt(payload, MODELS[receipt_kind(payload)])


def _reasons(body: Receipt) -> list[bytes]:
    """What the receipt was decided from: the policy's facts, which name a tenant, and J's inputs."""
    if isinstance(body, AcknowledgementReceipt):
        return []
    named = [each.removeprefix(RECORD) for each in body.policy.properties if each.startswith(RECORD)]
    named += [body.inputs.costs] if isinstance(body, PlacementReceipt) and body.inputs.costs else []
    return [bytes.fromhex(each) for each in named if re.fullmatch(r"[0-9a-f]{64}", each)]


def _candidates(connection: sqlite3.Connection, request_id: str) -> set[bytes]:
    """Lists of the candidates behind its Placements."""
    rows = connection.execute(
        "SELECT disclosures FROM statement WHERE request_id = ? AND disclosures IS NOT NULL", (request_id,)
    ).fetchall()
    named = [Disclosures.read(data).considered for (data,) in rows]
    return {bytes.fromhex(each) for each in named if each}


def _commitments(body: Receipt) -> list[bytes]:
    response = getattr(body, "response", None)
    found = [body.request.commitment, *([response.commitment] if response else [])]
    return [bytes.fromhex(each) for each in found]


def _remember(ledger: Path, order: Order) -> None:
    """Before anything is erased: a crash in between erases once more, never once less."""
    line = f"{order.request_id} {order.reason} {order.authority}\n".encode("ascii")
    try:
        known = ledger.exists()
        with open(ledger, "a+b", buffering=0, opener=private_file.opener) as file:
            _end_line(file)
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        if not known:
            sync_folder(ledger.parent)
    except OSError as error:
        raise ConfigurationError("log.erasures", f"{ledger}: {error.strerror}") from None


def _end_line(file: FileIO) -> None:
    """A piece that a crash left behind the last line end is cut off: this order would go on from there."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - MAX_LINE))
    piece = file.read(MAX_LINE).rpartition(b"\n")[2]
    if _is_order(piece):
        file.write(b"\n")
    else:
        file.truncate(size - len(piece))


def _is_order(piece: bytes) -> bool:
    """Whether what stands behind the last line end is whole, as by hand: three words are an order."""
    return len(piece.split()) == 3


def remembered(ledger: Path, at: datetime) -> list[Order]:
    """The orders in the ledger, to be carried out again. Raises `ConfigurationError` or `Unreadable`.

    A line is request id, reason and authority; one of an older ledger is the request id alone. A last line
    that was broken off is no order: nothing had been erased for it.
    """
    try:
        if not ledger.exists():
            return []
        with ledger.open("rb") as file:
            data = file.read(MAX_LEDGER_BYTES + 1)
    except OSError as error:
        raise ConfigurationError("log.erasures", f"{ledger}: {error.strerror}") from None
    *lines, piece = data.split(b"\n")
    lines += [piece] if _is_order(piece) else []
    if len(data) > MAX_LEDGER_BYTES or not all(map(bytes.isascii, lines)):
        raise Unreadable("log.erasures", f"{ledger} is not a list of erasures")
    return [_order(line.decode("ascii"), ledger, at) for line in lines]


def _order(line: str, ledger: Path, at: datetime) -> Order:
    match line.split():
        case [request_id, reason, authority]:
            return Order(request_id, reason, authority, at)
        case [request_id]:
            return Order(request_id, UNKNOWN, UNKNOWN, at)
    raise Unreadable("log.erasures", f"{ledger} is not a list of erasures: {line!r:.80}")


def erase_again(connection: sqlite3.Connection, ledger: Path, key: SigningKey, at: datetime) -> int:
    """What a restored backup brought back; returns how many receipts. Before the log serves anything."""
    count = 0
    for order in remembered(ledger, at):
        if rows := _rows(connection, order.request_id):
            connection.execute("BEGIN IMMEDIATE")
            _bury(connection, order, rows, key)
            connection.execute("COMMIT")
            count += len(rows)
    return count
