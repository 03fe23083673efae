"""Endorsements recognised by their content: certificates, CRLs, AMD certificate tables.

The host, a peer or a folder may offer anything: a document is recognised by what it is, never by
its name, and nothing in it is believed before a chain holds. Pure; fetching is in collateral/.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from schemas.canonical import read_json
from schemas.errors import Unreadable

MAX_DOCUMENT_BYTES: Final = 1024 * 1024
MAX_TABLE_BYTES: Final = 256 * 1024  # the extended report's data is at most a few pages
MAX_TABLE_ENTRIES: Final = 32
MAX_CERTIFICATES: Final = 1024  # offered with one report: a fleet's folder; reading them takes 0.1 s
MAX_CRLS: Final = 64
CACHED_DOCUMENTS: Final = 512
REMEMBERED_BYTES: Final = 32 * 1024  # per cache entry; a whole AMD set is under 8 KiB

Kind = Literal["certificate", "crl", "vcek", "vlek", "ask", "ark"]

TABLE_GUIDS: Final[dict[bytes, Kind | None]] = {
    uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes: "vcek",
    uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1").bytes: "vlek",
    uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782").bytes: "ask",
    uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae").bytes: "ark",
    uuid.UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea").bytes: "crl",
    uuid.UUID("ecae0c0f-9502-43b1-afa2-0ae2e0d565b6").bytes: None,  # extra platform information
}
"""GHCB specification (56421) 4.1.8.1; bytes in the order of the text form."""

_ENTRY = 24  # GUID, u32 offset, u32 length
_BEGIN: Final = b"-----BEGIN "
_BEGIN_IN_HEADER: Final = b"-----BEGIN%20"  # as Intel's service writes a chain into a header (PCS API v4)
_PEM = re.compile(
    rb"-----BEGIN (?P<label>CERTIFICATE|X509 CRL)-----\s(?P<body>[A-Za-z0-9+/=\s]*)-----END (?P=label)-----"
)


@dataclass(frozen=True, slots=True)
class Endorsements:
    """What was offered, sorted by what it is. DER bytes, not yet read."""

    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    foreign: int = 0
    """Documents of other kinds (JSON, XML, OCSP): collateral of another TEE."""


NOTHING: Final = Endorsements()


def recognise(data: bytes) -> Endorsements:
    """Sort one document. Raises `Unreadable`. Large ones are sorted anew each time: memory is bounded."""
    return _recognise(data) if len(data) <= REMEMBERED_BYTES else _recognise.__wrapped__(data)


@lru_cache(maxsize=CACHED_DOCUMENTS)
def _recognise(data: bytes) -> Endorsements:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise Unreadable("endorsement.unrecognised", f"more than {MAX_DOCUMENT_BYTES} bytes")
    if data[:1] == b"\x30":
        return _der(data)
    if data.startswith(_BEGIN):
        return _pem(data)
    if is_table(data):  # before PEM further down, which a table may hold
        return read_table(data)
    if data.lstrip()[:1] in (b"{", b"[", b"<"):  # before PEM, which Intel's JSON holds
        return _azure(data) if b'"vcekCert"' in data else Endorsements(foreign=1)
    if _BEGIN in data:  # tools write pages of text before a certificate
        return _pem(data)
    if _BEGIN_IN_HEADER in data:  # alone, or among the headers of an answer
        return _pem(unquote_to_bytes(data))
    raise Unreadable("endorsement.unrecognised", "neither a certificate, a CRL, nor a certificate table")


def gather(documents: tuple[bytes, ...]) -> Endorsements:
    """All that the documents offer, each thing once, in the order offered. Raises as `recognise`."""
    return _gather(documents) if memorable(documents) else _gather.__wrapped__(documents)


def memorable(documents: tuple[bytes, ...]) -> bool:
    """Whether documents are small enough to be kept as the key of a cache."""
    return sum(map(len, documents)) <= REMEMBERED_BYTES


@lru_cache(maxsize=CACHED_DOCUMENTS)
def _gather(documents: tuple[bytes, ...]) -> Endorsements:
    certificates: dict[bytes, None] = {}
    crls: dict[bytes, None] = {}
    foreign = 0
    for document in documents:
        found = recognise(document)
        certificates.update(dict.fromkeys(found.certificates))
        crls.update(dict.fromkeys(found.crls))
        foreign += found.foreign
    if len(certificates) > MAX_CERTIFICATES or len(crls) > MAX_CRLS:
        raise Unreadable("endorsement.too_many", f"at most {MAX_CERTIFICATES} certificates, {MAX_CRLS} CRLs")
    return Endorsements(tuple(certificates), tuple(crls), foreign)


def _der(data: bytes) -> Endorsements:
    """One, or several right behind each other, as `cat` makes a chain. One cut short stays as it is."""
    end = _end(data, 0)
    if end == len(data):
        return _element(data)
    certificates: list[bytes] = []
    crls: list[bytes] = []
    foreign = at = 0
    while at < len(data):
        found = _element(data[at:end])
        certificates += found.certificates
        crls += found.crls
        foreign += found.foreign
        at, end = end, _end(data, end)
    return Endorsements(tuple(certificates), tuple(crls), foreign)


def _element(data: bytes) -> Endorsements:
    """A certificate's content opens with [0] version, a CRL's with INTEGER version (RFC 5280 4.1, 5.1)."""
    first = _content(data, 0)
    if data[first : first + 1] == b"\x30":
        second = _content(data, first)
        match data[second : second + 1]:
            case b"\xa0":
                return Endorsements((data,))
            case b"\x02":
                return Endorsements((), (data,))
    if data[first : first + 1] == b"\x0a":  # OCSPResponse opens with an ENUMERATED at the first level
        return Endorsements(foreign=1)
    raise Unreadable("endorsement.unrecognised", "DER, but neither a certificate nor a CRL")


def _content(data: bytes, at: int) -> int:
    """Where the content begins of the element at `at`, behind its tag and length octets."""
    if len(data) < at + 2:
        return len(data)
    return at + 2 + (data[at + 1] & 0x7F if data[at + 1] & 0x80 else 0)


def _end(data: bytes, at: int) -> int:
    """Where the element at `at` says that it ends; at most where the data does."""
    content = _content(data, at)
    octets = data[at + 2 : content] or data[at + 1 : at + 2]
    return min(len(data), content + int.from_bytes(octets))


def _pem(data: bytes) -> Endorsements:
    certificates: list[bytes] = []
    crls: list[bytes] = []
    for block in _PEM.finditer(data):
        body = block["body"]
        der = _decoded(body) if len(body) <= REMEMBERED_BYTES else _decoded.__wrapped__(body)
        (certificates if block["label"] == b"CERTIFICATE" else crls).append(der)
    if data.count(_BEGIN) != len(certificates) + len(crls):
        raise Unreadable("endorsement.unrecognised", "a PEM block that is neither certificate nor CRL")
    return Endorsements(tuple(certificates), tuple(crls))


@lru_cache(maxsize=CACHED_DOCUMENTS)
def _decoded(body: bytes) -> bytes:
    """What a PEM block holds. Devices of one family deliver the same authorities again and again."""
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise Unreadable("endorsement.unrecognised", "a PEM block that is not base64") from None


def _azure(data: bytes) -> Endorsements:
    """What Azure's metadata service gives a guest: its chip's certificate, and that one's issuers, in PEM."""
    match read_json(data, limit=MAX_DOCUMENT_BYTES):
        case {"vcekCert": str(leaf), "certificateChain": str(issuers)}:
            return _pem(f"{leaf}\n{issuers}".encode())
    raise Unreadable("endorsement.unrecognised", "vcekCert without certificateChain, or not as texts")


def is_table(data: bytes) -> bool:
    """An empty table, or a known GUID among the entries before the terminating one."""
    for at in range(0, min(len(data), _ENTRY * MAX_TABLE_ENTRIES), _ENTRY):
        entry = data[at : at + _ENTRY]
        if entry[:16] in TABLE_GUIDS:
            return True
        if not any(entry):
            return at == 0 and len(entry) == _ENTRY
    return False


def read_table(data: bytes) -> Endorsements:
    """Certificates and CRL of an AMD certificate table (GHCB 4.1.8.1). Raises `Unreadable`.

    Unknown GUIDs are passed over; overlap, repetition and anything outside the table refuse.
    """
    if len(data) > MAX_TABLE_BYTES:
        raise _bad_table(f"more than {MAX_TABLE_BYTES} bytes")
    entries = _entries(data)
    end = _ENTRY * (len(entries) + 1)  # of the header
    certificates: list[bytes] = []
    crls: list[bytes] = []
    for offset, length, guid in sorted((offset, length, guid) for guid, offset, length in entries):
        if offset < end or offset + length > len(data):
            raise _bad_table("an entry points into the header, outside the table, or into another entry")
        end = offset + length
        if (kind := TABLE_GUIDS.get(guid)) is not None:
            (crls if kind == "crl" else certificates).extend(_blob(data[offset:end], kind))
    return Endorsements(tuple(certificates), tuple(crls))


def _entries(data: bytes) -> list[tuple[bytes, int, int]]:
    entries: list[tuple[bytes, int, int]] = []
    for at in range(0, _ENTRY * (MAX_TABLE_ENTRIES + 1), _ENTRY):
        entry = data[at : at + _ENTRY]
        if len(entry) < _ENTRY:
            break
        if not any(entry):
            return entries
        guid = entry[:16]
        if guid in TABLE_GUIDS and any(guid == known for known, _, _ in entries):
            raise _bad_table("a GUID is repeated")
        entries.append((guid, int.from_bytes(entry[16:20], "little"), int.from_bytes(entry[20:], "little")))
    raise _bad_table("no terminating entry")


def _blob(blob: bytes, kind: Kind) -> tuple[bytes, ...]:
    if not blob:
        return ()
    if _BEGIN in blob[:4096]:
        found = _pem(blob)
        return found.crls if kind == "crl" else found.certificates
    return (blob,)


def _bad_table(why: str) -> Unreadable:
    return Unreadable("snp.endorsement.table_malformed", why)
