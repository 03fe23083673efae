"""Who was caught saying two things: by documents in the bundle, or by the bundle's own checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from receipts import checkpoint, proof
from receipts.verify.authentic import Case
from receipts.witnessing import equivocation
from receipts.witnessing.equivocation import Conviction, Equivocation
from schemas.errors import ComityError


def convictions(case: Case) -> list[Conviction]:
    """Everything that convicts under the keys held here; a document that convicts nobody is passed over."""
    documents = [*_brought(case), *_own(case)]
    return [each for document in documents if (each := _convict(document, case)) is not None]


def _brought(case: Case) -> Iterator[Equivocation]:
    for data in case.bundle.equivocations:
        try:
            yield equivocation.read(data)
        except ComityError:
            continue


def _own(case: Case) -> Iterator[Equivocation]:
    """Two checkpoints of one log in the same bundle that state two roots for one size."""
    seen: dict[tuple[str, int], bytes] = {}
    for text in case.bundle.proofs.values():
        try:
            note = proof.read(text).note
            stated = checkpoint.read(note).checkpoint
        except ComityError:
            continue
        first = seen.setdefault((stated.origin, stated.size), note)
        if (document := equivocation.between(first, note)) is not None:
            yield document


def _convict(document: Equivocation, case: Case) -> Conviction | None:
    """Under the keys of whoever it accuses, and of nobody else: no domain can convict another.

    A witness that cosigned two histories loses its voice, but that says nothing of the log's honesty.
    """
    for domain, manifest in sorted(case.held.manifests.items()):
        if document.kind == "issuer":
            own = [each.key for each in case.held.registered("receipt") if each.domain == domain]
            found = _held(lambda own=own: equivocation.convict_issuer(document, own))  # type: ignore[misc]
            if found is not None and found.accused == domain:
                return found
        for log in manifest.logs:
            keys = case.held.log_keys(domain, log.origin)
            found = _held(lambda keys=keys: equivocation.convict_log(document, keys))  # type: ignore[misc]
            if found is not None:
                return found
    return None


def _held(judge: Callable[[], Conviction]) -> Conviction | None:
    """A conviction that holds; None for one that does not."""
    try:
        return judge()
    except ComityError:
        return None
