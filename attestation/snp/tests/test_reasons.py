"""Every reason code, each reached by one fault in otherwise good forged evidence."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.pki.x509 import read_certificate
from attestation.snp.appraise import appraise_report
from attestation.snp.format import P384_ORDER
from attestation.snp.origin.chain import Roots, verify_issuers
from attestation.snp.tests.faults import chain as faults_chain
from attestation.snp.tests.faults import policy as faults_policy
from attestation.snp.tests.faults import report as faults_report
from attestation.snp.tests.faults import time as faults_time
from attestation.snp.tests.faults.listed import DAY, FAULTS, GENOA, MILAN, VLEK, Fault
from attestation.snp.tests.faults.policy import denial, denied
from attestation.snp.tests.faults.report import HIGHER_TCB
from attestation.snp.tests.faults.time import with_crls
from attestation.snp.tests.judging import KINDS, PRODUCTS, demanding, judge
from attestation.testing.forge import NOW, Forge, ec_key, rsa_key
from schemas.errors import Refused, Unreadable

ROOMS = (faults_report, faults_chain, faults_time, faults_policy)
"""Loading them fills `FAULTS`."""


@pytest.mark.parametrize("each", FAULTS, ids=lambda each: f"{each.code}-{each.name}")
def test_fault(each: Fault) -> None:
    found = each.make()
    codes = [check.code for check in found.checks if check.status != "pass" and check.effect != "shown"]
    assert each.code in codes
    assert found.verdict == each.verdict
    assert found.exit_code == {"contraindicated": 1, "none": 3, "warning": 0}[each.verdict]
    assert found.reason is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("product", [*PRODUCTS, "Venice"])
def test_good_evidence_of_every_product_and_kind(product: str, kind: str) -> None:
    forge = Forge.of(product, kind)
    found = judge(forge)
    assert (found.verdict, found.reason) == ("affirming", None)
    assert found.platform == f"simulated-snp-{product.lower()}"


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("product", PRODUCTS)
def test_every_report_version(product: str, version: int) -> None:
    assert judge(replace(Forge.of(product), version=version)).verdict == "affirming"


@pytest.mark.parametrize("vmpl", [0, 1, 2, 3])
def test_every_vmpl(vmpl: int) -> None:
    found = judge(MILAN, report=MILAN.report(vmpl=vmpl), expectations=demanding(MILAN, vmpl=f"[{vmpl}]"))
    assert found.verdict == "affirming"


@pytest.mark.parametrize("model", [0xA0, 0xAF, 0x10, 0x1F])
def test_bergamo_and_siena_are_genoa(model: int) -> None:
    assert judge(GENOA, report=GENOA.report(cpuid=(0x19, model, 0))).verdict == "affirming"


def test_an_author_key() -> None:
    report = MILAN.report(key_info=1, author_key_digest=b"\7" * 48)
    wanted = demanding(MILAN, author_key_digest=f'["{"07" * 48}"]')
    assert judge(MILAN, report=report, expectations=wanted).verdict == "affirming"


def test_a_masked_chip_key_bit_on_a_signed_report_is_only_shown() -> None:
    assert judge(VLEK, report=VLEK.report(key_info=1 << 2 | 2)).verdict == "affirming"


def test_the_other_half_of_a_signature_verifies_and_names_the_same_report() -> None:
    report = MILAN.report()
    s = int.from_bytes(report[0x2E8 : 0x2E8 + 72], "little")
    twin = report[:0x2E8] + (P384_ORDER - s).to_bytes(72, "little") + report[0x330:]
    first, second = judge(MILAN, report=report), judge(MILAN, report=twin)
    assert first.verdict == second.verdict == "affirming"
    assert first.identity == second.identity


def test_launch_above_committed_is_no_error() -> None:
    """Migration may have brought the guest from a newer machine's firmware."""
    report = MILAN.report(launch_tcb=HIGHER_TCB, current_tcb=HIGHER_TCB)
    found = judge(MILAN, report=report)
    assert found.verdict == "affirming"
    assert "snp.tcb.provisional" in found.advisories


def test_without_expectations_only_debug_is_judged() -> None:
    """A simulated root needs expectations; so this is seen on what those checks say."""
    from attestation.appraise import appraise_snp

    found = appraise_snp(
        MILAN.report(vmpl=3, policy=1 << 17 | 1 << 18), endorsements=MILAN.endorsements(), at=NOW
    )
    assert found.reason == "snp.chain.root_unpinned"
    assert found.check("snp.policy.debug").status == "pass"
    with pytest.raises(KeyError):
        found.check("snp.policy.migration")


def test_debug_passes_only_with_a_waiver_that_is_named() -> None:
    report = MILAN.report(policy=1 << 17 | 1 << 19)
    found = judge(MILAN, report=report, expectations=demanding(MILAN, debug='"any"'))
    assert found.verdict == "affirming"
    assert found.debug
    assert "snp.debug" in found.waived


@pytest.mark.parametrize("crls", [[], [MILAN.crl(next_update=NOW)]], ids=["missing", "stale"])
def test_a_waiver_forgives_a_missing_or_stale_crl_and_is_named(crls: list[bytes]) -> None:
    found = with_crls(*crls, waive=True)
    assert found.verdict == "affirming"
    assert "revocation" in found.waived
    assert "waived" in found.check("snp.crl").seen


def test_the_waiver_can_stand_in_the_expectations() -> None:
    offered = [MILAN.ark(), MILAN.intermediate(), MILAN.leaf()]
    found = judge(MILAN, endorsements=offered, expectations=demanding(MILAN, revocation='"any"'))
    assert found.verdict == "affirming"
    assert "snp.revocation" in found.waived


def test_another_vendors_crl_is_passed_over() -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Another Root CA")])
    builder = x509.CertificateRevocationListBuilder(name, NOW - DAY, NOW + DAY)
    foreign = builder.sign(ec_key("foreign"), hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    assert with_crls(MILAN.crl(), foreign).verdict == "affirming"


def test_a_denial_is_silent_before_its_time() -> None:
    found = denied(MILAN, denial("product", "Milan", start="2026-03-01T00:00:01Z"))
    assert found.verdict == "affirming"


def test_reissued_certificates_for_one_key_are_no_ambiguity() -> None:
    later = MILAN.leaf(not_before=NOW - DAY, not_after=NOW + 3000 * DAY)
    future = MILAN.leaf(not_before=NOW + DAY, not_after=NOW + 4000 * DAY)
    found = judge(MILAN, endorsements=[*MILAN.endorsements(), later, future])
    assert found.verdict == "affirming"


def test_the_certificate_of_the_right_tcb_is_found_among_several() -> None:
    others = [
        MILAN.leaf(
            extensions=MILAN.extensions(tcb={**MILAN.tcb, "ucode": ucode}),
            public_key=ec_key(f"ucode {ucode}").public_key(),
        )
        for ucode in (1, 200)
    ]
    assert judge(MILAN, endorsements=[*others, *MILAN.endorsements()]).verdict == "affirming"


def test_the_intermediate_that_signed_is_found_among_reissued_ones() -> None:
    other = MILAN.intermediate(public_key=rsa_key("other").public_key(), serial=7)
    assert judge(MILAN, endorsements=[other, *MILAN.endorsements()]).verdict == "affirming"


def test_a_verified_chain_is_judged_again_at_every_time() -> None:
    """The cache keeps signatures, never a verdict about time."""
    assert judge(VLEK).verdict == "affirming"
    assert judge(VLEK, at=NOW + 340 * DAY).reason == "snp.cert.expired"
    assert judge(MILAN, at=NOW + 351 * DAY).reason == "snp.crl.stale"


@pytest.mark.parametrize("length", [0, 1, 1183, 1185, 4001])
def test_a_wrong_length_is_unreadable(length: int) -> None:
    with pytest.raises(Unreadable):
        judge(MILAN, report=bytes(length))


NOT_REACHED_HERE = {
    "snp.report.length",  # Unreadable: above
}


def codes_in_source() -> set[str]:
    """Every literal reason code of the SNP rooms."""
    files = (file for file in Path(__file__).parents[1].rglob("*.py") if "tests" not in file.parts)
    text = "\n".join(file.read_text() for file in files)
    groups = "report|signature|endorsement|chain|cert|crl|policy|platform|tcb|vmpl|measurement|guest_svn|deny"
    found = set(re.findall(rf'"(snp\.(?:{groups})\.[a-z_]+)"', text))
    return found - set(CHECK_NAMES)


CHECK_NAMES = {
    "snp.report.version", "snp.report.algorithm", "snp.report.signing_key", "snp.report.reserved",
    "snp.report.vmpl", "snp.report.product", "snp.signature.encoding", "snp.cert.validity",
    "snp.cert.extensions", "snp.cert.signer", "snp.cert.product", "snp.cert.tcb", "snp.cert.chip_id",
    "snp.policy.debug", "snp.policy.migration", "snp.policy.abi", "snp.platform.alias_check", "snp.cert.csp",
}  # fmt: skip


def test_every_code_in_the_source_has_a_fault() -> None:
    assert codes_in_source() - {each.code for each in FAULTS} - NOT_REACHED_HERE == set()


def test_both_ends_of_a_validity_belong_to_it() -> None:
    """RFC 5280 4.1.2.5; of a CRL's, nextUpdate does not."""
    for leaf in (MILAN.leaf(not_after=NOW), MILAN.leaf(not_before=NOW)):
        offered = [MILAN.ark(), MILAN.intermediate(), leaf, MILAN.crl()]
        assert judge(MILAN, endorsements=offered).verdict == "affirming"


def test_issuers_end_in_a_root_of_their_own_line() -> None:
    """As a service hands them out, before there is a chip: a root of Genoa's vouches for none of Milan's."""
    issuers = [read_certificate(each) for each in (MILAN.intermediate(), MILAN.ark())]
    _, pin = MILAN.pin()
    assert verify_issuers(issuers, MILAN.product, "VCEK", MILAN.roots()) is issuers[1]
    with pytest.raises(Refused, match="root_unpinned"):
        verify_issuers(issuers, MILAN.product, "VCEK", Roots.amd([("Genoa", pin)]))


def test_a_root_that_is_pinned_for_another_line_proves_no_chip() -> None:
    other = demanding(GENOA, tables=MILAN.root_toml().replace('"Milan"', '"Genoa"'))
    found = appraise_report(
        MILAN.report(), endorsements=MILAN.endorsements(), expectations=other, nonce=None,
        waive_revocation=False, at=NOW,
    )  # fmt: skip
    assert found.result.check("snp.root").code == "snp.chain.root_unpinned"
    assert found.result.check("snp.cert.chip_id").status == "pass"
    assert (found.chip_id, found.result.platform) == (None, "snp-unknown")
