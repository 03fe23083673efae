"""What was offered with a device's report, sorted by what it is (gpu.md 3, 6, 8, 9).

Device chains, manifests bare or as NVIDIA's service answers, OCSP responses, CRLs, key sets and service
tokens. Nothing in here is believed; other rooms' collateral is passed over.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from attestation.endorsements import MAX_DOCUMENT_BYTES, recognise
from attestation.gpu.pki.chain import CHAIN_LENGTH
from attestation.gpu.rim.issues import Offer
from attestation.pki.x509 import read_certificate
from schemas.canonical import Json, read_json, sha256
from schemas.errors import Refused, Unreadable

MAX_DOCUMENTS: Final = 256  # a node's devices with several issues of each manifest
MAX_MANIFESTS: Final = 64
MAX_RESPONSES: Final = 96  # one for each of 64 devices, and those about what they share
MAX_CHAINS: Final = 64
MAX_CRLS: Final = 16
MAX_TOKENS: Final = 4
CACHED_OFFERS: Final = 64

_DEVICE_NAMES: Final = (" FMC LF", " BROM")
_ROOT_NAME: Final = " Device Identity CA"
_TRANSCRIPT: Final = "application/vnd.nvidia.spdm-measurement-transcript"
_CHAIN: Final = "application/vnd.nvidia.pem-cert-chain"
"""Types of wrapped messages; NVIDIA's tools wrap other evidence than reports under other ones."""
_BESIDE: Final = ("__cmwc_t", "nonce", "appraisal-settings")
"""What stands in a collection beside its messages: claims, which are not looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class Offered:
    """Everything that was offered, each thing once. Nothing in it is verified. Compared by identity."""

    chains: tuple[tuple[bytes, ...], ...] = ()
    """Certificates in DER, in the order of the document that held them."""
    manifests: tuple[Offer, ...] = ()
    responses: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    key_sets: tuple[bytes, ...] = ()
    tokens: tuple[bytes, ...] = ()
    devices: tuple[tuple[bytes, bytes], ...] = ()
    """Report and PEM chain of each device of a service request, in its order."""
    problem: Refused | None = None
    """The first document that is none of these."""


@dataclass(slots=True)
class _Heap:
    """What is being sorted; dictionaries keep the order and drop what comes twice."""

    chains: dict[tuple[bytes, ...], None]
    manifests: dict[Offer, None]
    responses: dict[bytes, None]
    crls: dict[bytes, None]
    key_sets: dict[bytes, None]
    tokens: dict[bytes, None]
    devices: list[tuple[bytes, bytes]]


@lru_cache(maxsize=CACHED_OFFERS)
def gather(documents: tuple[bytes, ...]) -> Offered:
    """Sort what was offered. Never raises: what cannot be sorted is the result's `problem`."""
    heap = _Heap({}, {}, {}, {}, {}, {}, [])
    problem: Refused | None = None
    for document in documents[:MAX_DOCUMENTS]:
        try:
            _sort(document, heap)
        except Refused as error:
            problem = problem or error
    if len(documents) > MAX_DOCUMENTS or _is_too_much(heap):
        problem = problem or Refused("gpu.documents_too_many", "more documents than one node needs")
    return Offered(
        tuple(heap.chains)[:MAX_CHAINS], tuple(heap.manifests)[:MAX_MANIFESTS],
        tuple(heap.responses)[:MAX_RESPONSES], tuple(heap.crls)[:MAX_CRLS], tuple(heap.key_sets)[:MAX_TOKENS],
        tuple(heap.tokens)[:MAX_TOKENS], tuple(heap.devices)[:MAX_CHAINS], problem,
    )  # fmt: skip


def _is_too_much(heap: _Heap) -> bool:
    limits = (
        (heap.chains, MAX_CHAINS), (heap.manifests, MAX_MANIFESTS), (heap.responses, MAX_RESPONSES),
        (heap.crls, MAX_CRLS), (heap.key_sets, MAX_TOKENS), (heap.tokens, MAX_TOKENS),
    )  # fmt: skip
    return any(len(found) > most for found, most in limits)


def _sort(document: bytes, heap: _Heap) -> None:
    start = document.lstrip()[:1]
    if start == b"<":
        heap.manifests[Offer(document)] = None
    elif start in (b"{", b"["):
        _sort_json(document, heap)
    elif document[:1] == b"\x30" and _is_response(document):
        heap.responses[document] = None
    else:
        _sort_certificates(document, heap)


def _is_response(document: bytes) -> bool:
    """OCSPResponse opens with the ENUMERATED responseStatus (RFC 6960 4.2.1)."""
    try:
        return recognise(document).foreign > 0
    except Unreadable:
        return False


def _sort_certificates(document: bytes, heap: _Heap) -> None:
    try:
        found = recognise(document)
    except Unreadable as error:
        raise Refused("gpu.chain_malformed", error.text) from None
    heap.crls.update(dict.fromkeys(found.crls))
    if found.certificates and _is_device_chain(found.certificates):
        heap.chains[found.certificates] = None


def _is_device_chain(certificates: Sequence[bytes]) -> bool:
    """By the names in it: a folder holds other vendors' chains as well, and authorities without a device."""
    try:
        names = [read_certificate(each).common_name for each in certificates]
    except Unreadable:
        return True  # whose it is cannot be told; reading it again refuses
    whole = len(names) == CHAIN_LENGTH and names[-1].endswith(_ROOT_NAME)
    return whole or any(name.endswith(_DEVICE_NAMES) for name in names)


def _sort_json(document: bytes, heap: _Heap) -> None:
    try:
        stated = read_json(document, limit=MAX_DOCUMENT_BYTES)
    except Unreadable as error:
        raise Refused("gpu.documents_malformed", error.text) from None
    if isinstance(stated, dict) and stated.keys() >= {"id", "rim"}:
        heap.manifests[read_answer(stated)] = None
    elif isinstance(stated, dict) and isinstance(stated.get("keys"), list):
        heap.key_sets[document] = None
    elif (listed := listed_devices(stated)) is not None:
        heap.devices += read_devices(listed)
    elif isinstance(stated, list) and stated and isinstance(stated[0], list) and stated[0][:1] == ["JWT"]:
        heap.tokens[document] = None


def listed_devices(stated: Json) -> list[Json] | None:
    """The devices in a service request (gpu.md 9), or as NVIDIA's tools write them; None = there are none."""
    match stated:
        case {"evidence_list": list(listed)} | {"evidences": list(listed)}:
            return listed
        case {"evidence": str(), "certificate": str()}:  # as versions 1 and 2 of the service are asked
            return [stated]
        case [{"evidence": _, "certificate": _}, *_]:
            return stated
        case dict(named) if (
            "__cmwc_t" in named
        ):  # a collection of wrapped messages (draft-ietf-rats-msg-wrap)
            return [each for name, each in named.items() if name not in _BESIDE]
    return None


def read_devices(listed: Json) -> list[tuple[bytes, bytes]]:
    """Report and PEM chain of each listed device. Raises `Refused`."""
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_CHAINS:
        raise Refused("gpu.documents_malformed", f"not 1 to {MAX_CHAINS} devices")
    devices = [each if isinstance(each, dict) else {} for each in listed]
    return [
        (_base64(each.get("evidence"), _TRANSCRIPT), _base64(each.get("certificate"), _CHAIN))
        for each in devices
    ]


def _base64(value: Json, media_type: str) -> bytes:
    """A text in base64, or a wrapped message: its type and its text in base64url."""
    alphabet: bytes | None = None
    if isinstance(value, list):
        if len(value) != 2 or value[0] != media_type:
            raise Refused("gpu.documents_malformed", f"{str(value[:1])[:80]}, where {media_type} belongs")
        value, alphabet = value[1], b"-_"
    try:
        text = value if isinstance(value, str) else "?"
        padded = text if alphabet is None else text + "=" * (-len(text) % 4)
        return base64.b64decode(padded, alphabet, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("gpu.documents_malformed", "a device without evidence in base64") from None


def read_answer(stated: dict[str, Json]) -> Offer:
    """What the manifest service answers: id, document in base64, its SHA-256 (gpu.md 6). Raises `Refused`."""
    name, text, digest = stated["id"], stated["rim"], stated.get("sha256")
    if not isinstance(name, str) or not isinstance(text, str):
        raise Refused("gpu.rim_malformed", "a service answer without id and document")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("gpu.rim_malformed", "a document that is not base64") from None
    if digest is not None and (not isinstance(digest, str) or not _is_digest(digest, data)):
        raise Refused("gpu.rim_digest_mismatch", "a service answer whose document is another")
    return Offer(data, name)


def _is_digest(text: str, data: bytes) -> bool:
    """Hex or base64: both are in use."""
    digest = sha256(data)
    return text.lower() == digest.hex() or text == base64.b64encode(digest).decode()
