"""A refusal's inputs, kept beside its receipt, and the cut made again from them for an auditor.

What was on offer is not in here: each domain signed that itself, and its adverts are kept as they came.
What only this broker knew is: the request's descriptor, its tenant's word, and what had been measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from broker.select.candidates import Feasibility, Listing, feasible
from broker.select.predict import Learned, Name, Predictor, Waited
from broker.select.requirements import MODEL_RULE, TOTAL_RULE, TPOT_RULE, TTFT_RULE
from receipts.verify.replay.selection import Cut, OnOffer
from schemas.canonical import Wire
from schemas.descriptors.request import RequestDescriptor
from schemas.errors import Unreadable
from schemas.policy.facts import RequestContext
from schemas.primitives import Count, Digest, DomainName, Label, TimeText, parse_time

MAX_CUT_BYTES: Final = 1024 * 1024  # some 8,000 learned speeds; a refusal has looked at a few dozen
ON_WORD: Final = frozenset({TTFT_RULE, TOTAL_RULE, TPOT_RULE, MODEL_RULE})
"""Rules over what the broker measured itself, or remembers of its own earlier attempt."""


def _positive(text: str) -> str:
    if Decimal(text) <= 0:
        raise ValueError("a speed is more than nothing")
    return text


Thousandths = Annotated[str, Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,3})?$")]
"""A number with at most three decimals, as text."""
Rate = Annotated[Thousandths, AfterValidator(_positive)]


class LearnedSpeed(Wire):
    """What the broker had seen of a capability of a domain lately; what is absent stands in the advert."""

    domain: DomainName
    label: Label
    prefill_tps: Rate | None = None
    decode_tps: Rate | None = None
    queue_ms: Thousandths | None = None

    @model_validator(mode="after")
    def _rates_go_together(self) -> Self:
        if (self.prefill_tps is None) != (self.decode_tps is None):
            raise ValueError("runs show both rates or none")
        return self


class CutRecord(Wire):
    """Everything that a cut read beside adverts, endorsed profiles and rules."""

    v: Literal[1] = 1
    at: TimeText
    request: RequestDescriptor
    """Under the name that it has outside its broker, and without the session that it belongs to."""
    tenant: Annotated[str, Field(max_length=512)]
    application: Annotated[str, Field(max_length=512)]
    allow_debug: bool
    model_digest: Digest | None = None
    rtts_ms: dict[DomainName, Count]
    speeds: list[LearnedSpeed]

    @classmethod
    def read(cls, data: bytes, *, limit: int = MAX_CUT_BYTES) -> Self:
        return super().read(data, limit=limit)


def record(
    request: RequestDescriptor,
    context: RequestContext,
    listings: Iterable[Listing],
    predictor: Predictor,
    *,
    name: str,
    at: datetime,
    model_digest: str | None,
) -> CutRecord:
    """What to keep of a cut of these listings. `name`: the request's, outside this broker."""
    listed = list(listings)
    rtts = predictor.rtts_ms()
    return CutRecord(
        at=at.isoformat().replace("+00:00", "Z"),  # to the microsecond: the cut's own moment
        request=request.model_copy(update={"request_id": name, "affinity": None}),
        tenant=context.tenant,
        application=context.application,
        allow_debug=context.allow_debug,
        model_digest=model_digest,
        rtts_ms={each.domain: rtts[each.domain] for each in listed if each.domain in rtts},
        speeds=list(_seen(listed, predictor, at.timestamp())),
    )


def _seen(listings: Iterable[Listing], predictor: Predictor, at: float) -> Iterator[LearnedSpeed]:
    for listing in listings:
        for label in dict.fromkeys(cell.label for cell in listing.summary.cells):
            learned = predictor.learned(listing.domain, label, at)
            waited = predictor.waited(listing.domain, label, at)
            if learned or waited:
                yield LearnedSpeed(
                    domain=listing.domain,
                    label=label,
                    prefill_tps=str(learned.prefill_tps) if learned else None,
                    decode_tps=str(learned.decode_tps) if learned else None,
                    queue_ms=str(waited.queue_ms) if waited else None,
                )


def recut(data: bytes, offered: OnOffer) -> Cut:
    """What a record and the offers lead to. Raises `ComityError`, among it what cannot be computed."""
    stored = CutRecord.read(data)
    try:
        return _cut(stored, _again(stored, offered))
    except ArithmeticError:
        raise Unreadable("rank.record", "its numbers are beyond what is computed with") from None


def _again(stored: CutRecord, offered: OnOffer) -> Feasibility:
    request = stored.request
    context = RequestContext.of(
        request.policy,
        consumer=offered.consumer,
        tenant=stored.tenant,
        application=stored.application,
        max_price=request.budget.max_price,
        allow_debug=stored.allow_debug,
        simulated_allowed=offered.simulated_allowed,
    )
    at = parse_time(stored.at)
    return feasible(
        request,
        context,
        [
            Listing(each.domain, each.summary, each.digest, each.profile, at.timestamp())
            for each in offered.adverts
        ],
        offered.rules,
        local_domain=offered.consumer,
        rtts_ms=stored.rtts_ms,
        at=at,
        predictor=_predictor(stored.speeds, at.timestamp()),
        model_digest=stored.model_digest,
    )


def _predictor(speeds: Iterable[LearnedSpeed], at: float) -> Predictor:
    learned: dict[Name, Learned] = {}
    waited: dict[Name, Waited] = {}
    for each in speeds:
        name = (each.domain, each.label)
        if each.prefill_tps is not None and each.decode_tps is not None:
            learned[name] = Learned(Decimal(each.prefill_tps), Decimal(each.decode_tps), samples=1, at=at)
        if each.queue_ms is not None:
            waited[name] = Waited(Decimal(each.queue_ms), at)
    return Predictor.of(learned, waited)


def _cut(stored: CutRecord, found: Feasibility) -> Cut:
    return Cut(
        at=parse_time(stored.at),
        request=stored.request,
        allowed=tuple(plan.key for plan in found.candidates),
        rejected=tuple(plan.as_json() for plan in found.rejected),
        binding=found.report().binding,
        on_word=tuple(plan.key for plan in found.rejected if ON_WORD.issuperset(plan.reasons)),
    )
