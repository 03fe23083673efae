"""Starting a node's engine and hashing what it runs: the configuration that evidence will state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from domain_agent.node.config import AttachedEngine, Devices, LlamaEngine, NodeConfig, Tee
from domain_agent.node.engine.body import read_body
from domain_agent.node.engine.client import EngineAddress, EngineClient
from domain_agent.node.engine.process import LlamaProcess, llama_binary
from domain_agent.node.engine.serving import WARM_UP, Serving
from domain_agent.node.engine_llamacpp import flags
from domain_agent.node.proving.collect import Collect, Endorsed, TsmCollector, simulated
from domain_agent.node.proving.devices import CollectDevices, NvmlCollector, simulated_board
from domain_agent.node.proving.event_log import read_firmware_log
from domain_agent.node.proving.quote import file_digest
from domain_agent.node.proving.sev_guest import SevGuestCollector
from domain_agent.node.running.run import Resident
from schemas.errors import ConfigurationError
from schemas.proof.evidence import ModelFile, NodeConfiguration

SPARE_CONNECTIONS: Final = 4  # to the engine, beside one per slot: telemetry and erasing
UNHASHED: Final = "0" * 64
"""Engine digest of an engine outside the TEE: nothing here could hash it."""


@dataclass(slots=True)
class StartedEngine:
    """An engine that answers, and what evidence says about it. `close` ends what we started."""

    serving: Serving
    configuration: NodeConfiguration
    residents: tuple[Resident, ...]
    process: LlamaProcess | None

    async def close(self) -> None:
        await self.serving.close()
        if self.process:
            await self.process.stop()

    async def ended(self) -> None:
        """Return when an engine that we started has ended; never, for one that was attached."""
        if self.process:
            await self.process.wait()
        else:
            await asyncio.Event().wait()


def collector(tee: Tee) -> Collect:
    """Where this node's CPU evidence comes from. Raises `ConfigurationError`."""
    if tee.chip:
        return simulated(tee.chip)
    collect: Collect = SevGuestCollector() if tee.kind == "sev-guest" else TsmCollector()
    return Endorsed(collect, tee.endorsements) if tee.endorsements else collect


def event_log_reader(tee: Tee) -> Callable[[], bytes] | None:
    """Where a trust domain's event log comes from; None where none is sent."""
    return read_firmware_log if tee.event_log else None


def device_collector(devices: Devices) -> CollectDevices | None:
    """Where this node's GPU evidence comes from; None where it has none. Raises `ConfigurationError`."""
    if devices.board:
        return simulated_board(devices.board)
    return NvmlCollector() if devices.kind == "nvml" else None


async def start_engine(config: NodeConfig, *, warm_up: bool = True) -> StartedEngine:
    """Hash, start or attach, and measure once.

    Raises `ConfigurationError`, `Refused` or `Undecided`; then nothing of ours runs.
    """
    residents = tuple([await _resident(config, index) for index in range(len(config.models))])
    match config.engine:
        case LlamaEngine() as engine:
            started = await _start_llama(config, engine, residents)
        case AttachedEngine() as attached:
            started = await _attach(attached, residents)
    if warm_up:
        try:
            for resident in residents:
                await started.serving.warm_up(resident.name, read_body(WARM_UP))
        except BaseException:
            await started.close()
            raise
    return started


async def _resident(config: NodeConfig, index: int) -> Resident:
    model = config.models[index]
    digest = await file_digest(model.file) if model.file else model.digest
    assert digest
    return Resident(model.capability, digest, model.name)


async def _start_llama(
    config: NodeConfig, engine: LlamaEngine, residents: tuple[Resident, ...]
) -> StartedEngine:
    model = config.models[0]
    assert model.file
    digest = await file_digest(llama_binary())
    process = await LlamaProcess.start(
        model.file, alias=model.name, parallel=engine.slots, context=engine.context, threads=engine.threads
    )
    configuration = NodeConfiguration(
        engine="in-tee",
        engine_kind="llama.cpp",
        engine_digest=digest,
        engine_flags=flags(parallel=engine.slots, context=engine.context, threads=engine.threads),
        engine_address=process.address,
        models=_files(residents),
        prompt_logging=False,
    )
    client = EngineClient(
        EngineAddress(process.address, process.key), connections=engine.slots + SPARE_CONNECTIONS
    )
    serving = Serving(client, slots=engine.slots, prefix_cache="slots")
    return StartedEngine(serving, configuration, residents, process)


async def _attach(engine: AttachedEngine, residents: tuple[Resident, ...]) -> StartedEngine:
    if engine.placement == "in-tee" and engine.binary is None:
        raise ConfigurationError("config.value", "an engine inside the TEE has a binary to hash")
    configuration = NodeConfiguration(
        engine=engine.placement,
        engine_kind=engine.name,
        engine_digest=await file_digest(engine.binary) if engine.binary else UNHASHED,
        engine_flags=list(engine.flags),
        engine_address=engine.address.url,
        models=_files(residents),
        prompt_logging=False,
    )
    client = EngineClient(engine.address, connections=engine.slots + SPARE_CONNECTIONS)
    serving = Serving(client, slots=engine.slots, prefix_cache=engine.prefix_cache)
    return StartedEngine(serving, configuration, residents, None)


def _files(residents: tuple[Resident, ...]) -> list[ModelFile]:
    return [ModelFile(capability=each.capability, digest=each.digest) for each in residents]
