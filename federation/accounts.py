"""Who may say what on the bus: the server's accounts and users, generated (nats.md 3 and 4).

One account per domain and a switchboard account FED that nobody can log in to. The server itself
writes the sender's account into every subject that crosses, and inside a domain the broker, the
agent and each node have credentials of their own. This is defence in depth: what crosses is signed.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import nkeys

from schemas.errors import ConfigurationError
from schemas.primitives import domain_of_token, subject_token

Kind = Literal["system", "broker", "agent", "node"]

MAX_DOMAINS = 200  # one server's federation; beyond it regional brokers aggregate (nats.md 3.1)
MAX_NODES = 1000  # per domain
MAX_PAYLOAD_BYTES = 256 * 1024  # one message: 192 KiB of header and body, and room around it
MAX_PENDING_BYTES = 32 * 1024 * 1024  # what the server holds for a slow client: also how long a flood echoes
RESPONSE_THRESHOLD_S = 300  # s of silence after which the server forgets a reply path: 10 × a stalled stream
ANSWER_WITHIN_S = 120  # s a user may still answer what it was asked inside its domain
CONNECTIONS = 20  # per domain, without its nodes
CONNECTIONS_PER_NODE = 2  # one that lives and one that is being replaced
SUBSCRIPTIONS = 4096  # per domain: one for each request and stream that waits (connection.py says why)
SUBSCRIPTIONS_PER_CONNECTION = 24
LOG_BYTES = 8 * 1024 * 1024  # the server's own log, before it is turned over
SERVER_CONNECTIONS = 200

_NODE_ID = re.compile(r"^[A-Za-z0-9_-]{1,64}\Z")
_DOMAIN = re.compile(r"^[a-z0-9-]+(\.[a-z0-9-]+)+\Z")


@dataclass(frozen=True, slots=True)
class BusUser:
    """One login. Its seed goes to one file, read by one program."""

    name: str
    """`broker`, `agent`, `node.<id>` or `system`; unique inside its domain."""
    public: str
    seed: bytes = field(repr=False)
    kind: Kind

    @property
    def node_id(self) -> str:
        return self.name.removeprefix("node.")

    @property
    def inbox_prefix(self) -> str:
        """Where answers to this user arrive; no other user of the domain may listen there."""
        return f"_INBOX.{self.name}"


@dataclass(frozen=True, slots=True)
class BusDomain:
    """A domain's logins."""

    name: str
    users: tuple[BusUser, ...]

    @property
    def nodes(self) -> tuple[BusUser, ...]:
        return tuple(user for user in self.users if user.kind == "node")

    def user(self, name: str) -> BusUser:
        """Raises `ConfigurationError` when this domain has no such login."""
        for user in self.users:
            if user.name == name:
                return user
        raise ConfigurationError("bus.user_unknown", f"{self.name} has no bus user {name!r}")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the server listens and keeps its files. Loopback only: production brings its own server."""

    ports_dir: Path
    log_file: Path
    certificate: Path | None
    """PEM chain; None leaves TLS out, which only the tests of the bare protocol do."""
    key: Path | None
    port: int = -1
    response_threshold_s: float = RESPONSE_THRESHOLD_S


@dataclass(frozen=True, slots=True)
class BusPlan:
    """Everything the generated configuration depends on."""

    system: BusUser
    domains: tuple[BusDomain, ...]
    server: ServerSettings


def account(domain: str) -> str:
    """The domain's account name: what the server writes as the sender (nats.md 3)."""
    return f"DOM_{subject_token(domain)}"


def domain_of_account(name: str) -> str | None:
    """The inverse of `account`; None for any other account."""
    return domain_of_token(name[4:]) if name.startswith("DOM_") else None


def make_user(name: str, kind: Kind) -> BusUser:
    """A fresh Ed25519 nkey. `nkeys` can load seeds but not make them: a seed is 32 random bytes, encoded."""
    seed = bytes(nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER))
    return BusUser(name, nkeys.from_seed(bytearray(seed)).public_key.decode("ascii"), seed, kind)


def make_domain(name: str, nodes: Sequence[str]) -> BusDomain:
    """Logins for a domain's broker, its agent and each node. Raises `ConfigurationError`."""
    if not _DOMAIN.match(name):
        raise ConfigurationError("bus.domain_name", f"{name!r} is no lower-case DNS name")
    if len(nodes) > MAX_NODES or len(set(nodes)) != len(nodes):
        raise ConfigurationError("bus.nodes", f"{name}: at most {MAX_NODES} nodes, each named once")
    for node in nodes:
        if not _NODE_ID.match(node):
            raise ConfigurationError("bus.node_id", f"{node!r}: use letters, digits, '_' and '-', at most 64")
    return BusDomain(
        name,
        (
            make_user("broker", "broker"),
            make_user("agent", "agent"),
            *(make_user(f"node.{node}", "node") for node in nodes),
        ),
    )


def make_plan(domains: Mapping[str, Sequence[str]], server: ServerSettings) -> BusPlan:
    """Fresh logins for every domain and its node ids. Raises `ConfigurationError`."""
    if not 1 <= len(domains) <= MAX_DOMAINS:
        raise ConfigurationError("bus.domains", f"a federation has 1 to {MAX_DOMAINS} domains")
    made = tuple(make_domain(name, nodes) for name, nodes in domains.items())
    return BusPlan(make_user("system", "system"), made, server)


def permissions(domain: str, user: BusUser) -> tuple[list[str], list[str]]:
    """What a user may publish and subscribe, beside answering what it was asked (session.md 10)."""
    inbound, inbox = f"fed.v1.neg.{account(domain)}", f"{user.inbox_prefix}.>"
    if user.kind == "broker":
        # `_R_` are the reply paths that the server makes for requests of peers; streams need them for long.
        return (
            ["peer.>", "agent.>", "broker.>", "node.*.in.>", "_R_.>"],
            [f"{inbound}.>", "broker.>", "node.*.out.stream.*", inbox],
        )
    if user.kind == "agent":
        return (
            ["peer.*.advert", "agent.>", "broker.>", "node.*.in.>"],
            [f"{inbound}.*.advert", "agent.>", "node.*.out.*", inbox],
        )
    return [f"node.{user.node_id}.out.>"], [f"node.{user.node_id}.in.>", inbox]


def render(plan: BusPlan) -> str:
    """The server's configuration file. The same plan gives the same text."""
    names = [domain.name for domain in plan.domains]
    accounts = [_system(plan.system), _switchboard(names, plan.server.response_threshold_s)]
    accounts += [_domain(domain, names, plan.server.response_threshold_s) for domain in plan.domains]
    return _server(plan) + "accounts: {\n" + "".join(accounts) + "}\n"


def _server(plan: BusPlan) -> str:
    server = plan.server
    connections = max(SERVER_CONNECTIONS, 10 + sum(_connections(domain) for domain in plan.domains))
    lines = [
        "# Generated by Comity; changes are overwritten.",
        f'listen: "127.0.0.1:{server.port}"',
        'server_name: "comity"',
        f"ports_file_dir: {_quoted(server.ports_dir)}",
        f"log_file: {_quoted(server.log_file)}",
        f"logfile_size_limit: {LOG_BYTES}",
        "logfile_max_num: 2",
        f"max_payload: {MAX_PAYLOAD_BYTES}",
        f"max_pending: {MAX_PENDING_BYTES}",
        "max_control_line: 4096",
        f"max_connections: {connections}",
        'write_deadline: "5s"',
        'ping_interval: "20s"',
        "ping_max: 2",
        "authorization: { timeout: 3 }",
        "system_account: SYS",
    ]
    if server.certificate and server.key:
        lines += [
            "tls: {",
            f"  cert_file: {_quoted(server.certificate)}",
            f"  key_file: {_quoted(server.key)}",
            '  min_version: "1.3"',
            "  handshake_first: true",
            "  timeout: 3",
            "}",
        ]
    return "\n".join(lines) + "\n"


def _system(user: BusUser) -> str:
    return f"  SYS: {{ users: [ {{ nkey: {user.public} }} ] }}\n"


def _switchboard(names: list[str], threshold_s: float) -> str:
    imports = "".join(
        f'      {{ service: {{ account: {account(name)}, subject: "fed.v1.neg.{account(name)}.*.*" }} }}\n'
        for name in names
    )
    return (
        "  FED: {\n    users: []\n    exports: [\n"
        '      { service: "fed.v1.neg.*.*.*", response: stream, '
        f"response_threshold: {_duration(threshold_s)}, account_token_position: 5 }}\n"
        f"    ]\n    imports: [\n{imports}    ]\n  }}\n"
    )


def _domain(domain: BusDomain, names: list[str], threshold_s: float) -> str:
    mine = account(domain.name)
    users = "".join(_user(domain.name, user) for user in domain.users)
    imports = "".join(
        f'      {{ service: {{ account: FED, subject: "fed.v1.neg.{account(peer)}.{mine}.*" }}, '
        f'to: "peer.{subject_token(peer)}.*" }}\n'
        for peer in names
        if peer != domain.name
    )
    connections = _connections(domain)
    subscriptions = max(SUBSCRIPTIONS, SUBSCRIPTIONS_PER_CONNECTION * connections)
    return (
        f"  {mine}: {{\n    users: [\n{users}    ]\n"
        f"    limits: {{ max_connections: {connections}, max_subscriptions: {subscriptions}, "
        f"max_payload: {MAX_PAYLOAD_BYTES}, max_leafnodes: 2 }}\n"
        f'    exports: [\n      {{ service: "fed.v1.neg.{mine}.*.*", response: stream, '
        f"response_threshold: {_duration(threshold_s)}, accounts: [FED] }}\n    ]\n"
        f"    imports: [\n{imports}    ]\n  }}\n"
    )


def _user(domain: str, user: BusUser) -> str:
    publish, subscribe = permissions(domain, user)
    return (
        f"      {{ nkey: {user.public}, permissions: {{\n"
        f"          publish: {{ allow: [{_list(publish)}] }}\n"
        f"          subscribe: {{ allow: [{_list(subscribe)}] }}\n"
        f'          allow_responses: {{ max: 1, expires: "{ANSWER_WITHIN_S}s" }} }} }} # {user.name}\n'
    )


def _connections(domain: BusDomain) -> int:
    return max(CONNECTIONS, CONNECTIONS // 2 + CONNECTIONS_PER_NODE * len(domain.nodes))


def _list(subjects: list[str]) -> str:
    return ", ".join(f'"{subject}"' for subject in subjects)


def _duration(seconds: float) -> str:
    return f'"{round(seconds * 1000)}ms"'


def _quoted(path: Path) -> str:
    text = str(path)
    if any(character in text for character in '"\\\n\r'):
        raise ConfigurationError("bus.path", f"{text!r}: a path with quotes or line ends cannot be used")
    return f'"{text}"'
