"""Faults of time and revocation."""

from __future__ import annotations

from attestation.result import AttestationResult
from attestation.snp.tests.faults.listed import DAY, GENOA, MILAN, VLEK, fault
from attestation.snp.tests.judging import demanding, judge
from attestation.testing import der
from attestation.testing.forge import NOW, Forge, rsa_key


# --- time and revocation -------------------------------------------------------------------------
@fault("snp.cert.expired")
def after_the_leaf() -> AttestationResult:
    return judge(VLEK, at=NOW + 340 * DAY)


@fault("snp.cert.not_yet_valid")
def before_the_leaf() -> AttestationResult:
    return judge(MILAN, at=NOW - 31 * DAY)


@fault("snp.cert.expired")
def after_the_intermediate() -> AttestationResult:
    old = MILAN.intermediate(not_after=NOW - DAY)
    return judge(MILAN, endorsements=[MILAN.ark(), old, MILAN.leaf(), MILAN.crl()])


@fault("snp.cert.expired")
def after_the_root() -> AttestationResult:
    ark = MILAN.ark(not_after=NOW - DAY)
    expectations = demanding(GENOA, tables=MILAN.root_toml([ark]))
    offered = [ark, MILAN.intermediate(), MILAN.leaf(), MILAN.crl()]
    return judge(MILAN, endorsements=offered, expectations=expectations)


def with_crls(*crls: bytes, waive: bool = False, forge: Forge = MILAN) -> AttestationResult:
    offered = [forge.ark(), forge.intermediate(), forge.leaf(), *crls]
    return judge(forge, endorsements=offered, waive=waive)


@fault("snp.crl.missing", "none")
def no_crl() -> AttestationResult:
    return with_crls()


@fault("snp.crl.missing", "none")
def only_another_products_crl() -> AttestationResult:
    return with_crls(GENOA.crl())


@fault("snp.crl.stale", "none")
def a_crl_of_yesterday() -> AttestationResult:
    return with_crls(MILAN.crl(next_update=NOW))


@fault("snp.crl.stale", "none")
def a_crl_of_tomorrow() -> AttestationResult:
    return with_crls(MILAN.crl(this_update=NOW + DAY))


@fault("snp.crl.stale", "none")
def a_crl_without_an_end() -> AttestationResult:
    return with_crls(MILAN.crl(next_update=None))


@fault("snp.crl.signature_invalid")
def a_crl_by_the_wrong_root() -> AttestationResult:
    return with_crls(MILAN.crl(), MILAN.crl(signing_key=rsa_key("other")), waive=True)


@fault("snp.crl.issuer_mismatch")
def a_crl_by_a_stranger() -> AttestationResult:
    return with_crls(MILAN.crl(), MILAN.crl(issuer="ARK-Milan "), waive=True)


@fault("snp.crl.revoked")
def a_revoked_ask() -> AttestationResult:
    return with_crls(MILAN.crl(revoked=[5, 65537]), waive=True)


@fault("snp.crl.revoked")
def a_revoked_asvk() -> AttestationResult:
    return with_crls(VLEK.crl(revoked=[65537]), forge=VLEK)


@fault("snp.crl.revoked")
def a_revoked_root() -> AttestationResult:
    return with_crls(MILAN.crl(revoked=[65536]))


@fault("snp.crl.revoked")
def revoked_in_a_stale_crl_beside_a_fresh_one() -> AttestationResult:
    return with_crls(MILAN.crl(), MILAN.crl(revoked=[65537], next_update=NOW - DAY), waive=True)


@fault("snp.crl.malformed")
def a_delta_crl() -> AttestationResult:
    return with_crls(MILAN.crl(extensions=[("2.5.29.27", True, der.integer(1))]))


@fault("snp.crl.malformed")
def a_crl_cut_short() -> AttestationResult:
    return with_crls(MILAN.crl()[:-1])
