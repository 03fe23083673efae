"""Whose cosignatures count over a log: the auditor's own quorum for it, the log's operator left out. Pure.

A receipt is `witnessed` by it, and a log that was late with what it promised is convicted by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import datetime

from receipts.cosignature import CosignerKey
from receipts.counted import counted
from receipts.verify.pinned import PinnedTrust
from receipts.verify.trust_file import TrustFile
from receipts.witnessing import quorum
from receipts.witnessing.quorum import Policy
from schemas.errors import Refused, Undecided


@dataclass(frozen=True, slots=True)
class Jury:
    """Who is heard about a log that stood still, and the moment at which they are heard."""

    at: datetime
    trust: TrustFile | None = None
    """The auditor's; None for a domain that speaks for itself: then more than half of the others."""

    def policy(self, held: PinnedTrust, owner: str, origin: str) -> Policy:
        """The policy for the log `origin` of the domain `owner`.

        Raises `Undecided` (`quorum.*`) where there is none or it cannot be enforced, `Refused` where it
        excludes this log.
        """
        if self.trust is None:
            return _majority(held, owner)
        if self.trust.quorum is None:
            raise Undecided("quorum.none", "without a quorum no witness is heard: it is waived")
        return enforced(held, owner, origin, self.trust)[0]


def others(held: PinnedTrust, owner: str) -> dict[str, tuple[CosignerKey, ...]]:
    """Operator → its witnesses, for a log of `owner`: a log's own operator has no voice (receipts.md 11)."""
    return {operator: keys for operator, keys in held.witnesses().items() if operator != owner}


def enforced(held: PinnedTrust, owner: str, origin: str, trust: TrustFile) -> tuple[Policy, dict[str, str]]:
    """The auditor's policy for this log, and who operates each of its witnesses. `trust` names a quorum.

    Raises `Undecided` where it cannot be enforced, `Refused` where it excludes this log.
    """
    known = others(held, owner)
    owner_of = {key.raw: operator for operator, keys in held.witnesses().items() for key in keys}
    if isinstance(trust.quorum, int):
        if trust.quorum > len(known):
            text = f"quorum of {counted(trust.quorum, 'operator')}, only {len(known)} can witness this log"
            raise Undecided("quorum.too_few", text)
        policy = quorum.of_operators(known, trust.quorum)
    else:
        assert trust.quorum is not None
        own = {key.raw for key in held.witnesses().get(owner, ())}
        policy = _without(trust.quorum, own | held.silenced)
        logs = {key.raw for key in held.log_keys(owner, origin)}
        if policy.logs and not logs & {key.raw for key in policy.logs}:
            raise Refused("quorum.log", f"the policy accepts no log {origin}")
    owners = {name: owner_of.get(key.raw, name) for name, key in policy.witnesses.items()}
    alone = quorum.single_operator(policy, owners)
    if alone is not None and not trust.single_operator:
        raise Undecided("quorum.single_operator", f"{alone} alone could meet the quorum")
    return policy, owners


def _majority(held: PinnedTrust, owner: str) -> Policy:
    """More than half of the other operators, and never one alone: it could be the one that lies."""
    known = others(held, owner)
    needed = max(2, len(known) // 2 + 1)
    if needed > len(known):
        raise Undecided(
            "quorum.too_few", f"{needed} operators needed, only {len(known)} can witness this log"
        )
    return quorum.of_operators(known, needed)


def _without(policy: Policy, silent: Set[bytes]) -> Policy:
    """The policy with some witnesses silenced, as the log's own: they stay members and never sign."""
    heard: Mapping[str, CosignerKey] = {
        name: key for name, key in policy.witnesses.items() if key.raw not in silent
    }
    return Policy(policy.logs, heard, policy.groups, policy.quorum)
