"""Third-party vectors: agreement with them is interoperability, not self-consistency."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from receipts import checkpoint, merkle, note
from receipts.log.tiles import tile_path, tiles_at
from receipts.note import Note, NoteKey
from receipts.tests.conftest import vectors
from schemas import envelope
from schemas.canonical import sha256
from schemas.errors import ComityError, Refused, Unreadable
from schemas.keys import SigningKey, VerifyKey

present = pytest.mark.skipif(
    not vectors().is_dir(), reason="third-party vectors are not here; set COMITY_VECTORS to their folder"
)
pytestmark = present


def cases(folder: str) -> list[Any]:
    if not vectors().is_dir():
        return []
    paths = sorted(path for path in (vectors() / folder).rglob("*") if path.suffix == ".json")
    return [pytest.param(path, id=f"{path.parent.name}/{path.stem}") for path in paths]


@cache
def c2sp(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((vectors() / "c2sp" / name).read_text())
    return found


def decoded(values: list[str] | None) -> list[bytes]:
    return [base64.b64decode(value) for value in values or []]


@pytest.mark.parametrize("path", cases("merkle/inclusion"))
def test_inclusion(path: Path) -> None:
    case = json.loads(path.read_text())
    leaf, root = (base64.b64decode(case[name]) for name in ("leafHash", "root"))
    given = (leaf, case["leafIdx"], case["treeSize"], decoded(case["proof"]), root)
    if case["wantErr"]:
        with pytest.raises(Refused) as refused:
            merkle.verify_inclusion(*given)
        assert refused.value.code.startswith("merkle.")
    else:
        assert merkle.verify_inclusion(*given) == root


@pytest.mark.parametrize("path", cases("merkle/consistency"))
def test_consistency(path: Path) -> None:
    case = json.loads(path.read_text())
    roots = [base64.b64decode(case[name]) for name in ("root1", "root2")]
    given = (case["size1"], case["size2"], *roots, decoded(case["proof"]))
    if case["wantErr"]:
        with pytest.raises(Refused) as refused:
            merkle.verify_consistency(*given)
        assert refused.value.code.startswith("merkle.")
    else:
        assert merkle.verify_consistency(*given) == roots[1]


def test_the_signed_note_verifies_and_only_as_it_is() -> None:
    case = c2sp("signed-note-ed25519.json")
    data, wanted = base64.b64decode(case["note_b64"]), case["expect"]
    key = NoteKey.read(case["vkey"])
    parsed = note.read(data)
    (signature,) = note.verify(parsed, [key])
    assert data.decode() == case["note"]
    assert (key.name, key.key_id.hex(), key.raw.hex()) == (
        wanted["key_name"], wanted["key_id_hex"], wanted["public_key_hex"],
    )  # fmt: skip
    assert (parsed.text, signature.blob.hex()) == (wanted["text"], wanted["signature_hex"])
    assert key.vkey == case["vkey"]
    assert note.write(parsed) == data


def test_every_changed_byte_of_the_note_is_refused() -> None:
    case = c2sp("signed-note-ed25519.json")
    data, key = base64.b64decode(case["note_b64"]), NoteKey.read(case["vkey"])
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(ComityError) as refused:
            note.verify(note.read(changed), [key])
        assert isinstance(refused.value, Unreadable | Refused)


def test_the_note_under_another_key_has_no_known_signer() -> None:
    parsed = note.read(base64.b64decode(c2sp("signed-note-ed25519.json")["note_b64"]))
    other = note.NoteSigner.of("example.com/foo", bytes(31) + b"\1").key
    with pytest.raises(Refused) as refused:
        note.verify(parsed, [other])
    assert refused.value.code == "note.no_known_signer"


def test_a_note_splits_at_its_last_empty_line() -> None:
    case = c2sp("note-with-empty-line-parse-only.json")
    parsed = note.read(case["note"].encode())
    assert parsed.text == case["expect_parse"]["text"]
    check_signatures(parsed, case["expect_parse"]["signatures"])


def test_the_cosigned_checkpoint_parses() -> None:
    case = c2sp("checkpoint-cosigned-parse-only.json")
    signed, wanted = checkpoint.read(case["note"].encode()), case["expect_parse"]
    stated = signed.checkpoint
    assert (stated.origin, stated.size, list(stated.extensions)) == (
        wanted["origin"], wanted["size"], wanted["extension_lines"],
    )  # fmt: skip
    assert base64.b64encode(stated.root).decode() == wanted["root_b64"]
    assert stated.text == signed.note.text
    check_signatures(signed.note, wanted["signatures"])


def check_signatures(parsed: Note, wanted: list[dict[str, Any]]) -> None:
    assert [(line.name, line.key_id.hex(), len(line.blob)) for line in parsed.signatures] == [
        (line["name"], line["key_id_hex"], line["bytes_after_key_id"]) for line in wanted
    ]


def test_witness_responses_are_signature_lines() -> None:
    case = c2sp("witness-add-checkpoint-parse-only.json")
    lines = note.read_signatures(case["response_body"])
    check_signatures(Note("", lines), case["expect_parse"]["response_lines"])


def test_tile_paths_and_sizes() -> None:
    case = c2sp("tile-arithmetic.json")
    for entry in case["index_to_path"]:
        assert tile_path(entry["n"]) == entry["path"]
    for entry in case["tree_size_to_tiles"]:
        wanted = [(tile["full"], tile["partial_width"]) for _, tile in sorted(entry["tiles"].items())]
        assert tiles_at(entry["size"]) == wanted


@cache
def dsse() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((vectors() / "dsse" / "hello-world.json").read_text())
    return found


def test_dsse_pae_and_deterministic_signature() -> None:
    case = dsse()
    payload = base64.b64decode(case["payload_b64"])
    encoded = envelope.pae(case["payloadType"], payload)
    assert encoded.hex() == case["pae_hex"]
    assert sha256(encoded).hex() == case["pae_sha256_hex"]
    private = ec.derive_private_key(int(case["key"]["d_hex"], 16), ec.SECP256R1())
    key = SigningKey(private, VerifyKey.of(private.public_key()))
    numbers = (int(case["signature"][name], 16) for name in ("r_hex", "s_hex"))
    assert (
        key.sign(encoded) == encode_dss_signature(*numbers) == base64.b64decode(case["signature"]["der_b64"])
    )


@pytest.mark.parametrize("part", ["payloadType", "payload", "signature"])
def test_dsse_refuses_every_change(part: str) -> None:
    case = dsse()
    key = VerifyKey.from_spki(base64.b64decode(case["key"]["spki_der_b64"]))
    payload, signature = (
        base64.b64decode(text) for text in (case["payload_b64"], case["signature"]["der_b64"])
    )
    kind = case["payloadType"]
    key.verify(signature, envelope.pae(kind, payload))
    if part == "payloadType":
        kind = kind.replace("H", "h", 1)
    elif part == "payload":
        payload = b"Hello world"
    else:
        signature = signature[:-1] + bytes([signature[-1] ^ 1])
    with pytest.raises(Refused) as refused:
        key.verify(signature, envelope.pae(kind, payload))
    assert refused.value.code == "keys.signature_invalid"


@pytest.mark.parametrize("path", cases("jcs/input"))
def test_jcs(path: Path) -> None:
    """Through the canonicaliser itself: two cases hold numbers that a receipt may not."""
    value = json.loads(path.read_text("utf-8"))
    wanted = (path.parents[1] / "output" / path.name).read_bytes()
    spaced = (path.parents[1] / "outhex" / f"{path.stem}.txt").read_text()
    assert rfc8785.dumps(value) == wanted == bytes.fromhex(spaced)
