"""GPUs and switches as one fabric, tied to their certificates on both ends of every link (gpu.md 11).

Public checkers compare sets or counts; here a link counts only when the ids on both ends are those that the
boot ROMs' certificates carry. Observed on Hopper boards: nothing is assumed of Blackwell's fabrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from attestation.gpu.appraise import DeviceAppraisal
from attestation.gpu.expected import FabricRules
from attestation.gpu.node.batch import CLAUSE
from attestation.gpu.pki.chain import DeviceChain
from attestation.gpu.spdm.opaque import FEATURE, LOCK, POSITION, PROTECTED_PCIE, Opaque
from attestation.result import Check, compared, failed, not_evaluated, passed

LOCKED: Final = 1
MAX_POSITION: Final = 3
NO_GPU: Final = 0xFF
NO_LINK: Final = bytes(8)
_NAMES: Final = ("members", "links", "locks", "positions", "protection")


@dataclass(frozen=True, slots=True)
class Member:
    """A device whose report and chain could be read."""

    chain: DeviceChain
    opaque: Opaque

    @property
    def pdi(self) -> bytes:
        """From the certificate, never from the report. Empty where it has none."""
        return self.chain.pdi or b""


def check_fabric(devices: Sequence[DeviceAppraisal], rules: FabricRules) -> list[Check]:
    """The rules of a fabric, where policy wants one; else that it was not judged."""
    names = [f"gpu.fabric.{name}" for name in _NAMES]
    members = [Member(each.chain, each.report.opaque) for each in devices if each.chain and each.report]
    gpus = [each for each in members if not each.opaque.is_switch]
    switches = [each for each in members if each.opaque.is_switch]
    if not rules.topology:
        seen = f"{len(gpus)} GPUs, {len(switches)} switches; topology not demanded"
        return [not_evaluated(name, seen, "[nvidia.fabric] topology") for name in names]
    return [
        _members(names[0], gpus, switches),
        _links(names[1], gpus, switches),
        _locks(names[2], switches),
        _positions(names[3], switches),
        _protection(names[4], gpus),
    ]


def _members(name: str, gpus: Sequence[Member], switches: Sequence[Member]) -> Check:
    """Who sees whom: no stranger, and nobody missing, in both directions (rules 2 and 3)."""
    wanted = "every attested device, and no other, on both ends"
    ours, theirs = {each.pdi for each in gpus}, {each.pdi for each in switches}
    seen_by_gpus = [_seen_switches(each) for each in gpus]
    seen_by_switches = [_seen_gpus(each) for each in switches]
    for seen, known in ((seen_by_gpus, theirs), (seen_by_switches, ours)):
        strangers = set().union(*seen) - known
        if strangers and known:
            text = ", ".join(sorted(each.hex() for each in strangers))
            return failed(name, "gpu.topology_foreign_device", f"{text} is not attested", wanted, CLAUSE)
    whole = bool(gpus) and bool(switches)
    whole = whole and all(seen == theirs for seen in seen_by_gpus)
    whole = whole and all(seen == ours for seen in seen_by_switches)
    text = f"{len(gpus)} GPUs and {len(switches)} switches"
    return compared(name, "gpu.topology_incomplete", whole, text, wanted, CLAUSE)


def _seen_switches(gpu: Member) -> set[bytes]:
    return set(gpu.opaque.switch_pdis or ()) - {NO_LINK}


def _seen_gpus(switch: Member) -> set[bytes]:
    table = switch.opaque.gpu_table
    return set(table[0]) - {NO_LINK} if table is not None else set()


def _links(name: str, gpus: Sequence[Member], switches: Sequence[Member]) -> Check:
    """As many ports lead to a GPU as that GPU has links to the switch (rule 4)."""
    wanted = "the same number of links, told from both ends"
    total = 0
    for switch in switches:
        ports = _ports(switch)
        for gpu in gpus:
            links = Counter(gpu.opaque.switch_pdis or ())[switch.pdi]
            total += links
            if links != ports[gpu.pdi]:
                seen = f"{gpu.pdi.hex()} has {links} links to {switch.pdi.hex()}, which has {ports[gpu.pdi]}"
                return failed(name, "gpu.topology_link_mismatch", seen, wanted, CLAUSE)
    return passed(name, f"{total} links", wanted, CLAUSE)


def _ports(switch: Member) -> Counter[bytes]:
    """GPU PDI → ports that lead to it. An index outside the table leads to nobody."""
    table = switch.opaque.gpu_table
    if table is None:
        return Counter()
    pdis, ports = table
    return Counter(pdis[port] if port < len(pdis) else NO_LINK for port in ports if port != NO_GPU)


def _locks(name: str, switches: Sequence[Member]) -> Check:
    """An unlocked switch can be reconfigured after it was attested (rule 5)."""
    opened = [each.pdi.hex() for each in switches if _number(each, LOCK) != LOCKED]
    seen = f"open: {', '.join(opened)}" if opened else f"{len(switches)} locked"
    return compared(name, "gpu.topology_switch_unlocked", not opened, seen, "every switch locked", CLAUSE)


def _positions(name: str, switches: Sequence[Member]) -> Check:
    found = [_number(each, POSITION) for each in switches]
    holds = len(set(found)) == len(found) and all(n is not None and n <= MAX_POSITION for n in found)
    seen = ", ".join(map(str, found))
    return compared(name, "gpu.topology_link_mismatch", holds, seen, f"distinct, 0 to {MAX_POSITION}", CLAUSE)


def _number(member: Member, kind: int) -> int | None:
    value = member.opaque.fields.get(kind)
    return None if value is None else int.from_bytes(value, "little")


def _protection(name: str, gpus: Sequence[Member]) -> Check:
    """Every GPU says that protected PCIe is on, by each field that it has (rule 6)."""
    opened = [
        each.pdi.hex()
        for each in gpus
        if each.opaque.flag(PROTECTED_PCIE) is not True
        or (FEATURE in each.opaque.fields and each.opaque.feature != "ppcie")
    ]
    seen = f"off: {', '.join(opened)}" if opened else f"on for {len(gpus)} GPUs"
    return compared(name, "gpu.mode_not_allowed", not opened, seen, "protected PCIe on", CLAUSE)
