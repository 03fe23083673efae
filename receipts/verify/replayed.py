"""Claims `policy` and `plan-choice`: decided again here, from the facts and rules that the receipt pins.

The record of a policy decision and the inputs of the ranking are named in the receipt by digest; the
rules by their own. A broker that lied about either is exposed: what it signed does not come out.
Ranking belongs to the broker's room, so that its replay is handed in; deciding again is Cedar's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from receipts.statements.fields import RECORD, PolicyDecision
from receipts.statements.receipt import AcknowledgementReceipt, ExecutionReceipt, PlacementReceipt
from receipts.verify.attested import Appraised
from receipts.verify.authentic import Authentic, Case
from receipts.verify.claim import Claim, asserted, failed, inapplicable, proved
from schemas.errors import ComityError, Refused, Undecided
from schemas.policy.layers import Decision
from schemas.policy.policy_set import PolicySet
from schemas.policy.replay import DecisionRecord, replay


@dataclass(frozen=True, slots=True)
class Ranked:
    """One plan of a ranking that was computed again."""

    key: str
    """Domain, blank, what it offers: the plan's name within the decision."""
    score: Decimal
    terms: Mapping[str, Decimal]
    """By the names that an objective has in a receipt."""


Rerank: TypeAlias = Callable[[bytes], Sequence[Ranked]]
"""Stored inputs of a ranking → the order that they lead to, best first. Raises `ComityError`."""


def policy_claim(receipt: Authentic, case: Case, appraised: Appraised | None) -> Claim:
    """`policy`: the same rules over the same facts give the same verdict, rule by rule."""
    body = receipt.body
    if isinstance(body, AcknowledgementReceipt):
        return inapplicable("policy", "an Acknowledgement decides nothing")
    ran = isinstance(body, ExecutionReceipt) and body.outcome in ("ok", "partial")
    if ran and body.policy.verdict != "allow":
        return _contradiction(f"ran although its policy says {body.policy.verdict}")
    denied = [layer.layer for layer in body.policy.layers if layer.verdict != "allow"]
    if body.policy.verdict == "allow" and denied:
        return _contradiction(f"allowed although the {denied[0]} layer does not")
    layers = ", ".join(layer.layer for layer in body.policy.layers) or "no layer"
    said = f"{body.policy.verdict} by {layers}"
    try:
        stored = _check_stated(_record(body.policy, case), body.policy)
        decision = replay(stored, texts=_texts(case))
        _check_same(body, stored, decision, appraised, case.held.policy_digest)
    except Undecided as error:
        return asserted("policy", body.issuer, f"{said}; not replayed: {error.text}")
    except ComityError as error:
        return failed("policy", error)
    own = {layer.layer for layer in decision.layer_verdicts}
    words = sorted({layer.layer for layer in body.policy.layers} - own)
    by_word = f"; the {words[0]}'s own layer is its signed offer" if words else ""
    return proved("policy", decision, f"{said}, decided again with {decision.engine}{by_word}")


def _record(policy: PolicyDecision, case: Case) -> DecisionRecord:
    """The facts behind a decision, found by the digest that the receipt names. Raises `ComityError`."""
    named = [text.removeprefix(RECORD) for text in policy.properties if text.startswith(RECORD)]
    if len(named) != 1:
        raise Undecided("verify.no_record", "the receipt names no record of its facts")
    try:
        data = case.bundle.blobs.get(bytes.fromhex(named[0]))
    except ValueError:
        raise Refused("verify.record", "the name of the record is no digest") from None
    if data is None:
        raise Undecided("verify.record_absent", "the record of its facts is not in the bundle")
    return DecisionRecord.read(data)


def _check_stated(stored: DecisionRecord, policy: PolicyDecision) -> DecisionRecord:
    """The record is of what was signed: each set with its verdict and rules. Raises `Refused`."""
    stated = {(each.layer, each.digest): (each.verdict, sorted(each.rules)) for each in policy.layers}
    for entry in stored.sets:
        if stated.get((entry.layer, entry.digest)) != (entry.verdict, sorted(entry.rules)):
            raise Refused(
                "verify.policy_replay", f"the {entry.layer} layer is on record otherwise than signed"
            )
    return stored


def _texts(case: Case) -> dict[str, str]:
    """Digest → text of every policy set in the bundle: a set is what its rules are, not its file's name."""
    found: dict[str, str] = {}
    for data in case.bundle.policies:
        text = data.decode("utf-8", "replace")
        found[PolicySet.load(text, "set").digest] = text
    return found


def _check_same(
    body: PlacementReceipt | ExecutionReceipt,
    stored: DecisionRecord,
    decision: Decision,
    appraised: Appraised | None,
    pinned: str | None,
) -> Decision:
    """What was decided again is what the receipt states, over facts that fit it. Raises `Refused`."""
    if decision.verdict != "allow" and body.policy.verdict == "allow":
        raise Refused("verify.policy_replay", f"{decision.verdict} when decided again")
    plan = body.plan if isinstance(body, PlacementReceipt) else None
    if plan and (stored.request.consumer, stored.domain.domain) != (body.issuer, plan.domain):
        raise Refused("verify.policy_facts", "the facts are of another consumer or provider")
    if pinned and any(entry.layer == "charter" and entry.digest != pinned for entry in stored.sets):
        raise Refused("verify.policy_pinned", "decided under other rules than the charter names")
    if appraised is not None:
        _check_facts(stored, appraised)
    return decision


def _check_facts(stored: DecisionRecord, appraised: Appraised) -> DecisionRecord:
    """TEE facts come from evidence alone: what the appraisal made here says must be what was decided over."""
    for node in appraised.nodes:
        facts = (node.simulated, node.debug, node.assurance, node.binding_mode)
        said = stored.attested
        if facts != (said.simulated, said.debug_allowed, said.assurance, said.binding_mode):
            raise Refused("verify.policy_facts", "decided over other hardware than the evidence shows")
    return stored


def plan_choice_claim(receipt: Authentic, case: Case, rerank: Rerank | None) -> Claim:
    """`plan-choice`: the inputs lead to the scores and to the order that the receipt states."""
    if not isinstance(receipt.body, PlacementReceipt):
        return inapplicable("plan-choice", "only a Placement chooses")
    body, considered = receipt.body, receipt.body.considered
    if considered.selected_index is None:
        return inapplicable("plan-choice", f"refused: none of {considered.count} was allowed")
    if considered.selected_index >= considered.count:
        return failed("plan-choice", Refused("verify.considered", "the selected plan is not in the set"))
    text = f"number {considered.selected_index} of {considered.count}"
    data = case.bundle.blobs.get(bytes.fromhex(body.inputs.costs)) if body.inputs.costs else None
    if data is None or rerank is None:
        why = "its inputs are not in the bundle" if data is None else "nobody here can rank"
        return asserted("plan-choice", body.issuer, f"{text}; not scored again: {why}")
    try:
        order = rerank(data)
        chosen = _check_ranked(body, considered.selected_index, order)
    except ComityError as error:
        return failed("plan-choice", error)
    if considered.selected_index > 0:
        better = f"{considered.selected_index} better ones made no usable offer, says {body.issuer}"
        return asserted("plan-choice", body.issuer, f"{text}, J {chosen.score} scored again; {better}")
    return proved(
        "plan-choice", chosen, f"the best of {len(order)} allowed plans, J {chosen.score} scored again"
    )


def _check_ranked(body: PlacementReceipt, index: int, order: Sequence[Ranked]) -> Ranked:
    """The plan at this place, if its score and terms are the ones that were signed. Raises `Refused`."""
    if index >= len(order) or len(order) > body.considered.count:
        raise Refused("verify.ranking", "the ranking has another number of plans than was signed")
    chosen, objective, plan = order[index], body.objective, body.plan
    if plan is None or chosen.key.partition(" ")[0] != plan.domain:
        raise Refused("verify.ranking", f"ranked again, number {index} is {chosen.key:.120}")
    if objective is None or Decimal(objective.score) != chosen.score:
        raise Refused("verify.score", f"scored again, J is {chosen.score}")
    for name, value in objective.terms.as_json().items():
        if Decimal(str(value)) != chosen.terms.get(name, Decimal(0)):
            raise Refused("verify.score", f"scored again, the term {name} is {chosen.terms.get(name)}")
    return chosen


def _contradiction(text: str) -> Claim:
    return failed("policy", Refused("verify.policy", text))
