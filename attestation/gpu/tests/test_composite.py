"""A whole node: CPU and devices under one roof, and every way in which they are not tied together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from attestation.appraise import (
    IssuedChallenge,
    NodeAppraisal,
    appraise_node,
    appraise_node_offline,
    platform_digest,
)
from attestation.commands import main
from attestation.expected import Expectations
from attestation.gpu.node.composite import device_digest
from attestation.gpu.tests.judging import status_of
from attestation.gpu.tests.judging import toml as nvidia_toml
from attestation.tdx.body import SgxReport
from attestation.tdx.quote import read_quote
from attestation.tdx.tests.judging import toml as tdx_toml
from attestation.testing.chip import SimulatedChip, SimulatedVendor
from attestation.testing.expectations import simulated_toml
from attestation.testing.forge import MEASUREMENT
from attestation.testing.intel import IntelForge
from attestation.testing.nvidia import NOW
from attestation.testing.nvidia_node import PRODUCTION, BoardForge, board_manifests
from schemas.keys import SigningKey
from schemas.proof.binding import ChallengeTree, device_nonce
from schemas.proof.evidence import (
    ChallengeProof,
    CpuEvidence,
    DeviceEvidence,
    DeviceState,
    NodeConfiguration,
    NodeEvidence,
)

CHALLENGE = bytes([1]) * 32
BOARD = BoardForge(gpus=2, switches=1, links=(18,))
FABRIC = "[nvidia.fabric]\ngpus = 2\nswitches = 1\n"


@lru_cache
def vendor() -> SimulatedVendor:
    return SimulatedVendor.create("Milan", at=NOW)


@lru_cache
def chip() -> SimulatedChip:
    return vendor().make_chip()


def quote_snp(report_data: bytes) -> CpuEvidence:
    return chip().quote(report_data)


def quote_tdx(report_data: bytes) -> CpuEvidence:
    forge = IntelForge(body={"report_data": report_data})
    return CpuEvidence(tee="tdx", report=forge.quote(), endorsements=[forge.collateral()])


@lru_cache
def signing_key() -> SigningKey:
    return SigningKey.generate()


def node(
    *,
    board: BoardForge = BOARD,
    nonce: bytes | None = None,
    device_root: str | None = "same",
    state: DeviceState | None = PRODUCTION,
    quote: Callable[[bytes], CpuEvidence] = quote_snp,
    after: Callable[[list[DeviceEvidence]], list[DeviceEvidence]] | None = None,
) -> NodeEvidence:
    """Good evidence of a composite node. after: what happens to the devices behind the CPU's back."""
    tree = ChallengeTree.over({"clinic.de": CHALLENGE})
    path = tree.paths["clinic.de"]
    unquoted = NodeEvidence(
        federation="health",
        domain="cloud.fr",
        node_id="node-1",
        boot_id="boot-1",
        key_epoch=7,
        sign_spki=signing_key().public.spki,
        seal_key=bytes(1216),
        challenge_root=tree.root.hex(),
        challenges=[ChallengeProof(domain="clinic.de", index=path.index, size=path.size, path=[])],
        configuration=NodeConfiguration(
            engine="in-tee", engine_kind="vllm", engine_digest="ab" * 32, engine_flags=[],
            engine_address="127.0.0.1:8080", models=[], prompt_logging=False,
        ),
        cpu=CpuEvidence(tee="snp", report=b"", endorsements=[]),
        device_challenge_root=tree.root.hex() if device_root == "same" else device_root,
    )  # fmt: skip
    derived = device_nonce(unquoted.identity, device_challenge_root=tree.root)
    told = BoardForge(**{**vars(board), "nonce": derived if nonce is None else nonce})
    whole = unquoted.model_copy(update={"devices": told.evidence(state)})
    quoted = whole.model_copy(update={"cpu": quote(whole.expected_report_data())})
    if after is None:
        return quoted
    return quoted.model_copy(update={"devices": after(quoted.devices)})


@lru_cache
def expectations(more: str = "", **changes: str) -> Expectations:
    return Expectations.parse(text(more, **changes).encode())


def text(more: str = "", **changes: str) -> str:
    """Complete expectations for CPU, engine and devices."""
    values: dict[str, Any] = {
        "confidential": '"required"', "devtools": '"refuse"', "revocation": '"any"', **changes,
    }  # fmt: skip
    devices = nvidia_toml(more, **values)
    cpu = simulated_toml(vendor().root_toml(), engine_digests=["ab" * 32])
    return "\n".join([cpu, devices, tdx_toml(IntelForge())])


def enrolled(*, platform: bool = True, devices: bool = True) -> dict[str, frozenset[str]]:
    digests = (
        [platform_digest(chip().chip_id).hex(), platform_digest(IntelForge().ppid).hex()] if platform else []
    )
    leaves = [each.certified()["leaf"].serial for each in BOARD.devices().values()]
    digests += [device_digest(str(serial)).hex() for serial in leaves] if devices else []
    return {"cloud.fr": frozenset(digests)}


def ask(
    stated: NodeEvidence,
    *,
    wanted: Expectations | None = None,
    enrolments: dict[str, frozenset[str]] | None = None,
    manifests: Sequence[bytes] | None = None,
) -> NodeAppraisal:
    return appraise_node(
        stated.write(),
        expectations=wanted or expectations(),
        challenges=[IssuedChallenge("clinic.de", CHALLENGE, NOW.timestamp() - 40)],
        enrolments=enrolled() if enrolments is None else enrolments,
        at=NOW,
        extra_endorsements=board_manifests() if manifests is None else manifests,
    )


def codes(found: NodeAppraisal) -> list[str | None]:
    return [check.code for check in found.result.checks if check.effect != "shown"]


@pytest.mark.parametrize("quote", [quote_snp, quote_tdx], ids=["snp", "tdx"])
def test_a_composite_node_holds(quote: Callable[[bytes], CpuEvidence]) -> None:
    found = ask(node(quote=quote), wanted=expectations(FABRIC))
    assert (found.status, codes(found)) == ("affirming", [])
    assert found.binding_mode == "derived-nonce+evidence-hash"
    assert (found.simulated, found.assurance) == (True, 1)
    assert found.result.stated()["binding_mode"] == found.binding_mode
    devices = found.result.stated()["devices"]
    assert isinstance(devices, list)
    assert len(devices) == 3


@pytest.mark.parametrize("quote", [quote_snp, quote_tdx], ids=["snp", "tdx"])
def test_a_node_sends_its_devices_collateral_once(quote: Callable[[bytes], CpuEvidence]) -> None:
    """Manifests and answers beside the CPU's certificates: each room takes what is its own."""

    def quoted(report_data: bytes) -> CpuEvidence:
        cpu = quote(report_data)
        status = status_of(list(BOARD.devices().values()))
        documents = list(dict.fromkeys([*cpu.endorsements, *board_manifests(), *status]))
        return cpu.model_copy(update={"endorsements": documents})

    demanded = expectations(FABRIC, revocation='"required"')
    found = ask(node(quote=quoted), wanted=demanded, manifests=[])
    assert (found.status, codes(found)) == ("affirming", [])


def test_a_composite_node_of_real_vendors_would_be_worth_four() -> None:
    from attestation.appraise import _assurance

    assert _assurance("affirming", simulated=False, bound=True) == 4
    assert _assurance("affirming", simulated=False, bound=False) == 3
    assert _assurance("warning", simulated=False, bound=True) == 2
    assert _assurance("none", simulated=False, bound=True) == 0


def test_devices_put_in_behind_the_cpus_back_are_refused() -> None:
    other = BoardForge(gpus=2, switches=1, links=(18,), first=30)
    found = ask(node(after=lambda _: other.evidence()))
    assert found.status == "contraindicated"
    assert {"node.report_data.mismatch", "gpu.binding_unbound"} <= set(codes(found))
    assert found.binding_mode == "unbound"


@pytest.mark.parametrize("change", ["dropped", "swapped", "state"])
def test_a_bundle_that_differs_from_what_was_hashed_is_refused(change: str) -> None:
    def after(devices: list[DeviceEvidence]) -> list[DeviceEvidence]:
        if change == "dropped":
            return devices[:-1]
        if change == "swapped":
            return devices[::-1]
        state = DeviceState(confidential=True, environment="production", devtools=True)
        return [devices[0].model_copy(update={"state": state}), *devices[1:]]

    found = ask(node(after=after))
    assert "node.report_data.mismatch" in codes(found)


def test_a_relayed_report_with_the_common_challenge_alone_is_refused() -> None:
    """The devices answered the challenge itself: anybody's device can do that."""
    found = ask(node(nonce=bytes.fromhex(node().challenge_root)))
    assert {"gpu.device0.nonce", "gpu.binding.nonce", "gpu.binding"} <= {
        check.name for check in found.result.checks if check.effect == "contraindicated"
    }
    assert found.binding_mode == "evidence-hash"


def test_foreign_modes_count_only_where_policy_lists_them() -> None:
    stated = node(device_root=None)
    found = ask(stated)
    assert found.binding_mode == "evidence-hash"
    assert "gpu.binding_mode_not_allowed" in codes(found)
    listed = ask(stated, wanted=expectations(bindings='["evidence-hash"]'))
    assert codes(listed) == ["gpu.challenge_missing"]
    assert listed.status == "none"


def test_devices_of_another_epoch_are_not_believed_fresh() -> None:
    found = ask(node(device_root="ee" * 32))
    assert "gpu.challenge_other" in codes(found)
    assert found.status == "contraindicated"  # nor did they answer that root


def test_what_no_guest_says_is_not_proven() -> None:
    assert codes(ask(node(state=None))) == ["gpu.cc_mode_unproven"] * 4
    off = DeviceState(confidential=False, environment="production", devtools=False)
    assert set(codes(ask(node(state=off)))) == {"gpu.mode_not_allowed"}
    tools = DeviceState(confidential=True, environment="production", devtools=True)
    assert set(codes(ask(node(state=tools)))) == {"gpu.devtools_on"}


def test_each_device_must_be_enrolled_once() -> None:
    assert codes(ask(node(), enrolments=enrolled(devices=False))) == ["node.device_not_enrolled"] * 3
    twice = {**enrolled(), "hyper.us": enrolled(platform=False)["cloud.fr"]}
    assert codes(ask(node(), enrolments=twice)) == ["node.device_enrolled_twice"] * 3


def test_a_node_without_the_devices_that_are_wanted_is_refused() -> None:
    bare = node(board=BoardForge(gpus=0, switches=0, links=()))
    assert codes(ask(bare, wanted=expectations(FABRIC))) == ["gpu.topology_incomplete"]
    found = ask(bare)
    assert (found.status, found.binding_mode) == ("affirming", "cpu-only")


@pytest.mark.parametrize("quote", [quote_snp, quote_tdx], ids=["snp", "tdx"])
def test_an_image_that_works_with_gpus_shows_them_all(quote: Callable[[bytes], CpuEvidence]) -> None:
    """Which image runs is the CPU's own word, so that devices cannot be left out by choosing another."""
    trust_domain = read_quote(quote_tdx(bytes(64)).report).body
    assert not isinstance(trust_domain, SgxReport)
    measured = MEASUREMENT if quote is quote_snp else trust_domain.mrtd

    def wanted(number: int, image: bytes = measured) -> Expectations:
        return expectations(f'[nvidia.images]\n"{image.hex()}" = {number}\n')

    bare = node(board=BoardForge(gpus=0, switches=0, links=()), device_root=None, quote=quote)
    found = ask(bare, wanted=wanted(2))
    assert (found.status, found.reason, found.confidential_gpus) == ("contraindicated", "gpu.device_count", 0)
    assert ask(bare, wanted=wanted(0)).status == "affirming"
    assert ask(bare, wanted=wanted(2, bytes(48))).status == "affirming"  # nothing is asked of this image
    assert codes(ask(node(quote=quote), wanted=wanted(2))) == []
    assert codes(ask(node(quote=quote), wanted=wanted(1))) == ["gpu.device_count"]
    assert codes(ask(node(quote=quote), wanted=wanted(3))) == ["gpu.device_count"]


def test_a_gpu_counts_as_confidential_only_where_it_is_proven_bound_and_in_that_mode() -> None:
    assert ask(node()).confidential_gpus == 2
    waived = expectations(confidential='"any"', devtools='"any"')
    unknown = ask(node(state=None), wanted=waived)
    assert (unknown.status, unknown.confidential_gpus) == ("affirming", 0)
    tools = DeviceState(confidential=True, environment="production", devtools=True)
    assert ask(node(state=tools), wanted=waived).confidential_gpus == 0
    plain = simulated_toml(vendor().root_toml(), engine_digests=["ab" * 32])
    assert ask(node(), wanted=Expectations.parse(plain.encode())).confidential_gpus == 0
    relayed = node(nonce=bytes.fromhex(node().challenge_root), after=lambda devices: devices[::-1])
    shared = ask(relayed)
    assert (shared.binding_mode, shared.confidential_gpus) == ("shared-nonce", 0)


def test_without_expectations_for_devices_they_add_nothing() -> None:
    plain = simulated_toml(vendor().root_toml(), engine_digests=["ab" * 32])
    found = ask(node(), wanted=Expectations.parse(plain.encode()))
    assert (found.status, found.binding_mode) == ("affirming", "cpu-only")
    assert "not appraised" in found.result.check("node.devices").seen


def test_missing_manifests_leave_the_node_undecided() -> None:
    found = ask(node(), manifests=[])
    assert (found.status, found.reason) == ("none", "gpu.rim_unavailable")


def test_a_person_may_look_at_it_offline() -> None:
    stated = node()
    found = appraise_node_offline(
        stated.write(),
        endorsements=board_manifests(),
        expectations=expectations(),
        challenge=CHALLENGE,
        at=NOW,
    )
    assert (found.verdict, found.tee) == ("affirming", "node")
    assert found.check("gpu.binding").status == "pass"
    nothing = appraise_node_offline(stated.write(), endorsements=board_manifests(), at=NOW)
    assert nothing.verdict == "contraindicated"  # made-up roots, which nobody listed


def test_a_tdx_node_needs_expectations_for_tdx() -> None:
    plain = simulated_toml(vendor().root_toml(), engine_digests=["ab" * 32])
    found = ask(node(quote=quote_tdx), wanted=Expectations.parse(plain.encode()))
    assert (found.status, found.reason) == ("none", "node.tee_unset")


def test_a_node_is_shown_with_what_its_devices_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "node.json").write_bytes(node().write())
    assert main(["show", str(tmp_path / "node.json"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [each["kind"] for each in said["device_reports"]] == ["gpu", "gpu", "switch"]
    assert {each["nonce"] for each in said["device_reports"]} == {
        device_nonce(node().identity, device_challenge_root=bytes.fromhex(node().challenge_root)).hex()
    }
    assert said["report"]["product"] == "Milan"
