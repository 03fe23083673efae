"""How a CPU's evidence and its devices' are tied together, by name and strength (gpu.md 10).

A device's report names no CPU. With freshness alone a proxy can relay the report of somebody else's GPU,
so the mode stands in every result. No mode proves the PCIe link cryptographically: that needs TDISP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from attestation.result import Check, compared, failed, not_evaluated, passed
from schemas.proof.binding import device_nonce
from schemas.proof.evidence import NodeEvidence

_CLAUSE: Final = "gpu.md 10; session.md 1"


@dataclass(frozen=True, slots=True)
class BindingMode:
    """What one mode proves."""

    meaning: str
    strong: bool
    """Whether the CPU's hardware vouches for these devices."""


OWN_MODE: Final = "derived-nonce+evidence-hash"
"""How our own node program binds."""
BINDING_MODES: Final = {
    OWN_MODE: BindingMode(
        "the devices answered a nonce of this CPU session, which vouches for exactly their evidence",
        strong=True,
    ),
    "evidence-hash": BindingMode("the CPU vouches for exactly this evidence", strong=True),
    "derived-nonce": BindingMode("the devices answered a nonce made for this CPU session", strong=True),
    "shared-nonce": BindingMode("both answered one challenge: a relay is possible", strong=False),
    "unbound": BindingMode("nothing ties the devices to this CPU", strong=False),
}
"""From the strongest to none."""


def binding_of(stated: NodeEvidence, nonces: Sequence[bytes | None], *, report_data_holds: bool) -> str:
    """The mode in which this node's devices are bound.

    nonces: that of each device's report. report_data_holds: whether the CPU's report data is what this
    evidence demands, which covers the whole device bundle.
    """
    derived = _derived(stated)
    answered = bool(nonces) and derived is not None and all(nonce == derived for nonce in nonces)
    if report_data_holds:
        return OWN_MODE if answered else "evidence-hash"
    # A nonce over keys that no hardware vouches for ties a device to nobody.
    roots = (stated.challenge_root, stated.device_challenge_root)
    challenges = {bytes.fromhex(root) for root in roots if root is not None}
    shared = bool(nonces) and all(nonce in challenges for nonce in nonces)
    return "shared-nonce" if shared else "unbound"


def _derived(stated: NodeEvidence) -> bytes | None:
    if stated.device_challenge_root is None:
        return None
    return device_nonce(stated.identity, device_challenge_root=bytes.fromhex(stated.device_challenge_root))


def check_nonces(stated: NodeEvidence, nonces: Sequence[bytes | None]) -> Check:
    """Each device answered the nonce that this node's keys and challenges make (session.md 1)."""
    name, wanted = "gpu.binding.nonce", _derived(stated)
    if wanted is None:
        return failed(name, "gpu.binding_mismatch", "no device challenge", "a derived nonce", _CLAUSE)
    others = [nonce for nonce in nonces if nonce != wanted]
    seen = f"{len(others)} of {len(nonces)} devices answered something else"
    return compared(name, "gpu.binding_mismatch", not others, seen, wanted.hex(), _CLAUSE)


def check_binding(mode: str, allowed: frozenset[str] | None) -> Check:
    """Whether policy accepts this mode; without a policy it is shown, but unbound never passes."""
    name, seen = "gpu.binding", f"{mode}: {BINDING_MODES[mode].meaning}"
    wanted = "any" if allowed is None else ", ".join(sorted(allowed))
    if mode == "unbound" and (allowed is None or mode not in allowed):
        return failed(name, "gpu.binding_unbound", seen, wanted, _CLAUSE)
    if allowed is None:
        return not_evaluated(name, seen, _CLAUSE)
    if mode not in allowed:
        return failed(name, "gpu.binding_mode_not_allowed", seen, wanted, _CLAUSE)
    return passed(name, seen, wanted, _CLAUSE)
