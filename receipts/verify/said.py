"""Claims that rest on somebody's word so far: each says whose, none is shown as good."""

from __future__ import annotations

from receipts.statements.receipt import AcknowledgementReceipt, ExecutionReceipt, PlacementReceipt
from receipts.verify.attested import Appraised
from receipts.verify.authentic import Authentic
from receipts.verify.claim import Claim, asserted, failed, inapplicable, not_checked, proved
from receipts.verify.links import Context
from schemas.errors import Refused


def said(receipt: Authentic, context: Context, appraised: Appraised | None) -> list[Claim]:
    """Everything that a receipt states beyond signature, log, links and attestation."""
    return [
        not_checked("anchored", "anchor: none"),
        not_checked("complete", "needs both domains' whole logs"),
        _capability(receipt, appraised),
        _usage(receipt, context),
        _cache(receipt),
    ]


def _capability(receipt: Authentic, appraised: Appraised | None) -> Claim:
    """What ran. The node hashes its model file at load; who made the model is not shown by that."""
    match receipt.body:
        case PlacementReceipt() as body:
            return asserted("capability", body.issuer, f"asked for {body.capability.name}")
        case ExecutionReceipt() as body:
            name, digest = body.capability.name, body.capability.artifact_digest
            if appraised is None:
                return asserted("capability", body.issuer, f"ran {name}")
            hashed = {model for node in appraised.nodes for model in node.models.values()}
            if digest is None or digest not in hashed:
                return failed(
                    "capability", Refused("verify.model", "no appraised node has this model loaded")
                )
            return asserted("capability", "node", f"ran {name}, model {digest[:16]}… as the node hashed it")
        case AcknowledgementReceipt():
            return inapplicable("capability", "an Acknowledgement names no capability")


def _usage(receipt: Authentic, context: Context) -> Claim:
    body = receipt.body
    if not isinstance(body, ExecutionReceipt):
        return inapplicable("usage", "only an Execution counts")
    counted = f"{body.usage.input_tokens} + {body.usage.output_tokens} tokens"
    for other in context.receipts:
        links = {link.digest for link in other.body.links if link.rel == "execution"}
        if isinstance(other.body, AcknowledgementReceipt) and receipt.digest.hex() in links:
            if other.body.usage_agreed is None:
                break
            if other.body.usage_agreed != body.usage:
                return failed(
                    "usage", Refused("verify.usage", f"{other.body.issuer} agreed to other counters")
                )
            return proved("usage", other, f"{counted}, agreed by {other.body.issuer}")
    return asserted("usage", body.issuer, counted)


def _cache(receipt: Authentic) -> Claim:
    if not isinstance(receipt.body, ExecutionReceipt) or receipt.body.cache is None:
        return inapplicable("cache", "states no use of a cache")
    cache = receipt.body.cache
    return asserted("cache", receipt.body.issuer, f"{cache.hit}, scope {cache.scope}")
