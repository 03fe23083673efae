"""Reading quotes: what is recorded reads as stated, and no other bytes do anything but refuse."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.tdx.body import SgxReport, TdReport
from attestation.tdx.quote import MAX_TAIL_BYTES, QE_VENDOR, check_quote, read_quote
from attestation.tdx.tests import recorded
from schemas.errors import Unreadable

with_evidence = pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)


def quote_bytes(
    version: int = 4,
    *,
    key_type: int = 2,
    tee_type: int = 0x81,
    vendor: bytes = QE_VENDOR,
    body: bytes = bytes(584),
    v5: tuple[int, int] = (3, 648),
    outer: int = 6,
    inner: int = 5,
    auth: bytes = bytes(32),
    certification: bytes = b"chain",
    slack: bytes = b"",
    inner_slack: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    """A quote of this shape; nothing in it is signed."""
    header = struct.pack("<HHI4s16s20s", version, key_type, tee_type, b"", vendor, b"")
    if version == 5:
        header += struct.pack("<HI", *v5)
    qe = bytes(384 + 64) + struct.pack("<H", len(auth)) + auth
    qe += struct.pack("<HI", inner, len(certification)) + certification + inner_slack
    data = bytes(128) + (qe if version == 3 else struct.pack("<HI", outer, len(qe)) + qe) + slack
    return header + body + struct.pack("<I", len(data)) + data + tail


SHAPES = {
    "v3": {"version": 3, "tee_type": 0, "body": bytes(384)},
    "v4": {},
    "v4 sgx": {"tee_type": 0, "body": bytes(384)},
    "v5 td10": {"version": 5, "v5": (2, 584)},
    "v5 td15": {"version": 5, "body": bytes(648)},
    "v5 td15 extended": {"version": 5, "body": bytes(885), "v5": (4, 885)},
    "v5 sgx": {"version": 5, "tee_type": 0, "body": bytes(384), "v5": (1, 384)},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_each_shape_reads_and_no_prefix_of_it_does(shape: dict[str, Any]) -> None:
    data = quote_bytes(**shape)
    quote = read_quote(data)
    assert quote.certification == b"chain"
    assert quote.tail == b""
    assert all(check.status == "pass" for check in check_quote(quote))
    for length in range(len(data)):
        with pytest.raises(Unreadable):
            read_quote(data[:length])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 2}, "quote_version_unsupported"),
        ({"version": 6}, "quote_version_unsupported"),
        ({"key_type": 3}, "att_key_type_unsupported"),
        ({"tee_type": 0x82}, "tee_type_unsupported"),
        ({"version": 5, "v5": (5, 648)}, "body_type_unsupported"),
        ({"version": 5, "v5": (4, 648)}, "body_size_mismatch"),
        ({"version": 5, "v5": (1, 384)}, "body_type_unsupported"),
        ({"version": 5, "v5": (3, 584)}, "body_size_mismatch"),
        ({"outer": 5}, "sig_data_malformed"),
        ({"inner": 6}, "sig_data_malformed"),
        ({"slack": b"\0"}, "sig_data_malformed"),
        ({"inner_slack": b"\0"}, "sig_data_malformed"),
        ({"certification": bytes(64 * 1024 + 1)}, "sig_data_malformed"),
    ],
)
def test_what_cannot_be_read_says_why(change: dict[str, Any], code: str) -> None:
    with pytest.raises(Unreadable) as error:
        read_quote(quote_bytes(**change))
    assert error.value.code == f"tdx.{code}"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"vendor": bytes(16)}, "tdx.qe_vendor_unknown"),
        ({"version": 3, "tee_type": 0x81, "body": bytes(384)}, "tdx.reserved_nonzero"),
        ({"tail": b"\0\1"}, "tdx.trailing_bytes"),
        ({"tail": bytes(MAX_TAIL_BYTES + 1)}, "tdx.trailing_bytes"),
    ],
)
def test_what_can_be_read_but_must_not_be_so(change: dict[str, Any], code: str) -> None:
    checks = check_quote(read_quote(quote_bytes(**change)))
    assert [check.code for check in checks if check.status == "fail"] == [code]


def test_authentication_data_of_any_length() -> None:
    for length in (0, 1, 31, 33, 65535):
        assert len(read_quote(quote_bytes(auth=bytes(length))).auth_data) == length


def test_a_tail_does_not_change_the_identity() -> None:
    assert read_quote(quote_bytes(tail=bytes(64))).identity == read_quote(quote_bytes()).identity


@given(st.sampled_from(list(SHAPES.values())), st.data())
def test_a_damaged_quote_is_read_or_refused_and_nothing_else(
    shape: dict[str, Any], data: st.DataObject
) -> None:
    good = quote_bytes(**shape)
    damaged = bytearray(good[: data.draw(st.integers(0, len(good)))] + data.draw(st.binary(max_size=80)))
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        quote = read_quote(bytes(damaged))
    except Unreadable as error:
        assert error.code.startswith("tdx.")  # noqa: PT017
    else:
        check_quote(quote)


@with_evidence
@pytest.mark.parametrize("row", recorded.quotes(), ids=lambda row: row["case"])
def test_recorded_quotes_state_what_they_state(row: dict[str, Any]) -> None:
    wanted = recorded.case(row)["expected"]
    quote = read_quote(recorded.read(row["evidence"]))
    assert quote.version == wanted["quote_version"]
    assert quote.tee.upper() == wanted["tee_type"]
    assert quote.certification_type == wanted["cert_data_type"]
    assert len(quote.tail) == wanted.get("trailing_bytes", 0)
    assert quote.body.debug == wanted["debug"]
    assert quote.body.report_data.hex() == wanted["report_data"]
    if isinstance(quote.body, TdReport):
        assert [each.hex() for each in quote.body.rtmrs] == wanted["rtmr"]
        assert quote.body.mrtd.hex() == wanted["mrtd"]
        assert quote.body.td_attributes.hex() == wanted["td_attributes"]
        assert quote.body.xfam.hex() == wanted["xfam"]
        assert quote.body.tcb_svn.hex() == wanted["tee_tcb_svn"]
        if quote.body.tcb_svn2 is not None:
            assert quote.body.tcb_svn2.hex() == wanted["tee_tcb_svn2"]
    if isinstance(quote.body, SgxReport):
        assert quote.body.mrenclave.hex() == wanted["mrenclave"]
        assert quote.body.mrsigner.hex() == wanted["mrsigner"]
