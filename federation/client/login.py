"""How a program logs in: its seed, the one authority it trusts, and the client's options (nats.md 7).

TLS comes before anything else is said (`handshake_first`): otherwise whoever sits between could say
that no TLS is needed, and this client would believe it.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import nkeys

from schemas.errors import ComityError, ConfigurationError
from schemas.keys import read_secret

NATS_URL: Final = "NATS_URL"
"""Environment variable: where the bus is, whatever the configuration says."""
ADDRESS: Final = re.compile(r"(tls|nats)://[^\s,]{1,2000}\Z")
CONNECT_ATTEMPT_S: Final = 5  # s for one attempt
RECONNECT_WAIT_S: Final = 0.25  # s between attempts: bounds how long an outage outlives the server's return
PING_INTERVAL_S: Final = 10  # s; two unanswered pings are a lost connection
DRAIN_S: Final = 5  # s for what was received to be handled at close


@dataclass(frozen=True, slots=True)
class BusSettings:
    """Where the bus is and who we are on it."""

    url: str
    """`tls://host:port`, or several, separated by commas."""
    nkey_seed_file: Path
    ca_file: Path | None
    """The only authority that is trusted for the server's certificate; None: no TLS."""
    name: str
    inbox_prefix: str

    def at(self, url: str) -> BusSettings:
        """The same login at another address."""
        return replace(self, url=url)


def overridden(settings: BusSettings, environment: Mapping[str, str]) -> BusSettings:
    """The same login where `NATS_URL` says, if that is set. Raises `ConfigurationError` (`bus.url`)."""
    url = environment.get(NATS_URL)
    if not url:
        return settings
    if not all(map(ADDRESS.match, url.split(","))):
        text = f"the environment's {NATS_URL} is no address: write tls://host:port, or several with commas"
        raise ConfigurationError("bus.url", text)
    if settings.ca_file is None and not all(map(_on_this_machine, url.split(","))):
        text = f'the environment\'s {NATS_URL} leaves this machine: [bus] ca must be a file, not "any"'
        raise ConfigurationError("bus.url", text)
    return settings.at(url)


def _on_this_machine(address: str) -> bool:
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def client_options(settings: BusSettings) -> dict[str, Any]:
    """Options of the client, without its callbacks. Raises `ConfigurationError`."""
    _check_seed(settings.nkey_seed_file)
    options: dict[str, Any] = {
        "servers": settings.url.split(","),
        "name": settings.name,
        "nkeys_seed": str(settings.nkey_seed_file),
        "inbox_prefix": settings.inbox_prefix,
        "allow_reconnect": True,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": RECONNECT_WAIT_S,
        "connect_timeout": CONNECT_ATTEMPT_S,
        "ping_interval": PING_INTERVAL_S,
        "max_outstanding_pings": 2,
        "drain_timeout": DRAIN_S,
        "pending_size": 0,  # publishing while disconnected raises instead of being sent late
    }
    if settings.ca_file:
        options |= {"tls": _tls(settings.ca_file), "tls_handshake_first": True}
        _quieten_tls()
    return options


def _check_seed(path: Path) -> None:
    try:
        nkeys.from_seed(bytearray(read_secret(path).strip()))
    except ComityError:
        raise
    except Exception as error:  # the library raises its own kinds, and others for some bytes
        raise ConfigurationError("bus.seed", f"{path}: not an nkey seed ({type(error).__name__})") from None


def _tls(ca_file: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError("bus.ca_file", f"{ca_file}: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _is_telling(record: logging.LogRecord) -> bool:
    return "eof_received" not in str(record.msg)


def _quieten_tls() -> None:
    """asyncio warns at each close of a TLS connection about something harmless (nats.md 7)."""
    logging.getLogger("asyncio").addFilter(_is_telling)  # adding the same function again changes nothing
