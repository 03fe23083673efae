"""A domain's own word about itself: its keys by role, and the platforms it enrols (session.md 3).

Signed by the domain's root keys, pinned through the charter. One key has one role: a message key
signs no receipt and a node key signs neither.
"""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas import envelope
from schemas.canonical import Wire
from schemas.errors import Refused
from schemas.keys import Jwk, SigningKey, VerifyKey
from schemas.primitives import Count, Digest, DomainName, Label, Seconds, Thumbprint

MANIFEST_TYPE = "application/vnd.comity.domain-manifest.v1+json"

Role = Literal["receipt", "message", "advert", "promise", "policy", "attestation-verifier"]
"""What a P-256 key may sign. Log keys are Ed25519 and stand under `logs`."""


class RoleKey(Wire):
    """One registered key: the key fixes the algorithm (ES256), the message never does."""

    thumbprint: Thumbprint
    jwk: Jwk
    role: Role
    not_before: Seconds
    not_after: Seconds


class LogKey(Wire):
    """A transparency log of this domain and its verifier key (C2SP signed-note vkey text)."""

    origin: Label
    vkey: str = Field(max_length=256)
    max_merge_delay_s: Annotated[int, Field(ge=1, le=86_400)]
    beside: str | None = Field(default=None, max_length=2048)
    """ML-DSA-44 key (vkey text of type 0x06) that signs every checkpoint too; where set, both must hold."""


class WitnessKey(Wire):
    """A witness that this domain runs for other domains' logs: the domain is its operator."""

    name: Label
    vkey: str = Field(max_length=2048)
    """Cosigner's verifier key, type 0x04 or 0x06."""
    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=512)] | None = None
    """Prefix of its tlog-witness resources; absent where it is reached over the federation's bus alone."""


class Roots(Wire):
    """The root keys that sign this manifest and the next, and how many of them must."""

    threshold: Annotated[int, Field(ge=1, le=8)]
    keys: Annotated[list[Jwk], Field(min_length=1, max_length=8)]


class RevokedKey(Wire):
    thumbprint: Thumbprint
    reason: Label
    compromised_since: Seconds | None = None


class DomainManifest(Wire):
    """Role keys, logs and enrolled platforms of one domain, at one version."""

    v: Literal[1] = 1
    federation: Label
    domain: DomainName
    version: Count
    expires: Seconds
    prev_digest: Digest | None = None
    roots: Roots
    keys: Annotated[list[RoleKey], Field(min_length=1, max_length=64)]
    logs: Annotated[list[LogKey], Field(max_length=8)]
    witnesses: list[WitnessKey] = Field(default_factory=list, max_length=8)
    platforms: Annotated[list[Digest], Field(max_length=4096)]
    """Digests of CHIP_IDs, platform ids and GPU UEIDs (attestation.appraise.platform_digest)."""
    revoked: list[RevokedKey] = Field(default_factory=list, max_length=256)

    @model_validator(mode="after")
    def _one_key_one_role(self) -> DomainManifest:
        names = [key.thumbprint for key in self.keys]
        names += [VerifyKey.from_jwk(jwk).thumbprint for jwk in self.roots.keys]
        if len(set(names)) != len(names):
            raise ValueError("one key stands in two roles")
        for key in self.keys:
            if VerifyKey.from_jwk(key.jwk).thumbprint != key.thumbprint:
                raise ValueError("a thumbprint is not its key's")
        if self.roots.threshold > len(self.roots.keys):
            raise ValueError("the threshold exceeds the number of roots")
        notes = [log.vkey for log in self.logs] + [log.beside for log in self.logs if log.beside]
        keys = [_raw(vkey) for vkey in (*notes, *(witness.vkey for witness in self.witnesses))]
        if len(set(keys)) != len(keys):
            raise ValueError("one note key stands in two roles")
        return self


def _raw(vkey: str) -> str:
    """The key in a vkey text without name and type byte, enough to tell whether two are the same."""
    encoded = vkey.split("+", 2)[-1]
    try:
        return base64.b64decode(encoded, validate=True)[1:].hex()
    except ValueError:
        return encoded


def sign_manifest(manifest: DomainManifest, *roots: SigningKey) -> bytes:
    """A threshold-signed manifest envelope."""
    return envelope.sign(MANIFEST_TYPE, manifest.write(), *roots)


def verify_manifest(data: bytes, *, roots: Roots) -> DomainManifest:
    """The manifest, if enough of the *pinned* roots signed it and it names the same roots.

    Raises `Unreadable` or `Refused`. Expiry is judged by the caller, who has a time
    (`schemas.papers.trust`). A change of roots across versions is not accepted here: it needs the
    previous manifest, which the charter's next version carries.
    """
    keys = [VerifyKey.from_jwk(jwk) for jwk in roots.keys]
    verified = envelope.verify_threshold(data, MANIFEST_TYPE, keys, roots.threshold)
    manifest = DomainManifest.read(verified.payload)
    if manifest.roots != roots:
        raise Refused("manifest.roots", "the manifest names other roots than the charter pins")
    return manifest
