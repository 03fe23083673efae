"""Which node gets a request, and why none does."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain_agent.admit.nodes import NodeRecord
from domain_agent.offer.catalogue import Catalogue
from domain_agent.tests.founding import PEER, Founded
from domain_agent.tests.interior import Interior, entry
from schemas.errors import Refused
from schemas.messages.interior import HoldReply, HoldRequest, NodeState
from schemas.messages.message import new_nonce


@pytest.fixture
async def interior(founded: Founded, tmp_path: Path) -> Interior:
    made = Interior(founded, tmp_path)
    for name in ("n1", "n2"):
        made.add(name)
    await made.ask_due()
    for name in ("n1", "n2"):
        made.report(name, slots=2)
    return made


def ask(
    interior: Interior, *, nid: str | None = None, capability: str = "chat.small", **more: object
) -> HoldReply:
    fields: dict[str, object] = {
        "nid": nid or new_nonce(),
        "capability": capability,
        "hold_ms": 5000,
        "consumer": PEER,
        "data_class": "public",
        "exclude_nodes": [],
    }
    return interior.holding.hold(HoldRequest.model_validate({**fields, **more}))


def record(interior: Interior, name: str) -> NodeRecord:
    found = interior.book.get(name)
    assert found
    return found


def test_holds_are_spread_and_then_queue_and_then_end(interior: Interior) -> None:
    held = [ask(interior).hold for _ in range(8)]
    assert [each.node_id for each in held if each] == ["n1", "n2", "n1", "n2", "n1", "n2", "n1", "n2"]
    assert [each.queue_ms > 0 for each in held if each] == [False] * 4 + [True] * 4
    refused = ask(interior).refused
    assert refused
    assert (refused.code, refused.headroom) == ("NO_CAPACITY", 0)
    assert refused.retry_after_ms > 0


def test_a_hold_names_what_was_proven(interior: Interior) -> None:
    hold = ask(interior, capability="chat.small/smollm2-135m-q4_1").hold
    assert hold
    appraisal = record(interior, hold.node_id).appraisal
    assert appraisal
    assert hold.node_sign == appraisal.sign_key.thumbprint
    assert hold.seal_key == appraisal.seal_key
    assert interior.book.document(hold.evidence)
    assert 4900 < hold.hold_ms <= 5000


def test_excluded_nodes_are_not_given_out(interior: Interior) -> None:
    first = ask(interior).hold
    assert first
    second = ask(interior, exclude_nodes=[first.node_sign]).hold
    assert second
    assert second.node_id != first.node_id
    assert ask(interior, exclude_nodes=[first.node_sign, second.node_sign]).refused


def test_a_node_that_is_down_or_silent_gets_nothing(interior: Interior) -> None:
    down = record(interior, "n1").state
    assert down
    steady = interior.time.clock.steady()
    interior.book.note_state(down.model_copy(update={"health": "DOWN"}), "n1", steady)
    assert {each.node_id for each in (ask(interior).hold, ask(interior).hold) if each} == {"n2"}
    interior.time.passed = 6
    assert ask(interior).refused


def test_a_degraded_node_is_second_choice(interior: Interior) -> None:
    state = record(interior, "n1").state
    assert state
    degraded = state.model_copy(update={"health": "DEGRADED"})
    interior.book.note_state(degraded, "n1", interior.time.clock.steady())
    hold = ask(interior).hold
    assert hold
    assert hold.node_id == "n2"


def test_a_revoked_node_gets_no_hold_on_the_next_request(interior: Interior) -> None:
    interior.admission.revoke("n1", "compromise", "stolen")
    interior.capacity.forget("n1")
    held = [ask(interior).hold for _ in range(4)]
    assert {each.node_id for each in held if each} == {"n2"}


def test_what_is_not_offered_is_unknown(interior: Interior) -> None:
    for wrong in ({"capability": "chat.large"}, {"capability": "chat"}, {"model_digest": "0" * 64}):
        refused = ask(interior, **wrong).refused
        assert refused
        assert refused.code == "UNKNOWN_CAPABILITY"


def test_the_same_negotiation_gets_the_same_hold(interior: Interior) -> None:
    first, again = ask(interior, nid="one").hold, ask(interior, nid="one").hold
    assert first
    assert again
    assert first.hold_id == again.hold_id


def test_a_draining_agent_holds_nothing(interior: Interior) -> None:
    interior.holding.draining = True
    refused = ask(interior).refused
    assert refused
    assert refused.code == "DRAINING"


def test_a_model_that_the_evidence_does_not_prove_is_not_here(interior: Interior) -> None:
    """Telemetry may claim it; the hardware did not sign it."""
    other = entry("claimed", "ee" * 32, tier=9)
    interior.holding.catalogue = Catalogue.of([*interior.holding.catalogue.entries, other])
    state = record(interior, "n1").state
    assert state
    claimed = state.models[0].model_copy(update={"capability": other.label, "model_digest": other.digest})
    interior.book.note_state(
        state.model_copy(update={"models": [claimed]}), "n1", interior.time.clock.steady()
    )
    assert ask(interior, capability=other.label).refused


def test_a_node_speaks_for_itself_alone(interior: Interior) -> None:
    state = record(interior, "n1").state
    assert isinstance(state, NodeState)
    with pytest.raises(Refused, match=r"agent\.node_id"):
        interior.book.note_state(state, "n2", 0.0)
