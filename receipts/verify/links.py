"""Do the statements of one request belong together? Links, the node's own word, sequences, usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from receipts.counted import counted
from receipts.statements.node import NodeStatement, parse_node_statement, verify_node_statement
from receipts.statements.receipt import (
    AcknowledgementReceipt,
    ExecutionReceipt,
    PlacementReceipt,
    Receipt,
)
from receipts.statements.statement import Statement
from receipts.verify.attested import Appraised
from receipts.verify.authentic import Authentic
from receipts.verify.claim import Claim, ClaimName, asserted, failed, inapplicable, not_checked, proved
from receipts.verify.convicted import Caught
from schemas import envelope
from schemas.errors import ComityError, Refused, Undecided


@dataclass(frozen=True, slots=True)
class Context:
    """All authentic receipts of the bundle, and the node statements beside them."""

    receipts: Sequence[Authentic]
    node_statements: Mapping[bytes, bytes]

    def find(self, digest: str) -> Authentic | None:
        return next((each for each in self.receipts if each.digest.hex() == digest), None)


def links(receipt: Authentic, context: Context, appraised: Appraised | None) -> list[Claim]:
    """`placement-link`, `execution-link` and `ack-link` of one receipt."""
    match receipt.body:
        case PlacementReceipt() as body:
            refused = inapplicable("execution-link", "refused: nothing was to run")
            return [
                inapplicable("placement-link", "this is the Placement"),
                refused if body.refused else answered(receipt, context),
                _acknowledged(receipt, context),
            ]
        case ExecutionReceipt() as body:
            return [
                _linked("placement-link", "placement", body, PlacementReceipt, context),
                _node_link(body, context, appraised),
                _acknowledged(receipt, context),
            ]
        case AcknowledgementReceipt() as body:
            placement = _linked("placement-link", "placement", body, PlacementReceipt, context)
            execution = _linked("execution-link", "execution", body, ExecutionReceipt, context)
            return [placement, execution, _ack_link(body, placement, execution, context)]


def _linked(name: ClaimName, rel: str, body: Receipt, model: type[Receipt], context: Context) -> Claim:
    """The receipt that `body` links to as `rel`, present and authentic."""
    wanted = [link.digest for link in body.links if link.rel == rel]
    if not wanted:
        unnamed = [each for each in context.receipts if isinstance(each.body, model)]
        if any(each.body.request.id == body.request.id for each in unnamed):
            return failed(name, Refused("verify.link_missing", f"names no {rel} though there is one"))
        return not_checked(name, f"names no {rel}", "verify.link_missing")
    found = context.find(wanted[0])
    if found is None:
        return not_checked(name, f"the {rel} is not in the bundle or not valid", "verify.link_absent")
    try:
        return proved(name, check_pair(body, found.body, model), f"{rel} by {found.body.issuer}")
    except Refused as error:
        return failed(name, error)


def check_pair(body: Receipt, other: Receipt, model: type[Receipt]) -> Receipt:
    """Return the linked receipt if it is of the right kind and about the same request. Raises `Refused`."""
    if not isinstance(other, model):
        raise Refused("verify.link_kind", "links to another kind of receipt")
    if other.request.id != body.request.id or other.request.commitment != body.request.commitment:
        raise Refused("verify.link_request", "the linked receipt is about another request")
    if isinstance(other, PlacementReceipt) and isinstance(body, ExecutionReceipt):
        expected = other.executor.domain if other.executor else "nobody"
        if body.issuer != expected:
            raise Refused("verify.link_executor", f"{expected} was to execute, not {body.issuer}")
        if body.peer != other.issuer:
            raise Refused("verify.link_peer", f"executed for {body.peer}, placed by {other.issuer}")
        if body.policy.input_commitment != other.policy.input_commitment:
            raise Refused("verify.link_policy", "decided over other policy tags than it was placed with")
    if isinstance(body, AcknowledgementReceipt):
        asked = other.issuer if isinstance(other, PlacementReceipt) else other.peer
        if body.issuer != asked:
            raise Refused("verify.link_requester", f"{asked} asked for this run, not {body.issuer}")
    return other


def answered(receipt: Authentic, context: Context) -> Claim:
    """A Placement wants its Execution: one that is withheld must show."""
    digest = receipt.digest.hex()
    for other in context.receipts:
        named = [link.digest for link in other.body.links if link.rel == "placement"]
        if isinstance(other.body, ExecutionReceipt) and digest in named:
            text = f"executed by {other.body.issuer}: {other.body.outcome}"
            try:
                check_pair(other.body, receipt.body, PlacementReceipt)
            except Refused as error:
                return failed("execution-link", error)
            return proved("execution-link", other, text)
    return not_checked("execution-link", "no valid Execution in the bundle: withheld, lost or never run",
                       "verify.execution_absent")  # fmt: skip


def _acknowledged(receipt: Authentic, context: Context) -> Claim:
    for body in _acknowledgements(receipt, context):
        return proved("ack-link", body, f"acknowledged by {body.issuer}: {body.status}")
    return inapplicable("ack-link", "no acknowledgement in the bundle")


def usage(receipt: Authentic, context: Context) -> Claim:
    """Claim `usage`: counters are the word of who was paid to run, until who asked for the run agrees."""
    body = receipt.body
    if not isinstance(body, ExecutionReceipt):
        return inapplicable("usage", "only an Execution counts")
    counted = f"{body.usage.input_tokens} + {body.usage.output_tokens} tokens"
    said = _acknowledgements(receipt, context)
    agreed = [each for each in said if each.usage_agreed is not None]
    for each in agreed:
        if each.usage_agreed != body.usage:
            return failed("usage", Refused("verify.usage", f"{each.issuer} agreed to other counters"))
    if agreed:
        return proved("usage", agreed, f"{counted}, agreed by {agreed[0].issuer}")
    disputed = "".join(f", disputed by {each.issuer}: {each.dispute.code}" for each in said if each.dispute)
    return asserted("usage", body.issuer, counted + disputed)


def _acknowledgements(receipt: Authentic, context: Context) -> list[AcknowledgementReceipt]:
    """What the domain that asked for a run said of it; what others say there is a failure of their own."""
    rel = "placement" if isinstance(receipt.body, PlacementReceipt) else "execution"
    wanted = (rel, receipt.digest.hex())
    found: list[AcknowledgementReceipt] = []
    for other in context.receipts:
        named = [(link.rel, link.digest) for link in other.body.links]
        if isinstance(other.body, AcknowledgementReceipt) and wanted in named:
            with suppress(Refused):
                check_pair(other.body, receipt.body, type(receipt.body))
                found.append(other.body)
    return found


def _ack_link(body: AcknowledgementReceipt, placement: Claim, execution: Claim, context: Context) -> Claim:
    """A dispute is told, and proves nothing: a profile that requires this claim leaves it undecided."""
    if body.status not in ("agreed", "timeout"):
        return asserted("ack-link", body.issuer, f"status {body.status}")
    for part in (placement, execution):
        if part.verdict == "failed":
            return Claim("ack-link", "failed", part.text, code=part.code)
        if part.verdict != "proved":
            return not_checked("ack-link", part.text, part.code)
    if body.status == "timeout":
        return proved("ack-link", body, "links both; no complete answer arrived, and nothing is agreed")
    executed = next(context.find(link.digest) for link in body.links if link.rel == "execution")
    try:
        return proved("ack-link", check_agreed(body, executed), "links both, and agrees on the output")
    except Refused as error:
        return failed("ack-link", error)


def check_agreed(body: AcknowledgementReceipt, executed: Authentic | None) -> ExecutionReceipt:
    """What arrived is what was executed. Raises `Refused`."""
    if executed is None or not isinstance(executed.body, ExecutionReceipt):
        raise Refused("verify.link_kind", "links to another kind of receipt")
    if body.response != executed.body.response:
        raise Refused("verify.response", "agreed to another output than was executed")
    return executed.body


def _node_link(body: ExecutionReceipt, context: Context, appraised: Appraised | None) -> Claim:
    """The NodeStatement behind an Execution, under a key that an appraisal made here vouches for."""
    try:
        statement = node_statement(body, context, appraised)
    except Undecided as error:
        if error.code == "verify.node_key_unknown":
            return asserted("execution-link", body.issuer, error.text)
        if error.code == "verify.node_link":
            return inapplicable("execution-link", error.text)
        return not_checked("execution-link", error.text, error.code)
    except ComityError as error:
        return failed("execution-link", error)
    return proved("execution-link", statement, f"the node itself says: {statement.body.outcome}")


def node_statement(
    body: ExecutionReceipt, context: Context, appraised: Appraised | None
) -> Statement[NodeStatement]:
    """The linked statement, verified and in agreement with the Execution.

    Raises `Undecided` for what is missing, `Refused` for what contradicts.
    """
    wanted = [link.digest for link in body.links if link.rel == "node"]
    if not wanted:
        if body.outcome in ("ok", "partial"):
            raise Refused("verify.node_link", f"outcome {body.outcome} without a NodeStatement")
        raise Undecided("verify.node_link", f"no NodeStatement: {body.outcome} ({body.code})")
    data = context.node_statements.get(bytes.fromhex(wanted[0]))
    if data is None:
        raise Undecided("verify.node_statement_absent", "the NodeStatement is not in the bundle")
    check_same_run(body, parse_node_statement(envelope.read(data).payload))
    if appraised is None:
        raise Undecided(
            "verify.node_key_unknown", "present and in agreement, but no appraisal vouches for its key"
        )
    named = {node.id for node in body.nodes}
    key = next((key for key in appraised.sign_keys if key.thumbprint in named), None)
    if key is None:
        raise Refused("verify.node_key", "no appraised node is named in the Execution")
    return verify_node_statement(data, key)


def check_same_run(body: ExecutionReceipt, said: NodeStatement) -> NodeStatement:
    """The Execution repeats what the node says, no better and no worse. Raises `Refused`."""
    if (said.domain, said.federation) != (body.issuer, body.federation):
        raise Refused("verify.node_domain", f"a statement for {said.domain}, not for {body.issuer}")
    if said.node_key not in {node.id for node in body.nodes}:
        raise Refused("verify.node_key", "the statement's node is not named in the Execution")
    if body.response is None or said.response != body.response:
        raise Refused("verify.response", "the node commits to another output")
    if said.usage != body.usage:
        raise Refused("verify.usage", "the node counts other usage")
    if said.capability != body.capability:
        raise Refused("verify.capability", "the node ran another capability")
    if body.outcome == "ok" and said.outcome != "ok":
        raise Refused("verify.outcome", f"the Execution says ok, the node says {said.outcome}")
    return said


def sequence(receipt: Authentic, context: Context, caught: Caught) -> list[Claim]:
    """`sequence` and `not-equivocated`, as far as the bundle shows them."""
    mine = [
        each
        for each in context.receipts
        if (each.body.issuer, each.body.peer) == (receipt.body.issuer, receipt.body.peer)
    ]
    twins = [each for each in mine if each.body.seq == receipt.body.seq and each.digest != receipt.digest]
    if twins:
        error = Refused(
            "verify.equivocation", f"two receipts to {receipt.body.peer} numbered {receipt.body.seq}"
        )
        return [failed("sequence", error), failed("not-equivocated", error)]
    unknown = _not_convicted(receipt, caught)
    if receipt.body.seq == 0:
        return [proved("sequence", receipt, f"number 0: the first to {receipt.body.peer}"), unknown]
    before = next((each for each in mine if each.body.seq == receipt.body.seq - 1), None)
    if before is None:
        return [not_checked("sequence", f"number {receipt.body.seq} to {receipt.body.peer}; its predecessor "
                            "is not in the bundle", "verify.predecessor_absent"), unknown]  # fmt: skip
    if receipt.body.prev != before.digest.hex():
        error = Refused("verify.sequence", f"`prev` is not the receipt numbered {before.body.seq}")
        return [failed("sequence", error), unknown]
    return [proved("sequence", before, f"follows number {before.body.seq}"), unknown]


def _not_convicted(receipt: Authentic, caught: Caught) -> Claim:
    """A log that showed two histories is distrusted from the smaller size on (receipts.md 12).

    What was proven under a smaller checkpoint stays good: both histories contain that tree or contradict
    it at a size of their own.
    """
    name: ClaimName = "not-equivocated"
    size = receipt.logged.checkpoint.checkpoint.size if receipt.logged else None
    for each in caught.convicted:
        issuer = each.origin is None and each.accused == receipt.body.issuer
        log = each.origin == receipt.body.log.origin and each.from_size is not None
        if issuer or (log and (size is None or size >= (each.from_size or 0))):
            return failed(name, Refused("verify.equivocation", each.text))
    known = f"; {len(caught.convicted)} of others, or above this checkpoint" if caught.convicted else ""
    if caught.open:
        known += (
            f"; {counted(caught.open, 'that rests', 'that rest')} on witnesses whom this quorum does not hear"
        )
    return not_checked(name, f"none known to this verifier{known}")
