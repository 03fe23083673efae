"""A node in a trust domain: the same bindings as on any TEE, under Intel's rules and the charter's bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attestation.appraise import IssuedChallenge, NodeAppraisal, appraise_node, platform_digest
from attestation.expected import Expectations
from attestation.node.tests.test_appraise_node import CLINIC, ENGINE, MODEL, evidence
from attestation.tdx.log.tests.logs import ccel, record, register
from attestation.tdx.tests.faults.listed import turned
from attestation.tdx.tests.judging import GOOD, TDX_KEYS, but, toml
from attestation.testing.intel import IntelForge
from attestation.testing.intel_documents import NOW
from attestation.testing.intel_quote import GOOD_TD
from attestation.tests.charter import Charter
from schemas.errors import ConfigurationError
from schemas.proof.evidence import CpuEvidence, NodeEvidence

NODE = f'[node]\nengine_digests = ["{ENGINE}"]\n[node.models]\n"chat.small/demo" = ["{MODEL}"]\n'
DIGEST = platform_digest(GOOD.ppid).hex()


def expectations(**keys: str) -> Expectations:
    return Expectations.parse((toml(GOOD, **keys) + NODE).encode())


def node_in(forge: IntelForge, **changes: object) -> NodeEvidence:
    """Good evidence whose quote is this forge's, over the right report data."""
    bare = evidence().model_copy(update=changes)
    body = {"report_data": bare.expected_report_data(), **forge.body}
    quoted = replace(forge, body=body)
    cpu = CpuEvidence(tee="tdx", report=quoted.quote(), endorsements=[forge.collateral()])
    return bare.model_copy(update={"cpu": cpu})


def ask(
    stated: NodeEvidence,
    wanted: Expectations | None = None,
    enrolled: dict[str, frozenset[str]] | None = None,
) -> NodeAppraisal:
    return appraise_node(
        stated.write(),
        expectations=wanted or expectations(),
        challenges=[IssuedChallenge("clinic.de", CLINIC, NOW.timestamp() - 40)],
        enrolments={"cloud.fr": frozenset({DIGEST})} if enrolled is None else enrolled,
        at=NOW,
    )


def test_a_node_in_a_trust_domain() -> None:
    found = ask(node_in(GOOD))
    assert (found.status, found.reason) == ("affirming", None)
    assert found.platform == "simulated-tdx-00806f050000"
    assert found.platform_digest is not None
    assert found.platform_digest.hex() == DIGEST
    assert found.assurance == 1
    assert found.expires_at == NOW.timestamp() - 40 + 300


def test_the_quote_must_be_over_what_the_node_states() -> None:
    found = ask(node_in(but(body={"report_data": bytes(64)})))
    assert found.status == "contraindicated"
    assert "node.report_data.mismatch" in {check.code for check in found.result.checks}


@pytest.mark.parametrize(
    ("enrolled", "code"),
    [
        ({}, "node.platform_not_enrolled"),
        ({"clinic.de": frozenset({DIGEST})}, "node.platform_not_enrolled"),
        ({"cloud.fr": frozenset({DIGEST}), "clinic.de": frozenset({DIGEST})}, "node.platform_enrolled_twice"),
    ],
)
def test_the_platform_is_enrolled_by_its_domain_alone(enrolled: dict[str, frozenset[str]], code: str) -> None:
    assert ask(node_in(GOOD), enrolled=enrolled).reason == code


def test_an_unsigned_quote_names_no_platform() -> None:
    stated = node_in(GOOD)
    assert ask(stated).platform_digest is not None
    damaged = stated.cpu.model_copy(update={"report": turned(stated.cpu.report, 48 + 584 + 4)})
    found = ask(stated.model_copy(update={"cpu": damaged}))
    assert found.status == "contraindicated"
    assert found.platform_digest is None


def test_a_platform_identifier_of_zeros_names_no_platform() -> None:
    """What a hidden identifier looks like would be every such machine at once."""
    nobody = platform_digest(bytes(16)).hex()
    found = ask(node_in(but(ppid=bytes(16))), enrolled={"cloud.fr": frozenset({nobody})})
    assert found.platform_digest is None
    assert found.result.check("node.enrolment").status == "not_evaluated"


def test_expectations_that_say_nothing_of_tdx_decide_nothing() -> None:
    found = ask(node_in(GOOD), Expectations.parse(NODE.encode()))
    assert found.status in ("none", "contraindicated")
    assert found.platform_digest is None


def test_another_measurement_refuses() -> None:
    assert ask(node_in(but(body={"mrtd": b"\7" * 48}))).reason == "tdx.measurement_mismatch"


def test_its_event_log_comes_along() -> None:
    forge = but(body={"rtmr0": register(bytes(4))})
    log = ccel(record(1, 4, bytes(4)))
    wanted = expectations(event_log='["rtmr0"]')
    assert ask(node_in(forge, event_log=log), wanted).status == "affirming"
    assert ask(node_in(forge), wanted).reason == "tdx.event_log_missing"
    assert ask(node_in(GOOD, event_log=log), wanted).reason == "tdx.event_log_rtmr_mismatch"


def bound(wanted: Expectations, *measurements: bytes) -> Expectations:
    """What remains of the expectations under a charter with our root and these published measurements."""
    return Charter(measurements, roots=[GOOD.root_digest]).bound(wanted)


@pytest.mark.parametrize("own", [TDX_KEYS["mrtd"], '"any"'], ids=["stated", "any"])
def test_only_a_published_mrtd_counts(own: str) -> None:
    wanted = expectations(mrtd=own)
    assert ask(node_in(GOOD), bound(wanted, GOOD_TD["mrtd"])).status == "affirming"
    assert ask(node_in(GOOD), bound(wanted, bytes(48))).reason == "tdx.measurement_mismatch"
    assert ask(node_in(GOOD), bound(wanted)).status == "contraindicated"


def test_a_simulated_intel_must_stand_in_the_charter() -> None:
    with pytest.raises(ConfigurationError, match="not listed in the charter"):
        Charter((GOOD_TD["mrtd"],), roots=[]).bound(expectations())
