"""Verify a bundle of receipts, offline: bytes, a trust file and a time go in, a report comes out.

`trust_file` what the auditor pins · `pinned` keys under that pin · `authentic` signature, schema,
key, log · `witnessed` who else saw it, and since when · `attested` the evidence again · `links` do
the statements belong together · `replay` policy and ranking decided again · `content` and
`convicted` what was opened, and who was caught · `said` what rests on somebody's word · `claim` and
`report` what may be said of it. No file here does I/O.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from receipts import bundle as bundles
from receipts.verify.attested import attested
from receipts.verify.authentic import WORDS, Case, Judged, authenticate, sort, unauthenticated
from receipts.verify.claim import CLAIMS, Claim
from receipts.verify.content import content_claim
from receipts.verify.convicted import convictions, without_the_caught
from receipts.verify.links import Context, links, sequence
from receipts.verify.pinned import PinnedTrust, establish
from receipts.verify.replay.claims import plan_choice_claim, policy_claim
from receipts.verify.replay.selection import Selection
from receipts.verify.report import ReceiptReport, Report, receipt_report
from receipts.verify.said import said
from receipts.verify.trust_file import TrustFile
from receipts.verify.witnessed import NOBODY
from schemas.errors import Refused, Undecided, Unreadable

__all__ = ["CLAIMS", "Claim", "Report", "TrustFile", "verify_bundle"]


def verify_bundle(
    data: bytes, trust: TrustFile, *, at: datetime, selection: Selection | None = None
) -> Report:
    """Judge every receipt in the bundle. `selection` cuts and ranks again; without it, nobody does.

    1. read the bundle; 2. follow the pin to keys; 3. authenticate each receipt alone; 4. judge what
    it says in the light of the others. Raises `Unreadable` when the bytes are no bundle or hold no
    receipt; everything else is in the report.
    """
    bundle = bundles.read(data)
    found = sort(bundle)
    try:
        held = establish(bundle, trust)
    except (Refused, Undecided, Unreadable) as error:
        judged = [unauthenticated(kind, digest, error) for digest, (kind, _) in found.receipts.items()]
        return _report(trust, at, None, [_reported(each) for each in judged])
    held = without_the_caught(held, bundle)
    case = Case(bundle, found, held, trust, at)
    judged = [authenticate(digest, case) for digest in found.receipts]
    return replace(_report(trust, at, held, _judge(judged, case, selection)), witnesses=_witnesses(judged))


def _witnesses(judged: list[Judged]) -> tuple[int, int]:
    """Of the receipt that the fewest saw; one that is not authentic was seen by nobody."""
    watched = [each.authentic.watched if each.authentic else NOBODY for each in judged]
    worst = min(watched, key=lambda each: len(each.operators))
    return len(worst.operators), max(each.of for each in watched)


def _judge(judged: list[Judged], case: Case, selection: Selection | None) -> list[ReceiptReport]:
    """Step 4. Only receipts that are authentic, and whose signer had the right, may support others."""
    authentic = [
        each.authentic
        for each in judged
        if each.authentic is not None and all(claim.verdict != "failed" for claim in each.claims)
    ]
    context = Context(authentic, case.found.node_statements)
    caught = convictions(case)
    reports: list[ReceiptReport] = []
    for each in judged:
        if each.authentic is None or each.authentic not in authentic:
            reports.append(_reported(each))
            continue
        claim, appraised = attested(each.authentic, authentic, case)
        more = [*links(each.authentic, context, appraised), *sequence(each.authentic, context, caught)]
        more += [
            policy_claim(each.authentic, case, appraised, selection),
            plan_choice_claim(each.authentic, case, selection),
            content_claim(each.authentic, case),
        ]
        reports.append(
            _reported(each, claim, *more, *said(each.authentic, context, appraised, case.trust.models))
        )
    return sorted(reports, key=lambda report: list(WORDS.values()).index(report.kind))


def _reported(judged: Judged, *more: Claim) -> ReceiptReport:
    body = judged.authentic.body if judged.authentic else None
    return receipt_report(
        WORDS[judged.kind],
        judged.digest,
        body.receipt_id if body else None,
        body.issuer if body else None,
        [*judged.claims, *more],
    )


def _report(
    trust: TrustFile, at: datetime, held: PinnedTrust | None, receipts: list[ReceiptReport]
) -> Report:
    return Report(
        at=at,
        federation=trust.federation,
        pin=held.pin if held else "nothing could be established under the pin",
        charter=held.charter if held else None,
        manifests=tuple(held.manifests.values()) if held else (),
        profile=trust.profile,
        waived=trust.waived,
        receipts=tuple(receipts),
    )
