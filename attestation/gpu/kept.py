"""How long an appraisal of a device serves for the same device's next report.

Under one set of inputs only two checks differ between reports of one device, its challenge and its
signature, until something that was offered ends or begins. So an appraisal that holds is kept for that long,
and a next report costs its own signature. Both checks are made every time, and nothing serves a moment
outside the bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from attestation.gpu.documents import Offered
from attestation.gpu.expected import GpuPolicy
from attestation.gpu.pki.chain import DeviceChain
from attestation.gpu.revocation.check import CLOCK_TOLERANCE, Held
from attestation.gpu.rim.issues import SECONDS_A_DAY
from attestation.gpu.rim.manifest import verify_manifest
from attestation.gpu.spdm.report import MAX_REPORT_BYTES, Standing
from schemas.errors import Refused
from schemas.proof.evidence import DeviceState

if TYPE_CHECKING:
    from attestation.gpu.appraise import DeviceAppraisal

KEPT_DEVICES: Final = 256  # about 16 KiB each, and what was offered: at most `MAX_KEPT_BYTES`
MAX_KEPT_BYTES: Final = 256 * 1024  # of documents beside a device that is kept; a board's are some 100 KiB


@dataclass(slots=True)
class Kept:
    """Room for one appraisal that holds, good for exactly one set of inputs and until something changes."""

    _held: tuple[DeviceAppraisal, float, float] | None = None
    """With the moments, POSIX seconds, from and until which it holds. Replaced whole: threads share it."""

    def at(self, moment: float) -> DeviceAppraisal | None:
        """What is kept, if it holds at this moment."""
        if self._held is None:
            return None
        appraisal, since, until = self._held
        return appraisal if since <= moment < until else None

    def keep(self, appraisal: DeviceAppraisal, since: float, until: float) -> None:
        self._held = appraisal, since, until


def may_keep(evidence: bytes, documents: Sequence[bytes]) -> bool:
    """Whether these are a report and documents of a size that is worth remembering."""
    return len(evidence) <= MAX_REPORT_BYTES and sum(map(len, documents)) <= MAX_KEPT_BYTES


@lru_cache(maxsize=KEPT_DEVICES)
def room_of_device(
    standing: Standing,
    offered: Offered,
    state: DeviceState | None,
    policy: GpuPolicy | None,
    expectations_digest: bytes | None,
    waived: tuple[str, ...],
    waive_revocation: bool,
    challenged: bool,
) -> Kept:
    """The room for these inputs: all bytes count, but for nonces and signature. challenged: with a nonce."""
    del standing, offered, state, policy, expectations_digest, waived, waive_revocation, challenged
    return Kept()


def next_change(offered: Offered, held: Held, chain: DeviceChain, expired_days: int, at: float) -> float:
    """The first moment after `at` at which anything here begins or ends; `at` itself where nothing does.

    expired_days: for how long a manifest's signer that has ended still counts.
    """
    moments = [moment for each in chain.certificates for moment in (each.not_before, each.not_after)]
    for offer in offered.manifests:
        moments += _of_manifest(offer.data, expired_days)
    for response in held.responses:
        for each in response.certificates:
            moments += (each.not_before, each.not_after)
        for answer in response.answers:
            moments += _answered(answer.this_update, answer.next_update)
    for crl in held.crls:
        moments += _answered(crl.this_update, crl.next_update)
    return min([moment for moment in moments if moment > at], default=at)


def _of_manifest(data: bytes, expired_days: int) -> tuple[float, ...]:
    """One that does not verify does so at no time."""
    try:
        manifest = verify_manifest(data)
    except Refused:
        return ()
    return manifest.begins, manifest.ends, manifest.ends + expired_days * SECONDS_A_DAY


def _answered(since: float, until: float | None) -> tuple[float, ...]:
    """With the tolerance between a responder's clock and ours, on either side."""
    begins = since - CLOCK_TOLERANCE
    return (begins,) if until is None else (begins, until + CLOCK_TOLERANCE)
