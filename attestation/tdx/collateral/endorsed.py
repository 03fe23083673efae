"""TCB info and QE identity, verified over their raw bytes and held to the quote and the time (PCS API v4).

A signature proves who wrote a document, a role that they may, the dates that it is current, and id,
FMSPC and PCEID that it speaks of this platform. A document that fails one of them is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar

from attestation.pki.x509 import Certificate, read_certificates
from attestation.result import Check, not_evaluated, passed, undecided
from attestation.tdx.collateral.documents import Kind, Offered, Signed
from attestation.tdx.collateral.stated import QeIdentity, TcbInfo, read_qe_identity, read_tcb_info
from attestation.tdx.origin.chain import PckChain, Roots, verify_signer
from attestation.tdx.origin.roles import ROOT, TCB_SIGNER
from attestation.tdx.origin.signature import p256_of, verify_raw
from attestation.tdx.origin.verify import date, from_error
from attestation.tdx.quote import Tee
from schemas.canonical import sha256
from schemas.errors import Refused, Undecided

MAX_CANDIDATES: Final = 16  # documents of one kind whose signatures are looked at
MAX_SIGNERS: Final = 4  # signers tried for a document that came alone; two have existed
CACHED_DOCUMENTS: Final = 256
QE_IDS: Final[dict[Tee, str]] = {"sgx": "QE", "tdx": "TD_QE"}
_CLAUSE: Final = "PCS API v4"

Document = TypeVar("Document", TcbInfo, QeIdentity)


@dataclass(frozen=True, slots=True)
class Verified:
    """A document whose signature and signer hold."""

    source: Signed
    signer: Certificate
    root: Certificate


@dataclass(frozen=True, slots=True)
class Endorsed:
    """What Intel says about the platform and the quoting enclave, as far as it may be used."""

    checks: list[Check]
    tcb_info: TcbInfo | None
    identity: QeIdentity | None
    signers: tuple[Certificate, ...]
    ends: dict[str, float]
    """Until when each document is current, whether or not it is used (POSIX seconds)."""
    digests: dict[str, str]
    """SHA-256 of the signed bytes of each document that verified."""
    begins: list[float]
    """When documents that are not current yet will be: then another one may be chosen (POSIX seconds)."""


def endorse(
    offered: Offered,
    chain: PckChain | None,
    tee: Tee,
    roots: Roots,
    at: float,
    *,
    evaluation: int | None = None,
    max_age: int | None = None,
) -> Endorsed:
    """Choose, verify and hold the two documents.

    evaluation: judge as if this TCB evaluation data number were the newest that exists.
    max_age: days after its issue at which a document counts as expired, if that is sooner.
    """
    found = Endorsed([], None, None, (), {}, {}, [])
    asked = _Asked(offered, chain, roots, at, evaluation, max_age)
    info, first = _use("tcb_info", asked, read_tcb_info, lambda info: fits_tcb_info(info, chain, tee), found)
    identity, second = _use(
        "qe_identity", asked, read_qe_identity, lambda identity: fits_identity(identity, tee), found
    )
    signers = tuple({each.signer.der: each.signer for each in (first, second) if each}.values())
    return Endorsed(
        [*found.checks, _compare_evaluations(info, identity)],
        info,
        identity,
        signers,
        found.ends,
        found.digests,
        found.begins,
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What both documents are chosen from and held to."""

    offered: Offered
    chain: PckChain | None
    roots: Roots
    at: float
    evaluation: int | None
    max_age: int | None

    def end(self, document: TcbInfo | QeIdentity) -> float:
        """Until when the document is current: as Intel says, or sooner where policy does."""
        if self.max_age is None:
            return document.next_update
        return min(document.next_update, document.issued + self.max_age * 86_400)


def _use(
    kind: Kind,
    asked: _Asked,
    read: Callable[[bytes], Document],
    fits: Callable[[Document], Document],
    found: Endorsed,
) -> tuple[Document | None, Verified | None]:
    """The document of that kind, when all of it holds; its three checks go to `found`."""
    names = [f"tdx.collateral.{kind}.{part}" for part in ("signature", "current", "fits")]
    try:
        verified, document = _choose(kind, asked, read, fits, found.begins)
    except (Refused, Undecided) as error:
        found.checks.append(from_error(names[0], error, "signed by Intel's TCB signer", _CLAUSE))
        found.checks.extend(not_evaluated(name, "not reached", _CLAUSE) for name in names[1:])
        return None, None
    found.ends[kind] = min(asked.end(document), verified.signer.not_after, verified.root.not_after)
    found.digests[kind] = sha256(verified.source.body).hex()
    seen = f"by {verified.signer.common_name}, evaluation {document.evaluation}"
    checks = [
        passed(names[0], seen, "signed by Intel's TCB signer", _CLAUSE),
        _current(names[1], verified, document, found.ends[kind], asked.at),
        _fits_check(names[2], document, fits),
    ]
    found.checks.extend(checks)
    usable = all(check.status == "pass" for check in checks)
    return (document if usable else None), verified


def _choose(
    kind: Kind,
    asked: _Asked,
    read: Callable[[bytes], Document],
    fits: Callable[[Document], Document],
    begins: list[float],
) -> tuple[Verified, Document]:
    """Among several, the one that fits, is current, and has the highest evaluation number."""
    if not asked.offered.of(kind):
        raise Undecided("tdx.collateral_missing", f"no {kind} was offered")
    problem: Refused | Undecided | None = None
    for source in _best_first(kind, asked, read, fits, begins):
        try:
            verified = verify_document(source, asked.offered.certificates, asked.chain, asked.roots)
            return verified, read(source.body)
        except (Refused, Undecided) as error:
            problem = problem or error
    raise problem or Undecided("tdx.collateral_missing", f"no {kind} of evaluation {asked.evaluation}")


def _best_first(
    kind: Kind,
    asked: _Asked,
    read: Callable[[bytes], Document],
    fits: Callable[[Document], Document],
    begins: list[float],
) -> list[Signed]:
    """What is worth verifying, in the order of what it claims: a folder may hold a whole fleet's collateral.

    Nothing is believed for that: a claim only decides whose signature is looked at first. What cannot be
    read comes last, so that its signature still says whether Intel wrote it.
    """
    ranked: list[tuple[tuple[bool, bool, int], Signed]] = []
    for source in asked.offered.of(kind):
        try:
            document = read(source.body)
        except Refused:
            ranked.append(((False, False, -1), source))
            continue
        wrong = asked.evaluation is not None and (
            document.evaluation > asked.evaluation
            or (kind == "tcb_info" and document.evaluation != asked.evaluation)
        )
        if wrong:
            continue
        if document.issued > asked.at:
            begins.append(document.issued)
        current = document.issued <= asked.at <= asked.end(document)
        ranked.append(((_holds(fits, document), current, document.evaluation), source))
    ranked.sort(key=lambda each: each[0], reverse=True)
    return [source for _, source in ranked[:MAX_CANDIDATES]]


def _holds(fits: Callable[[Document], Document], document: Document) -> bool:
    try:
        fits(document)
    except Refused:
        return False
    return True


def verify_document(
    source: Signed, offered: Sequence[bytes], chain: PckChain | None, roots: Roots
) -> Verified:
    """The document, its signer and its root. Raises `Refused`, or `Undecided` where no signer was offered.

    1. who claims to have signed; 2. under which root, which is pinned; 3. in which role; 4. the signature.
    """
    certificates, unreadable = read_certificates(offered if source.issuers is None else source.issuers)
    if unreadable is not None and source.issuers is not None:
        raise Refused("tdx.collateral_malformed", unreadable.text)
    try:
        return _held(source, certificates, chain, roots)
    except Undecided:
        if unreadable is None:
            raise
        raise Refused("tdx.collateral_malformed", unreadable.text) from None


def _held(
    source: Signed, certificates: Sequence[Certificate], chain: PckChain | None, roots: Roots
) -> Verified:
    signers = _signers(source, certificates)
    root = _root(source, certificates, chain, roots)
    problem: Refused | None = None
    for signer in signers[:MAX_SIGNERS]:
        try:
            _verify_body(source.body, source.signature, signer.der, root.der)
        except Refused as error:
            problem = problem or error
        else:
            return Verified(source, signer, root)
    raise problem or Undecided("tdx.collateral_missing", "no signer's certificate was offered")


def _signers(source: Signed, certificates: Sequence[Certificate]) -> list[Certificate]:
    """The first of a chain that came with the document; else those of the right name."""
    if source.issuers is None:
        return [each for each in certificates if each.common_name in TCB_SIGNER.subjects]
    return list(certificates[:1])


def _root(
    source: Signed, certificates: Sequence[Certificate], chain: PckChain | None, roots: Roots
) -> Certificate:
    """The pinned root of these certificates, or else of the quote's chain. Raises `Refused`.

    It is the quote's own: one accepted root never vouches for a platform under another. Beside a document
    that came alone, roots of other makers say nothing about it.
    """
    ends = [each for each in certificates if each.subject == each.issuer]
    if source.issuers is None:
        ends = [each for each in ends if each.common_name in ROOT.subjects]
    if not ends and chain is not None:
        ends = [chain.root]
    if not ends:
        raise Undecided("tdx.collateral_missing", "no root's certificate was offered")
    pinned = [each for each in ends if each.fingerprint in roots.pins]
    if not pinned:
        raise Refused("tdx.root_not_pinned", f"{ends[0].common_name} {ends[0].fingerprint}")
    same = [each for each in pinned if chain is None or each.der == chain.root.der]
    if not same:
        raise Refused("tdx.root_not_pinned", f"{pinned[0].fingerprint} is not the root of the quote")
    return same[0]


@lru_cache(maxsize=CACHED_DOCUMENTS)
def _verify_body(body: bytes, signature: bytes, signer_der: bytes, root_der: bytes) -> bytes:
    """Return the body that a TCB signer of this root signed. Raises `Refused`."""
    try:
        signer = verify_signer(signer_der, root_der)
    except Refused as error:
        role = error.code == "tdx.cert_role_invalid"
        code = "tdx.collateral_signer_role_invalid" if role else "tdx.collateral_signature_invalid"
        raise Refused(code, error.text) from None
    try:
        return verify_raw(p256_of(signer), signature, body)
    except Refused as error:
        raise Refused("tdx.collateral_signature_invalid", error.text) from None


def _current(name: str, verified: Verified, document: TcbInfo | QeIdentity, ends: float, at: float) -> Check:
    """issueDate ≤ t ≤ nextUpdate, and the certificates above it; a document of the future is no better."""
    starts = max(document.issued, verified.signer.not_before, verified.root.not_before)
    wanted = f"{date(starts)} to {date(ends)}"
    if at < starts:
        return undecided(name, "tdx.collateral_not_yet_valid", date(at), wanted, _CLAUSE)
    if at > ends:
        return undecided(name, "tdx.collateral_expired", date(at), wanted, _CLAUSE)
    return passed(name, "current", wanted, _CLAUSE)


def _fits_check(name: str, document: Document, fits: Callable[[Document], Document]) -> Check:
    try:
        fits(document)
    except Refused as error:
        return from_error(name, error, "of this TEE and platform", _CLAUSE)
    return passed(name, document.id, "of this TEE and platform", _CLAUSE)


def fits_tcb_info(info: TcbInfo, chain: PckChain | None, tee: Tee) -> TcbInfo:
    """TCB info of this TEE and this platform. Raises `Refused`."""
    if info.id != tee.upper():
        raise Refused("tdx.collateral_id_mismatch", f"TCB info of {info.id} for a quote of {tee}")
    if chain is None:
        return info
    if info.fmspc != chain.claims.fmspc:
        raise Refused("tdx.fmspc_mismatch", f"{info.fmspc.hex()}, the PCK states {chain.claims.fmspc.hex()}")
    if info.pceid != chain.claims.pceid:
        raise Refused("tdx.pceid_mismatch", f"{info.pceid.hex()}, the PCK states {chain.claims.pceid.hex()}")
    return info


def fits_identity(identity: QeIdentity, tee: Tee) -> QeIdentity:
    """An identity of the enclave that quotes for this TEE. Raises `Refused`."""
    if identity.id != QE_IDS[tee]:
        raise Refused("tdx.collateral_id_mismatch", f"identity {identity.id} for a quote of {tee}")
    return identity


def _compare_evaluations(info: TcbInfo | None, identity: QeIdentity | None) -> Check:
    """Intel publishes adjacent numbers together at times, so a difference is shown; policy may refuse it."""
    name = "tdx.collateral.evaluation"
    if info is None or identity is None:
        return not_evaluated(name, "not both documents can be used", _CLAUSE)
    seen = f"TCB info {info.evaluation}, QE identity {identity.evaluation}"
    if info.evaluation == identity.evaluation:
        return passed(name, seen, "equal", _CLAUSE)
    return Check(name, "fail", seen, "equal", _CLAUSE, "tdx.collateral_eval_mismatch", "shown")
