"""Is each receipt what its issuer signed, under a key that may sign it, and is it in the log?

Claims `signature`, `schema`, `issuer-key`, `logged`. A receipt whose signature does not hold says
nothing: nothing of its content is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from receipts import proof
from receipts.bundle import Bundle
from receipts.checkpoint import SignedCheckpoint
from receipts.cosignature import CosignerKey
from receipts.proof import Logged
from receipts.statements.node import NODE_STATEMENT
from receipts.statements.promise import INCLUSION_PROMISE, InclusionPromise, is_due, read_promise
from receipts.statements.receipt import ACKNOWLEDGEMENT, EXECUTION, KINDS, MODELS, PLACEMENT, Receipt
from receipts.statements.statement import Statement, parse_receipt, receipt_kind
from receipts.verify.claim import Claim, asserted, failed, not_checked, proved
from receipts.verify.pinned import PinnedTrust, Registered
from receipts.verify.trust_file import TrustFile
from receipts.verify.witnessed import Watched, time_claim, witnessed
from schemas import envelope
from schemas.envelope import Verified
from schemas.errors import ComityError, Refused, Unreadable
from schemas.primitives import format_time, parse_time

WORDS: Final = {PLACEMENT: "placement", EXECUTION: "execution", ACKNOWLEDGEMENT: "acknowledgement"}


@dataclass(frozen=True, slots=True)
class Authentic:
    """A receipt that its issuer signed, strictly read."""

    kind: str
    """Predicate type."""
    body: Receipt
    digest: bytes
    issuer_key: Registered
    logged: Logged | None
    watched: Watched


@dataclass(frozen=True, slots=True)
class Judged:
    """One receipt of the bundle with the claims judged so far; `authentic` is None when it says nothing."""

    kind: str
    digest: bytes
    claims: tuple[Claim, ...]
    authentic: Authentic | None = None


@dataclass(frozen=True, slots=True)
class Sorted:
    """The bundle's envelopes by what they say they are; only verification makes that true."""

    receipts: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)
    """Digest → (predicate type, envelope)."""
    node_statements: dict[bytes, bytes] = field(default_factory=dict)
    promises: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Case:
    """One verification: what was brought, what is held true, and the time to judge at."""

    bundle: Bundle
    found: Sorted
    held: PinnedTrust
    trust: TrustFile
    at: datetime


def sort(bundle: Bundle) -> Sorted:
    """Group the envelopes. Raises `Unreadable` for a kind that has no place here, or when no receipt is."""
    found = Sorted()
    for digest, data in bundle.envelopes.items():
        kind = _kind(envelope.read(data).payload)
        if kind in MODELS:
            found.receipts[digest] = (kind, data)
        elif kind == NODE_STATEMENT:
            found.node_statements[digest] = data
        elif kind == INCLUSION_PROMISE:
            found.promises.append(data)
        else:
            raise Unreadable("bundle.statement", f"an unknown kind of statement: {kind!r:.80}")
    if not found.receipts:
        raise Unreadable("bundle.empty", "the bundle holds no receipt")
    return found


def _kind(payload: bytes) -> str:
    """What a statement says it is. One that breaks a rule of strict JSON is routed by the name inside it:
    then its claim `schema` fails, and the other receipts are judged all the same."""
    try:
        return receipt_kind(payload)
    except Unreadable:
        named = [kind for kind in MODELS if kind.encode() in payload]
        if not named:
            raise
        return named[0]


def authenticate(digest: bytes, case: Case) -> Judged:
    """Judge one receipt: 1. signature; 2. strict reading; 3. the key's right to sign; 4. the log."""
    kind, data = case.found.receipts[digest]
    registered = case.held.registered("receipt")
    try:
        verified = envelope.verify(data, envelope.STATEMENT, [each.key for each in registered])
    except ComityError as error:
        return Judged(kind, digest, (failed("signature", error),))
    owners = [each for each in registered if each.entry.thumbprint == verified.signer]
    claims = [proved("signature", verified, f"by key {verified.signer} of {_names(owners)}")]
    try:
        body = parse_receipt(verified.payload, MODELS[kind])
    except ComityError as error:
        return Judged(kind, digest, (*claims, failed("schema", error)))
    # Whoever registers another's key as well takes nothing from its owner: the receipt says whose it is.
    key = next((each for each in owners if each.domain == body.issuer), owners[0])
    claims.append(proved("schema", body, f"strictly read: {WORDS[kind]}"))
    claim, logged = _logged(kind, body, verified, case)
    watching, watched = witnessed(logged, body.issuer, case.held, case.trust, case.at)
    claims += [_issuer_key(body, key, watched.time, case), claim, watching, time_claim(body, watched)]
    return Judged(kind, digest, tuple(claims), Authentic(kind, body, digest, key, logged, watched))


def _names(owners: Sequence[Registered]) -> str:
    return " and ".join(dict.fromkeys(each.domain for each in owners))


def unauthenticated(kind: str, digest: bytes, error: ComityError) -> Judged:
    """No trust could be established: nothing can be said but why."""
    if isinstance(error, Refused):
        return Judged(kind, digest, (failed("issuer-key", error),))
    return Judged(kind, digest, (not_checked("issuer-key", error.text, error.code),))


def _issuer_key(body: Receipt, key: Registered, quorum_time: int | None, case: Case) -> Claim:
    held = case.held
    try:
        evidence = check_right(body, key, held, case.trust.audience, quorum_time)
    except ComityError as error:
        return failed("issuer-key", error)
    if (stale := held.stale(key.domain, case.at)) is not None:
        return not_checked(
            "issuer-key", f"{stale}; judge at an earlier time or bring a newer one", "verify.stale"
        )
    version = held.manifests[key.domain].version
    if body.manifest.version > version:
        text = (
            f"manifest version {body.manifest.version} was in force, {version} is here; bring the newer one"
        )
        return not_checked("issuer-key", text, "verify.manifest_old")
    return proved("issuer-key", evidence, f"receipt key of {key.domain} in manifest version {version}")


def check_right(
    body: Receipt, key: Registered, held: PinnedTrust, audience: str | None, quorum_time: int | None
) -> Registered:
    """Return the key if its owner may sign this receipt with it. Raises `Refused`.

    `quorum_time`: by when a quorum of witnesses saw the receipt in its log, POSIX seconds.
    """
    if body.issuer != key.domain:
        raise Refused("receipt.issuer", f"issued as {body.issuer}, signed by a key of {key.domain}")
    if body.federation != held.federation:
        raise Refused("receipt.federation", "another federation's receipt")
    if audience is not None and audience not in body.audience:
        raise Refused("receipt.audience", f"not meant for {audience}")
    _check_not_compromised(key, quorum_time)
    issued = int(parse_time(body.times.issued).timestamp())
    if not key.entry.not_before <= issued < key.entry.not_after:
        raise Refused("verify.key_time", "issued outside the key's time")
    manifest = held.manifests[key.domain]
    same = body.manifest.version == manifest.version
    if same and body.manifest.digest != held.digests[key.domain].hex():
        raise Refused("verify.manifest_fork", f"another manifest version {manifest.version} was in force")
    return key


def _check_not_compromised(key: Registered, quorum_time: int | None) -> Registered:
    """A stolen key cannot backdate: only the witnesses' time counts, never the issuer's (receipts.md 6)."""
    if key.revoked is None:
        return key
    since = key.revoked.compromised_since
    if since is None:
        raise Refused("verify.key_revoked", f"the key was revoked: {key.revoked.reason}")
    if quorum_time is None or quorum_time >= since:
        seen = "no quorum saw it before" if quorum_time is None else "the witnesses saw it only after"
        raise Refused(
            "verify.key_revoked", f"key compromised ({key.revoked.reason}): {seen} {_moment(since)}"
        )
    return key


def _moment(seconds: int) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))


def _logged(kind: str, body: Receipt, verified: Verified, case: Case) -> tuple[Claim, Logged | None]:
    text = case.bundle.proofs.get(verified.digest)
    if text is None:
        return _promised(body, verified.digest, case), None
    try:
        logged = proof.verify(
            text,
            kind=KINDS[kind],
            receipt_digest=verified.digest,
            issuer_thumbprint=verified.signer,
            origin=body.log.origin,
            keys=case.held.log_keys(body.issuer, body.log.origin),
        )
        for key in case.held.beside(body.issuer, logged.checkpoint):
            check_beside(logged.checkpoint, key)
    except ComityError as error:
        return failed("logged", error), None
    size = logged.checkpoint.checkpoint.size
    return proved("logged", logged, f"leaf {logged.index} under {body.log.origin} at size {size}"), logged


def check_beside(signed: SignedCheckpoint, key: CosignerKey) -> int:
    """The log's ML-DSA signature stands under the checkpoint as well; its time. Raises `Refused`."""
    line = next((each for each in signed.note.signatures if each.key_id == key.key_id), None)
    if line is None:
        raise Refused("verify.beside", f"the checkpoint lacks the ML-DSA signature of {key.name}")
    return key.verify(line, signed.note.text)


def _promised(body: Receipt, digest: bytes, case: Case) -> Claim:
    promise = _promise(body, digest, case)
    if promise is None:
        return not_checked("logged", "neither an inclusion proof nor a promise", "verify.proof_missing")
    due = "overdue since" if is_due(promise, case.at) else "due by"
    return asserted(
        "logged", promise.origin, f"promised at index {promise.index}, proof {due} {promise.deadline}"
    )


def _promise(body: Receipt, digest: bytes, case: Case) -> InclusionPromise | None:
    keys = [each.key for each in case.held.registered("promise") if each.domain == body.issuer]
    for data in case.found.promises:
        try:
            read: Statement[InclusionPromise] = read_promise(
                data, keys=keys, issuer=body.issuer, federation=case.held.federation, receipt_digest=digest
            )
        except ComityError:
            continue  # another receipt's promise, or nobody's
        return read.body
    return None
