"""The ranking again, byte for byte: the inputs on record must give order, scores and terms as signed.

Ranking belongs to the broker's room, so that its replay is handed in. Not checked: that the snapshot of
the directory (`inputs.registry`) held no other plan, and, where a better plan was passed over, that it
made no usable offer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from receipts.bundle import Disclosures
from receipts.statements.decided import plan_digest
from receipts.statements.receipt import PlacementReceipt
from receipts.verify.replay.candidates import candidates
from receipts.verify.replay.policy import Material
from receipts.verify.replay.selection import Ranked, Rerank
from schemas.canonical import Json
from schemas.errors import Refused, Undecided


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
    order = rerank(material.needed(body.inputs.costs, "record of its ranking"))
    chosen = _check_chosen(body, index, order)
    _check_candidates(candidates(body, disclosed, material), order)
    return Chosen(chosen, index, len(order), body.considered.count)


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


def _check_candidates(listed: Sequence[dict[str, Json]], order: Sequence[Ranked]) -> int:
    """How many there are, if they are the plans as ranked, then the refused, each with its why."""
    wanted = [(each.key, str(each.score)) for each in order]
    if [(each.get("plan"), each.get("score")) for each in listed[: len(order)]] != wanted:
        raise Refused("verify.ranking", "the candidates stand in another order, or with other scores")
    for each in listed[len(order) :]:
        if not each.get("reasons"):
            raise Refused("verify.considered", f"{each.get('plan')!s:.120} was left out without a reason")
    return len(listed)
