"""Nothing older than what was seen already (tdx.md 6, check 26): marks per document, pure.

Whoever keeps marks passes them in and stores what comes back. They hold a TCB info's and an identity's
evaluation number and issue date, and a CRL's date. Judging a past moment on purpose needs none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from attestation.result import Check, failed, not_evaluated, passed
from attestation.tdx.collateral.endorsed import Endorsed
from attestation.tdx.collateral.evaluations import Listed
from attestation.tdx.collateral.stated import QeIdentity, TcbInfo
from schemas.canonical import Json, read_json, write_json
from schemas.errors import Refused, Unreadable
from schemas.primitives import format_time, parse_time

MAX_MARKS_BYTES: Final = 1024 * 1024  # some thousand platforms
_NAME: Final = re.compile(r"[a-zA-Z0-9 _/.:-]{1,128}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Mark:
    """The newest that was seen under one name."""

    evaluation: int
    """0 for a CRL."""
    issued: float
    """POSIX seconds."""
    sha256: str
    """Of the document, in hex."""


Marks = Mapping[str, Mark]


def name_of(document: TcbInfo | QeIdentity, tee: str) -> str:
    """TCB info belongs to a platform's model, an identity to the TEE alone."""
    return f"{tee}/{document.fmspc.hex()}" if isinstance(document, TcbInfo) else f"{tee}/qe_identity"


def raised(marks: Marks, name: str, seen: Mark) -> dict[str, Mark]:
    """The marks with this document taken in. Raises `Refused` (`tdx.collateral_rollback`) if it is older."""
    known = marks.get(name)
    if known is not None:
        if seen.evaluation < known.evaluation:
            text = f"{name}: evaluation {seen.evaluation}, {known.evaluation} was seen"
            raise Refused("tdx.collateral_rollback", text)
        if seen.issued < known.issued:
            issued, newest = (
                format_time(datetime.fromtimestamp(t, UTC)) for t in (seen.issued, known.issued)
            )
            raise Refused("tdx.collateral_rollback", f"{name}: issued {issued}, {newest} was seen")
    return {**marks, name: seen}


def check_rollback(endorsed: Endorsed, listed: Listed, tee: str, marks: Marks) -> Check:
    """None of the documents in use is older than what the holder of the marks has seen."""
    name, wanted, clause = "tdx.collateral.rollback", "nothing older than what was seen", "tdx.md 6, check 26"
    documents = [each for each in (endorsed.tcb_info, endorsed.identity) if each is not None]
    used = {name_of(each, tee): Mark(each.evaluation, each.issued, "") for each in documents}
    if listed.early is not None:
        used[f"{tee}/evaluations"] = Mark(listed.early, listed.issued, "")
    try:
        for each, mark in used.items():
            raised(marks, each, mark)
    except Refused as error:
        return failed(name, error.code, error.text, wanted, clause)
    if not used:
        return not_evaluated(name, "no document is in use", clause)
    return passed(name, f"{len(used)} documents", wanted, clause)


def read_marks(data: bytes) -> dict[str, Mark]:
    """Marks as they were written. Raises `Unreadable` (`tdx.marks_malformed`)."""
    try:
        stated = read_json(data, limit=MAX_MARKS_BYTES)
    except Unreadable as error:
        raise _malformed(error.text) from None
    if not isinstance(stated, dict) or stated.keys() != {"marks"} or not isinstance(stated["marks"], dict):
        raise _malformed("no object with marks")
    return {name: _mark(name, each) for name, each in stated["marks"].items()}


def _mark(name: str, stated: Json) -> Mark:
    if not isinstance(stated, dict) or stated.keys() != {"evaluation", "issued", "sha256"}:
        raise _malformed(name[:64])
    evaluation, issued, digest = stated["evaluation"], stated["issued"], stated["sha256"]
    if not isinstance(evaluation, int) or isinstance(evaluation, bool) or not _NAME.fullmatch(name):
        raise _malformed(name[:64])
    if not isinstance(issued, str) or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise _malformed(name)
    try:
        return Mark(evaluation, parse_time(issued).timestamp(), digest)
    except Unreadable as error:
        raise _malformed(error.text) from None


def write_marks(marks: Marks) -> bytes:
    """The bytes that `read_marks` reads, in the order of names."""
    listed: dict[str, Json] = {
        name: {
            "evaluation": mark.evaluation,
            "issued": format_time(datetime.fromtimestamp(mark.issued, UTC)),
            "sha256": mark.sha256,
        }
        for name, mark in sorted(marks.items())
    }
    return write_json({"marks": listed})


def _malformed(why: str) -> Unreadable:
    return Unreadable("tdx.marks_malformed", why)
