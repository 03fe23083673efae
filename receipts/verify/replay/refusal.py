"""A refusal again: the same offers, under the same rules, must leave nobody, each for the reasons listed.

What was on offer stands in adverts that each domain signed itself, who the domains are in the pinned
charter, the rules in texts of the digests that were signed. Not checked: that the request had the
descriptor on record (its broker alone saw it), that its tenant allowed no more, and that no other or
newer advert had come. Where a plan fell only by times that the broker had measured itself, or by a model
that it had used before, the claim stays its word.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from receipts.bundle import Disclosures
from receipts.statements.decided import refusal_block, registry_digest
from receipts.statements.receipt import PlacementReceipt
from receipts.verify.replay.candidates import candidates
from receipts.verify.replay.policy import DECIDED_BEFORE_S, Material, check_same
from receipts.verify.replay.selection import Advertised, Cut, OnOffer, Recut
from schemas import envelope
from schemas.descriptors.summary import CapabilitySummary
from schemas.errors import Refused, Undecided
from schemas.messages.advert import receive_advert
from schemas.policy.layers import ELSEWHERE, LAYERS, Layers
from schemas.policy.policy_set import PolicySet
from schemas.primitives import parse_time

_NEEDED: Final = ("charter", "tenant", "provider")
"""Layers that a broker asks about its own plans. `national` may have no rules: no country must have any."""


def refuse_again(body: PlacementReceipt, disclosed: Disclosures, material: Material, recut: Recut) -> Cut:
    """The cut, made again: nobody is left, and every reason is the one that was signed.

    Raises `Undecided` for what is not here, `Refused` for what does not come out (`verify.registry`,
    `verify.refusal`, `verify.considered`, `verify.policy_pinned`, `verify.policy_layers`,
    `verify.policy_facts`, `verify.policy_replay`).
    """
    record = material.needed(body.inputs.costs, "record of its cut")
    rules = _rules(body, material)
    cut = recut(record, _on_offer(body, disclosed, material, rules))
    _check_request(body, cut)
    if cut.allowed:
        raise Refused("verify.refusal", f"{cut.allowed[0]:.120} was allowed")
    if candidates(body, disclosed, material) != list(cut.rejected):
        raise Refused("verify.refusal", "the candidates, or their reasons, are not those that come out")
    tags, at = cut.request.policy_digest.hex(), parse_time(body.policy.time_created)
    check_same(refusal_block(rules, cut.binding, input_commitment=tags, at=at), body.policy)
    return cut


def _rules(body: PlacementReceipt, material: Material) -> Layers:
    """The sets that were asked, by the names and digests that were signed. Raises `ComityError`."""
    sets: dict[str, list[PolicySet]] = {layer: [] for layer in LAYERS}
    for stated in body.policy.policies:
        layer, _, name = stated.name.partition("/")
        if layer not in sets or not name:
            raise Refused("verify.policy_layers", f"{stated.name:.80} is no set of a layer")
        text = material.texts.get(stated.sha256)
        if text is None:
            raise Undecided("policy.text_missing", f"the text of {stated.name} is not here")
        sets[layer].append(PolicySet.load(text, name))
    if missing := [layer for layer in _NEEDED if not sets[layer]]:
        raise Refused("verify.policy_layers", f"refused without the {missing[0]} layer")
    charter = material.held.charter
    if charter and any(each.digest != charter.policy_digest for each in sets["charter"]):
        raise Refused("verify.policy_pinned", "refused under other rules than the charter names")
    return Layers.of(**sets)


def _on_offer(body: PlacementReceipt, disclosed: Disclosures, material: Material, rules: Layers) -> OnOffer:
    """Who offered what, proved to be what the signed name of it all stands for. Raises `ComityError`."""
    charter = material.held.charter
    if charter is None:
        raise Undecided("verify.profiles_absent", "no charter is pinned that says who the domains are")
    at = parse_time(body.policy.time_created)
    adverts = [
        _advertised(material.needed(digest, "advert of a candidate"), material, at)
        for digest in disclosed.adverts
    ]
    if registry_digest((each.domain, each.digest) for each in adverts).hex() != body.inputs.registry:
        raise Refused("verify.registry", "the adverts are not those that were signed for")
    laws = {True: rules, False: _abroad(rules)}
    return OnOffer(body.issuer, adverts, laws, bool(charter.simulated_roots))


def _abroad(rules: Layers) -> Layers:
    """The same rules for others' plans: a foreign provider's own layer is asked at its border."""
    charter, national, tenant = (
        [unit.policies for unit in rules.units if unit.layer == layer]
        for layer in ("charter", "national", "tenant")
    )
    return Layers.of(charter=charter, national=national, tenant=tenant, provider=ELSEWHERE)


def _advertised(data: bytes, material: Material, at: datetime) -> Advertised:
    """An advert under a key of its domain that was good then, revoked since or not. Raises `ComityError`."""
    domain = CapabilitySummary.read(envelope.read(data).payload).iss
    keys = [
        each.key
        for each in material.held.registered("advert")
        if each.domain == domain and each.entry.not_before <= at.timestamp() < each.entry.not_after
    ]
    received = receive_advert(data, keys=keys, sender=domain, federation=material.held.federation, now=at)
    profile = material.held.profiles.get(domain)
    if profile is None:
        raise Refused("verify.registry", f"{domain} is no member")
    return Advertised(domain, received.summary, received.digest, profile)


def _check_request(body: PlacementReceipt, cut: Cut) -> Cut:
    """The cut is of this request, at the time of its refusal. Raises `Refused`."""
    budget, asked = body.budget, cut.request
    price = budget.max_price.micro if budget and budget.max_price else None
    stated = (body.request.id, body.capability.name, price, budget.max_output_tokens if budget else None)
    if stated != (asked.request_id, asked.capability, asked.budget.max_price, asked.max_output_tokens):
        raise Refused("verify.policy_facts", "the record is of another request")
    if abs(parse_time(body.policy.time_created) - cut.at) > timedelta(seconds=DECIDED_BEFORE_S):
        raise Refused("verify.policy_facts", "the record is of another time")
    return cut
