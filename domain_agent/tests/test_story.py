"""The whole interior once, on real parts: bus, agent, node, llama.cpp with a real small model."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from pathlib import Path

from attestation.appraise import NodeAppraisal, appraise_node
from domain_agent.tests.bench import until
from domain_agent.tests.consumer import Consumer, chat
from domain_agent.tests.domain import Domain, domain, facts_of
from domain_agent.tests.founding import PEER, Founded, small_model
from schemas.messages.interior import EvidenceRequest, Hold

LLAMA = 'kind = "llama.cpp"\nslots = 2'


async def test_a_node_is_admitted_held_and_runs_what_is_sealed_to_it(
    founded: Founded, tmp_path: Path
) -> None:
    model = hashlib.sha256(small_model().read_bytes()).hexdigest()
    async with domain(founded, tmp_path) as clinic:
        # 1. A peer asks; our node starts, and is admitted by its evidence alone.
        challenge = await clinic.peer_advert(secrets.token_bytes(32))
        await clinic.agent(digest=model)
        node = await clinic.node(LLAMA, file=small_model())
        status = await clinic.admitted("n1")
        assert status.nodes[0].simulated is True
        # 2. A hold names it; the peer appraises the evidence itself, against its own challenge.
        await clinic.peer_advert(challenge.value, seq=1)
        await until(lambda: _answers(clinic, node.config.node_id))
        hold = (await clinic.hold()).hold
        assert hold
        appraisal = await _appraise(clinic, hold, founded, challenge)
        assert (appraisal.status, appraisal.simulated, appraisal.assurance) == ("affirming", True, 1)
        # 3. Committed, executed, and ended by the node's own statement.
        assert (await clinic.commit(hold)).known
        facts = facts_of(hold, appraisal.sign_key)
        attempt = Consumer(founded.message[PEER]).order(facts, chat("Count: one, two,", max_tokens=8))
        await clinic.execute(attempt, hold)
        assert attempt.statement
        assert attempt.statement.outcome == "ok"
        assert attempt.text
        assert attempt.clear_statement == attempt.statement
        assert (await clinic.done(hold)).known


def _answers(clinic: Domain, node_id: str) -> bool:
    return clinic.running is not None and _proofs(clinic, node_id) == {"clinic.de", "cloud.fr"}


def _proofs(clinic: Domain, node_id: str) -> set[str]:
    assert clinic.running
    record = clinic.running.book.get(node_id)
    return (
        {proof.domain for proof in record.appraisal.evidence.challenges}
        if record and record.appraisal
        else set()
    )


async def _appraise(clinic: Domain, hold: Hold, founded: Founded, challenge: object) -> NodeAppraisal:
    asked = EvidenceRequest(evidence=hold.evidence).write()
    document = await clinic.broker.request("agent.evidence", asked, timeout=2)
    assert hashlib.sha256(document).hexdigest() == hold.evidence
    return appraise_node(
        document,
        expectations=clinic.expectations(),
        challenges=[challenge],  # type: ignore[list-item]
        enrolments=founded.trust.enrolments(),
        at=datetime.now(UTC),
    )
