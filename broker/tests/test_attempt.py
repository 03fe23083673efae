"""The consumer's end of an attempt: only the appraised node's complete, unaltered answer is accepted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.placing.attempt import MAX_COUNTED, AnswerReader, Sealed, new_commitment, seal_attempt
from broker.tests.parties import CONSUMER, FEDERATION, MODEL, PROVIDER, Parties
from receipts.statements import fields
from receipts.statements.node import NodeStatement, sign_node_statement
from schemas import seal
from schemas.errors import ComityError, Refused, Unreadable
from schemas.keys import SigningKey
from schemas.messages import answer
from schemas.messages.execute import Limits, unpack
from schemas.primitives import format_time

BODY = b'{"model":"chat.small","messages":[{"role":"user","content":"hi"}]}'
TEXTS = ("Good ", "morning ", "to you")


def sealed_order(parties: Parties, secret: bytes | None = None, **changes: Any) -> Sealed:
    secret = secret or new_commitment(BODY)[0]
    order: dict[str, Any] = {
        "placement": "88" * 32,
        "request_id": "r1",
        "attempt": 0,
        "parent": None,
        "tags_digest": "99" * 32,
        "cache_scope": "none",
        "retention_s": 0,
        "limits": Limits(output_tokens=16, body_bytes=len(BODY), time_ms=1000),
    } | changes
    return seal_attempt(
        parties.peers(CONSUMER), parties.offered(), parties.appraise(), secret=secret, body=BODY, **order
    )


def statement(
    parties: Parties, sealed: Sealed, output: bytes, key: SigningKey | None = None, **changes: Any
) -> bytes:
    signer = key or parties.node.sign
    now = format_time(datetime.now(UTC))
    fields_: dict[str, Any] = {
        "header": sealed.header_digest.hex(),
        "federation": FEDERATION,
        "domain": PROVIDER,
        "node_key": signer.thumbprint,
        "segment": 0,
        "outcome": "ok",
        "code": "ok",
        "finish_reason": "stop",
        "capability": fields.Capability(name="chat.small/tiny", artifact_digest=MODEL),
        "usage": fields.Usage(input_tokens=3, output_tokens=3, cached_tokens=0, queue_ms=0, compute_ms=9),
        "response": fields.Commitment(commitment=seal.output_commitment(sealed.secret, output).hex()),
        "times": fields.Times(issued=now, started=now, finished=now),
    } | changes
    return sign_node_statement(NodeStatement(**fields_), signer)


def answer_frames(
    parties: Parties, sealed: Sealed, said: bytes | None = None, counted: Mapping[str, int] | None = None
) -> list[bytes]:
    """What an honest node sends for `TEXTS`."""
    secret = parties.node.seal.open_secret(sealed.sealed_secret, sealed.header_digest)
    nonce = b"\x05" * seal.RUN_NONCE_BYTES
    sealer = seal.answer_sealer(secret, sealed.header_digest, sealed.sealed_secret, nonce)
    frames = [answer.tag(answer.RUN, nonce)]
    frames += [
        answer.tag(answer.CHUNK, sealer.seal(answer.tag(answer.TEXT, text.encode()))) for text in TEXTS
    ]
    end = answer.EndOfRun(
        statement=(said or statement(parties, sealed, "".join(TEXTS).encode())).decode(),
        usage=answer.Usage(
            **{"input_tokens": 3, "output_tokens": 3, "cached_tokens": 0, "queue_ms": 0, "compute_ms": 9}
            | dict(counted or {})
        ),
        finish_reason="stop",
    )
    frames.append(answer.tag(answer.CHUNK, sealer.seal(answer.tag(answer.END, end.write()), final=True)))
    return frames


def read_all(parties: Parties, sealed: Sealed, frames: list[bytes]) -> tuple[str, AnswerReader]:
    reader = AnswerReader(sealed, parties.appraise())
    text = ""
    for frame in frames:
        delta = reader.read(answer.untag(frame, answer.RUN + answer.CHUNK))
        text += (delta.text or "") if delta else ""
    return text, reader


def test_the_node_reads_what_was_sealed(parties: Parties) -> None:
    sealed = sealed_order(parties)
    _, sealed_secret = unpack(sealed.head)
    secret = parties.node.seal.open_secret(sealed_secret, sealed.header_digest)
    opener = seal.request_opener(secret, sealed.header_digest)
    assert b"".join(opener.open(chunk) for chunk in sealed.chunks) == BODY
    assert opener.done
    assert sealed.header.input_commitment == seal.input_commitment(secret, BODY).hex()


def test_a_whole_answer_ends_with_the_nodes_statement(parties: Parties) -> None:
    sealed = sealed_order(parties)
    text, reader = read_all(parties, sealed, answer_frames(parties, sealed))
    assert text == "".join(TEXTS)
    assert reader.ended is not None
    assert reader.ended.statement.body.outcome == "ok"


@pytest.mark.parametrize("counter", answer.Usage.model_fields)
def test_counters_that_no_run_has_are_no_end(parties: Parties, counter: str) -> None:
    """Two runs that counted so had a sum that nothing holds: a defect of ours after a whole answer."""
    sealed = sealed_order(parties)
    text, _ = read_all(parties, sealed, answer_frames(parties, sealed, counted={counter: MAX_COUNTED}))
    assert text == "".join(TEXTS)
    with pytest.raises(Refused, match=r"attempt\.usage"):
        read_all(parties, sealed, answer_frames(parties, sealed, counted={counter: MAX_COUNTED + 1}))


@pytest.mark.parametrize("part", [b"[" * 100_000, b"[1]", b"{}", b"\xff", b'[{"delta":'])
def test_choices_that_are_none_end_the_run(parties: Parties, part: bytes) -> None:
    sealed = sealed_order(parties)
    secret = parties.node.seal.open_secret(sealed.sealed_secret, sealed.header_digest)
    nonce = b"\x05" * seal.RUN_NONCE_BYTES
    sealer = seal.answer_sealer(secret, sealed.header_digest, sealed.sealed_secret, nonce)
    chunk = answer.tag(answer.CHUNK, sealer.seal(answer.tag(answer.CHOICES, part[:60_000])))
    with pytest.raises(Unreadable, match=r"attempt\.part"):
        read_all(parties, sealed, [answer.tag(answer.RUN, nonce), chunk])


@pytest.mark.parametrize("changes", [{"node_seal": "00" * 32}, {"node_sign": "A" * 43}])
def test_an_offer_of_another_node_than_the_evidence_proves(parties: Parties, changes: dict[str, str]) -> None:
    secret, _ = new_commitment(BODY)
    with pytest.raises(Refused, match=r"attempt\.node_swapped"):
        seal_attempt(
            parties.peers(CONSUMER), parties.offered(**changes), parties.appraise(), secret=secret, body=BODY
        )


@pytest.mark.parametrize(
    "tamper",
    [
        lambda frames: frames[:2] + frames[3:],
        lambda frames: [frames[0], frames[2], frames[1], *frames[3:]],
        lambda frames: [*frames[:2], frames[1], *frames[2:]],
        lambda frames: frames[1:],
        lambda frames: [frames[0], *frames],
        lambda frames: [frames[0], frames[1][:-1] + bytes([frames[1][-1] ^ 1]), *frames[2:]],
        lambda frames: [answer.tag(answer.RUN, b"\x06" * 32), *frames[1:]],
        lambda frames: [*frames, frames[-1]],
        lambda frames: [frames[0], answer.tag(answer.CHUNK, b"\1" + frames[1][2:]), *frames[2:]],
    ],
    ids=["dropped", "reordered", "repeated", "no nonce", "nonce twice", "bit flipped", "other nonce",
         "after the end", "made final"],
)  # fmt: skip
def test_an_altered_stream_is_refused(parties: Parties, tamper: Any) -> None:
    sealed = sealed_order(parties)
    with pytest.raises((Refused, Unreadable)):
        read_all(parties, sealed, tamper(answer_frames(parties, sealed)))


def test_a_truncated_stream_is_not_complete(parties: Parties) -> None:
    sealed = sealed_order(parties)
    _, reader = read_all(parties, sealed, answer_frames(parties, sealed)[:-1])
    assert reader.ended is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"header": "ab" * 32}, "attempt.statement_header"),
        ({"capability": fields.Capability(name="x", artifact_digest="cd" * 32)}, "attempt.statement_model"),
        ({"response": fields.Commitment(commitment="ef" * 32)}, "attempt.statement_output"),
    ],
)
def test_a_statement_about_something_else(parties: Parties, changes: dict[str, Any], code: str) -> None:
    sealed = sealed_order(parties)
    said = statement(parties, sealed, "".join(TEXTS).encode(), **changes)
    with pytest.raises(ComityError) as caught:
        read_all(parties, sealed, answer_frames(parties, sealed, said))
    assert caught.value.code == code


def test_a_statement_by_another_key(parties: Parties) -> None:
    sealed = sealed_order(parties)
    said = statement(parties, sealed, "".join(TEXTS).encode(), key=SigningKey.generate())
    with pytest.raises(Refused):
        read_all(parties, sealed, answer_frames(parties, sealed, said))
