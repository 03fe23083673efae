"""What `comity node run --config F` reads (`examples/node.toml` documents every key)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

from domain_agent.membership import Membership, read_membership
from domain_agent.node.engine.client import EngineAddress
from domain_agent.node.engine.serving import PrefixCache
from domain_agent.node.engine_llamacpp import CONTEXT_TOKENS, THREADS
from domain_agent.observe import Observe, read_observe
from domain_agent.toml_file import DIGEST, TOKEN, Section, open_toml
from schemas.errors import ConfigurationError
from schemas.keys import read_secret

MAX_SLOTS: Final = 1024  # requests that one engine works on at once
CAPABILITY: Final = r"[a-z0-9][a-z0-9._-]{0,63}/[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
DEFAULT_DRAIN_S: Final = 30

Placement = Literal["in-tee", "outside-tee"]


@dataclass(frozen=True, slots=True)
class Tee:
    """[tee]: where evidence comes from."""

    kind: Literal["configfs-tsm", "sev-guest", "simulated"]
    chip: Path | None
    """Folder of a simulated chip."""
    endorsements: Path | None
    """Folder whose certificates and CRLs go along with the CPU's report (`comity attest fetch`)."""
    event_log: bool = False
    """Whether firmware's event log goes along with a trust domain's quote."""


@dataclass(frozen=True, slots=True)
class Devices:
    """[devices]: where evidence of GPUs comes from."""

    kind: Literal["none", "nvml", "simulated"] = "none"
    board: Path | None = None
    """Folder of simulated GPUs."""


@dataclass(frozen=True, slots=True)
class LlamaEngine:
    """[engine] kind = "llama.cpp": the node starts it itself."""

    slots: int
    context: int
    threads: int


@dataclass(frozen=True, slots=True)
class AttachedEngine:
    """[engine] kind = "openai": it runs already, started with the node inside the same TEE."""

    name: str
    address: EngineAddress
    placement: Placement
    binary: Path | None
    flags: tuple[str, ...]
    slots: int
    prefix_cache: PrefixCache


@dataclass(frozen=True, slots=True)
class Model:
    """[[models]]: one capability that this node realises."""

    capability: str
    name: str
    """What the engine calls it."""
    file: Path | None
    digest: str | None
    """Claimed, only for an engine outside the TEE."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The whole file."""

    file: Path
    membership: Membership
    node_id: str
    tee: Tee
    engine: LlamaEngine | AttachedEngine
    models: tuple[Model, ...]
    drain_s: int
    observe: Observe
    devices: Devices = Devices()


def load(path: Path) -> NodeConfig:
    """Read the file. Raises `ConfigurationError`, naming file, key and what to write."""
    top = open_toml(path)
    node_id = top.text("node_id", TOKEN, write='node_id = "<letters, digits, _ and ->"')
    federation = top.child("federation")
    membership = read_membership(top, federation, f"node.{node_id}")
    federation.finish()
    tee = _tee(top.child("tee"))
    devices = _devices(top.child("devices")) if top.has("devices") else Devices()
    engine = _engine(top.child("engine"))
    models = tuple(_model(section, engine) for section in top.children("models", least=1))
    drain_s = top.integer("drain_s", 0, 3600, unit="seconds", default=DEFAULT_DRAIN_S)
    observe = read_observe(top.child("observe"))
    top.finish()
    if len({model.capability for model in models}) != len(models):
        raise ConfigurationError("config.value", f"{path}: [[models]] names a capability twice")
    if isinstance(engine, LlamaEngine) and len(models) != 1:
        raise ConfigurationError("config.value", f"{path}: a llama.cpp engine serves one of [[models]]")
    return NodeConfig(path, membership, node_id, tee, engine, models, drain_s, observe, devices)


def _tee(section: Section) -> Tee:
    kind = section.choice("kind", ("configfs-tsm", "sev-guest", "simulated"))
    chip = folder = None
    if kind == "simulated":
        chip = section.path("chip", write='chip = "<folder of a simulated chip>"')
    elif section.has("endorsements"):
        folder = section.path("endorsements", write='endorsements = "<folder of certificates and CRLs>"')
    event_log = (
        kind == "configfs-tsm" and section.choice("event_log", ("none", "ccel"), default="none") == "ccel"
    )
    section.finish()
    return Tee(cast(Literal["configfs-tsm", "sev-guest", "simulated"], kind), chip, folder, event_log)


def _devices(section: Section) -> Devices:
    kind = section.choice("kind", ("none", "nvml", "simulated"))
    board = None
    if kind == "simulated":
        board = section.path("board", write='board = "<folder of simulated GPUs>"')
    section.finish()
    return Devices(cast(Literal["none", "nvml", "simulated"], kind), board)


def _engine(section: Section) -> LlamaEngine | AttachedEngine:
    kind = section.choice("kind", ("llama.cpp", "openai"))
    slots = section.integer("slots", 1, MAX_SLOTS, unit="requests at once")
    if kind == "llama.cpp":
        llama = LlamaEngine(
            slots,
            section.integer("context", 256, 2**24, unit="tokens for all slots", default=CONTEXT_TOKENS),
            section.integer("threads", 1, 1024, unit="threads", default=THREADS),
        )
        section.finish()
        return llama
    return _attached(section, slots)


def _attached(section: Section, slots: int) -> AttachedEngine:
    write = 'address = "http://127.0.0.1:8000" or "unix:/run/engine.sock"'
    url = section.text("address", r"(https?://[^/?#]+|unix:/.+)/?", write=write)
    key = ""
    if section.has("key_file"):
        key = _key(section.secret("key_file", write='key_file = "<file with the engine\'s bearer token>"'))
    address = EngineAddress(url, key)
    placement: Placement = "in-tee"
    if section.choice("placement", ("in-tee", "outside-tee"), default="in-tee") == "outside-tee":
        placement = "outside-tee"
    if placement == "in-tee" and not address.is_local:
        raise section.error("address", "leaves this machine", f'{write}, or placement = "outside-tee"')
    binary = None
    if placement == "in-tee":
        binary = section.path("binary", write='binary = "<the engine\'s executable, to be hashed>"')
    cache = section.choice("prefix_cache", ("off", "salted", "slots"))
    engine = AttachedEngine(
        name=section.text("name", r"[a-z0-9._-]{1,32}", write='name = "vllm"'),
        address=address,
        placement=placement,
        binary=binary,
        flags=tuple(section.texts("flags", r"[\x20-\x7e]{1,256}", write='flags = ["--max-model-len=8192"]')),
        slots=slots,
        prefix_cache="off" if cache == "off" else "salted" if cache == "salted" else "slots",
    )
    section.finish()
    return engine


def _model(section: Section, engine: LlamaEngine | AttachedEngine) -> Model:
    capability = section.text("capability", CAPABILITY, write='capability = "<class>/<variant>"')
    name = section.text("name", r"[\x21-\x7e]{1,128}", write='name = "model"', default=capability)
    outside = isinstance(engine, AttachedEngine) and engine.placement == "outside-tee"
    file = digest = None
    if outside and section.has("digest"):
        digest = section.text("digest", DIGEST, write='digest = "<64 hex digits>"')
    else:
        file = section.path("file", write='file = "<the model file, to be hashed and served>"')
    section.finish()
    return Model(capability, name, file, digest)


def _key(path: Path) -> str:
    text = read_secret(path).decode("ascii", "replace").strip()
    if not re.fullmatch(r"[\x21-\x7e]{1,512}", text):
        raise ConfigurationError("config.value", f"{path}: a bearer token is one line of visible ASCII")
    return text
