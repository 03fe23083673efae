"""The example is complete and true; every mistake names file and key and says what to write."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.starting.config import BrokerConfig, Keys, Limits, Listen, Negotiation, Observe, Weights
from broker.starting.toml import read_settings
from schemas.errors import ConfigurationError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "broker.toml"
TEXT = EXAMPLE.read_text(encoding="utf-8")
COMMENTED = re.compile(r"^# (port_file|spans|otlp|tls) = ", re.MULTILINE)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """A folder with every file that the example names; returns a function that writes the TOML there."""
    for name in re.findall(r'"([\w/.-]+\.(?:json|pem|nk|toml|cedar))"', TEXT):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        path.chmod(0o600)
    for name in ("manifests", "reference-values"):
        (tmp_path / "federation" / name).mkdir()

    def written(text: str) -> Path:
        path = tmp_path / "broker.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def changed(old: str, new: str) -> str:
    assert old in TEXT, old
    return TEXT.replace(old, new, 1)


def keys_of(settings: type[Any]) -> set[str]:
    """Every key that a settings class and the classes inside it read."""
    hints, found = get_type_hints(settings), set()
    for entry in fields(settings):
        found |= {entry.name} | keys_in(hints[entry.name])
    return found


def keys_in(hint: Any) -> set[str]:
    if isinstance(hint, type) and is_dataclass(hint):
        return keys_of(hint)
    return {name for part in get_args(hint) for name in keys_in(part)}


def stated_keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in stated_keys(inner)}
    return {key for inner in value for key in stated_keys(inner)} if isinstance(value, list) else set()


def test_the_example_loads_and_its_defaults_are_the_defaults(write: Callable[[str], Path]) -> None:
    config = BrokerConfig.load(write(TEXT))
    assert config.domain == "clinic.de"
    assert config.database.is_absolute()
    assert (config.limits, config.negotiation, config.observe) == (Limits(), Negotiation(), Observe())
    assert config.weights == {"default": Weights()}
    assert config.listen == Listen(tls="any")
    assert config.tenants[0].policy == "hospital"


def test_the_example_shows_every_key() -> None:
    shown = stated_keys(tomllib.loads(COMMENTED.sub(r"\1_shown = ", TEXT)))
    commented = {match[1] for match in COMMENTED.finditer(TEXT)} | {"certificate", "key"}
    assert keys_of(BrokerConfig) <= shown | commented


WRONG = [
    ('pin = "0', 'pin = "z', "config.value", "federation.pin"),
    ('domain = "clinic.de"', "", "config.missing", "domain"),
    ('domain = "clinic.de"', 'domain = "Clinic"', "config.value", "domain"),
    ("hold_ms = 3000", "hold_ms = 1", "config.value", "negotiation.hold_ms"),
    ("hold_ms = 3000", 'hold_ms = "3000"', "config.value", "negotiation.hold_ms"),
    ("hold_ms = 3000", "hold_ms = 3000.5", "config.value", "negotiation.hold_ms"),
    ("hold_ms =", "hold_msec =", "config.unknown_key", "negotiation.hold_msec"),
    ("finalists = 3", "finalists = 4", "config.value", "negotiation.finalists"),
    ("[federation]", "[federatoin]", "config.unknown_key", "federatoin"),
    ('ca = "bus-ca.pem"', "", "config.missing", "bus.ca"),
    ('ca = "bus-ca.pem"', 'ca = "nowhere.pem"', "config.value", "bus.ca"),
    ('url = "tls://127.0.0.1:4222"', 'url = "http://x"', "config.value", "bus.url"),
    ('tls = "any"', "", "config.missing", "listen.tls"),
    ('tls = "any"', 'tls = "none"', "config.value", "listen.tls"),
    ('tls = "any"', 'tls = { certificate = "bus-ca.pem" }', "config.missing", "listen.tls.key"),
    ('expectations = "expectations.toml"', "", "config.missing", "federation.expectations"),
    ('national = "policies/de.cedar"', "", "config.missing", "policies.national"),
    ('policy = "hospital"', "", "config.missing", "tenants.0.policy"),
    ('"de-medical"]', '"de-dental"]', "config.value", "tenants.0.retention"),
    ('["ai-act-provider"]', '["forever"]', "config.value", "execution_retention"),
    ('policy = "hospital"', 'policy = "hospitl"', "config.value", "'hospitl'"),
    ('weights = "default"', 'weights = "fast"', "config.value", "'fast'"),
    ('floor = { data_class = "personal", residency = ["EU"] }', "", "config.missing", "tenants.0.floor"),
    ('residency = ["EU"]', 'residency = ["Europe"]', "config.value", "tenants.0.floor.residency.0"),
    ('residency = ["EU"]', 'residence = ["EU"]', "config.unknown_key", "tenants.0.floor.residence"),
    ('keys = ["1111', 'keys = ["111', "config.value", "tenants.0.keys.0"),
    ('tenants = ["radiology"]', 'tenants = ["oncology"]', "config.value", "'oncology'"),
    ('log_level = "info"', 'log_level = "loud"', "config.value", "observe.log_level"),
    ("network = 1.0", "network = -1.0", "config.value", "weights.default.network"),
    ("network = 1.0", "network = nan", "config.value", "weights.default.network: dates, inf and nan"),
    ("hold_ms = 3000", "hold_ms = 2026-01-01", "config.value", "negotiation.hold_ms: dates"),
    ('domain = "clinic.de"', "a" + ".a" * 3000 + " = 1", "config.value", "nested too deeply"),
    ('domain = "clinic.de"', 'domain = "clinic.de" x', "config.syntax", "TOML"),
]


@pytest.mark.parametrize(("old", "new", "code", "words"), WRONG)
def test_a_mistake_is_named(write: Callable[[str], Path], old: str, new: str, code: str, words: str) -> None:
    path = write(changed(old, new))
    with pytest.raises(ConfigurationError) as caught:
        BrokerConfig.load(path)
    assert caught.value.code == code
    assert str(path) in caught.value.text
    assert words in caught.value.text


def test_an_error_says_what_the_key_means(write: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BrokerConfig.load(write(changed("hold_ms = 3000", "hold_ms = 1")))
    assert "greater than or equal to 500" in caught.value.text
    assert "milliseconds" in caught.value.text


def test_plain_nats_stays_on_this_machine(write: Callable[[str], Path]) -> None:
    local = changed('ca = "bus-ca.pem"', 'ca = "any"').replace(
        "tls://127.0.0.1:4222", "nats://localhost:4222"
    )
    assert BrokerConfig.load(write(local)).bus.ca == "any"
    with pytest.raises(ConfigurationError, match="leaves this machine"):
        BrokerConfig.load(
            write(local.replace("nats://localhost:4222", "nats://localhost:4222,nats://hub:4222"))
        )


def test_a_tenant_stands_there_once(write: Callable[[str], Path]) -> None:
    again = '\n[[tenants]]\nname = "radiology"\nfloor = "any"\npolicy = "any"\n'
    with pytest.raises(ConfigurationError, match="twice"):
        BrokerConfig.load(write(TEXT + again))


@pytest.mark.parametrize("name", [field.name for field in fields(Keys)])
def test_a_secret_that_others_may_read_is_refused(write: Callable[[str], Path], name: str) -> None:
    path = write(TEXT)
    secret = BrokerConfig.load(path).keys.__getattribute__(name)
    secret.chmod(0o640)
    with pytest.raises(ConfigurationError, match=rf"keys\.{name}.*chmod 600"):
        BrokerConfig.load(path)
    secret.unlink()
    with pytest.raises(ConfigurationError, match=rf"keys\.{name}.*No such file"):
        BrokerConfig.load(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml: No such file"):
        BrokerConfig.load(tmp_path / "none.toml")


toml_values = st.recursive(
    st.sampled_from(["1", '"x"', "true", "1.5", "[]", '["a"]', "inf", "2026-01-01", "x"]),
    lambda inner: inner.map(lambda text: f"[{text}]"),
)


@given(st.lists(st.tuples(st.sampled_from(sorted(keys_of(BrokerConfig))), toml_values), max_size=6))
def test_any_file_is_settings_or_a_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text("\n".join(f"{key} = {value}" for key, value in lines), encoding="utf-8")
    with pytest.raises(ConfigurationError):
        read_settings(path, BrokerConfig)


@given(st.binary(max_size=80))
def test_any_bytes_are_settings_or_a_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError):
        read_settings(path, BrokerConfig)
