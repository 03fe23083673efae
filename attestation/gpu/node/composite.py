"""The devices of one `NodeEvidence`: appraised together, and tied to the CPU that names them.

The CPU's report data covers the whole device bundle; the devices answered a nonce made of the node's keys and
challenges. What the guest says of its GPUs is worth as much as the guest: it counts only under report data
that holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from attestation.gpu.appraise import Asked
from attestation.gpu.expected import GpuPolicy
from attestation.gpu.node.binding import BINDING_MODES, binding_of, check_binding, check_nonces
from attestation.gpu.node.devices import DeviceInput, DevicesAppraisal, appraise_devices
from attestation.result import Check, compared, failed, not_evaluated, passed, undecided
from schemas.canonical import Json, sha256
from schemas.proof.binding import device_nonce
from schemas.proof.evidence import NodeEvidence

CPU_ONLY: Final = "cpu-only"


@dataclass(frozen=True, slots=True)
class NodeDevices:
    """What came of a node's devices."""

    checks: list[Check]
    binding_mode: str
    """`cpu-only` where none was appraised."""
    appraisal: DevicesAppraisal | None = None

    confidential_gpus: int = 0
    """Bound GPUs whose guest says that confidential mode is on and devtools are off."""

    @property
    def bound(self) -> bool:
        """Whether the CPU's hardware vouches for the devices."""
        return self.appraisal is not None and BINDING_MODES[self.binding_mode].strong

    @property
    def digests(self) -> frozenset[str]:
        """Under which names the devices with a proven chain are enrolled, hex."""
        found = self.appraisal.devices if self.appraisal is not None else []
        return frozenset(device_digest(each.chain.ueid).hex() for each in found if each and each.chain)

    def stated(self) -> dict[str, Json]:
        if self.appraisal is None:
            return {"binding_mode": self.binding_mode}
        meaning = BINDING_MODES[self.binding_mode].meaning
        return {
            "binding_mode": self.binding_mode,
            "binding_meaning": meaning,
            "devices": self.appraisal.stated(),
        }


def device_digest(ueid: str) -> bytes:
    """The name under which a domain enrols a device (32 bytes). ueid: decimal, as in its certificate."""
    return sha256(b"comity gpu v1\0", ueid.encode())


def appraise_node_devices(
    stated: NodeEvidence,
    report_data: bytes | None,
    *,
    common: Sequence[bytes],
    image: bytes | None,
    judged: bool,
    asked: Asked,
) -> NodeDevices:
    """Appraise them. report_data: what the CPU signed. image: the guest's measurement, as the CPU signed it.

    judged: False = no expectations for devices.
    1. each and together, for the nonce that this node's keys make; 2. the nonce; 3. the mode of binding.
    """
    policy = asked.policy
    wanted = [] if policy is None else _check_number(stated, image, policy)
    clause = "session.md 1"
    if not stated.devices:
        board = policy is not None and bool(policy.fabric.gpus or policy.fabric.switches)
        check = (
            failed("gpu.batch.gpu_count", "gpu.topology_incomplete", "no devices", "devices", clause)
            if board
            else not_evaluated("node.devices", "no devices", clause)
        )
        return NodeDevices([*wanted, check], CPU_ONLY)
    if not judged:
        seen = f"{len(stated.devices)} devices, not appraised: no [nvidia] in the expectations"
        return NodeDevices([not_evaluated("node.devices", seen, clause)], CPU_ONLY)
    holds = report_data is not None and report_data == stated.expected_report_data()
    found = appraise_devices(_inputs(stated, trusted=holds), common=common, asked=_with_nonce(asked, stated))
    mode = binding_of(stated, found.nonces, report_data_holds=holds)
    tied = [check_nonces(stated, found.nonces)] if stated.device_challenge_root is not None else []
    bindings = None if policy is None else policy.bindings
    checks = [*wanted, *found.checks, *tied, _freshness(stated), check_binding(mode, bindings)]
    confidential = _confidential(stated, found) if BINDING_MODES[mode].strong else 0
    return NodeDevices(checks, mode, found, confidential)


def _confidential(stated: NodeEvidence, found: DevicesAppraisal) -> int:
    """How many of these bound devices are GPUs in confidential mode, by their chains and the guest's word."""
    pairs = zip(stated.devices, found.devices, strict=True)
    return sum(
        1 for each, device in pairs
        if device is not None and device.family is not None and device.family.kind == "gpu"
        and each.state is not None and each.state.confidential and not each.state.devtools
    )  # fmt: skip


def _check_number(stated: NodeEvidence, image: bytes | None, policy: GpuPolicy) -> list[Check]:
    """A guest image that works with GPUs shows them all: evidence that was left out is not passed over."""
    if not policy.images:
        return []
    name, clause = "gpu.devices", "[nvidia.images]"
    if image is None or image not in policy.images:
        return [not_evaluated(name, "no number is demanded of this image", clause)]
    number, wanted = sum(1 for each in stated.devices if each.kind == "gpu"), policy.images[image]
    seen = f"{number} GPUs in the evidence"
    return [compared(name, "gpu.device_count", number == wanted, seen, f"{wanted} for this image", clause)]


def _inputs(stated: NodeEvidence, *, trusted: bool) -> list[DeviceInput]:
    """trusted: whether the hardware vouches for what the guest says of its devices."""
    return [
        DeviceInput(each.report, tuple(each.endorsements), each.kind, each.state if trusted else None)
        for each in stated.devices
    ]


def _with_nonce(asked: Asked, stated: NodeEvidence) -> Asked:
    """The nonce that this node's keys and device challenge make; None where it names no challenge."""
    root = stated.device_challenge_root
    nonce = None if root is None else device_nonce(stated.identity, device_challenge_root=bytes.fromhex(root))
    return replace(asked, nonce=nonce)


def _freshness(stated: NodeEvidence) -> Check:
    """Devices answer the same challenges as the CPU; an epoch of their own is not believed (session.md 2)."""
    name, clause, wanted = "gpu.challenge", "session.md 2", "the challenges that the CPU answers"
    if stated.device_challenge_root is None:
        return undecided(name, "gpu.challenge_missing", "no device challenge", wanted, clause)
    if stated.device_challenge_root != stated.challenge_root:
        return undecided(name, "gpu.challenge_other", stated.device_challenge_root, wanted, clause)
    return passed(name, "the same root", wanted, clause)


def check_device_enrolment(
    domain: str, found: NodeDevices, enrolments: Mapping[str, frozenset[str]], *, required: bool
) -> list[Check]:
    """Each device is enrolled by the domain that offers it, and by no other (session.md 3)."""
    checks: list[Check] = []
    devices = found.appraisal.devices if found.appraisal is not None else []
    for position, device in enumerate(devices):
        name, clause = f"node.enrolment.device{position}", "session.md 3"
        if device is None or device.chain is None:
            checks.append(not_evaluated(name, "no device is proven", clause))
            continue
        digest = device_digest(device.chain.ueid).hex()
        holders = sorted(each for each, digests in enrolments.items() if digest in digests)
        seen = f"{digest} enrolled by {', '.join(holders) or 'nobody'}"
        if not required:
            checks.append(not_evaluated(name, f"waived: {seen}", clause))
        elif len(holders) > 1:
            checks.append(failed(name, "node.device_enrolled_twice", seen, f"{domain} alone", clause))
        else:
            checks.append(
                compared(
                    name, "node.device_not_enrolled", holders == [domain], seen, f"{domain} alone", clause
                )
            )
    return checks
