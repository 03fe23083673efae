"""A foreign composite: Tinfoil's attestation document, version 3 (gpu.md 10, mode evidence-hash).

The CPU's report data hashes the TLS key, the HPKE key, the client's nonce and the exact text of the GPU
evidence. Read here so that evidence of that form can be judged beside ours; our nodes never make it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.gpu.documents import read_devices
from attestation.gpu.node.binding import check_binding
from attestation.gpu.node.devices import DeviceInput
from attestation.result import Check, compared, failed, not_evaluated, passed
from schemas.canonical import Json, read_json, sha256
from schemas.errors import Refused, Unreadable

FORMAT: Final = "https://tinfoil.sh/predicate/attestation/v3"
MAX_BYTES: Final = 1024 * 1024
MODE: Final = "evidence-hash"
_CLAUSE: Final = "gpu.md 10"
_INPUTS: Final = ("tls_key_fp", "hpke_key", "nonce", "gpu_evidence_hash")
_SWITCH: Final = "nvswitch_evidence_hash"


@dataclass(frozen=True, slots=True)
class Tinfoil:
    """One document. Nothing in it has been verified."""

    data: bytes
    inputs: dict[str, bytes]
    """What report data hashes, 32 bytes each, in its order."""
    quote: bytes
    """A TDX quote."""
    gpu_text: bytes
    """The member `gpu` as received: hashing it written again would be another hash."""
    devices: tuple[DeviceInput, ...]
    certificate: bytes
    signature: str


def is_tinfoil(data: bytes) -> bool:
    """Whether the bytes name that format; a cheap look, before anything is parsed."""
    return FORMAT.encode() in data[:200]


def read_tinfoil(data: bytes) -> Tinfoil:
    """Raises `Unreadable` (`gpu.composite_malformed`)."""
    stated = read_json(data, limit=MAX_BYTES)
    match stated:
        case {
            "format": "https://tinfoil.sh/predicate/attestation/v3",
            "report_data": dict(inputs),
            "cpu": {"platform": "tdx", "report": str(report)},
            "gpu": {"evidences": list(devices)},
            "certificate": str(certificate),
            "signature": str(signature),
        }:
            return Tinfoil(
                data=data,
                inputs=_read_inputs(inputs),
                quote=_base64(report),
                gpu_text=_member(data, "gpu"),
                devices=_devices(devices),
                certificate=certificate.encode(),
                signature=signature,
            )
    raise _no("not a document of a TDX guest with GPUs")


def _read_inputs(stated: dict[str, Json]) -> dict[str, bytes]:
    names = (*_INPUTS, *([_SWITCH] if _SWITCH in stated else []))
    if set(stated) != set(names):
        raise _no("report data over other things than keys, nonce and evidence")
    try:
        found = {name: bytes.fromhex(str(stated[name])) for name in names}
    except ValueError:
        raise _no("report data that is not hex") from None
    if any(len(value) != 32 for value in found.values()):
        raise _no("a part of report data that is not 32 bytes")
    return found


def _devices(listed: list[Json]) -> tuple[DeviceInput, ...]:
    try:
        return tuple(DeviceInput(report, (chain,), "gpu") for report, chain in read_devices(listed))
    except Refused as error:
        raise _no(error.text) from None


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _no("evidence that is not base64") from None


def _member(data: bytes, name: str) -> bytes:
    """The text of one member of the outermost object, byte for byte; the whole is known to be strict JSON."""
    text, decoder = data.decode(), json.JSONDecoder()
    at = text.index("{") + 1
    while True:
        start = len(text) - len(text[at:].lstrip(" \t\r\n,"))
        key, at = decoder.raw_decode(text, start)
        at = len(text) - len(text[at:].lstrip(" \t\r\n:"))
        _, end = decoder.raw_decode(text, at)
        if key == name:
            return text[at:end].encode()
        at = end


def check_tinfoil(
    stated: Tinfoil, report_data: bytes | None, nonce: bytes | None, bindings: frozenset[str] | None
) -> list[Check]:
    """What ties CPU, devices, keys and challenge together. report_data: what the CPU's hardware signed."""
    return [
        _report_data(stated, report_data),
        _evidence(stated),
        _nonce(stated, nonce),
        _envelope(stated),
        check_binding(MODE, bindings),
    ]


def _report_data(stated: Tinfoil, report_data: bytes | None) -> Check:
    """report_data[0:32] = SHA-256 over the parts, the rest zero."""
    name, wanted = "gpu.binding.report_data", sha256(*stated.inputs.values()) + bytes(32)
    if report_data is None:
        return not_evaluated(name, "no quote was read", _CLAUSE)
    holds = report_data == wanted
    return compared(name, "gpu.binding_mismatch", holds, report_data.hex(), wanted.hex(), _CLAUSE)


def _evidence(stated: Tinfoil) -> Check:
    seen, wanted = sha256(stated.gpu_text), stated.inputs["gpu_evidence_hash"]
    name = "gpu.binding.evidence"
    if _SWITCH in stated.inputs:
        text = "switch evidence is hashed, but its form is not known here"
        return failed(name, "gpu.binding_mismatch", text, "GPU evidence alone", _CLAUSE)
    return compared(name, "gpu.binding_mismatch", seen == wanted, seen.hex(), wanted.hex(), _CLAUSE)


def _nonce(stated: Tinfoil, nonce: bytes | None) -> Check:
    name, said = "gpu.binding.nonce", stated.inputs["nonce"]
    if nonce is None:
        return not_evaluated(name, f"no challenge was given: {said.hex()}", _CLAUSE)
    return compared(name, "gpu.nonce_mismatch", said == nonce, said.hex(), nonce.hex(), _CLAUSE)


def _envelope(stated: Tinfoil) -> Check:
    """Signed by the TLS key that report data names: the member `signature` empty, no line end."""
    name, wanted = "gpu.binding.envelope", "signed by the TLS key that report data names"
    try:
        key = x509.load_pem_x509_certificate(stated.certificate).public_key()
        signature = base64.b64decode(stated.signature, validate=True)
    except (ValueError, TypeError, UnsupportedAlgorithm, binascii.Error) as error:
        return failed(
            name, "gpu.binding_mismatch", f"cannot be read: {type(error).__name__}", wanted, _CLAUSE
        )
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if hashlib.sha256(spki).digest() != stated.inputs["tls_key_fp"]:
        return failed(name, "gpu.binding_mismatch", "another TLS key", wanted, _CLAUSE)
    signed = stated.data.rstrip(b"\n").replace(stated.signature.encode(), b"", 1)
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return failed(name, "gpu.binding_mismatch", "does not verify", wanted, _CLAUSE)
    return passed(name, "verifies", wanted, _CLAUSE)


def _no(why: str) -> Unreadable:
    return Unreadable("gpu.composite_malformed", why)
