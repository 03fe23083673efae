"""Turning one bit: in a report, a certificate, a CRL. No single bit may go unnoticed.

By default every byte is hit once, with a bit that moves on from byte to byte, and every bit of the
fields that bind report and certificate. `COMITY_ALL_BITS=1` turns every bit of everything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache

import pytest

from attestation.appraise import appraise_snp
from attestation.expected import Expectations
from attestation.result import AttestationResult
from attestation.snp.tests.judging import PRODUCTS, demanding
from attestation.testing.forge import NOW, Forge
from attestation.tests import recorded
from schemas.errors import Unreadable
from schemas.primitives import parse_time

ALL_BITS = bool(os.environ.get("COMITY_ALL_BITS"))

BINDING_FIELDS = (
    range(0x034, 0x040),  # algorithm, CURRENT_TCB
    range(0x048, 0x050),  # KEY_INFO and the zero behind it
    range(0x180, 0x1F8),  # REPORTED_TCB to LAUNCH_TCB: TCB, CPUID, CHIP_ID
)
NAMES_IN_LEAF = ("bl", "tee", "snp", "ucode", "fmc", "hwid", "csp")

GENUINE = {
    "Milan": "pcit-milan-v5-e303905a",
    "Genoa": "oak-genoa-v5-reissued-vcek-6d1ceffa",
    "Turin": "tav-turin-v5-85da705e",
}

Judge = Callable[[bytes, Sequence[bytes]], AttestationResult]


def flips(data: bytes, every_bit_of: Sequence[range] = ()) -> Iterator[tuple[int, bytes]]:
    """(bit position, the data with that bit turned)."""
    for at in range(len(data)):
        all_bits = ALL_BITS or any(at in each for each in every_bit_of)
        for bit in range(8) if all_bits else (at % 8,):
            turned = bytearray(data)
            turned[at] ^= 1 << bit
            yield 8 * at + bit, bytes(turned)


def unnoticed(judge: Callable[[bytes], AttestationResult], flipped: Iterator[tuple[int, bytes]]) -> list[int]:
    """Positions whose turning changed nothing. Any error but `Unreadable` escapes and fails the test."""
    found: list[int] = []
    for position, data in flipped:
        try:
            result = judge(data)
        except Unreadable:
            continue
        if result.verdict == "affirming":
            found.append(position)
        else:
            assert result.reason is not None
            assert result.reason.startswith("snp.")
    return found


@lru_cache
def _forged(product: str, kind: str) -> tuple[bytes, tuple[bytes, ...], Expectations]:
    forge = Forge.of(product, kind)
    return forge.report(), tuple(forge.endorsements()), demanding(forge)


def judge_forged(product: str, kind: str, report: bytes, endorsements: Sequence[bytes]) -> AttestationResult:
    expectations = _forged(product, kind)[2]
    return appraise_snp(report, endorsements=endorsements, expectations=expectations, at=NOW)


CASES = [("Milan", "VCEK"), ("Genoa", "VCEK"), ("Turin", "VCEK"), ("Milan", "VLEK")]


@pytest.mark.parametrize(("product", "kind"), CASES)
def test_no_bit_of_a_report_is_free(product: str, kind: str) -> None:
    report, endorsements, _ = _forged(product, kind)
    assert judge_forged(product, kind, report, endorsements).verdict == "affirming"
    flipped = flips(report, BINDING_FIELDS)
    assert unnoticed(lambda data: judge_forged(product, kind, data, endorsements), flipped) == []


@pytest.mark.parametrize("index", range(4), ids=["ark", "intermediate", "leaf", "crl"])
@pytest.mark.parametrize(("product", "kind"), CASES)
def test_no_bit_of_an_endorsement_is_free(product: str, kind: str, index: int) -> None:
    report, endorsements, _ = _forged(product, kind)
    document = endorsements[index]
    bound = [_extensions(document)] if index == 2 else []

    def judge(data: bytes) -> AttestationResult:
        offered = [*endorsements[:index], data, *endorsements[index + 1 :]]
        return judge_forged(product, kind, report, offered)

    assert unnoticed(judge, flips(document, bound)) == []


def _extensions(leaf: bytes) -> range:
    """Where AMD's extensions stand in a leaf: behind the first occurrence of their arc."""
    start = leaf.index(bytes.fromhex("2b060104019c78"))
    return range(start - 4, len(leaf) - 512 - 80)


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize("product", PRODUCTS)
def test_no_bit_of_genuine_evidence_is_free(product: str) -> None:
    case = recorded.case(GENUINE[product])
    folder = f"snp/{case['name']}/"
    report, leaf = recorded.read(folder + "report.bin"), recorded.read(folder + "vcek.der")
    others = [recorded.read(f"snp/{path}") for path in (*case["endorsements"], case["crl"])]
    at: datetime = parse_time(case["evaluation_time"])

    def judge(report: bytes, leaf: bytes) -> AttestationResult:
        return appraise_snp(report, endorsements=[leaf, *others], at=at)

    assert judge(report, leaf).verdict == "affirming"
    assert unnoticed(lambda data: judge(data, leaf), flips(report, BINDING_FIELDS[1:2])) == []
    assert unnoticed(lambda data: judge(report, data), flips(leaf, [_extensions(leaf)])) == []
