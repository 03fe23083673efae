"""`policy` and `plan-choice` of one receipt in a bundle."""

from __future__ import annotations

from receipts.bundle import Disclosures
from receipts.statements.receipt import AcknowledgementReceipt, ExecutionReceipt, PlacementReceipt
from receipts.verify.attested import Appraised
from receipts.verify.authentic import Authentic, Case
from receipts.verify.claim import Claim, asserted, failed, inapplicable, proved
from receipts.verify.replay.choice import choose_again
from receipts.verify.replay.policy import Material, decide_again, record_of
from receipts.verify.replay.refusal import refuse_again
from receipts.verify.replay.selection import Selection
from schemas.errors import ComityError, Refused, Undecided
from schemas.policy.policy_set import PolicySet
from schemas.policy.replay import DecisionRecord


def material_of(case: Case) -> Material:
    """What the bundle brings: a policy set is what its rules are, not its file's name."""
    texts: dict[str, str] = {}
    for data in case.bundle.policies:
        text = data.decode("utf-8", "replace")
        texts[PolicySet.load(text, "set").digest] = text
    return Material(case.bundle.blobs.get, texts, case.held)


def policy_claim(
    receipt: Authentic, case: Case, appraised: Appraised | None, selection: Selection | None
) -> Claim:
    """`policy`: the same rules over the same facts give the same decision, field by field."""
    body = receipt.body
    if isinstance(body, AcknowledgementReceipt):
        return inapplicable("policy", "an Acknowledgement decides nothing")
    if isinstance(body, PlacementReceipt) and body.refused:
        return _refusal_claim(body, case, selection)
    layers = ", ".join(layer.layer for layer in body.policy.layers) or "no layer"
    said = f"{body.policy.verdict} by {layers}"
    try:
        check_consistent(body)
        material = material_of(case)
        decision = decide_again(body, material)
        if appraised is not None:
            _check_hardware(record_of(body.policy, material), appraised)
    except Undecided as error:
        return asserted("policy", body.issuer, f"{said}; not replayed: {error.text}")
    except ComityError as error:
        return failed("policy", error)
    foreign = isinstance(body, PlacementReceipt) and body.plan and body.plan.domain != body.issuer
    by_word = "; the provider's own layer is its signed offer" if foreign else ""
    return proved("policy", decision, f"{said}, decided again with {decision.engine}{by_word}")


def _refusal_claim(body: PlacementReceipt, case: Case, selection: Selection | None) -> Claim:
    """`policy` of a refusal: the same offers under the same rules leave nobody."""
    said = f"refused: none of {body.considered.count} was allowed"
    if selection is None:
        return asserted("policy", body.issuer, f"{said}; not cut again: nobody here can")
    disclosed = case.bundle.disclosures.get(body.receipt_id, Disclosures())
    try:
        cut = refuse_again(body, disclosed, material_of(case), selection.recut)
    except Undecided as error:
        return asserted("policy", body.issuer, f"{said}; not cut again: {error.text}")
    except ComityError as error:
        return failed("policy", error)
    rules = ", ".join(cut.binding) or "nothing was on offer"
    if cut.on_word:
        text = f"{said}, cut again: {rules}; {len(cut.on_word)} fell only by what {body.issuer} measured"
        return asserted("policy", body.issuer, text)
    return proved("policy", cut, f"{said}, cut again: {rules}")


def check_consistent(body: PlacementReceipt | ExecutionReceipt) -> str:
    """Return the verdict if it fits its layers and what was done. Raises `Refused`."""
    denied = [layer.layer for layer in body.policy.layers if layer.verdict != "allow"]
    ran = isinstance(body, ExecutionReceipt) and body.outcome in ("ok", "partial")
    if ran and body.policy.verdict != "allow":
        raise Refused("verify.policy", f"ran although its policy says {body.policy.verdict}")
    if body.policy.verdict == "allow" and denied:
        raise Refused("verify.policy", f"allowed although the {denied[0]} layer does not")
    return body.policy.verdict


def _check_hardware(data: bytes, appraised: Appraised) -> None:
    """TEE facts come from evidence alone: what the appraisal made here says must be what was decided over."""
    said = DecisionRecord.read(data).attested
    for node in appraised.nodes:
        gpu = node.confidential_gpus > 0
        facts = (node.simulated, node.debug, node.assurance, node.binding_mode, gpu)
        stated = (said.simulated, said.debug_allowed, said.assurance, said.binding_mode)
        if facts != (*stated, said.confidential_gpu):
            raise Refused("verify.policy_facts", "decided over other hardware than the evidence shows")


def plan_choice_claim(receipt: Authentic, case: Case, selection: Selection | None) -> Claim:
    """`plan-choice`: the inputs lead to the scores and to the order that the receipt states."""
    body = receipt.body
    if not isinstance(body, PlacementReceipt):
        return inapplicable("plan-choice", "only a Placement chooses")
    index, count = body.considered.selected_index, body.considered.count
    if index is None:
        return inapplicable("plan-choice", f"refused: none of {count} was taken; `policy` says why")
    if index >= count:
        return failed("plan-choice", Refused("verify.considered", "the selected plan is not in the set"))
    text = f"number {index} of {count}"
    if selection is None:
        return asserted("plan-choice", body.issuer, f"{text}; not scored again: nobody here can rank")
    disclosed = case.bundle.disclosures.get(body.receipt_id, Disclosures())
    try:
        chosen = choose_again(body, disclosed, material_of(case), selection.rerank)
    except Undecided as error:
        return asserted("plan-choice", body.issuer, f"{text}; not scored again: {error.text}")
    except ComityError as error:
        return failed("plan-choice", error)
    if chosen.index > 0:
        better = f"{chosen.index} better ones made no usable offer, says {body.issuer}"
        scored = f"J {chosen.ranked.score} scored again"
        return asserted("plan-choice", body.issuer, f"{text}, {scored}; {better}")
    text = f"the best of {chosen.of} allowed plans, J {chosen.ranked.score} scored again"
    return proved("plan-choice", chosen, text)
