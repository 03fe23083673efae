from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

import pytest
import securesystemslib.dsse
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

from schemas import envelope
from schemas.errors import ComityError, Refused, Unreadable
from schemas.keys import SigningKey, VerifyKey

KIND = envelope.MESSAGE
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
SIGNER = SigningKey.generate()
OTHER = SigningKey.generate()
SIGNED = envelope.sign(KIND, b'{"a":1}', SIGNER)


def altered(**changes: object) -> bytes:
    return json.dumps(json.loads(SIGNED) | changes).encode()


def signature(**changes: object) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(SIGNED)["signatures"][0]
    return entry | changes


def refusal(data: bytes, *keys: VerifyKey) -> str:
    with pytest.raises(ComityError) as caught:
        envelope.verify(data, KIND, keys or [SIGNER.public])
    return caught.value.code


@pytest.fixture
def published(vectors: Path) -> dict[str, Any]:
    case: dict[str, Any] = json.loads((vectors / "dsse" / "hello-world.json").read_bytes())
    return case


def test_the_published_example(published: dict[str, Any]) -> None:
    kind, payload = published["payloadType"], published["payload_utf8"].encode()
    assert envelope.pae(kind, payload).hex() == published["pae_hex"]
    assert envelope.digest(kind, payload).hex() == published["pae_sha256_hex"]
    key = VerifyKey.from_spki(base64.b64decode(published["key"]["spki_der_b64"]))
    der = published["signature"]["der_b64"]
    data = published["envelope"] | {"signatures": [{"keyid": published["keyid_hint"], "sig": der}]}
    assert envelope.verify(json.dumps(data).encode(), kind, [key]).payload == payload


def test_signing_the_published_example_again_gives_the_same_bytes(published: dict[str, Any]) -> None:
    private = ec.derive_private_key(int(published["key"]["d_dec"]), ec.SECP256R1())
    key = SigningKey(private, VerifyKey.of(private.public_key()))
    encoded = bytes.fromhex(published["pae_hex"])
    assert key.sign(encoded) == base64.b64decode(published["signature"]["der_b64"])


@pytest.mark.parametrize("payload", [b"", b"one", b"\xff" * 40])
def test_what_was_read_is_written_as_it_was_signed(payload: bytes) -> None:
    signed = envelope.sign(KIND, payload, SIGNER)
    assert envelope.write(envelope.read(signed)) == signed
    assert envelope.sign_digest(KIND, payload, envelope.digest(KIND, payload), SIGNER) == signed


def test_lengths_count_bytes_not_characters() -> None:
    assert envelope.pae("ä", "ö€".encode()) == b"DSSEv1 2 \xc3\xa4 5 \xc3\xb6\xe2\x82\xac"


def test_another_library_agrees_both_ways() -> None:
    pem = SIGNER.public.public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
    theirs = SSlibKey(SIGNER.thumbprint, "ecdsa", "ecdsa-sha2-nistp256", {"public": pem})
    read = securesystemslib.dsse.Envelope.from_dict(json.loads(SIGNED))
    assert read.pae() == envelope.pae(KIND, b'{"a":1}')
    assert set(read.verify([theirs], threshold=1)) == {SIGNER.thumbprint}
    again = json.dumps(read.to_dict()).encode()
    assert envelope.verify(again, KIND, [SIGNER.public]).digest == envelope.read(SIGNED).digest


def test_it_hands_out_what_was_signed_and_by_whom() -> None:
    held = envelope.verify(SIGNED, KIND, [OTHER.public, SIGNER.public])
    assert (held.payload, held.signer) == (b'{"a":1}', SIGNER.thumbprint)
    assert held.digest == envelope.digest(KIND, b'{"a":1}') == envelope.read(SIGNED).digest


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (altered(payloadType=envelope.STATEMENT), "envelope.payload_type"),
        (altered(payload=base64.b64encode(b'{"a":2}').decode()), "envelope.signature_invalid"),
        (altered(signatures=[]), "envelope.signature_count"),
        (altered(signatures=[signature(), signature()]), "envelope.signature_count"),
        (altered(signatures=[signature()] * 17), "envelope.signature_count"),
        (altered(signatures=[{"keyid": SIGNER.thumbprint}]), "envelope.malformed"),
        (altered(signatures=[signature(keyid=7)]), "envelope.malformed"),
        (altered(signatures=[signature(sig="AA==")]), "envelope.signature_invalid"),
        (altered(signatures={}), "envelope.malformed"),
        (altered(payload=7), "envelope.malformed"),
        (b"[]", "envelope.malformed"),
        (b"{", "json.syntax"),
        (SIGNED[:-1] + b',"payload":""}', "json.duplicate_key"),
    ],
)
def test_what_is_refused_and_why(data: bytes, code: str) -> None:
    assert refusal(data) == code


def test_a_keyid_is_a_hint_that_never_decides() -> None:
    unknown = altered(signatures=[signature(keyid="nobody")])
    assert envelope.verify(unknown, KIND, [OTHER.public, SIGNER.public]).signer == SIGNER.thumbprint
    absent = altered(signatures=[{"sig": signature()["sig"]}])
    assert envelope.verify(absent, KIND, [SIGNER.public]).signer == SIGNER.thumbprint
    claimed = altered(signatures=[signature(keyid=OTHER.thumbprint)])
    assert refusal(claimed, OTHER.public) == "envelope.signature_invalid"
    assert refusal(claimed, OTHER.public, SIGNER.public) == "envelope.signature_invalid"


def test_a_key_inside_the_envelope_is_never_used() -> None:
    jwk = OTHER.public.jwk.as_json()
    forged = json.loads(envelope.sign(KIND, b"{}", OTHER)) | {"jwk": jwk, "publicKey": jwk}
    assert refusal(json.dumps(forged).encode()) == "envelope.signature_invalid"


def test_without_a_registered_key_nothing_verifies() -> None:
    with pytest.raises(Refused, match=r"envelope\.key_unknown"):
        envelope.verify(SIGNED, KIND, [])


@pytest.mark.parametrize("spoil", ["{}=", " {}", "{}\n", "{}A", "=", "+-{}", "ä{}"])
def test_base64_has_one_spelling(spoil: str) -> None:
    text = json.loads(SIGNED)["payload"]
    assert refusal(altered(payload=spoil.format(text))) == "envelope.base64"


def test_base64_may_be_url_safe_but_not_mixed_or_loose() -> None:
    payload = b'"\xfb\xff\xfe>>>???"'
    signed = json.loads(envelope.sign(KIND, payload, SIGNER))
    urlsafe = base64.urlsafe_b64encode(payload).decode()
    assert {"-", "_"} & set(urlsafe)
    safe = json.dumps(signed | {"payload": urlsafe}).encode()
    assert envelope.verify(safe, KIND, [SIGNER.public]).payload == payload
    mixed = base64.b64encode(payload).decode().replace("+", "-", 1)
    assert refusal(json.dumps(signed | {"payload": mixed}).encode()) == "envelope.base64"
    assert refusal(altered(payload="eyJhIjoxfR==")) == "envelope.base64"


def unnamed(*keys: SigningKey) -> bytes:
    """Signatures without the hint of whose they are, which DSSE leaves to the writer."""
    made = json.loads(envelope.sign(KIND, b"{}", *keys))
    return json.dumps(made | {"signatures": [{"sig": each["sig"]} for each in made["signatures"]]}).encode()


def test_a_threshold_of_many_is_met_without_any_name() -> None:
    signers = [SigningKey.generate() for _ in range(envelope.MAX_SIGNATURES)]
    keys = [each.public for each in signers[::-1]]
    assert envelope.verify_threshold(unnamed(*signers), KIND, keys, len(signers)).payload == b"{}"
    with pytest.raises(Refused, match=r"envelope\.threshold"):
        envelope.verify_threshold(unnamed(*signers[1:]), KIND, keys, len(signers))


def test_an_unnamed_signature_costs_so_many_verifications_and_no_more() -> None:
    keys = [SigningKey.generate().public for _ in range(envelope.MAX_KEYS_TRIED - 1)]
    assert envelope.verify(unnamed(SIGNER), KIND, [*keys, SIGNER.public]).signer == SIGNER.thumbprint
    assert refusal(unnamed(SIGNER), *keys, OTHER.public, SIGNER.public) == "envelope.signature_invalid"


def test_a_threshold_counts_keys_not_signatures() -> None:
    keys = [SIGNER.public, OTHER.public]
    twice = json.loads(envelope.sign(KIND, b"{}", SIGNER, SIGNER))
    # ECDSA is malleable: (r, n - s) is a second valid signature by the same key.
    r, s = utils.decode_dss_signature(base64.b64decode(twice["signatures"][1]["sig"]))
    other = base64.b64encode(utils.encode_dss_signature(r, ORDER - s)).decode()
    twice["signatures"][1]["sig"] = other
    for listed in (keys, [*keys, SIGNER.public]):
        with pytest.raises(Refused, match="1 of 2"):
            envelope.verify_threshold(json.dumps(twice).encode(), KIND, listed, 2)
    twice["signatures"].pop(0)
    assert envelope.verify(json.dumps(twice).encode(), KIND, keys).digest == envelope.digest(KIND, b"{}")
    both = envelope.sign(KIND, b"{}", SIGNER, OTHER)
    assert envelope.verify_threshold(both, KIND, keys, 2).payload == b"{}"
    with pytest.raises(Refused, match=r"envelope\.threshold"):
        envelope.verify_threshold(both, KIND, keys, 0)
    with pytest.raises(Refused, match=r"envelope\.payload_type"):
        envelope.verify_threshold(both, envelope.STATEMENT, keys, 2)


@given(st.data())
def test_any_changed_byte_is_refused(data: st.DataObject) -> None:
    spoiled = bytearray(base64.b64decode(json.loads(SIGNED)["payload"]))
    at = data.draw(st.integers(0, len(spoiled) - 1))
    spoiled[at] ^= 1 << data.draw(st.integers(0, 7))
    text = base64.b64encode(bytes(spoiled)).decode()
    assert refusal(altered(payload=text)) == "envelope.signature_invalid"


NOISE: Final = [
    b"", b'"', b"\\", b"\\/", b"\\u0041", b"=", b"-", b"_", b" ", b"\n", b"\x01", b"}", b"B", b"AA==",
    b"null", b'","payload":"', b'"more":1,', b'{"keyid":"","sig":""},', b"\xff", b"\xc3\xa4",
]  # fmt: skip


@given(st.data())
def test_both_ways_of_reading_agree(data: st.DataObject) -> None:
    """An envelope in our own spelling is read faster, never otherwise."""
    signed = envelope.sign(KIND, data.draw(st.binary(max_size=40)), SIGNER)
    at = data.draw(st.integers(0, len(signed)))
    noise = data.draw(st.sampled_from(NOISE) | st.binary(max_size=2))
    gone = data.draw(st.integers(0, 3))
    changed = signed[:at] + noise + signed[at + gone :]
    plain = envelope._read_written(changed)
    if plain is not None:
        assert plain == envelope._read_any(changed, envelope.MAX_ENVELOPE_BYTES)
    assert envelope._read_written(signed) == envelope._read_any(signed, envelope.MAX_ENVELOPE_BYTES)


def test_an_escaped_slash_is_still_base64() -> None:
    signed = next(
        each for number in range(100) if b"/" in (each := envelope.sign(KIND, b"?" * number, SIGNER))
    )
    escaped = signed.replace(b"/", b"\\/")
    assert envelope.read(escaped) == envelope.read(signed)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_envelope_or_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        envelope.read(data)
