"""The policy decision again, byte for byte: the same rules over the same facts must give what was signed.

Not checked: that the request had the tags on record (its broker alone saw them; the executor's receipt
names the same `inputCommitment`), and that the provider's own layer allowed (its signed offer says so,
and its own Execution is decided again by itself).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from receipts.statements.decided import OFFERED, by_offer, policy_block
from receipts.statements.fields import MAX_LISTED, RECORD, PolicyDecision
from receipts.statements.receipt import ExecutionReceipt, PlacementReceipt
from receipts.verify.pinned import PinnedTrust
from schemas.errors import Refused, Undecided
from schemas.policy.facts import DomainFacts
from schemas.policy.layers import Decision, LayerVerdict
from schemas.policy.replay import DecisionRecord, domain_record, replay
from schemas.primitives import parse_time

DECIDED_BEFORE_S: Final = 60  # seconds that may lie between a decision and the receipt that states it
_OWN_LAYERS: Final = {PlacementReceipt: ("charter", "tenant"), ExecutionReceipt: ("charter", "provider")}
"""Layers that each side decides itself. `national` may have no rules: no country must have any."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a replay may use beside the receipt. Everything is found by digest or hangs on the pin."""

    blob: Callable[[bytes], bytes | None]
    """SHA-256 → bytes."""
    texts: Mapping[str, str] = field(repr=False)
    """Digest of a policy set → its text."""
    held: PinnedTrust = field(repr=False)
    """Rules, profiles and keys under the auditor's pin."""

    def needed(self, digest: str | None, what: str) -> bytes:
        """The bytes of this name. Raises `Undecided` (`verify.inputs_absent`)."""
        data = self.blob(bytes.fromhex(digest)) if digest else None
        if data is None:
            raise Undecided("verify.inputs_absent", f"the {what} is not here")
        return data


def decide_again(body: PlacementReceipt | ExecutionReceipt, material: Material) -> Decision:
    """The decision, made again and equal to the signed one in every field but its time.

    Raises `Undecided` for what is not here, `Refused` for what does not come out (`verify.policy_replay`,
    `verify.policy_facts`, `verify.policy_pinned`, `verify.policy_layers`), or what `replay` raises.
    """
    data = record_of(body.policy, material)
    stored = DecisionRecord.read(data)
    _check_parties(body, stored)
    _check_roots(stored, material.held)
    _check_layers(body, stored, material)
    _check_profile(body, stored, material)
    decision = replay(stored, texts=material.texts)
    return _check_stated(body, replace(decision, record=data))


def record_of(policy: PolicyDecision, material: Material) -> bytes:
    """The facts behind a decision, by the digest that the receipt names. Raises `ComityError`."""
    named = [text.removeprefix(RECORD) for text in policy.properties if text.startswith(RECORD)]
    if len(named) != 1:
        raise Undecided("verify.no_record", "the receipt names no record of its facts")
    try:
        data = material.blob(bytes.fromhex(named[0]))
    except ValueError:
        raise Refused("verify.record", "the name of the record is no digest") from None
    if data is None:
        raise Undecided("verify.record_absent", "the record of its facts is not here")
    return data


def _check_parties(body: PlacementReceipt | ExecutionReceipt, stored: DecisionRecord) -> None:
    """The facts are of this request's two parties, and of its bound on the price. Raises `Refused`."""
    if isinstance(body, ExecutionReceipt):
        consumer, provider = body.peer, body.issuer
    else:
        consumer, provider = body.issuer, body.plan.domain if body.plan else stored.domain.domain
        bound = body.budget.max_price if body.budget else None
        if bound is not None and bound.micro != stored.request.max_price:
            raise Refused("verify.policy_facts", "the facts have another bound on the price")
    if (stored.request.consumer, stored.domain.domain) != (consumer, provider):
        raise Refused("verify.policy_facts", "the facts are of another consumer or provider")


def _check_roots(stored: DecisionRecord, held: PinnedTrust) -> bool:
    """Simulated hardware counted where the charter lists a root of it, and only there. Raises `Refused`."""
    if held.charter and stored.request.simulated_allowed != bool(held.charter.simulated_roots):
        raise Refused("verify.policy_facts", "the facts are of a charter with other simulated roots")
    return stored.request.simulated_allowed


def _check_layers(
    body: PlacementReceipt | ExecutionReceipt, stored: DecisionRecord, material: Material
) -> None:
    """Nobody's rules were left out, and the charter's are the charter's. Raises `Refused`."""
    present = {entry.layer for entry in stored.sets}
    needed = {*_OWN_LAYERS[type(body)]}
    if isinstance(body, PlacementReceipt) and not _foreign(body):
        needed.add("provider")
    if missing := sorted(needed - present):
        raise Refused("verify.policy_layers", f"decided without the {missing[0]} layer")
    stated = [
        (each.layer, each.digest, each.verdict, each.rules)
        for each in body.policy.layers
        if not (_foreign(body) and each.layer == "provider")
    ]
    if stated != [(each.layer, each.digest, each.verdict, each.rules[:MAX_LISTED]) for each in stored.sets]:
        raise Refused("verify.policy_replay", "the layers on record are not those that were signed")
    charter, rules = material.held.charter, [each.digest for each in stored.sets if each.layer == "charter"]
    if charter and any(each != charter.policy_digest for each in rules):
        raise Refused("verify.policy_pinned", "decided under other rules than the charter names")


def _check_profile(
    body: PlacementReceipt | ExecutionReceipt, stored: DecisionRecord, material: Material
) -> None:
    """What was decided of a domain is what the charter endorses of it. Raises `Refused`."""
    profile = material.held.profiles.get(stored.domain.domain)
    if profile is None:
        return
    written = parse_time(body.policy.time_created)
    moments = (written, written - timedelta(seconds=DECIDED_BEFORE_S))
    facts = [DomainFacts.of(profile, stored.domain.domain, at) for at in moments]
    if not any(isinstance(each, DomainFacts) and domain_record(each) == stored.domain for each in facts):
        raise Refused("verify.policy_facts", "the domain's facts are not those that the charter endorses")


def _check_stated(body: PlacementReceipt | ExecutionReceipt, decision: Decision) -> Decision:
    """What was decided again, written as a receipt, is what was signed. Raises `Refused`."""
    offered = _offered(body)
    made = decision if offered is None else decision.joined(offered)
    block = policy_block(
        made, input_commitment=body.policy.input_commitment, at=parse_time(body.policy.time_created)
    )
    check_same(block, body.policy)
    return made


def check_same(made: PolicyDecision, signed: PolicyDecision) -> PolicyDecision:
    """What was signed, if it is what was made, in every field. Raises `Refused` (`verify.policy_replay`)."""
    for name in PolicyDecision.model_fields:
        if getattr(made, name) != getattr(signed, name):
            raise Refused("verify.policy_replay", f"decided again, `{name}` is not what was signed")
    return signed


def _offered(body: PlacementReceipt | ExecutionReceipt) -> LayerVerdict | None:
    """A foreign provider's own layer, which its consumer knows from the offer alone. Raises `Refused`."""
    if isinstance(body, ExecutionReceipt) or body.plan is None or not _foreign(body):
        return None
    stated = [each for each in body.policy.layers if each.layer == "provider"]
    if len(stated) != 1 or stated[0].rules != [OFFERED]:
        raise Refused("verify.policy_layers", f"the offer of {body.plan.domain} is not among the layers")
    return by_offer(body.plan.domain, stated[0].digest)


def _foreign(body: PlacementReceipt | ExecutionReceipt) -> bool:
    """Whether another domain's rules are joined by word: that of a provider which offered."""
    return isinstance(body, PlacementReceipt) and body.plan is not None and body.plan.domain != body.issuer
