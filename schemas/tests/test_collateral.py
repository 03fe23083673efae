"""A bundle holds as one signed whole, or there is one clear refusal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import envelope
from schemas.canonical import Json, read_json, sha256, write_json
from schemas.errors import ComityError, Refused, Unreadable
from schemas.keys import SigningKey, VerifyKey
from schemas.proof.collateral import (
    COLLATERAL,
    MAX_PIECE_BYTES,
    MAX_PIECES,
    CollateralIndex,
    sign_index,
    verify_index,
    verify_pieces,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)
DOCUMENTS = [b"a certificate", b"a list", b"a manifest"]
INDEX = CollateralIndex.over(DOCUMENTS, issuer="cloud.fr", at=NOW)
HELD = {sha256(document).hex(): document for document in DOCUMENTS}
FIRST = INDEX.pieces[0].sha256


@lru_cache
def key() -> SigningKey:
    return SigningKey.generate()


def signers(domain: str, at: datetime) -> list[VerifyKey]:
    """cloud.fr's key, good in this one year."""
    if domain != "cloud.fr" or at.year != 2026:
        raise Refused("trust.no_key", domain)
    return [key().public]


def test_what_was_signed_is_what_is_read() -> None:
    index = verify_index(sign_index(INDEX, key()), signers, NOW + timedelta(days=3650))
    assert index == INDEX
    assert sorted(verify_pieces(index, HELD)) == sorted(DOCUMENTS)


Change = Callable[[dict[str, bytes]], dict[str, bytes]]
TOUCHED: dict[str, Change] = {
    "collateral.piece_missing": lambda held: {name: held[name] for name in held if name != FIRST},
    "collateral.piece_surplus": lambda held: {**held, sha256(b"more").hex(): b"more"},
    "collateral.piece_altered": lambda held: {**held, FIRST: held[FIRST] + b" "},
}


@pytest.mark.parametrize("code", TOUCHED)
def test_a_bundle_that_was_touched_is_refused(code: str) -> None:
    with pytest.raises(Refused) as refused:
        verify_pieces(INDEX, TOUCHED[code](HELD))
    assert refused.value.code == code


def stating(**changes: Json) -> bytes:
    return write_json({**INDEX.as_json(), **changes})


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (sign_index(INDEX, SigningKey.generate()), "envelope.signature_invalid"),
        (envelope.sign(envelope.ADVERT, INDEX.write(), key()), "collateral.index"),
        (sign_index(INDEX.model_copy(update={"issuer": "hyper.us"}), key()), "trust.no_key"),
        (sign_index(INDEX.model_copy(update={"made": INDEX.made + 31}), key()), "collateral.future"),
        (sign_index(INDEX.model_copy(update={"made": INDEX.made - 400 * 86_400}), key()), "trust.no_key"),
        (envelope.sign(COLLATERAL, stating(pieces=[]), key()), "schema.CollateralIndex"),
        (envelope.sign(COLLATERAL, stating(more=1), key()), "schema.CollateralIndex"),
        (envelope.sign(COLLATERAL, stating(v=2), key()), "schema.CollateralIndex"),
        (envelope.sign(COLLATERAL, stating(pieces=[p.as_json() for p in INDEX.pieces[::-1]]), key()),
         "schema.CollateralIndex"),
        (envelope.sign(COLLATERAL, stating(pieces=[INDEX.pieces[0].as_json()] * 2), key()),
         "schema.CollateralIndex"),
    ],
)  # fmt: skip
def test_an_index_that_does_not_hold_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(ComityError) as refused:
        verify_index(data, signers, NOW)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("documents", "code"),
    [
        ([], "collateral.piece_count"),
        ([n.to_bytes(2) for n in range(MAX_PIECES + 1)], "collateral.piece_count"),
        ([b""], "collateral.piece_size"),
        ([bytes(MAX_PIECE_BYTES + 1)], "collateral.piece_size"),
        ([bytes([n]) * MAX_PIECE_BYTES for n in range(47)], "collateral.piece_size"),
    ],
)
def test_what_is_no_bundle_is_not_made(documents: list[bytes], code: str) -> None:
    with pytest.raises(Refused) as refused:
        CollateralIndex.over(documents, issuer="cloud.fr", at=NOW)
    assert refused.value.code == code


def test_the_largest_index_fits_its_limit() -> None:
    largest = CollateralIndex.over([n.to_bytes(2) for n in range(MAX_PIECES)], issuer="x." + "a" * 60, at=NOW)
    pieces = [piece.model_copy(update={"size": 32_768}) for piece in largest.pieces]
    data = sign_index(largest.model_copy(update={"pieces": pieces, "issuer": "cloud.fr"}), key())
    assert len(verify_index(data, signers, NOW).pieces) == MAX_PIECES


@given(st.binary(max_size=400) | st.integers(0, 10_000).map(lambda n: _mangled(n)))
def test_any_bytes_are_an_index_or_one_of_our_errors(data: bytes) -> None:
    try:
        found = verify_index(data, signers, NOW)
    except ComityError:
        return
    assert found == INDEX


def _mangled(n: int) -> bytes:
    """The good index with one bit turned."""
    data = bytearray(GOOD)
    data[n % len(data)] ^= 1 << n % 8
    return bytes(data)


GOOD = sign_index(INDEX, key())


@given(st.dictionaries(st.sampled_from([*HELD, "0" * 64, "not a digest"]), st.sampled_from(DOCUMENTS)))
def test_only_the_whole_bundle_holds(held: dict[str, bytes]) -> None:
    if held == HELD:
        assert verify_pieces(INDEX, held)
        return
    with pytest.raises(Refused):
        verify_pieces(INDEX, held)


@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3))
)
def test_any_payload_under_a_good_signature_is_read_or_unreadable(value: Json) -> None:
    """A key that signs nonsense makes no index of it."""
    for data in (write_json(value), stating(pieces=value)):
        with pytest.raises(Unreadable):
            verify_index(envelope.sign(COLLATERAL, data, key()), signers, NOW)
    assert isinstance(read_json(stating()), dict)
