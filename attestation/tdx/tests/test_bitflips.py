"""Turning one bit: in a quote, in Intel's documents, in a CRL, in a signer. Nothing that matters is free.

By default every byte is hit once, with a bit that moves on from byte to byte. `COMITY_ALL_BITS=1` turns
every bit of everything. What may change without consequence is listed here, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from attestation.appraise import appraise_dcap
from attestation.result import AttestationResult
from attestation.snp.tests.test_bitflips import ALL_BITS, flips
from attestation.tdx.quote import read_quote
from attestation.tdx.tests import recorded
from attestation.tdx.tests.judging import GOOD, SGX, TD15, TD15_EX, judge
from attestation.testing.intel import IntelForge
from schemas.errors import Unreadable
from schemas.primitives import parse_time

Judge = Callable[[bytes], AttestationResult]


def unnoticed(judge: Judge, good: bytes, step: int = 1) -> list[tuple[int, int]]:
    """(byte, value) of every change that is still affirmed. Any error but ours escapes and fails the test.

    step: only every so many bytes, where another shape's every byte was turned already.
    """
    found: list[tuple[int, int]] = []
    for position, data in flips(good):
        if position // 8 % step and not ALL_BITS:
            continue
        try:
            result = judge(data)
        except Unreadable as error:
            assert error.code.startswith("tdx.")  # noqa: PT017
            continue
        if result.verdict in ("affirming", "warning"):
            found.append((position // 8, data[position // 8]))
        else:
            assert result.reason is not None
            assert result.reason.startswith("tdx.")
    return found


def meaningless(quote: bytes) -> set[tuple[int, int]]:
    """The NUL behind the chain's PEM may as well be a space: nothing is signed there, nothing is read."""
    at = quote.index(read_quote(quote).certification) + len(read_quote(quote).certification) - 1
    return {(at, 0x20)} if quote[at] == 0 else set()


@pytest.mark.parametrize(
    ("forge", "step"), [(GOOD, 1), (TD15, 5), (TD15_EX, 5), (SGX, 5)], ids=lambda each: str(each)[:40]
)
def test_no_bit_of_a_quote_is_free(forge: IntelForge, step: int) -> None:
    quote, offered = forge.quote(), [forge.collateral()]

    def judged(data: bytes) -> AttestationResult:
        return judge(forge, quote=data, endorsements=offered)

    assert judged(quote).verdict == "affirming"
    assert set(unnoticed(judged, quote, step)) <= meaningless(quote)


def pieces(forge: IntelForge) -> list[bytes]:
    """The collateral without what the quote brings itself: CA and root."""
    info, identity, root_crl, pck_crl, *_ = forge.pieces()
    return [info, identity, root_crl, pck_crl, forge.signer.der()]


NAMES = ("tcb_info", "qe_identity", "root_crl", "pck_crl", "signer")


@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_no_bit_of_a_piece_of_collateral_is_free(index: int) -> None:
    offered, quote = pieces(GOOD), GOOD.quote()

    def judged(data: bytes) -> AttestationResult:
        return judge(GOOD, quote=quote, endorsements=[*offered[:index], data, *offered[index + 1 :]])

    assert judged(offered[index]).verdict == "affirming"
    assert [each for each in unnoticed(judged, offered[index]) if not _spelling(offered[index], each)] == []


def _spelling(piece: bytes, change: tuple[int, int]) -> bool:
    """Hex of a signature in capitals is the same signature; the line may end differently behind it."""
    at, value = change
    before = chr(piece[at])
    return before in "abcdef" and chr(value) == before.upper() and piece.rindex(b'"signature":"') < at


def test_a_root_that_documents_bring_adds_no_trust() -> None:
    """It is compared with the pin; a damaged copy refuses, or is not used beside the quote's own."""
    offered, root, quote = pieces(GOOD), GOOD.root.der(), GOOD.quote()

    def judged(data: bytes) -> AttestationResult:
        return judge(GOOD, quote=quote, endorsements=[*offered, data])

    without = judge(GOOD, quote=quote, endorsements=offered)
    for at, value in unnoticed(judged, root):
        assert judged(root[:at] + bytes([value]) + root[at + 1 :]).checks == without.checks


GENUINE = (
    "tdx-v4-dcapqvl-f1c850-eval18-2026-03-01-uptodate",
    "tdx-v5-gotdx-cf77a6-eval18-2026-02-01-uptodate",
)
with_evidence = pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)


@with_evidence
@pytest.mark.parametrize("name", GENUINE)
def test_no_bit_of_a_genuine_quote_is_free(name: str) -> None:
    """Every third byte of two platforms: of the forged quote it is every one."""
    (row,) = [each for each in recorded.rows() if each["case"] == f"tdx/{name}"]
    quote = recorded.read(row["evidence"])
    offered: Sequence[bytes] = [recorded.read(each) for each in row["endorsements"]]
    at = parse_time(row["at"])

    def judged(data: bytes) -> AttestationResult:
        return appraise_dcap(data, tee="tdx", endorsements=offered, at=at)

    assert judged(quote).verdict == "affirming"
    parsed = read_quote(quote)
    end = len(quote) - len(parsed.tail)
    assert set(unnoticed(judged, quote[:end], step=3)) <= meaningless(quote)
