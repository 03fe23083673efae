"""A receipt as a Sigstore bundle (v0.3) with a private trust configuration: `sigstore verify` reads both.

The envelope goes in unchanged: the certificate merely names the registered receipt key that signed it.
The time that the bundle shows is that of the export, not of the run (receipts.md 17.3, 17.4).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from receipts.checkpoint import Checkpoint
from receipts.export.authority import Authority
from receipts.export.timestamp import respond
from receipts.note import NoteSigner, key_id
from receipts.sigstore_forms import BUNDLE_TYPE, ROOT_TYPE, trust_configuration
from schemas import envelope
from schemas.canonical import Json, sha256, write_json
from schemas.keys import VerifyKey
from schemas.primitives import format_time

_ED25519: Final = 0x01


@dataclass(frozen=True, slots=True)
class Exported:
    """What the stock tool needs, but for the artifact: the receipt's commitment file."""

    bundle: bytes
    trust: bytes
    identity: str
    issuer: str


def export(data: bytes, key: VerifyKey, authority: Authority, *, at: datetime) -> Exported:
    """Wrap one receipt's envelope. `key`: the registered receipt key that signed it.

    Raises what `envelope.verify` raises: nothing is exported that does not verify here.
    """
    envelope.verify(data, envelope.STATEMENT, [key])
    parsed = envelope.read(data)
    signature = parsed.signatures[0][1]
    identity, issuer = f"https://{authority.name}/receipts", f"https://{authority.name}/export"
    certificate = authority.certify(key.public, identity, issuer, at)
    body = _body(envelope.digest(parsed.payload_type, parsed.payload), signature, certificate)
    stamp = respond(
        signature, key=authority.tsa, certificate=authority.tsa_certificate,
        serial=x509.random_serial_number() >> 96, at=at,
    )  # fmt: skip
    bundle: dict[str, Json] = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {
            "certificate": {"rawBytes": _base64(certificate)},
            "tlogEntries": [_entry(body, authority)],
            "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": _base64(stamp)}]},
        },
        "dsseEnvelope": {
            "payload": _base64(parsed.payload),
            "payloadType": parsed.payload_type,
            "signatures": [{"sig": _base64(signature)}],
        },
    }
    return Exported(write_json(bundle), write_json(trust_config(authority)), identity, issuer)


def _body(digest: bytes, signature: bytes, certificate: bytes) -> bytes:
    """The canonical entry (hashedrekord 0.0.2); a verifier hashes these bytes as they are. Keys sorted."""
    verifier: dict[str, Json] = {
        "keyDetails": "PKIX_ECDSA_P256_SHA_256",
        "x509Certificate": {"rawBytes": _base64(certificate)},
    }
    record: dict[str, Json] = {
        "data": {"algorithm": "SHA2_256", "digest": _base64(digest)},
        "signature": {"content": _base64(signature), "verifier": verifier},
    }
    return write_json({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": record}})


def _entry(body: bytes, authority: Authority) -> dict[str, Json]:
    logged, origin = authority.append(body), _origin(authority)
    signer = NoteSigner.of(origin, authority.log.private_bytes_raw())
    note = signer.sign(Checkpoint(origin, logged.size, logged.root).text)
    path: list[Json] = [_base64(each) for each in logged.path]
    return {
        "logIndex": str(logged.index),
        "logId": {"keyId": _base64(_log_id(authority))},
        "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
        "inclusionProof": {
            "logIndex": str(logged.index),
            "rootHash": _base64(logged.root),
            "treeSize": str(logged.size),
            "hashes": path,
            "checkpoint": {"envelope": note.decode()},
        },
        "canonicalizedBody": _base64(body),
    }


def _origin(authority: Authority) -> str:
    return f"{authority.name}/exports"


def _log_id(authority: Authority) -> bytes:
    """All 32 bytes of what signed-note cuts to four: one signature line serves both kinds of reader."""
    public, origin = authority.log.public_key().public_bytes_raw(), _origin(authority)
    whole = sha256(origin.encode(), b"\n", bytes([_ED25519]), public)
    assert whole[:4] == key_id(origin, _ED25519, public)
    return whole


def trust_config(authority: Authority) -> dict[str, Json]:
    """The client trust configuration. Its addresses lead nowhere: verification asks nobody."""
    since = format_time(authority.ca_certificate.not_valid_before_utc)
    valid: dict[str, Json] = {"start": since}
    ca, tsa, root = authority.ca_certificate, authority.tsa_certificate, authority.tsa_root
    ct_key = authority.ct.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    log_key = authority.log.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    trusted: dict[str, Json] = {
        "mediaType": ROOT_TYPE,
        "tlogs": [_log("exports", log_key, "PKIX_ED25519", _log_id(authority), valid)],
        "certificateAuthorities": [
            {
                "subject": {"organization": authority.name, "commonName": "export CA"},
                "uri": "https://ca.invalid",
                "certChain": {"certificates": [_raw(ca)]},
                "validFor": dict(valid),
            }
        ],
        "ctlogs": [_log("ct", ct_key, "PKIX_ECDSA_P256_SHA_256", sha256(ct_key), valid)],
        "timestampAuthorities": [
            {
                "subject": {"organization": authority.name, "commonName": "export TSA"},
                "uri": "https://tsa.invalid",
                "certChain": {"certificates": [_raw(tsa), _raw(root)]},
                "validFor": dict(valid),
            }
        ],
    }
    return trust_configuration(trusted)


def _log(name: str, key: bytes, details: str, identifier: bytes, valid: dict[str, Json]) -> dict[str, Json]:
    return {
        "baseUrl": f"https://{name}.invalid",
        "hashAlgorithm": "SHA2_256",
        "publicKey": {"rawBytes": _base64(key), "keyDetails": details, "validFor": dict(valid)},
        "logId": {"keyId": _base64(identifier)},
    }


def _raw(certificate: x509.Certificate) -> dict[str, Json]:
    return {"rawBytes": _base64(certificate.public_bytes(Encoding.DER))}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
