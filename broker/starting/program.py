"""The broker as a program: start in order, serve until told to stop, drain, stop in the reverse order.

SIGTERM drains: no new work, running streams end or fail typed, receipts are written. A log that can
no longer be written ends the process at once: it is not the holder any more (session.md 11).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import uvloop

from broker.edge.accepting.accept import Acceptance
from broker.edge.accepting.auth import Authenticator
from broker.edge.api import build_app
from broker.edge.chat import Edge
from broker.edge.gate import Gate
from broker.edge.server import EdgeServer
from broker.observe import Observability
from broker.starting.assemble import Parts, assemble
from broker.starting.config import BrokerConfig
from broker.witnesses import remember_all
from schemas.descriptors.tags import Home

EXIT_LOG_LOST = 70  # the process must not go on answering when receipts cannot be written
THREAD_TURN_S: Final = 0.0005
"""s until a waiting thread gets its turn. The log's writer gives up the interpreter at each statement; at
Python's own 5 ms a busy event loop would let one commit wait eight times as long as the disk takes."""
YOUNG_OBJECTS: Final = 10_000
"""Containers made and not yet freed before a search for cycles among them: some ninety requests' worth."""
log = logging.getLogger("comity.broker")


@dataclass(frozen=True, slots=True)
class Running:
    """A broker that serves."""

    parts: Parts
    server: EdgeServer
    gate: Gate
    following: asyncio.Task[None]
    """Shows our log to the others' witnesses; ends only when one proves that the log was set back."""

    @property
    def base_url(self) -> str:
        """What clients use as `base_url`; ends in /v1."""
        return self.server.base_url


@asynccontextmanager
async def running(config: BrokerConfig, *, logs: bool = True) -> AsyncIterator[Running]:
    """A broker from start to stop. Leaving the block drains first."""
    # 1. See what happens from here on.
    observability = Observability.start(config.observe, config.domain, logs=logs)
    # 2. Keys, trust, bus, log: everything that can be wrong is wrong here.
    parts = await assemble(config, observability.metrics)
    try:
        await parts.service.check_alone()
        # A log that was set back must not go on; a witness that is away holds nothing up.
        await parts.circle.check_not_behind(parts.log)
        await parts.log.tell_of_erasures()
        if parts.service.witness is not None:
            await remember_all(parts.service.witness, parts.service.peers.trust, parts.log)
        # 3. What a crash cut off gets the receipt that was promised for it.
        for issued in await parts.executions.recover():
            log.warning("concluded a run that a crash cut off", extra={"receipt": issued.receipt_id})
        # 4. Peers and agent first, applications last.
        await parts.service.start()
        recovering = asyncio.create_task(parts.shelf.recover())
        recovering.add_done_callback(_tell_failure)
        following = asyncio.create_task(parts.circle.follow(parts.log), name="comity-witnesses")
        gate = Gate(config.limits)
        server = EdgeServer(build_app(_edge(config, parts, gate, observability)), config.listen, gate)
        await server.start()
        try:
            yield Running(parts, server, gate, following)
        finally:
            # 5. Drain: nothing new from anyone, then what runs ends, ours and our peers', then receipts
            #    are filed.
            parts.border.draining = True
            await asyncio.gather(gate.drain(), parts.service.finish(config.limits.drain_ms / 1000))
            await server.stop()
            await parts.answering.settle()
            for task in (recovering, following):
                task.cancel()
            await asyncio.gather(recovering, following, return_exceptions=True)
    finally:
        await parts.service.stop()
        await parts.bus.close()
        await parts.log.close()
        if parts.service.witness is not None:
            parts.service.witness.close()
        observability.stop()


def _tell_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("what peers owe was not asked for", exc_info=task.exception())


def serve(config: BrokerConfig) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code."""
    sys.setswitchinterval(THREAD_TURN_S)
    return uvloop.run(_serve(config))


async def _serve(config: BrokerConfig) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(config) as broker:
        leave_alone_what_stands()
        log.info("broker serves", extra={"domain": config.domain, "port": broker.server.port})
        return await until_the_end(broker, stop)


async def until_the_end(broker: Running, stop: asyncio.Event) -> int:
    """Wait until we are told to stop, or cannot go on; then the exit code.

    Raises `Refused` (`bus.login`) or `Undecided` (`bus.ended`) when the bus is gone for good: whoever
    started us starts us again, and nobody takes a program for a border that hears nothing any more.
    """
    failed = asyncio.ensure_future(broker.parts.log.failed())
    gone = asyncio.ensure_future(broker.parts.bus.over())
    stopped = asyncio.ensure_future(stop.wait())
    try:
        ends = {failed, gone, stopped, broker.following}
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in (failed, gone, stopped):
            each.cancel()
    if broker.following in done:
        log.error("a witness has seen more of the log than is here", exc_info=broker.following.exception())
        return EXIT_LOG_LOST
    if failed in done:
        log.error("the log cannot be written any more", extra={"code": failed.result().code})
        return EXIT_LOG_LOST
    if gone in done:
        gone.result()
    return 0


def leave_alone_what_stands() -> None:
    """Modules, models and papers stay until the end: the search for cycles need not walk them each time.

    It would hold the loop up for a sixth of a second now and then (measured, 190,000 objects).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def _edge(config: BrokerConfig, parts: Parts, gate: Gate, observability: Observability) -> Edge:
    profile = parts.service.directory.profile(config.domain)
    return Edge(
        domain=config.domain,
        dispatch=parts.dispatcher,
        authenticator=Authenticator(config.tenants, config.issuers),
        acceptance=Acceptance(
            Home(config.domain, tuple(profile.jurisdictions)), parts.service.peers.trust.charter.currency
        ),
        gate=gate,
        observability=observability,
    )
