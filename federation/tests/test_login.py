"""Where the bus is: the configuration says it, unless the environment does."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.client.login import BusSettings, overridden
from schemas.errors import ConfigurationError

CA = Path("ca.pem")
WRITTEN = BusSettings("tls://127.0.0.1:4222", Path("broker.nk"), CA, "clinic.de/broker", "_INBOX.broker")


def test_without_the_variable_the_file_counts() -> None:
    assert overridden(WRITTEN, {}) is WRITTEN
    assert overridden(WRITTEN, {"NATS_URL": ""}) is WRITTEN


@pytest.mark.parametrize("url", ["tls://bus.example:4222", "nats://a:1,tls://[::1]:2"])
def test_the_variable_wins_and_changes_nothing_else(url: str) -> None:
    assert overridden(WRITTEN, {"NATS_URL": url}) == WRITTEN.at(url)


@pytest.mark.parametrize(
    "url", ["bus.example:4222", "https://x:1", "tls://a b", "tls://a:1,", "tls://a:1, tls://b:2"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"bus\.url.*NATS_URL"):
        overridden(WRITTEN, {"NATS_URL": url})


@pytest.mark.parametrize(
    "url", ["nats://10.0.0.1:4222", "nats://127.0.0.1:1,nats://bus.example:1", "nats://[x:1"]
)
def test_without_tls_nothing_leaves_this_machine(url: str) -> None:
    plain = BusSettings(WRITTEN.url, WRITTEN.nkey_seed_file, None, WRITTEN.name, WRITTEN.inbox_prefix)
    assert overridden(plain, {"NATS_URL": "nats://127.0.0.1:1,nats://localhost:2"}) != plain
    with pytest.raises(ConfigurationError, match=r"bus\.url.*any"):
        overridden(plain, {"NATS_URL": url})
