"""Every reason of gpu.md 14 for one device, each reached by evidence that is good but for one thing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from attestation.gpu.tests.judging import (
    DRIVER_MANIFEST,
    GB100,
    GB202,
    GOOD,
    SWITCH,
    VBIOS_MANIFEST,
    but,
    codes,
    collateral,
    judge,
)
from attestation.result import AttestationResult
from attestation.testing.nvidia import NOW, GpuForge, pem
from attestation.testing.nvidia_manifest import ManifestForge
from attestation.testing.nvidia_report import block, field, value_of
from attestation.testing.nvidia_status import Answer, answers, asked, crl

Fault = Callable[[], AttestationResult]


def changed(which: str, device: GpuForge = GOOD, **changes: Any) -> Fault:
    return lambda: judge(but(device, changes={which: changes}))


def framed(device: GpuForge = GOOD, **frame: Any) -> Fault:
    return lambda: judge(but(device, frame=frame))


def stating(fields: dict[int, bytes | None], device: GpuForge = GOOD) -> Fault:
    return lambda: judge(but(device, fields=fields))


def chained(certificates: Sequence[bytes]) -> Fault:
    return lambda: judge(endorsements=[pem(*certificates), *collateral(GOOD)[1:]])


def driven(*manifests: ManifestForge) -> Fault:
    """Other driver manifests in the place of the good one."""
    return lambda: judge(endorsements=collateral(GOOD, [*manifests, VBIOS_MANIFEST]))


def answered(**changes: Any) -> Fault:
    """Another answer about the device's own certificate."""
    about, issuer = asked(GOOD)[0]
    good = answers(GOOD, [DRIVER_MANIFEST, VBIOS_MANIFEST])[1:]
    documents = collateral(GOOD)[:3]
    return lambda: judge(endorsements=[*documents, Answer(about, issuer, **changes).der(), *good])


def listed(number: int, **changes: Any) -> Fault:
    """A CRL of one issuer in place of the answer about what it issued."""
    about, issuer = asked(GOOD)[number]
    good = answers(GOOD, [DRIVER_MANIFEST, VBIOS_MANIFEST])
    if changes.pop("revoke", False):
        changes["revoked"] = (about.serial,)
    rest = [each for n, each in enumerate(good) if n != number]
    return lambda: judge(endorsements=[*collateral(GOOD)[:3], crl(issuer, **changes), *rest])


CHAIN = [each.der() for each in GOOD.certified().values()]
OTHER = GpuForge(number=9)
WRONG = {7: [bytes(48)]}
UNKNOWN = ("1.2.3.4", True, b"\5\0")
STRANGER = replace(GOOD.certified()["provisioner"], key="stranger")
NO_CRL = bytes.fromhex("30083003020101300100")
"""Opens as a CRL does, and is none."""
MANY = [b"<a%d/>" % n for n in range(70)]

FAULTS: dict[str, list[Fault]] = {
    "report_malformed": [
        framed(slot=1), framed(response=bytes.fromhex("11610000")), framed(count=63), framed(count=65),
        framed(length=3519), framed(record=b""), framed(opaque_length=9), framed(extra=b"\1"),
        framed(extra=field(255, b"")), framed(record=block(1, value_of(0)) * 64),
        framed(opaque=b"NVDAOD\0\0\2\0\0\0"),
        framed(record=block(2, value_of(0)) + block(1, value_of(1)), count=2),
        stating({20: bytes(47)}), stating({11: b"\x56"}), stating({21: b""}), stating({36: b"\7"}),
        stating({3: b"550/90\0"}), stating({3: b"550.90\0.07"}),
        stating({22: bytes(8)}), stating({6: bytes(7)}),
        stating({12: bytes(5)}), stating({22: bytes(144)}, SWITCH),
        lambda: judge(report=GOOD.report()[:-1]), lambda: judge(report=GOOD.report()[:40]),
    ],
    "report_trailing_bytes": [framed(tail=b"\0"), framed(tail=b"\1")],
    "report_too_large": [framed(tail=bytes(8192))],
    "report_duplicate_field": [framed(extra=field(20, bytes(48)))],
    "chain_malformed": [
        lambda: judge(endorsements=[GOOD.chain().replace(b"MII", b"M!I", 1), *collateral(GOOD)[1:]]),
        changed("leaf", extensions=(GOOD.alternative_name(), ("2.23.133.5.4.1", False, b"\x30\x00"))),
    ],
    "chain_wrong_length": [chained(CHAIN[:4]), chained(CHAIN[1:]), chained([*CHAIN, CHAIN[4]])],
    "nonce_mismatch": [lambda: judge(nonce=bytes(32)), lambda: judge(nonce=bytes(31))],
    "chain_root_untrusted": [changed("root", key="another root", signer="another root")],
    "chain_signature_invalid": [
        changed("leaf", signer="nobody"), changed("brom", signer="nobody"),
        changed("provisioner", signer="nobody"), changed("identity", signer="nobody"),
    ],
    "chain_constraint_violation": [
        changed("brom", authority=False), changed("brom", usage=("digital_signature",)),
        changed("leaf", authority=True), changed("leaf", usage=("key_cert_sign",)),
        changed("identity", path_length=0), changed("brom", key_id=bytes(20)),
        changed("leaf", issuer="GH100 A01 GSP BROM 2"),
        changed("leaf", extensions=(GOOD.alternative_name(), GOOD.fwid_extension(), UNKNOWN)),
        chained([CHAIN[0], CHAIN[2], CHAIN[1], *CHAIN[3:]]),
    ],
    "chain_not_valid_at_time": [
        *(changed(name, not_after=NOW - timedelta(days=1)) for name in ("leaf", "brom", "root")),
        changed("provisioner", not_before=NOW + timedelta(days=1)),
    ],
    "chain_family_mismatch": [
        changed("leaf", subject="GH200 A01 GSP FMC LF"), changed("leaf", subject="GH100 A01 FSP FMC LF"),
        changed("leaf", extensions=(GOOD.fwid_extension(),)),
        changed("leaf", extensions=(GB100.alternative_name(), GOOD.fwid_extension())),
        changed("brom", serial=(0x50 << 64) | 5), changed("brom", serial=5),
        changed("brom", serial=(0x40 << 64) | 5), framed(opaque=b"", device=SWITCH),
        stating({35: b"GB202\0", 36: b"\0\0"}), stating({35: b"GB202\0"}, GB100),
        stating({3: None, 6: b"96", 4: None}),
    ],
    "report_signature_invalid": [lambda: judge(but(signer="nobody")), lambda: judge(report=OTHER.report())],
    "fwid_mismatch": [lambda: judge(but(certified_fwid=bytes(48))),
                      lambda: judge(but(GB202, certified_fwid=bytes(48)))],
    "fwid_absent": [stating({20: None}), changed("leaf", extensions=(GOOD.alternative_name(),))],
    "cert_revoked": [
        answered(status="revoked"), answered(status="revoked", next_update=NOW - timedelta(hours=2)),
        listed(0, revoke=True), listed(1, revoke=True), listed(2, revoke=True),
    ],
    "cert_on_hold": [answered(status="hold")],
    "ocsp_stale": [
        answered(next_update=None), answered(next_update=NOW - timedelta(minutes=2)),
        answered(this_update=NOW + timedelta(minutes=2)),
    ],
    "ocsp_malformed": [answered(critical="response"), answered(critical="answer"),
                       lambda: judge(endorsements=[*collateral(GOOD), bytes.fromhex("30030a0100")]),
                       lambda: judge(endorsements=[*collateral(GOOD), bytes.fromhex("30030a0104")])],
    "ocsp_certid_mismatch": [
        lambda: judge(endorsements=[
            *collateral(GOOD)[:3], *collateral(GOOD)[4:], Answer(asked(GOOD)[0][0], STRANGER).der(),
        ]),
        answered(hash_name="sha1"),
    ],
    "ocsp_responder_untrusted": [
        answered(appointed=False), answered(delegate_signer="nobody"), answered(damaged=True),
        answered(responder="issuer", damaged=True),
    ],
    "crl_stale": [listed(0, next_update=NOW - timedelta(days=2), this_update=NOW - timedelta(days=3))],
    "crl_signature_invalid": [listed(0, signer="nobody")],
    "crl_malformed": [lambda: judge(endorsements=[*collateral(GOOD), NO_CRL])],
    "revocation_unknown": [answered(status="unknown")],
    "revocation_unavailable": [lambda: judge(endorsements=collateral(GOOD)[:3]),
                               lambda: judge(endorsements=[*collateral(GOOD)[:3], *collateral(GOOD)[4:]])],
    "rim_unavailable": [lambda: judge(endorsements=collateral(GOOD, [])), driven(),
                        driven(replace(DRIVER_MANIFEST, version="550.90.08"))],
    "rim_chain_untrusted": [
        driven(replace(DRIVER_MANIFEST, changes={"root": {"key": "another", "signer": "another"}})),
        driven(replace(DRIVER_MANIFEST, changes={"authority": {"signer": "nobody"}})),
        driven(replace(DRIVER_MANIFEST, changes={"authority": {"authority": False}})),
        driven(replace(DRIVER_MANIFEST, changes={"chip": {"path_length": 0}})),
        driven(replace(DRIVER_MANIFEST, changes={"root": {"key": "device root", "signer": "device root"}})),
    ],
    "rim_signer_expired": [lambda: judge(at=datetime(2027, 7, 1, tzinfo=UTC))],
    "rim_signer_not_yet_valid": [lambda: judge(at=datetime(2025, 5, 1, tzinfo=UTC))],
    "rim_below_floor": [lambda: judge(rim_signer_min='"2025-07-01T00:00:00Z"')],
    "rim_product_mismatch": [
        driven(replace(DRIVER_MANIFEST, product="GB100")), driven(replace(DRIVER_MANIFEST, edition="SWITCH")),
        driven(replace(DRIVER_MANIFEST, name="LS10")), driven(replace(DRIVER_MANIFEST, maker="1")),
    ],
    "rim_index_conflict": [driven(replace(DRIVER_MANIFEST, indices=(0, 7)))],
    "measurement_mismatch": [
        driven(replace(DRIVER_MANIFEST, values=WRONG)), lambda: judge(but(measurements={40: bytes(48)})),
        lambda: judge(but(SWITCH, measurements={30: bytes(48)})),
        lambda: judge(but(measurements={35: bytes(48)})),
        lambda: judge(but(measurements={34: bytes(48), 35: bytes(48)}, fields={11: b"\x55"})),
    ],
    "measurement_missing": [lambda: judge(but(measurements={40: None}))],
    "measurement_none_golden": [driven(replace(DRIVER_MANIFEST, indices=()))],
    "driver_below_floor": [lambda: judge(driver_min='"550.90.08"'), lambda: judge(driver_min='"551"')],
    "vbios_not_allowed": [lambda: judge(vbios='["96.00.9f.00.02"]')],
    "chip_not_allowed": [lambda: judge(chips='["GB100"]')],
    "mode_not_allowed": [lambda: judge(modes='["ppcie"]'),
                         lambda: judge(but(fields={21: b"\xaa"}), modes='["single", "unstated"]'),
                         lambda: judge(but(fields={36: b"\7\0"}),
                                       modes='["single", "multi", "ppcie", "unstated"]')],
    "cc_mode_unproven": [lambda: judge(confidential='"required"'), lambda: judge(devtools='"refuse"')],
    "topology_pdi_cert_mismatch": [stating({22: bytes(8)}, SWITCH)],
    "documents_malformed": [lambda: judge(endorsements=[*collateral(GOOD), b'{"a": 1.5}'])],
    "documents_too_many": [lambda: judge(endorsements=[*collateral(GOOD), *MANY])],
    "nras_unavailable": [lambda: judge(token='"required"')],
}  # fmt: skip
GAPS = {"rim_unavailable", "revocation_unavailable", "revocation_unknown", "ocsp_stale", "crl_stale",
        "cc_mode_unproven", "nras_unavailable"}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "fault"), [(code, fault) for code, faults in FAULTS.items() for fault in faults]
)
def test_fault(code: str, fault: Fault) -> None:
    found = fault()
    assert code in codes(found)
    assert found.verdict == ("none" if code in GAPS else "contraindicated")


def test_authorities_without_a_device_are_nobodys_chain() -> None:
    """A root or a bundle of authorities that lies in the folder changes nothing, nor is it a broken chain."""
    for first in (2, 4):
        bundle = pem(*CHAIN[first:])
        assert judge(endorsements=[bundle, *collateral(GOOD)]).verdict == "affirming"
        forged = judge(but(signer="nobody"), endorsements=[bundle, *collateral(GOOD)])
        assert codes(forged) == ["report_signature_invalid"]
        assert codes(judge(endorsements=[bundle, *collateral(GOOD)[1:]]))[0] == "chain_unavailable"


def test_a_responder_that_does_not_answer_says_nothing() -> None:
    """NVIDIA's answers "unauthorized" about every leaf: a collector may keep that, and nothing follows."""
    declined = bytes.fromhex("30030a0106")
    assert judge(endorsements=[*collateral(GOOD), declined]).verdict == "affirming"
    found = judge(endorsements=[*collateral(GOOD)[:3], declined])
    assert (found.verdict, found.reason) == ("none", "gpu.revocation_unavailable")
    assert "1 times the responder did not answer" in found.check("gpu.revocation.device").seen


@pytest.mark.parametrize("hash_name", ["sha256", "sha384", "sha512"])
def test_answers_may_name_their_issuer_by_any_current_hash(hash_name: str) -> None:
    assert answered(hash_name=hash_name)().verdict == "affirming"
    refused = answered(hash_name="sha1")().check("gpu.revocation.device")
    assert "by SHA1: ask with SHA-384 or SHA-256" in refused.seen


def test_a_waiver_forgives_no_bad_answer() -> None:
    about, issuer = asked(GOOD)[0]
    for bad in ("revoked", "hold"):
        documents = [*collateral(GOOD)[:3], Answer(about, issuer, bad).der()]
        assert judge(endorsements=documents, waive=True).verdict == "contraindicated"


def test_a_hold_on_the_device_alone_may_be_tolerated() -> None:
    def held(number: int) -> AttestationResult:
        about, issuer = asked(GOOD)[number]
        good = answers(GOOD, [DRIVER_MANIFEST, VBIOS_MANIFEST])
        rest = [each for n, each in enumerate(good) if n != number]
        documents = [*collateral(GOOD)[:3], Answer(about, issuer, "hold").der(), *rest]
        return judge(endorsements=documents, hold='"accept-device"')

    assert held(0).verdict == "affirming"
    assert "tolerated" in held(0).check("gpu.revocation.device").seen
    assert codes(held(1)) == ["cert_on_hold"]


def test_an_excused_measurement_is_noted() -> None:
    found = judge(but(measurements={35: bytes(48)}, fields={11: b"\x55"}))
    assert found.verdict == "affirming"
    assert "measurement_skipped_nvdec" in found.check("gpu.measurements").seen


def test_padding_may_be_tolerated_and_is_said() -> None:
    device = but(frame={"tail": b"\0"})
    found = judge(device, padding='"zero"')
    assert found.verdict == "affirming"
    assert "1 bytes of zero padding" in found.check("gpu.report.form").seen
    assert codes(judge(but(frame={"tail": b"\1"}), padding='"zero"')) == ["report_trailing_bytes"]
    assert codes(judge(but(frame={"tail": bytes(17)}), padding='"zero"')) == ["report_trailing_bytes"]


def test_an_older_driver_need_not_state_its_firmware() -> None:
    device = but(driver="545.23.08", fields={20: None})
    assert judge(device).verdict == "affirming"
    assert judge(device).check("gpu.fwid").status == "not_evaluated"
    assert codes(judge(device, fwid='"required"')) == ["fwid_absent"]
    assert judge(but(fields={20: None}), fwid='"if-present"').verdict == "affirming"


def test_the_worst_is_told_with_everything_else() -> None:
    """A wrong challenge hides neither a wrong signature nor wrong firmware."""
    device = but(signer="nobody", certified_fwid=bytes(48), measurements={40: bytes(48)})
    found = judge(device, nonce=bytes(32))
    assert found.reason == "gpu.nonce_mismatch"
    assert codes(found) == [
        "nonce_mismatch",
        "report_signature_invalid",
        "fwid_mismatch",
        "measurement_mismatch",
    ]


ROOM = Path(__file__).parents[1]
ELSEWHERE = (
    "nras_", "binding_", "topology_", "rim_", "mode_mixed", "device_duplicate", "batch_", "driver_mixed",
    "challenge_", "devtools_on", "device_count", "too_many_devices", "composite_",
)  # fmt: skip
"""Reached by the tests of manifests, tokens and nodes."""
CHECKS = {"binding", "nonce", "measurements", "fwid", "challenge", "kind", "rim", "documents", "devices"}


def test_every_reason_in_the_source_is_reached() -> None:
    source = "\n".join(file.read_text("utf-8") for file in ROOM.rglob("*.py") if "tests" not in file.parts)
    named = set(re.findall(r'"gpu\.([a-z_]+)"', source)) - CHECKS - {"chain_unavailable"}
    assert not {each for each in named - set(FAULTS) if not each.startswith(ELSEWHERE)}
