"""How the broker asks its own agent: capacity, evidence, adverts. Nothing here leaves the domain."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from broker.observe.spans import trace_headers
from broker.providing.holds import MAX_NEGOTIATIONS
from federation.connection import Bus
from schemas.errors import ComityError, Undecided
from schemas.messages.interior import EvidenceRequest, HoldReply, HoldRequest, HoldUpdate, HoldUpdated

ASK_S: Final = 2.0  # seconds; the agent answers from memory
EVIDENCE_S: Final = 5.0  # seconds for a document of up to a megabyte
MAX_UNTOLD: Final = MAX_NEGOTIATIONS  # ends of holds and runs: more than the border has, no outage can bring
AGAIN_S: Final = 0.25  # seconds between two tries at an agent that is not back on the bus, as it tries itself

_log = logging.getLogger("comity.border")


@dataclass(slots=True)
class Interior:
    """The agent, seen from the border. Every question raises `Undecided` when the agent is not there.

    The end of a hold or run that could not be sent is kept, and told once the bus is back: the agent
    would keep the place for as long as a run may take.
    """

    bus: Bus
    _untold: OrderedDict[str, tuple[str, bytes]] = field(default_factory=OrderedDict)
    """Hold id → subject and update, the oldest first. In memory, like the holds themselves."""
    _telling: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.bus.on_reconnect(self._back)

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
        """Give the slot back; an agent that cannot be told is told later."""
        await self._tell("agent.release", hold_id, nid)

    async def done(self, hold_id: str, nid: str) -> None:
        """The run has ended, one way or another; an agent that cannot be told is told later."""
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
        update = HoldUpdate(hold_id=hold_id, nid=nid).write()
        try:
            await self.bus.publish(subject, update)
        except Undecided:
            self._keep(hold_id, subject, update)

    def _keep(self, hold_id: str, subject: str, update: bytes) -> None:
        self._untold.setdefault(hold_id, (subject, update))
        while len(self._untold) > MAX_UNTOLD:
            self._untold.popitem(last=False)

    async def _back(self) -> None:
        self.bus.spawn(self._catch_up)  # whatever else a reconnection brings does not wait for the agent

    async def _catch_up(self) -> None:
        """Tell what was kept, each until the agent has answered: it may come back later than we did."""
        async with self._telling:
            # Where the connection is lost again, the next one goes on.
            while self._untold and self.bus.connected:
                hold_id, (subject, update) = self._untold.popitem(last=False)
                try:
                    await self.bus.request(subject, update, timeout=ASK_S)
                except Undecided:
                    self._keep(hold_id, subject, update)
                    await asyncio.sleep(AGAIN_S)
                except ComityError as error:  # it was heard, and would be answered so again
                    _log.warning("an end was not taken: %s", error, extra={"code": error.code})
