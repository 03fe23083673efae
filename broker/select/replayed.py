"""A stored ranking computed again, for an auditor who holds its inputs (receipts.verify.replayed)."""

from __future__ import annotations

from decimal import Decimal

from broker.select.cost import NAME, VERSION, terms
from broker.select.rank import RankRecord, replay
from receipts.verify.replayed import Ranked
from schemas.errors import Undecided

MAX_RECORD_BYTES = 256 * 1024  # 256 plans of some 400 bytes


def rerank(data: bytes) -> list[Ranked]:
    """The order that a record leads to, best first, with the terms by their names in a receipt.

    Raises `Unreadable`, or `Undecided` (`rank.other_rule`) for a rule of another name or version.
    """
    stored = RankRecord.read(data, limit=MAX_RECORD_BYTES)
    if (stored.name, stored.version) != (NAME, VERSION):
        raise Undecided("rank.other_rule", f"ranked by {stored.name} {stored.version}")
    parts = {plan.inputs.key: terms(plan.inputs) for plan in stored.plans}
    return [Ranked(key, score, _named(parts[key].as_json())) for key, score in replay(stored)]


def _named(values: dict[str, str]) -> dict[str, Decimal]:
    short = {"network": "net", "execution": "exec"}
    return {short.get(name, name): Decimal(value) for name, value in values.items()}
