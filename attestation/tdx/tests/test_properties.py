"""Whatever the bytes, each reader of the room reads them or refuses with an error of ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.tdx.collateral.documents import gather
from attestation.tdx.collateral.stated import read_evaluations, read_qe_identity, read_tcb_info
from attestation.tdx.forms import unwrap
from attestation.tdx.origin.chain import split_pem
from attestation.tdx.origin.pck import read_pck
from attestation.tdx.quote import read_quote
from attestation.tdx.tests.judging import GOOD, judge
from attestation.testing.intel import pem
from schemas.errors import Refused, Unreadable

Read = Callable[[bytes], object]


@lru_cache
def readers() -> dict[str, tuple[Read, bytes]]:
    """Name → the reader, and something that it reads."""
    info, identity = GOOD.documents()
    return {
        "quote": (read_quote, GOOD.quote()),
        "set": (lambda data: gather((data,)), GOOD.collateral()),
        "answer": (lambda data: gather((data,)), GOOD.pieces()[0]),
        "crl": (lambda data: gather((data,)), GOOD.pieces()[2]),
        "tcb_info": (read_tcb_info, info),
        "qe_identity": (read_qe_identity, identity),
        "evaluations": (read_evaluations, GOOD.evaluations()[28:-144]),
        "list": (lambda data: gather((data,)), GOOD.evaluations()),
        "form": (unwrap, b'{"quote":"%s"}' % GOOD.quote().hex().encode()),
        "chain": (split_pem, pem(*GOOD.chain())),
        "extension": (read_pck, GOOD.sgx_extension()),
    }


def read(name: str, data: bytes) -> None:
    try:
        readers()[name][0](data)
    except (Refused, Unreadable) as error:
        assert error.code.startswith("tdx.")  # noqa: PT017


@pytest.mark.parametrize("name", readers())
@given(data=st.binary(max_size=400))
def test_random_bytes(name: str, data: bytes) -> None:
    read(name, data)


@pytest.mark.parametrize("name", readers())
@given(data=st.data())
def test_damaged_documents(name: str, data: st.DataObject) -> None:
    good = readers()[name][1]
    cut, kept = sorted((data.draw(st.integers(0, len(good))), data.draw(st.integers(0, len(good)))))
    damaged = bytearray(good[:cut] + data.draw(st.binary(max_size=40)) + good[kept:])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    read(name, bytes(damaged))


@given(st.binary(max_size=300), st.integers(0, 5))
def test_no_extension_of_a_quote_is_affirmed_but_zeros(tail: bytes, zeros: int) -> None:
    found = judge(GOOD, quote=GOOD.quote() + bytes(zeros) + tail)
    assert (found.verdict == "affirming") == (not any(tail))


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_whatever_is_offered_beside_never_affirms_what_does_not_hold(extra: list[bytes]) -> None:
    assert judge(GOOD, endorsements=extra).verdict != "affirming"


@given(st.binary(min_size=64, max_size=64))
def test_no_made_up_signature_verifies(signature: bytes) -> None:
    quote = GOOD.quote()
    start = 48 + 584 + 4
    found = judge(GOOD, quote=quote[:start] + signature + quote[start + 64 :])
    assert found.check("tdx.authenticity.quote_signature").status == "fail"
