"""What is remembered between calls never decides anything about time, demands or bytes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from attestation import x509
from attestation.appraise import appraise_snp
from attestation.memory import forget
from attestation.result import AttestationResult
from attestation.snp import verify
from attestation.testing.forge import NOW, Forge, sign_report
from attestation.tests.faults_policy import denial
from attestation.tests.judging import demanding
from schemas.errors import Unreadable

FORGE = Forge.of("Milan")
DAY = timedelta(days=1)


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts public-key operations, from an empty memory."""
    made: list[str] = []
    report, pss = verify._signature, x509.verify_pss

    def count_report(*arguments: Any) -> Any:
        made.append("report")
        return report(*arguments)

    def count_pss(*arguments: Any) -> Any:
        made.append("certificate")
        return pss(*arguments)

    monkeypatch.setattr(verify, "_signature", count_report)
    for module in ("chain", "revocation"):
        monkeypatch.setattr(f"attestation.snp.{module}.verify_pss", count_pss)
    forget()
    return made


def ask(report: bytes | None = None, **changes: Any) -> AttestationResult:
    values: dict[str, Any] = {"endorsements": ENDORSEMENTS, "expectations": demanding(FORGE), "at": NOW}
    return appraise_snp(REPORT if report is None else report, **{**values, **changes})


REPORT, ENDORSEMENTS = FORGE.report(), FORGE.endorsements()


def test_cold_warm_and_again(signatures: list[str]) -> None:
    assert ask().verdict == "affirming"
    assert sorted(signatures) == ["certificate"] * 4 + ["report"]
    signatures.clear()
    assert ask(FORGE.report(report_data=b"\1" * 64)).verdict == "affirming"
    assert signatures == ["report"]
    signatures.clear()
    again = ask(at=NOW + DAY)
    assert again.verdict == "affirming"
    assert again.at == NOW + DAY
    assert signatures == []


def test_malformed_input_costs_no_signature(signatures: list[str]) -> None:
    report = sign_report(FORGE.unsigned_report(policy=1 << 40), FORGE.leaf_key)
    assert ask(report).verdict == "contraindicated"
    with pytest.raises(Unreadable):
        ask(report[:-1])
    assert signatures == []


def test_a_kept_result_ends_with_its_collateral() -> None:
    assert ask().verdict == "affirming"
    assert ask(at=NOW + 351 * DAY).reason == "snp.crl.stale"
    assert ask(at=NOW - 31 * DAY).reason == "snp.cert.not_yet_valid"
    assert ask().verdict == "affirming"


def test_a_kept_result_ends_where_a_denial_begins() -> None:
    wanted = demanding(FORGE, tables=denial("product", "Milan", start="2026-03-02T00:00:00Z"))
    assert ask(expectations=wanted).verdict == "affirming"
    assert ask(expectations=wanted, at=NOW + DAY).reason == "snp.deny.product"


def test_a_kept_result_belongs_to_its_inputs() -> None:
    assert ask().verdict == "affirming"
    assert ask(nonce=b"\1" * 64).reason == "snp.report_data.mismatch"
    assert ask(expectations=demanding(FORGE, vmpl="[1]")).reason == "snp.vmpl.not_allowed"
    assert ask(endorsements=ENDORSEMENTS[:3]).reason == "snp.crl.missing"
    assert ask(expectations=None).reason == "snp.chain.root_unpinned"
    assert ask(endorsements=ENDORSEMENTS[:3], waive_revocation=True).verdict == "affirming"
    assert ask(endorsements=ENDORSEMENTS[:3]).reason == "snp.crl.missing"
    changed = bytearray(REPORT)
    changed[0x50] ^= 1
    assert ask(bytes(changed)).reason == "snp.signature.invalid"


def test_remembering_is_bounded() -> None:
    from attestation import memory

    for function in memory.caches():
        assert function.cache_info().maxsize is not None
