"""Several devices in one call: each with a full verdict, then together (gpu.md 11).

Nothing is shared between devices but what is the same for the same bytes: links that the devices of one
family have in common are verified once, and equal measurements are compared once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from attestation.gpu.appraise import Asked, DeviceAppraisal, begin_device
from attestation.gpu.documents import MAX_TOKENS, gather
from attestation.gpu.node.batch import check_batch
from attestation.gpu.node.fabric import check_fabric
from attestation.gpu.nras.check import Device, check_token
from attestation.gpu.side import SideBySide, Start
from attestation.gpu.spdm.opaque import DRIVER
from attestation.gpu.verify import read_ahead
from attestation.result import Check, compared, failed, not_evaluated, undecided
from schemas.canonical import Json
from schemas.errors import Refused, Unreadable
from schemas.proof.evidence import DeviceState

MAX_DEVICES: Final = 64
_UNPROVEN: Final = ("gpu.nras.form", "gpu.nras.key", "gpu.nras.anchor", "gpu.nras.time")
"""Checks of a token that say whether it counts at all; as a hint, one that does not count changes nothing."""


@dataclass(frozen=True, slots=True)
class DeviceInput:
    """One device's evidence as it came."""

    report: bytes
    endorsements: tuple[bytes, ...] = ()
    """Its own chain, and whatever came with it."""
    kind: Literal["gpu", "switch"] | None = None
    """What it was said to be; None = nothing was said."""
    state: DeviceState | None = None
    """What the attested guest says of it; only for a caller that has verified the guest."""


@dataclass(frozen=True, slots=True)
class DevicesAppraisal:
    """What came of all devices."""

    checks: list[Check]
    devices: list[DeviceAppraisal | None]
    """None where the bytes are no report."""
    valid_until: float | None
    """POSIX seconds: the earliest end of anything that any of them rests on; None where one has none."""
    simulated: bool

    @property
    def nonces(self) -> list[bytes | None]:
        return [each.report.nonce if each and each.report else None for each in self.devices]

    def stated(self) -> list[Json]:
        """What each device states, with its own verdict."""
        return [
            None if each is None else {"verdict": each.result.verdict, "reason": each.result.reason,
                                       **each.result.stated()}
            for each in self.devices
        ]  # fmt: skip


def appraise_devices(
    inputs: Sequence[DeviceInput], *, common: Sequence[bytes], asked: Asked
) -> DevicesAppraisal:
    """Appraise all. common: collateral for all of them. Raises `Unreadable` for too many.

    1. read every chain, then each device, before the first signature is checked; 2. judge each; 3. all
    together; 4. service tokens.
    """
    if len(inputs) > MAX_DEVICES:
        raise Unreadable("gpu.too_many_devices", f"{len(inputs)} devices, at most {MAX_DEVICES}")
    for device in inputs:
        for chain in gather((*device.endorsements, *common)).chains[:1]:
            with suppress(Refused):  # found anew, and told, with its device
                read_ahead(chain)
    devices: list[DeviceAppraisal | None] = []
    checks: list[Check] = []
    start = SideBySide()
    begun = [_begin(device, common, asked, start) for device in inputs]
    with start:
        for position, (device, finish) in enumerate(zip(inputs, begun, strict=True)):
            appraisal, found = _one(device, position, finish)
            devices.append(appraisal)
            checks += found
    known = [each for each in devices if each is not None]
    policy = asked.rules
    checks += check_batch(known, len(inputs), policy)
    checks += check_fabric(known, policy.fabric)
    checks += check_tokens(inputs, known, common, asked)
    ends = [each.result.valid_until for each in known]
    complete = [each for each in ends if each is not None]
    whole = bool(complete) and len(complete) == len(inputs)
    return DevicesAppraisal(
        checks, devices, min(complete) if whole else None, any(each.result.simulated for each in known)
    )


def _begin(
    device: DeviceInput, common: Sequence[bytes], asked: Asked, start: Start
) -> Callable[[], DeviceAppraisal] | Unreadable:
    """It has been read; or why there is nothing to appraise."""
    endorsements = (*device.endorsements, *common)
    try:
        return begin_device(
            device.report, endorsements=endorsements, asked=asked, state=device.state, start=start
        )
    except Unreadable as error:
        return error


def _one(
    device: DeviceInput, position: int, finish: Callable[[], DeviceAppraisal] | Unreadable
) -> tuple[DeviceAppraisal | None, list[Check]]:
    """A device with its checks, named by its position."""
    if isinstance(finish, Unreadable):
        name, wanted = f"gpu.device{position}.report.form", "one report and nothing else"
        return None, [failed(name, finish.code, finish.text, wanted, "gpu.md 1")]
    found = finish()
    return found, [*found.numbered(position), *_kind(device, position, found)]


def _kind(device: DeviceInput, position: int, found: DeviceAppraisal) -> list[Check]:
    if device.kind is None or found.family is None:
        return []
    seen = found.family.kind
    holds = seen == device.kind
    name = f"gpu.device{position}.kind"
    return [compared(name, "gpu.chain_family_mismatch", holds, seen, device.kind, "gpu.md 3")]


def check_tokens(
    inputs: Sequence[DeviceInput], devices: Sequence[DeviceAppraisal], common: Sequence[bytes], asked: Asked
) -> list[Check]:
    """Service tokens that came along: a hint beside our own verdict, unless policy demands one (gpu.md 9)."""
    policy = asked.rules
    offered = [gather((*one.endorsements, *common)) for one in inputs]  # as each device's were: kept
    tokens = list(dict.fromkeys(token for each in offered for token in each.tokens))
    keys = list(dict.fromkeys(data for each in offered for data in each.key_sets))
    if not tokens:
        if policy.token != "required":  # noqa: S105 - a word, not a secret
            return []
        return [undecided("gpu.nras.form", "gpu.nras_unavailable", "none", "a service token", "gpu.md 9")]
    ours = [each for each in map(known_device, devices) if each is not None]
    checks: list[Check] = []
    spoken_of: set[str] = set()
    for token in tokens[:MAX_TOKENS]:
        found = check_token(token, keys, ours, policy.roots, asked.at.timestamp(), nonce=asked.nonce)
        checks += found.checks if policy.token == "required" else _as_hint(found.checks)  # noqa: S105
        spoken_of |= found.token.kinds if found.token is not None else set()
    missing = sorted({each.kind for each in ours} - spoken_of)
    if missing and policy.token == "required":  # noqa: S105
        seen = f"none about any {' or '.join(missing)}"
        checks.append(
            undecided("gpu.nras.kinds", "gpu.nras_unavailable", seen, "a token for all", "gpu.md 9")
        )
    return checks


def known_device(found: DeviceAppraisal) -> Device | None:
    """What a token must agree with; None where the report or its chain could not be read."""
    if found.report is None or found.chain is None:
        return None
    opaque = found.report.opaque
    ueid, nonce, verdict = found.chain.ueid, found.report.nonce, found.result.verdict
    kind = "switch" if opaque.is_switch else "gpu"
    return Device(kind, ueid, nonce, opaque.text(DRIVER), opaque.vbios, verdict)


def _as_hint(checks: Sequence[Check]) -> list[Check]:
    """A token that cannot be used is passed over by name; one that holds may still contradict us."""
    unusable = [check for check in checks if check.name in _UNPROVEN and check.status != "pass"]
    if not unusable:
        return list(checks)
    why = f"not used as a hint: {unusable[0].code}"
    return [not_evaluated(check.name, f"{why}; {check.seen}", check.clause) for check in checks]
