"""Claims that rest on somebody's word: each says whose, and none is proved by that word alone."""

from __future__ import annotations

from collections.abc import Sequence

from receipts.model_signature import SignedModel
from receipts.statements.receipt import AcknowledgementReceipt, ExecutionReceipt, PlacementReceipt
from receipts.verify.attested import Appraised
from receipts.verify.authentic import Authentic
from receipts.verify.claim import Claim, asserted, failed, inapplicable, not_checked, proved
from receipts.verify.links import Context, answered, usage
from schemas.errors import Refused


def said(
    receipt: Authentic, context: Context, appraised: Appraised | None, models: Sequence[SignedModel]
) -> list[Claim]:
    """Everything that a receipt states beyond signature, log, links and attestation."""
    return [
        not_checked("anchored", "anchor: none"),
        not_checked("complete", "needs both domains' whole logs"),
        _capability(receipt, context, appraised, models),
        usage(receipt, context),
        _cache(receipt),
    ]


def _capability(
    receipt: Authentic, context: Context, appraised: Appraised | None, models: Sequence[SignedModel]
) -> Claim:
    """What ran: the node hashed its model file at load, and that file's maker signed it.

    Who made it is shown by a signature that the auditor holds, under a key of the auditor's own choice.
    """
    match receipt.body:
        case PlacementReceipt() as body:
            asked = f"asked for {body.capability.name}"
            if body.refused or answered(receipt, context).verdict == "proved":
                return inapplicable("capability", f"{asked}; what ran is the Execution's to show")
            return asserted("capability", body.issuer, asked)
        case ExecutionReceipt() as body:
            name, digest = body.capability.name, body.capability.artifact_digest
            if appraised is None:
                return asserted("capability", body.issuer, f"ran {name}")
            hashed = {model for node in appraised.nodes for model in node.models.values()}
            if digest is None or digest not in hashed:
                return failed(
                    "capability", Refused("verify.model", "no appraised node has this model loaded")
                )
            hashed_it = f"ran {name}, model {digest[:16]}… as the node hashed it"
            named = body.capability.model_signing_digest
            signed = next((each for each in models if each.digest == named), None)
            if signed is None:
                return asserted("capability", "node", hashed_it)
            try:
                text = f"{hashed_it}, signed as {signed.name:.80} by {signed.signer}"
                return proved("capability", signed.holds(digest), text)
            except Refused as error:
                return failed("capability", error)
        case AcknowledgementReceipt():
            return inapplicable("capability", "an Acknowledgement names no capability")


def _cache(receipt: Authentic) -> Claim:
    if not isinstance(receipt.body, ExecutionReceipt) or receipt.body.cache is None:
        return inapplicable("cache", "states no use of a cache")
    cache = receipt.body.cache
    return asserted("cache", receipt.body.issuer, f"{cache.hit}, scope {cache.scope}")
