"""A ranking in the words of receipts, and a stored one computed again for an auditor who holds its inputs.

`SELECTION` is what an auditor's program hands to `receipts.verify`: this ranking, and `refused.recut`.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Final

from pydantic import ValidationError

from broker.select.cost import FULL_HEADROOM, NAME, VERSION, Terms, Weights, terms
from broker.select.rank import RankRecord, StoredPlan, replay
from broker.select.refused import recut
from receipts.statements import receipt
from receipts.verify.replay.selection import Ranked, Selection
from schemas.canonical import jcs, sha256
from schemas.errors import Undecided, Unreadable

MAX_RECORD_BYTES: Final = 256 * 1024  # 256 plans of some 400 bytes


def rerank(data: bytes) -> list[Ranked]:
    """The order that a record leads to, best first, with what a receipt that chose each plan must state.

    Raises `Unreadable`, or `Undecided` (`rank.other_rule`) for a rule of another name or version.
    """
    stored = RankRecord.read(data, limit=MAX_RECORD_BYTES)
    if (stored.name, stored.version) != (NAME, VERSION):
        raise Undecided("rank.other_rule", f"ranked by {stored.name} {stored.version}")
    _check_computable(stored)
    try:
        parts = {plan.inputs.key: terms(plan.inputs) for plan in stored.plans}
        return [Ranked(key, score, objective(parts[key], score)) for key, score in replay(stored)]
    except (ArithmeticError, ValidationError):
        raise Unreadable("rank.record", "its numbers are beyond what is computed with") from None


def _check_computable(stored: RankRecord) -> int:
    """How many plans there are, if J can be computed of them. Raises `Unreadable`.

    The record was never the auditor's: what no broker writes must not be computed with.
    """
    if stored.weights.keys() != Weights().as_json().keys():
        raise Unreadable("rank.record", "not the weights of this rule")
    keys = {plan.inputs.key for plan in stored.plans}
    if len(keys) != len(stored.plans) or not all(map(_is_computable, stored.plans)):
        raise Unreadable("rank.record", "not plans that can be ranked")
    return len(keys)


def _is_computable(plan: StoredPlan) -> bool:
    speeds = (Decimal(plan.inputs.prefill_tps), Decimal(plan.inputs.decode_tps))
    return min(speeds) > 0 and 0 <= Decimal(plan.inputs.headroom) <= FULL_HEADROOM


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


SELECTION: Final = Selection(rerank, recut)
