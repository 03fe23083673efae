"""What our domain charges: the rates it advertises, and the predicted total for one call (DESIGN 19)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from schemas.descriptors.capability import Rates
from schemas.descriptors.summary import CapabilitySummary
from schemas.errors import Refused
from schemas.messages.negotiation import CallForOffers


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Reads our own agent's current summary: one price, told to everyone alike."""

    summary: Callable[[], CapabilitySummary | None]

    def rates(self, model_digest: str) -> Rates:
        """Micro-units per 1,000 tokens. Raises `Refused` when we advertise no price for this model."""
        summary = self.summary()
        for cell in summary.cells if summary else []:
            if cell.digest == model_digest and cell.rates is not None:
                return cell.rates
        raise Refused("pricing.unknown", "no price is advertised for this model")

    def predict(self, model_digest: str, call: CallForOffers) -> int:
        """Predicted total of this call in micro-units: its estimate of input, its limit of output."""
        return self.rates(model_digest).total(
            input_tokens=call.input_tokens, output_tokens=call.max_output_tokens
        )
