"""The salted list of candidates behind a Placement: is it the signed one, and what stands in it?"""

from __future__ import annotations

import json
from typing import Final

from receipts.bundle import Disclosures
from receipts.statements.receipt import PlacementReceipt
from receipts.verify.replay.policy import Material
from schemas import merkle
from schemas.canonical import Json, read_json
from schemas.errors import Refused, Unreadable

MAX_LISTING_BYTES: Final = 4 * 1024 * 1024  # some ten thousand candidates with their reasons


def candidates(body: PlacementReceipt, disclosed: Disclosures, material: Material) -> list[dict[str, Json]]:
    """Every candidate that was looked at, in order, if the list is the one that was signed.

    Raises `Undecided` (`verify.inputs_absent`), `Refused` (`verify.considered`) or `Unreadable`.
    """
    salted = _listing(material.needed(disclosed.considered, "list of its candidates"))
    root = merkle.root([merkle.leaf_hash(item) for item in salted])
    if (root.hex(), len(salted)) != (body.considered.root, body.considered.count):
        raise Refused("verify.considered", "the list of candidates is not the signed one")
    return [_candidate(item) for item in salted]


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
