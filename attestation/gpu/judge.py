"""Any form of NVIDIA evidence, from bytes to verdict (DESIGN 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attestation.gpu.appraise import Asked, appraise_device, conclude
from attestation.gpu.documents import gather
from attestation.gpu.forms import Devices, ManifestFile, TokenFile, unwrap
from attestation.gpu.node.devices import DeviceInput, appraise_devices, check_tokens, known_device
from attestation.gpu.nras.check import check_token
from attestation.gpu.nras.token import ServiceToken, read_token
from attestation.gpu.rim.issues import hold_root
from attestation.gpu.rim.manifest import Manifest, verify_manifest
from attestation.gpu.show import state_report
from attestation.gpu.spdm.report import read_report
from attestation.gpu.verify import date
from attestation.result import AttestationResult, Check, decide, failed, passed
from schemas.canonical import Json, sha256
from schemas.errors import Refused

_RIM: Final = "gpu.md 6; ISO 19770-2; xmldsig-core1"


def judge(evidence: bytes | Devices, *, endorsements: Sequence[bytes], asked: Asked) -> AttestationResult:
    """One device, several, a manifest or a token. Raises `Unreadable`."""
    match unwrap(evidence) if isinstance(evidence, bytes) else evidence:
        case ManifestFile(data):
            return _manifest(data, asked)
        case TokenFile(data):
            return _token(data, endorsements, asked)
        case Devices(inputs, together):
            return (
                _together(inputs, endorsements, asked) if together else _one(inputs[0], endorsements, asked)
            )


def _one(device: DeviceInput, common: Sequence[bytes], asked: Asked) -> AttestationResult:
    endorsements = (*device.endorsements, *common)
    found = appraise_device(device.report, endorsements=endorsements, asked=asked, state=device.state)
    tokens = check_tokens([device], [found], common, asked)
    if not tokens:
        return found.result
    result = found.result
    checks = (*result.checks, *tokens)
    verdict, reason = decide(checks)
    return result._replace(verdict=verdict, reason=reason, checks=checks)


def _together(inputs: Sequence[DeviceInput], common: Sequence[bytes], asked: Asked) -> AttestationResult:
    found = appraise_devices(inputs, common=common, asked=asked)
    identity = sha256(*(each.result.identity for each in found.devices if each is not None))
    platforms = sorted({each.result.platform for each in found.devices if each is not None})
    return conclude(
        found.checks, asked, identity, platform=" + ".join(platforms) or "nvidia-unknown",
        simulated=found.simulated, valid_until=found.valid_until,
        stated=lambda: {"devices": found.stated()},
    )  # fmt: skip


def state_evidence(data: bytes) -> dict[str, Json]:
    """What evidence in any form states, unverified but for a manifest. Raises `Unreadable`, `Refused`."""
    match unwrap(data):
        case Devices((device,), together=False):
            return state_report(read_report(device.report))
        case Devices(inputs):
            return {"devices": [state_report(read_report(each.report)) for each in inputs]}
        case ManifestFile(document):
            return _state(verify_manifest(document))
        case TokenFile(token):
            return _claims(read_token(token))


def _claims(token: ServiceToken) -> dict[str, Json]:
    return {
        "token": dict(token.overall.claims),
        "devices": {name: dict(part.claims) for name, part in token.devices.items()},
    }


def _manifest(data: bytes, asked: Asked) -> AttestationResult:
    """A manifest by itself: is it NVIDIA's, and in date? Whether it fits a device is not asked."""
    rules = asked.rules.manifests
    name, wanted = "gpu.rim.document", "signed under the pinned root, in date"
    checks: list[Check]
    stated: dict[str, Json] = {}
    try:
        manifest = verify_manifest(data)
        stated = _state(manifest)
        hold_root(manifest, rules, asked.at.timestamp())
    except Refused as error:
        checks = [failed(name, error.code, error.text, wanted, _RIM)]
        return conclude(checks, asked, sha256(data), platform="nvidia-manifest", stated=lambda: stated)
    seen = f"{manifest.product} {manifest.edition} {manifest.version}, {len(manifest.golden)} values"
    pin = rules.roots.pin_of(manifest.chain[-1], "manifest")
    until = min(each.not_after for each in manifest.chain)
    return conclude(
        [passed(name, seen, wanted, _RIM)], asked, sha256(data), platform="nvidia-manifest",
        stated=lambda: stated, simulated=pin.simulated, valid_until=until,
    )  # fmt: skip


def _state(manifest: Manifest) -> dict[str, Json]:
    return {
        "name": manifest.name,
        "product": manifest.product,
        "edition": manifest.edition,
        "version": manifest.version,
        "tag_id": manifest.tag_id,
        "sha256": manifest.digest,
        "signer": manifest.chain[0].common_name,
        "valid_from": date(max(each.not_before for each in manifest.chain)),
        "valid_until": date(min(each.not_after for each in manifest.chain)),
        "active_indices": [*sorted(manifest.golden)],
    }


def _token(data: bytes, endorsements: Sequence[bytes], asked: Asked) -> AttestationResult:
    """A service token by itself, and against the raw evidence where that is offered (a service request)."""
    offered = gather(tuple(endorsements))
    inputs = [DeviceInput(report, (chain,)) for report, chain in offered.devices]
    found = appraise_devices(inputs, common=(), asked=asked) if inputs else None
    known = None if found is None else [known_device(each) for each in found.devices if each is not None]
    devices = None if known is None else [each for each in known if each is not None]
    token = check_token(
        data, offered.key_sets, devices, asked.rules.roots, asked.at.timestamp(), nonce=asked.nonce
    )
    claims = {} if token.token is None else _claims(token.token)
    return conclude(token.checks, asked, sha256(data), platform="nvidia-service", stated=lambda: claims)
