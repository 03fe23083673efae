"""What is remembered between calls never decides anything about time, demands or bytes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from attestation.appraise import appraise_snp
from attestation.memory import forget
from attestation.pki import x509
from attestation.result import AttestationResult
from attestation.snp.appraisal import SnpAppraisal
from attestation.snp.appraise import appraise_report
from attestation.snp.origin import verify
from attestation.snp.tests.faults.policy import denial
from attestation.snp.tests.judging import demanding
from attestation.testing.forge import NOW, Forge, ec_key, sign_report
from schemas.errors import Unreadable

FORGE = Forge.of("Milan")
DAY = timedelta(days=1)


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts public-key operations, from an empty memory."""
    made: list[str] = []
    report, pss = verify.check_signature, x509.verify_pss

    def count_report(*arguments: Any) -> Any:
        made.append("report")
        return report(*arguments)

    def count_pss(*arguments: Any) -> Any:
        made.append("certificate")
        return pss(*arguments)

    for module in ("origin.verify", "appraisal"):
        monkeypatch.setattr(f"attestation.snp.{module}.check_signature", count_report)
    for module in ("chain", "revocation"):
        monkeypatch.setattr(f"attestation.snp.origin.{module}.verify_pss", count_pss)
    forget()
    return made


def ask(report: bytes | None = None, **changes: Any) -> AttestationResult:
    values: dict[str, Any] = {"endorsements": ENDORSEMENTS, "expectations": demanding(FORGE), "at": NOW}
    return appraise_snp(REPORT if report is None else report, **{**values, **changes})


def appraise(report: bytes) -> SnpAppraisal:
    return appraise_report(
        report, endorsements=ENDORSEMENTS, expectations=demanding(FORGE), nonce=None,
        waive_revocation=False, at=NOW,
    )  # fmt: skip


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


DATA = b"\1" * 64


def _signed_by_another() -> bytes:
    return sign_report(FORGE.unsigned_report(report_data=DATA), ec_key("other"))


def _with_padding() -> bytes:
    return FORGE.report(report_data=DATA)[:-1] + b"\1"


def _of_another_vmpl() -> bytes:
    return FORGE.report(report_data=DATA, vmpl=1)


@pytest.mark.parametrize("demanded", ['"any"', f'["{DATA.hex()}"]', f'["{bytes(64).hex()}"]'])
@pytest.mark.parametrize("nonce", [None, DATA, bytes(64)])
@pytest.mark.parametrize(
    "make",
    [lambda: FORGE.report(report_data=DATA), _signed_by_another, _with_padding, _of_another_vmpl],
)
def test_a_known_guests_next_report_is_judged_as_if_nothing_were_known(
    make: Callable[[], bytes], nonce: bytes | None, demanded: str
) -> None:
    report, known = make(), FORGE.report(report_data=DATA)
    wanted = demanding(FORGE, report_data=demanded)
    forget()
    fresh = ask(report, nonce=nonce, expectations=wanted)
    forget()
    ask(known, nonce=nonce, expectations=wanted)  # another signature over the same: now the guest is known
    assert ask(report, nonce=nonce, expectations=wanted) == fresh


def test_a_chip_is_not_proven_by_a_report_whose_signature_fails() -> None:
    for before in ([], [REPORT]):
        forget()
        for report in before:
            assert appraise(report).chip_id == FORGE.chip_id
        assert appraise(_signed_by_another()).chip_id is None


def test_a_downranked_guest_is_kept_too(signatures: list[str]) -> None:
    wanted = demanding(FORGE, tables=denial("product", "Milan", "downrank"))
    assert ask(expectations=wanted).verdict == "warning"
    signatures.clear()
    assert ask(FORGE.report(report_data=DATA), expectations=wanted).reason == "snp.deny.product"
    assert signatures == ["report"]


def test_remembering_is_bounded() -> None:
    from attestation import memory

    for function in memory.caches():
        assert function.cache_info().maxsize is not None
