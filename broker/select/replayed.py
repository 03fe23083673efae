"""A ranking in the words of receipts, and a stored one computed again for an auditor who holds its inputs."""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Final

from broker.select.cost import NAME, VERSION, Terms, terms
from broker.select.rank import RankRecord, replay
from receipts.statements import receipt
from receipts.verify.replay.choice import Ranked
from schemas.canonical import jcs, sha256
from schemas.errors import Undecided

MAX_RECORD_BYTES: Final = 256 * 1024  # 256 plans of some 400 bytes


def rerank(data: bytes) -> list[Ranked]:
    """The order that a record leads to, best first, with what a receipt that chose each plan must state.

    Raises `Unreadable`, or `Undecided` (`rank.other_rule`) for a rule of another name or version.
    """
    stored = RankRecord.read(data, limit=MAX_RECORD_BYTES)
    if (stored.name, stored.version) != (NAME, VERSION):
        raise Undecided("rank.other_rule", f"ranked by {stored.name} {stored.version}")
    parts = {plan.inputs.key: terms(plan.inputs) for plan in stored.plans}
    return [Ranked(key, score, objective(parts[key], score)) for key, score in replay(stored)]


def objective(parts: Terms, score: Decimal) -> receipt.Objective:
    """The scoring rule, and what it gave one plan."""
    return receipt.Objective(
        name=NAME,
        version=VERSION,
        digest=_rule_digest(),
        score=_text(score),
        terms=receipt.Terms(
            net=_text(parts.network),
            queue=_text(parts.queue),
            exec=_text(parts.execution),
            state=_text(parts.state),
            load=_text(parts.load),
            policy=_text(parts.policy),
            money=_text(parts.money),
        ),
    )


@cache
def _rule_digest() -> str:
    return sha256(jcs({"name": NAME, "version": VERSION})).hex()


def _text(value: Decimal) -> str:
    """Plain decimal notation, as receipts allow it."""
    return f"{value.normalize():f}" if value else "0"
