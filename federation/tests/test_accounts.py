"""The generated configuration: exact text, accepted by the server, and nothing smuggled in by a name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation import accounts
from federation.accounts import (
    BusDomain,
    BusPlan,
    BusUser,
    Kind,
    ServerSettings,
    account,
    domain_of_account,
    make_domain,
    make_plan,
    make_user,
    render,
)
from federation.embedded.binary import find_binary, run
from federation.streaming.requester import STALL_S
from federation.streaming.responder import CREDIT_STALL_S
from schemas.errors import ConfigurationError

GOLDEN = Path(__file__).parent / "golden" / "server.conf"


def fixed_plan() -> BusPlan:
    """Two domains with public keys that do not change."""

    def user(name: str, kind: Kind) -> BusUser:
        return BusUser(name, f"U{name.upper().replace('.', '')}", b"SUSEED", kind)

    def domain(name: str, *nodes: str) -> BusDomain:
        users = (user("broker", "broker"), user("agent", "agent"))
        return BusDomain(name, (*users, *(user(f"node.{node}", "node") for node in nodes)))

    server = ServerSettings(
        Path("/run/bus"), Path("/run/bus/server.log"), Path("/run/c.pem"), Path("/run/k.pem")
    )
    return BusPlan(user("system", "system"), (domain("clinic.de", "n-1"), domain("cloud.fr")), server)


def test_golden() -> None:
    assert render(fixed_plan()) == GOLDEN.read_text()


async def test_the_server_accepts_it(tmp_path: Path) -> None:
    server = ServerSettings(tmp_path, tmp_path / "server.log", None, None)
    plan = make_plan({"clinic.de": ["n1", "n_2"], "a-b.cloud.fr": [], "x1.test": ["A" * 64]}, server)
    config = tmp_path / "server.conf"
    config.write_text(render(plan))
    binary = await find_binary()
    code, output = await run(binary.path, "-t", "-c", str(config))
    assert code == 0, output


def test_no_reply_path_is_forgotten_before_the_longest_wait_is_over() -> None:
    """The server's own default of 120 s would break a stream that was silent for longer."""
    longest = max(STALL_S, CREDIT_STALL_S, accounts.ANSWER_WITHIN_S)
    assert longest < 150 < accounts.RESPONSE_THRESHOLD_S
    text = render(fixed_plan())
    assert text.count(f'response_threshold: "{accounts.RESPONSE_THRESHOLD_S * 1000}ms"') == 3
    assert text.count("response: stream") == 3


def test_limits_grow_with_the_nodes() -> None:
    small, large = make_domain("a.de", ["n1"]), make_domain("a.de", [f"n{number}" for number in range(100)])
    server = fixed_plan().server
    text = [render(BusPlan(make_user("system", "system"), (domain,), server)) for domain in (small, large)]
    assert "max_connections: 20, max_subscriptions: 4096" in text[0]
    assert "max_connections: 210, max_subscriptions: 5040" in text[1]
    assert "max_connections: 220\n" in text[1]


def test_a_user_is_a_fresh_key_whose_seed_is_never_shown() -> None:
    first, second = make_user("broker", "broker"), make_user("broker", "broker")
    assert first.public != second.public
    assert first.public.startswith("U")
    assert first.seed.startswith(b"SU")
    assert first.seed.decode() not in repr(first)


@pytest.mark.parametrize("name", ["", "de", "Clinic.de", "clinic_x.de", "a.de\n", 'a.de"', "a .de", "a.de }"])
def test_domain_names_are_checked(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"bus\.domain_name"):
        make_domain(name, [])


@pytest.mark.parametrize("node", ["", "a.b", "*", ">", "a b", "n\n", "n" * 65, 'n"', "é"])
def test_node_ids_are_one_token(node: str) -> None:
    with pytest.raises(ConfigurationError, match=r"bus\.node_id"):
        make_domain("a.de", [node])


def test_counts_are_bounded() -> None:
    server = fixed_plan().server
    with pytest.raises(ConfigurationError, match=r"bus\.nodes"):
        make_domain("a.de", ["n1", "n1"])
    with pytest.raises(ConfigurationError, match=r"bus\.domains"):
        make_plan({}, server)
    with pytest.raises(ConfigurationError, match=r"bus\.user_unknown"):
        make_domain("a.de", []).user("node.n1")


def test_a_path_cannot_end_its_string() -> None:
    plan = fixed_plan()
    server = ServerSettings(Path('/run/"; port: 1'), Path("/l"), None, None)
    with pytest.raises(ConfigurationError, match=r"bus\.path"):
        render(BusPlan(plan.system, plan.domains, server))


NAMES = st.from_regex(
    r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?){1,3}", fullmatch=True
)


@given(NAMES, NAMES)
def test_accounts_name_domains_one_to_one(one: str, other: str) -> None:
    assert domain_of_account(account(one)) == one
    assert (account(one) == account(other)) == (one == other)
    assert domain_of_account("FED") is None
