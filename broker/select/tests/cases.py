"""A small federation for selection tests: the demo's three domains, each with one cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from broker.select.candidates import Feasibility, Listing, feasible
from broker.select.predict import Predictor
from schemas.descriptors.capability import Rates
from schemas.descriptors.profile import (
    DomainProfile,
    LegalEntity,
    ProfileEvidence,
    RetentionClass,
    Vouched,
)
from schemas.descriptors.request import RequestDescriptor, describe, parse_tags
from schemas.descriptors.summary import CapabilitySummary, Cell
from schemas.descriptors.tags import Home
from schemas.policy.facts import RequestContext
from schemas.policy.layers import ELSEWHERE
from schemas.policy.packs import default_layers

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
LAYERS = {True: default_layers(), False: default_layers(provider=ELSEWHERE)}
ENDORSED = Vouched(level=2, credential="register")


def request(comity: Mapping[str, Any] | None = None, **body: Any) -> RequestDescriptor:
    """A public question to chat.small from clinic.de, but for what is given."""
    stated: dict[str, Any] = {"policy": {"data_class": "public"}, **(comity or {})}
    asked = {"model": "chat.small", "messages": [{"role": "user", "content": "x" * 300}], "max_tokens": 100}
    return describe(
        {**asked, **body},
        parse_tags(stated, {}),
        floor=None,
        home=Home("clinic.de", ("DE",)),
        request_id="request-1",
        body_bytes=1_000,
    )


def context(asked: RequestDescriptor) -> RequestContext:
    return RequestContext.of(
        asked.policy,
        consumer="clinic.de",
        tenant="clinic",
        application="api",
        max_price=asked.budget.max_price,
        allow_debug=False,
        simulated_allowed=True,
    )


def cell(**changes: Any) -> Cell:
    values: dict[str, Any] = {
        "cls": "chat.small",
        "variant": "tiny-q4",
        "version": "1",
        "digest": "a" * 64,
        "jur": "DE",
        "tier": 2,
        "context_limit": 4096,
        "params_m": 135,
        "tee": "simulated",
        "ar_min": 1,
        "rates": Rates(input=1_000, output=3_000, cached=100),
        "prefill_tps": 500,
        "decode_tps": 100,
        "headroom": 8,
    }
    return Cell.model_validate(values | changes)


def listing(domain: str, place: str, *cells: Cell, **changes: Any) -> Listing:
    """A domain as the directory shows it."""
    summary: dict[str, Any] = {
        "federation": "test",
        "iss": domain,
        "epoch": 1,
        "seq": 1,
        "iat": SECONDS,
        "ttl_s": 30,
        "challenge": "0" * 64,
        "trust_epoch": 0,
        "profile_digest": "0" * 64,
        "k_min": 1,
        "cells": list(cells) or [cell(jur=place)],
    }
    profile = DomainProfile(
        domain=domain,
        operator=domain,
        legal_entity=LegalEntity(name=domain),
        jurisdictions=[place],
        exposed_to=["US-CLOUD-Act"] if place == "US" else [],
        evidence=ProfileEvidence(jurisdictions=ENDORSED, exposed_to=ENDORSED, ownership=ENDORSED),
        retention_classes=[RetentionClass(name="none", seconds=0)],
        valid_from=SECONDS - 1_000,
        valid_until=SECONDS + 1_000_000,
    )
    return Listing(domain, CapabilitySummary.model_validate(summary | changes), b"\0" * 32, profile, SECONDS)


def three(**cells: Cell) -> list[Listing]:
    """clinic.de, cloud.fr and hyper.us; a cell of one may be given by its first name."""
    return [
        listing("clinic.de", "DE", cells.get("clinic", cell(jur="DE"))),
        listing("cloud.fr", "FR", cells.get("cloud", cell(jur="FR"))),
        listing("hyper.us", "US", cells.get("hyper", cell(jur="US"))),
    ]


def cut(
    asked: RequestDescriptor,
    listings: Iterable[Listing],
    *,
    rtts_ms: Mapping[str, int] | None = None,
    predictor: Predictor | None = None,
    **more: Any,
) -> Feasibility:
    return feasible(
        asked,
        context(asked),
        listings,
        LAYERS,
        local_domain="clinic.de",
        rtts_ms={"cloud.fr": 20, "hyper.us": 20} if rtts_ms is None else rtts_ms,
        at=more.pop("at", NOW),
        predictor=predictor,
        **more,
    )
