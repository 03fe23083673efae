"""How long an appraisal of a quote serves for the same guest's next one.

Under one set of inputs only five checks differ between quotes of one guest on one platform, until a
certificate, document or CRL ends, or a later document begins. So an appraisal that holds is kept for that
long; a next quote costs its own signature, and its quoting enclave's where that is new. The signatures and
the binding of every quote are checked every time, and nothing serves a moment outside the bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from attestation.tdx.body import TdReport
from attestation.tdx.expected import QuotePolicy
from attestation.tdx.quote import Quote

if TYPE_CHECKING:
    from attestation.tdx.appraise import QuoteAppraisal

KEPT_GUESTS: Final = 256  # with the documents that they rest on, at most 256 KiB each
_TD_REPORT_DATA: Final = 520  # where the report data stands in the body
_SGX_REPORT_DATA: Final = 320
_REPORT_DATA_BYTES: Final = 64


@dataclass(slots=True)
class Kept:
    """Room for one appraisal that holds, good for exactly one set of inputs and until something changes."""

    appraisal: QuoteAppraisal | None = None
    since: float = 0.0
    until: float = 0.0
    """POSIX seconds."""

    def at(self, moment: float) -> QuoteAppraisal | None:
        """What is kept, if it holds at this moment."""
        return self.appraisal if self.since <= moment < self.until else None

    def keep(self, appraisal: QuoteAppraisal, since: float, until: float) -> None:
        self.appraisal, self.since, self.until = appraisal, since, until


Standing = tuple[bytes, bytes, bytes, bytes, bytes, int, bytes]


def standing_of(quote: Quote) -> Standing:
    """Everything but what a guest's next quote may differ in.

    Left out are report data, signatures, attestation key, authentication data and the QE report's data.
    """
    raw = quote.body.raw
    at = _TD_REPORT_DATA if isinstance(quote.body, TdReport) else _SGX_REPORT_DATA
    return (
        quote.signed[: -len(raw)],
        raw[:at],
        raw[at + _REPORT_DATA_BYTES :],
        quote.qe.raw[:_SGX_REPORT_DATA],
        quote.certification,
        quote.certification_type,
        quote.tail,
    )


@lru_cache(maxsize=KEPT_GUESTS)
def room_of_guest(
    standing: Standing,
    documents: tuple[bytes, ...],
    policy: QuotePolicy | None,
    named: tuple[bytes | None, tuple[str, ...]],
    asked: tuple[bool, bool, int | None],
) -> Kept:
    """The room for a guest. named: digest and waivers of the expectations; asked: nonce, waiver, number."""
    del standing, documents, policy, named, asked
    return Kept()
