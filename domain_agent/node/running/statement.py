"""The node's signed word about one run (receipts.statements.node)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from domain_agent.node.running.order import Order
from receipts.statements import fields
from receipts.statements.node import NodeStatement, sign_node_statement
from receipts.statements.receipt import Outcome
from schemas.keys import SigningKey
from schemas.messages.answer import Usage
from schemas.primitives import format_time


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    outcome: Outcome
    code: str
    """`ok`, or the reason."""
    finish_reason: str


def sign_statement(
    key: SigningKey,
    order: Order,
    ending: Ending,
    usage: Usage,
    *,
    capability: str,
    commitment: str,
    received: datetime,
) -> bytes:
    """The statement's envelope. A continuation's segment is its attempt; a first run's is 0."""
    header, finished = order.header, datetime.now(UTC)
    started = finished - timedelta(milliseconds=usage.compute_ms)
    statement = NodeStatement(
        header=order.digest.hex(),
        federation=header.federation,
        domain=header.aud,
        node_key=key.thumbprint,
        segment=header.attempt if header.parent is not None else 0,
        outcome=ending.outcome,
        code=ending.code,
        finish_reason=ending.finish_reason,
        capability=fields.Capability(
            name=capability,
            artifact_digest=header.model_digest,
            model_signing_digest=header.model_signing,
        ),
        usage=fields.Usage(**usage.model_dump()),
        response=fields.Commitment(commitment=commitment),
        times=fields.Times(
            received=format_time(received),
            started=format_time(started),
            finished=format_time(finished),
            issued=format_time(finished),
        ),
    )
    return sign_node_statement(statement, key)
