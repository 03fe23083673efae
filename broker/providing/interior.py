"""How the broker asks its own agent: capacity, evidence, adverts. Nothing here leaves the domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from broker.observe.spans import trace_headers
from federation.connection import Bus
from schemas.errors import ComityError, Undecided
from schemas.messages.interior import EvidenceRequest, HoldReply, HoldRequest, HoldUpdate, HoldUpdated

ASK_S: Final = 2.0  # seconds; the agent answers from memory
EVIDENCE_S: Final = 5.0  # seconds for a document of up to a megabyte


@dataclass(frozen=True, slots=True)
class Interior:
    """The agent, seen from the border. Every call raises `Undecided` when the agent is not there."""

    bus: Bus

    async def hold(self, wanted: HoldRequest) -> HoldReply:
        """Keep a slot on an admitted node, or say why not."""
        data = await self.bus.request("agent.hold", wanted.write(), timeout=ASK_S, headers=trace_headers())
        return HoldReply.read(data)

    async def commit(self, hold_id: str, nid: str) -> HoldUpdated:
        """Turn the hold into a run. `known` is false when it had expired: then the run must end."""
        data = await self.bus.request(
            "agent.commit", HoldUpdate(hold_id=hold_id, nid=nid).write(), timeout=ASK_S
        )
        return HoldUpdated.read(data)

    async def release(self, hold_id: str, nid: str) -> None:
        """Give the slot back. An agent that cannot be told lets it expire."""
        await self._tell("agent.release", hold_id, nid)

    async def done(self, hold_id: str, nid: str) -> None:
        """The run has ended, one way or another."""
        await self._tell("agent.done", hold_id, nid)

    async def evidence(self, digest: str) -> bytes:
        """A node's evidence document, by the digest an offer named."""
        return await self.bus.request(
            "agent.evidence", EvidenceRequest(evidence=digest).write(), timeout=EVIDENCE_S
        )

    async def snapshot(self) -> bytes:
        """Our agent's latest OwnAdvert."""
        return await self.bus.request("agent.snapshot", b"{}", timeout=ASK_S)

    async def _tell(self, subject: str, hold_id: str, nid: str) -> None:
        try:
            await self.bus.publish(subject, HoldUpdate(hold_id=hold_id, nid=nid).write())
        except ComityError as error:
            if not isinstance(error, Undecided):
                raise
