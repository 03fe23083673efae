"""Where the same platform would stand under other TCB evaluations (PCS API v4: tcbEvaluationDataNumber).

Intel raises the number when an advisory asks for updates; early and standard channels carry different
ones on the same day. Information, never a verdict: dates are not looked at, the judged status stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from attestation.tdx.collateral.documents import Kind, Offered
from attestation.tdx.collateral.endorsed import (
    Document,
    Endorsed,
    fits_identity,
    fits_tcb_info,
    verify_document,
)
from attestation.tdx.collateral.stated import QeIdentity, TcbInfo, read_qe_identity, read_tcb_info
from attestation.tdx.expected import QuotePolicy
from attestation.tdx.origin.chain import PckChain
from attestation.tdx.origin.verify import date
from attestation.tdx.quote import Quote
from attestation.tdx.tcb.judge import judge_tcb
from schemas.canonical import Json
from schemas.errors import Refused, Undecided


@dataclass(frozen=True, slots=True)
class Asked:
    """One quote and everything that was offered with it."""

    quote: Quote
    chain: PckChain | None
    offered: Offered
    policy: QuotePolicy


def other_evaluations(asked: Asked, used: Endorsed, at: float) -> dict[str, Json]:
    """Evaluation number → status and advisories, for every other TCB info that verifies and fits."""
    chain, mine = asked.chain, used.tcb_info
    if chain is None or mine is None:
        return {}
    tee = asked.quote.tee
    infos = _verified(asked, "tcb_info", read_tcb_info, lambda each: fits_tcb_info(each, chain, tee))
    identities = list(
        _verified(asked, "qe_identity", read_qe_identity, lambda each: fits_identity(each, tee))
    )
    found: dict[str, Json] = {}
    for info in sorted(infos, key=lambda each: each.evaluation):
        identity = _beside(info, identities)
        if info.evaluation == mine.evaluation or identity is None:
            continue
        judged = judge_tcb(
            asked.quote, chain, replace(used, tcb_info=info, identity=identity), asked.policy, at
        )
        found[str(info.evaluation)] = {
            "tcb_status": judged.status,
            "advisory_ids": list(judged.launch.advisories) if judged.launch else [],
            "tcb_info_until": date(info.next_update),
        }
    return found


def _verified(
    asked: Asked, kind: Kind, read: Callable[[bytes], Document], fits: Callable[[Document], Document]
) -> Iterator[Document]:
    """Every document of the kind whose signature and subject hold."""
    for source in asked.offered.of(kind):
        try:
            verify_document(source, asked.offered.certificates, asked.chain, asked.policy.roots)
            yield fits(read(source.body))
        except (Refused, Undecided):
            continue


def _beside(info: TcbInfo, identities: list[QeIdentity]) -> QeIdentity | None:
    """The identity of the same evaluation or the nearest before: Intel publishes adjacent ones together."""
    fitting = [each for each in identities if each.evaluation <= info.evaluation]
    return max(fitting, key=lambda each: each.evaluation, default=None)
