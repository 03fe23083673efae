"""The result as an EAT Attestation Result (draft-ietf-rats-ear), signed as a JWT (RFC 9711, 7519).

An EAR is its issuer's assertion. An auditor who wants proof re-appraises the raw evidence.
"""

from __future__ import annotations

import re
from typing import Final

import jwt

from attestation.result import AttestationResult, Check
from schemas.canonical import Json
from schemas.errors import Refused, Unreadable
from schemas.keys import SigningKey, VerifyKey

PROFILE: Final = "tag:github.com,2023:veraison/ear"
MEDIA_TYPE: Final = "eat+jwt"
MAX_TOKEN_BYTES: Final = 256 * 1024
_STATUS: Final = {"affirming": 2, "warning": 32, "contraindicated": 96, "none": 0}
"""AR4SI trust tiers (draft-ietf-rats-ar4si 2.3.2)."""

_VECTOR: Final = {
    "instance-identity": (
        "snp.chain", "snp.root", "snp.cert.", "snp.signature", "snp.azure.runtime_data", "snp.azure.key",
        "snp.azure.quote", "tdx.authenticity.", "tdx.parse.", "tdx.azure.runtime_data", "tdx.azure.key",
        "tdx.azure.quote", "gpu.chain.", "gpu.report.", "gpu.batch.distinct", "gpu.switch.pdi",
        "node.enrolment",
    ),
    "configuration": (
        "snp.policy.", "snp.host_data", "snp.vmpl", "tdx.policy.debug", "tdx.policy.profile",
        "tdx.policy.td_attributes", "tdx.policy.xfam", "tdx.policy.attributes", "tdx.policy.mrconfigid",
        "tdx.policy.mrowner", "tdx.policy.mrservicetd", "gpu.policy.", "gpu.batch.mode", "gpu.fabric.",
        "node.engine", "node.prompt_logging",
    ),
    "executables": (
        "snp.measurement", "snp.id_key", "snp.author_key", "snp.family_id", "snp.image_id",
        "snp.guest_svn", "snp.azure.pcrs", "tdx.azure.pcrs", "tdx.policy.mrtd", "tdx.policy.rtmr",
        "tdx.policy.mrenclave", "tdx.policy.mrsigner", "tdx.policy.isv", "tdx.event_log.", "gpu.fwid",
        "gpu.rim.", "gpu.measurements",
        "node.models", "node.engine_digest",
    ),
    "hardware": (
        "snp.tcb.", "snp.platform.", "snp.deny", "snp.crl", "snp.product_allowed", "tdx.tcb.",
        "tdx.collateral.", "tdx.policy.mrseam", "tdx.policy.platform", "gpu.revocation.",
    ),
    "sourced-data": (
        "snp.nonce", "snp.report_data", "snp.azure.nonce", "tdx.azure.nonce", "tdx.policy.nonce",
        "tdx.policy.report_data", "gpu.nonce",
        "gpu.binding", "gpu.challenge", "node.report_data", "node.challenge",
    ),
}  # fmt: skip
"""Which checks speak for which member of the AR4SI trustworthiness vector."""
_DEVICE: Final = re.compile(r"gpu\.device\d+\.")


def as_ear(result: AttestationResult) -> dict[str, Json]:
    """The EAR claims set, without the claims that only an issuer adds."""
    appraisal: dict[str, Json] = {
        "ear.status": result.verdict,
        "ear.trustworthiness-vector": {name: _tier(result, names) for name, names in _VECTOR.items()},
        "comity.reason": result.reason,
        "comity.platform": result.platform,
        "comity.simulated": result.simulated,
        "comity.evidence": result.identity.hex(),
        "comity.waived": list(result.waived),
    }
    if result.expectations_digest is not None:
        appraisal["ear.appraisal-policy-id"] = f"sha256:{result.expectations_digest.hex()}"
    return {"eat_profile": PROFILE, "submods": {result.tee: appraisal}}


def _tier(result: AttestationResult, names: tuple[str, ...]) -> int:
    """Affirming only where something was looked at and all of it held."""
    tiers = [_tier_of(check) for check in result.checks if _DEVICE.sub("gpu.", check.name).startswith(names)]
    judged = [tier for tier in tiers if tier is not None]
    return max(judged) if judged and 0 not in judged else (96 if 96 in judged else 0)


def _tier_of(check: Check) -> int | None:
    if check.status == "pass":
        return _STATUS["affirming"]
    return None if check.effect == "shown" else _STATUS[check.effect]


def sign_ear(
    result: AttestationResult, key: SigningKey, *, issuer: str, issued_at: int, lifetime: int
) -> str:
    """A JWT signed with ES256 by a domain's verifier key. `issued_at` POSIX seconds, `lifetime` seconds."""
    claims = {
        **as_ear(result),
        "iss": issuer,
        "iat": issued_at,
        "exp": issued_at + lifetime,
        "ear.verifier-id": {"developer": "Comity", "build": "comity"},
    }
    headers = {"typ": MEDIA_TYPE, "kid": key.thumbprint}
    return jwt.encode(claims, key.private, algorithm="ES256", headers=headers)


def verify_ear(token: str, key: VerifyKey, *, issuer: str, at: int) -> dict[str, Json]:
    """The claims of an EAR that this registered key signed, in date at `at`. Raises `ComityError`."""
    if len(token) > MAX_TOKEN_BYTES:
        raise Unreadable("ear.too_long", f"more than {MAX_TOKEN_BYTES} bytes")
    try:
        claims: dict[str, Json] = jwt.decode(
            token, key.public, algorithms=["ES256"], issuer=issuer,
            options={"require": ["iss", "iat", "exp"], "verify_exp": False, "verify_iat": False,
                     "verify_nbf": False, "verify_aud": False},
        )  # fmt: skip
    except jwt.InvalidSignatureError:
        raise Refused("ear.signature_invalid", "not signed by this verifier's key") from None
    except jwt.PyJWTError as error:
        raise Refused("ear.invalid", f"not an EAR of {issuer}: {type(error).__name__}") from None
    if claims.get("eat_profile") != PROFILE:
        raise Refused("ear.profile", "another profile")
    issued, expires = claims["iat"], claims["exp"]
    if not isinstance(issued, int) or not isinstance(expires, int) or not issued <= at < expires:
        raise Refused("ear.expired", "not in date")
    return claims
