"""Statements: strict reading, the frame, who may sign what, and what a second signature is worth."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as OtherEnvelope
from securesystemslib.signer._key import SSlibKey

from receipts.statements.node import NODE_STATEMENT, parse_node_statement, read_node_statement
from receipts.statements.promise import INCLUSION_PROMISE, InclusionPromise, promise_payload, read_promise
from receipts.statements.receipt import EXECUTION, FIRST, PLACEMENT, ExecutionReceipt, PlacementReceipt
from receipts.statements.statement import (
    COMMITMENT_LABEL,
    Statement,
    commitment_file,
    frame,
    parse_receipt,
    read_receipt,
    receipt_kind,
)
from receipts.tests.conftest import code_of
from receipts.tests.world import CLINIC, CLOUD, FEDERATION, Node, placement
from schemas import envelope
from schemas.canonical import sha256
from schemas.errors import ComityError, Refused, Unreadable
from schemas.keys import SigningKey

KEY = SigningKey.generate()
COMMITMENT = "5" * 64
PLACED = placement().as_json()
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def body(**changes: Any) -> dict[str, Any]:
    """A whole Placement predicate as JSON, to be spoiled."""
    request = {"id": "r1", "commitment": COMMITMENT, "scheme": "hmac-sha256"}
    issuance = {
        "receiptId": "rid",
        "issuer": CLINIC,
        "role": "broker",
        "federation": FEDERATION,
        "seq": 0,
        "prev": FIRST,
        "manifest": {"version": 1, "digest": "0" * 64},
        "log": {"origin": "clinic.de/log"},
    }
    return {**PLACED, **issuance, "request": request, **changes}


def payload(predicate: dict[str, Any] | None = None, **outer: Any) -> bytes:
    whole = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "rid", "digest": {"sha256": sha256(commitment_file(COMMITMENT)).hex()}}],
        "predicateType": PLACEMENT,
        "predicate": body() if predicate is None else predicate,
        **outer,
    }
    return json.dumps(whole).encode()


def read(data: bytes, **changes: Any) -> Statement[PlacementReceipt]:
    given_: dict[str, Any] = {
        "keys": [KEY.public],
        "issuer": CLINIC,
        "federation": FEDERATION,
        "audience": CLOUD,
    }
    return read_receipt(data, PlacementReceipt, **(given_ | changes))


def signed(data: bytes, kind: str = envelope.STATEMENT, key: SigningKey = KEY) -> bytes:
    return envelope.sign(kind, data, key)


def test_a_receipt_reads_back_with_its_identity() -> None:
    data = signed(payload())
    found = read(data)
    assert (found.body.receipt_id, found.signer, found.envelope) == ("rid", KEY.thumbprint, data)
    assert found.digest == sha256(envelope.pae(envelope.STATEMENT, payload()))


def test_the_commitment_file_is_these_bytes() -> None:
    assert commitment_file("ff" * 32) == b"comity-commitment-v1\n" + b"\xff" * 32
    assert COMMITMENT_LABEL == b"comity-commitment-v1\n"


OUTER: list[tuple[dict[str, Any], str]] = [
    ({"_type": "https://in-toto.io/Statement/v0.1"}, "receipt.type"),
    ({"predicateType": EXECUTION}, "receipt.predicate_type"),
    ({"predicateType": PLACEMENT + "/"}, "receipt.predicate_type"),
    ({"extra": 1}, "receipt.frame"),
    ({"predicate": []}, "receipt.frame"),
    ({"subject": []}, "receipt.subject"),
    ({"subject": [{"name": "rid", "digest": {"sha256": "0" * 64}}]}, "receipt.subject"),
    ({"subject": [{"name": "rid", "digest": {"sha512": "0" * 64}}]}, "receipt.subject"),
]


@pytest.mark.parametrize(("outer", "code"), OUTER, ids=lambda case: str(case)[:40])
def test_the_frame_is_exactly_one(outer: dict[str, Any], code: str) -> None:
    assert code_of(lambda: read(signed(payload(**outer)))) == code


INNER: list[tuple[dict[str, Any], str]] = [
    ({"surprise": 1}, "schema.PlacementReceipt"),
    ({"receipt_id": "rid"}, "schema.PlacementReceipt"),
    ({"crit": ["surprise"], "surprise": 1}, "receipt.crit_unknown"),
    ({"role": "executor"}, "schema.PlacementReceipt"),
    ({"path": "scenic"}, "schema.PlacementReceipt"),
    ({"seq": "0"}, "schema.PlacementReceipt"),
    ({"seq": True}, "schema.PlacementReceipt"),
    ({"seq": 1.0}, "json.float"),
    ({"seq": 2**53}, "json.integer_range"),
    ({"seq": -1}, "schema.PlacementReceipt"),
    ({"seq": 1}, "receipt.first"),
    ({"prev": "1" * 64}, "receipt.first"),
    ({"prev": "A" * 64}, "schema.PlacementReceipt"),
    ({"prev": "0" * 63}, "schema.PlacementReceipt"),
    ({"peer": "Cloud.fr"}, "schema.PlacementReceipt"),
    ({"peer": "cloüd.fr"}, "schema.PlacementReceipt"),
    ({"audience": []}, "schema.PlacementReceipt"),
    ({"times": {"issued": "2026-01-31T12:00:00+01:00"}}, "schema.PlacementReceipt"),
    ({"times": {"issued": "2026-06-30T23:59:60Z"}}, "schema.PlacementReceipt"),
    ({"times": {"issued": "1999-06-30T23:59:59Z"}}, "schema.PlacementReceipt"),
    ({"times": {}}, "schema.PlacementReceipt"),
    ({"receiptId": "other"}, "receipt.subject"),
    ({"request": {"id": "r1", "commitment": "6" * 64, "scheme": "hmac-sha256"}}, "receipt.subject"),
    ({"request": {"id": "r1", "commitment": COMMITMENT, "scheme": "sha256"}}, "schema.PlacementReceipt"),
    ({"policy": None}, "schema.PlacementReceipt"),
]


@pytest.mark.parametrize(("inner", "code"), INNER, ids=lambda case: str(case)[:40])
def test_the_predicate_is_strict(inner: dict[str, Any], code: str) -> None:
    assert code_of(lambda: read(signed(payload(body(**inner))))) == code


def test_crit_may_name_what_is_understood() -> None:
    assert read(signed(payload(body(crit=["policy", "receiptId"])))).body.crit == ["policy", "receiptId"]


BYTES: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda data: data.replace(b'"seq": 0', b'"seq": 0, "seq": 0'), "json.duplicate_key"),
    (lambda data: data.replace(b'"verdict": "allow"', b'"verdict": "deny", "verdict": "allow"', 1),
     "json.duplicate_key"),
    (lambda data: data.replace(b'"seq": 0', b'"seq": 0e0'), "json.float"),
    (lambda data: data.replace(b'"seq": 0', b'"seq": NaN'), "json.float"),
    (lambda data: data.replace(b'"seq": 0', b'"seq": -Infinity'), "json.float"),
    (lambda data: data.replace(b'"rid"', b'"\\ud800"'), "json.syntax"),
    (lambda data: b"\xef\xbb\xbf" + data, "json.syntax"),
    (lambda data: data + b"{}", "json.syntax"),
    (lambda data: data + b"// comment", "json.syntax"),
    (lambda data: data.replace(b'"rid"', b'"\xff"'), "json.syntax"),
    (lambda data: data.replace(b'"crit": []', b'"crit": ' + b"[" * 40 + b"]" * 40), "json.depth"),
    (lambda data: data + b" " * 140_000, "json.too_long"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "code"), BYTES, ids=[code + str(at) for at, (_, code) in enumerate(BYTES)])
def test_the_payload_is_strict_json(spoil: Callable[[bytes], bytes], code: str) -> None:
    data = spoil(payload())
    assert data != payload()
    assert code_of(lambda: read(signed(data))) == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"issuer": CLOUD}, "receipt.issuer"),
        ({"federation": "other"}, "receipt.federation"),
        ({"audience": "hyper.us"}, "receipt.audience"),
        ({"keys": []}, "envelope.key_unknown"),
        ({"keys": [SigningKey.generate().public]}, "envelope.signature_invalid"),
    ],
)
def test_a_receipt_counts_for_those_it_names(changes: dict[str, Any], code: str) -> None:
    assert code_of(lambda: read(signed(payload()), **changes)) == code


def test_an_auditor_is_nobody_s_counterparty() -> None:
    assert read(signed(payload()), audience=None).body.issuer == CLINIC


def unpacked(data: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(data)
    return value


def repacked(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


def test_the_key_is_never_taken_from_the_receipt() -> None:
    """A forger's own key, offered beside the signature in every place a careless reader might look."""
    forger = SigningKey.generate()
    value = unpacked(signed(payload(), key=forger))
    value["signatures"][0] |= {"keyid": KEY.thumbprint, "jwk": forger.public.jwk.as_json(), "cert": "…"}
    value["jwk"] = forger.public.jwk.as_json()
    assert code_of(lambda: read(repacked(value))) == "envelope.signature_invalid"


def test_keyid_narrows_but_never_decides() -> None:
    value = unpacked(signed(payload()))
    value["signatures"][0]["keyid"] = "someone else"
    assert read(repacked(value)).signer == KEY.thumbprint
    other = SigningKey.generate()
    value["signatures"][0]["keyid"] = other.thumbprint
    assert code_of(lambda: read(repacked(value), keys=[KEY.public, other.public])) == (
        "envelope.signature_invalid"
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda value: value.update(payloadType=envelope.MESSAGE), "envelope.payload_type"),
        (lambda value: value.update(signatures=[]), "envelope.signature_count"),
        (lambda value: value.update(signatures=value["signatures"] * 2), "envelope.signature_count"),
        (lambda value: value.update(payload=value["payload"] + "\n"), "envelope.base64"),
        (lambda value: value.update(payload=value["payload"].rstrip("=") + "-_+/"), "envelope.base64"),
        (lambda value: value.update(payload=base64.b64encode(payload(body(seq=0)) + b" ").decode()),
         "envelope.signature_invalid"),
    ],
)  # fmt: skip
def test_envelopes_are_strict(change: Callable[[dict[str, Any]], None], code: str) -> None:
    value = unpacked(signed(payload()))
    change(value)
    assert code_of(lambda: read(repacked(value))) == code


def test_pae_counts_bytes_not_characters() -> None:
    """A signature over character counts verifies nowhere: the vector that byte counting must reject."""
    text = '{"ü":1}'
    kind = envelope.STATEMENT
    by_characters = f"DSSEv1 {len(kind)} {kind} {len(text)} {text}".encode()
    assert envelope.pae(kind, text.encode()) != by_characters
    value = unpacked(signed(text.encode()))
    value["signatures"][0]["sig"] = base64.b64encode(KEY.sign(by_characters)).decode()
    assert (
        code_of(lambda: envelope.verify(repacked(value), kind, [KEY.public])) == "envelope.signature_invalid"
    )


def test_another_valid_signature_is_the_same_receipt() -> None:
    """ECDSA accepts s and n−s: signature bytes are malleable and identify nothing."""
    value = unpacked(signed(payload()))
    r, s = decode_dss_signature(base64.b64decode(value["signatures"][0]["sig"]))
    value["signatures"][0]["sig"] = base64.b64encode(encode_dss_signature(r, P256_ORDER - s)).decode()
    twin = repacked(value)
    assert twin != signed(payload())
    assert read(twin).digest == read(signed(payload())).digest


def test_unknown_envelope_fields_change_nothing() -> None:
    value = unpacked(signed(payload())) | {"note": "hello", "digest": "0" * 64}
    assert read(repacked(value)).digest == read(signed(payload())).digest


def test_securesystemslib_agrees() -> None:
    """A second implementation of DSSE reads our envelope, and checks the same signature."""
    data = signed(payload())
    other = OtherEnvelope.from_dict(json.loads(data))
    assert (other.payload, other.payload_type) == (payload(), envelope.STATEMENT)
    assert other.pae() == envelope.pae(envelope.STATEMENT, payload())
    key = SSlibKey.from_crypto(KEY.public.public, keyid=KEY.thumbprint)
    assert key.scheme == "ecdsa-sha2-nistp256"
    assert other.verify([key], 1)


def test_a_node_statement_counts_only_under_its_own_key() -> None:
    node = Node()
    data = node.statement()
    assert read_node_statement(data, node.key.public).node_key == node.key.thumbprint
    other = SigningKey.generate()
    assert code_of(lambda: read_node_statement(data, other.public)) == "envelope.signature_invalid"
    forged = signed(envelope.read(data).payload, key=other)
    assert code_of(lambda: read_node_statement(forged, other.public)) == "node_statement.key"
    assert code_of(lambda: Node(key=other).statement(node_key=node.key.thumbprint)) == "node_statement.key"


def test_a_node_statement_is_about_the_header_it_names() -> None:
    node = Node()
    predicate = json.loads(envelope.read(node.statement()).payload)["predicate"]
    moved = frame(NODE_STATEMENT, "3" * 64, "3" * 64, json.dumps(predicate).encode())
    assert (
        code_of(lambda: read_node_statement(signed(moved, key=node.key), node.key.public))
        == "receipt.subject"
    )


def test_no_statement_passes_for_another_kind() -> None:
    node = signed(envelope.read(Node(key=KEY).statement()).payload)
    assert code_of(lambda: read(node)) == "receipt.predicate_type"
    assert code_of(lambda: read_node_statement(signed(payload()), KEY.public)) == "receipt.predicate_type"
    assert code_of(
        lambda: read_receipt(
            signed(payload()), ExecutionReceipt, keys=[KEY.public], issuer=CLINIC, federation=FEDERATION,
            audience=None,
        )
    ) == "receipt.predicate_type"  # fmt: skip


def promise(**changes: Any) -> InclusionPromise:
    values: dict[str, Any] = {
        "federation": FEDERATION,
        "issuer": CLINIC,
        "origin": "clinic.de/log",
        "receipt_id": "rid",
        "receipt_digest": "a" * 64,
        "leaf_hash": "b" * 64,
        "index": 4,
        "time": "2026-06-01T12:00:00.000Z",
        "deadline": "2026-06-01T12:00:10.000Z",
    }
    return InclusionPromise(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"issuer": CLOUD}, "promise.issuer"),
        ({"federation": "other"}, "promise.issuer"),
        ({"receipt_digest": "c" * 64}, "promise.receipt"),
        ({"deadline": "2026-06-01T11:59:59.000Z"}, "promise.times"),
    ],
)
def test_promises(changes: dict[str, Any], code: str | None) -> None:
    data = signed(promise_payload(promise(**changes)))

    def ask() -> Statement[InclusionPromise]:
        return read_promise(
            data, keys=[KEY.public], issuer=CLINIC, federation=FEDERATION, receipt_digest=bytes([0xAA]) * 32
        )

    if code is None:
        assert ask().body == promise()
    else:
        assert code_of(ask) == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=True),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(body())), JSON)
def test_no_field_makes_the_parser_stumble(name: str, value: object) -> None:
    """Whatever a field holds, the parser gives a receipt or one of its two refusals."""
    data = payload(body(**{name: value}))
    try:
        parse_receipt(data, PlacementReceipt)
    except ComityError as error:
        assert isinstance(error, Unreadable | Refused)  # noqa: PT017


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_noise_is_refused(data: bytes) -> None:
    for parse in (parse_node_statement, receipt_kind, lambda raw: parse_receipt(raw, PlacementReceipt)):
        assert code_of(lambda parse=parse: parse(data))  # type: ignore[misc]


def test_predicate_types_are_their_own() -> None:
    assert len({PLACEMENT, EXECUTION, NODE_STATEMENT, INCLUSION_PROMISE}) == 4
