"""A witness's answers, one for each condition of the protocol, in its order."""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipts import merkle, note, witness
from receipts.checkpoint import Checkpoint
from receipts.cosignature import SUBTREE
from receipts.note import Note, NoteSigner, Signature
from receipts.tests.conftest import code_of, vectors
from receipts.witness import Answer, Cosigner, CosignerKey
from schemas.errors import Refused, Unreadable

ORIGIN = "cloud.fr/log"
LOG = NoteSigner.of(ORIGIN, bytes(range(32)))
SIGNER = Cosigner.of("clinic.de/witness", bytes(31) + b"\1")
LEAVES = [merkle.leaf_hash(bytes([number])) for number in range(9)]
STRANGER = NoteSigner.of(ORIGIN, bytes(32))
TIME = 1_780_000_000


def tree(size: int, leaves: list[bytes] = LEAVES) -> Checkpoint:
    return Checkpoint(ORIGIN, size, merkle.root(leaves[:size]))


def subtree(level: int, index: int) -> bytes:
    return merkle.root(LEAVES[index << level : (index + 1) << level])


def body(old: int, new: Checkpoint, hashes: list[bytes] | None = None, signer: NoteSigner = LOG) -> bytes:
    if hashes is None:
        hashes = merkle.consistency_proof(old, new.size, subtree)
    lines = [f"old {old}", *(base64.b64encode(part).decode() for part in hashes), "", ""]
    return "\n".join(lines).encode() + signer.sign(new.text)


def ask(data: bytes, last: Checkpoint | None = None) -> Answer:
    known = {} if last is None else {ORIGIN: last}
    return witness.judge(data, logs={ORIGIN: [LOG.key]}, last=known, signer=SIGNER, time=TIME)


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 5), (5, 5), (3, 7), (4, 9)])
def test_a_tree_that_continues_is_cosigned(old: int, new: int) -> None:
    before = tree(old) if old else None
    answer = ask(body(old, tree(new)), before)
    assert (answer.status, answer.cosigned) == (200, tree(new))
    (line,) = note.read_signatures(answer.body.decode())
    assert SIGNER.key.verify(line, tree(new).text) == TIME
    with pytest.raises(Refused):
        SIGNER.key.verify(line, tree(new + 1).text if new < 9 else tree(1).text)


OTHER = [merkle.leaf_hash(bytes([number, 1])) for number in range(9)]
REFUSED: list[tuple[str, bytes, Checkpoint | None, int, str]] = [
    ("noise", b"noise", None, 400, "witness.request"),
    ("leading-zero", body(0, tree(5)).replace(b"old 0", b"old 00"), None, 400, "witness.request"),
    ("bad-hash", body(3, tree(5), [b"short"]), tree(3), 400, "witness.hash"),
    ("junk-behind", body(0, tree(5)) + b"junk\n", None, 400, "note.signature_line"),
    ("unknown-log", body(0, Checkpoint("other/log", 5, tree(5).root)), None, 404, "witness.unknown_log"),
    ("unsigned", body(0, tree(5), signer=STRANGER), None, 403, "note.no_known_signer"),
    ("old-beyond-new", body(7, tree(5), []), tree(7), 400, "witness.old_size"),
    ("not-what-was-cosigned", body(3, tree(7)), tree(4), 409, "witness.conflict"),
    ("never-cosigned", body(3, tree(7)), None, 409, "witness.conflict"),
    ("rollback", body(4, tree(4), []), tree(7), 409, "witness.conflict"),
    ("same-size-other-root", body(5, tree(5, OTHER), []), tree(5), 422, "merkle.consistency"),
    ("another-history", body(3, tree(7, OTHER)), tree(3), 422, "merkle.consistency"),
    ("no-proof", body(3, tree(7), []), tree(3), 422, "merkle.proof_length"),
    ("proof-from-nothing", body(0, tree(7), [LEAVES[0]]), None, 422, "merkle.proof_length"),
    ("empty-root-of-a-stranger", body(0, Checkpoint("other/log", 0, LEAVES[0]), []), None, 404,
     "witness.unknown_log"),
    ("empty-root-unsigned", body(0, Checkpoint(ORIGIN, 0, LEAVES[0]), [], STRANGER), None, 403,
     "note.no_known_signer"),
    ("size-beyond-the-format", body(0, Checkpoint(ORIGIN, 2**63, LEAVES[0]), []), None, 400,
     "checkpoint.size_range"),
    ("empty-root-behind-what-was-cosigned", body(0, Checkpoint(ORIGIN, 0, LEAVES[0]), []), tree(5), 409,
     "witness.conflict"),
    ("empty-root-and-old-beyond", body(5, Checkpoint(ORIGIN, 0, LEAVES[0]), []), tree(5), 400,
     "witness.old_size"),
    ("empty-root-trap", body(0, Checkpoint(ORIGIN, 0, LEAVES[0]), []), None, 422, "checkpoint.empty_root"),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=[case[0] for case in REFUSED])
def test_everything_else_is_refused(case: tuple[str, bytes, Checkpoint | None, int, str]) -> None:
    _, data, last, status, reason = case
    answer = ask(data, last)
    assert (answer.status, answer.reason, answer.cosigned) == (status, reason, None)
    if status == 409:
        assert answer.body == f"{last.size if last else 0}\n".encode()
        assert answer.content_type == "text/x.tlog.size"


def test_a_bad_line_by_the_log_s_key_spoils_the_note() -> None:
    parsed = note.read(LOG.sign(tree(5).text))
    bad = Signature(ORIGIN, LOG.key.key_id, bytes(64))
    data = b"old 0\n\n" + note.write(Note(parsed.text, (*parsed.signatures, bad)))
    assert (ask(data).status, ask(data).reason) == (403, "note.signature_invalid")


def test_cosignatures_at_their_limits() -> None:
    text = tree(5).text
    good = SIGNER.sign(text, TIME)
    assert code_of(lambda: SIGNER.sign(text, 0)) == "witness.time"
    assert code_of(lambda: SIGNER.sign(text, 2**63)) == "witness.time"
    for blob, code in (
        (good.blob[:-1], "witness.cosignature_length"),
        (bytes(8) + good.blob[8:], "witness.time"),
        (b"\xff" * 8 + good.blob[8:], "witness.time"),
        ((TIME + 1).to_bytes(8) + good.blob[8:], "note.signature_invalid"),
    ):
        changed = Signature(good.name, good.key_id, blob)
        assert code_of(lambda changed=changed: SIGNER.key.verify(changed, text)) == code  # type: ignore[misc]
    other = CosignerKey.of("someone/else", SIGNER.key.raw)
    assert code_of(lambda: other.verify(good, text)) == "witness.other_key"


def test_what_a_cosignature_would_not_cover_is_not_cosigned_with_it() -> None:
    """Of two keys, the one that signs the whole text answers for a checkpoint with extension lines."""
    strong = Cosigner.of(SIGNER.key.name, bytes(31) + b"\1", SUBTREE)
    extended = replace(tree(5), extensions=("epoch 7",))
    for stated, wanted in ((tree(5), [SIGNER.key, strong.key]), (extended, [SIGNER.key])):
        answer = witness.judge(
            body(0, stated, []), logs={ORIGIN: [LOG.key]}, last={}, signer=SIGNER, time=TIME, also=[strong]
        )
        lines = note.read_signatures(answer.body.decode())
        assert [line.key_id for line in lines] == [key.key_id for key in wanted]


@pytest.mark.parametrize(
    ("vkey", "code"),
    [
        (SIGNER.key.vkey.replace("clinic", "klinik"), "note.key_id"),
        (note.format_vkey("w", note.key_id("w", 4, bytes(32)), 4, bytes(32)), "note.weak_key"),
        (
            note.format_vkey("w", note.key_id("w", 4, b"\1" + bytes(31)), 4, b"\1" + bytes(31)),
            "note.weak_key",
        ),
        (note.format_vkey("w", note.key_id("w", 6, bytes(32)), 6, bytes(32)), "note.key_length"),
        ("w+00000000+BA==", "note.key_length"),
        ("w+0000000+BA==", "note.vkey"),
    ],
)
def test_witness_keys_that_are_not_registered(vkey: str, code: str) -> None:
    """Under a key of small order, every tree would be cosigned by everybody."""
    assert code_of(lambda: CosignerKey.read(vkey)) == code


def test_a_cosigner_key_is_not_a_note_key() -> None:
    """The same 32 bytes as type 0x01 and as type 0x04 have different ids: one never passes for the other."""
    assert note.NoteKey.of(SIGNER.key.name, SIGNER.key.raw).key_id != SIGNER.key.key_id
    assert code_of(lambda: note.NoteKey.read(SIGNER.key.vkey)) == "note.key_type"


present = pytest.mark.skipif(
    not vectors().is_dir(), reason="third-party vectors are not here; set COMITY_VECTORS to their folder"
)


def c2sp(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((vectors() / "c2sp" / name).read_text())
    return found


@present
def test_the_published_cosignature_message() -> None:
    case = c2sp("checkpoint-cosigned-parse-only.json")
    wanted = case["expect_parse"]
    parsed = note.read(case["note"].encode())
    line = parsed.signatures[1]
    time = int.from_bytes(line.blob[:8])
    assert time == wanted["signatures"][1]["timestamp"]
    message = witness.cosignature_message(parsed.text, time)
    assert message.hex() == wanted["ed25519_cosignature_message_hex"]
    assert message.decode() == wanted["ed25519_cosignature_message"]


@present
def test_the_published_request() -> None:
    case = c2sp("witness-add-checkpoint-parse-only.json")
    wanted = case["expect_parse"]
    request = witness.read_request(case["request_body"].encode())
    assert (request.old_size, len(request.hashes)) == (wanted["old_size"], wanted["proof_hashes"])
    assert request.signed.checkpoint.size == wanted["checkpoint_size"]
    assert len(request.signed.note.signatures) == wanted["checkpoint_signatures"]
    lines = note.read_signatures(case["response_body"])
    times = [int.from_bytes(line.blob[:8]) for line in lines]
    assert times == [line["timestamp_field"] for line in wanted["response_lines"]]
    beyond = [line for line, time in zip(lines, times, strict=True) if time > witness.MAX_TIME]
    assert len(beyond) == 2
    for line in beyond:
        key = CosignerKey(line.name, line.key_id, SIGNER.key.raw, SIGNER.key.public)
        assert code_of(lambda key=key, line=line: key.verify(line, "text\n")) == "witness.time"  # type: ignore[misc]


@given(st.binary(max_size=200) | st.tuples(st.integers(0, 200), st.binary(max_size=3)).map(
    lambda cut: body(3, tree(7))[: cut[0]] + cut[1] + body(3, tree(7))[cut[0] + 1 :]
))  # fmt: skip
def test_noise_is_refused(data: bytes) -> None:
    with contextlib.suppress(Unreadable, Refused):
        witness.read_request(data)
    assert ask(data, tree(3)).status in (200, 400, 403, 404, 409, 422)
