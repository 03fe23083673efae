"""The ranking again, byte for byte: the inputs on record must give order, scores and terms as signed.

Ranking belongs to the broker's room, so that its replay is handed in. Not checked: that the snapshot of
the directory (`inputs.registry`) held no other plan, and, where a better plan was passed over, that it
made no usable offer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeAlias

from receipts.bundle import Disclosures
from receipts.statements.decided import plan_digest
from receipts.statements.receipt import Objective, PlacementReceipt
from receipts.verify.replay.policy import Material
from schemas import merkle
from schemas.canonical import Json, read_json
from schemas.errors import Refused, Undecided, Unreadable

MAX_LISTING_BYTES: Final = 4 * 1024 * 1024  # some ten thousand candidates with their reasons


@dataclass(frozen=True, slots=True)
class Ranked:
    """One plan of a ranking that was computed again."""

    key: str
    """Domain, blank, what it offers: the plan's name within the decision."""
    score: Decimal
    objective: Objective
    """What a receipt that chose it has to state."""


Rerank: TypeAlias = Callable[[bytes], Sequence[Ranked]]
"""Stored inputs of a ranking → the order that they lead to, best first. Raises `ComityError`."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The plan that a Placement took, in the order that was computed again."""

    ranked: Ranked
    index: int
    """How many better ones were passed over."""
    of: int
    """Allowed plans."""
    looked_at: int
    """Candidates in all, those that were refused included."""


def choose_again(
    body: PlacementReceipt, disclosed: Disclosures, material: Material, rerank: Rerank
) -> Chosen:
    """The signed choice, at its place in the order computed again.

    Raises `Undecided` for what is not here, `Refused` (`verify.ranking`, `verify.score`,
    `verify.considered`, `verify.plan`) for what does not come out.
    """
    index = body.considered.selected_index
    if index is None or body.plan is None:
        raise Undecided("verify.no_choice", "nothing was chosen")
    if index >= body.considered.count:
        raise Refused("verify.considered", "the selected plan is not in the set")
    order = rerank(_found(body.inputs.costs, "record of its ranking", material))
    chosen = _check_chosen(body, index, order)
    listing = disclosed.considered
    _check_listing(body, order, _found(listing, "list of its candidates", material))
    return Chosen(chosen, index, len(order), body.considered.count)


def _found(digest: str | None, what: str, material: Material) -> bytes:
    data = material.blob(bytes.fromhex(digest)) if digest else None
    if data is None:
        raise Undecided("verify.inputs_absent", f"the {what} is not here")
    return data


def _check_chosen(body: PlacementReceipt, index: int, order: Sequence[Ranked]) -> Ranked:
    """The plan at this place, if it is the signed one with the signed score. Raises `Refused`."""
    if index >= len(order) or len(order) > body.considered.count:
        raise Refused("verify.ranking", "the ranking has another number of plans than was signed")
    chosen, plan = order[index], body.plan
    if plan is None or chosen.key.partition(" ")[0] != plan.domain:
        raise Refused("verify.ranking", f"ranked again, number {index} is {chosen.key:.120}")
    if body.objective != chosen.objective:
        raise Refused("verify.score", f"scored again, J is {chosen.score} with other terms than were signed")
    node = plan.nodes[0] if len(plan.nodes) == 1 else ""
    if plan.digest != plan_digest(chosen.key, node, body.capability.artifact_digest):
        raise Refused("verify.plan", "the plan's digest is of another candidate, node or model")
    return chosen


def _check_listing(body: PlacementReceipt, order: Sequence[Ranked], data: bytes) -> int:
    """The salted candidates are the signed set: plans as ranked, then the refused, each with its why."""
    salted = _listing(data)
    root = merkle.root([merkle.leaf_hash(item) for item in salted])
    if (root.hex(), len(salted)) != (body.considered.root, body.considered.count):
        raise Refused("verify.considered", "the list of candidates is not the signed one")
    candidates = [_candidate(item) for item in salted]
    wanted = [(each.key, str(each.score)) for each in order]
    if [(each.get("plan"), each.get("score")) for each in candidates[: len(order)]] != wanted:
        raise Refused("verify.ranking", "the candidates stand in another order, or with other scores")
    for each in candidates[len(order) :]:
        if not each.get("reasons"):
            raise Refused("verify.considered", f"{each.get('plan')!s:.120} was left out without a reason")
    return len(candidates)


def _listing(data: bytes) -> list[bytes]:
    match read_json(data, limit=MAX_LISTING_BYTES):
        case {"considered": list(items), **more} if not more and all(isinstance(each, str) for each in items):
            return [str(each).encode() for each in items]
    raise Unreadable("verify.considered", "not a list of candidates")


def _candidate(item: bytes) -> dict[str, Json]:
    match read_json(item):
        case {"salt": str(), "candidate": dict(candidate), **more} if not more:
            return candidate
    raise Unreadable("verify.considered", f"not a candidate: {json.dumps(item.decode())[:80]}")
