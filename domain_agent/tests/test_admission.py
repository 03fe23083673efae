"""Who gets in, for how long, and what ends it: real evidence, and clocks that the test moves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from domain_agent.admit import admission
from domain_agent.admit.admission import GRACE_S, MAX_AT_ONCE, RETRY_S
from domain_agent.admit.challenges import PACE_S, ROTATE_S, STEP_BACK_S, OwnChallenges, PeerChallenges
from domain_agent.admit.revocations import FILE, Revocations
from domain_agent.node.keys import NodeKeys
from domain_agent.tests.founding import PEER, Founded
from domain_agent.tests.interior import Interior
from schemas.errors import ConfigurationError, Undecided
from schemas.messages.interior import Challenges

QUOTE_S = 5.0  # seconds that the agent waits for a quote


@pytest.fixture
def interior(founded: Founded, tmp_path: Path) -> Interior:
    return Interior(founded, tmp_path)


async def test_a_node_is_admitted_by_evidence_and_by_nothing_else(interior: Interior) -> None:
    interior.add()
    interior.report()
    assert not interior.admitted()
    assert await interior.ask_due() == ["n1"]
    assert interior.admitted()
    record = interior.book.get("n1")
    assert record
    assert record.appraisal
    assert record.appraisal.status == "affirming"


async def test_admission_ends_when_renewals_stop(interior: Interior) -> None:
    node = interior.add()
    await interior.ask_due()
    node.silent = True
    interior.time.passed = 61
    assert await interior.ask_due() == ["n1"]
    assert interior.admitted()
    interior.time.passed = 60 + GRACE_S
    await interior.ask_due()
    assert not interior.admitted()
    assert interior.reason() == "bus.timeout"
    node.silent = False
    interior.time.passed += 2
    await interior.ask_due()
    assert interior.admitted()


async def test_nodes_that_hang_keep_nobody_from_its_turn(interior: Interior) -> None:
    """As many as are asked at once, all before it in the book: it is next, and they rest after failing."""

    async def hang(*_: object, **__: object) -> bytes:
        await asyncio.sleep(0)  # all have been asked by now
        interior.time.passed = QUOTE_S
        raise Undecided("bus.timeout", "no answer")

    for number in range(MAX_AT_ONCE):
        interior.add(f"hung{number}", chip="n1").quote = hang  # type: ignore[method-assign]
    interior.add()
    asked = interior.admission.due()[:MAX_AT_ONCE]
    assert "n1" not in {record.node_id for record in asked}
    await asyncio.gather(*(interior.admission.renew(record) for record in asked))
    assert [record.node_id for record in interior.admission.due()] == ["n1"]
    interior.time.passed = QUOTE_S + RETRY_S
    due = [record.node_id for record in interior.admission.due()]
    assert (due[0], len(due)) == ("n1", MAX_AT_ONCE + 1)
    assert await interior.ask_due() == sorted(due)
    assert interior.admitted()


async def test_a_node_that_failed_rests_also_when_a_peer_asks(interior: Interior) -> None:
    """What a peer asks is due a while after the last quote; a quote that hung ended only now."""
    node = interior.add()
    await interior.ask_due()
    began, quote = interior.time.passed + RETRY_S, node.quote

    async def hang(*_: object, **__: object) -> bytes:
        interior.time.passed = began + QUOTE_S
        raise Undecided("bus.timeout", "no answer")

    node.quote = hang  # type: ignore[method-assign]
    interior.time.passed = began
    interior.peers.note(PEER, b"1" * 32, interior.time.clock.wall())
    assert await interior.ask_due() == ["n1"]
    interior.peers.note(PEER, b"2" * 32, interior.time.clock.wall())
    assert await interior.ask_due() == []
    node.quote = quote  # type: ignore[method-assign]
    interior.time.passed += RETRY_S
    assert await interior.ask_due() == ["n1"]


@pytest.mark.parametrize("code", ["tee.busy", "bus.absent", "bus.busy", "bus.defect", "devices.timeout"])
async def test_a_quote_that_could_not_be_had_leaves_the_admission_to_lapse(
    interior: Interior, code: str
) -> None:
    node = interior.add()
    await interior.ask_due()

    async def quote(*_: object, **__: object) -> bytes:
        raise Undecided(code, "a moment")

    node.quote = quote  # type: ignore[method-assign]
    interior.time.passed = 2
    interior.peers.note(PEER, b"1" * 32, interior.time.clock.wall())
    assert await interior.ask_due() == ["n1"]
    assert (interior.admitted(), interior.reason()) == (True, code)
    interior.time.passed = 60 + GRACE_S
    await interior.ask_due()
    assert not interior.admitted()


async def test_evidence_that_was_seen_and_does_not_decide_ends_the_admission(
    interior: Interior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is called: a document came, and it does not say that this node is as it should be."""
    interior.add()
    await interior.ask_due()

    def undecided(*_: object, **__: object) -> None:
        raise Undecided("bus.timeout", "what it needs could not be had")

    monkeypatch.setattr(admission, "appraise_node", undecided)
    interior.time.passed = 60
    assert await interior.ask_due() == ["n1"]
    assert not interior.admitted()
    assert interior.lost == [], "nothing speaks against its key"


async def test_each_epoch_brings_a_new_seal_key(interior: Interior) -> None:
    node = interior.add()
    await interior.ask_due()
    first = node.keys.current
    interior.time.passed = 59
    assert await interior.ask_due() == []
    interior.time.passed = 60
    assert await interior.ask_due() == ["n1"]
    assert first
    assert node.keys.current
    assert node.keys.current.epoch > first.epoch
    assert node.keys.current.key.public != first.key.public


async def test_a_peers_new_challenge_is_answered_soon_under_the_same_key(interior: Interior) -> None:
    node = interior.add()
    await interior.ask_due()
    key = node.keys.current
    interior.time.passed = 1
    interior.peers.note(PEER, b"1" * 32, interior.time.clock.wall())
    assert await interior.ask_due() == []
    interior.time.passed = 2
    assert await interior.ask_due() == ["n1"]
    assert node.keys.current is key
    record = interior.book.get("n1")
    assert record
    assert record.appraisal
    assert {proof.domain for proof in record.appraisal.evidence.challenges} == {"clinic.de", PEER}
    interior.time.passed = 30
    interior.peers.note(PEER, b"1" * 32, interior.time.clock.wall())
    assert await interior.ask_due() == []


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("node_id", "n2", "node.identity"),
        ("domain", "cloud.fr", "node.foreign"),
        ("boot_id", "another", "node.identity"),
        ("key_epoch", 7, "node.key_epoch"),
        ("challenge_root", "0" * 64, "node.report_data.mismatch"),
        ("configuration", None, "schema.NodeEvidence"),
    ],
)
async def test_tampered_evidence_is_never_admitted(
    interior: Interior, field: str, value: object, code: str
) -> None:
    node = interior.add()
    node.changes = {field: value}
    for _ in range(3):
        await interior.ask_due()
        assert not interior.admitted()
        interior.time.passed += 2
    assert interior.reason() == code


async def test_a_chip_that_nobody_enrolled_is_not_admitted(interior: Interior) -> None:
    interior.add("n1", chip="stray")
    await interior.ask_due()
    assert not interior.admitted()
    assert interior.reason() == "node.platform_not_enrolled"


async def test_a_genuine_node_of_another_domain_is_not_ours(interior: Interior) -> None:
    node = interior.add()
    node.domain = PEER
    await interior.ask_due()
    assert not interior.admitted()


async def test_evidence_that_turns_bad_ends_the_admission_and_is_told(interior: Interior) -> None:
    node = interior.add()
    await interior.ask_due()
    record = interior.book.get("n1")
    assert record
    assert record.appraisal
    thumbprint = record.appraisal.sign_key.thumbprint
    before = interior.admission.revocations.trust_epoch
    node.changes = {"challenge_root": "0" * 64}
    interior.time.passed = 60
    await interior.ask_due()
    assert not interior.admitted()
    assert not record.documents
    assert interior.admission.revocations.trust_epoch == before + 1
    assert [(what, kind) for what, kind, _ in interior.lost] == [((thumbprint,), "compromise")]


async def test_a_revoked_node_is_out_at_once_and_stays_out(interior: Interior, founded: Founded) -> None:
    interior.add()
    await interior.ask_due()
    before = interior.admission.revocations.trust_epoch
    record = interior.book.get("n1")
    assert record
    (shown,) = record.documents
    interior.admission.revoke("n1", "compromise", "stolen")
    assert not interior.admitted()
    assert interior.admission.revocations.trust_epoch == before + 1, "one epoch for one word"
    with pytest.raises(Undecided, match=r"evidence\.unknown"):
        interior.book.document(shown)
    assert interior.lost[-1][1:] == ("compromise", "stolen")
    interior.time.passed = 120
    assert await interior.ask_due() == []
    interior.nodes["n1"].keys = NodeKeys()
    interior.admission.arrive("n1", interior.nodes["n1"].keys.boot_id)
    assert await interior.ask_due() == []
    assert not interior.admitted()


async def test_a_revocation_that_turns_out_worse_is_told_again(interior: Interior) -> None:
    """First it is merely replaced, and its open answers may finish; then it shows that it was stolen."""
    interior.add()
    await interior.ask_due()
    record = interior.book.get("n1")
    assert record
    assert record.appraisal
    key = record.appraisal.sign_key.thumbprint
    interior.admission.revoke("n1", "stale", "replaced")
    interior.admission.revoke("n1", "compromise", "stolen")
    assert interior.lost == [((key,), "stale", "replaced"), ((key,), "compromise", "stolen")]


async def test_a_machine_does_not_shake_off_its_keys_by_a_new_boot(interior: Interior) -> None:
    """One that was taken over says that it has restarted, and goes on answering under the old key."""
    node, keys = interior.add(), []
    for _ in range(2):
        await interior.ask_due()
        keys.append(node.keys.sign.thumbprint)
        node.keys = NodeKeys()
        interior.admission.arrive("n1", node.keys.boot_id)
    interior.admission.revoke("n1", "compromise", "stolen")
    assert interior.lost[-1] == (tuple(keys), "compromise", "stolen")


async def test_a_node_revoked_while_it_is_asked_is_not_admitted(interior: Interior) -> None:
    node = interior.add()
    quote = node.quote

    async def late(founded: Founded, asked: Challenges, steady: float) -> bytes:
        document = await quote(founded, asked, steady)
        interior.admission.revoke("n1", "compromise", "stolen")
        return document

    node.quote = late  # type: ignore[method-assign]
    await interior.ask_due()
    assert not interior.admitted()


async def test_a_restarted_node_is_new_and_its_old_keys_are_over(interior: Interior) -> None:
    node = interior.add()
    await interior.ask_due()
    node.keys = NodeKeys()
    interior.admission.arrive("n1", node.keys.boot_id)
    assert not interior.admitted()
    assert interior.lost[-1][1:] == ("stale", "node.restarted")
    await interior.ask_due()
    assert interior.admitted()


async def test_evidence_is_kept_for_this_epoch_and_the_last(interior: Interior) -> None:
    interior.add()
    digests = []
    for epoch in range(3):
        interior.time.passed = 60.0 * epoch
        await interior.ask_due()
        record = interior.book.get("n1")
        assert record
        assert record.appraisal
        digests.append(record.appraisal.evidence_digest.hex())
    assert len(set(digests)) == 3
    assert interior.book.document(digests[2])
    assert interior.book.document(digests[1])
    with pytest.raises(Exception, match=r"evidence\.unknown"):
        interior.book.document(digests[0])


def test_a_challenge_is_current_for_less_than_a_minute() -> None:
    own = OwnChallenges("clinic.de")
    first = own.current(1000.0)
    assert own.current(1000.0 + ROTATE_S - 1) == first
    second = own.current(1000.0 + ROTATE_S)
    assert second.value != first.value
    assert own.issued(1000.0 + ROTATE_S) == [first, second]
    assert ROTATE_S < 60


def test_a_clock_that_was_set_back_asks_anew_at_once() -> None:
    """What was asked in a time to come can be answered by nobody: every node would be out until then."""
    own = OwnChallenges("clinic.de")
    ahead = own.current(8000.0)
    again = own.current(1000.0)
    assert (again.value != ahead.value, again.issued_at) == (True, 1000.0)
    assert own.current(1000.0 + ROTATE_S - 1) == again


def test_a_moment_in_whole_seconds_asks_nothing_anew() -> None:
    own = OwnChallenges("clinic.de")
    first = own.current(1000.9)
    assert own.current(1000.0) == first
    assert own.current(1000.9 - STEP_BACK_S - 0.1) != first


def test_peers_that_fell_silent_are_answered_no_more() -> None:
    peers = PeerChallenges()
    peers.note("a.example", b"1" * 32, 0.0)
    peers.note("b.example", b"2" * 32, 3000.0)
    assert set(peers.current(3601.0)) == {"b.example"}
    assert peers.version == 2


def test_a_peer_cannot_keep_all_nodes_quoting() -> None:
    """Each new challenge makes every node quote: a peer that draws one a second is answered now and then."""
    peers = PeerChallenges()
    for second in range(1000):
        peers.note("a.example", second.to_bytes(32), float(second))
    assert peers.version <= 5 + 1000 / PACE_S
    peers.note("b.example", b"2" * 32, 1000.0)
    assert peers.current(1000.0)["b.example"] == b"2" * 32
    for second in range(1000, 1011):
        peers.note("a.example", b"3" * 32, float(second))
    assert peers.current(1011.0)["a.example"] == b"3" * 32


def test_a_peer_that_restarts_is_answered_at_once() -> None:
    peers = PeerChallenges()
    for boot in range(4):
        peers.note("a.example", boot.to_bytes(32), float(boot))
        assert peers.current(float(boot))["a.example"] == boot.to_bytes(32)


def test_revocations_last_and_the_trust_epoch_only_rises(tmp_path: Path) -> None:
    first = Revocations.load(tmp_path)
    first.revoke("n1", "compromise", "stolen")
    first.save(first.snapshot())
    again = Revocations.load(tmp_path)
    assert again.nodes == first.nodes
    assert again.trust_epoch == first.trust_epoch


def test_a_damaged_revocation_file_stops_the_agent(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b'{"v":1}')
    with pytest.raises(ConfigurationError, match="revocations"):
        Revocations.load(tmp_path)
