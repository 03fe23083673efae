"""How a log's row holds a receipt: nothing else comes out of it than what was signed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipts.log import fsck, store
from receipts.statements import packed
from receipts.tests.world import CLINIC, Domain, drafts
from schemas import envelope
from schemas.envelope import MAX_ENVELOPE_BYTES, STATEMENT, Envelope
from schemas.errors import Unreadable
from schemas.keys import SigningKey

KEY = SigningKey.generate()


def pack(payload: bytes) -> bytes:
    digest = envelope.digest(STATEMENT, payload)
    return packed.pack(KEY.thumbprint, KEY.sign_digest(digest), payload)


@given(st.binary(max_size=200))
def test_the_envelope_comes_out_as_it_was_signed(payload: bytes) -> None:
    row = pack(payload)
    assert packed.written(row) == envelope.sign(STATEMENT, payload, KEY)
    assert packed.read(row) == envelope.read(packed.written(row))


def test_an_envelope_of_an_older_log_is_read_as_it_is() -> None:
    signed = envelope.sign(STATEMENT, b"{}", KEY)
    assert packed.written(signed) == signed
    assert packed.read(signed) == envelope.read(signed)


def test_a_row_is_a_quarter_shorter() -> None:
    payload = b"x" * 2800
    assert len(pack(payload)) < 0.75 * len(envelope.sign(STATEMENT, payload, KEY))


@pytest.mark.parametrize("length", [1, 2, 33, 34, 35, 60])
def test_a_row_that_is_cut_off(length: int) -> None:
    with pytest.raises(Unreadable, match=r"log\.damaged"):
        packed.read(pack(b"")[:length])


def test_a_row_that_is_too_long() -> None:
    with pytest.raises(Unreadable, match=r"log\.damaged"):
        packed.read(pack(bytes(MAX_ENVELOPE_BYTES)))


@given(st.binary(max_size=300).map(lambda data: b"\x01" + data) | st.binary(max_size=300))
def test_whatever_stands_there_is_an_envelope_or_one_error(data: bytes) -> None:
    try:
        found = packed.read(data)
    except Unreadable:
        return
    assert isinstance(found, Envelope)
    assert packed.read(packed.written(data)) == found


async def test_a_log_from_before_goes_on(clinic: Domain, tmp_path: Path) -> None:
    """Its rows hold envelopes: they come out as they went out, new ones stand beside them, and all holds."""
    log = await clinic.open(tmp_path)
    old = await log.issue(drafts(3))
    await log.close()
    database = tmp_path / f"{CLINIC}.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        for one in old:
            connection.execute("UPDATE statement SET envelope = ? WHERE idx = ?", (one.envelope, one.index))
        connection.execute("UPDATE meta SET value = '4' WHERE name = 'schema'")
    log = await clinic.open(tmp_path)
    (new,) = await log.issue(drafts(1))
    for one in (*old, new):
        again = await log.issued(one.receipt_id)
        assert again is not None
        assert (again.envelope, again.promise) == (one.envelope, one.promise)
    await log.close()
    with closing(sqlite3.connect(database)) as connection:
        rows = [data for (data,) in connection.execute("SELECT envelope FROM statement ORDER BY idx")]
        assert store.read_meta(connection)["schema"] == str(store.SCHEMA_VERSION)
    assert [data[:1] for data in rows] == [b"{", b"{", b"{", b"\x01"]
    assert fsck.check(database, keys=[clinic.keys.note.key]).wrong == []
