"""The forged vendor's good devices hold in every family, and never pass for NVIDIA's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attestation.appraise import appraise_nvidia
from attestation.gpu.tests.judging import GB100, GB202, GOOD, SWITCH, codes, collateral, judge, manifests_of
from attestation.testing.nvidia import NOW, GpuForge
from attestation.testing.nvidia_report import NONCE, block, value_of
from attestation.testing.nvidia_status import crl


@pytest.mark.parametrize("device", [GOOD, SWITCH, GB100, GB202], ids=lambda device: device.chip)
def test_every_family_holds(device: GpuForge) -> None:
    found = judge(device)
    assert (found.verdict, found.reason, codes(found)) == ("affirming", None, [])
    assert found.simulated
    assert found.platform == f"simulated-nvidia-{device.chip.lower()}"
    assert found.stated()["pdi"] == device.pdi.hex()


def test_a_report_of_a_gpus_boot_processor_is_genuine_and_without_manifests() -> None:
    """Blackwell's FSP signs a report of its own, which states no firmware by which a manifest has a name."""
    fsp = replace(
        GB100,
        changes={
            "leaf": {"subject": "GB100 A01 FSP FMC LF", "issuer": "GB100 A01 FSP BROM"},
            "brom": {"subject": "GB100 A01 FSP BROM", "serial": 0x40 << 64 | int.from_bytes(GB100.pdi)},
        },
        frame={"opaque": b"", "count": 2, "record": block(1, b"\xff") + block(2, value_of(1))},
    )
    found = judge(fsp)
    assert (found.verdict, set(codes(found))) == ("none", {"rim_unavailable"})
    assert found.check("gpu.fwid").status == "not_evaluated"
    assert (found.stated()["kind"], found.stated()["pdi"]) == ("gpu", GB100.pdi.hex())
    assert judge(fsp, fwid='"required"').reason == "gpu.fwid_absent"
    assert judge(replace(fsp, signer="nobody")).reason == "gpu.report_signature_invalid"


def test_the_made_up_root_is_no_root_of_nvidias() -> None:
    found = appraise_nvidia(GOOD.report(), endorsements=collateral(GOOD), nonce=NONCE, at=NOW)
    assert found.verdict == "contraindicated"
    assert found.reason == "gpu.chain_root_untrusted"
    assert "rim_chain_untrusted" in codes(found)
    assert not found.simulated


def test_crls_serve_in_place_of_answers() -> None:
    chain = list(GOOD.certified().values())
    issuers = [*chain[2:], *(each for m in manifests_of(GOOD) for each in list(m.certified().values())[1:])]
    documents = [GOOD.chain(), *(each.document() for each in manifests_of(GOOD)), *(crl(i) for i in issuers)]
    assert judge(endorsements=documents).verdict == "affirming"


def test_the_result_says_which_source_answered_and_how_old_it_is() -> None:
    assert (
        judge()
        .check("gpu.revocation.device")
        .seen.startswith("not revoked, OCSP answer of 2026-03-01T11:00:00Z, ")
    )


def test_a_waiver_forgives_what_is_missing_and_is_named() -> None:
    documents = [GOOD.chain(), *(each.document() for each in manifests_of(GOOD))]
    assert judge(endorsements=documents).reason == "gpu.revocation_unavailable"
    found = judge(endorsements=documents, waive=True)
    assert (found.verdict, found.waived[0]) == ("affirming", "revocation")
    assert judge(endorsements=documents, revocation='"any"').verdict == "affirming"


def test_without_a_chain_nothing_is_decided() -> None:
    found = judge(endorsements=collateral(GOOD)[1:])
    assert (found.verdict, found.reason) == ("none", "gpu.chain_unavailable")


def test_among_several_chains_the_one_that_signed_is_used() -> None:
    others = [GpuForge(number=n).chain() for n in (1, 2)]
    assert judge(endorsements=[*others, *collateral(GOOD)]).verdict == "affirming"


def test_the_same_bytes_give_the_same_result() -> None:
    first, second = judge(), judge()
    assert (first.checks, first.stated()) == (second.checks, second.stated())
