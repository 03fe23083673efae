"""Fetching Intel's collateral for a quote: from the provisioning service (PCS API v4) or a caching proxy.

A proxy (PCCS) answers the same paths, and has the root's CRL under a path of its own. Whatever answers is
believed in nothing: every piece verifies to a pinned root and fits the quote before it enters the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from attestation.collateral.pieces import Pieces
from attestation.collateral.service import Answer, Service
from attestation.endorsements import recognise
from attestation.pki.x509 import Certificate, read_crl
from attestation.tdx.collateral.documents import Kind, Signed, gather
from attestation.tdx.collateral.endorsed import fits_identity, fits_tcb_info, verify_document
from attestation.tdx.collateral.rollback import name_of
from attestation.tdx.collateral.stated import (
    Evaluations,
    QeIdentity,
    TcbInfo,
    read_evaluations,
    read_qe_identity,
    read_tcb_info,
)
from attestation.tdx.origin.chain import PckChain, Roots
from attestation.tdx.origin.revocation import verify_crl
from attestation.tdx.origin.verify import authenticate
from attestation.tdx.quote import Quote, read_quote
from schemas.errors import Refused, Undecided, Unreadable

INTEL: Final = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
PROXY_ROOT_CRL: Final = "/sgx/certification/v4/rootcacrl"
RENEWED_AFTER: Final = 86_400.0  # seconds after which a piece is asked for again, though still current
CHAINS: Final[dict[Kind, tuple[str, ...]]] = {
    "tcb_info": ("tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain"),
    "qe_identity": ("sgx-enclave-identity-issuer-chain",),
    "evaluations": ("tcb-evaluation-data-numbers-issuer-chain",),
}
"""Headers that bring the signer's chain as URL-encoded PEM (PCS API v4)."""

Update = Literal["standard", "early"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which collateral to ask for."""

    update: Update = "standard"
    evaluation: int | None = None
    """One TCB evaluation data number instead; it is kept beside the newest and moves no mark."""

    @property
    def query(self) -> str:
        if self.evaluation is not None:
            return f"tcbEvaluationDataNumber={self.evaluation}"
        return f"update={self.update}"


@dataclass(frozen=True, slots=True)
class Provisioning:
    """Intel's service or a proxy of it, and the folder that keeps what it gave."""

    pieces: Pieces
    service: Service
    roots: Roots
    wanted: Wanted = Wanted()

    async def endorse(self, evidence: bytes) -> list[Path]:
        """Fetch whatever this quote still lacks; returns the files that now endorse it.

        Raises `Undecided` when the service does not give it, `Refused` when what it gave does not fit, or
        is older than what was seen (`tdx.collateral_rollback`).
        """
        quote = read_quote(evidence)
        chain = self._chain(quote)
        platform = "platform" if "Platform" in chain.issuer.common_name else "processor"
        tee, query = quote.tee, self.wanted.query
        info = f"/{tee}/certification/v4/tcb?fmspc={chain.claims.fmspc.hex()}&{query}"
        identity = f"/{tee}/certification/v4/qe/identity?{query}"
        crl = f"/sgx/certification/v4/pckcrl?ca={platform}&encoding=der"
        files = [
            *await self._document("tcb_info", f"{tee}/{chain.claims.fmspc.hex()}", info, quote, chain),
            *await self._document("qe_identity", f"{tee}/qe_identity", identity, quote, chain),
            await self._crl(chain.issuer, [crl]),
            await self._crl(chain.root, self._root_crl()),
            *await self._evaluations(quote, chain),
        ]
        return list(dict.fromkeys(files))

    def _root_crl(self) -> list[str]:
        """Intel has it on a host of its own, a proxy under a path."""
        if self.service.base_url == INTEL:
            return [INTEL_ROOT_CRL]
        return [PROXY_ROOT_CRL, "/IntelSGXRootCA.der"]

    def _chain(self, quote: Quote) -> PckChain:
        """The platform that is asked about: only a genuine one, or anybody could make us ask for anything."""
        origin = authenticate(quote, (), self.roots, self.service.clock())
        for check in origin.checks:
            if check.status != "pass":
                raise (Undecided if check.effect == "none" else Refused)(check.code or check.name, check.seen)
        assert origin.chain is not None
        return origin.chain

    async def _document(self, kind: Kind, name: str, path: str, quote: Quote, chain: PckChain) -> list[Path]:
        kept = self.pieces.find(name) if self.wanted.evaluation is None else None
        have: list[Path] = []
        if kept is not None:
            try:
                offered = self.pieces.certificates()
                _, signers = self._checked(kind, kept.read_bytes(), offered, quote, chain)
                have = [kept, *self._signers(signers)]
            except (Refused, Undecided):
                pass  # no longer current: asked for again, and held against its mark
        if kept is not None and have and self._recent(kept):
            return have
        try:
            answer = await self.service.get(path)
        except Undecided:
            if have:
                return have  # not renewed today, but still current
            raise
        return self._accept(kind, answer, path, quote, chain)

    def _accept(self, kind: Kind, answer: Answer, path: str, quote: Quote, chain: PckChain) -> list[Path]:
        try:
            certificates = _issuers(answer, CHAINS[kind])
            document, signers = self._checked(kind, answer.body, certificates, quote, chain)
        except (Refused, Undecided) as error:
            raise Refused("collateral.wrong_answer", f"{path}: {error}") from None
        return [self._take(document, quote, answer.body), *self._signers(signers)]

    async def _evaluations(self, quote: Quote, chain: PckChain) -> list[Path]:
        """Intel's list of evaluation numbers. A proxy may not have it: a fetch does not fail for that."""
        name, path = f"{quote.tee}/evaluations", f"/{quote.tee}/certification/v4/tcbevaluationdatanumbers"
        kept, have = self.pieces.find(name), list[Path]()
        if kept is not None:
            try:
                _, signers = self._listed(kept.read_bytes(), self.pieces.certificates(), quote, chain)
                have = [kept, *self._signers(signers)]
            except (Refused, Undecided):
                pass  # asked for again, and held against its mark
        if kept is not None and have and self._recent(kept):
            return have
        try:
            answer = await self.service.get(path)
        except Undecided:
            return have
        try:
            listed, signers = self._listed(answer.body, _issuers(answer, CHAINS["evaluations"]), quote, chain)
        except (Refused, Undecided) as error:
            raise Refused("collateral.wrong_answer", f"{path}: {error}") from None
        newest = listed.numbers[0].number
        file = self.pieces.take(name, answer.body, "json", newest, listed.issued)
        return [file, *self._signers(signers)]

    def _listed(
        self, body: bytes, certificates: Sequence[bytes], quote: Quote, chain: PckChain
    ) -> tuple[Evaluations, tuple[Certificate, Certificate]]:
        """The list and who signed it: verified, of this TEE, current."""
        verified = verify_document(_one(body, "evaluations"), certificates, chain, self.roots)
        listed = read_evaluations(verified.source.body)
        if listed.id != quote.tee.upper():
            raise Refused("tdx.collateral_id_mismatch", f"evaluations of {listed.id}")
        if not listed.issued <= self.service.clock() <= listed.next_update:
            raise Refused("tdx.collateral_expired", "the list is not current")
        return listed, (verified.signer, verified.root)

    def _take(self, document: TcbInfo | QeIdentity, quote: Quote, body: bytes) -> Path:
        if self.wanted.evaluation is not None:
            return self.pieces.keep(body, "json")
        name = name_of(document, quote.tee)
        return self.pieces.take(name, body, "json", document.evaluation, document.issued)

    def _signers(self, certificates: Sequence[Certificate]) -> list[Path]:
        return [self.pieces.keep(each.der, "der") for each in certificates]

    def _recent(self, file: Path) -> bool:
        return self.service.clock() - file.stat().st_mtime <= RENEWED_AFTER

    def _checked(
        self, kind: Kind, body: bytes, certificates: Sequence[bytes], quote: Quote, chain: PckChain
    ) -> tuple[TcbInfo | QeIdentity, tuple[Certificate, Certificate]]:
        """The document and who signed it: verified, about this platform, current, of the asked evaluation."""
        verified = verify_document(_one(body, kind), certificates, chain, self.roots)
        document: TcbInfo | QeIdentity
        if kind == "tcb_info":
            document = fits_tcb_info(read_tcb_info(verified.source.body), chain, quote.tee)
        else:
            document = fits_identity(read_qe_identity(verified.source.body), quote.tee)
        if not document.issued <= self.service.clock() <= document.next_update:
            raise Refused("tdx.collateral_expired", f"{kind} is not current")
        if self.wanted.evaluation not in (None, document.evaluation):
            raise Refused("tdx.collateral_eval_mismatch", f"{kind} of evaluation {document.evaluation}")
        return document, (verified.signer, verified.root)

    async def _crl(self, issuer: Certificate, paths: Sequence[str]) -> Path:
        name = f"crl/{issuer.spki_fingerprint[:16]}"
        kept = self.pieces.find(name)
        current = kept is not None and (read_crl(kept.read_bytes()).next_update or 0) >= self.service.clock()
        if kept is not None and current and self._recent(kept):
            return kept
        try:
            answer = await self._first_of(paths)
        except Undecided:
            if kept is not None and current:
                return kept
            raise
        try:
            crl = verify_crl(_crl_bytes(answer.body), issuer.der)
        except (Refused, Unreadable) as error:
            raise Refused("collateral.wrong_answer", f"{paths[0]}: {error}") from None
        if not crl.this_update <= self.service.clock() <= (crl.next_update or 0):
            raise Refused("collateral.wrong_answer", f"{paths[0]}: the CRL is not current")
        return self.pieces.take(name, crl.der, "crl", 0, crl.this_update)

    async def _first_of(self, paths: Sequence[str]) -> Answer:
        """The first that is there: mirrors differ in where they keep the root's CRL."""
        for path in paths[:-1]:
            try:
                return await self.service.get(path)
            except Undecided as error:
                if error.code != "collateral.not_found":
                    raise
        return await self.service.get(paths[-1])


def _one(body: bytes, kind: Kind) -> Signed:
    try:
        found = gather((body,)).of(kind)
    except Unreadable as error:
        raise Refused("tdx.collateral_malformed", error.text) from None
    if len(found) != 1:
        raise Refused("tdx.collateral_malformed", f"no {kind}")
    return found[0]


def _issuers(answer: Answer, headers: Sequence[str]) -> list[bytes]:
    """The signer's chain as it came beside the document. Raises `Refused`."""
    for header in headers:
        if header in answer.headers:
            try:
                return list(recognise(unquote_to_bytes(answer.headers[header])).certificates)
            except Unreadable as error:
                raise Refused("tdx.collateral_malformed", f"{header}: {error.text}") from None
    raise Refused("tdx.collateral_missing", f"no header {headers[0]}")


def _crl_bytes(body: bytes) -> bytes:
    """One CRL in DER, PEM, or DER in hex, as proxies write it. Raises `Unreadable`."""
    try:
        data = bytes.fromhex(body.decode("ascii").strip().strip('"'))
    except ValueError:
        data = body
    crls = recognise(data).crls
    if len(crls) != 1:
        raise Unreadable("tdx.collateral_malformed", "not one CRL")
    return crls[0]
