"""The agent's signed word about its nodes, and whose word it is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from attestation.ear import sign_ear
from domain_agent.admit.results import verify_result
from domain_agent.tests.founding import OURS, PEER, Founded
from domain_agent.tests.interior import Interior
from schemas.errors import Refused, Undecided
from schemas.keys import SigningKey


@pytest.fixture
def interior(founded: Founded, tmp_path: Path) -> Interior:
    return Interior(founded, tmp_path)


def claims(interior: Interior, token: str, **changes: Any) -> dict[str, Any]:
    now = interior.time.clock.now()
    values: dict[str, Any] = {"trust": interior.founded.trust, "domain": OURS, "at": now, **changes}
    return cast(dict[str, Any], verify_result(token, **values))


async def test_each_appraisal_is_signed_by_the_registered_verifier(interior: Interior) -> None:
    interior.add()
    with pytest.raises(Undecided, match=r"agent\.no_result"):
        interior.book.result("n1")
    await interior.ask_due()
    found = claims(interior, interior.book.result("n1"))
    record = interior.book.get("n1")
    assert record
    assert record.appraisal
    node = found["submods"]["node"]
    assert (found["iss"], node["ear.status"]) == (OURS, "affirming")
    assert node["comity.evidence"] == record.appraisal.evidence_digest.hex()
    assert node["comity.simulated"] is True
    assert found["exp"] == int(record.appraisal.expires_at)


async def test_a_refused_node_has_a_result_that_says_why(interior: Interior) -> None:
    interior.add("stray")
    await interior.ask_due()
    assert not interior.admitted("stray")
    node = claims(interior, interior.book.result("stray"))["submods"]["node"]
    assert (node["ear.status"], node["comity.reason"]) == ("contraindicated", "node.platform_not_enrolled")


async def test_nobody_elses_word_counts(interior: Interior) -> None:
    interior.add()
    await interior.ask_due()
    token, record = interior.book.result("n1"), interior.book.get("n1")
    assert record
    assert record.appraisal
    now = int(interior.time.clock.wall())
    forged = [
        sign_ear(record.appraisal.result, key, issuer=OURS, issued_at=now, lifetime=60)
        for key in (SigningKey.generate(), interior.founded.advert[OURS], interior.founded.message[OURS])
    ]
    for other in forged:
        with pytest.raises(Refused, match="not signed by a registered verifier"):
            claims(interior, other)
    with pytest.raises(Refused, match=r"trust\.no_key"):
        claims(interior, token, domain=PEER)
    with pytest.raises(Refused, match=r"ear\.expired"):
        claims(interior, token, at=interior.time.clock.now() + timedelta(hours=1))


async def test_what_no_publisher_stands_behind_is_not_admitted(interior: Interior) -> None:
    """The charter bounds the agent as it bounds the consumer's broker."""
    node = interior.add()
    node.models = dict.fromkeys(node.models, "99" * 32)
    await interior.ask_due()
    assert not interior.admitted()
    assert interior.reason() == "node.model_not_listed"
