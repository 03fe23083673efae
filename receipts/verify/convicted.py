"""Who was caught saying two things: by documents in the bundle, or by the bundle's own checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from receipts import checkpoint, proof
from receipts.bundle import Bundle
from receipts.cosignature import CosignerKey
from receipts.verify.authentic import Case
from receipts.verify.jury import Jury
from receipts.verify.pinned import PinnedTrust
from receipts.witnessing import equivocation
from receipts.witnessing.equivocation import Conviction, Equivocation
from schemas.errors import ComityError, Refused, Undecided
from schemas.keys import VerifyKey
from schemas.papers.manifest import Role


@dataclass(frozen=True, slots=True)
class Caught:
    """What the documents at hand show."""

    convicted: tuple[Conviction, ...]
    open: int
    """Documents under the accused's own signatures that convict nobody before this reader's quorum."""


def convictions(case: Case) -> Caught:
    """Every log and issuer that is convicted under the keys held here; what convicts nobody is passed over.

    Witnesses are none of it: that one cosigned two histories says nothing of the log's own honesty.
    """
    documents = [each for each in (*_brought(case.bundle), *_own(case)) if each.kind != "witness"]
    jury = Jury(case.at, case.trust)
    found: list[Conviction] = []
    unheard = 0
    for document in documents:
        try:
            found.append(convict(document, case.held, jury))
        except Undecided:
            unheard += 1
        except ComityError:
            continue
    return Caught(tuple(found), unheard)


def without_the_caught(held: PinnedTrust, bundle: Bundle) -> PinnedTrust:
    """The same trust without the voices of witnesses that a document in the bundle convicts."""
    documents = [each for each in _brought(bundle) if each.kind == "witness"]
    keys = [key for keys in held.witnesses().values() for key in keys]
    silenced = {
        key.raw
        for document in documents
        for key in keys
        if _held(partial(equivocation.convict_witness, document, key)) is not None
    }
    return replace(held, silenced=frozenset(silenced)) if silenced else held


def convict(document: Equivocation, held: PinnedTrust, jury: Jury | None) -> Conviction:
    """Under the keys of whoever it accuses, and of nobody else: no domain can convict another.

    `jury` is heard where a document rests on the hour; without one such a document is undecided. Raises
    `Refused` (`equivocation.nobody`); `Undecided` (`quorum.*`) where the accused's own signatures hold and
    too few that count saw it.
    """
    if jury is None and document.kind == "promise-late":
        raise Undecided("quorum.none", "nobody was named whose cosignatures count")
    open_: Undecided | None = None
    for judge in _judges(document, held, jury):
        try:
            return judge()
        except Undecided as error:
            open_ = open_ or error
        except ComityError:
            continue
    raise open_ or Refused("equivocation.nobody", "it convicts nobody under the keys held here")


def _judges(
    document: Equivocation, held: PinnedTrust, jury: Jury | None
) -> Iterator[Callable[[], Conviction]]:
    for domain, manifest in sorted(held.manifests.items()):
        yield partial(_of_issuer, document, domain, _keys(held, "receipt", domain))
        for log in manifest.logs:
            keys, promising = held.log_keys(domain, log.origin), _keys(held, "promise", domain)
            yield partial(equivocation.convict_log, document, keys)
            yield partial(equivocation.convict_promise, document, promising, keys)
            if jury is not None:
                heard = partial(jury.policy, held, domain, log.origin)
                yield partial(equivocation.convict_late, document, promising, keys, heard, jury.at)
        for witness in manifest.witnesses:
            yield partial(equivocation.convict_witness, document, CosignerKey.read(witness.vkey))


def _keys(held: PinnedTrust, role: Role, domain: str) -> list[VerifyKey]:
    return [each.key for each in held.registered(role) if each.domain == domain]


def _of_issuer(document: Equivocation, domain: str, keys: list[VerifyKey]) -> Conviction:
    found = equivocation.convict_issuer(document, keys)
    if found.accused != domain:
        raise Refused("equivocation.issuer", f"{domain} signed in the name of {found.accused}")
    return found


def _brought(bundle: Bundle) -> Iterator[Equivocation]:
    for data in bundle.equivocations:
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


def _held(judge: Callable[[], Conviction]) -> Conviction | None:
    """A conviction that holds; None for one that does not."""
    try:
        return judge()
    except ComityError:
        return None
