"""Claim `content`: what was disclosed is what was committed to, and what stands concealed in the receipt."""

from __future__ import annotations

from receipts.bundle import Disclosures
from receipts.counted import counted
from receipts.disclosure import open_commitment, reveal
from receipts.statements.receipt import PlacementReceipt
from receipts.verify.authentic import Authentic, Case
from receipts.verify.claim import Claim, failed, not_checked, proved
from schemas.errors import ComityError, Refused, Undecided


def content_claim(receipt: Authentic, case: Case) -> Claim:
    """Open every commitment and salted field that the bundle discloses of this receipt."""
    disclosed = case.bundle.disclosures.get(receipt.body.receipt_id, Disclosures())
    if not disclosed.opened and not disclosed.shown:
        return not_checked("content", "no content was disclosed")
    try:
        opened = [_open(receipt, each.field, each.key, each.value, case) for each in disclosed.opened]
        names = [reveal(text, receipt.body.sd or ())[0] for text in disclosed.shown]
    except Undecided as error:
        return not_checked("content", error.text, error.code)
    except ComityError as error:
        return failed("content", error)
    return proved("content", (opened, names), f"opened: {', '.join([*opened, *names])}")


def _open(receipt: Authentic, field: str, key: str, value: str, case: Case) -> str:
    """The name of the field when it opens. Raises `Refused`, or `Undecided` without the value."""
    data = case.bundle.blobs.get(bytes.fromhex(value))
    if data is None:
        raise Undecided("verify.content_absent", f"the {field} is not in the bundle")
    body = receipt.body
    if field == "request":
        commitment = body.request.commitment
    elif isinstance(body, PlacementReceipt) or body.response is None:
        raise Refused("verify.content", "this receipt commits to no response")
    else:
        commitment = body.response.commitment
    open_commitment(bytes.fromhex(commitment), bytes.fromhex(key), data)
    return f"{field} ({counted(len(data), 'byte')})"
