"""One NVIDIA device, from bytes to verdict (DESIGN 7; gpu.md 14).

Bytes and a time go in, a result comes out; no I/O, no clock, nothing kept between devices but what is the
same for the same bytes. All checks run that can, in the order in which their reasons rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from typing import Final

from attestation.gpu.documents import CACHED_OFFERS, Offered, gather
from attestation.gpu.expected import DEFAULT, GpuPolicy
from attestation.gpu.kept import Kept, may_keep, next_change, room_of_device
from attestation.gpu.pki.chain import DeviceChain, Family
from attestation.gpu.pki.signature import verify_report
from attestation.gpu.policy import check_demands
from attestation.gpu.revocation.check import Held, Subject, begin_revocation, check_revocation, read_offered
from attestation.gpu.rim.check import check_manifests, read_manifests
from attestation.gpu.rim.issues import Chosen
from attestation.gpu.show import state_device
from attestation.gpu.side import SideBySide, Start
from attestation.gpu.spdm.firmware import Firmware
from attestation.gpu.spdm.report import Report, is_report, read_next, read_report, standing_of
from attestation.gpu.verify import Origin, authenticate, check_nonce, check_signature
from attestation.result import AttestationResult, Check, decide, failed, renamed
from schemas.canonical import Json, sha256
from schemas.errors import ComityError, Refused
from schemas.proof.evidence import DeviceState

NUMBERED_NAMES: Final = 256  # lists of some 40 checks, for each of 64 devices
_DIFFERING: Final = ("gpu.nonce", "gpu.report.signature")
"""Checks of which every report has its own."""
_KEPT_VERDICTS: Final = ("affirming", "warning")
MAX_TRIED_CHAINS: Final = 16  # chains tried where several devices' lie in one folder


@dataclass(frozen=True, slots=True)
class Asked:
    """What devices are held to; several in one call, alike."""

    policy: GpuPolicy | None
    """None = no reference values are demanded."""
    expectations_digest: bytes | None
    waived: tuple[str, ...]
    nonce: bytes | None
    """Our challenge (32 bytes)."""
    waive_revocation: bool
    at: datetime

    @property
    def rules(self) -> GpuPolicy:
        """By which everything is read, whether or not anything is demanded."""
        return self.policy or DEFAULT


@dataclass(frozen=True, slots=True)
class DeviceAppraisal:
    """A result with what was read, for callers that bind devices together."""

    result: AttestationResult
    report: Report | None
    chain: DeviceChain | None
    family: Family | None
    chosen: tuple[Chosen, ...]
    common: dict[int, list[Check]]
    """Position → checks, shared by all reports of this device that were judged by one finding."""

    def numbered(self, position: int) -> list[Check]:
        """The checks as those of a node's n-th device: `gpu.chain.root` becomes `gpu.device2.chain.root`."""
        common = self.common.get(position)
        if common is not None:
            own = {check.name: check for check in _numbered(_differing(self.result.checks), position)}
            return [own.get(check.name, check) for check in common]
        return self.common.setdefault(position, _numbered(self.result.checks, position))


def appraise_device(
    evidence: bytes, *, endorsements: Sequence[bytes], asked: Asked, state: DeviceState | None
) -> DeviceAppraisal:
    """Appraise one report. Raises `Unreadable` when the bytes are no report.

    state: what the attested guest says of its GPU; only a caller that has verified the guest may pass it.
    """
    checks = SideBySide()
    finish = begin_device(evidence, endorsements=endorsements, asked=asked, state=state, start=checks)
    with checks:
        return finish()


def begin_device(
    evidence: bytes, *, endorsements: Sequence[bytes], asked: Asked, state: DeviceState | None, start: Start
) -> Callable[[], DeviceAppraisal]:
    """As `appraise_device`, up to the first signature: what comes back judges.

    1. is it known; 2. chain and report, whose signature checks are noted; 3. everything else is read: a
    signature leaves the processor's caches cold for what reads, and reading keeps other threads waiting.
    """
    documents, moment = tuple(endorsements), asked.at.timestamp()
    offered = gather(documents)
    room = None
    if may_keep(evidence, documents):
        room = room_of_device(
            standing_of(evidence), offered, state, asked.policy, asked.expectations_digest, asked.waived,
            asked.waive_revocation, asked.nonce is not None,
        )  # fmt: skip
        if (known := room.at(moment)) is not None:
            return partial(_next, known, evidence, asked.nonce, asked.at)
    rules = asked.rules
    origin = authenticate(
        evidence, _chain_for(evidence, offered), rules.roots, moment,
        nonce=asked.nonce, padding=rules.padding, fwid=rules.fwid, start=start,
    )  # fmt: skip
    read_manifests(_firmware(origin), origin.family, offered.manifests)
    begin_revocation(_held(offered), _subjects(origin, (), rules), start)
    return _Read(evidence, offered, origin, asked, state, room, start).appraise


@dataclass(frozen=True, slots=True)
class _Read:
    """A device of which everything was read, and whose signature checks are noted."""

    evidence: bytes
    offered: Offered
    origin: Origin
    asked: Asked
    state: DeviceState | None
    room: Kept | None
    """Where the appraisal is kept, if it holds; None = what was offered is too large for that."""
    start: Start

    def appraise(self) -> DeviceAppraisal:
        """Its appraisal, kept for the device's next report."""
        found = self._judge()
        chain, holds = found.chain, found.result.verdict in _KEPT_VERDICTS
        # What fails is found anew each time; among several chains a signature decides which one counts.
        if self.room is not None and holds and chain is not None and len(self.offered.chains) == 1:
            moment, expired_days = self.asked.at.timestamp(), self.asked.rules.rim_expired_days
            until = next_change(self.offered, _held(self.offered), chain, expired_days, moment)
            self.room.keep(found, moment, until)
        return found

    def _judge(self) -> DeviceAppraisal:
        """1. manifests and measurements; 2. revocation; 3. the origin's signatures; 4. demands, if any."""
        offered, origin, asked = self.offered, self.origin, self.asked
        rules, moment = asked.rules, asked.at.timestamp()
        manifests, chosen = check_manifests(
            _firmware(origin), origin.family, offered.manifests, rules.manifests, moment
        )
        revocation, ends = check_revocation(
            _held(offered), _subjects(origin, chosen, rules), moment,
            waived=asked.waive_revocation or rules.revocation == "any", start=self.start,
        )  # fmt: skip
        *early, pdi = origin.checks()
        checks = [*_documents(offered), *early, *revocation, *manifests, pdi]
        if asked.policy is not None:
            checks += check_demands(origin.report, origin.family, self.state, asked.policy)
        result = self._concluded(chosen, ends, checks)
        return DeviceAppraisal(result, origin.report, origin.chain, origin.family, chosen, {})

    def _concluded(
        self, chosen: Sequence[Chosen], ends: dict[str, float], checks: list[Check]
    ) -> AttestationResult:
        origin = self.origin
        report, chain, family = origin.report, origin.chain, origin.family
        if chain is not None:
            ends = {**ends, "chain": min(each.not_after for each in chain.certificates)}
        for each in chosen:
            if each.manifest is not None and not each.expired:
                ends[f"{each.slot.name} manifest"] = each.manifest.ends
        pins = [origin.pin, *(each.pin for each in chosen)]
        simulated = any(pin is not None and pin.simulated for pin in pins)
        platform = f"nvidia-{family.chip.lower()}" if family is not None and origin.pin else "nvidia-unknown"
        return conclude(
            checks,
            self.asked,
            report.identity if report is not None else sha256(self.evidence),
            platform=platform,
            stated=lambda: state_device(report, chain, family, chosen),
            simulated=simulated,
            valid_until=min(ends.values()) if ends else None,
        )


def conclude(
    checks: Sequence[Check],
    asked: Asked,
    identity: bytes,
    *,
    platform: str,
    stated: Callable[[], dict[str, Json]],
    simulated: bool = False,
    valid_until: float | None = None,
) -> AttestationResult:
    """What all checks come to, of a device or of a document beside it. valid_until: POSIX seconds."""
    verdict, reason = decide(checks)
    named = ("revocation",) if asked.waive_revocation else ()
    return AttestationResult(
        tee="nvidia",
        verdict=verdict,
        reason=reason,
        checks=tuple(checks),
        at=asked.at,
        identity=identity,
        platform=f"simulated-{platform}" if simulated and not platform.startswith("simulated-") else platform,
        simulated=simulated,
        expectations_digest=asked.expectations_digest,
        valid_until=valid_until,
        waived=(*named, *asked.waived),
        stated=stated,
    )


def _firmware(origin: Origin) -> Firmware | None:
    return None if origin.report is None else origin.report.firmware


def _next(known: DeviceAppraisal, data: bytes, nonce: bytes | None, at: datetime) -> DeviceAppraisal:
    """A report of the standing of `known`, judged by what it may differ in."""
    assert known.report is not None
    report, result = read_next(known.report, data), known.result
    new = {check.name: check for check in (check_nonce(report, nonce), check_signature(report, known.chain))}
    checks = tuple([new.get(check.name, check) for check in result.checks])
    verdict, reason = result.verdict, result.reason
    if any(check.effect != "shown" for check in new.values()):
        verdict, reason = decide(checks)
    stated = partial(state_device, report, known.chain, known.family, known.chosen)
    changed = result._replace(
        verdict=verdict, reason=reason, checks=checks, at=at, identity=report.identity, stated=stated
    )
    return DeviceAppraisal(changed, report, known.chain, known.family, known.chosen, known.common)


def _differing(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if check.name in _DIFFERING]


def _numbered(checks: Sequence[Check], position: int) -> list[Check]:
    return renamed(checks, _names(tuple([check.name for check in checks]), position))


@lru_cache(maxsize=NUMBERED_NAMES)
def _names(names: tuple[str, ...], position: int) -> list[str]:
    return [f"gpu.device{position}.{name.removeprefix('gpu.')}" for name in names]


def _documents(offered: Offered) -> list[Check]:
    """What cannot be read as collateral refuses; it is never passed over."""
    if offered.problem is None:
        return []
    error = offered.problem
    wanted = "a chain, manifests, OCSP, CRLs, key sets, tokens"
    return [failed("gpu.documents", error.code, error.text, wanted, "gpu.md 3, 6, 8, 9")]


def _chain_for(evidence: bytes, offered: Offered) -> tuple[bytes, ...] | None:
    """The device's own chain: among several, the one whose leaf signed this report; else the first."""
    if len(offered.chains) < 2:
        return offered.chains[0] if offered.chains else None
    if not is_report(evidence):
        return offered.chains[0]
    try:
        report = read_report(evidence)
    except Refused:
        return offered.chains[0]
    for chain in offered.chains[:MAX_TRIED_CHAINS]:
        try:
            verify_report(chain[0], report.signature, report.signed)
        except ComityError:
            continue
        return chain
    return offered.chains[0]


@lru_cache(maxsize=CACHED_OFFERS)
def _held(offered: Offered) -> Held:
    return read_offered(offered.responses, offered.crls)


def _subjects(origin: Origin, chosen: Sequence[Chosen], rules: GpuPolicy) -> list[Subject]:
    """Which certificates one asks about: not the leaf, which no responder knows, nor the roots (gpu.md 8)."""
    found: list[Subject] = []
    if origin.chain is not None:
        _, brom, provisioner, identity, root = origin.chain.certificates
        found += [
            Subject("device", brom, provisioner, may_hold=rules.hold == "accept-device"),
            Subject("provisioner", provisioner, identity),
            Subject("identity", identity, root),
        ]
    for each in chosen:
        if each.manifest is not None:
            signer, authority, chip, root = each.manifest.chain
            name = each.slot.name
            found += [
                Subject(f"{name}.signer", signer, authority),
                Subject(f"{name}.authority", authority, chip),
                Subject(f"{name}.chip", chip, root),
            ]
    return found
