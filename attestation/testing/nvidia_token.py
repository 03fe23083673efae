"""Service tokens and key sets of a made-up attestation service, with any of it put wrong (RFC 7515, 9711)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, cast

from attestation.testing.nvidia import ISSUES, NOW, Certified, GpuForge, key, sign
from attestation.testing.nvidia_node import SWITCH_VBIOS, VBIOS
from schemas.canonical import Json, sha256, write_json

ISSUER: Final = "https://nras.attestation.nvidia.com"
KEY_ID: Final = "nv-eat-kid-forge"
CLAIMS: Final = (
    "driver-rim-fetched",
    "vbios-rim-fetched",
    "attestation-report-signature-verified",
    "arch-check",
)


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(header: Mapping[str, Json], claims: Mapping[str, Json], signer: str | None) -> str:
    """A compact token; without a signer its signature is empty."""
    signed = f"{part(write_json(dict(header)))}.{part(write_json(dict(claims)))}"
    return f"{signed}.{part(sign(signer, signed.encode())) if signer else ''}"


@dataclass(frozen=True)
class TokenForge:
    """A token about some devices, good until a field is replaced."""

    devices: Sequence[GpuForge] = (GpuForge(),)
    header: Mapping[str, Json] = field(default_factory=dict)
    overall: Mapping[str, Json] = field(default_factory=dict)
    claims: Mapping[str, Json] = field(default_factory=dict)
    """Claims of the first device's token that differ; None leaves one out."""
    signer: str | None = "service leaf"
    device_signer: str | None = "service leaf"
    digest_name: str = "SHA-256"
    submods: Mapping[str, Json] = field(default_factory=dict)
    leaf: Mapping[str, Any] = field(default_factory=dict)
    """What the leaf's certificate says differently."""
    jwk: Mapping[str, Json] = field(default_factory=dict)
    """Members of the key that differ."""
    keys: int = 1
    """How many keys of that id stand in the set, the second one another's."""

    def token(self) -> bytes:
        """`[["JWT", overall], {name: jwt}]`."""
        header: dict[str, Json] = {"kid": KEY_ID, "alg": "ES384", **self.header}
        parts = {
            f"{device.kind.upper()}-{n}": self._device(n, device, header)
            for n, device in enumerate(self.devices)
        }
        digests: dict[str, Json] = {
            name: ["DIGEST", [self.digest_name, sha256(text.encode()).hex()]] for name, text in parts.items()
        }
        claims: dict[str, Json] = {
            **self._common(), "sub": "NVIDIA-PLATFORM-ATTESTATION", "x-nvidia-ver": "2.0",
            "x-nvidia-overall-att-result": True, "submods": {**digests, **self.submods}, **self.overall,
        }  # fmt: skip
        return write_json([["JWT", jwt(header, claims, self.signer)], cast(Json, parts)])

    def _common(self) -> dict[str, Json]:
        issued = int(NOW.timestamp()) - 60
        nonce = self.devices[0].nonce.hex()
        return {"iss": ISSUER, "iat": issued, "nbf": issued, "exp": issued + 3600, "eat_nonce": nonce}

    def _device(self, number: int, device: GpuForge, header: Mapping[str, Json]) -> str:
        versions: dict[str, Json] = (
            {"x-nvidia-switch-bios-version": SWITCH_VBIOS}
            if device.kind == "switch"
            else {"x-nvidia-gpu-driver-version": device.driver, "x-nvidia-gpu-vbios-version": VBIOS.upper()}
        )
        claims: dict[str, Json] = {
            **self._common(), "measres": "success", "secboot": True, "dbgstat": "disabled",
            "ueid": str(device.certified()["leaf"].serial), "hwmodel": device.chip, **versions,
            **{f"x-nvidia-{device.kind}-{name}": True for name in CLAIMS},
        }  # fmt: skip
        merged = {**claims, **(self.claims if number == 0 else {})}
        kept = {name: value for name, value in merged.items() if value is not None}
        return jwt(header, kept, self.device_signer)

    def certified(self) -> tuple[Certified, Certified]:
        """The service's leaf and intermediate; the latter's key is what a relying party pins."""
        day, upper = timedelta(days=1), "NVIDIA Attestation Service GPU Intermediate 004"
        leaf = Certified("NVIDIA Attestation Service GPU GH100", "service leaf", upper, "service", 5, None,
                         ("digital_signature",), not_before=NOW - day, not_after=NOW + day)  # fmt: skip
        return Certified(**{**vars(leaf), **self.leaf}), Certified(
            upper, "service", upper, "service", 4, True, ISSUES
        )

    def key_set(self) -> bytes:
        """The archived set."""
        numbers = key("service leaf").public_key().public_numbers()
        good: dict[str, Json] = {
            "kty": "EC", "crv": "P-384", "kid": KEY_ID,
            "x5c": [base64.b64encode(each.der()).decode() for each in self.certified()],
            "x": part(numbers.x.to_bytes(48)), "y": part(numbers.y.to_bytes(48)), **self.jwk,
        }  # fmt: skip
        return write_json({"keys": [good, *({**good, "use": str(n)} for n in range(1, self.keys))]})
