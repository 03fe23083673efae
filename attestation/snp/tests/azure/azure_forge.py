"""Azure evidence under a made-up vendor: HCL blobs, vTPM quotes, bundles."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from attestation.testing.forge import Forge, rsa_key

NONCE = b"a challenge"
PCRS = tuple(hashlib.sha256(bytes([index])).digest() for index in range(24))
SELECTED = (0, 4, 7, 11)


def vtpm_key() -> rsa.RSAPrivateKey:
    return rsa_key("vtpm", 2048)


def jwk(key: rsa.RSAPrivateKey, name: str = "HCLAkPub") -> dict[str, Any]:
    modulus = key.public_key().public_numbers().n
    n = base64.urlsafe_b64encode(modulus.to_bytes((modulus.bit_length() + 7) // 8)).rstrip(b"=").decode()
    return {"kid": name, "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": n}


def runtime_json(keys: Sequence[Mapping[str, Any]] | None = None) -> bytes:
    listed = [jwk(vtpm_key()), jwk(vtpm_key(), "HCLEkPub")] if keys is None else keys
    return json.dumps(
        {"keys": listed, "vm-configuration": {"secure-boot": True}}, separators=(",", ":")
    ).encode()


def report_over(forge: Forge, runtime: bytes, **fields: Any) -> bytes:
    return forge.report(report_data=hashlib.sha256(runtime).digest() + bytes(32), **fields)


def hcl_blob(
    forge: Forge,
    runtime: bytes | None = None,
    *,
    hash_type: int = 1,
    version: int = 1,
    padding_bytes: int = 100,
) -> tuple[bytes, bytes]:
    """(blob, runtime data)."""
    data = runtime_json() if runtime is None else runtime
    body = struct.pack("<5I", 20 + len(data), 1, 2, hash_type, len(data)) + data
    header = b"HCLA" + struct.pack("<3I", version, 0x4C0 + len(body), 2) + bytes(16)
    return header + report_over(forge, data) + body + bytes(padding_bytes), data


def make_quote(
    *,
    extra_data: bytes = NONCE,
    selected: Sequence[int] = SELECTED,
    kind: int = 0x8018,
    magic: bytes = b"\xff\x54\x43\x47",
    bank: int = 0x000B,
    banks: int = 1,
    digest: bytes | None = None,
    trailing: bytes = b"",
) -> bytes:
    bits = sum(1 << index for index in selected).to_bytes(4 if max(selected, default=0) > 23 else 3, "little")
    computed = hashlib.sha256(b"".join(PCRS[index % 24] for index in selected)).digest()
    chosen = computed if digest is None else digest
    return (
        magic + struct.pack(">H", kind) + struct.pack(">H", 4) + b"name"
        + struct.pack(">H", len(extra_data)) + extra_data + bytes(25)
        + struct.pack(">IHB", banks, bank, len(bits)) + bits
        + struct.pack(">H", len(chosen)) + chosen + trailing
    )  # fmt: skip


def sign_quote(quote: bytes, key: rsa.RSAPrivateKey | None = None) -> bytes:
    return (key or vtpm_key()).sign(quote, padding.PKCS1v15(), hashes.SHA256())


def azure_bundle(forge: Forge, **changes: Any) -> bytes:
    """The JSON bundle; changes replace members, None leaves one out."""
    quote = changes.pop("quote", make_quote())
    members: dict[str, Any] = {
        "form": "azure-snp",
        "hcl_report": hcl_blob(forge)[0],
        "quote": quote,
        "quote_signature": sign_quote(quote) if quote else None,
        "pcrs": [value.hex() for value in PCRS],
        "endorsements": [forge.leaf()],
    }
    members.update(changes)
    return json.dumps({name: _wire(value) for name, value in members.items() if value is not None}).encode()


def _wire(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [_wire(each) for each in value]
    return value
