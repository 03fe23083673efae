"""A node's evidence at the one door: every binding, each broken once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from attestation.appraise import IssuedChallenge, NodeAppraisal, appraise_node, platform_digest
from attestation.expected import Expectations
from attestation.node import checks
from attestation.testing.chip import SimulatedChip, SimulatedVendor
from attestation.testing.expectations import simulated_expectations
from schemas.canonical import sha256
from schemas.errors import Unreadable
from schemas.keys import SigningKey
from schemas.proof.binding import ChallengeTree, verify_challenge
from schemas.proof.evidence import ChallengeProof, ModelFile, NodeConfiguration, NodeEvidence

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLINIC = bytes([1]) * 32
CLOUD = bytes([2]) * 32
ENGINE = "ab" * 32
MODEL = "cd" * 32


@lru_cache
def vendor() -> SimulatedVendor:
    return SimulatedVendor.create("Milan", at=NOW - timedelta(days=1))


@lru_cache
def chip() -> SimulatedChip:
    return vendor().make_chip()


def configuration(**changes: Any) -> NodeConfiguration:
    values: dict[str, Any] = {
        "engine": "in-tee",
        "engine_kind": "llama.cpp",
        "engine_digest": ENGINE,
        "engine_flags": ["--no-log"],
        "engine_address": "127.0.0.1:8080",
        "models": [ModelFile(capability="chat.small/demo", digest=MODEL)],
        "prompt_logging": False,
    }
    return NodeConfiguration(**{**values, **changes})


def evidence(
    *, domain: str = "cloud.fr", config: NodeConfiguration | None = None, machine: SimulatedChip | None = None
) -> NodeEvidence:
    """Good evidence of a node of cloud.fr that answers clinic.de and cloud.fr."""
    tree = ChallengeTree.over({"clinic.de": CLINIC, "cloud.fr": CLOUD})
    unquoted = NodeEvidence(
        federation="health",
        domain=domain,
        node_id="node-1",
        boot_id="boot-1",
        key_epoch=7,
        sign_spki=SigningKey.generate().public.spki,
        seal_key=bytes(1216),
        challenge_root=tree.root.hex(),
        challenges=[
            ChallengeProof(domain=name, index=p.index, size=p.size, path=[part.hex() for part in p.path])
            for name, p in tree.paths.items()
        ],
        configuration=config or configuration(),
        cpu=(machine or chip()).quote(bytes(64)),
    )
    cpu = (machine or chip()).quote(unquoted.expected_report_data())
    return unquoted.model_copy(update={"cpu": cpu})


@dataclass
class Question:
    """What the consumer brings along; a test changes one thing."""

    expectations: Expectations
    challenges: list[IssuedChallenge]
    enrolments: dict[str, frozenset[str]]
    at: datetime = NOW

    def ask(self, stated: NodeEvidence) -> NodeAppraisal:
        return appraise_node(
            stated.write(),
            expectations=self.expectations,
            challenges=self.challenges,
            enrolments=self.enrolments,
            at=self.at,
        )


def expectations(**changes: Any) -> Expectations:
    values: dict[str, Any] = {"engine_digests": [ENGINE], "models": {"chat.small/demo": [MODEL]}}
    return simulated_expectations(vendor().root_toml(), **{**values, **changes})


@pytest.fixture
def question() -> Question:
    return Question(
        expectations(),
        [IssuedChallenge("clinic.de", CLINIC, NOW.timestamp() - 40)],
        {"cloud.fr": frozenset({platform_digest(chip().chip_id).hex()}), "clinic.de": frozenset()},
    )


def test_good_evidence_is_affirmed_and_says_simulated(question: Question) -> None:
    stated = evidence()
    found = question.ask(stated)
    assert (found.status, found.reason) == ("affirming", None)
    assert found.platform == "simulated-snp-milan"
    assert (found.simulated, found.assurance, found.debug) == (True, 1, False)
    assert found.evidence_digest == sha256(stated.write())
    assert found.platform_digest == platform_digest(chip().chip_id)
    assert found.models == {"chat.small/demo": MODEL}
    assert found.engine_in_tee
    assert found.challenged_at == NOW.timestamp() - 40
    assert found.expires_at == NOW.timestamp() + 260
    assert found.sign_key.spki == stated.sign_spki


def test_a_simulated_root_that_is_not_listed_is_refused(question: Question) -> None:
    question.expectations = simulated_expectations(
        engine_digests=[ENGINE], models={"chat.small/demo": [MODEL]}
    )
    found = question.ask(evidence())
    assert (found.status, found.reason) == ("contraindicated", "snp.chain.root_unpinned")
    assert (found.assurance, found.platform, found.platform_digest) == (0, "snp-unknown", None)


@pytest.mark.parametrize(
    "change",
    [
        {"federation": "other"},
        {"domain": "hyper.us"},
        {"node_id": "node-2"},
        {"boot_id": "boot-2"},
        {"key_epoch": 8},
        {"seal_key": bytes([1]) * 1216},
        {"sign_spki": SigningKey.generate().public.spki},
        {"configuration": configuration(engine_flags=[])},
        {"challenge_root": "00" * 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_bound_field_is_bound(question: Question, change: dict[str, Any]) -> None:
    stated = evidence().model_copy(update=change)
    question.enrolments["hyper.us"] = frozenset()
    found = question.ask(stated)
    assert found.status == "contraindicated"
    assert found.result.check("node.report_data").code == "node.report_data.mismatch"


@pytest.mark.parametrize(
    ("challenges", "reason"),
    [
        ([], "node.challenge_missing"),
        ([IssuedChallenge("clinic.de", CLOUD, NOW.timestamp())], "node.challenge_missing"),
        ([IssuedChallenge("hyper.us", CLINIC, NOW.timestamp())], "node.challenge_missing"),
        ([IssuedChallenge("clinic.de", CLINIC, NOW.timestamp() - 301)], "node.challenge_stale"),
        ([IssuedChallenge("clinic.de", CLINIC, NOW.timestamp() + 31)], "node.challenge_missing"),
    ],
)
def test_without_a_recent_answer_to_our_challenge_nothing_is_decided(
    question: Question, challenges: list[IssuedChallenge], reason: str
) -> None:
    question.challenges = challenges
    found = question.ask(evidence())
    assert (found.status, found.reason, found.assurance) == ("none", reason, 0)


def test_an_answer_counts_until_the_last_second_of_its_age(question: Question) -> None:
    question.challenges = [IssuedChallenge("clinic.de", CLINIC, NOW.timestamp() - 300)]
    assert question.ask(evidence()).status == "affirming"


def test_the_newest_answered_challenge_counts(question: Question) -> None:
    question.challenges += [
        IssuedChallenge("clinic.de", CLINIC, NOW.timestamp() - 10),
        IssuedChallenge("clinic.de", bytes(32), NOW.timestamp() - 1),
    ]
    assert question.ask(evidence()).challenged_at == NOW.timestamp() - 10


def test_a_day_of_challenges_costs_no_more_than_the_newest(
    question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that has run for a day has issued 1,728 of them, of which evidence answers the last."""
    tried: list[bytes] = []

    def count(domain: str, challenge: bytes, *rest: Any) -> None:
        tried.append(challenge)
        verify_challenge(domain, challenge, *rest)

    monkeypatch.setattr(checks, "verify_challenge", count)
    earlier = [IssuedChallenge("clinic.de", sha256(b"%d" % n), NOW.timestamp() - 50 * n) for n in range(1728)]
    question.challenges = [*earlier[:0:-1], IssuedChallenge("clinic.de", CLINIC, NOW.timestamp())]
    assert question.ask(evidence()).challenged_at == NOW.timestamp()
    assert tried == [CLINIC]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"engine": "outside-tee"}, "node.engine_outside_tee"),
        ({"engine_address": "10.0.0.5:8080"}, "node.engine_outside_tee"),
        ({"engine_address": "127.0.0.1.evil.example:80"}, "node.engine_outside_tee"),
        ({"engine_digest": "00" * 32}, "node.engine_not_listed"),
        ({"models": [ModelFile(capability="chat.small/demo", digest="00" * 32)]}, "node.model_not_listed"),
        ({"models": [ModelFile(capability="chat.large/demo", digest=MODEL)]}, "node.model_not_listed"),
        ({"models": [ModelFile(capability="chat.small/demo", digest=MODEL)] * 2}, "node.model_repeated"),
        ({"prompt_logging": True}, "node.prompt_logging"),
    ],
)
def test_a_configuration_that_is_not_expected_is_refused(
    question: Question, change: dict[str, Any], reason: str
) -> None:
    found = question.ask(evidence(config=configuration(**change)))
    assert (found.status, found.reason) == ("contraindicated", reason)


@pytest.mark.parametrize(
    "address", ["unix:/run/engine.sock", "/run/engine.sock", "http://localhost:1", "[::1]:80", "127.9.9.9:1"]
)
def test_addresses_that_only_the_tee_reaches(question: Question, address: str) -> None:
    assert question.ask(evidence(config=configuration(engine_address=address))).engine_in_tee


def test_an_outside_engine_can_be_waived_and_is_then_named(question: Question) -> None:
    text = "\n".join(
        line.replace('engine = "in-tee"', 'engine = "any"')
        for line in _toml(vendor().root_toml()).splitlines()
    )
    question.expectations = Expectations.parse(text.encode())
    nobodys = "0" * 64
    found = question.ask(evidence(config=configuration(engine="outside-tee", engine_digest=nobodys)))
    assert found.status == "affirming"
    assert not found.engine_in_tee
    inside = question.ask(evidence(config=configuration(engine_digest=nobodys)))
    assert inside.reason == "node.engine_not_listed"
    assert "node.engine" in found.result.waived


def _toml(*roots: str) -> str:
    from attestation.testing.expectations import simulated_toml

    return simulated_toml(*roots, engine_digests=[ENGINE], models={"chat.small/demo": [MODEL]})


@pytest.mark.parametrize(
    ("enrolled", "reason"),
    [
        ([], "node.platform_not_enrolled"),
        (["clinic.de"], "node.platform_not_enrolled"),
        (["clinic.de", "cloud.fr"], "node.platform_enrolled_twice"),
    ],
)
def test_enrolment(question: Question, enrolled: list[str], reason: str) -> None:
    digest = platform_digest(chip().chip_id).hex()
    question.enrolments = {domain: frozenset({digest}) for domain in enrolled}
    found = question.ask(evidence())
    assert (found.status, found.reason) == ("contraindicated", reason)
    question.expectations = expectations(enrolment="any")
    found = question.ask(evidence())
    assert found.status == "affirming"
    assert "node.enrolment" in found.result.waived


def test_expectations_without_a_node_table_never_affirm(question: Question) -> None:
    question.expectations = replace(question.expectations, node=None)
    found = question.ask(evidence())
    assert (found.status, found.reason) == ("none", "node.expectations_unset")


def test_debug_is_refused_and_reported(question: Question) -> None:
    machine = vendor().make_chip(policy=1 << 19 | 1 << 17)
    question.enrolments = {"cloud.fr": frozenset({platform_digest(machine.chip_id).hex()})}
    found = question.ask(evidence(machine=machine))
    assert (found.status, found.reason, found.debug) == ("contraindicated", "snp.policy.debug_enabled", True)


def test_a_tee_without_expectations_is_undecided(question: Question) -> None:
    stated = evidence()
    found = question.ask(stated.model_copy(update={"cpu": stated.cpu.model_copy(update={"tee": "tdx"})}))
    assert (found.status, found.reason) == ("none", "node.tee_unset")


def test_unreadable_bytes_are_unreadable(question: Question) -> None:
    for data in (b"", b"{}", b"\xff", b'{"v":1}', evidence().write()[:-1]):
        with pytest.raises(Unreadable):
            appraise_node(data, expectations=question.expectations, challenges=[], enrolments={}, at=NOW)
    stated = evidence().model_copy(update={"sign_spki": b"none"})
    with pytest.raises(Unreadable):
        question.ask(stated)


def test_a_seal_key_of_another_length_is_refused(question: Question) -> None:
    found = question.ask(evidence().model_copy(update={"seal_key": b"short"}))
    assert found.result.check("node.seal_key").code == "node.seal_key.malformed"


def test_a_chip_and_its_vendor_survive_a_folder(question: Question, tmp_path: Path) -> None:
    chip().save(tmp_path / "chip")
    vendor().save(tmp_path / "vendor")
    loaded = SimulatedChip.load(tmp_path / "chip")
    assert question.ask(evidence(machine=loaded)).status == "affirming"
    again = SimulatedVendor.load(tmp_path / "vendor")
    assert again.root_digest == vendor().root_digest
    machine = again.make_chip()
    question.enrolments = {"cloud.fr": frozenset({platform_digest(machine.chip_id).hex()})}
    assert question.ask(evidence(machine=machine)).status == "affirming"


def test_a_chip_of_another_vendor_is_refused_in_the_same_names(question: Question) -> None:
    other = SimulatedVendor.create("Milan", at=NOW - timedelta(days=1)).make_chip()
    assert question.ask(evidence(machine=other)).reason == "snp.chain.root_unpinned"
