"""Intel's collateral, recognised by content and kept as the bytes that Intel signed (PCS API v4).

TCB info and QE identity arrive as a set with their issuer chains and the CRLs, in one of two spellings:
nine members with the signatures apart (and the PCK's own chain as a tenth), or seven in which a document is
the service's whole answer, as Intel's quote provider library has it. Or they come one by one, as the service
answers. Each piece proves itself by its own signature, so it does not matter who brought it. Here they are
only cut out and sorted; nothing is believed before tdx/collateral/endorsed.py has verified it.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, cast

from msgspec.json import Decoder

from attestation.endorsements import MAX_DOCUMENT_BYTES, recognise
from attestation.tdx.collateral.exact import read_exact
from attestation.tdx.quote import SIGNATURE_BYTES
from schemas.canonical import Json, read_json
from schemas.errors import Unreadable

MAX_DOCUMENTS: Final = 1024  # offered with one quote: a fleet's folder; sorting them takes 0.1 s
MAX_CERTIFICATES: Final = 1024
MAX_CRLS: Final = 64
CACHED_OFFERS: Final = 256
MAX_KEPT_BYTES: Final = 256 * 1024  # per entry; a set has some 50 KiB

Kind = Literal["tcb_info", "qe_identity", "evaluations"]

_SET: Final = frozenset(
    ("pck_crl_issuer_chain", "root_ca_crl", "pck_crl", "tcb_info_issuer_chain", "tcb_info",
     "qe_identity_issuer_chain", "qe_identity")
)  # fmt: skip
_TELLING: Final = frozenset(("tcb_info", "qe_identity", "root_ca_crl", "pck_crl"))
"""Members by which a set is known, whatever of the others is missing."""
_ANSWERS: Final[dict[str, Kind]] = {
    "tcbInfo": "tcb_info",
    "enclaveIdentity": "qe_identity",
    "tcbEvaluationDataNumbers": "evaluations",
}
_IN_A_SET: Final[tuple[Kind, ...]] = ("tcb_info", "qe_identity")
_SIGNATURE: Final = re.compile(r"[0-9a-fA-F]{128}")
_TEXTS: Final = Decoder(dict[str, str])
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Signed:
    """One signed document as it came."""

    kind: Kind
    body: bytes
    """The exact bytes that the signature is over."""
    signature: bytes
    """r ‖ s, 64 bytes."""
    issuers: tuple[bytes, ...] | None
    """The chain that came with it, in DER; None when it came alone, and any offered signer may be its own."""


@dataclass(frozen=True, slots=True)
class Offered:
    """Everything that was offered, sorted by what it is. Nothing in it is verified."""

    documents: tuple[Signed, ...] = ()
    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()

    def of(self, kind: Kind) -> tuple[Signed, ...]:
        return tuple(each for each in self.documents if each.kind == kind)


NOTHING: Final = Offered()


def gather(documents: tuple[bytes, ...]) -> Offered:
    """Sort what was offered, each thing once. Raises `Unreadable` (`tdx.collateral_malformed`).

    Large offers are sorted anew each time: memory is bounded.
    """
    return _gather(documents) if memorable(documents) else _gather.__wrapped__(documents)


def memorable(documents: tuple[bytes, ...]) -> bool:
    """Whether documents are small enough to be kept as the key of a cache."""
    return sum(map(len, documents)) <= MAX_KEPT_BYTES


@lru_cache(maxsize=CACHED_OFFERS)
def _gather(documents: tuple[bytes, ...]) -> Offered:
    if len(documents) > MAX_DOCUMENTS:
        raise _malformed(f"more than {MAX_DOCUMENTS} documents")
    found: dict[Signed, None] = {}
    certificates: dict[bytes, None] = {}
    crls: dict[bytes, None] = {}
    for document in documents:
        offer = _one(document)
        found.update(dict.fromkeys(offer.documents))
        certificates.update(dict.fromkeys(offer.certificates))
        crls.update(dict.fromkeys(offer.crls))
    if len(certificates) > MAX_CERTIFICATES or len(crls) > MAX_CRLS:
        raise _malformed(f"more than {MAX_CERTIFICATES} certificates or {MAX_CRLS} CRLs")
    return Offered(tuple(found), tuple(certificates), tuple(crls))


def _one(document: bytes) -> Offered:
    if document.lstrip()[:1] == b"{":
        return _json(document)
    try:
        known = recognise(document)
    except Unreadable as error:
        raise _malformed(error.text) from None
    return Offered((), known.certificates, known.crls)


def _json(document: bytes) -> Offered:
    if len(document) <= MAX_DOCUMENT_BYTES:
        texts = read_exact(document, _TEXTS)  # as a set is nearly always
        if texts is not None and texts.keys() >= _SET:
            return _set(texts)
    stated = _read(document)
    inside = stated.get("collateral", stated)  # a guest's answer may bring it along
    if isinstance(inside, dict) and _TELLING & inside.keys():
        return _set({**dict.fromkeys(_SET, ""), **{k: v for k, v in inside.items() if v is not None}})
    found = _answer(document, stated)
    return NOTHING if found is None else Offered((found,))  # another vendor's or room's JSON: not ours


def _read(document: bytes) -> dict[str, Json]:
    try:
        stated = read_json(document, limit=MAX_DOCUMENT_BYTES)
    except Unreadable as error:
        raise _malformed(error.text) from None
    if not isinstance(stated, dict):
        raise _malformed("not an object")
    return stated


def _answer(
    document: bytes, stated: Mapping[str, Json], issuers: tuple[bytes, ...] | None = None
) -> Signed | None:
    """The signed object of one answer of the service, as the bytes that are signed."""
    for member, kind in _ANSWERS.items():
        if stated.keys() == {member, "signature"} and isinstance(stated[member], dict):
            return Signed(kind, _inner(document, member), _signature(stated["signature"]), issuers)
    return None


def _set(stated: Mapping[str, Json]) -> Offered:
    """A set; an empty member means that it is missing."""
    documents = tuple(_member(stated, kind) for kind in _IN_A_SET if stated[kind] != "")
    crls = [_crl(stated, name) for name in ("root_ca_crl", "pck_crl") if stated[name] != ""]
    certificates = [
        *_chain(stated, "pck_crl_issuer_chain"),
        *(_chain(stated, "pck_certificate_chain") if stated.get("pck_certificate_chain") else ()),
    ]
    return Offered(documents, tuple(certificates), tuple(crls))


def _member(stated: Mapping[str, Json], kind: Kind) -> Signed:
    """A document of a set: what is signed with its signature apart, or the service's whole answer."""
    body, issuers = _text(stated, kind).rstrip("\0").encode(), _chain(stated, f"{kind}_issuer_chain") or None
    if f"{kind}_signature" in stated:
        return Signed(kind, body, _signature(stated[f"{kind}_signature"]), issuers)
    answer = _read(body)
    found = _answer(body, answer, issuers)
    if found is None or found.kind != kind:
        raise _malformed(f"{kind} is neither signed nor an answer of the service")
    return found


def _crl(stated: Mapping[str, Json], name: str) -> bytes:
    """DER in hex, in base64 or as a list of octets, or PEM; with a NUL behind it if it was a string of C."""
    value = stated[name]
    if isinstance(value, list):
        return _octets(value)
    text = _text(stated, name).rstrip("\0").strip()
    if not text.startswith("-----BEGIN"):
        return _digits(text, name)
    try:
        crls = recognise(text.encode()).crls
    except Unreadable as error:
        raise _malformed(error.text) from None
    if len(crls) != 1:
        raise _malformed(f"{name} is not one CRL")
    return crls[0]


def _inner(document: bytes, member: str) -> bytes:
    """The bytes of the one object inside, as received: found by strings and braces, never written again."""
    depth, start, key = 0, 0, b""
    for token in _TOKEN.finditer(document):
        match token[0]:
            case b"{":
                depth += 1
                if depth == 2:
                    start = token.start()
            case b"}":
                depth -= 1
                if depth == 1 and key == f'"{member}"'.encode():
                    return document[start : token.end()]
            case text if depth == 1:
                key = text
    raise _malformed("no signed object inside")


def _text(stated: Mapping[str, Json], name: str) -> str:
    value = stated[name]
    if not isinstance(value, str):
        raise _malformed(f"{name} is not text")
    return value


def _octets(value: list[Json]) -> bytes:
    """A list of numbers, as libraries write bytes that nobody told them how to."""
    if not all(type(each) is int and 0 <= each <= 0xFF for each in value):
        raise _malformed("a list that is not one of octets")
    return bytes(cast(list[int], value))


def _digits(text: str, name: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        pass  # DER opens with 0x30, in base64 an M, which is no digit of hex
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise _malformed(f"{name} is neither hex nor base64") from None


def _signature(value: Json) -> bytes:
    if isinstance(value, list) and len(value) == SIGNATURE_BYTES:
        return _octets(value)
    if not isinstance(value, str) or not _SIGNATURE.fullmatch(value):
        raise _malformed("a signature that is not 64 bytes in hex")
    return bytes.fromhex(value)


def _chain(stated: Mapping[str, Json], name: str) -> tuple[bytes, ...]:
    text = _text(stated, name).encode()
    if not text:
        return ()
    try:
        return recognise(text).certificates
    except Unreadable as error:
        raise _malformed(error.text) from None


def _malformed(why: str) -> Unreadable:
    return Unreadable("tdx.collateral_malformed", why)
