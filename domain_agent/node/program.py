"""The node program: dials out to its domain's bus, answers challenges, runs what is sealed to it.

It opens no port. Owns the keys, the engine and the runs; all of it is in memory and ends with the
process. A lost bus connection ends open answers (nobody could read them) and is retried for ever. A bus
that shuts the node out for good ends it; so does an engine that dies, because a restart is a new identity.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from domain_agent.node.config import NodeConfig
from domain_agent.node.engine.telemetry import available_memory_mb
from domain_agent.node.keys import NodeKeys
from domain_agent.node.proving.collateral import CollateralCopy
from domain_agent.node.proving.collect import Collect
from domain_agent.node.proving.devices import CollectDevices
from domain_agent.node.proving.quote import make_evidence
from domain_agent.node.running.run import Executor, Stop, execute
from domain_agent.node.running.statement import Ending
from domain_agent.node.start import StartedEngine, collector, device_collector, event_log_reader, start_engine
from domain_agent.spans import working
from federation.connection import Bus
from federation.flood import FloodLimits
from federation.serving import Inbound
from federation.stream import Responder, serve_streams
from schemas.errors import ComityError, ConfigurationError, Undecided
from schemas.messages.interior import Challenges, EvidenceRequest, Hello, ModelState, NodeState, Welcome
from schemas.proof.evidence import pack

STATE_EVERY_S: Final = 1.0  # seconds between two reports to the agent
HELLO_EVERY_S: Final = 1.0  # seconds until the agent is asked again to take notice
HELLO_TIMEOUT_S: Final = 2.0
QUOTE_LIMITS: Final = FloodLimits(rate=4.0, burst=8.0, queue=4)  # the agent asks at most every 2 s
EXECUTE_LIMITS: Final = FloodLimits(rate=2000.0, burst=4000.0, queue=512)  # our own border's runs
FAREWELL_S: Final = 5.0  # seconds for runs that were ended to send their statements
MAX_RUNS: Final = 1024  # runs at once, waiting ones included
DRAINING: Final = Ending("terminated", "node.draining", "terminated")
CANCELLED: Final = Ending("cancelled", "run.cancelled", "cancelled")

_log = logging.getLogger("comity.node")


class Node:
    """One running node. `run` is its whole life; `drain` ends it."""

    def __init__(
        self,
        config: NodeConfig,
        bus: Bus,
        engine: StartedEngine,
        collect: Collect,
        devices: CollectDevices | None = None,
    ) -> None:
        self.config = config
        self.bus = bus
        self.engine = engine
        self.keys = NodeKeys()
        self.executor = Executor(config.membership, self.keys, engine.serving, engine.residents)
        self.runs: set[Stop] = set()
        self._collect, self._devices = collect, devices
        self.collateral = CollateralCopy(config.membership, self._fetch)
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @classmethod
    async def start(cls, config: NodeConfig) -> Node:
        """Engine first, then the bus. Raises as `start_engine` and `Bus.connect`; nothing runs then."""
        collect, devices = collector(config.tee), device_collector(config.devices)
        engine = await start_engine(config)
        try:
            bus = await Bus.connect(config.membership.bus)
        except BaseException:
            await engine.close()
            raise
        return cls(config, bus, engine, collect, devices)

    async def run(self) -> None:
        """Serve until drained. Raises as `Bus.over`, or `Undecided` (`engine.died`) when the engine ended."""
        prefix = f"node.{self.config.node_id}.in"
        try:
            await self.bus.serve(f"{prefix}.quote", self._quote, limits=QUOTE_LIMITS, concurrency=1)
            await serve_streams(
                self.bus,
                f"{prefix}.execute",
                self._execute,
                limits=EXECUTE_LIMITS,
                total=MAX_RUNS,
                per_sender=MAX_RUNS,
            )
            self.bus.on_reconnect(self._hello)
            await self._serve()
        finally:
            await self.bus.close()
            await self.engine.close()

    def drain(self) -> None:
        """Take nothing new; what runs may end within `drain_s`, then it is ended with a statement."""
        self._stopping.set()

    async def _serve(self) -> None:
        died: asyncio.Task[object] = asyncio.create_task(self.engine.ended())
        stopping: asyncio.Task[object] = asyncio.create_task(self._stopping.wait())
        rest = (self.bus.over(), self._hello(), self._report())
        tasks = {died, stopping, *map(asyncio.create_task, rest)}
        try:
            running = set(tasks)
            while not died.done() and not stopping.done():
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            if not stopping.done():
                await self._wait_idle(FAREWELL_S)
                raise Undecided("engine.died", "the engine ended by itself; start the node again")
            await self._finish_runs()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _finish_runs(self) -> None:
        _log.info("draining", extra={"node": self.config.node_id, "running": len(self.runs)})
        with suppress(ComityError):
            await self.bus.publish(self._out("state"), (await self._state()).write())
        await self._wait_idle(self.config.drain_s)
        for stop in list(self.runs):
            stop.now(DRAINING)
        await self._wait_idle(FAREWELL_S)

    async def _wait_idle(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    async def _hello(self) -> None:
        """Tell the agent that we are here, until it answers. Admission follows from evidence alone."""
        hello = Hello(node_id=self.config.node_id, boot_id=self.keys.boot_id).write()
        while not self._stopping.is_set():
            try:
                reply = await self.bus.request(self._out("hello"), hello, timeout=HELLO_TIMEOUT_S)
                self._check_welcome(Welcome.read(reply))
            except (Undecided, ConfigurationError) as error:
                if isinstance(error, ConfigurationError):
                    raise
                await asyncio.sleep(HELLO_EVERY_S)
            else:
                return

    def _check_welcome(self, welcome: Welcome) -> None:
        ours = self.config.membership
        if (welcome.federation, welcome.domain) != (ours.federation, ours.domain):
            raise ConfigurationError(
                "node.domain", f"this bus belongs to {welcome.domain}, {self.config.file} says {ours.domain}"
            )

    async def _report(self) -> None:
        while True:
            with suppress(Undecided):
                await self.bus.publish(self._out("state"), (await self._state()).write())
            await asyncio.sleep(STATE_EVERY_S)

    async def _state(self) -> NodeState:
        reading = await self.engine.serving.look()
        meters = self.engine.serving.speed
        models = [
            ModelState(
                capability=each.capability,
                model_digest=each.digest,
                prefill_tps=meters[each.name].prefill_tps if each.name in meters else 0,
                decode_tps=meters[each.name].decode_tps if each.name in meters else 0,
            )
            for each in self.engine.residents
        ]
        return NodeState(
            node_id=self.config.node_id,
            boot_id=self.keys.boot_id,
            health="DOWN" if self._stopping.is_set() else reading.health,
            slots=self.engine.serving.slots.count,
            busy_slots=reading.busy or 0,
            queued=reading.queued or 0,
            memory_mb=available_memory_mb(),
            models=models,
        )

    async def _quote(self, inbound: Inbound) -> bytes:
        asked = Challenges.read(inbound.payload)
        await self.collateral.renew(asked.collateral, datetime.now(UTC))
        evidence = await make_evidence(
            self.keys,
            self._collect,
            self.engine.configuration,
            federation=self.config.membership.federation,
            domain=self.config.membership.domain,
            node_id=self.config.node_id,
            key_epoch=asked.key_epoch,
            challenges={domain: bytes.fromhex(value) for domain, value in asked.challenges.items()},
            now=time.monotonic(),
            devices=self._devices,
            collateral=self.collateral.pieces,
            event_log=event_log_reader(self.config.tee),
        )
        return pack(evidence.write())

    async def _fetch(self, digest: str) -> bytes:
        """A document of the domain's collateral, from its agent. Raises `ComityError`."""
        asked = EvidenceRequest(evidence=digest).write()
        return await self.bus.request(self._out("collateral"), asked, timeout=HELLO_TIMEOUT_S)

    async def _execute(self, inbound: Inbound, responder: Responder) -> None:
        if self._stopping.is_set():
            raise Undecided("node.draining", "this node takes no new runs")
        stop = Stop()
        responder.on_cancel(lambda: stop.now(CANCELLED))
        self.runs.add(stop)
        self._idle.clear()
        try:
            with working("node.execute", inbound.headers) as span:
                ending = await execute(
                    self.executor, inbound.payload, responder.receive_body, responder.send, stop
                )
                span.set_attribute("comity.outcome", ending.outcome if ending else "problem")
                span.set_attribute("comity.code", ending.code if ending else "problem")
            await responder.end()
        finally:
            self.runs.discard(stop)
            if not self.runs:
                self._idle.set()

    def _out(self, op: str) -> str:
        return f"node.{self.config.node_id}.out.{op}"
