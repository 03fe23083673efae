"""NVIDIA's service token as it came: a detached EAT and one token a device (RFC 9711 4.2.18; gpu.md 9).

The algorithm is pinned before anything else is looked at: `none` and HS* are how a token is forged, and a
local verifier of NVIDIA's emits the former.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from attestation.gpu.pki.signature import RAW_BYTES
from schemas.canonical import Json, read_json
from schemas.errors import Refused, Unreadable

MAX_TOKEN_BYTES: Final = 256 * 1024  # eight devices with their claims have 17 KiB
MAX_JWT_BYTES: Final = 16 * 1024  # one device's claims have 2 KiB
MAX_DEVICES: Final = 64
ALGORITHM: Final = "ES384"
_PART: Final = re.compile(r"[A-Za-z0-9_-]+")
_DEVICE: Final = re.compile(r"(GPU|SWITCH|NVSWITCH)-\d{1,3}")


@dataclass(frozen=True, slots=True)
class Jwt:
    """One compact token (RFC 7515 3.1). Nothing in it has been verified."""

    compact: str
    key_id: str
    claims: Mapping[str, Json]
    signed: bytes
    signature: bytes
    """r ‖ s, 96 bytes."""


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """The overall token and each device's, by the service's name for it."""

    overall: Jwt
    devices: Mapping[str, Jwt]

    @property
    def kinds(self) -> frozenset[str]:
        """`gpu` and `switch`, as it speaks of either: NVIDIA's service has a token for each."""
        return frozenset("gpu" if name.startswith("GPU") else "switch" for name in self.devices)


def read_token(data: bytes) -> ServiceToken:
    """Read `[["JWT", overall], {name: jwt}]`. Raises `Refused` (`gpu.nras_*`)."""
    try:
        stated = read_json(data, limit=MAX_TOKEN_BYTES)
    except Unreadable as error:
        raise malformed(error.text) from None
    match stated:
        case [["JWT", str()], {"REMOTE_GPU_CLAIMS": _} | {"REMOTE_SWITCH_CLAIMS": _}]:
            # Signed with a key that everyone knows (gpu.md 13 point 15); what the service signed is inside.
            raise Refused("gpu.nras_algorithm_refused", "the wrapper of NVIDIA's SDK, not the token inside")
        case [["JWT", str(overall)], dict(devices)] if 1 <= len(devices) <= MAX_DEVICES:
            return ServiceToken(_jwt(overall), {name: _device(name, text) for name, text in devices.items()})
    raise malformed("not an overall token with device tokens")


def _device(name: str, text: Json) -> Jwt:
    if not _DEVICE.fullmatch(name) or not isinstance(text, str):
        raise malformed("a device token without a device's name")
    return _jwt(text)


def _jwt(compact: str) -> Jwt:
    parts = compact.split(".")
    if len(compact) > MAX_JWT_BYTES or len(parts) not in (2, 3):
        raise malformed("not a compact token")
    header = _object(parts[0])
    if header.get("alg") != ALGORITHM or "crit" in header:  # RFC 8725 3.1; RFC 7515 4.1.11
        raise Refused("gpu.nras_algorithm_refused", f"{header.get('alg')!r} instead of {ALGORITHM}")
    key_id, signature = header.get("kid"), decode_part(parts[-1])
    if len(parts) != 3 or not isinstance(key_id, str) or len(signature) != RAW_BYTES:
        raise malformed("no key id, or no ES384 signature")
    return Jwt(compact, key_id, _object(parts[1]), f"{parts[0]}.{parts[1]}".encode(), signature)


def _object(part: str) -> dict[str, Json]:
    try:
        stated = read_json(decode_part(part))
    except Unreadable as error:
        raise malformed(error.text) from None
    if not isinstance(stated, dict):
        raise malformed("not an object")
    return stated


def decode_part(part: str) -> bytes:
    """base64url without padding, in its one spelling (RFC 7515 2). Raises `Refused`."""
    if part and not _PART.fullmatch(part):
        raise malformed("not base64url")
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        raise malformed("not base64url") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != part:
        raise malformed("base64url with free bits")
    return decoded


def malformed(why: str) -> Refused:
    return Refused("gpu.nras_malformed", why)
