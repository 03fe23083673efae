"""What a service token is worth: its signature, its time, its devices, and what it says of them (gpu.md 9).

A token is a hint beside our own verdict. A good signature alone means nothing: a token that says "failed" is
signed as well, and one for other devices too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from attestation.gpu.nras.keys import ServiceKey, find_key
from attestation.gpu.nras.token import Jwt, ServiceToken, read_token
from attestation.gpu.pki.roots import Roots
from attestation.gpu.pki.signature import verify_raw
from attestation.gpu.verify import from_error
from attestation.result import Check, Verdict, compared, failed, not_evaluated, passed, undecided
from schemas.canonical import Json, sha256
from schemas.errors import Refused, Undecided

ISSUER: Final = "https://nras.attestation.nvidia.com"
SUBJECT: Final = "NVIDIA-PLATFORM-ATTESTATION"
VERSIONS: Final = frozenset({"2.0", "3.0"})
CLOCK_TOLERANCE: Final = 60  # seconds between the service's clock and ours
_DIGEST: Final = "SHA-256"  # NVIDIA's local verifier writes SHA256, and is no service
_CLAUSE: Final = "gpu.md 9; RFC 9711; RFC 7519"
_CLAIMED: Final[dict[str, Json]] = {"measres": "success", "secboot": True, "dbgstat": "disabled"}
_STATUS: Final = {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "good"}
_PREFIXES: Final = ("x-nvidia-gpu-", "x-nvidia-switch-")


@dataclass(frozen=True, slots=True)
class Device:
    """What we ourselves know of a device that a token may speak of."""

    kind: str
    """`gpu` or `switch`."""
    ueid: str
    nonce: bytes
    driver: str | None
    vbios: str | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class TokenAppraisal:
    """The checks, and the token where it could be read."""

    checks: list[Check]
    token: ServiceToken | None


def check_token(
    data: bytes, key_sets: Sequence[bytes], devices: Sequence[Device] | None, roots: Roots, at: float,
    *, nonce: bytes | None,
) -> TokenAppraisal:  # fmt: skip
    """Verify a token against archived key sets. Never raises.

    devices: the raw evidence at hand, of which the token must be about every GPU, or every switch, or both;
    None = there is none. nonce: our challenge.
    1. form and algorithm; 2. key; 3. signatures; 4. time; 5. digests; 6. nonce; 7. devices; 8. what it says;
    9. against our own verdict.
    """
    try:
        token = read_token(data)
    except Refused as error:
        return TokenAppraisal([from_error("gpu.nras.form", error, "a service token", _CLAUSE)], None)
    if devices is not None:
        devices = [each for each in devices if each.kind in token.kinds]
    key, keys = _key(token, tuple(key_sets), roots)
    return TokenAppraisal(
        [
            passed("gpu.nras.form", f"{len(token.devices)} devices", "a service token", _CLAUSE),
            *keys,
            _signatures(token, key),
            _issuer(token),
            _time(token, at),
            _digests(token),
            _nonce(token, nonce, devices),
            _devices(token, devices),
            _result(token),
            _agreement(token, devices),
        ],
        token,
    )


def _key(
    token: ServiceToken, key_sets: tuple[bytes, ...], roots: Roots
) -> tuple[ServiceKey | None, list[Check]]:
    wanted, anchor = "one certified key", "a pinned certificate above it"
    issued = token.overall.claims.get("iat")
    try:
        key = find_key(key_sets, token.overall.key_id, issued if type(issued) is int else -1, roots)
    except (Refused, Undecided) as error:
        return None, [from_error("gpu.nras.key", error, wanted, _CLAUSE)]
    seen = f"{key.chain[0].common_name}, by {key.chain[1].common_name}"
    found = passed("gpu.nras.key", seen, wanted, _CLAUSE)
    if key.pin is None:
        spki = key.chain[1].spki_fingerprint
        return key, [found, undecided("gpu.nras.anchor", "gpu.nras_anchor_unpinned", spki, anchor, _CLAUSE)]
    return key, [found, passed("gpu.nras.anchor", key.pin.name, anchor, _CLAUSE)]


def _signatures(token: ServiceToken, key: ServiceKey | None) -> Check:
    """The overall token and every device's, all under one key."""
    name, wanted = "gpu.nras.signatures", "all by one key of the service"
    if key is None:
        return not_evaluated(name, "no key", _CLAUSE)
    for part in _all(token):
        try:
            if part.key_id != token.overall.key_id:
                raise Refused("nras", "a device token under another key")
            verify_raw(key.public, part.signature, part.signed)
        except Refused as error:
            return failed(name, "gpu.nras_signature_invalid", error.text, wanted, _CLAUSE)
    return passed(name, f"{1 + len(token.devices)} signatures", wanted, _CLAUSE)


def _all(token: ServiceToken) -> list[Jwt]:
    return [token.overall, *token.devices.values()]


def _issuer(token: ServiceToken) -> Check:
    claims = token.overall.claims
    stated = [
        claims.get("sub"),
        claims.get("x-nvidia-ver"),
        *(part.claims.get("iss") for part in _all(token)),
    ]
    holds = stated[0] == SUBJECT and stated[1] in VERSIONS and all(each == ISSUER for each in stated[2:])
    seen = f"{stated[2]}, {stated[0]}, version {stated[1]}"
    return compared("gpu.nras.issuer", "gpu.nras_malformed", holds, seen, f"{ISSUER}, {SUBJECT}", _CLAUSE)


def _time(token: ServiceToken, at: float) -> Check:
    """nbf <= time < exp, of every part (RFC 7519 4.1.4, 4.1.5)."""
    name = "gpu.nras.time"
    for part in _all(token):
        starts, ends = part.claims.get("nbf"), part.claims.get("exp")
        if type(starts) is not int or type(ends) is not int:
            return failed(name, "gpu.nras_malformed", "no nbf or exp", "times in whole seconds", _CLAUSE)
        wanted = f"from {_date(starts)} until {_date(ends)}"
        if at < starts - CLOCK_TOLERANCE:
            return failed(name, "gpu.nras_token_not_yet_valid", _date(at), wanted, _CLAUSE)
        if at >= ends:
            return failed(name, "gpu.nras_token_expired", _date(at), wanted, _CLAUSE)
    return passed(name, _date(at), "in date", _CLAUSE)


def _date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"


def _digests(token: ServiceToken) -> Check:
    """Every submodule has its token, and every token is a submodule (RFC 9711 4.2.18.2)."""
    name, wanted = "gpu.nras.digests", "the digest of every device token, and no other"
    submods = token.overall.claims.get("submods")
    expected: dict[str, Json] = {
        device: ["DIGEST", [_DIGEST, sha256(part.compact.encode()).hex()]]
        for device, part in token.devices.items()
    }
    holds = submods == expected
    return compared(name, "gpu.nras_digest_mismatch", holds, f"{len(expected)} devices", wanted, _CLAUSE)


def _nonce(token: ServiceToken, nonce: bytes | None, devices: Sequence[Device] | None) -> Check:
    """One nonce throughout: in every part, in every report, and ours where we have one."""
    name = "gpu.nras.nonce"
    stated = {str(part.claims.get("eat_nonce")).lower() for part in _all(token)}
    asked = {device.nonce.hex() for device in devices or ()} | ({nonce.hex()} if nonce is not None else set())
    seen = ", ".join(sorted(stated))[:200]
    if len(stated) != 1 or (asked and asked != stated):
        return failed(name, "gpu.nras_nonce_mismatch", seen, ", ".join(sorted(asked)) or "one nonce", _CLAUSE)
    if not asked:
        return not_evaluated(name, f"no challenge was given: {seen}", _CLAUSE)
    return passed(name, seen, "our challenge", _CLAUSE)


def _devices(token: ServiceToken, devices: Sequence[Device] | None) -> Check:
    """Each device of the token is one of ours, one to one, with the versions that its report states."""
    name, wanted = "gpu.nras.devices", "exactly the devices whose reports are at hand"
    claimed = sorted(_identity(part.claims) for part in token.devices.values())
    if devices is None:
        return not_evaluated(
            name, f"no reports at hand: {', '.join(each[0] for each in claimed)}"[:200], _CLAUSE
        )
    ours = sorted((each.ueid, each.driver or "", (each.vbios or "").lower()) for each in devices)
    seen = f"{len(claimed)} devices, {len(set(claimed) & set(ours))} of them ours"
    return compared(name, "gpu.nras_device_mismatch", claimed == ours, seen, wanted, _CLAUSE)


def _identity(claims: Mapping[str, Json]) -> tuple[str, str, str]:
    versions = [
        _one(claims, f"{prefix}{what}-version") for what in ("driver", "vbios") for prefix in _PREFIXES
    ]
    bios = _one(claims, "x-nvidia-switch-bios-version")
    driver, vbios = versions[0] or versions[1], versions[2] or versions[3] or bios
    return str(claims.get("ueid")), driver, vbios.lower()


def _one(claims: Mapping[str, Json], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def _result(token: ServiceToken) -> Check:
    """The overall result is true, and so is everything that each device's token says."""
    name, wanted = "gpu.nras.result", "true overall and in every claim"
    if token.overall.claims.get("x-nvidia-overall-att-result") is not True:
        return failed(name, "gpu.nras_result_false", "overall", wanted, _CLAUSE)
    for device, part in token.devices.items():
        bad = unfavourable(part.claims)
        if bad:
            return failed(name, "gpu.nras_result_false", f"{device}: {', '.join(bad)}"[:200], wanted, _CLAUSE)
    return passed(name, f"true for {len(token.devices)} devices", wanted, _CLAUSE)


def unfavourable(claims: Mapping[str, Json]) -> list[str]:
    """The names of claims that speak against a device; absence of a needed one does too."""
    found = [name for name, wanted in _CLAIMED.items() if claims.get(name) != wanted]
    for name, value in claims.items():
        if not name.startswith(_PREFIXES):
            continue
        if value is False:
            found.append(name)
        elif isinstance(value, dict):  # version 3: a chain's standing, and whether its answers were fresh
            found += [f"{name}.{key}" for key, good in _STATUS.items() if value.get(key) != good]
            found += [f"{name}.{key}" for key, said in value.items() if said is False]
    if not any(value is True for name, value in claims.items() if name.startswith(_PREFIXES)):
        found.append("no device claims")
    return found


def _agreement(token: ServiceToken, devices: Sequence[Device] | None) -> Check:
    """The service says good, we say bad: one of us is being lied to (gpu.md 9 point 8)."""
    name, wanted = "gpu.nras.agreement", "no contradiction with our own verdict"
    if devices is None:
        return not_evaluated(name, "no verdict of our own", _CLAUSE)
    ours = {device.ueid: device.verdict for device in devices}
    for part in token.devices.values():
        ueid = str(part.claims.get("ueid"))
        favourable, own = not unfavourable(part.claims), ours.get(ueid)
        if (favourable and own == "contraindicated") or (not favourable and own == "affirming"):
            seen = f"{ueid}: {'good' if favourable else 'bad'} there, {own} here"
            return failed(name, "gpu.nras_contradicts_local", seen, wanted, _CLAUSE)
    return passed(name, f"{len(ours)} devices", wanted, _CLAUSE)
