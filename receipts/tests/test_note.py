"""Notes, checkpoints, proofs and leaf records: known answers, every refusal, and parsers under noise."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from receipts import checkpoint, leaf, merkle, note, proof
from receipts.checkpoint import Checkpoint
from receipts.leaf import Kind
from receipts.merkle import EMPTY_ROOT
from receipts.note import Note, NoteKey, NoteSigner, Signature
from receipts.proof import Proof
from receipts.tests.conftest import code_of
from schemas.errors import Refused, Unreadable
from schemas.keys import SigningKey, base64url

ORIGIN = "clinic.de/log"
SIGNER = NoteSigner.of(ORIGIN, bytes(range(32)))
ROOT = hashlib.sha256(b"root").digest()
SIGNED = SIGNER.sign(Checkpoint(ORIGIN, 7, ROOT).text)


def test_the_key_id_is_what_signed_note_defines() -> None:
    """Computed here from the definition: name, newline, type byte, public key."""
    raw = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()
    key_id = hashlib.sha256(ORIGIN.encode() + b"\n\x01" + raw).digest()[:4]
    assert SIGNER.key.vkey == f"{ORIGIN}+{key_id.hex()}+{base64.b64encode(bytes([1]) + raw).decode()}"
    assert NoteKey.read(SIGNER.key.vkey) == SIGNER.key


def test_a_checkpoint_is_these_bytes() -> None:
    """Frozen: the text by hand, the signature by RFC 8032 over exactly that text."""
    text = f"{ORIGIN}\n7\n{base64.b64encode(ROOT).decode()}\n"
    blob = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))).sign(text.encode())
    line = base64.b64encode(SIGNER.key.key_id + blob).decode()
    assert SIGNED.decode() == f"{text}\n\u2014 {ORIGIN} {line}\n"
    signed = checkpoint.verify(SIGNED, [SIGNER.key], origin=ORIGIN)
    assert signed.checkpoint == Checkpoint(ORIGIN, 7, ROOT)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: data[:-1], "note.shape"),
        (lambda data: data + b"junk\n", "note.signature_line"),
        (lambda data: data + b"\n", "note.shape"),
        (lambda data: data + "— someone MTIzNA==\n".encode(), "note.signature_line"),
        (lambda data: data.replace(b"\xe2\x80\x94 ", b"- "), "note.signature_line"),
        (lambda data: data.replace(b"\n\n", b"\n"), "note.shape"),
        (lambda data: b"\t" + data, "note.control"),
        (lambda data: b"\xff" + data, "note.encoding"),
        (lambda data: data + b"x" * note.MAX_NOTE_BYTES, "note.too_long"),
        (lambda data: data + (data.split(b"\n\n")[1]) * note.MAX_SIGNATURES, "note.signature_count"),
        (lambda data: data.replace(b"\n\n", b"\n\nclinic\n"), "note.signature_line"),
    ],
)
def test_notes_that_cannot_be_read(change: object, code: str) -> None:
    assert callable(change)
    data = change(SIGNED)
    assert code_of(lambda: note.read(data)) == code


def test_an_unknown_signature_counts_for_nothing_and_a_bad_known_one_spoils_all() -> None:
    parsed = note.read(SIGNED)
    other = Signature("someone/else", b"1234", b"x" * 64)
    more = Note(parsed.text, (other, *parsed.signatures))
    assert note.verify(more, [SIGNER.key]) == parsed.signatures
    bad = Signature(ORIGIN, SIGNER.key.key_id, b"x" * 64)
    assert (
        code_of(lambda: note.verify(Note(parsed.text, (*parsed.signatures, bad)), [SIGNER.key]))
        == "note.signature_invalid"
    )


@pytest.mark.parametrize(
    ("vkey", "code"),
    [
        ("", "note.vkey"),
        ("name", "note.vkey"),
        ("name+12345678+", "note.vkey"),
        ("name+1234567+AQ==", "note.vkey"),
        ("name+12345678+AQ==", "note.key_length"),
        ("name+12345678+BA==", "note.key_type"),
        (SIGNER.key.vkey.replace("clinic", "klinik"), "note.key_id"),
        (SIGNER.key.vkey.replace("clinic.de", "clinic de"), "note.name"),
        ("+" + SIGNER.key.vkey.partition("+")[2], "note.name"),
    ],
)
def test_bad_verifier_keys(vkey: str, code: str) -> None:
    assert code_of(lambda: NoteKey.read(vkey)) == code


SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]
"""The eight small-order points of edwards25519, and two encodings beyond the field's prime."""


@pytest.mark.parametrize("raw", SMALL_ORDER)
def test_an_ed25519_key_that_anybody_can_sign_for_is_not_registered(raw: str) -> None:
    assert code_of(lambda: NoteKey.of(ORIGIN, bytes.fromhex(raw))) == "note.weak_key"


ORDER = 2**252 + 27742317777372353535851937790883648493  # of edwards25519's group, RFC 8032 5.1


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "s and the order": lambda blob: blob[:32] + _little(int.from_bytes(blob[32:], "little") + ORDER),
    "s of zero": lambda blob: blob[:32] + bytes(32),
    "another sign of R": lambda blob: blob[:31] + bytes([blob[31] ^ 0x80]) + blob[32:],
    "R beyond the prime": lambda blob: _little(2**255 - 18) + blob[32:],
    "short": lambda blob: blob[:-1],
    "long": lambda blob: blob + b"\0",
    "empty": lambda blob: b"",
}


def _little(number: int) -> bytes:
    return number.to_bytes(32, "little")


@pytest.mark.parametrize("how", SPOILT)
def test_an_ed25519_signature_has_one_spelling(how: str) -> None:
    text = good("").encode()
    blob = SIGNER.private.sign(text)
    SIGNER.key.verify(blob, text)
    assert code_of(lambda: SIGNER.key.verify(SPOILT[how](blob), text)) == "note.signature_invalid"


def good(text: str) -> str:
    return f"{ORIGIN}\n{text}\n"


B64 = base64.b64encode(ROOT).decode()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (good(f"7\n{B64}")[:-1], "checkpoint.shape"),
        (good("7"), "checkpoint.shape"),
        (good(f"7\n{B64}\n"), "checkpoint.shape"),
        (good(f"7\n{B64}" + "\nmore" * (checkpoint.MAX_EXTENSION_LINES + 1)), "checkpoint.shape"),
        (good(f"07\n{B64}"), "checkpoint.size"),
        (good(f"+7\n{B64}"), "checkpoint.size"),
        (good(f"-7\n{B64}"), "checkpoint.size"),
        (good(f" 7\n{B64}"), "checkpoint.size"),
        (good(f"0x7\n{B64}"), "checkpoint.size"),
        (good(f"\u0667\n{B64}"), "checkpoint.size"),
        (good(f"12345678901234567890\n{B64}"), "checkpoint.size"),
        (good(f"9223372036854775808\n{B64}"), "checkpoint.size_range"),
        (good(f"0\n{B64}"), "checkpoint.empty_root"),
        (good("7\n" + B64[:-4]), "checkpoint.root"),
        (good("7\n" + base64.b64encode(ROOT[:31]).decode()), "checkpoint.root"),
        (good("7\n" + B64.replace("=", "")), "base64.invalid"),
    ],
)
def test_checkpoints_that_are_none(text: str, code: str) -> None:
    assert code_of(lambda: checkpoint.parse_text(text)) == code


def test_sizes_at_their_ends() -> None:
    assert checkpoint.parse_text(Checkpoint(ORIGIN, 0, EMPTY_ROOT).text).size == 0
    assert checkpoint.parse_text(Checkpoint(ORIGIN, 2**63 - 1, ROOT).text).size == 2**63 - 1


def test_our_logs_have_one_origin_and_no_extension_lines() -> None:
    other = SIGNER.sign(Checkpoint("cloud.fr/log", 7, ROOT).text)
    assert code_of(lambda: checkpoint.verify(other, [SIGNER.key], origin=ORIGIN)) == "checkpoint.origin"
    extended = SIGNER.sign(Checkpoint(ORIGIN, 7, ROOT, ("more",)).text)
    assert code_of(lambda: checkpoint.verify(extended, [SIGNER.key], origin=ORIGIN)) == "checkpoint.extension"


SALT, DIGEST, KEY = b"s" * 32, b"d" * 32, b"k" * 32


def test_a_leaf_record_is_these_66_bytes() -> None:
    record = leaf.make(Kind.EXECUTION, SALT, DIGEST, base64url(KEY))
    tag = hmac.new(SALT, DIGEST, hashlib.sha256).digest()
    assert record.write() == b"\x01\x02" + tag + KEY
    # printf '%32s' | tr ' ' d | openssl dgst -sha256 -hmac ssssssssssssssssssssssssssssssss
    assert tag.hex() == "2ca78bd43041ba436e281ca59c8abd05ee59cb1e6bb227f9e257cdfca9977808"
    assert len(record.write()) == leaf.RECORD_BYTES
    assert leaf.read(record.write()) == record
    assert record.hash == hashlib.sha256(b"\0" + record.write()).digest()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x01\x01" + bytes(63), "leaf.length"),
        (b"\x02\x01" + bytes(64), "leaf.version"),
        (b"\x01\x00" + bytes(64), "leaf.kind"),
        (b"\x01\x0b" + bytes(64), "leaf.kind"),
    ],
)
def test_leaf_records_that_are_none(data: bytes, code: str) -> None:
    assert code_of(lambda: leaf.read(data)) == code


@pytest.mark.parametrize("thumbprint", ["", "A" * 42, "A" * 44, "!" * 43, "A" * 42 + "B", "Ä" * 43])
def test_thumbprints_that_are_none(thumbprint: str) -> None:
    assert code_of(lambda: leaf.make(Kind.PLACEMENT, SALT, DIGEST, thumbprint)) == "leaf.thumbprint"


def logged(count: int, index: int) -> bytes:
    """A proof for the record above at `index` among `count` leaves."""
    record = leaf.make(Kind.EXECUTION, SALT, DIGEST, base64url(KEY))
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(count)]
    leaves[index] = record.hash
    stated = Checkpoint(ORIGIN, count, merkle.root(leaves))
    path = tuple(merkle.inclusion_path(leaves, index))
    return proof.write(Proof(index, path, SIGNER.sign(stated.text), SALT))


def verify(data: bytes, **changes: object) -> proof.Logged:
    given_: dict[str, object] = {
        "kind": Kind.EXECUTION,
        "receipt_digest": DIGEST,
        "issuer_thumbprint": base64url(KEY),
        "origin": ORIGIN,
        "keys": [SIGNER.key],
    }
    return proof.verify(data, **(given_ | changes))  # type: ignore[arg-type]


def test_a_proof_leads_from_the_receipt_to_the_signed_checkpoint() -> None:
    data = logged(9, 5)
    assert data.startswith(b"c2sp.org/tlog-proof@v1\nextra c3Nzc3")
    assert verify(data).index == 5
    assert verify(data).checkpoint.checkpoint.size == 9
    parsed = proof.read(data)
    assert proof.write(parsed) == data


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"receipt_digest": b"e" * 32}, "merkle.inclusion"),
        ({"issuer_thumbprint": base64url(b"l" * 32)}, "merkle.inclusion"),
        ({"kind": Kind.PLACEMENT}, "merkle.inclusion"),
        ({"origin": "cloud.fr/log"}, "checkpoint.origin"),
        ({"keys": []}, "note.no_known_signer"),
        ({"keys": [NoteSigner.of(ORIGIN, bytes(31) + b"1").key]}, "note.no_known_signer"),
    ],
)
def test_a_proof_holds_for_one_receipt_under_one_key_only(changes: dict[str, object], code: str) -> None:
    assert code_of(lambda: verify(logged(9, 5), **changes)) == code


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"index 5", b"index 4", "merkle.inclusion"),
        (b"index 5", b"index 9", "merkle.index"),
        (b"index 5", b"index 05", "proof.index"),
        (b"index 5", b"index -5", "proof.index"),
        (b"index 5\n", b"", "proof.index"),
        (b"extra c3Nz", b"extra d3Nz", "merkle.inclusion"),
        (b"extra ", b"extra  ", "base64.invalid"),
        (b"tlog-proof@v1", b"tlog-proof@v2", "proof.header"),
        (b"\n9\n", b"\n8\n", "note.signature_invalid"),
        (b"index 5\n", b"index 5\nAAAA\n", "proof.hash"),
        (b"index 5\n", b"index 5\n" + base64.b64encode(ROOT) + b"\n", "merkle.proof_length"),
        (b"index 5\n", b"index 5\n" + (base64.b64encode(ROOT) + b"\n") * 64, "proof.length"),
        (b"\n\n", b"\n", "base64.invalid"),
    ],
)
def test_every_part_of_a_proof_counts(old: bytes, new: bytes, code: str) -> None:
    data = logged(9, 5)
    assert old in data
    assert code_of(lambda: verify(data.replace(old, new, 1))) == code


def test_a_proof_without_salt_shows_nothing() -> None:
    parsed = proof.read(logged(9, 5))
    assert code_of(lambda: verify(proof.write(Proof(parsed.index, parsed.path, parsed.note)))) == "proof.salt"


NOISE = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.tuples(st.integers(0, 400), st.binary(max_size=3)).map(
        lambda cut: logged(9, 5)[: cut[0]] + cut[1] + logged(9, 5)[cut[0] + 1 :]
    ),
)


@given(NOISE)
def test_parsers_raise_nothing_but_their_own_errors(data: bytes) -> None:
    for read in (note.read, checkpoint.read, proof.read, leaf.read, verify):
        with contextlib.suppress(Unreadable, Refused):
            read(data)
    with contextlib.suppress(Unreadable, Refused):
        NoteKey.read(data.decode("latin-1"))


NAMES = st.text(st.characters(exclude_categories=["Z", "C"], exclude_characters="+"), min_size=1, max_size=40)


@given(NAMES, st.binary(min_size=1, max_size=80), st.text(max_size=60))
def test_what_is_written_is_read_back(name: str, blob: bytes, text: str) -> None:
    made = Note(text.replace("\r", "") + "\n", (Signature(name, b"1234", blob),))
    try:
        data = note.write(made)
        again = note.read(data)
    except Unreadable:
        return  # a text that a note cannot hold, such as one with a control character
    assert again == made


def test_one_key_is_one_name() -> None:
    key = SigningKey.generate()
    assert leaf.raw_thumbprint(key.thumbprint) == base64.urlsafe_b64decode(key.thumbprint + "=")


# The example of two signers in the documentation of Go's golang.org/x/mod/sumdb/note, byte for byte.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TWO_SIGNERS = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBw"
    "JnAM=\n"
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ"
    "=\n"
).encode()


@pytest.mark.parametrize("known", [[PETER], [ENOCH], [PETER, ENOCH]])
def test_a_note_of_two_signers_holds_under_whoever_is_known(known: list[str]) -> None:
    held = note.verify(note.read(TWO_SIGNERS), [NoteKey.read(vkey) for vkey in known])
    assert [each.name for each in held] == [vkey.partition("+")[0] for vkey in known]


def test_one_known_signature_that_fails_spoils_a_note_that_another_holds() -> None:
    spoiled = TWO_SIGNERS.replace(b"rwz+eBzm", b"rwz+eBzn")
    peter, enoch = NoteKey.read(PETER), NoteKey.read(ENOCH)
    assert note.verify(note.read(spoiled), [peter])
    assert code_of(lambda: note.verify(note.read(spoiled), [peter, enoch])) == "note.signature_invalid"


@pytest.mark.parametrize("kind", [0x00, 0x02, 0x05, 0x06, 0xFF])
def test_lines_of_other_algorithms_count_for_nothing(kind: int) -> None:
    """Type bytes stand in key ids alone: a line of an unknown kind is a line by an unknown key."""
    identifier = note.key_id("PeterNeumann", kind, bytes(32))
    line = f"— PeterNeumann {base64.b64encode(identifier + b'any length').decode()}\n".encode()
    assert len(note.verify(note.read(TWO_SIGNERS + line), [NoteKey.read(PETER)])) == 1
    vkey = note.format_vkey("PeterNeumann", identifier, kind, bytes(32))
    assert code_of(lambda: NoteKey.read(vkey)) == "note.key_type"


def test_a_proof_of_any_log_s_leaf() -> None:
    """Without salt and receipt: a leaf hash is all that is needed, whatever the leaf says."""
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(9)]
    stated = SIGNER.sign(Checkpoint(ORIGIN, 9, merkle.root(leaves)).text)
    parsed = proof.read(proof.write(Proof(5, tuple(merkle.inclusion_path(leaves, 5)), stated)))
    keys = [SIGNER.key]
    assert proof.verify_leaf(parsed, leaves[5], origin=ORIGIN, keys=keys).index == 5
    assert (
        code_of(lambda: proof.verify_leaf(parsed, leaves[4], origin=ORIGIN, keys=keys)) == "merkle.inclusion"
    )


def test_a_proof_from_a_log_that_writes_extension_lines_holds_but_is_none_of_ours() -> None:
    """tlog-checkpoint allows them, the log's signature covers them, and ours have none (receipts.md 8.2)."""
    parsed = proof.read(logged(9, 5))
    stated = checkpoint.read(parsed.note).checkpoint
    extended = replace(parsed, note=SIGNER.sign(replace(stated, extensions=("epoch 7",)).text))
    record = leaf.make(Kind.EXECUTION, SALT, DIGEST, base64url(KEY))
    found = proof.verify_leaf(extended, record.hash, origin=ORIGIN, keys=[SIGNER.key])
    assert found.checkpoint.checkpoint.extensions == ("epoch 7",)
    assert code_of(lambda: verify(proof.write(extended))) == "checkpoint.extension"
    cut = replace(extended, note=extended.note.replace(b"epoch 7", b"epoch 8"))
    assert (
        code_of(lambda: proof.verify_leaf(cut, record.hash, origin=ORIGIN, keys=[SIGNER.key]))
        == "note.signature_invalid"
    )
