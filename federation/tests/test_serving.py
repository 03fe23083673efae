"""What is read from a subject, where an answer may go, and what a failure looks like on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg

from federation.serving import Inbound, Serving, failure_line, failure_of, parse
from federation.tests.conftest import GENEROUS
from schemas.errors import ComityError, ConfigurationError, Refused, Undecided, Unreadable


@pytest.mark.parametrize(
    ("subject", "sender", "op"),
    [
        ("fed.v1.neg.DOM_cloud_fr.DOM_clinic_de.call", "clinic.de", "call"),
        ("node.n1.out.hello", "n1", "hello"),
        ("node.n1.in.execute", "", "execute"),
        ("agent.hold", "", "hold"),
        ("broker.advert", "", "advert"),
    ],
)
def test_subjects(subject: str, sender: str, op: str) -> None:
    assert parse(subject)[:2] == (sender, op)


TOKENS = st.sampled_from(["fed", "v1", "neg", "DOM_x", "node", "out", "in", "agent", "x"])


@given(st.one_of(st.text(max_size=60), st.lists(TOKENS, max_size=8).map(".".join)))
def test_any_subject_is_read_or_unreadable(subject: str) -> None:
    try:
        sender, op, replies = parse(subject)
    except Unreadable:
        return
    assert op
    assert replies
    assert "_" not in sender or subject.startswith("node.")


ANSWERS = [
    ("fed.v1.neg.DOM_b.DOM_a.call", "_R_.abc.def", True),
    ("fed.v1.neg.DOM_b.DOM_a.call", "peer.c.advert", False),
    ("fed.v1.neg.DOM_b.DOM_a.call", "fed.v1.neg.DOM_b.DOM_c.call", False),
    ("fed.v1.neg.DOM_b.DOM_a.call", "_INBOX.broker.x", False),
    ("fed.v1.neg.DOM_b.DOM_a.call", "_R_", False),
    ("fed.v1.neg.DOM_b.DOM_a.advert", "_R_.abc.def", False),
    ("node.n1.out.hello", "_INBOX.node.n1.x", True),
    ("node.n1.out.hello", "_INBOX.node.n2.x", False),
    ("node.n1.out.hello", "_INBOX.node.n11.x", False),
    ("node.n1.out.hello", "peer.c.advert", False),
    ("node.n1.in.execute", "node.n1.out.stream.x", True),
    ("node.n1.in.execute", "node.n2.out.stream.x", False),
    ("node.n1.in.status", "_INBOX.agent.x", True),
    ("node.n1.in.status", "_INBOX.node.n2.x", False),
    ("agent.hold", "_INBOX.broker.x", True),
    ("agent.hold", "_INBOX.node.n1.x", False),
    ("broker.advert", "_INBOX.agent.x", True),
]


@pytest.mark.parametrize(("subject", "reply", "allowed"), ANSWERS)
async def test_answers_go_only_where_such_a_requester_waits(subject: str, reply: str, allowed: bool) -> None:
    seen: list[Inbound] = []
    published: list[str] = []

    async def handler(inbound: Inbound) -> bytes:
        seen.append(inbound)
        return b"answer"

    async def publish(subject: str, payload: bytes, **more: object) -> None:
        published.append(subject)

    serving = Serving("any", handler, limits=GENEROUS, concurrency=1, publish=publish)
    serving.receive(Msg(Client(), subject, reply, b"question"))
    await serving.stop()
    assert [inbound.reply for inbound in seen] == [reply if allowed else ""]
    assert published == ([reply] if allowed else [])


async def test_what_is_malformed_or_the_rest_of_a_body_reaches_no_handler() -> None:
    async def handler(inbound: Inbound) -> bytes:
        raise AssertionError("reached")

    async def publish(subject: str, payload: bytes, **more: object) -> None:
        raise AssertionError("published")

    serving = Serving("any", handler, limits=GENEROUS, concurrency=1, publish=publish)
    for subject in ("fed.v1.neg.DOM_b.FED.call", "other", f"agent.{'x' * 600}", "fed.v1.neg.DOM_b.DOM_a.x-1"):
        serving.receive(Msg(Client(), subject, "", b""))
    serving.receive(Msg(Client(), "agent.hold", "", bytes(GENEROUS.max_bytes + 1)))
    await serving.stop()
    assert serving.counts["malformed"] == 3
    assert serving.gate.total.too_long == 1


KINDS: list[type[ComityError]] = [Unreadable, ConfigurationError, Refused, Undecided]


@given(st.sampled_from(KINDS), st.from_regex(r"[a-z][a-z0-9_.]{0,40}", fullmatch=True), st.text(max_size=600))
def test_failures_round_trip_on_one_line(kind: type[ComityError], code: str, text: str) -> None:
    line = failure_line(kind(code, text))
    assert line.isascii()
    assert "\n" not in line
    assert "\r" not in line
    again = failure_of(line)
    assert (type(again), again.code) == (kind, code)


@given(st.text(max_size=600))
def test_any_line_is_some_failure(line: str) -> None:
    error = failure_of(line)
    assert error.exit_code in (1, 2, 3)
    assert len(error.text) <= 400


@pytest.mark.parametrize("code", ["CLOCK_SKEW", "X", "with space", "é", "a" * 65])
def test_codes_of_every_house_style_survive_or_become_a_defect(code: str) -> None:
    again = failure_of(failure_line(Refused(code, "why")))
    assert again.code in (code, "bus.defect")
